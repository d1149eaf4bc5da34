//! Hosts over SSH: the user's own ssh and configuration, one master and one channel for a host.

use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use tokio::io::AsyncWriteExt as _;

use super::codec::Reader;
use super::install::NEED;
use super::{Input, Link, Output, Reach, Tail};
use crate::failure::{Context as _, Failure, FailureKind};
use crate::plan::Connection;

/// How long a connection may take to stand: the limit `connect`.
const CONNECT: Duration = Duration::from_secs(20);

/// How long a shell on the host may take to answer, and the helper after it was sent: the limit `start`.
pub const START: Duration = Duration::from_secs(120);

/// How long a piece of the helper may take on its way: the limit `upload`. A slow link may take as long as it needs.
const UPLOAD: Duration = Duration::from_secs(60);

/// The length of a piece, in bytes.
const PIECE: usize = 64 * 1024;

/// How long a master without a channel stays; after a kill of the controller it is gone by then.
const IDLE: usize = 10;

/// The fact beside a failure to log in that is worth another try, with fewer at a time.
pub const TURNED_AWAY: &str = "turned_away";

/// How often ssh asks whether the other side lives.
const ALIVE: Duration = Duration::from_secs(5);

/// The private folder of a run's control sockets.
#[derive(Debug)]
pub struct Masters {
    folder: PathBuf,
}

impl Masters {
    /// Makes the folder: 0700, with a short name, as the path of a socket has 108 bytes at most (`unix(7)`).
    pub(super) fn new() -> Result<Self, Failure> {
        let base =
            [Path::new("/run"), Path::new("/tmp")].into_iter().find(|base| writable(base)).unwrap_or(Path::new("/tmp"));
        sweep(base);
        let folder = base.join(format!("fanli-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        if made.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
            // A process of our number left it behind. A stranger's folder must not be used.
            let meta = std::fs::symlink_metadata(&folder).context("a folder for ssh's sockets cannot be made")?;
            if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
                return Err(Failure::new(format!("{} is not ours; remove it", folder.display())));
            }
        } else {
            made.with_context(|| format!("cannot make {} for ssh's sockets", folder.display()))?;
        }
        Ok(Self { folder })
    }
}

/// Takes away the folders of controllers that were killed.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("fanli-")?.parse::<u32>().ok());
        let dead = number.is_some_and(|number| !Path::new(&format!("/proc/{number}")).exists());
        let ours =
            entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw());
        if dead && ours {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

impl Drop for Masters {
    fn drop(&mut self) {
        // Our own folder, made by us, holding sockets of masters that were told to go.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Connects, sees that the helper is there, and starts it.
pub(super) async fn connect(connection: &Connection, reach: &Reach, state_dir: Option<&str>) -> Result<Link, Failure> {
    let Connection::Ssh { destination, user, port, config, r#become } = connection else {
        return Err(Failure::of(FailureKind::Internal, "this connection is not SSH"));
    };
    let mut builder = SessionBuilder::default();
    builder
        .known_hosts_check(KnownHosts::Strict)
        .control_directory(&reach.masters.folder)
        .control_persist(
            NonZeroUsize::new(IDLE).map_or(ControlPersist::ClosedAfterInitialConnection, ControlPersist::IdleFor),
        )
        .connect_timeout(CONNECT)
        .server_alive_interval(ALIVE);
    if let Some(user) = user {
        builder.user(user.clone());
    }
    if let Some(port) = port {
        builder.port(*port);
    }
    if let Some(config) = config {
        builder.config_file(config);
    }
    let connecting = tokio::time::timeout(CONNECT + ALIVE, builder.connect_mux(destination));
    // Side by side: the hash is needed only now, and only once.
    let (connected, script) = tokio::join!(connecting, reach.binary.script(state_dir));
    let session = match connected {
        Ok(Ok(session)) => Arc::new(session),
        Ok(Err(error)) => return Err(unreachable_because(destination, &error)),
        Err(_) => {
            let limit = Failure::timeout("connect", CONNECT + ALIVE).message;
            return Err(
                Failure::of(FailureKind::Unreachable, format!("cannot connect to {destination}")).because(limit)
            );
        }
    };
    let starting = tokio::time::timeout(START, start(session, *r#become, &script?)).await;
    let mut link = starting.unwrap_or_else(|_| {
        let limit = Failure::timeout("start", START).message;
        Err(Failure::of(FailureKind::Unreachable, format!("the helper does not start on {destination}")).because(limit))
    })?;
    if link.uploaded
        && let Err(failure) = upload(&mut link.output, &reach.binary.packed().await?).await
    {
        return Err(explain(failure, &link.stderr).await);
    }
    Ok(link)
}

/// Sends the helper. Each piece has its limit, the whole has none.
async fn upload(output: &mut Output, packed: &[u8]) -> Result<(), Failure> {
    let failed = || Failure::of(FailureKind::Unreachable, "the helper could not be sent");
    for piece in packed.chunks(PIECE) {
        let sent = tokio::time::timeout(UPLOAD, async {
            output.write_all(piece).await?;
            output.flush().await
        });
        let sent = sent.await.map_err(|_| failed().because(Failure::timeout("upload", UPLOAD)))?;
        sent.map_err(|error| failed().because(error))?;
    }
    Ok(())
}

async fn start(session: Arc<Session>, r#become: bool, script: &str) -> Result<Link, Failure> {
    // Any login shell can run this line: the script is one word to all of them. `exec` leaves no shell behind.
    let elevate = if r#become { "sudo -n " } else { "" };
    let line = format!("exec {elevate}sh -c '{script}'");
    let failed = |error: &openssh::Error| {
        Failure::of(FailureKind::Unreachable, "the helper cannot be started").because(full_text(error))
    };
    let mut child = Session::to_raw_command(Arc::clone(&session), line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .await
        .map_err(|error| failed(&error))?;
    let streams = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
        return Err(Failure::of(FailureKind::Internal, "the channel has no streams"));
    };
    let stderr = Tail::follow(stderr);
    let mut input = Reader::new(Box::new(stdout) as Input, &[]);
    let uploaded = match input.marker(NEED).await {
        Ok(needed) => needed,
        Err(failure) => return Err(explain(failure, &stderr).await),
    };
    Ok(Link { input, output: Box::new(stdin) as Output, stderr, uploaded, guard: Box::new((child, session)) })
}

/// Adds what the host said on stderr, and the way out that it points to.
async fn explain(failure: Failure, stderr: &Tail) -> Failure {
    // The last line may still be on its way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let lines = stderr.lines();
    let text = lines.join("; ");
    let failure = lines.iter().fold(failure, Failure::because);
    if failure.causes.is_empty() {
        return failure.because("the session ended without a word").hint(
            "the login shell must run commands (`false` and `nologin` do not), and its files must go on to their end",
        );
    }
    if text.contains("sudo") && text.contains("password") {
        return failure.hint("let the user run sudo without a password (NOPASSWD), or log in as root");
    }
    if text.contains("refusing the folder of the helper") {
        return failure.hint("make the folder and all above it root's own, and not writable by others");
    }
    failure
}

fn unreachable_because(destination: &str, error: &openssh::Error) -> Failure {
    let text = full_text(error);
    let failure = Failure::of(FailureKind::Unreachable, format!("cannot connect to {destination}")).because(&text);
    if text.contains("Host key verification failed") || text.contains("host key") {
        return failure.hint(format!(
            "check the host's key and add it to known_hosts: `ssh {destination}` once by hand; fanli never accepts unknown keys"
        ));
    }
    if text.contains("Permission denied") {
        return failure
            .hint("the key is not accepted: check `user`, the agent (`ssh-add -l`) and your ssh configuration");
    }
    if is_turned_away(&text) {
        let hint = "the host, or a bastion before it, takes only few logins at a time (`MaxStartups` of its sshd): `--forks 5` opens fewer";
        return failure.hint(hint).fact(TURNED_AWAY, "");
    }
    failure.hint(format!("try it by hand: `ssh {destination} true`"))
}

/// Whether sshd, or one on the way, has closed a connection before anybody could log in: what it does to those that are too many.
fn is_turned_away(text: &str) -> bool {
    let signs = [
        "Exceeded MaxStartups",
        "Not allowed at this time",
        "kex_exchange_identification",
        "ssh_exchange_identification",
        "banner exchange",
        "Connection closed by",
        "Connection reset by",
    ];
    !text.contains("Connection refused") && signs.iter().any(|sign| text.contains(sign))
}

/// An error with its causes, in one line, without ssh's line ends.
fn full_text(error: &openssh::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(inner_text.trim()) {
            text = format!("{text}: {}", inner_text.trim());
        }
        source = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::is_turned_away;

    #[test]
    fn who_is_one_too_many_is_known_from_who_may_not_or_cannot() {
        for text in [
            "kex_exchange_identification: read: Connection reset by peer",
            "kex_exchange_identification: Connection closed by remote host Connection closed by 10.0.0.1 port 22",
            "Exceeded MaxStartups",
            "Connection closed by UNKNOWN port 65535",
            "Connection timed out during banner exchange",
        ] {
            assert!(is_turned_away(text), "{text}");
        }
        for text in [
            "ssh: connect to host 10.0.0.1 port 22: Connection refused",
            "root@10.0.0.1: Permission denied (publickey).",
            "Host key verification failed.",
            "ssh: Could not resolve hostname nowhere: Name or service not known",
        ] {
            assert!(!is_turned_away(text), "{text}");
        }
    }
}
