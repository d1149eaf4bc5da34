//! What the subcommands that stay have in common: one thread, and a clean end at a signal.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{complain, exit, failed};
use crate::failure::Failure;

/// How long what still runs may hold the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs until the work ends by itself, or after SIGINT or SIGTERM, which it hears. On one thread: what such a process does are short
/// questions in turn, and each change of thread costs more than an answer.
pub(super) fn run<F: Future<Output = Result<(), Failure>>>(work: impl FnOnce(watch::Receiver<bool>) -> F) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: no runtime: {error}"));
            return exit::INTERNAL.into();
        }
    };
    let ended = runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return std::future::pending().await };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let _ = stop.send(true);
            // Dropped only now: a closed channel would end the work, too.
            std::future::pending::<()>().await;
        });
        work(stopping).await
    });
    runtime.shutdown_timeout(FAREWELL);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}
