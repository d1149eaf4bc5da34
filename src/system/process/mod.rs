//! Programs on this host: argv and never a shell, a bounded output, and nothing that outlives the helper.
//!
//! A program gets an environment of its own making, the same over SSH, over sudo and on this machine, and a process group of
//! its own. The group is killed when the step is stopped in the middle, and by the [`undertaker`] when the helper itself is.

mod inherited;
mod output;
mod run_as;
mod stays;
mod undertaker;

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::{Actuator, Probe};
use crate::failure::{Context, Failure};
use output::Follow;

pub use inherited::keep_descriptors;
pub use output::Kept;
pub use run_as::RunAs;
pub use stays::stays_up;

/// How long a program that only looks may take: limit `answer`.
const ANSWER: Duration = Duration::from_secs(60);

/// How long output is awaited after a program's end, in case something that it left in the background holds its pipes.
const LINGER: Duration = Duration::from_secs(1);

/// How many of the last lines of output a failure repeats.
const TOLD_LINES: usize = 12;

/// Where programs are looked for, whatever the login's own `PATH` says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run, with all that it gets.
#[derive(Clone, Debug, Default)]
pub struct Program {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    leaves_children: bool,
    user: Option<RunAs>,
    umask: Option<u32>,
}

impl Program {
    /// A program by name or path, and its arguments; no shell reads them.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment, beside `PATH`, `HOME` and `LC_ALL`.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Where it starts; `/` by default.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What it reads; nothing by default. Secrets travel here, never in arguments.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// What it started lives on when it ends well, such as the programs behind a FUSE mount. Else its group ends with it.
    #[must_use]
    pub fn leaves_children(mut self) -> Self {
        self.leaves_children = true;
        self
    }

    /// The user that it runs as; fanli's own by default.
    #[must_use]
    pub fn user(mut self, user: RunAs) -> Self {
        self.user = Some(user);
        self
    }

    /// The file mode creation mask that it begins with; the helper's own (022) by default.
    #[must_use]
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = Some(umask);
        self
    }

    /// Everything that is executed, the change of user included.
    fn words(&self) -> Vec<String> {
        let prefix = self.user.as_ref().map(RunAs::prefix).unwrap_or_default();
        prefix.into_iter().chain(self.argv.iter().cloned()).collect()
    }

    fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// As messages say it: the arguments in one line, cut when they are long.
    fn show(&self) -> String {
        let line = self.argv.join(" ").replace('\n', " ");
        let cut: String = line.chars().take(120).collect();
        if cut.len() < line.len() { format!("{cut}…") } else { cut }
    }
}

/// A program that came to its end.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; 128 and the signal's number when a signal ended it, as shells say it.
    pub code: i32,
    /// What it said.
    pub stdout: Kept,
    /// What it complained about.
    pub stderr: Kept,
    shown: String,
}

impl Ended {
    /// One that ended elsewhere, such as in a container.
    pub(super) fn elsewhere(argv: &[String], code: i32, stdout: &[u8], stderr: &[u8]) -> Self {
        let shown = Program::new(argv).show();
        Self { code, stdout: Kept::of(stdout), stderr: Kept::of(stderr), shown }
    }

    /// Whether it succeeded.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// The failure of a program that was to succeed, with the last lines of what it said.
    pub fn failure(&self) -> Failure {
        let ended = match self.code {
            code @ 129..=192 => format!("was ended by signal {}", code - 128),
            code => format!("failed with exit code {code}"),
        };
        let failure = Failure::new(format!("`{}` {ended}", self.shown));
        let said = [&self.stderr, &self.stdout].into_iter().map(|kept| kept.last_lines(TOLD_LINES));
        match said.into_iter().find(|lines| !lines.is_empty()) {
            Some(lines) => failure.because(lines),
            None => failure,
        }
    }

    /// Itself when it succeeded.
    ///
    /// # Errors
    /// As [`Ended::failure`].
    pub fn expect_success(self) -> Result<Self, Failure> {
        if self.success() { Ok(self) } else { Err(self.failure()) }
    }
}

impl Probe {
    /// Runs a program that only looks (`dpkg-query`, `systemctl is-active`): whoever calls this vouches for it.
    ///
    /// # Errors
    /// It cannot be started, or does not end within the limit `answer`. A bad exit code is for the caller to judge.
    pub async fn ask(&self, program: &Program) -> Result<Ended, Failure> {
        match tokio::time::timeout(ANSWER, run(program, |_| {})).await {
            Ok(ended) => ended,
            Err(_) => Err(Failure::timeout("answer", ANSWER).within(format!("`{}` does not end", program.show()))),
        }
    }

    /// Runs a program that only looks, however long it takes: the limit is the caller's or the step's own.
    ///
    /// # Errors
    /// It cannot be started. A bad exit code is for the caller to judge.
    pub async fn ask_patiently(&self, program: &Program) -> Result<Ended, Failure> {
        run(program, |line| self.progress(line, None)).await
    }

    /// Where a program of that name is, in the directories where programs are looked for.
    pub fn program(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        for dir in PATH.split(':') {
            let path = Path::new(dir).join(name);
            if self.exists(&path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

impl Actuator {
    /// Runs a program to its end. What it says last is told as progress.
    ///
    /// # Errors
    /// It cannot be started. A bad exit code is for the caller to judge; the limit is the step's own.
    pub async fn run(&self, program: &Program) -> Result<Ended, Failure> {
        run(program, |line| self.progress(line, None)).await
    }

    /// Starts a daemon in a session of its own, that outlives the helper, with its output added to `log`. Gives its process
    /// number.
    ///
    /// # Errors
    /// It cannot be started, or its log cannot be opened.
    pub fn start_daemon(&self, program: &Program, log: &Path) -> Result<u32, Failure> {
        let out = self.append(log).map_err(|failure| failure.within("the log cannot be opened"))?;
        let err = out.try_clone().with_context(|| format!("cannot open the log {}", log.display()))?;
        // `setsid` and nothing of ours: no group that is killed with the helper, no terminal, no pipe.
        let mut command = std::process::Command::new("setsid");
        command.args(program.words()).env_clear().envs(environment(program)).current_dir(start_dir(program));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut child = command.spawn().map_err(|error| not_started(program, &error))?;
        let pid = child.id();
        // Somebody must bury it if it ends while the helper lives.
        std::thread::spawn(move || child.wait());
        Ok(pid)
    }
}

impl Actuator {
    /// Runs a program that leaves a daemon behind (an init script) to its end, in a session of its own: neither it nor the daemon
    /// is killed with the helper. What both say goes to `out`, which is emptied first: a pipe would break under the daemon.
    ///
    /// # Errors
    /// It cannot be started, or does not end within `limit`; then its group is killed.
    pub async fn run_apart(&self, program: &Program, out: &Path, limit: (&str, Duration)) -> Result<Ended, Failure> {
        let what = || format!("cannot open {}", out.display());
        let open = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(out);
        let file = open.with_context(what)?;
        let err = file.try_clone().with_context(what)?;
        let mut command = Command::new("setsid");
        command.args(&program.argv).env_clear().envs(environment(program)).current_dir(start_dir(program));
        command.stdin(Stdio::null()).stdout(file).stderr(err);
        let mut child = command.spawn().map_err(|error| not_started(program, &error))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let Ok(status) = tokio::time::timeout(limit.1, child.wait()).await else {
            let _ = pid.map(|group| kill_process_group(group, Signal::KILL));
            return Err(Failure::timeout(limit.0, limit.1).within(format!("`{}` does not end", program.show())));
        };
        let status = status.with_context(|| format!("cannot wait for `{}`", program.name()))?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let stdout = Kept::of(&std::fs::read(out).unwrap_or_default());
        Ok(Ended { code, stdout, stderr: Kept::default(), shown: program.show() })
    }
}

/// `PATH`, `HOME`, a locale that every host has; then the program's own.
fn environment(program: &Program) -> Vec<(String, String)> {
    let root = rustix::process::geteuid().is_root();
    let home = if root { Some("/root".to_owned()) } else { std::env::var("HOME").ok() };
    let own =
        [("PATH", PATH.to_owned()), ("HOME", home.unwrap_or_else(|| "/".to_owned())), ("LC_ALL", "C.UTF-8".to_owned())];
    let user = program.user.as_ref().map(RunAs::environment).unwrap_or_default();
    let fixed = own.into_iter().chain(user).map(|(name, value)| (name.to_owned(), value));
    fixed.chain(program.env.iter().cloned()).collect()
}

fn start_dir(program: &Program) -> &Path {
    program.dir.as_deref().unwrap_or(Path::new("/"))
}

fn not_started(program: &Program, error: &io::Error) -> Failure {
    let name = program.name();
    if error.kind() == io::ErrorKind::NotFound {
        let dir = start_dir(program);
        if !dir.is_dir() {
            return Failure::new(format!("cannot run `{name}` in {}", dir.display())).because("no such directory");
        }
        let failure = Failure::new(format!("there is no program `{name}` on this host"));
        return if name.contains('/') {
            failure
        } else {
            failure.because(format!("looked in {PATH}")).hint("install it first with a `package` task")
        };
    }
    Failure::new(format!("cannot run `{name}`")).because(error)
}

/// Runs a program to its end or to a limit, outside of any step: for a daemon of fanli's own.
///
/// # Errors
/// It cannot be started, or does not end within `limit`; then its group is killed. A bad exit code is for the caller to judge.
pub async fn run_within(program: &Program, limit: (&str, Duration)) -> Result<Ended, Failure> {
    match tokio::time::timeout(limit.1, run(program, |_| {})).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::timeout(limit.0, limit.1).within(format!("`{}` does not end", program.show()))),
    }
}

/// Runs a program to its end; `hear` hears its lines, the latest of them when there are many.
pub(super) async fn run(program: &Program, hear: impl Fn(&str)) -> Result<Ended, Failure> {
    let (mut child, mut group) = spawn(program)?;
    let stdin = child.stdin.take();
    let mut out = Follow::new(child.stdout.take());
    let mut err = Follow::new(child.stderr.take());
    let feed = async {
        // A program that does not read to the end is none of our business.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&program.stdin).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        let status = tokio::select! {
            status = child.wait() => status,
            () = async { tokio::join!(feed, out.follow(&hear), err.follow(&hear)); } => std::future::pending().await,
        };
        let status = status.with_context(|| format!("cannot wait for `{}`", program.name()))?;
        let rest = async { tokio::join!(out.follow(&hear), err.follow(&hear)) };
        let _ = tokio::time::timeout(LINGER, rest).await;
        Ok::<_, Failure>(status)
    };
    let status = ended.await?;
    if program.leaves_children && status.success() {
        group.release();
    }
    Ok(ended_with(program, status, out, err))
}

/// Starts a program in a group of its own, with its streams piped; the group is killed when what is returned goes.
fn spawn(program: &Program) -> Result<(Child, Group), Failure> {
    let mut words = program.words().into_iter();
    let Some(first) = words.next() else { return Err(Failure::new("there is no program to run")) };
    let mut command = Command::new(first);
    command.args(words).env_clear().envs(environment(program)).current_dir(start_dir(program));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    undertaker::announce(&mut command);
    if let Some(umask) = program.umask {
        begin_with(&mut command, Mode::from_raw_mode(umask));
    }
    let child = command.spawn().map_err(|error| not_started(program, &error))?;
    let group = Group::of(&child);
    Ok((child, group))
}

fn ended_with(program: &Program, status: ExitStatus, out: Follow<ChildStdout>, err: Follow<ChildStderr>) -> Ended {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ended { code, stdout: out.kept(), stderr: err.kept(), shown: program.show() }
}

/// Has the child take a file mode creation mask before it becomes the program.
fn begin_with(command: &mut Command, umask: Mode) {
    let take = move || {
        rustix::process::umask(umask);
        Ok(())
    };
    #[expect(unsafe_code, reason = "what runs between fork and exec must be async-signal-safe")]
    // SAFETY: `take` makes one system call on a number: it neither allocates nor locks.
    unsafe {
        command.pre_exec(take);
    }
}

/// A process group that is killed when this goes before the program has ended.
struct Group {
    pid: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { pid: child.id().and_then(|id| Pid::from_raw(id.cast_signed())) }
    }

    /// Asks its programs to end.
    fn ask_to_end(&self) {
        if let Some(group) = self.pid {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    /// Lets it live.
    fn release(&mut self) {
        if let Some(group) = self.pid.take() {
            undertaker::forget(group);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.pid else { return };
        undertaker::forget(group);
        let _ = kill_process_group(group, Signal::KILL);
    }
}
