//! Slots killed at every call that changes something: the tree is wholly old or wholly new, and the next run goes on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use fanli::change::between;
use fanli::failure::Failure;
use fanli::resource::Resource as _;
use fanli::resource::rollout::Rollouts;
use fanli::system::{Actuator, NoBlobs, Probe};

use crate::common::chance::{Chance, moments};
use crate::kill::{FOLDER, MARK, points, strace_of};
use crate::slots::{files, generations, id, revert, shown, slot, switch, tree_below, tree_of};

/// A probe whose state stands in the folder: what the victim leaves is found by the next run.
fn probe(dir: &Path) -> Probe {
    Probe::new(Arc::new(NoBlobs), Arc::new(|_: &str, _| {}), dir.join("state"))
}

/// What a run does: it mends a generation that was edited, stages another one, switches to it, and puts it back.
fn work(dir: &Path) -> Result<(), Failure> {
    let at = dir.join("slot");
    let probe = probe(dir);
    // One thread, so that all calls are counted in it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(!probe.exists(MARK).unwrap());
    let kinds = [slot(&at, 1), slot(&at, 2), switch(&at, 2, "r"), revert(&at, "r")];
    for kind in &kinds {
        runtime.block_on(async {
            let observed = kind.observe(&probe).await?;
            if let Some(change) = between(&kind.desired(), &observed.state) {
                kind.apply(&change, &Actuator::new(&probe)).await?;
            }
            let left = between(&kind.desired(), &kind.observe(&probe).await?.state);
            assert_eq!(left, None, "{kind:?}");
            Ok::<_, Failure>(())
        })?;
    }
    Ok(())
}

/// A slot that shows generation 1, of which one file was edited by hand.
fn prepare(dir: &Path) {
    let at = dir.join("slot");
    let one = at.join("generations").join(id(1));
    for (path, value) in files(1) {
        let file = one.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, value.as_str().unwrap()).unwrap();
    }
    fs::set_permissions(one.join("tls/key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(one.join("httpd.conf"), "# by hand\n").unwrap();
    symlink(format!("generations/{}", id(1)), at.join("current")).unwrap();
}

/// Not a test by itself: the process that strace runs.
#[test]
fn victim() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        work(Path::new(&dir)).unwrap();
    }
}

#[test]
fn killed_anywhere_the_tree_is_wholly_old_or_wholly_new() {
    let (logs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = logs.path().join("log");
    prepare(dir.path());
    let done = strace_of("slots_killed::victim", dir.path(), &log, None);
    assert!(done.status.success(), "{done:?}");
    // Between two calls that change something there is nothing new to see: of those that only look every twelfth will do.
    let all = points(&fs::read_to_string(&log).unwrap());
    let looks = ["fcntl", "close", "openat", "fstat", "newfstatat", "statx", "getdents64", "readlinkat", "readlink"];
    let mut looked = 0u32;
    let points: Vec<(String, u32)> = all
        .into_iter()
        .filter(|(name, _)| {
            looked += u32::from(looks.contains(&name.as_str()));
            !looks.contains(&name.as_str()) || looked.is_multiple_of(12)
        })
        .collect();
    assert!(points.len() > 200, "{points:?}");
    let points = Chance::new().some(points, moments(40, usize::MAX));
    let mut edited = tree_of(1);
    edited.insert("httpd.conf".to_owned(), (0o100_644, b"# by hand\n".to_vec()));
    let known = [edited, tree_of(1), tree_of(2)];
    let (mut killed, mut strays, mut met) = (0u32, 0u32, BTreeSet::new());
    for (name, which) in &points {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        prepare(dir.path());
        let at = format!("{name}:signal=KILL:when={which}");
        let done = strace_of("slots_killed::victim", dir.path(), &log, Some(&at));
        killed += u32::from(!done.status.success());
        let slot = dir.path().join("slot");
        let tree = shown(&slot).unwrap_or_else(|error| panic!("{at}: nothing is shown: {error}"));
        let position = known.iter().position(|known| *known == tree);
        met.insert(position.unwrap_or_else(|| panic!("{at}: a torn tree: {:?}", tree.keys())));
        strays += u32::from(generations(&slot).iter().any(|name| name.starts_with('.')));
        work(dir.path()).unwrap_or_else(|failure| panic!("{at}: the next run: {failure}"));
        assert_eq!(shown(&slot).unwrap(), tree_of(1), "{at}");
        assert_eq!(generations(&slot), [id(1), id(2)], "{at}");
        assert_eq!(tree_below(&slot.join("generations").join(id(2))).unwrap(), tree_of(2), "{at}");
        let seen = runtime.block_on(Rollouts::look(&probe(dir.path()))).unwrap();
        assert_eq!((seen.slots.len(), seen.slots[0].trouble.clone()), (1, None), "{at}");
    }
    eprintln!("{killed} of {} points killed, {strays} left something half-made", points.len());
    assert!(killed as usize >= points.len() * 9 / 10, "{killed} of {}", points.len());
    // A handful of moments need not meet all that there is.
    assert!(points.len() < 20 || strays > 0 && met.len() == 3, "{strays} {met:?}");
}

#[test]
fn a_file_system_without_an_exchange_will_do() {
    let (logs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepare(dir.path());
    let log = logs.path().join("log");
    let done = strace_of("slots_killed::victim", dir.path(), &log, Some("renameat2:error=EINVAL"));
    assert!(done.status.success(), "{done:?}");
    let slot = dir.path().join("slot");
    assert_eq!(shown(&slot).unwrap(), tree_of(1));
    assert_eq!(generations(&slot), [id(1), id(2)]);
    // Killed while there is none for a moment: the next run puts it back.
    for which in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let wrap = format!("renameat2:error=EINVAL -e inject=renameat:signal=KILL:when={which}");
        let _ = Command::new("sh")
            .args(["-c", "exec strace -f -qq -o /dev/null -e trace=renameat,renameat2 -e inject=$0 \"$1\" --exact slots_killed::victim --test-threads=1"])
            .args([wrap.as_str(), std::env::current_exe().unwrap().to_str().unwrap()])
            .env(FOLDER, dir.path())
            .output()
            .unwrap();
        work(dir.path()).unwrap_or_else(|failure| panic!("{which}: the next run: {failure}"));
        let slot = dir.path().join("slot");
        assert_eq!(shown(&slot).unwrap(), tree_of(1), "{which}");
        assert_eq!(generations(&slot), [id(1), id(2)], "{which}");
    }
}
