//! `fanli refresh` when things around it fail: itself, the kernel's events, the reload.

use std::time::Duration;

use crate::refresh::plain;
use crate::supervised::{httpd_conf, wait_for};

#[test]
fn a_refresher_that_was_killed_goes_on_where_it_was() {
    let cell = plain("");
    cell.serves("one");
    cell.settles();
    let before = cell.graceful();
    let restart = |between: &dyn Fn()| {
        let old = cell.told("refresh").1;
        cell.sh(&format!("supervisorctl -c /mnt/frl/supervisord.conf signal STOP refresh; {}", "true"));
        between();
        cell.sh("supervisorctl -c /mnt/frl/supervisord.conf signal KILL refresh");
        wait_for("it is started again", || {
            let (state, pid) = cell.told("refresh");
            (state == "RUNNING" && pid != old).then_some(())
        });
    };
    // Nothing changed, and Apache is the same: it is known what it has.
    restart(&|| {});
    cell.says("the program is the one that an earlier refresher has loaded");
    cell.settles();
    assert_eq!(cell.graceful(), before);
    // An edit that nobody heard.
    restart(&|| cell.write("conf/httpd.conf", &httpd_conf("two")));
    cell.serves("two");
    cell.settles();
    assert_eq!(cell.graceful(), before + 1);
    // A torn state file.
    restart(&|| cell.write("run/refresh.json", "{\"loaded\": "));
    cell.settles();
    assert!(cell.graceful() <= before + 2);
    cell.serves("two");
}

#[test]
fn without_inotify_it_looks_by_itself() {
    let dir = tempfile::Builder::new().prefix("frl").tempdir_in("/tmp").unwrap();
    crate::supervised::lay_out(dir.path());
    std::fs::write(dir.path().join("conf/httpd.conf"), httpd_conf("one")).unwrap();
    std::fs::write(dir.path().join("programs/apache2.conf"), crate::supervised::apache("/mnt/frl/conf/httpd.conf", ""))
        .unwrap();
    let more = format!("{} --poll 500ms", crate::refresh::VALIDATE);
    let refresh = crate::refresh::refresher("/mnt/frl/conf", &more);
    // As if the host had no instance left (pitfall 6); strace says EMFILE in the kernel's place.
    let strace = "strace -f -qq -o /dev/null -e trace=inotify_init1 -e inject=inotify_init1:error=EMFILE";
    let refresh = refresh.replace("command = ", &format!("command = {strace} "));
    std::fs::write(dir.path().join("programs/refresh.conf"), refresh).unwrap();
    let cell = crate::supervised::Cell::start(dir);
    cell.serves("one");
    cell.says("the kernel does not tell of changes");
    cell.says("looking every 500ms instead");
    assert!(cell.settles().watching.starts_with("polling: "));
    for mark in ["two", "three"] {
        cell.write("conf/httpd.conf", &httpd_conf(mark));
        cell.serves(mark);
        cell.settles();
    }
}

#[test]
fn what_validates_and_still_cannot_be_loaded_is_told_and_not_tried_without_end() {
    let cell = plain("");
    cell.serves("one");
    cell.settles();
    // `-t` says nothing about a logger that is not there, and the running Apache dies of it (M7).
    cell.write("conf/httpd.conf", &(httpd_conf("two") + "CustomLog \"|/no/such/logger\" common\n"));
    cell.says("could not be loaded");
    cell.is("apache2", "FATAL");
    let reloads = cell.graceful();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cell.graceful(), reloads);
    // Mended, it comes up by itself.
    cell.write("conf/httpd.conf", &httpd_conf("three"));
    cell.serves("three");
    cell.settles();

    // A supervisor whose own files are broken refuses to be asked; it is told, and nothing is touched.
    cell.write("programs/zz.conf", "[program:\n");
    cell.write("conf/httpd.conf", &httpd_conf("four"));
    cell.says("refuses reloadConfig");
    assert_eq!(cell.mark().as_deref(), Some("three"));
}

/// A refresher of a plain folder, without a supervisor: what it loads is a copy of the file.
struct Plain {
    dir: tempfile::TempDir,
    child: std::process::Child,
}

impl Plain {
    fn start(validate: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("conf")).unwrap();
        std::fs::write(dir.path().join("conf/app.conf"), "first").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let copy = format!("cp {} {}", path("conf/app.conf"), path("loaded"));
        let mut refresh = std::process::Command::new(crate::common::fanli());
        refresh.args(["refresh", &path("conf"), "--reload", &copy, "--validate", validate, "--every", "1h"]);
        refresh.args(["--state", &path("state.json"), "--keep", &path("keep")]).stdout(std::process::Stdio::null());
        let child = refresh.spawn().unwrap();
        let plain = Self { dir, child };
        plain.well();
        plain
    }

    fn status(&self) -> Option<fanli::refresh::Status> {
        fanli::refresh::Status::read(&self.dir.path().join("state.json"))
    }

    /// Waits until what stands there is loaded; how often something was loaded by then.
    #[track_caller]
    fn well(&self) -> u64 {
        wait_for("all is well", || self.status().filter(fanli::refresh::Status::is_well)).reloads
    }

    /// Writes another text every 150 ms until the other thing is there; the last text.
    #[track_caller]
    fn edited_until(&self, what: &str, mut there: impl FnMut() -> bool) -> String {
        let mut text = String::new();
        wait_for(what, || {
            text = format!("edit {:?}", std::time::Instant::now());
            std::fs::write(self.dir.path().join("fresh"), &text).unwrap();
            std::fs::rename(self.dir.path().join("fresh"), self.dir.path().join("conf/app.conf")).unwrap();
            std::thread::sleep(Duration::from_millis(150));
            there().then_some(())
        });
        text
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn edits_without_end_do_not_hold_back_what_can_be_tried_between_two_of_them() {
    let plain = Plain::start("true");
    let before = plain.well();
    plain.edited_until("something is loaded meanwhile", || plain.status().unwrap().reloads > before);
}

#[test]
fn what_changes_while_it_is_tried_is_not_loaded_and_that_is_told() {
    let plain = Plain::start("sleep 1");
    let before = plain.well();
    let told = || plain.status().unwrap().error.is_some_and(|error| error.contains("changed again and again for 5s"));
    let last = plain.edited_until("it is told", told);
    assert_eq!(plain.status().unwrap().reloads, before);
    wait_for("the last edit is loaded", || {
        (std::fs::read_to_string(plain.dir.path().join("loaded")).unwrap() == last).then_some(())
    });
    plain.well();
}
