//! `fanli play`: the main job.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::asking::Reaching;
use super::{booking, complain, exit, request};
use crate::coordinator::{self, Header};
use crate::engine::Stop;
use crate::expr::literal;
use crate::plan;
use crate::remote::Reach;
use crate::report::{Detail, Reporter, Style};
use crate::source::Sources;
use crate::syntax::parse_value;
use crate::value::Value;

/// Bring hosts to the state that a playbook declares
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli play web-tier.fp                             the environment `local`
  fanli play web-tier.fp --env lab --check --diff    show what would change, field by field
  fanli play web-tier.fp --limit 'web*,!web08012'    only some nodes
  fanli play web-tier.fp --set web_nodes=5           another value for one run
  fanli play web-tier.fp --json | jq .event          events for machines: docs/events.md

`fanli --help` lists the exit codes.")]
pub(super) struct Args {
    #[command(flatten)]
    playbook: request::Playbook,

    #[command(flatten)]
    part: request::Part,

    /// Look only: say what would change, change nothing
    #[arg(long, short)]
    check: bool,

    /// Show how the contents of files differ
    #[arg(long, short)]
    diff: bool,

    /// With --check: exit with 3 when something would change or cannot be known
    #[arg(long, requires = "check")]
    detailed_exit_code: bool,

    /// Print events as JSON on stdout, one a line; the text goes to stderr
    #[arg(long)]
    json: bool,

    /// Say every step and what it gave
    #[arg(long, short)]
    verbose: bool,

    /// Open so many connections at the same time; fewer where hosts turn some away
    #[arg(long, default_value = "50", value_name = "N", value_parser = forks)]
    forks: usize,

    /// Stop a step after this time, when it has no `timeout` of its own
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration)]
    step_limit: Duration,

    /// Wait so long, in all, for other runs that are at work on the hosts; nothing is changed before all are free
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    lock_wait: Duration,

    /// Use colour and bars
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    color: When,

    /// Another state folder on the hosts than /var/lib/fanli; %h stands for the host's name
    #[arg(long, hide = true, value_name = "DIR")]
    state_dir: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

impl When {
    /// Whether colour is used in what goes to a terminal, or to something else.
    pub(super) fn color(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
        }
    }
}

/// At least one connection; with none a run would wait for ever.
fn forks(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "write a number from 1 to 10000".to_owned())
}

/// A duration as playbooks write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match parse_value(text).ok().and_then(|expr| literal(&expr)) {
        Some(Value::Duration(time)) => Ok(time),
        _ => Err("write a time with its unit: 30s, 5m, 2h".to_owned()),
    }
}

impl Args {
    /// Whether nothing is to be changed.
    pub(super) fn only_looks(&self) -> bool {
        self.check
    }

    /// Whether every host and node is meant.
    pub(super) fn is_everybody(&self) -> bool {
        self.part.is_everybody()
    }

    /// Which playbook.
    pub(super) fn playbook(&self) -> &request::Playbook {
        &self.playbook
    }

    /// How its hosts are reached outside of the run.
    pub(super) fn reaching(&self) -> Reaching {
        Reaching { state_dir: self.state_dir.clone() }
    }
}

pub(super) fn run(args: &Args) -> ExitCode {
    part(args, plan::Part::All)
}

/// Runs a part of the playbook.
pub(super) fn part(args: &Args, part: plan::Part) -> ExitCode {
    let mut asked = match request::request(&args.playbook, &args.part) {
        Ok(asked) => asked,
        Err(message) => {
            complain(&format!("error: {message}"));
            return exit::BAD_INPUT.into();
        }
    };
    asked.part = part;
    asked.options.check = args.check;
    asked.options.diff = args.diff;
    asked.options.step_limit = args.step_limit;
    asked.options.lock_wait = Some(args.lock_wait);
    let mut sources = Sources::default();
    let (playbook, found) = plan::load(&asked, &mut sources);
    let (planned, mut booking) = match booking::planned(&playbook, &found, &asked, &mut sources, !args.check) {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    let header = Header {
        run: asked.run.clone(),
        playbook: args.playbook.file.display().to_string(),
        check: args.check,
        forks: args.forks,
        locking: coordinator::Locking::Together,
    };
    let ssh = planned.hosts.iter().all(|host| matches!(host.connection, plan::Connection::Local { .. }));
    let reach = match state_dir(args.state_dir.as_deref())
        .and_then(|dir| Reach::new(dir).map_err(|failure| failure.to_string()))
    {
        Ok(reach) => Arc::new(reach),
        Err(message) => {
            complain(&format!("error: {message}"));
            return exit::INTERNAL.into();
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(if ssh { 1 } else { 2 }).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: no runtime: {error}"));
            return exit::INTERNAL.into();
        }
    };
    let mut reporter = Reporter::new(style(args));
    let signalled = Arc::new(AtomicI32::new(0));
    let verdict = runtime.block_on(async {
        let (events, mut stream) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(Stop::No);
        let watching = tokio::spawn(watch_signals(stop, Arc::clone(&signalled)));
        let work = tokio::spawn(coordinator::run(planned, header, reach, events, stopping));
        while let Some(event) = stream.recv().await {
            reporter.hear(&event);
            booking.hear(&event);
        }
        watching.abort();
        work.await
    });
    // Sessions end with their tasks; what hangs must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(2));
    booking.end();
    let signal = Some(signalled.load(Ordering::Relaxed)).filter(|number| *number != 0);
    match verdict {
        Ok(verdict) => exit::of(verdict, args.detailed_exit_code, signal),
        Err(error) => {
            complain(&format!("error: the run broke: {error}; this is a defect of fanli"));
            exit::INTERNAL.into()
        }
    }
}

/// The state folder is part of a shell's command line on hosts: a plain absolute path.
pub(super) fn state_dir(given: Option<&str>) -> Result<Option<String>, String> {
    let Some(dir) = given else { return Ok(None) };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '%');
    if !dir.starts_with('/') || !dir.chars().all(plain) || dir.contains("..") {
        return Err(format!("--state-dir {dir}: write a plain absolute path"));
    }
    Ok(Some(dir.to_owned()))
}

fn style(args: &Args) -> Style {
    let stdout = std::io::stdout().is_terminal();
    let terminal =
        stdout && std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let color = args.color.color(terminal);
    let detail = if args.verbose { Detail::Verbose } else { Detail::Normal };
    Style { terminal: terminal && args.color != When::Never, color, json: args.json, detail }
}

/// The first SIGINT, SIGTERM or SIGHUP stops in order, the second one at once.
async fn watch_signals(stop: watch::Sender<Stop>, signalled: Arc<AtomicI32>) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let mut hangup = if ignores_hangup() { None } else { signal(SignalKind::hangup()).ok() };
    loop {
        let number = tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
            Some(()) = next(&mut hangup) => 1,
        };
        if signalled.swap(number, Ordering::Relaxed) == 0 {
            complain(
                "stopping: running steps come to their end (at most 10s), no new one starts; again to stop at once",
            );
            let _ = stop.send(Stop::InOrder);
        } else {
            let _ = stop.send(Stop::Now);
        }
    }
}

/// The next signal; never, where there is nothing to wait for.
async fn next(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP is ignored, as below `nohup`, which a handler would undo. From `SigIgn` in `/proc/self/status` (proc(5)): a mask with
/// the lowest bit for signal 1.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
