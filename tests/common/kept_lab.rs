//! Labs of the tests: gone when the test ends, however it ends, and begun without what an earlier, killed one left.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::fanli;

/// The promise that a lab goes. A child keeps it: it waits for the end of a pipe, which comes with this value or with this
/// process, and then takes the lab down.
pub struct KeptLab {
    keeper: Child,
}

impl KeptLab {
    /// Takes down what is left of a lab of that name; `up` is the caller's.
    pub fn begin(name: &str) -> Self {
        take_down(name);
        let keeper = Command::new("setsid")
            .args(["sh", "-c", r#"cat > /dev/null; exec "$0" lab down --name "$1""#, fanli(), name])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { keeper }
    }
}

impl Drop for KeptLab {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let gone = self.keeper.wait().is_ok_and(|status| status.success());
        assert!(gone || std::thread::panicking(), "the lab was not taken down");
    }
}

/// Takes a lab down; gives what was said. The keeper of this process, or of one that was killed a moment ago, may be at it
/// already.
pub fn take_down(name: &str) -> String {
    for _ in 0..150 {
        let done = Command::new(fanli()).args(["lab", "down", "--name", name]).output().unwrap();
        if done.status.success() {
            return String::from_utf8_lossy(&done.stdout).into_owned();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the lab `{name}` cannot be taken down");
}
