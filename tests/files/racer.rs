//! Others swap names while root works in their tree: nothing outside the tree is ever touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanli::system::fs::Attrs;
use fanli::value::Value;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::args;
use crate::common::{Bench, build, is_root, picture};

/// Swaps that all racers must have made together.
const SWAPS: u64 = 100_000;

/// The shortest and the longest that it may take.
const AT_LEAST: Duration = Duration::from_secs(3);
/// See above.
const LIMIT: Duration = Duration::from_secs(60);

fn swap(one: &Path, other: &Path, stop: &AtomicBool, count: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn swapping_names_never_leads_outside() {
    let bench = Bench::new();
    // In memory: no time is spent on fsync, so that there are more rounds.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    // The sentinel: 20 files and directories that nothing may reach.
    let sentinel = dir.path().join("sentinel");
    for index in 0..10 {
        fs::create_dir_all(sentinel.join(format!("d{index}"))).unwrap();
        fs::write(sentinel.join(format!("d{index}/f")), format!("kept {index}")).unwrap();
    }
    fs::write(sentinel.join("f"), "kept").unwrap();
    // The tree that others can write: `x` and `f` are swapped with links that lead out of it.
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o777)).unwrap();
    let (x, y, f, g) = (tree.join("x"), tree.join("y"), tree.join("f"), tree.join("g"));
    fs::create_dir(&x).unwrap();
    symlink(&sentinel, &y).unwrap();
    fs::write(&f, "first").unwrap();
    symlink(sentinel.join("f"), &g).unwrap();
    // `own` is swapped with a second name of a file outside.
    let (own, second) = (tree.join("h"), tree.join("k"));
    fs::write(&own, "mine").unwrap();
    fs::hard_link(sentinel.join("d9/f"), &second).unwrap();
    let before = picture(&sentinel);

    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut rounds, mut done, mut refused) = (0u64, 0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&x, &y, &stop, &swaps));
        scope.spawn(|| swap(&f, &g, &stop, &swaps));
        scope.spawn(|| swap(&own, &second, &stop, &swaps));
        let started = Instant::now();
        let owner = Value::Int(if is_root() { 501 } else { i64::from(rustix::process::geteuid().as_raw()) });
        while (swaps.load(Ordering::Relaxed) < SWAPS || started.elapsed() < AT_LEAST) && started.elapsed() < LIMIT {
            rounds += 1;
            let mode = Value::Mode(0o700 + u32::try_from(rounds % 64).unwrap());
            let at = |path: &Path| path.display().to_string();
            let kinds = [
                build("directory", args! { "path" => at(&x), "owner" => owner.clone(), "mode" => mode.clone() }),
                build(
                    "directory",
                    args! { "path" => at(&x.join("d1")), "owner" => owner.clone(), "mode" => mode.clone() },
                ),
                build("directory", args! { "path" => at(&x.join("new/er")), "mode" => mode.clone() }),
                build("file", args! { "path" => at(&f), "content" => format!("{rounds}"), "mode" => mode.clone() }),
                build("file", args! { "path" => at(&f), "owner" => owner.clone(), "mode" => mode.clone() }),
                build("file", args! { "path" => at(&own), "owner" => owner.clone(), "mode" => mode.clone() }),
                build("file", args! { "path" => at(&x.join("d1/f")), "content" => "torn", "mode" => mode.clone() }),
                build("line", args! { "path" => at(&f), "line" => format!("l{rounds}"), "create" => true }),
                build("directory", args! { "path" => at(&x.join("d2")), "state" => "absent", "force" => true }),
                build("file", args! { "path" => at(&x.join("d3/f")), "state" => "absent" }),
            ];
            for kind in &kinds {
                let result = match bench.plan(kind) {
                    Ok(Some(change)) => bench.apply(kind, &change).map(|_| ()),
                    Ok(None) => Ok(()),
                    Err(failure) => Err(failure),
                };
                match result {
                    Ok(()) => done += 1,
                    Err(_) => refused += 1,
                }
            }
            // The whole tree below a name that is swapped all the time: x is a directory half of the time.
            let hands = bench.hands();
            let _ = hands.make_dir(x.join("deep/er"), Attrs::default());
            match hands.remove_tree(&x) {
                Ok(()) => {
                    done += 1;
                    let _ = fs::create_dir(&x);
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.into_inner();
    eprintln!("{swaps} swaps, {rounds} rounds, {done} done, {refused} refused");
    assert_eq!(picture(&sentinel), before);
    assert!(swaps >= SWAPS, "only {swaps} swaps in {LIMIT:?}");
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused: the race was not met");
}
