//! The helper on this machine: the same binary over pipes.

use std::process::Stdio;

use tokio::process::Command;

use super::codec::Reader;
use super::{Link, Reach, Tail};
use crate::failure::{Context as _, Failure, FailureKind};

/// Starts the helper here, through sudo when that is asked for and needed.
pub(super) fn connect(r#become: bool, reach: &Reach, state_dir: Option<&str>) -> Result<Link, Failure> {
    let elevate = r#become && !rustix::process::geteuid().is_root();
    let mut command = if elevate {
        // By name here: in sudo's own process `/proc/self/exe` is sudo.
        let name = std::env::current_exe().context("this executable cannot be found")?;
        let mut command = Command::new("sudo");
        command.args(["-n", "--"]).arg(name);
        command
    } else {
        Command::new(reach.binary.path())
    };
    command.arg("helper");
    if let Some(state_dir) = state_dir {
        command.args(["--state-dir", state_dir]);
    }
    // A group of its own: Ctrl-C at the terminal reaches the coordinator alone, which stops the helper in order. It is not killed when the
    // link is dropped: it ends by itself once its stdin is closed, as over SSH, and may have a container to put back before that.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let unreachable = |text: String| Failure::of(FailureKind::Unreachable, text);
    let mut child = command.spawn().map_err(|error| unreachable(format!("the helper cannot be started: {error}")))?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
        return Err(unreachable("the helper has no streams".to_owned()));
    };
    Ok(Link {
        input: Reader::new(Box::new(stdout), &[]),
        output: Box::new(stdin),
        stderr: Tail::follow(stderr),
        uploaded: false,
        guard: Box::new(child),
    })
}
