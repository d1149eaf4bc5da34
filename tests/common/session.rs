//! What the tests of one run share: a folder that `tests/run` makes and removes, and locks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Names the folder; it holds `pid`, the number of the process that the session lasts as long as.
const SESSION: &str = "FANLI_TEST_SESSION";

/// Returns the folder of the session, if there is one.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(SESSION).map(PathBuf::from)
}

/// Waits until no test on this machine has the lock of that name, and takes it.
pub fn lock(name: &str) -> File {
    let file = File::create(format!("/run/lock/fanli-test-{name}")).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

/// Returns a file that is made once in a session, by the first test that asks for it; without a session it is made anew, in `own`.
pub fn once(name: &str, own: &Path, make: impl FnOnce(&Path)) -> PathBuf {
    let path = folder().unwrap_or_else(|| own.to_owned()).join(name);
    let _lock = lock(name);
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        make(&unfinished);
        fs::rename(&unfinished, &path).unwrap();
    }
    path
}
