//! The watcher: one small process per host that keeps what runs have attached.
//!
//! It knows nothing but this host: the records of `resource/attach`, Docker's events, the kernel's link events. Events are
//! hints; what is done follows from looking, by the same code that a run uses ([`engine::keep`](crate::engine::keep)). It
//! keeps no descriptor of any container between two looks: one that is open keeps a dead container's address answering.
//!
//! It is also the one that puts a slot back whose switch no run confirmed in time ([`slots`]), and that keeps log files
//! ([`keeper`]).

mod job;
mod keeper;
mod log;
mod slots;
mod stamp;
mod status;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};

use self::job::Cause;
use self::keeper::Keeper;
use self::slots::Slots;
use self::stamp::FolderStamp;
use self::table::Table;
use crate::failure::{Context as _, Failure};
use crate::resource::attachments::{self, Status};
use crate::resource::logs::Kept;
use crate::system::docker_events::{ContainerEvent, ContainerEvents, Happened};
use crate::system::link_events::{LinkEvent, LinkEvents};
use crate::system::{NoBlobs, Probe, fs};

pub use log::clock;

/// The pauses between two attempts to reach a daemon that does not answer: the first, and the longest.
const DOCKER_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long the daemon may take to say that it is there (`docker greeting`).
const DOCKER_GREETING: Duration = Duration::from_secs(5);
/// How often the folder of records is looked at: one `stat`. A run plugs what it declares by itself.
const RECORDS: Duration = Duration::from_secs(1);
/// How long a card must be quiet before what hangs on it is looked at: links come in several events.
const QUIET: Duration = Duration::from_millis(30);
/// How long one look, and what it mends, takes at most without a word about it (`slow`).
const SLOW: Duration = Duration::from_secs(2);
/// How long after a change the status is written.
const STATUS: Duration = Duration::from_millis(100);
/// How long a watcher waits for another one to end (`lock_wait`); who only looks whether one runs holds its lock for a moment.
const ALONE: Duration = Duration::from_secs(1);
/// How long jobs may take to end when the watcher is stopped (`farewell`).
const FAREWELL: Duration = Duration::from_secs(5);

/// How the watcher works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// fanli's own folder on this host.
    pub state_dir: PathBuf,
    /// How often everything is looked at.
    pub every: Duration,
    /// How many containers are plugged at the same time.
    pub parallel: usize,
    /// How often log files are kept.
    pub logs_every: Duration,
    /// Where its process number is written, for init scripts.
    pub pid_file: Option<PathBuf>,
}

/// A probe for looking at this host's records.
pub fn probe(state_dir: PathBuf) -> Probe {
    Probe::new(Arc::new(NoBlobs), Arc::new(|_: &str, _| {}), state_dir)
}

/// Watches until `stop` becomes true; `say` hears each line of the log.
///
/// # Errors
/// Another watcher runs on this host; fanli's folder cannot be written; the kernel gives no socket.
pub async fn run(
    settings: Settings,
    say: impl FnMut(&str) + Send,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let _lock = alone(&settings).await?;
    // Not before it is the only one: the file is the living one's.
    let _pid_file = settings.pid_file.clone().map(PidFile::write).transpose()?;
    let mut watcher = Watcher::new(&settings, say)?;
    watcher
        .note("", &format!("fanli {} watches this host (process {})", env!("CARGO_PKG_VERSION"), std::process::id()));
    // Before anything is looked at, so that nothing falls between.
    let mut links = watcher.probe.link_events()?;
    watcher.table.learn_links(&watcher.probe).await?;
    let mut docker = Daemon::Away { pause: DOCKER_PAUSE.0, until: Instant::now() };
    watcher.read_records(&Cause::Begin);
    watcher.look_at_slots();
    let mut passes = tokio::time::interval(settings.every);
    let mut records = tokio::time::interval(RECORDS);
    for timer in [&mut passes, &mut records] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.reset();
    }
    let mut begun = false;
    loop {
        watcher.table.start_jobs(settings.parallel);
        let (quiet_at, due_at, status_at) = (watcher.table.quiet_at(), watcher.table.due_at(), watcher.status_at);
        let slow_at = watcher.table.slow_at();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            word = docker.next() => match word {
                Word::Event(event) => {
                    watcher.read_records(&Cause::Declared);
                    let cause = match event.happened {
                        Happened::Started => Cause::Started,
                        Happened::Ended => Cause::Ended,
                        Happened::Renamed => Cause::Renamed,
                    };
                    watcher.table.container(&event.name, &cause);
                }
                Word::Gone(failure) => watcher.docker_gone(&mut docker, failure),
                Word::Ask => {
                    let cause = if begun { Cause::Docker } else { Cause::Begin };
                    begun |= watcher.reach_docker(&mut docker, &cause).await;
                }
            },
            finished = watcher.table.finished() => watcher.finished(finished),
            ended = watcher.slots.finished() => watcher.slot_is_done(ended),
            (lines, kept) = watcher.keeper.finished() => watcher.logs_are_kept(&lines, kept),
            event = links.next() => watcher.link(event, &mut links).await?,
            () = until(quiet_at) => watcher.table.links_are_quiet(),
            () = until(due_at) => watcher.table.retry(),
            () = until(slow_at) => watcher.slow_jobs(),
            () = until(status_at) => watcher.write_status(),
            _ = records.tick() => {
                watcher.read_records(&Cause::Declared);
                watcher.look_at_slots();
                watcher.keeper.look(&watcher.probe);
            }
            _ = passes.tick() => {
                watcher.read_records(&Cause::Declared);
                watcher.table.all(&Cause::Pass);
            }
        }
    }
    if timeout(FAREWELL, watcher.table.end()).await.is_err() {
        watcher.note("", "stopping with plugs half done: the next watcher or run ends them");
    }
    watcher.note("", "stopped");
    watcher.write_status();
    Ok(())
}

/// One watcher per host.
async fn alone(settings: &Settings) -> Result<fs::Lock, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    for folder in [attachments::folder(&settings.state_dir), settings.state_dir.join("plugging")] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let note = format!("process {}, since {} UTC", std::process::id(), clock(SystemTime::now()));
    fs::lock(attachments::lock_file(&settings.state_dir), &note, ALONE).await.map_err(|failure| {
        failure.within("another watcher runs on this host").hint("`fanli status` tells what it does; stop it first")
    })
}

/// Goes with the watcher.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> Result<Self, Failure> {
        let written = std::fs::write(&path, format!("{}\n", std::process::id()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The Docker daemon as the watcher sees it.
enum Daemon {
    /// It answers, and tells what happens.
    There(ContainerEvents),
    /// It does not; it is asked again at that time.
    Away { pause: Duration, until: Instant },
}

/// What there is to be done about the daemon.
enum Word {
    Event(ContainerEvent),
    /// Its events have ended.
    Gone(Option<Failure>),
    /// It is time to ask whether it is there.
    Ask,
}

impl Daemon {
    async fn next(&mut self) -> Word {
        match self {
            Self::There(events) => match events.next().await {
                Some(Ok(event)) => Word::Event(event),
                Some(Err(failure)) => Word::Gone(Some(failure)),
                None => Word::Gone(None),
            },
            Self::Away { until, .. } => {
                sleep_until(*until).await;
                Word::Ask
            }
        }
    }
}

struct Watcher<S> {
    state_dir: PathBuf,
    probe: Probe,
    table: Table,
    say: S,
    status: Status,
    status_at: Option<Instant>,
    slots: Slots,
    keeper: Keeper,
    records_seen: FolderStamp,
    /// What was wrong with the folder of records.
    records_wrong: Option<String>,
}

impl<S: FnMut(&str) + Send> Watcher<S> {
    fn new(settings: &Settings, say: S) -> Result<Self, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("this host's clock is before 1970")?;
        let status = Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: now.as_secs(),
            docker: Some("not asked yet".to_owned()),
            attachments: Vec::new(),
            logs: None,
        };
        Ok(Self {
            state_dir: settings.state_dir.clone(),
            probe: probe(settings.state_dir.clone()),
            table: Table::default(),
            say,
            status,
            status_at: None,
            slots: Slots::default(),
            keeper: Keeper::new(settings.logs_every),
            records_seen: FolderStamp::default(),
            records_wrong: None,
        })
    }

    /// One line of the log.
    fn note(&mut self, who: &str, what: &str) {
        let who = if who.is_empty() { String::new() } else { format!("{who}: ") };
        (self.say)(&format!("{} {who}{what}", clock(SystemTime::now())));
        self.status_at.get_or_insert_with(|| Instant::now() + STATUS);
    }

    fn write_status(&mut self) {
        self.status_at = None;
        self.status.attachments = self.table.status();
        if let Err(failure) = status::write(&self.status, &self.state_dir) {
            (self.say)(&format!("{} {failure}", clock(SystemTime::now())));
        }
    }

    /// Reads the records when their folder changed. What is new is looked at.
    fn read_records(&mut self, cause: &Cause) {
        if !self.records_seen.changed(&self.state_dir.join("attach")) {
            return;
        }
        match crate::resource::attach::all_recorded(&self.probe) {
            Ok(found) => {
                self.records_wrong = None;
                for (who, line) in self.table.learn_records(found, cause) {
                    self.note(&who, &line);
                }
            }
            Err(failure) => {
                let text = failure.to_string();
                if self.records_wrong.as_ref() != Some(&text) {
                    self.note("", &text);
                    self.records_wrong = Some(text);
                }
            }
        }
    }

    /// Puts back what was not confirmed in time.
    fn look_at_slots(&mut self) {
        for (who, line) in self.slots.look(&self.probe) {
            self.note(&who, &line);
        }
    }

    fn slot_is_done(&mut self, ended: slots::Ended) {
        for (who, line) in self.slots.finish(ended) {
            self.note(&who, &line);
        }
        self.look_at_slots();
    }

    fn logs_are_kept(&mut self, lines: &[String], kept: Option<Kept>) {
        for line in lines {
            self.note("", line);
        }
        self.status.logs = kept;
        self.status_at.get_or_insert_with(|| Instant::now() + STATUS);
    }

    fn docker_gone(&mut self, docker: &mut Daemon, failure: Option<Failure>) {
        let why = failure.map_or_else(|| "its events have ended".to_owned(), |failure| failure.to_string());
        self.note("", &format!("the Docker daemon is gone ({why}): waiting for it"));
        self.status.docker = Some(why);
        self.table.probe = None;
        *docker = Daemon::Away { pause: DOCKER_PAUSE.0, until: Instant::now() + DOCKER_PAUSE.0 };
    }

    /// Asks the daemon whether it is there; true when it is. Its events are opened first, then everything is looked at.
    async fn reach_docker(&mut self, docker: &mut Daemon, cause: &Cause) -> bool {
        let Daemon::Away { pause, .. } = docker else { return true };
        let pause = *pause;
        let reached = async {
            let daemon = self.probe.docker()?;
            let events = daemon.container_events();
            match timeout(DOCKER_GREETING, daemon.running()).await {
                Ok(running) => running.map(|_| events),
                Err(_) => Err(Failure::timeout("docker greeting", DOCKER_GREETING)),
            }
        };
        match reached.await {
            Ok(events) => {
                self.status.docker = None;
                self.note("", "the Docker daemon answers");
                self.table.probe = Some(self.probe.clone());
                *docker = Daemon::There(events);
                self.table.all(cause);
                true
            }
            Err(failure) => {
                let why = failure.to_string();
                if self.status.docker.as_ref() != Some(&why) {
                    self.note("", &format!("{why}: waiting for it"));
                    self.status.docker = Some(why);
                }
                *docker = Daemon::Away { pause: (pause * 2).min(DOCKER_PAUSE.1), until: Instant::now() + pause };
                false
            }
        }
    }

    fn slow_jobs(&mut self) {
        for (who, line) in self.table.slow_jobs() {
            self.note(&who, &line);
        }
    }

    fn finished(&mut self, finished: table::Ended) {
        if finished.1.as_ref().is_some_and(|finished| matches!(finished.ended, Ok(None))) {
            self.records_seen.forget();
            self.read_records(&Cause::Declared);
        }
        if let Some((who, line)) = self.table.finish(finished) {
            self.note(&who, &line);
        }
        self.status_at.get_or_insert_with(|| Instant::now() + STATUS);
    }

    async fn link(&mut self, event: Option<LinkEvent>, links: &mut LinkEvents) -> Result<(), Failure> {
        match event {
            Some(LinkEvent::There(link)) => {
                if let Some(line) = self.table.link_there(&link) {
                    self.note("", &line);
                }
            }
            Some(LinkEvent::Gone(link)) => {
                if let Some(line) = self.table.link_gone(&link) {
                    self.note("", &line);
                }
            }
            Some(LinkEvent::Missed) => {
                self.table.learn_links(&self.probe).await?;
                self.table.all(&Cause::Pass);
            }
            None => {
                *links = self.probe.link_events()?;
                self.table.learn_links(&self.probe).await?;
                self.table.all(&Cause::Pass);
            }
        }
        Ok(())
    }
}
