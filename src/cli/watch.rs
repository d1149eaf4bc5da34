//! `fanli watch`: keeps what runs have attached on this host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{daemon, play, print};
use crate::watch::{Settings, run as watch_host};

/// Keep the interfaces of this host's containers, also after restarts
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli watch                in the foreground; as a unit: `fanli doc watcher`
  fanli watch --every 10s    look at everything that often, besides what events tell
  fanli status               what it does, and what it could not do

It reads what runs have left in /var/lib/fanli/attach; it needs no controller and no playbook.
SIGTERM and SIGINT stop it; the interfaces stay. docs/watcher.md tells more.")]
pub(super) struct Args {
    /// Look at every container that often, besides what events tell
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = every)]
    every: Duration,

    /// Plug so many containers at the same time
    #[arg(long, default_value = "8", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,

    /// Keep log files that often, as `logs` tasks have declared
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = logs_every)]
    logs_every: Duration,

    /// Write the process number there
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Another state folder than /var/lib/fanli
    #[arg(long, hide = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Often enough to be of use, and not all the time.
fn every(text: &str) -> Result<Duration, String> {
    let time = play::duration(text)?;
    let fits = (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time);
    if fits { Ok(time) } else { Err("write a time from 1s to 1h".to_owned()) }
}

/// Seldom enough to be no load, and often enough for a disk that fills.
fn logs_every(text: &str) -> Result<Duration, String> {
    let time = play::duration(text)?;
    let fits = (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&time);
    if fits { Ok(time) } else { Err("write a time from 1s to 1d".to_owned()) }
}

pub(super) fn run(args: &Args) -> ExitCode {
    let settings = Settings {
        state_dir: args.state_dir.clone().unwrap_or_else(crate::remote::helper::default_state_dir),
        every: args.every,
        parallel: args.parallel.into(),
        logs_every: args.logs_every,
        pid_file: args.pid_file.clone(),
    };
    daemon::run(|stopping| watch_host(settings, |line| print(&format!("{line}\n")), stopping))
}
