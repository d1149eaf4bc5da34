//! Reading log files of several hosts, as one stream in the order of time.
//!
//! Each host tells its lines in order over a channel of its own, no faster than they are taken; here they are merged. No host is locked: reading
//! changes nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{select_all, unfold};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::bounds::cut_failure;
use super::channel::{log_in, timed_hello, with_tail};
use super::logins::Logins;
use super::protocol::violation;
use super::sending::Sending;
use crate::failure::{Failure, FailureKind};
use crate::logs::read::{Line, MOST_PIECE, Query, Told};
use crate::plan::{Connection, Contents};
use crate::remote::codec::{encode, hello};
use crate::remote::wire::{Patience, ToController, ToHelper};
use crate::remote::{Link, Reach, START};

/// How many batches of a host wait for those of others.
const AHEAD: usize = 2;

/// The most files of which a host tells lines at a time, and the longest path of one, in bytes.
const MOST_FILES: usize = 65_536;
const MOST_PATH: usize = 4_096;

/// How often the output is flushed when nothing comes: it may have gone.
const LOOK_AT_OUTPUT: Duration = Duration::from_millis(500);

/// How many names of files are remembered at most, to tell copies.
const MOST_NAMES: usize = 4_000_000;

/// The most failures of one host that are passed on.
const MOST_FAILURES: usize = 1_000;

/// What is read on one host.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its inventory name.
    pub host: String,
    /// How it is reached.
    pub connection: Connection,
    /// What is read there.
    pub query: Query,
}

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The number of the host among those that were asked.
    pub host: usize,
    /// The number of the folder in the host's query.
    pub folder: usize,
    /// The path of the file below the folder.
    pub path: String,
}

/// Takes what was read. `false` ends it.
pub trait Output {
    /// Takes a line, or a piece of one: see [`Line`].
    fn line(&mut self, from: &Arc<Origin>, line: &Line) -> bool;
    /// Takes what could not be read; of a whole host when that could not be reached or is not trusted.
    fn failed(&mut self, host: usize, failure: &Failure);
    /// Nothing more may come for a while.
    fn flush(&mut self) -> bool;
}

/// The output wants nothing more.
struct Enough;

/// Reads on every host; no more than `forks` of them are connected to at the same time. With `last` in the queries these are the last lines of all
/// together.
pub async fn read(asked: Vec<Asked>, reach: Arc<Reach>, forks: usize, output: &mut impl Output) {
    let logins = Arc::new(Logins::new(forks));
    let last = asked.first().and_then(|asked| asked.query.last);
    let mut tasks = JoinSet::new();
    let mut hosts = Vec::new();
    for (number, Asked { host, connection, query }) in asked.into_iter().enumerate() {
        let (sender, batches) = mpsc::channel(AHEAD);
        let folders = query.folders.len();
        let asking = Asking { name: host, connection, reach: Arc::clone(&reach), logins: Arc::clone(&logins), sender };
        tasks.spawn(asking.run(query));
        hosts.push(Host { batches, heard: Heard::new(number, folders) });
    }
    // Whether the output wanted all of it makes no difference here.
    let _ = merged(hosts, last, output).await;
}

/// One host that is being asked.
struct Asking {
    name: String,
    connection: Connection,
    reach: Arc<Reach>,
    logins: Arc<Logins>,
    sender: mpsc::Sender<Result<Vec<Told>, Failure>>,
}

impl Asking {
    async fn run(self, query: Query) {
        if let Err(failure) = self.converse(query).await {
            let _ = self.sender.send(Err(failure)).await;
        }
    }

    async fn converse(&self, query: Query) -> Result<(), Failure> {
        let patience = Patience::default();
        let link = log_in(&self.name, &self.connection, &self.reach, &self.logins).await?;
        let Link { mut input, output, stderr, uploaded, guard } = link;
        let limit = if uploaded { ("start", START) } else { ("silence", patience.silence) };
        if let Err(failure) = timed_hello(&mut input, limit).await {
            return Err(with_tail(failure, &stderr).await);
        }
        let mut opening = hello();
        opening.extend(encode(&ToHelper::Read(Box::new(query)))?);
        let sending = Sending::start(output, opening, Arc::new(Contents::default()), patience.heartbeat);
        let pulse = input.pulse();
        let (sender, mut incoming) = mpsc::channel(1);
        // A task of its own reads, so that no frame is cut by a select.
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            loop {
                let next = input.next::<ToController>().await;
                let over = !matches!(next, Ok(Some(_)));
                if sender.send(next).await.is_err() || over {
                    return;
                }
            }
        });
        let ended = self.listen(&mut incoming, &pulse, patience.silence).await;
        drop((reading, sending, guard));
        match ended {
            Err(failure) if failure.kind == FailureKind::Lost => Err(with_tail(failure, &stderr).await),
            ended => ended,
        }
    }

    async fn listen(
        &self,
        incoming: &mut mpsc::Receiver<Result<Option<ToController>, Failure>>,
        pulse: &crate::remote::pulse::Pulse,
        silence: Duration,
    ) -> Result<(), Failure> {
        let lost = |text: &str| Failure::of(FailureKind::Lost, text.to_owned());
        loop {
            let message = tokio::select! {
                biased;
                message = incoming.recv() => {
                    let gone = || lost("the helper ended before everything was read");
                    message.ok_or_else(gone)??.ok_or_else(gone)?
                }
                () = pulse.silence(silence) => {
                    return Err(lost("the helper has fallen silent").because(Failure::timeout("silence", silence)));
                }
            };
            match message {
                ToController::Read(batch) => {
                    let over = batch.last() == Some(&Told::End);
                    if self.sender.send(Ok(batch)).await.is_err() || over {
                        return Ok(());
                    }
                    // As long as others were waited for nothing was read.
                    pulse.beat();
                }
                ToController::Pong => {}
                ToController::Fatal(mut failure) => {
                    cut_failure(&mut failure);
                    failure.kind = FailureKind::Step;
                    return Err(failure);
                }
                ToController::Event(_) | ToController::NeedBlob { .. } | ToController::Lock(_) => {
                    return Err(violation("something of a run", "it was asked for lines of log files"));
                }
            }
        }
    }
}

/// A host in the merge.
struct Host {
    batches: mpsc::Receiver<Result<Vec<Told>, Failure>>,
    heard: Heard,
}

/// The segments that were told, by the hashes of their names, and where each is read. A segment's name holds a random ID, so that one of the same name in
/// another folder is a copy: its lines come once.
#[derive(Default)]
struct Segments {
    hashed: RandomState,
    known: HashMap<u64, Arc<Origin>>,
}

impl Segments {
    /// Returns whether a segment is read nowhere else.
    fn is_first(&mut self, origin: &Arc<Origin>) -> bool {
        let name = self.hashed.hash_one(Path::new(&origin.path).file_name());
        if self.known.len() >= MOST_NAMES && !self.known.contains_key(&name) {
            return true;
        }
        self.known.entry(name).or_insert_with(|| Arc::clone(origin)) == origin
    }
}

/// What is known of what a host tells.
struct Heard {
    host: usize,
    folders: usize,
    /// `None` for those of which another host or folder has told.
    files: HashMap<u32, Option<Arc<Origin>>>,
    failures: usize,
    /// Lines that were told and are not merged yet.
    lines: VecDeque<(Arc<Origin>, Line)>,
    /// It is through with everything that was there when it was asked.
    is_current: bool,
    /// It tells nothing more.
    is_over: bool,
}

impl Heard {
    fn new(host: usize, folders: usize) -> Self {
        let (files, lines) = (HashMap::new(), VecDeque::new());
        Self { host, folders, files, failures: 0, lines, is_current: false, is_over: false }
    }

    /// Takes a batch, or the failure of the whole host; checks what is in it.
    fn take(&mut self, batch: Result<Vec<Told>, Failure>, segments: &mut Segments, output: &mut impl Output) {
        let taken = batch.and_then(|batch| batch.into_iter().try_for_each(|told| self.told(told, segments, output)));
        if let Err(failure) = taken {
            output.failed(self.host, &failure);
            self.is_over = true;
        }
    }

    fn told(&mut self, told: Told, segments: &mut Segments, output: &mut impl Output) -> Result<(), Failure> {
        match told {
            Told::File { number, folder, path } => {
                let folder = usize::try_from(folder).unwrap_or(usize::MAX);
                if folder >= self.folders || path.len() > MOST_PATH || self.files.len() >= MOST_FILES {
                    return Err(violation("lines of a file", "it was not asked for it, or tells of too many"));
                }
                let origin = Arc::new(Origin { host: self.host, folder, path });
                let first = segments.is_first(&origin);
                self.files.insert(number, first.then_some(origin));
            }
            Told::Line { file, line } => {
                let origin = self.files.get(&file).filter(|_| line.text.len() <= MOST_PIECE);
                let Some(origin) = origin else {
                    return Err(violation("a line", "it is too long, or of no file that was named"));
                };
                self.lines.extend(origin.as_ref().map(|origin| (Arc::clone(origin), line)));
            }
            Told::Over { number } => drop(self.files.remove(&number)),
            Told::Failed(mut failure) => {
                self.failures += 1;
                if self.failures > MOST_FAILURES {
                    *failure = Failure::new("more could not be read, of which nothing is told");
                }
                if self.failures <= MOST_FAILURES + 1 {
                    cut_failure(&mut failure);
                    // Of a file, whatever the host calls it.
                    failure.kind = FailureKind::Step;
                    output.failed(self.host, &failure);
                }
            }
            Told::Current => self.is_current = true,
            Told::End => self.is_over = true,
        }
        Ok(())
    }
}

impl Host {
    /// The place of the next line; `None` when there is none before everything that was there is told.
    async fn next(&mut self, segments: &mut Segments, output: &mut impl Output) -> Result<Option<i64>, Enough> {
        loop {
            if let Some((_, line)) = self.heard.lines.front() {
                return Ok(Some(line.at));
            }
            if self.heard.is_over || self.heard.is_current {
                return Ok(None);
            }
            let batch = match self.batches.try_recv() {
                Ok(batch) => Some(batch),
                Err(_) => {
                    flush(output)?;
                    self.batches.recv().await
                }
            };
            match batch {
                Some(batch) => self.heard.take(batch, segments, output),
                None => self.heard.is_over = true,
            }
        }
    }
}

fn flush(output: &mut impl Output) -> Result<(), Enough> {
    if output.flush() { Ok(()) } else { Err(Enough) }
}

fn line(output: &mut impl Output, (from, line): &(Arc<Origin>, Line)) -> Result<(), Enough> {
    if output.line(from, line) { Ok(()) } else { Err(Enough) }
}

/// Gives out what was there in the order of time, and then what is written, as it comes.
async fn merged(mut hosts: Vec<Host>, last: Option<usize>, output: &mut impl Output) -> Result<(), Enough> {
    let mut turns: BinaryHeap<_> = (0..hosts.len()).map(|number| Reverse((i64::MIN, number))).collect();
    let (mut kept, mut segments) = (VecDeque::new(), Segments::default());
    while let Some(Reverse((_, number))) = turns.pop() {
        let Some(host) = hosts.get_mut(number) else { continue };
        let told = host.heard.lines.pop_front();
        // The rest of a line comes before everything else.
        let is_within = told.as_ref().is_some_and(|(_, line)| !line.text.ends_with(b"\n"));
        match (told, last) {
            (Some(told), Some(most)) => {
                kept.push_back(told);
                if kept.len() > most {
                    kept.pop_front();
                }
            }
            (Some(told), None) => line(output, &told)?,
            (None, _) => {}
        }
        if let Some(at) = host.next(&mut segments, output).await? {
            turns.push(Reverse((if is_within { i64::MIN } else { at }, number)));
        }
    }
    kept.iter().try_for_each(|told| line(output, told))?;
    flush(output)?;
    let (mut heard, streams): (Vec<Heard>, Vec<_>) = hosts
        .into_iter()
        .filter(|host| !host.heard.is_over)
        .enumerate()
        .map(|(place, Host { batches, heard })| {
            let next = move |mut batches: mpsc::Receiver<_>| async move {
                let batch = batches.recv().await?;
                Some(((place, batch), batches))
            };
            (heard, Box::pin(unfold(batches, next)))
        })
        .unzip();
    let mut streams = select_all(streams);
    loop {
        let next = match tokio::time::timeout(LOOK_AT_OUTPUT, streams.next()).await {
            Ok(None) => return Ok(()),
            Ok(next) => next,
            Err(_) => None,
        };
        let Some((place, batch)) = next else {
            flush(output)?;
            continue;
        };
        let Some(heard) = heard.get_mut(place) else { continue };
        heard.take(batch, &mut segments, output);
        while let Some(told) = heard.lines.pop_front() {
            line(output, &told)?;
        }
        flush(output)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept {
        lines: Vec<(usize, String)>,
        failed: Vec<(usize, String)>,
    }

    impl Output for Kept {
        fn line(&mut self, from: &Arc<Origin>, line: &Line) -> bool {
            self.lines.push((from.host, String::from_utf8(line.text.clone()).unwrap()));
            true
        }

        fn failed(&mut self, host: usize, failure: &Failure) {
            self.failed.push((host, failure.to_string()));
        }

        fn flush(&mut self) -> bool {
            true
        }
    }

    /// The file of that number; each host has another one.
    fn file(host: usize, number: u32) -> Told {
        Told::File { number, folder: 0, path: format!("www/{number}.{host}.log") }
    }

    fn said(at: i64, text: &str) -> Told {
        Told::Line { file: 1, line: Line { at, text: text.as_bytes().to_vec() } }
    }

    /// What becomes of what hosts tell, each in its batches.
    async fn of(hosts: Vec<Vec<Vec<Told>>>, last: Option<usize>) -> Kept {
        let (mut kept, mut all) = (Kept::default(), Vec::new());
        for (number, batches) in hosts.into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel(1);
            all.push(Host { batches: receiver, heard: Heard::new(number, 1) });
            tokio::spawn(async move {
                for batch in batches {
                    let _ = sender.send(Ok(batch)).await;
                }
            });
        }
        let _ = merged(all, last, &mut kept).await;
        kept
    }

    fn texts(kept: &Kept) -> Vec<&str> {
        kept.lines.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[tokio::test]
    async fn lines_of_hosts_are_merged_and_pieces_of_one_stay_together() {
        let one =
            vec![vec![file(0, 1), said(1, "a\n")], vec![said(3, "long ")], vec![said(3, "line\n"), said(9, "z\n")]];
        let two = vec![vec![file(1, 1), said(2, "b\n"), said(3, "c\n"), said(4, "d\n"), Told::End]];
        let hosts = || vec![one.clone(), two.clone(), Vec::new()];
        assert_eq!(texts(&of(hosts(), None).await), ["a\n", "b\n", "long ", "line\n", "c\n", "d\n", "z\n"]);
        assert_eq!(texts(&of(hosts(), Some(2)).await), ["d\n", "z\n"]);
        assert_eq!(texts(&of(hosts(), Some(0)).await), [""; 0]);
    }

    #[tokio::test]
    async fn a_segment_that_is_stored_elsewhere_too_comes_once() {
        let copy = Told::File { number: 1, folder: 0, path: "web1/www/1.0.log".to_owned() };
        let one = vec![vec![file(0, 1), said(1, "a\n"), said(3, "b\n"), Told::End]];
        let two = vec![
            vec![copy, said(1, "a\n"), said(3, "b\n"), Told::Over { number: 1 }],
            vec![file(1, 1), said(4, "c\n"), Told::End],
        ];
        let kept = of(vec![one.clone(), two.clone()], None).await;
        assert_eq!(texts(&kept), ["a\n", "b\n", "c\n"]);
        // Whichever comes first: where the other one is gone, the copy is what there is.
        assert_eq!(texts(&of(vec![Vec::new(), two], None).await), ["a\n", "b\n", "c\n"]);
    }

    #[tokio::test]
    async fn what_is_written_later_comes_as_it_comes() {
        let one =
            vec![vec![file(0, 1), said(1, "a\n"), Told::Current], vec![said(8, "late\n")], vec![said(9, "later\n")]];
        let two = vec![vec![file(1, 1), said(2, "b\n"), Told::Current]];
        let kept = of(vec![one, two], Some(1)).await;
        assert_eq!(texts(&kept), ["b\n", "late\n", "later\n"]);
    }

    #[tokio::test]
    async fn a_host_that_tells_what_it_was_not_asked_for_is_not_heard_any_more() {
        let cases = [
            vec![said(1, "of no file\n")],
            vec![Told::File { number: 1, folder: 1, path: "x".to_owned() }],
            vec![Told::File { number: 1, folder: 0, path: "x".repeat(MOST_PATH + 1) }],
            vec![file(0, 1), Told::Over { number: 1 }, said(1, "it was over\n")],
            vec![file(0, 1), said(1, &"x".repeat(MOST_PIECE + 1))],
            (0..=u32::try_from(MOST_FILES).unwrap()).map(|number| file(0, number)).collect(),
        ];
        for case in cases {
            let one = vec![case, vec![file(0, 1), said(5, "more\n")]];
            let two = vec![vec![file(1, 1), said(2, "b\n"), Told::End]];
            let kept = of(vec![one, two], None).await;
            assert_eq!(kept.lines, [(1, "b\n".to_owned())]);
            assert_eq!(kept.failed.len(), 1);
            assert!(kept.failed[0].1.contains("and may not"), "{:?}", kept.failed);
        }
    }

    #[tokio::test]
    async fn failures_are_passed_on_up_to_a_bound() {
        let failed = Told::Failed(Box::new(Failure::of(FailureKind::Lost, "x".repeat(1_000_000))));
        let kept =
            of(vec![vec![vec![failed; MOST_FAILURES + 5], vec![file(0, 1), said(1, "a\n"), Told::End]]], None).await;
        assert_eq!((kept.failed.len(), texts(&kept)), (MOST_FAILURES + 1, vec!["a\n"]));
        assert!(kept.failed[0].1.len() < 100_000);
    }
}
