//! Waiting for other package managers, and saying which.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::super::Probe;
use super::Wait;
use crate::failure::{Context, Failure};

/// How often a held lock is looked at again.
const RETRY: Duration = Duration::from_millis(200);

impl Probe {
    /// Waits until nobody holds one of these POSIX locks.
    ///
    /// # Errors
    /// The limit `lock_wait` ran out: with the process that holds it.
    pub(super) async fn wait_for_locks(&self, files: &[&str], wait: &Wait) -> Result<(), Failure> {
        let mut told = false;
        while let Some((file, holder)) = held(files)? {
            if wait.over() {
                return Err(wait.failure(format!("{file} is held by {holder}")));
            }
            if !told {
                self.progress(&format!("waiting for {holder}, which holds {file}"), None);
                told = true;
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }
}

/// The first lock that somebody holds, and who.
fn held<'a>(files: &[&'a str]) -> Result<Option<(&'a str, String)>, Failure> {
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot open the lock {path}")),
        };
        let lock = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
            .with_context(|| format!("cannot look at the lock {path}"))?;
        if let Some(lock) = lock {
            return Ok(Some((path, holder(lock.pid.map(|pid| pid.as_raw_nonzero().get())))));
        }
    }
    Ok(None)
}

fn holder(pid: Option<i32>) -> String {
    // A process of another PID namespace has no number here.
    let Some(pid) = pid else { return "another process".to_owned() };
    match std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm")) {
        Ok(name) => format!("process {pid} (`{}`)", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}
