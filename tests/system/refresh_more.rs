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
