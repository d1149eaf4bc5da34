//! `fanli ip` and the address book in plays: over a file, as a person meets it.

use std::path::Path;
use std::process::{Command, Output};

use super::told;
use crate::snap::Snaps;

const PLAYBOOK: &str = r#"
vars { size = 2  folder = "/nowhere" }

hosts docker {
  host "lab1" { connection = local }
}

network "lan" {
  subnet  = 10.71.0.0/24
  gateway = 10.71.0.254
  pool    = 10.71.0.10 - 10.71.0.14
}

network "wide" {
  subnet = fd00:71::/64
  pool   = fd00:71::10 - fd00:71::ffff
}

nodes web {
  count   = size
  on      = hosts.docker
  network = "lan"
  name    = "web{{ node.address | octets(4) }}"
}

play "pages" on nodes.web {
  file "{{ folder }}/{{ node.name }}" { content = "{{ node.address }}\n" }
}
"#;

/// A project of its own, with what playing needs.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("web.fp"), PLAYBOOK).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn fanli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(crate::common::fanli());
        command.args(arguments).current_dir(self.path()).env_clear().env("PATH", "/usr/bin:/bin");
        command.output().unwrap()
    }

    fn play(&self, more: &[&str]) -> Output {
        let (state, set) = (self.path().join("state"), format!("folder={}", self.path().display()));
        let arguments = ["play", "web.fp", "--state-dir", state.to_str().unwrap(), "--set", &set];
        self.fanli(&[&arguments, more].concat())
    }

    #[track_caller]
    fn good(&self, more: &[&str]) -> String {
        let output = self.play(more);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn pages(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("web") && !name.contains('.'));
        names.sort();
        names
    }

    /// What a call says, without what differs from run to run.
    fn said(&self, arguments: &[&str]) -> String {
        let text = told(&arguments.join(" "), &self.fanli(arguments));
        let mut out = String::new();
        let mut rest = text.as_str();
        // `2026-11-25 07:46:01Z` has a fixed length, so that tables keep their shape.
        while let Some(at) = rest.find("20").filter(|at| is_time(&rest[*at..])) {
            out.push_str(&rest[..at]);
            out.push_str("YYYY-MM-DD hh:mm:ssZ");
            rest = &rest[at + 20..];
        }
        out.push_str(rest);
        let out = out.replace(&self.path().display().to_string(), "PROJECT");
        let run = |line: &str| if line.starts_with("  run ") { "  run       RUN".to_owned() } else { line.to_owned() };
        out.lines().map(run).collect::<Vec<_>>().join("\n")
    }
}

fn is_time(text: &str) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.get(..20).is_some_and(|text| text.chars().map(shape).collect::<String>() == "0000-00-00 00:00:00Z")
}

#[test]
fn a_play_binds_addresses_and_people_look_at_them() {
    let project = Project::new();
    let mut snaps = Snaps::beside("cli");
    let mut say = |name: &str, arguments: &[&str]| snaps.compare(&format!("ip_{name}"), &project.said(arguments));
    say("list_empty", &["ip", "list", "web.fp"]);
    assert!(!project.path().join(".fanli").exists(), "looking makes no book");
    project.good(&["--check"]);
    assert!(!project.path().join(".fanli").exists(), "check mode makes no book");
    project.good(&[]);
    assert_eq!(project.pages(), ["web010", "web011"]);
    let said = project.good(&[]);
    assert!(said.contains("nothing to do: everything is as declared"), "{said}");
    say("reserve", &["ip", "reserve", "10.71.0.12", "web.fp", "--note", "printer, room 4"]);
    say("reserve_again", &["ip", "reserve", "10.71.0.12", "web.fp", "--note", "printer, room 4"]);
    say("reserve_bound", &["ip", "reserve", "10.71.0.9-10.71.0.11", "web.fp"]);
    say("reserve_outside", &["ip", "reserve", "10.72.0.1", "web.fp"]);
    say("reserve_wrong", &["ip", "reserve", "printer", "web.fp"]);
    say("reserve_huge", &["ip", "reserve", "fd00:71::-fd00:71::1:0", "web.fp"]);
    say("reserve_backwards", &["ip", "reserve", "10.71.0.9-10.71.0.8", "web.fp"]);
    say("list", &["ip", "list", "web.fp"]);
    say("list_network", &["ip", "list", "web.fp", "--network", "wide", "--json"]);
    say("list_network_wrong", &["ip", "list", "web.fp", "--network", "lam"]);
    for (name, what) in [("address", "10.71.0.10"), ("owner", "web/2"), ("node", "web010"), ("static", "10.71.0.12")] {
        say(&format!("show_{name}"), &["ip", "show", what, "web.fp"]);
    }
    say("show_nearly", &["ip", "show", "web/3", "web.fp"]);
    say("show_free", &["ip", "show", "10.71.0.13", "web.fp"]);
    say("find", &["ip", "find", "web.fp", "--count", "3"]);
    say("find_json", &["ip", "find", "web.fp", "--network", "lan", "--json"]);
    say("release_fence_wrong", &["ip", "release", "web/2", "web.fp", "--fence", "yes"]);
    say("release_static", &["ip", "release", "10.71.0.12", "web.fp"]);
    say("release_fence", &["ip", "release", "web/2", "web.fp", "--fence", "I know that it is down"]);
    say("release_twice", &["ip", "release", "web/2", "web.fp"]);
    say("list_releasing", &["ip", "list", "web.fp"]);
    say("wrong_playbook", &["ip", "list", "nothing.fp"]);
    let json: serde_json::Value =
        serde_json::from_slice(&project.fanli(&["ip", "list", "web.fp", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json[0]["owner"], &json[0]["host"], &json[0]["state"]),
        (&"web/1".into(), &"lab1".into(), &"bound".into())
    );
    assert!(json[0]["revision"].as_u64().unwrap() > 0 && json[0]["since"].as_u64().unwrap() > 1_700_000_000);
    snaps.end();
}

#[test]
fn lists_are_imported_once_and_whole_or_not_at_all() {
    let project = Project::new();
    project.good(&[]);
    let mut snaps = Snaps::beside("cli");
    let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).unwrap();
    write("used.csv", "Address,Name\n10.71.0.12,printer\n10.71.0.99,\"db, old\"\nfd00:71::10,router\n");
    write("hosts", "127.0.0.1\tlocalhost\n10.71.0.13 db.example.org # old\n");
    write("clash", "10.71.0.14 free\n10.71.0.10 taken\n10.71.0.11 taken too\n");
    write("wrong", "10.71.0.14 a\n10.71.0 b\n");
    for (name, list) in [
        ("csv", "used.csv"),
        ("csv_again", "used.csv"),
        ("hosts", "hosts"),
        ("clash", "clash"),
        ("wrong", "wrong"),
        ("missing", "missing"),
    ] {
        snaps.compare(&format!("ip_import_{name}"), &project.said(&["ip", "import", list, "web.fp"]));
    }
    snaps.compare("ip_import_list", &project.said(&["ip", "list", "web.fp"]));
    // What is imported is given to nobody: one more node gets the last address, two more do not fit.
    project.good(&["--set", "size=3"]);
    assert_eq!(project.pages(), ["web010", "web011", "web014"]);
    let said = project.play(&["--set", "size=4"]);
    assert_eq!(said.status.code(), Some(2));
    snaps.compare("ip_pool_full", &String::from_utf8(said.stderr).unwrap());
    snaps.end();
}

#[test]
fn names_and_addresses_stay_with_their_slots() {
    let project = Project::new();
    project.good(&["--set", "size=3"]);
    // The middle one is given back and its address kept by hand: the others stay what they are.
    project.fanli(&["ip", "release", "web/2", "web.fp", "--fence", "I know that it is down"]);
    project.good(&["--set", "size=3"]);
    assert_eq!(project.pages(), ["web010", "web011", "web012"], "its own owner has it back");
    // Another group on the same network takes what is free, and keeps it when the first one grows.
    let more = "\nnodes db {\n  count = 1\n  on = hosts.docker\n  network = \"lan\"\n  name = \"db{{ node.address | octets(4) }}\"\n}\n";
    std::fs::write(project.path().join("web.fp"), format!("{PLAYBOOK}{more}")).unwrap();
    project.good(&["--set", "size=3"]);
    let list = project.said(&["hosts", "web.fp", "--set", "size=4"]);
    assert!(list.contains("db013   10.71.0.13") && list.contains("web014  10.71.0.14"), "{list}");
    // A list that wants what another one has.
    let listed = PLAYBOOK.replace("count   = size", "addresses = [10.71.0.10, 10.71.0.13]");
    std::fs::write(project.path().join("web.fp"), listed).unwrap();
    let said = project.play(&[]);
    assert_eq!(said.status.code(), Some(2));
    let mut snaps = Snaps::beside("cli");
    snaps.compare("ip_listed_held", &String::from_utf8(said.stderr).unwrap());
    // A pool that has moved on.
    let moved = PLAYBOOK.replace("10.71.0.10 - 10.71.0.14", "10.71.0.100 - 10.71.0.140");
    std::fs::write(project.path().join("web.fp"), moved).unwrap();
    let said = project.play(&[]);
    // Nodes named after their addresses are others now: what the old ones had stays bound, and is told.
    snaps.compare("ip_pool_moved", &String::from_utf8(said.stderr).unwrap());
    assert_eq!(said.status.code(), Some(0));
    snaps.compare("ip_pool_moved_list", &project.said(&["ip", "list", "web.fp"]));
    snaps.compare("ip_set_reserved", &project.said(&["ip", "list", "web.fp", "--set", "nodes=3"]));
    snaps.compare("ip_adopt_from_nothing", &project.said(&["ip", "adopt", "web.fp", "--from", "nothing.redb"]));
    snaps.compare("ip_adopt_without_nobody", &project.said(&["ip", "adopt", "web.fp", "--without", "lab9"]));
    snaps.end();
}

/// Plays of one slot each, all at the same time; their exit codes and what they say.
fn race(project: &Project, number: usize) -> Vec<(Option<i32>, String)> {
    let plays: Vec<_> = (0..number)
        .map(|number| {
            let text = PLAYBOOK
                .replace("nodes web", &format!("nodes r{number}"))
                .replace("nodes.web", &format!("nodes.r{number}"));
            let text = text.replace("name    = \"web", &format!("name    = \"web-r{number}-"));
            std::fs::write(project.path().join(format!("r{number}.fp")), text).unwrap();
            let state = project.path().join(format!("race{number}"));
            let set = format!("folder={}", project.path().display());
            Command::new(crate::common::fanli())
                .args(["play", &format!("r{number}.fp"), "--set", "size=1", "--set", &set, "--state-dir"])
                .arg(state)
                .current_dir(project.path())
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let done = plays.into_iter().map(|play| play.wait_with_output().unwrap());
    done.map(|done| (done.status.code(), String::from_utf8(done.stderr).unwrap())).collect()
}

#[test]
fn of_two_that_want_the_last_address_one_has_it_and_the_other_is_told() {
    let project = Project::new();
    project.good(&["--set", "size=4"]);
    let done = race(&project, 2);
    let won = done.iter().filter(|(code, _)| *code == Some(0)).count();
    assert_eq!(won, 1, "{done:#?}");
    let (code, said) = done.iter().find(|(code, _)| *code != Some(0)).unwrap();
    assert_eq!(*code, Some(2), "{said}");
    assert!(said.contains("the pool of `lan` is full: all 5 are taken: 4 by `web`, 1 by `r"), "{said}");
    let list: serde_json::Value =
        serde_json::from_slice(&project.fanli(&["ip", "list", "web.fp", "--json"]).stdout).unwrap();
    let owners: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["owner"].as_str().unwrap()).collect();
    assert_eq!(owners.len(), 5, "{owners:?}");
}

#[test]
fn plays_at_the_same_time_give_no_address_twice() {
    // Every play has a slot of its own name, and they begin at the same address.
    let project = Project::new();
    let plays: Vec<_> = (0..5)
        .map(|number| {
            let text = PLAYBOOK
                .replace("nodes web", &format!("nodes g{number}"))
                .replace("nodes.web", &format!("nodes.g{number}"));
            let text = text.replace("name    = \"web", &format!("name    = \"web-g{number}-"));
            std::fs::write(project.path().join(format!("p{number}.fp")), text).unwrap();
            let state = project.path().join(format!("state{number}"));
            let set = format!("folder={}", project.path().display());
            Command::new(crate::common::fanli())
                .args(["play", &format!("p{number}.fp"), "--set", "size=1", "--set", &set, "--state-dir"])
                .arg(state)
                .current_dir(project.path())
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut play in plays {
        assert!(play.wait().unwrap().success());
    }
    let mut numbers: Vec<String> =
        project.pages().iter().map(|name| name.rsplit('-').next().unwrap().to_owned()).collect();
    numbers.sort();
    assert_eq!(numbers, ["010", "011", "012", "013", "014"]);
}
