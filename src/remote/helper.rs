//! The helper: this same binary on a host. It lives on its stdin, speaks frames on its stdout, log lines on its stderr.
//!
//! It never listens and never daemonizes. It ends itself when its stdin closes, or when no frame came for
//! [`SILENCE`]: OpenSSH's own idea of a connection is not enough (a cut link leaves a reader waiting for ever).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};

use super::codec::{Reader, encode, hello, send_bytes};
use super::wire::{HEARTBEAT, SILENCE, ToController, ToHelper};
use crate::engine::{self, Orders, World};
use crate::event::{Event, EventKind};
use crate::failure::{Context as _, Failure, FailureKind};
use crate::plan::HostPlan;
use crate::system::{BlobFuture, BlobSource, fs};
use crate::value::Digest;

/// How long the running step may go on after a stop: the limit `abort`.
pub const ABORT: Duration = Duration::from_secs(10);

/// How long destructors (which kill process groups) may take when the helper ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// The longest plan, in bytes.
const MOST_PLAN: usize = 256 * 1024 * 1024;

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
        live(tokio::io::stdin(), output, &state_dir).await
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
pub async fn live<R, W>(input: R, mut output: W, state_dir: &Path) -> Result<(), Failure>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    send_bytes(&mut output, &hello()).await?;
    let (replies, outgoing) = mpsc::unbounded_channel();
    let writer = tokio::spawn(write(output, outgoing));
    let mut incoming = listen(input);
    let session = Session { replies: replies.clone(), asked: Arc::default(), state_dir: state_dir.to_owned() };
    let ended = match session.run(&mut incoming).await {
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
fn listen<R: AsyncRead + Unpin + Send + 'static>(input: R) -> mpsc::Receiver<Result<ToHelper, Failure>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut reader = Reader::new(input, Vec::new());
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
async fn write<W: AsyncWrite + Unpin>(mut output: W, mut replies: mpsc::UnboundedReceiver<ToController>) {
    loop {
        let reply = match tokio::time::timeout(HEARTBEAT, replies.recv()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err(_) => ToController::Pong,
        };
        let Ok(mut bytes) = encode(&reply) else { continue };
        // What waits already goes out in the same write.
        while bytes.len() < 64 * 1024 {
            let Ok(more) = replies.try_recv() else { break };
            bytes.extend(encode(&more).unwrap_or_default());
        }
        if send_bytes(&mut output, &bytes).await.is_err() {
            return;
        }
    }
}

/// Blobs that were asked for: who waits, and what came so far.
type Asked = Arc<Mutex<BTreeMap<Digest, Waiting>>>;

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    waiters: Vec<oneshot::Sender<Result<Arc<[u8]>, Failure>>>,
}

struct Session {
    replies: mpsc::UnboundedSender<ToController>,
    asked: Asked,
    state_dir: PathBuf,
}

impl Session {
    async fn run(&self, incoming: &mut mpsc::Receiver<Result<ToHelper, Failure>>) -> Result<(), Failure> {
        let mut first_orders = Vec::new();
        let plan = self.plan(incoming, &mut first_orders).await?;
        make_state_dir(&self.state_dir)?;
        let _lock = match plan.options.lock_wait {
            Some(wait) => Some(self.lock(&plan, wait, incoming, &mut first_orders).await?),
            None => None,
        };
        let (orders, order_queue) = mpsc::unbounded_channel();
        for order in first_orders {
            let _ = orders.send(order);
        }
        let (events, mut happened) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let host = plan.host.clone();
        let started = Instant::now();
        let blobs = Arc::new(Remote { replies: self.replies.clone(), asked: Arc::clone(&self.asked) });
        let world = World { blobs, state_dir: self.state_dir.clone(), events, orders: order_queue, stop: stopped };
        // Aborted on drop, so that the children of a running step die with it.
        let engine = AbortOnDrop(tokio::spawn(engine::run(plan, world)));
        let mut index = 0;
        let mut deadline: Option<tokio::time::Instant> = None;
        let mut heard = tokio::time::Instant::now();
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
                        return Ok(());
                    }
                }
                message = incoming.recv() => {
                    heard = tokio::time::Instant::now();
                    let Some(message) = message else {
                        return Err(Failure::of(FailureKind::Lost, "the controller is gone"));
                    };
                    match message? {
                        ToHelper::Go { stage, without } => {
                            let _ = orders.send(Orders::Go(stage, without));
                        },
                        ToHelper::Skip { from, to } => {
                            let _ = orders.send(Orders::Skip(from, to));
                        },
                        ToHelper::Blob { digest, piece, last } => self.received(digest, &piece, last),
                        ToHelper::Stop => {
                            let _ = stop.send(true);
                            deadline.get_or_insert(tokio::time::Instant::now() + ABORT);
                        }
                        ToHelper::Ping | ToHelper::Plan { .. } => {}
                    }
                }
                () = tokio::time::sleep_until(heard + SILENCE) => {
                    return Err(Failure::of(FailureKind::Lost, "the controller has fallen silent"));
                }
                () = until(deadline) => {
                    return Err(Failure::of(FailureKind::Aborted, "the running step did not end")
                        .because(Failure::timeout("abort", ABORT)));
                }
            }
        }
    }

    /// Gathers the plan.
    async fn plan(
        &self,
        incoming: &mut mpsc::Receiver<Result<ToHelper, Failure>>,
        orders: &mut Vec<Orders>,
    ) -> Result<HostPlan, Failure> {
        let mut bytes = Vec::new();
        loop {
            match next(incoming).await? {
                ToHelper::Plan { piece, last } => {
                    bytes.extend(piece);
                    if bytes.len() > MOST_PLAN {
                        return Err(Failure::of(FailureKind::Internal, "the plan is longer than 256 MiB"));
                    }
                    if last {
                        break;
                    }
                }
                ToHelper::Go { stage, without } => orders.push(Orders::Go(stage, without)),
                ToHelper::Stop => return Err(Failure::of(FailureKind::Aborted, "stopped before it began")),
                _ => {}
            }
        }
        postcard::from_bytes(&bytes)
            .map_err(|error| Failure::of(FailureKind::Internal, format!("the plan does not decode: {error}")))
    }

    /// Takes the host's lock; while it waits, the controller may still go away or say stop.
    async fn lock(
        &self,
        plan: &HostPlan,
        wait: Duration,
        incoming: &mut mpsc::Receiver<Result<ToHelper, Failure>>,
        orders: &mut Vec<Orders>,
    ) -> Result<fs::Lock, Failure> {
        let note = format!("run {} (helper process {})", plan.run, std::process::id());
        let path = self.state_dir.join("lock");
        let taking = fs::lock(&path, &note, wait);
        tokio::pin!(taking);
        loop {
            tokio::select! {
                taken = &mut taking => {
                    return taken.map_err(|failure| {
                        failure.within(format!("another run is at work on {}", plan.host))
                            .hint("wait for it, or give this one more patience: `--lock-wait 10m`")
                    });
                }
                message = next(incoming) => match message? {
                    ToHelper::Go { stage, without } => orders.push(Orders::Go(stage, without)),
                    ToHelper::Skip { from, to } => orders.push(Orders::Skip(from, to)),
                    ToHelper::Stop => return Err(Failure::of(FailureKind::Aborted, "stopped while waiting for the lock")),
                    _ => {}
                },
            }
        }
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

/// The next message, within the limit of silence.
async fn next(incoming: &mut mpsc::Receiver<Result<ToHelper, Failure>>) -> Result<ToHelper, Failure> {
    let lost = |text: &str| Failure::of(FailureKind::Lost, text.to_owned());
    match tokio::time::timeout(SILENCE, incoming.recv()).await {
        Ok(Some(message)) => message,
        Ok(None) => Err(lost("the controller is gone")),
        Err(_) => Err(lost("the controller has fallen silent")),
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
