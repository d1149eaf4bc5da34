//! The kind `watcher`: installed, run by each manager, kept, and removed without a trace.

use crate::common::fanli;
use crate::copy::Copy;
use crate::watched::wait_for;

/// Runs a play with one watcher task; what `--check` says afterwards must be nothing.
fn play(copy: &Copy, parameters: &str) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let file = folder.path().join("play.fp");
    let text = format!(
        "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"watch\" on hosts.here {{\n  watcher {{ {parameters} }}\n}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let shown = file.display();
    let fanli = fanli();
    let check = format!("{fanli} play {shown} --check --detailed-exit-code");
    let before = copy.try_sh(&check);
    let said = String::from_utf8_lossy(&before.stdout).into_owned();
    assert_eq!(before.status.code(), Some(3), "{parameters}: nothing to do: {said}");
    let done = copy.try_sh(&format!("{fanli} play {shown}"));
    assert!(done.status.success(), "{parameters}: {}", String::from_utf8_lossy(&done.stdout));
    let after = copy.try_sh(&check);
    assert_eq!(after.status.code(), Some(0), "{parameters}: {}", String::from_utf8_lossy(&after.stdout));
}

/// What this machine itself has attached is not the copy's.
fn bare(copy: Copy) -> Copy {
    copy.sh("rm -rf /var/lib/fanli /usr/local/lib/fanli");
    copy
}

fn pid(copy: &Copy) -> String {
    copy.sh("sed 's,process ,,; s/,.*//' /var/lib/fanli/watch/lock")
}

fn runs(copy: &Copy, arguments: &str) {
    let line = copy.sh(&format!("tr '\\0' ' ' < /proc/{}/cmdline", pid(copy)));
    assert!(line.starts_with("/usr/local/lib/fanli/fanli watch ") && line.contains(arguments), "{line}");
    let status = copy.sh("/usr/local/lib/fanli/fanli status");
    assert!(status.contains("watcher     runs since "), "{status}");
}

/// What every manager is to do; `paths` are the files that it takes.
fn kept(copy: &Copy, manager: &str, paths: &[&str]) {
    play(copy, manager);
    runs(copy, "--every 30s");
    for path in paths {
        copy.sh(&format!("test -s {path}"));
    }
    let first = pid(copy);
    play(copy, &format!("{manager} every = 1m"));
    runs(copy, "--every 1m");
    assert_ne!(pid(copy), first, "{manager}: it was not started anew");
    // Another version of the program.
    let second = pid(copy);
    copy.sh("cd /usr/local/lib/fanli; cp fanli new; echo >> new; mv new fanli");
    play(copy, &format!("{manager} every = 1m"));
    assert_ne!(pid(copy), second, "{manager}: it was not started anew");
    copy.sh(&format!("cmp /usr/local/lib/fanli/fanli {}", fanli()));
}

fn gone(copy: &Copy, paths: &[&str]) {
    let last = pid(copy);
    play(copy, "state = absent");
    wait_for("it ends", || !copy.try_sh(&format!("test -e /proc/{last}/exe")).status.success());
    for path in paths.iter().chain(&["/usr/local/lib/fanli", "/run/fanli-watch.pid"]) {
        copy.sh(&format!("! test -e {path}"));
    }
}

#[test]
fn by_systemd() {
    let copy = bare(Copy::booted());
    let paths = ["/etc/systemd/system/fanli-watch.service"];
    kept(&copy, "", &paths);
    assert_eq!(copy.sh("systemctl is-active fanli-watch; systemctl is-enabled fanli-watch"), "active\nenabled");
    let before = pid(&copy);
    copy.sh(&format!("kill -9 {before}"));
    wait_for("systemd starts it again", || {
        let now = pid(&copy);
        now != before && copy.try_sh(&format!("test -e /proc/{now}/exe")).status.success()
    });
    runs(&copy, "--every 1m");
    gone(&copy, &paths);
    assert_eq!(copy.sh("systemctl is-active fanli-watch || :"), "inactive");
}

#[test]
fn by_an_init_script_and_by_nobody() {
    let copy = bare(Copy::new());
    let paths = ["/etc/init.d/fanli-watch"];
    kept(&copy, "", &paths);
    copy.sh("ls /etc/rc3.d/S*fanli-watch");
    assert_eq!(copy.sh("/etc/init.d/fanli-watch status"), "running");
    // One that was killed is started by the next run.
    copy.sh(&format!("kill -9 {}", pid(&copy)));
    wait_for("it is gone", || copy.try_sh("/etc/init.d/fanli-watch status").status.code() == Some(3));
    play(&copy, "every = 1m");
    runs(&copy, "--every 1m");

    // From the script to nobody, and back; nothing of the other is left.
    kept(&copy, "manager = none", &[]);
    copy.sh("! test -e /etc/init.d/fanli-watch");
    play(&copy, "manager = none every = 1m state = absent");
    copy.sh("! test -e /usr/local/lib/fanli");
    kept(&copy, "manager = sysvinit", &paths);
    gone(&copy, &paths);
}

#[test]
fn by_supervisor() {
    let copy = bare(Copy::new());
    copy.sh("mkdir -p /var/log/supervisor; setsid supervisord -c /etc/supervisor/supervisord.conf; for _ in $(seq 50); do supervisorctl version && exit 0; sleep 0.1; done; exit 1");
    let paths = ["/etc/supervisor/conf.d/fanli-watch.conf"];
    kept(&copy, "manager = supervisor", &paths);
    let before = pid(&copy);
    copy.sh(&format!("kill -9 {before}"));
    wait_for("supervisor starts it again", || {
        let now = pid(&copy);
        now != before && copy.try_sh(&format!("test -e /proc/{now}/exe")).status.success()
    });
    gone(&copy, &paths);
}
