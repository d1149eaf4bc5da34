//! Programs and signals inside running containers, through the daemon.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::KillContainerOptions;
use futures_util::StreamExt as _;

use super::docker::{ANSWER, DockerHands, failure, limited};
use super::process::Ended;
use crate::failure::Failure;

/// How much is kept of what a program in a container says, in bytes; its end, which tells why it failed.
const KEPT: usize = 256 * 1024;

impl DockerHands {
    /// Runs a program in a container, as the container's own user, and waits for its end.
    ///
    /// # Errors
    /// The container does not run, or the program does not end within the limit; the daemon has no way to end it then. A bad exit
    /// code is for the caller to judge; 126 and 127 are the daemon's word for what cannot be run.
    pub async fn exec(&self, container: &str, argv: &[String], limit: (&str, Duration)) -> Result<Ended, Failure> {
        let what = format!("cannot run `{}` in container {container}", argv.join(" "));
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            ..Default::default()
        };
        let request = self.client.create_exec(container, options);
        let made = limited(("docker answer", ANSWER), &what, request).await?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let running = async {
            let started = self.client.start_exec(&made.id, None::<StartExecOptions>).await;
            if let StartExecResults::Attached { mut output, .. } = started.map_err(|error| failure(&what, &error))? {
                while let Some(piece) = output.next().await {
                    match piece.map_err(|error| failure(&what, &error))? {
                        LogOutput::StdErr { message } => keep(&mut err, &message),
                        piece => keep(&mut out, &piece.into_bytes()),
                    }
                }
            }
            Ok::<_, Failure>(())
        };
        match super::waiting::waiting(&what, Box::pin(tokio::time::timeout(limit.1, running))).await {
            Ok(ended) => ended?,
            Err(_) => {
                return Err(Failure::timeout(limit.0, limit.1).within(what).hint("it still runs in the container"));
            }
        }
        let ended = limited(("docker answer", ANSWER), &what, self.client.inspect_exec(&made.id)).await?;
        let code = ended.exit_code.and_then(|code| i32::try_from(code).ok());
        let code = code.ok_or_else(|| Failure::new(what).because("the daemon does not tell how it ended"))?;
        Ok(Ended::elsewhere(argv, code, &out, &err))
    }

    /// Sends a signal to a container's first process: `HUP`.
    ///
    /// # Errors
    /// The container does not run, or there is no such signal.
    pub async fn signal(&self, container: &str, signal: &str) -> Result<(), Failure> {
        let what = format!("cannot send {signal} to container {container}");
        let request = self.client.kill_container(container, Some(KillContainerOptions { signal: signal.to_owned() }));
        limited(("docker answer", ANSWER), &what, request).await
    }
}

/// Adds to the end, and lets go of the beginning.
fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    kept.extend_from_slice(more);
    if kept.len() > 2 * KEPT {
        kept.drain(..kept.len() - KEPT);
    }
}
