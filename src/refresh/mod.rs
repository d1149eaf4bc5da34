//! `fanli refresh`: in a container, has a program load its configuration when that has changed, if it can be used.
//!
//! Level-triggered: what stands on the disk (wanted) is compared with what was last loaded with success (loaded). Events,
//! timers and restarts only say when to compare, so none of them is worth more than another, and a lost one costs time alone.
//! What cannot be used is told and not loaded; the program goes on with what it has.

mod act;
mod pass;
mod status;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use self::pass::Refresher;
use crate::calendar::utc;
use crate::failure::{Context as _, Failure};
use crate::system::{NoBlobs, Probe, fs};
use crate::visible::visible;

pub use status::{FILE, Status};
pub use tree::Id;

/// The longest that is waited for a directory to be quiet: edits without end must not hold back all of them.
const MOST_SETTLE: Duration = Duration::from_secs(5);
/// How long a refresher waits for another one to end (`lock_wait`).
const ALONE: Duration = Duration::from_secs(2);
/// The longest state that is read out of a container, in bytes.
const MOST_STATE: u64 = 1 << 20;

/// How a configuration is loaded.
#[derive(Clone, Debug)]
pub enum How {
    /// By supervisor: its program, the signal, and the path of its socket.
    Program(String, String, PathBuf),
    /// By a command.
    Command(Vec<String>),
}

/// How a refresher works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory: its link `current` when it has one, else itself.
    pub directory: PathBuf,
    /// How the configuration is loaded.
    pub how: How,
    /// A command that fails when the configuration cannot be used.
    pub validate: Option<Vec<String>>,
    /// A command that starts the program beside the one that runs: with what cannot be used it ends at once.
    pub attempt: Option<Vec<String>>,
    /// A page that answers with the generation that is loaded.
    pub proof: Option<String>,
    /// How long a new generation is left to whoever switched to it; only with `proof`.
    pub after: Duration,
    /// How long the directory must be quiet.
    pub settle: Duration,
    /// How often it is looked at in full, besides what events tell.
    pub every: Duration,
    /// How often it is looked at where there are no events.
    pub poll: Duration,
    /// How long a command or a reload may take.
    pub limit: Duration,
    /// Where the last good tree is kept.
    pub keep: PathBuf,
    /// Where the state is kept.
    pub state: PathBuf,
}

/// Refreshes until `stop` becomes true; `say` hears each line of the log.
///
/// # Errors
/// Another refresher keeps the same state; the state cannot be written.
pub async fn run(
    settings: Settings,
    say: impl FnMut(&str) + Send,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let folder = settings.state.parent().unwrap_or(std::path::Path::new("/"));
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::new(format!("cannot make {}", folder.display()))
            .because(error)
            .hint("name another file with `--state`")
    })?;
    let note = format!("process {}, since {} UTC", std::process::id(), clock());
    let _lock = fs::lock(settings.state.with_extension("lock"), &note, ALONE).await.map_err(|failure| {
        failure.within("another `fanli refresh` keeps the same state").hint("give each its own `--state` and `--keep`")
    })?;
    let mut refresher = Refresher::new(settings.clone(), say);
    let work = async {
        refresher.begin().await?;
        let mut full_at = Instant::now() + settings.every;
        loop {
            refresher.pass().await?;
            let woken = refresher.wait(full_at).await;
            if woken == Woken::Time || Instant::now() >= full_at {
                full_at = Instant::now() + settings.every;
                refresher.look_in_full();
            }
        }
    };
    let ended = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        ended = work => ended,
    };
    refresher.note("stopped");
    ended
}

/// What the refresher of a running container has left there, seen from its host; `None` when none ever ran in it.
///
/// # Errors
/// There is no such container, it does not run, or what stands there is something else.
pub async fn in_container(container: &str, file: &std::path::Path) -> Result<Option<Status>, Failure> {
    let probe = probe();
    let docker = probe.docker()?;
    let Some(found) = docker.container(container).await? else {
        return Err(Failure::new(format!("there is no container {container} on this host")));
    };
    let root = probe.container_root(&docker, &found).await?;
    let Some(bytes) = root.read(file, MOST_STATE)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some)
        .with_context(|| format!("{} of container {container} is not the state of a refresher", file.display()))
}

/// Why a refresher looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// Something may have changed.
    Event,
    /// It is time to look in full.
    Time,
    /// It is time to look, or to try again.
    Again,
}

impl<Say: FnMut(&str) + Send> Refresher<Say> {
    /// Waits until there may be something to do.
    async fn wait(&mut self, full_at: Instant) -> Woken {
        let retry_at = self.retry_at();
        let (settle, poll) = (self.settings().settle, self.settings().poll);
        let Some(events) = self.events() else {
            let next = retry_at.map_or(full_at, |at| at.min(full_at)).min(Instant::now() + poll);
            sleep_until(next).await;
            return if next == full_at { Woken::Time } else { Woken::Again };
        };
        tokio::select! {
            heard = events.next() => if heard {
                let most = Instant::now() + MOST_SETTLE;
                loop {
                    tokio::select! {
                        _ = events.next() => if Instant::now() >= most { break },
                        () = sleep(settle) => break,
                    }
                }
                Woken::Event
            } else {
                self.lose_events("its thread has ended");
                Woken::Again
            },
            () = sleep_until(full_at) => Woken::Time,
            () = sleep_until(retry_at.unwrap_or(full_at)) => Woken::Again,
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn clock() -> String {
    utc(now())
}

/// Several lines as one, for the log.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    visible(&lines.join(" | "))
}

fn probe() -> Probe {
    Probe::new(Arc::new(NoBlobs), Arc::new(|_: &str, _| {}), PathBuf::from("/var/lib/fanli"))
}
