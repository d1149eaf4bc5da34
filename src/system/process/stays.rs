//! Whether a program stays up, found out by starting it.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::time::timeout;

use super::output::Follow;
use super::{LINGER, Program, ended_with, spawn};
use crate::failure::{Context as _, Failure};

/// Starts a program, and ends it again once it has been up for `time`: its group gets TERM, and KILL when it is not gone within `grace`.
///
/// # Errors
/// It cannot be started, or has ended before: with its exit code and the last lines that it wrote.
pub async fn stays_up(program: &Program, time: Duration, grace: Duration) -> Result<(), Failure> {
    let (mut child, group) = spawn(program)?;
    drop(child.stdin.take());
    let mut out = Follow::new(child.stdout.take());
    let mut err = Follow::new(child.stderr.take());
    let Ok(status) = timeout(time, end(&mut child, &mut out, &mut err)).await else {
        group.ask_to_end();
        // What it says meanwhile is read, so that a full pipe does not hold it up.
        let _ = timeout(grace, end(&mut child, &mut out, &mut err)).await;
        return Ok(());
    };
    let status = status.with_context(|| format!("cannot wait for `{}`", program.show()))?;
    let rest = async { tokio::join!(out.follow(&|_| {}), err.follow(&|_| {})) };
    let _ = timeout(LINGER, rest).await;
    let ended = ended_with(program, status, out, err);
    let failure = if ended.success() {
        Failure::new(format!("`{}` ended by itself, with exit code 0", program.show()))
    } else {
        ended.failure()
    };
    Err(failure)
}

/// The end of a program whose output is read meanwhile. Safe to stop and go on.
async fn end(
    child: &mut Child,
    out: &mut Follow<ChildStdout>,
    err: &mut Follow<ChildStderr>,
) -> io::Result<ExitStatus> {
    let read = async {
        tokio::join!(out.follow(&|_| {}), err.follow(&|_| {}));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = child.wait() => status,
        () = read => std::future::pending().await,
    }
}
