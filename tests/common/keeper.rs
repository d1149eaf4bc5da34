//! What must be undone when a test ends, also when it is killed.

use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

/// The promise that a script is run once this value is dropped or this process has ended. A child keeps it: it waits for the end
/// of a pipe, which comes with either.
pub struct Keeper {
    child: Child,
}

impl Keeper {
    /// `arguments` are the script's `$0`, `$1`, …
    pub fn new<S: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let child = Command::new("setsid")
            .args(["sh", "-c", &format!("cat > /dev/null\n{script}")])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let done = self.child.wait().is_ok_and(|status| status.success());
        assert!(done || std::thread::panicking(), "what a test has made was not taken away");
    }
}
