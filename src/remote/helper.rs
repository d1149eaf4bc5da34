//! The helper: this same binary on a host. It lives on its stdin, speaks frames on its stdout, log lines on its stderr.
//!
//! It never listens and never daemonizes. It ends itself when its stdin closes, or when nothing came for
//! [`SILENCE`](super::wire::SILENCE): OpenSSH's own idea of a connection is not enough (a cut link leaves a reader waiting for ever).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};

use super::bounded;
use super::codec::{Reader, encode, hello, send_bytes};
use super::pulse::Pulse;
use super::reading;
use super::wire::{LockAnswer, MOST_MEMORY, Patience, ToController, ToHelper};
use crate::calendar::utc;
use crate::change::Change;
use crate::engine::{self, Orders, World};
use crate::event::{Event, EventKind, Outcome};
use crate::failure::{Context as _, Failure, FailureKind};
use crate::logs::read::{Query, Told};
use crate::plan::HostPlan;
use crate::system::{BlobFuture, BlobSource, fs};
use crate::value::{Digest, Map, Value};

/// The only field of a step's result that does not fit a frame.
pub const TOO_LONG: &str = "too_long";

/// How long the running step may go on after a stop: the limit `abort`.
pub const ABORT: Duration = Duration::from_secs(10);

/// How long a change that is neither confirmed nor put back may take to be put back, when the run is given up: the limit `put back`.
pub const PUT_BACK: Duration = Duration::from_secs(60);

/// How long destructors (which kill process groups) may take when the helper ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many batches of lines wait for a slow link.
const MOST_BATCHES: usize = 2;

/// The longest plan, in bytes.
const MOST_PLAN: usize = 256 * 1024 * 1024;

/// How many times its length a plan may take in memory, beside [`MOST_MEMORY`].
const MOST_GROWTH: usize = 64;

/// The longest content that is asked for, in bytes.
const MOST_BLOB: usize = 1024 * 1024 * 1024;

/// What programs begin with, over SSH as on this machine: files for everybody to read. What fanli writes itself has modes of its own.
const UMASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// Where fanli keeps its own things on a host, when nothing else is said.
pub fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/fanli");
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    home.join(".local/state/fanli")
}

/// The whole life of a helper process.
pub fn main(state_dir: &Path) -> ExitCode {
    // What a library might print must not end up between frames.
    let frames = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3);
    let quiet = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
    let (Ok(frames), Ok(())) = (frames, quiet) else { return ExitCode::FAILURE };
    rustix::process::umask(UMASK);
    let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, no_core);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let state_dir = state_dir.to_owned();
    let ended = runtime.block_on(async move {
        let output = tokio::fs::File::from_std(std::fs::File::from(frames));
        live(tokio::io::stdin(), output, &state_dir, Patience::default()).await
    });
    runtime.shutdown_timeout(FAREWELL);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fanli helper: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Speaks with a controller over any pair of streams, until one side ends.
///
/// # Errors
/// The stream breaks or falls silent; a failure of the plan is told to the controller and no error here.
pub async fn live<R, W>(input: R, mut output: W, state_dir: &Path, patience: Patience) -> Result<(), Failure>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    send_bytes(&mut output, &hello()).await?;
    let (replies, outgoing) = mpsc::unbounded_channel();
    let (batches, read) = mpsc::channel(MOST_BATCHES);
    let writer = tokio::spawn(write(output, outgoing, read, patience.heartbeat));
    let reader = Reader::new(input, &[]);
    let pulse = reader.pulse();
    let mut incoming = Incoming { messages: listen(reader), pulse, silence: patience.silence };
    let session = Session { replies: replies.clone(), asked: Arc::default(), state_dir: state_dir.to_owned() };
    let ended = match session.run(&mut incoming, batches).await {
        Ok(()) => Ok(()),
        Err(failure) if failure.kind == FailureKind::Lost => Err(failure),
        Err(failure) => {
            let _ = replies.send(ToController::Fatal(failure));
            Ok(())
        }
    };
    drop((session, replies));
    // What was said last must reach the controller, but not for ever.
    let _ = tokio::time::timeout(FAREWELL, writer).await;
    ended
}

/// A task of its own reads frames, so that no frame is cut by a select.
fn listen<R>(mut reader: Reader<R>) -> mpsc::Receiver<Result<ToHelper, Failure>>
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(failure) = reader.hello().await {
            let _ = sender.send(Err(failure)).await;
            return;
        }
        loop {
            let message = match reader.next::<ToHelper>().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => return,
                Err(failure) => Err(failure),
            };
            let broken = message.is_err();
            if sender.send(message).await.is_err() || broken {
                return;
            }
        }
    });
    receiver
}

/// Writes replies, and a sign of life when there was none for a while.
async fn write<W: AsyncWrite + Unpin>(
    mut output: W,
    mut replies: mpsc::UnboundedReceiver<ToController>,
    mut read: mpsc::Receiver<Vec<Told>>,
    heartbeat: Duration,
) {
    loop {
        let reply = tokio::select! {
            biased;
            Some(batch) = read.recv() => ToController::Read(batch),
            reply = replies.recv() => match reply {
                Some(reply) => reply,
                None => return,
            },
            () = tokio::time::sleep(heartbeat) => ToController::Pong,
        };
        let mut bytes = fitting(reply);
        // What waits already goes out in the same write.
        while bytes.len() < 64 * 1024 {
            let Ok(more) = replies.try_recv() else { break };
            bytes.extend(fitting(more));
        }
        if send_bytes(&mut output, &bytes).await.is_err() {
            return;
        }
    }
}

/// A message as a frame. The end of a step comes in any case: what does not fit the frame is left out, what tells most last.
fn fitting(mut reply: ToController) -> Vec<u8> {
    for cut in [shorten_diffs, shorten_fields, shorten_output] {
        if let Ok(bytes) = encode(&reply) {
            return bytes;
        }
        if let ToController::Event(event) = &mut reply
            && let EventKind::StepFinished { outcome, output, .. } = &mut event.kind
        {
            cut(outcome, output);
        }
    }
    encode(&reply).unwrap_or_default()
}

/// The most fields of a change that does not fit its frame.
const MOST_FIELDS: usize = 500;

fn change_of(outcome: &mut Outcome) -> Option<&mut Change> {
    match outcome {
        Outcome::Changed(change)
        | Outcome::WouldChange(change)
        | Outcome::Failed(_, Some(change))
        | Outcome::Ignored(_, Some(change)) => Some(change),
        _ => None,
    }
}

fn shorten_diffs(outcome: &mut Outcome, _: &mut Map) {
    for field in change_of(outcome).into_iter().flat_map(|change| &mut change.fields) {
        field.diff = field.diff.as_ref().map(|_| "(too long to show)\n".to_owned());
    }
}

fn shorten_fields(outcome: &mut Outcome, _: &mut Map) {
    change_of(outcome).into_iter().for_each(|change| change.fields.truncate(MOST_FIELDS));
}

fn shorten_output(_: &mut Outcome, output: &mut Map) {
    *output = Map::from([(TOO_LONG.to_owned(), Value::Bool(true))]);
}

/// Blobs that were asked for: who waits, and what came so far.
type Asked = Arc<Mutex<BTreeMap<Digest, Waiting>>>;

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    waiters: Vec<oneshot::Sender<Result<Arc<[u8]>, Failure>>>,
}

/// What the controller says.
pub(super) struct Incoming {
    messages: mpsc::Receiver<Result<ToHelper, Failure>>,
    pulse: Pulse,
    silence: Duration,
}

impl Incoming {
    /// The next message, within the limit of silence. Safe to cancel.
    ///
    /// # Errors
    /// The controller is gone, has fallen silent, or says what cannot be read.
    pub(super) async fn next(&mut self) -> Result<ToHelper, Failure> {
        let lost = |text: &str| Failure::of(FailureKind::Lost, text.to_owned());
        tokio::select! {
            message = self.messages.recv() => message.unwrap_or_else(|| Err(lost("the controller is gone"))),
            () = self.pulse.silence(self.silence) => Err(lost("the controller has fallen silent")),
        }
    }
}

/// What a controller asks for.
enum Task {
    Plan(HostPlan),
    Read(Box<Query>),
}

struct Session {
    replies: mpsc::UnboundedSender<ToController>,
    asked: Asked,
    state_dir: PathBuf,
}

impl Session {
    async fn run(&self, incoming: &mut Incoming, batches: mpsc::Sender<Vec<Told>>) -> Result<(), Failure> {
        let mut first_orders = Vec::new();
        let plan = match self.task(incoming).await? {
            Task::Plan(plan) => plan,
            Task::Read(query) => return reading::serve(*query, batches, incoming).await,
        };
        drop(batches);
        make_state_dir(&self.state_dir)?;
        let _lock = self.until_it_goes_on(incoming, &mut first_orders).await?;
        let (orders, order_queue) = mpsc::unbounded_channel();
        for order in first_orders {
            let _ = orders.send(order);
        }
        let (events, mut happened) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(engine::Stop::No);
        let (open, is_open) = watch::channel(0);
        let host = plan.host.clone();
        let started = Instant::now();
        let blobs = Arc::new(Remote { replies: self.replies.clone(), asked: Arc::clone(&self.asked) });
        let world =
            World { blobs, state_dir: self.state_dir.clone(), events, orders: order_queue, stop: stopped, open };
        // Aborted on drop, so that the children of a running step die with it.
        let engine = AbortOnDrop(tokio::spawn(engine::run(plan, world)));
        let mut index = 0;
        let mut deadline: Option<tokio::time::Instant> = None;
        // Why the run is given up; what is open is put back before the helper ends.
        let mut given_up: Option<Failure> = None;
        loop {
            tokio::select! {
                event = happened.recv() => {
                    let Some(kind) = event else { return engine_ended(engine).await };
                    let last = matches!(kind, EventKind::HostFinished { .. });
                    let at_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let event = Event { host: host.clone(), index, at_ms, kind };
                    index += 1;
                    let _ = self.replies.send(ToController::Event(Box::new(event)));
                    if last {
                        return given_up.filter(|failure| failure.kind == FailureKind::Lost).map_or(Ok(()), Err);
                    }
                }
                message = incoming.next(), if given_up.as_ref().is_none_or(|failure| failure.kind != FailureKind::Lost) => {
                    let message = match message {
                        Ok(message) => message,
                        Err(failure) if *is_open.borrow() > 0 => {
                            give_up(&mut given_up, failure, &stop, &mut deadline);
                            continue;
                        }
                        Err(failure) => return Err(failure),
                    };
                    match message {
                        ToHelper::Go { stage, without } => {
                            let _ = orders.send(Orders::Go(stage, without));
                        },
                        ToHelper::Skip { from, to } => {
                            let _ = orders.send(Orders::Skip(from, to));
                        },
                        ToHelper::Blob { digest, piece, last } => self.received(digest, &piece, last),
                        ToHelper::Stop => {
                            stop.send_if_modified(|stop| *stop < engine::Stop::InOrder && {
                                *stop = engine::Stop::InOrder;
                                true
                            });
                            deadline.get_or_insert(tokio::time::Instant::now() + ABORT);
                        }
                        ToHelper::Ping | ToHelper::Plan { .. } | ToHelper::Read(_) | ToHelper::Lock { .. } | ToHelper::Unlock => {}
                    }
                }
                () = until(deadline) => {
                    if let Some(failure) = given_up {
                        return Err(failure.because(Failure::timeout("put back", PUT_BACK)));
                    }
                    let failure = Failure::of(FailureKind::Aborted, "the running step did not end")
                        .because(Failure::timeout("abort", ABORT));
                    if *is_open.borrow() == 0 {
                        return Err(failure);
                    }
                    give_up(&mut given_up, failure, &stop, &mut deadline);
                }
            }
        }
    }

    /// Hears what is to be done, and gathers the plan.
    async fn task(&self, incoming: &mut Incoming) -> Result<Task, Failure> {
        let mut bytes = Vec::new();
        loop {
            match incoming.next().await? {
                ToHelper::Plan { piece, last } => {
                    bytes.extend(piece);
                    if bytes.len() > MOST_PLAN {
                        return Err(Failure::of(FailureKind::Internal, "the plan is longer than 256 MiB"));
                    }
                    if last {
                        break;
                    }
                }
                ToHelper::Read(query) if bytes.is_empty() => return Ok(Task::Read(query)),
                ToHelper::Stop => return Err(Failure::of(FailureKind::Aborted, "stopped before it began")),
                _ => {}
            }
        }
        bounded::decode(&bytes, MOST_MEMORY + bytes.len().saturating_mul(MOST_GROWTH))
            .map(Task::Plan)
            .map_err(|error| Failure::of(FailureKind::Internal, format!("the plan does not decode: {error}")))
    }

    /// Takes and frees the host's lock as the controller says, until it lets the first stage go or skips it. While it waits for the lock,
    /// the controller may still go away or say stop.
    async fn until_it_goes_on(
        &self,
        incoming: &mut Incoming,
        orders: &mut Vec<Orders>,
    ) -> Result<Option<fs::Lock>, Failure> {
        let mut held = None;
        let mut taking: Option<Taking<'_>> = None;
        while orders.is_empty() {
            tokio::select! {
                taken = attempted(&mut taking) => {
                    taking = None;
                    let answer = match taken? {
                        (fs::Attempt::Taken(lock), place) => {
                            held = Some(lock);
                            LockAnswer::Taken { place }
                        }
                        (fs::Attempt::Held(by), place) => LockAnswer::Held { place, by },
                    };
                    let _ = self.replies.send(ToController::Lock(answer));
                }
                message = incoming.next() => match message? {
                    ToHelper::Go { stage, without } => orders.push(Orders::Go(stage, without)),
                    ToHelper::Skip { from, to } => orders.push(Orders::Skip(from, to)),
                    ToHelper::Lock { wait, by } => {
                        held = None;
                        taking = Some(Box::pin(take_lock(fs::run_lock(&self.state_dir), by, wait)));
                    }
                    ToHelper::Unlock => (held, taking) = (None, None),
                    ToHelper::Stop => return Err(Failure::of(FailureKind::Aborted, "stopped before it began")),
                    ToHelper::Plan { .. } | ToHelper::Read(_) | ToHelper::Blob { .. } | ToHelper::Ping => {}
                },
            }
        }
        Ok(held)
    }

    fn received(&self, digest: Digest, piece: &[u8], last: bool) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = asked.get_mut(&digest) else { return };
        waiting.bytes.extend_from_slice(piece);
        let too_long = waiting.bytes.len() > MOST_BLOB;
        if !last && !too_long {
            return;
        }
        let Some(waiting) = asked.remove(&digest) else { return };
        let sound = !too_long && Digest::of(&waiting.bytes) == digest;
        let bytes: Arc<[u8]> = waiting.bytes.into();
        for waiter in waiting.waiters {
            let answer = if sound {
                Ok(Arc::clone(&bytes))
            } else {
                let message = format!("content {} arrived damaged", digest.short());
                Err(Failure::new(message).hint("its file changed while the run was under way; run again"))
            };
            let _ = waiter.send(answer);
        }
    }
}

/// An attempt to take the host's lock, and which lock that is.
type Taking<'a> = Pin<Box<dyn Future<Output = Result<(fs::Attempt, String), Failure>> + Send + 'a>>;

/// Ends when the lock was taken or is held by another run; never without an attempt.
async fn attempted(taking: &mut Option<Taking<'_>>) -> Result<(fs::Attempt, String), Failure> {
    match taking {
        Some(taking) => taking.await,
        None => std::future::pending().await,
    }
}

async fn take_lock(path: PathBuf, by: String, wait: Duration) -> Result<(fs::Attempt, String), Failure> {
    let by = by.lines().next().unwrap_or_default();
    let note = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{by}, since {} UTC {}", utc(now.as_secs()), fs::this_process())
    };
    let attempt = fs::attempt(&path, &note, wait).await?;
    Ok((attempt, place_of(&path)?))
}

/// A lock's name that is the same for every run, whatever it calls the host: two of them take several locks in one order by it.
fn place_of(path: &Path) -> Result<String, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let meta = std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(format!("{} {}:{}", boot.trim(), meta.dev(), meta.ino()))
}

/// Has the engine put back what is open, within [`PUT_BACK`]. A controller that goes away meanwhile changes nothing.
fn give_up(
    given_up: &mut Option<Failure>,
    failure: Failure,
    stop: &watch::Sender<engine::Stop>,
    deadline: &mut Option<tokio::time::Instant>,
) {
    if given_up.replace(failure).is_none() {
        *deadline = Some(tokio::time::Instant::now() + PUT_BACK);
        stop.send_replace(engine::Stop::Now);
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The engine has no more to say without having finished: it panicked.
async fn engine_ended(mut engine: AbortOnDrop) -> Result<(), Failure> {
    let cause = match (&mut engine.0).await {
        Ok(()) => "it ended without a word".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::of(FailureKind::Internal, "the engine broke").because(cause).hint("this is a defect of fanli"))
}

fn make_state_dir(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Asks the controller for contents.
struct Remote {
    replies: mpsc::UnboundedSender<ToController>,
    asked: Asked,
}

impl BlobSource for Remote {
    fn get(&self, digest: Digest) -> BlobFuture<'_> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = asked.entry(digest).or_default();
            waiting.waiters.push(sender);
            waiting.waiters.len() == 1
        };
        if first {
            let _ = self.replies.send(ToController::NeedBlob { digest });
        }
        Box::pin(async move {
            receiver.await.unwrap_or_else(|_| Err(Failure::of(FailureKind::Lost, "the controller is gone")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Datum, FieldChange, Verb};
    use crate::event::{StepRef, Target};
    use crate::remote::wire::MOST_FRAME;

    #[test]
    fn the_end_of_a_step_comes_however_long_its_result_is() {
        let text = |length: usize| "x".repeat(length);
        let field = FieldChange {
            field: "content".to_owned(),
            from: Datum::Absent,
            to: Datum::Absent,
            diff: Some(text(2_000_000)),
        };
        let step = StepRef {
            id: 0,
            target: Target { host: "h".to_owned(), node: None },
            play: "p".to_owned(),
            kind: "http".to_owned(),
            title: "t".to_owned(),
            at: "play.fp:1".to_owned(),
            handler: false,
        };
        for (length, kept) in [(10, true), (2_000_000, false)] {
            let output = Map::from([("body".to_owned(), Value::Str(text(length)))]);
            let outcome = Outcome::Changed(Change { verb: Verb::Update, fields: vec![field.clone()] });
            let kind = EventKind::StepFinished { step: step.clone(), outcome, output, took_ms: 1 };
            let event = Event { host: "h".to_owned(), index: 0, at_ms: 0, kind };
            let frame = fitting(ToController::Event(Box::new(event)));
            assert!(frame.len() > 4 && frame.len() <= MOST_FRAME + 4);
            let Ok(ToController::Event(event)) = bounded::decode(frame.split_at(4).1, MOST_MEMORY) else { panic!() };
            let EventKind::StepFinished { output, .. } = event.kind else { panic!() };
            assert_eq!(output.contains_key("body"), kept);
            assert_eq!(output.contains_key(TOO_LONG), !kept);
        }
    }
}
