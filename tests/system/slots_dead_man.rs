//! Commit-confirmed: the watcher puts back what was not confirmed in time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fanli::resource::kinds::Kind;
use fanli::resource::rollout::{Phase, Record, Rollouts, SlotSeen};
use fanli::value::Value;

use crate::args;
use crate::common::{Bench, build, fanli};
use crate::slots::{confirm, guarded, id, revert, slot, switch};
use crate::watched::wait_for;

/// `fanli watch` on this machine with a state folder of its own, where nothing is attached. Ends with this value.
struct Watcher {
    child: Child,
    log: PathBuf,
}

impl Watcher {
    fn start(bench: &Bench, dir: &Path) -> Self {
        let watcher = Self::start_behind(&[], bench, dir);
        let pid = format!("(process {})", watcher.child.id());
        wait_for("the watcher runs", || watcher.said().contains(&pid));
        watcher
    }

    /// With another program in front; not waited for.
    fn start_behind(wrap: &[&str], bench: &Bench, dir: &Path) -> Self {
        let log = dir.join("watch.log");
        let out = File::options().append(true).create(true).open(&log).unwrap();
        let words: Vec<&str> = wrap.iter().copied().chain([fanli()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["watch", "--every", "1h", "--state-dir"]).arg(bench.probe.state_dir());
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    fn says(&self, text: &str) {
        wait_for(&format!("the watcher says `{text}`"), || self.said().contains(text));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the watcher said:\n{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A switch that the host puts back, and then makes a file.
fn within(path: &Path, number: u32, time: Duration, steps: &[Value]) -> Kind {
    let mut args = args! { "path" => path.to_str().unwrap(), "generation" => id(number), "rollout" => "r" };
    args.insert("within".to_owned(), Value::Duration(time));
    args.insert("revert".to_owned(), Value::List(steps.to_vec()));
    build("switch", args)
}

fn command(argv: &[&str]) -> Value {
    let argv = argv.iter().map(|word| Value::from(*word)).collect();
    let args = args! { "argv" => Value::List(argv) };
    Value::Map(args! { "kind" => "command", "args" => Value::Map(args) })
}

fn seen(bench: &Bench) -> SlotSeen {
    bench.block(Rollouts::look(&bench.probe)).unwrap().slots.remove(0)
}

fn shows(at: &Path, number: u32) -> bool {
    fs::read_link(at.join("current")).is_ok_and(|to| to.ends_with(id(number)))
}

fn status(bench: &Bench) -> (Option<i32>, String) {
    let done = Command::new(fanli()).args(["status", "--state-dir"]).arg(bench.probe.state_dir()).output().unwrap();
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

/// A slot that shows generation 1, confirmed, and has generation 2 staged.
fn prepared(bench: &Bench, dir: &Path) -> PathBuf {
    let at = dir.join("slot");
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    bench.converge(&switch(&at, 1, "r0")).unwrap().unwrap();
    bench.converge(&confirm(&at, 1)).unwrap().unwrap();
    bench.converge(&slot(&at, 2)).unwrap().unwrap();
    at
}

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn what_nobody_confirms_is_put_back_and_what_must_follow_follows() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = prepared(&bench, dir.path());
    let watcher = Watcher::start(&bench, dir.path());
    let (made, later) = (dir.path().join("made"), dir.path().join("later"));
    let steps = [
        command(&["test", "-e", later.to_str().unwrap()]),
        command(&["mkdir", made.to_str().unwrap()]),
        // Any kind will do.
        Value::Map(
            args! { "kind" => "file", "args" => Value::Map(args! { "path" => dir.path().join("told").to_str().unwrap(), "content" => "x" }) },
        ),
    ];
    bench.converge(&within(&at, 2, SHORT, &steps)).unwrap().unwrap();
    wait_for("the slot is put back", || shows(&at, 1));
    wait_for("what must follow follows", || seen(&bench).owed == 1);
    assert!(made.exists() && dir.path().join("told").exists());
    let slot = seen(&bench);
    assert_eq!(
        (slot.phase, slot.current.clone(), slot.previous.clone()),
        (Some(Phase::Reverted), Some(id(1)), Some(id(1)))
    );
    watcher.says("which follows the revert, does not work");
    let (code, text) = status(&bench);
    assert_eq!(code, Some(4));
    let hidden = |text: &str| {
        let lines = text.lines().skip_while(|line| !line.starts_with("slots"));
        let lines = lines.map(|line| line.replace(dir.path().to_str().unwrap(), "DIR"));
        let lines = lines.map(|line| match line.split_once(" at 20") {
            Some((before, after)) => format!("{before} at TIME{}", after.split_once("UTC").unwrap().1),
            None => line.trim_start().to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!("put_back_by_the_host", hidden(&text));

    // What does not work is tried again, and only that.
    fs::remove_dir(&made).unwrap();
    fs::write(&later, "").unwrap();
    wait_for("the rest follows", || seen(&bench).owed == 0 && seen(&bench).trouble.is_none());
    assert!(!made.exists(), "what worked was done once more");
    assert!(seen(&bench).why.is_some());

    // A confirmation that comes too late is told why; the next run of the rollout begins anew.
    let failure = bench.converge(&confirm(&at, 2)).unwrap_err();
    let text = crate::slots::said(&failure).replace(dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!("confirmed_too_late", text);
    assert_eq!(bench.plan(&revert(&at, "r")).unwrap(), None);
    bench.converge(&within(&at, 2, LONG, &steps)).unwrap().unwrap();
    bench.converge(&confirm(&at, 2)).unwrap().unwrap();
    assert_eq!(status(&bench).0, Some(0), "{}", status(&bench).1);
    println!("{}", watcher.said());
}

#[test]
fn what_is_confirmed_stays() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = prepared(&bench, dir.path());
    let watcher = Watcher::start(&bench, dir.path());
    let steps = [command(&["mkdir", dir.path().join("made").to_str().unwrap()])];
    bench.converge(&within(&at, 2, SHORT, &steps)).unwrap().unwrap();
    bench.converge(&confirm(&at, 2)).unwrap().unwrap();
    // Another slot, begun later, shows that the watcher has looked since.
    let other = dir.path().join("other");
    bench.converge(&slot(&other, 1)).unwrap().unwrap();
    bench.converge(&within(&other, 1, SHORT, &[])).unwrap().unwrap();
    wait_for("the other one is put back", || !other.join("current").exists());
    assert!(shows(&at, 2) && !dir.path().join("made").exists());

    // One that a run puts back itself is nothing for the watcher, either.
    bench.converge(&slot(&at, 3)).unwrap().unwrap();
    bench.converge(&within(&at, 3, LONG, &steps)).unwrap().unwrap();
    bench.converge(&revert(&at, "r")).unwrap().unwrap();
    assert!(shows(&at, 2) && !dir.path().join("made").exists());
    assert_eq!(watcher.said().matches("put back").count(), 1, "{}", watcher.said());
}

#[test]
fn a_watcher_that_was_killed_and_a_host_that_was_started_anew() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = prepared(&bench, dir.path());
    let mut watcher = Watcher::start(&bench, dir.path());
    bench.converge(&within(&at, 2, SHORT, &[])).unwrap().unwrap();
    let _ = watcher.child.kill();
    let _ = watcher.child.wait();
    wait_for("the time is over", || seen(&bench).left_ms == Some(0));
    assert!(shows(&at, 2), "nobody is there to put it back");
    drop(watcher);
    let watcher = Watcher::start(&bench, dir.path());
    wait_for("the next watcher puts it back", || shows(&at, 1));

    // A late run of the rollout has its whole time again.
    bench.converge(&within(&at, 2, LONG, &[])).unwrap().unwrap();
    drop(watcher);
    let change = |edit: &dyn Fn(&mut Record)| {
        let folder = bench.probe.state_dir().join("rollout");
        let mut paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let path = paths.find(|path| path.extension().is_some_and(|end| end == "json")).unwrap();
        let mut record: Record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(folder.join(".edited"), serde_json::to_vec(&record).unwrap()).unwrap();
        fs::rename(folder.join(".edited"), path).unwrap();
    };
    let now = bench.probe.moment().unwrap();
    change(&|record| record.deadline.as_mut().unwrap().at = now.after(Duration::from_secs(60)));
    let watcher = Watcher::start(&bench, dir.path());
    assert_eq!(bench.drift(&within(&at, 2, LONG, &[])), ["deadline"]);
    bench.converge(&within(&at, 2, LONG, &[])).unwrap().unwrap();
    assert!(seen(&bench).left_ms.unwrap() > 1_800_000);

    // Killed before it wrote down that it was switched: continued.
    change(&|record| record.phase = Phase::Switching);
    assert_eq!(bench.drift(&within(&at, 2, LONG, &[])), ["phase"]);
    bench.converge(&within(&at, 2, LONG, &[])).unwrap().unwrap();

    // The deadline of an earlier start of the host has passed, whatever its clock says.
    change(&|record| record.deadline.as_mut().unwrap().at.boot = "another".to_owned());
    wait_for("it is put back", || shows(&at, 1));
    watcher.says("before the host was started anew");

    // One that cannot be put back says so, and goes on saying so.
    bench.converge(&within(&at, 2, LONG, &[])).unwrap().unwrap();
    fs::rename(at.join("generations").join(id(1)), dir.path().join("away")).unwrap();
    change(&|record| record.deadline.as_mut().unwrap().at.boot = "another".to_owned());
    watcher.says("cannot be put back");
    wait_for("status says so", || seen(&bench).trouble.is_some_and(|text| text.contains("cannot be put back")));
    assert!(shows(&at, 2));
    fs::rename(dir.path().join("away"), at.join("generations").join(id(1))).unwrap();
    wait_for("it is put back then", || shows(&at, 1));
    println!("{}", watcher.said());
}

#[test]
fn a_watcher_that_is_killed_in_the_middle_leaves_the_rest_to_the_next() {
    let mut killed = 0;
    for (call, most) in [("flock", 4), ("symlinkat", 1), ("renameat", 4), ("fsync", 8)] {
        for which in 1..=most {
            let (bench, dir) = (Bench::new(), guarded());
            let at = prepared(&bench, dir.path());
            let made = dir.path().join("made");
            let watcher = Watcher::start(&bench, dir.path());
            let steps = [command(&["mkdir", "-p", made.to_str().unwrap()]), command(&["true"])];
            bench.converge(&within(&at, 2, Duration::from_secs(1), &steps)).unwrap().unwrap();
            drop(watcher);
            // Detached, so that the watcher itself is the child: it goes with this test.
            let inject = format!("inject={call}:signal=KILL:when={which}");
            let wrap = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
            let mut watcher = Watcher::start_behind(&wrap, &bench, dir.path());
            let is_done = || shows(&at, 1) && seen(&bench).phase == Some(Phase::Reverted) && seen(&bench).owed == 0;
            let mut ended = false;
            wait_for("it is killed, or all is done", || {
                ended = watcher.child.try_wait().unwrap().is_some();
                ended || is_done()
            });
            killed += u32::from(ended);
            drop(watcher);
            let (first, second) = (shows(&at, 1), shows(&at, 2));
            assert!(first != second, "{inject}: neither old nor new");
            let watcher = Watcher::start(&bench, dir.path());
            wait_for("the next one does the rest", is_done);
            assert!(made.exists(), "{inject}: what must follow was forgotten");
            assert_eq!(seen(&bench).trouble, None, "{inject}");
            drop(watcher);
        }
    }
    assert!(killed > 8, "{killed}");
}
