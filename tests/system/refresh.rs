//! `fanli refresh` under a real supervisor, beside a real Apache.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use fanli::refresh::Status;

use crate::supervised::{Cell, apache, httpd_conf, lay_out, program, wait_for};

/// fanli as a program of supervisor; its backstop is so slow that no test is helped by it unless it says so.
pub fn refresher(conf: &str, more: &str) -> String {
    let every = if more.contains("--every") { "" } else { "--every 1h" };
    let command = format!(
        "{} refresh {conf} --program apache2 --state /run/refresh.json --keep /run/keep {every} {more}",
        crate::common::fanli()
    );
    program("refresh", &command, "")
}

pub const VALIDATE: &str = "--validate '/usr/sbin/apache2 -f /mnt/frl/conf/httpd.conf -t'";

/// Words of a command are set apart by blanks in fanli, and by supervisor with quotes.
pub fn plain(more: &str) -> Cell {
    let dir = tempfile::Builder::new().prefix("frl").tempdir_in("/tmp").unwrap();
    lay_out(dir.path());
    fs::write(dir.path().join("conf/httpd.conf"), httpd_conf("one")).unwrap();
    fs::write(dir.path().join("programs/apache2.conf"), apache("/mnt/frl/conf/httpd.conf", "")).unwrap();
    fs::write(dir.path().join("programs/refresh.conf"), refresher("/mnt/frl/conf", &format!("{VALIDATE} {more}")))
        .unwrap();
    fs::write(dir.path().join("programs/other.conf"), program("other", "/bin/sleep 100000", "")).unwrap();
    Cell::start(dir)
}

impl Cell {
    pub fn status(&self) -> Option<Status> {
        Status::read(&self.path("run/refresh.json"))
    }

    /// Waits until what stands on the disk is loaded, and all is well.
    #[track_caller]
    pub fn settles(&self) -> Status {
        wait_for("the refresher is well", || self.status().filter(Status::is_well))
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> String {
        wait_for(&format!("the refresher says `{text}`"), || {
            self.read("run/refresh.log").lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }
}

#[test]
fn an_edit_by_hand_is_loaded_and_a_broken_one_is_not() {
    let cell = plain("");
    cell.serves("one");
    cell.settles();
    let (apache, other) = (cell.told("apache2"), cell.told("other"));
    // What is loaded was not known: one reload at most.
    assert!(cell.graceful() <= 1, "{}", cell.graceful());
    let before = cell.graceful();

    cell.write("conf/httpd.conf", &httpd_conf("two"));
    cell.serves("two");
    assert_eq!(cell.settles().reloads, 1 + before as u64);
    assert_eq!(cell.graceful(), before + 1);
    cell.says("httpd.conf");

    // A broken one: told, and Apache goes on with what it has.
    cell.write("conf/httpd.conf", &(httpd_conf("three") + "Nonsense here\n"));
    let line = cell.says("cannot be used, and the program keeps what it has");
    assert!(line.contains("UTC  ") && line.contains("Nonsense"), "{line}");
    assert_eq!(cell.mark().as_deref(), Some("two"));
    let status = cell.status().unwrap();
    assert!(!status.is_well() && status.error.is_some() && status.loaded != status.wanted, "{status:?}");
    let shown =
        cell.sh(&format!("{} refresh --status --state /run/refresh.json || echo code $?", crate::common::fanli()));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("trouble     since") && shown.ends_with("code 4\n"), "{shown}");
    // The last good one is kept.
    assert_eq!(cell.read("run/keep/good/httpd.conf"), httpd_conf("two"));

    // Mended.
    cell.write("conf/httpd.conf", &httpd_conf("four"));
    cell.serves("four");
    cell.settles();
    assert_eq!(cell.graceful(), before + 2);

    // Broken, and back to what is loaded: nothing to reload.
    cell.write("conf/httpd.conf", "Nonsense\n");
    wait_for("it is told", || cell.status().filter(|status| status.error.is_some()));
    cell.write("conf/httpd.conf", &httpd_conf("four"));
    cell.settles();
    cell.says("all is well again");
    assert_eq!(cell.graceful(), before + 2);
    assert_eq!(cell.told("apache2"), apache, "Apache was restarted");
    assert_eq!(cell.told("other"), other, "another program was touched");

    // Ten quick edits, the last of which wins; what was there in between may not even be valid.
    for turn in 0..10 {
        cell.write("conf/httpd.conf", &httpd_conf(&format!("quick{turn}")));
        std::thread::sleep(Duration::from_millis(20));
    }
    cell.serves("quick9");
    cell.settles();
    let reloads = cell.graceful() - before - 2;
    assert!((1..=2).contains(&reloads), "{reloads} reloads");
    // Files that editors leave are none.
    cell.write("conf/.httpd.conf.swp", "x");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cell.graceful() - before - 2, reloads);

    // Stopped in order.
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf stop refresh");
    cell.says("stopped");
    let log = cell.read("run/supervisord.log");
    assert!(log.contains("stopped: refresh (exit status 0)"), "{log}");
}

#[test]
fn what_supervisor_gave_up_on_is_started_again_once_the_configuration_is_good() {
    let cell = plain("");
    cell.serves("one");
    cell.settles();
    cell.write("conf/httpd.conf", "Nonsense\n");
    wait_for("it is told", || cell.status().filter(|status| status.error.is_some()));
    // Somebody restarts it with that: supervisor tries, and gives up for good.
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf restart apache2 || true");
    cell.is("apache2", "FATAL");
    cell.write("conf/httpd.conf", &httpd_conf("two"));
    cell.serves("two");
    cell.says("was down and has been started");
    let status = cell.settles();

    // The same, and the very configuration that was loaded comes back.
    cell.write("conf/httpd.conf", "Nonsense\n");
    wait_for("it is told", || cell.status().filter(|status| status.error.is_some()));
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf restart apache2 || true");
    cell.is("apache2", "FATAL");
    cell.write("conf/httpd.conf", &httpd_conf("two"));
    cell.serves("two");
    assert_eq!(cell.settles().wanted, status.wanted);

    // Who is stopped by a person stays so.
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf stop apache2");
    cell.write("conf/httpd.conf", &httpd_conf("three"));
    cell.says("is stopped, and stays so");
    assert_eq!(cell.told("apache2").0, "STOPPED");
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf start apache2");
    cell.serves("three");
}

/// Generations, and the link that names one.
#[test]
fn a_server_whose_first_process_was_killed_is_back_by_itself() {
    let cell = plain("--every 1s");
    cell.serves("one");
    cell.settles();
    cell.is("apache2", "RUNNING");
    let before = (cell.told("apache2").1, cell.told("other"));
    cell.sh("kill -9 $(cat /run/apache.pid)");
    cell.says("processes that the program had left behind were ended");
    wait_for("another one is up", || {
        let (state, pid) = cell.told("apache2");
        (state == "RUNNING" && pid != before.0).then_some(())
    });
    cell.serves("one");
    cell.settles();
    let left = cell.sh("pgrep -P 1 -u www-data -c apache2 || true").stdout;
    assert_eq!(String::from_utf8_lossy(&left).trim(), "0");
    assert_eq!(cell.told("other"), before.1);
}

fn generation(cell: &std::path::Path, id: &str) {
    let place = cell.join("conf/generations").join(id);
    fs::create_dir_all(&place).unwrap();
    let conf = httpd_conf(id) + &format!("Alias /generation /mnt/frl/conf/generations/{id}/id\n");
    fs::write(place.join("httpd.conf"), conf).unwrap();
    fs::write(place.join("id"), format!("generation {id}\n")).unwrap();
}

fn switch(cell: &std::path::Path, id: &str) {
    let (new, link) = (cell.join("conf/.new"), cell.join("conf/current"));
    symlink(format!("generations/{id}"), &new).unwrap();
    fs::rename(&new, &link).unwrap();
}

#[test]
fn a_switched_generation_is_loaded_once_and_proven() {
    let dir = tempfile::Builder::new().prefix("frl").tempdir_in("/tmp").unwrap();
    lay_out(dir.path());
    let (one, two, three) = ("aaaaaaaaaaa1", "aaaaaaaaaaa2", "aaaaaaaaaaa3");
    for id in [one, two, three] {
        generation(dir.path(), id);
    }
    switch(dir.path(), one);
    let conf = "/mnt/frl/conf/current/httpd.conf";
    let more =
        format!("--validate '/usr/sbin/apache2 -f {conf} -t' --proof http://127.0.0.1:8080/generation --after 5s");
    fs::write(dir.path().join("programs/apache2.conf"), apache(conf, "")).unwrap();
    let refresh = refresher("/mnt/frl/conf", &more).replace("startsecs = 1", "startsecs = 1\nautostart = false");
    fs::write(dir.path().join("programs/refresh.conf"), refresh).unwrap();
    let cell = Cell::start(dir);
    cell.serves(one);
    // The program itself tells what it has: not even one reload.
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf start refresh");
    let status = cell.settles();
    assert_eq!((cell.graceful(), status.reloads), (0, 0));
    assert_eq!(status.loaded.unwrap().generation.as_deref(), Some(one));

    switch(cell.dir.path(), two);
    cell.serves(two);
    let status = cell.settles();
    assert_eq!((cell.graceful(), status.reloads), (1, 1));
    assert_eq!(status.loaded.unwrap().generation.as_deref(), Some(two));

    // Whoever switches may reload by himself: then it is not done twice.
    switch(cell.dir.path(), three);
    cell.sh("supervisorctl -c /mnt/frl/supervisord.conf signal USR1 apache2");
    cell.says("was loaded by somebody else");
    assert_eq!((cell.graceful(), cell.settles().reloads), (2, 1));

    // An edit by hand in the generation, and one that is gone.
    let edited = cell.read(&format!("conf/generations/{three}/httpd.conf")) + "Header always set X-Hand yes\n";
    cell.write(&format!("conf/generations/{three}/httpd.conf"), &edited);
    wait_for("the edit is loaded", || (cell.settles().reloads == 2).then_some(()));
    fs::remove_file(cell.path("conf/current")).unwrap();
    symlink("generations/gone", cell.path("conf/current")).unwrap();
    cell.says("current leads nowhere");
    assert_eq!(cell.mark().as_deref(), Some(three));
    fs::remove_file(cell.path("conf/current")).unwrap();
    switch(cell.dir.path(), three);
    cell.settles();
    assert_eq!((cell.graceful(), cell.settles().reloads), (3, 2));
}

/// As [`httpd_conf`], with a place of its own for what `--try` starts.
fn with_a_try(mark: &str) -> String {
    let usual = "PidFile /run/apache.pid\nListen 127.0.0.1:8080\n";
    let conf = httpd_conf(mark);
    assert!(conf.contains(usual));
    let other = "PidFile /run/try.pid\nListen 127.0.0.1:8081\n";
    conf.replace(usual, &format!("<IfDefine !TRY>\n{usual}</IfDefine>\n<IfDefine TRY>\n{other}</IfDefine>\n"))
}

#[test]
fn an_edit_that_only_a_start_finds_wrong_is_not_loaded() {
    let cell = plain("--try '/usr/sbin/apache2 -f /mnt/frl/conf/httpd.conf -D TRY -D FOREGROUND'");
    cell.write("conf/httpd.conf", &with_a_try("one"));
    cell.settles();
    cell.serves("one");
    let (apache, before) = (cell.told("apache2"), cell.graceful());
    cell.write("conf/httpd.conf", &with_a_try("two"));
    cell.serves("two");
    let loaded = cell.settles();

    // `-t` finds nothing wrong with a log writer that is not there; Apache dies of it.
    let broken = with_a_try("three").replace("ErrorLog /run/error.log", "ErrorLog \"|/usr/bin/no-such-writer\"");
    cell.write("conf/httpd.conf", &broken);
    let line = cell.says("what `--try` starts does not stay up");
    assert!(line.contains("cannot be used, and the program keeps what it has"), "{line}");
    assert!(line.contains("no-such-writer"), "{line}");
    assert_eq!(cell.mark().as_deref(), Some("two"));
    assert_eq!((cell.told("apache2"), cell.graceful()), (apache, before + 1));
    assert_eq!(cell.status().unwrap().loaded, loaded.loaded);

    cell.write("conf/httpd.conf", &with_a_try("four"));
    cell.serves("four");
    cell.settles();
    let left = cell.sh("pgrep -f '^[^ ]*apache2 .*-D TRY' || true; ls /run/try.pid 2>/dev/null || true");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}
