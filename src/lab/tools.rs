//! Runs the system's own tools by argument list, each with a time limit.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure};

/// How long one tool may take.
pub(super) const TOOL: Duration = Duration::from_secs(60);

/// Runs a tool and gives its standard output.
///
/// # Errors
/// When it cannot be started, fails (with what it said) or takes longer than [`TOOL`].
pub(super) fn tool(program: &str, args: &[&str]) -> Result<String, Failure> {
    tool_within(program, args, "lab.tool", TOOL)
}

/// As [`tool`], with a limit of its own.
pub(super) fn tool_within(program: &str, args: &[&str], limit: &str, time: Duration) -> Result<String, Failure> {
    let said = || format!("{program} {}", args.join(" "));
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let pid = child.id();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(time) else {
        super::process::kill(pid);
        return Err(Failure::timeout(limit, time).within(said()));
    };
    let output = output.with_context(said)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::new(said()).because(String::from_utf8_lossy(&output.stderr).trim()))
}

/// Whether a tool succeeds.
pub(super) fn succeeds(program: &str, args: &[&str]) -> bool {
    tool(program, args).is_ok()
}

/// Waits until `ready` says so.
///
/// # Errors
/// When `time` runs out; `limit` names it.
pub(super) fn wait_until(limit: &str, time: Duration, ready: impl Fn() -> bool) -> Result<(), Failure> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > time {
            return Err(Failure::timeout(limit, time));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a program is on the `PATH`, or where only root looks.
pub(super) fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| std::path::Path::new(dir).join(program).is_file())
}

/// All failures as one: the first, with the others as its causes.
///
/// # Errors
/// When there is one.
pub(super) fn together(failures: Vec<Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    Err(failures.fold(first, Failure::because))
}
