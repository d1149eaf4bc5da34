//! `fanli gate`: stands before a container's program until its interface is there, then becomes it.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{complain, play};
use crate::failure::Failure;
use crate::system::link_events::wait_for_address;

/// As shells and Docker have it: what was to be run is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
/// See [`NOT_FOUND`].
const NOT_RUNNABLE: u8 = 126;
/// No interface within the limit (`EX_TEMPFAIL` of sysexits): a restart policy tries again.
const NO_INTERFACE: u8 = 75;

/// Wait for this container's interface, then become a program
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli gate -- apachectl -DFOREGROUND            any interface but lo, up and with an address
  fanli gate --interface eth0 --limit 5m -- java -jar shop.jar

A container with `gate = true` is started through this: `fanli doc container`. It waits for the
kernel's word, then becomes the program: same process number, same user, same environment. Exits
with 75 when there is no interface in time, with 126 or 127 when the program cannot be run.")]
pub(super) struct Args {
    /// Wait for this interface; any but lo by default
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,

    /// Give up after this time
    #[arg(long, default_value = "1m", value_name = "TIME", value_parser = play::duration)]
    limit: Duration,

    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

enum Ended {
    There,
    Signal(u8),
}

pub(super) fn run(args: &Args) -> ExitCode {
    let Some((program, arguments)) = args.program.split_first() else { return ExitCode::from(NOT_FOUND) };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("fanli gate: no runtime: {error}"));
            return ExitCode::from(NO_INTERFACE);
        }
    };
    match runtime.block_on(wait(args)) {
        Ok(Ended::There) => {}
        Ok(Ended::Signal(number)) => return ExitCode::from(128 + number),
        Err(failure) => {
            complain(&format!("fanli gate: {failure}: `{program}` was not started"));
            if let Some(hint) = failure.hint {
                complain(&format!("fanli gate: {hint}"));
            }
            return ExitCode::from(NO_INTERFACE);
        }
    }
    drop(runtime);
    // Signals that are caught here go back to their defaults with this.
    let error = Command::new(program).args(arguments).exec();
    complain(&format!("fanli gate: cannot run {program}: {error}"));
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE })
}

/// Process 1 of a container that does not listen to signals cannot be stopped but by force.
async fn wait(args: &Args) -> Result<Ended, Failure> {
    let waiting = wait_for_address(args.interface.as_deref(), args.limit);
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::quit()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) = signals else {
        return waiting.await.map(|()| Ended::There);
    };
    tokio::select! {
        there = waiting => there.map(|()| Ended::There),
        _ = terminate.recv() => Ok(Ended::Signal(15)),
        _ = interrupt.recv() => Ok(Ended::Signal(2)),
        _ = quit.recv() => Ok(Ended::Signal(3)),
    }
}
