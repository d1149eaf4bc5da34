//! A playbook in a folder of its own, played on this machine by the real program, and what it said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::fanli;

/// A folder with a playbook; what its plays make belongs below `out`.
pub(super) struct Place {
    dir: tempfile::TempDir,
}

/// A run that came to its end.
pub(super) struct Run {
    pub(super) code: Option<i32>,
    pub(super) events: Vec<Value>,
    /// What people read.
    pub(super) text: String,
}

impl Place {
    /// Hosts named `hosts` are all this machine. `OUT` in the playbook stands for the folder of what it makes.
    pub(super) fn new(hosts: &[&str], playbook: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.out("")).unwrap();
        let line = |name: &&str| format!("  host \"{name}\" {{ connection = local }}");
        let hosts: Vec<String> = hosts.iter().map(line).collect();
        let hosts = hosts.join("\n");
        let text = format!("hosts all_of_them {{\n{hosts}\n}}\n{playbook}");
        place.write("play.fp", &text.replace("OUT", &place.out("").display().to_string()));
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn out(&self, name: &str) -> PathBuf {
        let out = self.path("out");
        if name.is_empty() { out } else { out.join(name) }
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The text of a file below `out`; nothing when it is not there.
    pub(super) fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.out(name)).ok()
    }

    /// Waits until a file is below `out`; not for ever.
    #[track_caller]
    pub(super) fn wait_for(&self, name: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.read(name).is_none() {
            assert!(Instant::now() < until, "{name} does not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn command(&self, file: &str, more: &[&str]) -> Command {
        let mut command = Command::new(fanli());
        command.args(["play", file, "--json", "--state-dir"]).arg(self.path("state-%h")).args(more);
        command.current_dir(self.dir.path());
        command
    }

    /// Starts a play, to be disturbed.
    pub(super) fn start(&self, more: &[&str]) -> Child {
        self.command("play.fp", more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A play from its start to its end.
    pub(super) fn play(&self, more: &[&str]) -> Run {
        Run::of(self.start(more))
    }

    /// The same of another playbook in its folder.
    pub(super) fn play_file(&self, file: &str, more: &[&str]) -> Run {
        Run::of(self.command(file, more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }
}

impl Run {
    /// Waits for the end.
    pub(super) fn of(child: Child) -> Self {
        let done = child.wait_with_output().unwrap();
        let events =
            String::from_utf8_lossy(&done.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { code: done.status.code(), events, text: String::from_utf8_lossy(&done.stderr).into_owned() }
    }

    /// `target kind title: outcome` of each step, in order.
    pub(super) fn steps(&self) -> Vec<String> {
        let finished = self.events.iter().filter(|event| event["event"] == "step_finished");
        finished
            .map(|event| {
                let step = &event["step"];
                let target = step["node"].as_str().or(step["host"].as_str()).unwrap();
                let title = step["title"].as_str().unwrap();
                let title = Path::new(title).file_name().map_or(title.into(), |name| name.to_string_lossy());
                let handler = if step["handler"] == true { "handler " } else { "" };
                format!(
                    "{target} {handler}{} {title}: {}",
                    step["kind"].as_str().unwrap(),
                    event["outcome"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// Fails unless each host, and the run itself, counts its events from 0 without a gap, in the order of their times, and ends with
    /// one terminal event. Returns how many hosts there were.
    pub(super) fn hosts_in_sequence(&self) -> usize {
        let mut last: BTreeMap<&str, (u64, u64, bool)> = BTreeMap::new();
        for event in &self.events {
            let host = event["host"].as_str().unwrap_or_default();
            let terminal = ["host_finished", "host_lost", "run_finished"].contains(&event["event"].as_str().unwrap());
            let (next, at_ms, ended) = last.get(host).copied().unwrap_or_default();
            assert!(!ended, "{host} goes on after its end: {event}");
            assert_eq!(event["index"].as_u64(), Some(next), "{host}: {event}");
            assert!(event["at_ms"].as_u64().unwrap() >= at_ms, "{host} goes back in time: {event}");
            last.insert(host, (next + 1, event["at_ms"].as_u64().unwrap(), terminal));
        }
        assert!(last.values().all(|(.., ended)| *ended), "{last:?}");
        assert_eq!(self.events.last().unwrap()["event"], "run_finished");
        last.len() - 1
    }

    /// Fails with all that was said, unless it ended with this code.
    #[track_caller]
    pub(super) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.steps().join("\n"), self.text);
        self
    }

    /// Fails unless nothing was to be done.
    #[track_caller]
    pub(super) fn expect_nothing_done(self) -> Self {
        let run = self.expect(0);
        let tally = &run.events.last().unwrap()["tally"];
        assert_eq!(tally["changed"], 0, "{}\n{}", run.steps().join("\n"), run.text);
        run
    }
}
