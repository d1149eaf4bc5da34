//! Events made by hand.

use fanli::change::{Change, Datum, FieldChange, Verb};
use fanli::event::{BadAnswer, Event, EventKind, Outcome, Phase, RolloutNews, StepRef, Tally, Target, Verdict};
use fanli::failure::{Failure, FailureKind};
use fanli::value::{Map, Value};

/// How many kinds of events there are; [`name`] does not compile when one is added.
pub(super) const KINDS: usize = 13;

/// The name of an event's kind.
pub(super) fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::RunStarted { .. } => "run_started",
        EventKind::HostConnected { .. } => "host_connected",
        EventKind::StageStarted { .. } => "stage_started",
        EventKind::BatchLeftOut { .. } => "batch_left_out",
        EventKind::Rollout { .. } => "rollout",
        EventKind::StepStarted { .. } => "step_started",
        EventKind::Progress { .. } => "progress",
        EventKind::StepFinished { .. } => "step_finished",
        EventKind::StageFinished { .. } => "stage_finished",
        EventKind::Warning { .. } => "warning",
        EventKind::HostFinished { .. } => "host_finished",
        EventKind::HostLost { .. } => "host_lost",
        EventKind::RunFinished { .. } => "run_finished",
    }
}

/// A change of one field.
pub(super) fn change(field: &str, from: impl Into<Datum>, to: impl Into<Datum>, diff: Option<&str>) -> Change {
    let field =
        FieldChange { field: field.to_owned(), from: from.into(), to: to.into(), diff: diff.map(str::to_owned) };
    Change { verb: Verb::Update, fields: vec![field] }
}

fn target(host: &str, node: &str) -> Target {
    Target { host: host.to_owned(), node: (!node.is_empty()).then(|| node.to_owned()) }
}

fn step(id: u32, target: Target, kind: &str, title: &str, line: u32) -> StepRef {
    let (kind, title, play) = (kind.to_owned(), title.to_owned(), "docker hosts".to_owned());
    StepRef { id, target, play, kind, title, at: format!("playbooks/web-tier.fp:{line}"), handler: false }
}

/// Numbers events of a run, each host's apart, and gives them times.
#[derive(Default)]
struct Tape {
    events: Vec<Event>,
    at_ms: u64,
}

impl Tape {
    fn say(&mut self, host: &str, after_ms: u64, kind: EventKind) -> &mut Self {
        self.at_ms += after_ms;
        let index = self.events.iter().filter(|event| event.host == host).count() as u64;
        self.events.push(Event { host: host.to_owned(), index, at_ms: self.at_ms, kind });
        self
    }

    fn start(check: bool, hosts: &[&str], steps: u32) -> Self {
        let mut tape = Self::default();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let playbook = "playbooks/web-tier.fp".to_owned();
        let kind = EventKind::RunStarted { run: "19ab-7".to_owned(), playbook, hosts, steps, check };
        tape.say("", 0, kind);
        tape
    }

    fn step(&mut self, step: &StepRef, took_ms: u64, outcome: Outcome, output: Map) -> &mut Self {
        let host = step.target.host.clone();
        self.say(&host, 1, EventKind::StepStarted { step: step.clone() });
        self.say(&host, took_ms, EventKind::StepFinished { step: step.clone(), outcome, output, took_ms })
    }

    fn end(&mut self, tally: Tally, verdict: Verdict) -> Vec<Event> {
        self.say("", 5, EventKind::RunFinished { tally, verdict });
        std::mem::take(&mut self.events)
    }
}

fn tally(ok: u32, changed: u32, skipped: u32, unknown: u32, failed: u32) -> Tally {
    Tally { ok, changed, skipped, unknown, failed, ignored: 0 }
}

fn finished(tally: Tally, stopped: Option<Failure>) -> EventKind {
    EventKind::HostFinished { tally, stopped }
}

fn stage(play: &str, batch: Option<(u32, u32)>, targets: Vec<Target>) -> EventKind {
    EventKind::StageStarted { play: play.to_owned(), batch, phase: None, targets }
}

const DIFF: &str = "--- /etc/motd\n+++ declared\n@@ -1,2 +1,2 @@\n welcome\n-to web1\n+to the new web1\n";

/// Whole runs, each with a name.
pub(super) fn runs() -> Vec<(&'static str, Vec<Event>)> {
    vec![
        ("changes", changes()),
        ("nothing_to_do", nothing_to_do()),
        ("check_mode", check_mode()),
        ("failures", failures()),
        ("left_out", left_out()),
        ("ignored", ignored()),
        ("unreachable", unreachable()),
        ("untrusted", untrusted()),
        ("busy", busy()),
        ("aborted", aborted()),
        ("rolled_out", rolled_out()),
        ("rolled_back", rolled_back()),
        ("not_rolled_out", not_rolled_out()),
    ]
}

const ROLLOUT: &str = "apache configuration";

fn news(news: RolloutNews) -> EventKind {
    EventKind::Rollout { title: ROLLOUT.to_owned(), news }
}

fn phase(phase: Phase, batch: Option<(u32, u32)>, nodes: &[&str]) -> EventKind {
    let targets = nodes.iter().map(|node| target("lab1", node)).collect();
    EventKind::StageStarted { play: ROLLOUT.to_owned(), batch, phase: Some(phase), targets }
}

fn names(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

/// The beginning of a rollout over four nodes.
fn begun() -> Tape {
    let mut tape = Tape::start(false, &["lab1"], 30);
    tape.say("", 100, phase(Phase::Prepare, None, &["web1", "web2", "web3", "web4"]));
    tape.say("", 2_400, news(RolloutNews::Begins { nodes: 3, of: 4, batches: vec![1, 2] }));
    for (phase_of, after) in [(Phase::Drain, 0), (Phase::Change, 800), (Phase::Ready, 3_000), (Phase::Settle, 400)] {
        tape.say("", after, phase(phase_of, Some((1, 2)), &["web1"]));
    }
    tape
}

fn rolled_out() -> Vec<Event> {
    let mut tape = begun();
    tape.say("", 5_000, phase(Phase::Drain, Some((2, 2)), &["web2", "web3"]));
    let switch = step(4, target("lab1", "web2"), "switch", "/data/conf/web2", 12);
    let turned = change("current", Value::from("5891b5b522d5"), Value::from("0f3c11aa90b1"), None);
    tape.step(&switch, 3, Outcome::Changed(turned), Map::new());
    tape.say("", 6_000, phase(Phase::Confirm, None, &["web1", "web2", "web3", "web4"]));
    tape.say("", 50, news(RolloutNews::Done { nodes: 3, left: Vec::new() }));
    tape.say("lab1", 1, finished(tally(20, 3, 0, 0, 0), None));
    tape.end(tally(20, 3, 0, 0, 0), Verdict::Converged)
}

fn rolled_back() -> Vec<Event> {
    let mut tape = begun();
    tape.say("", 5_000, phase(Phase::Drain, Some((2, 2)), &["web2", "web3"]));
    tape.say("", 700, phase(Phase::Change, Some((2, 2)), &["web2", "web3"]));
    let check = step(9, target("lab1", "web3"), "http", "http://10.88.8.12/ping", 30);
    let failure = Failure::timeout("within", std::time::Duration::from_secs(30)).because("status 500, not 200");
    tape.step(&check, 30_000, Outcome::Failed(failure, None), Map::new());
    tape.say("", 10, phase(Phase::Settle, Some((2, 2)), &["web2", "web3"]));
    tape.say("", 10_000, news(RolloutNews::FewRequests { nodes: names(&["web3"]), at_least: 20 }));
    let (node, others_requests, others_errors) = ("web2".to_owned(), 340, 2);
    let (kind, requests, errors) = (BadAnswer::ServerError, 61, 12);
    tape.say("", 0, news(RolloutNews::BadAnswers { node, kind, requests, errors, others_requests, others_errors }));
    let put_back = RolloutNews::PutsBack { failed: names(&["web2", "web3"]), budget: 0, nodes: 3 };
    tape.say("", 10, news(put_back));
    tape.say("", 1, phase(Phase::PutBack, Some((2, 2)), &["web2", "web3"]));
    tape.say("", 4_000, phase(Phase::PutBack, Some((1, 2)), &["web1"]));
    tape.say("", 3_000, news(RolloutNews::PutBack { nodes: 3, stays: Vec::new() }));
    tape.say("lab1", 1, finished(tally(20, 3, 0, 0, 1), None));
    tape.end(tally(20, 3, 0, 0, 1), Verdict::Failed)
}

fn bad(kind: BadAnswer, others_requests: u64) -> RolloutNews {
    let node = "web1".to_owned();
    RolloutNews::BadAnswers { node, kind, requests: 20, errors: 20, others_requests, others_errors: 0 }
}

/// The other ends that a rollout may come to.
fn not_rolled_out() -> Vec<Event> {
    let mut tape = Tape::start(false, &["lab1"], 30);
    let nodes: Vec<String> = (1..=11).map(|number| format!("web{number}")).collect();
    let all: Vec<&str> = nodes.iter().map(String::as_str).collect();
    tape.say("", 100, phase(Phase::Prepare, None, &all));
    for one in [
        RolloutNews::Nothing { nodes: 4 },
        RolloutNews::LeftOut { nodes: names(&["web1", "web2"]) },
        RolloutNews::StaysOut { nodes: names(&["web3"]) },
        RolloutNews::Interrupted { nodes: 0, half: Vec::new(), out: names(&["web1"]), within_ms: None },
        RolloutNews::Interrupted {
            nodes: 3,
            half: names(&["web4"]),
            out: names(&["web4", "web5"]),
            within_ms: Some(300_000),
        },
        RolloutNews::Refused { failed: names(&["web1"]) },
        RolloutNews::Sick { nodes: names(&["web2", "web3"]), budget: 1 },
        RolloutNews::Sick { nodes: names(&["web2"]), budget: 0 },
        bad(BadAnswer::ServerError, 0),
        bad(BadAnswer::NotFound, 0),
        bad(BadAnswer::Refused, 700),
        RolloutNews::Died { nodes: names(&["web2", "web3"]) },
        RolloutNews::LogUnread { node: "web1".to_owned(), why: "/data/logs is a file, not a directory".to_owned() },
        RolloutNews::NoLog { nodes: names(&["web1", "web2"]) },
        RolloutNews::Halted { nodes: 1, why: "since 2026-11-25 08:12:01 UTC: a sale".to_owned() },
        RolloutNews::Halted { nodes: 0, why: "since 2026-11-25 08:12:01 UTC: a sale".to_owned() },
        RolloutNews::PutBack { nodes: 2, stays: names(&["command", "file"]) },
        RolloutNews::NotPutBack { nodes },
        RolloutNews::Done { nodes: 3, left: names(&["web4"]) },
    ] {
        tape.say("", 10, news(one));
    }
    tape.say("lab1", 1, finished(tally(20, 3, 0, 0, 1), None));
    tape.end(tally(20, 3, 0, 0, 1), Verdict::Failed)
}

fn changes() -> Vec<Event> {
    let mut tape = Tape::start(false, &["lab1", "lab2"], 9);
    tape.say("lab1", 120, EventKind::HostConnected { uploaded: true });
    tape.say("lab2", 10, EventKind::HostConnected { uploaded: false });
    tape.say("", 1, stage("docker hosts", None, vec![target("lab1", ""), target("lab2", "")]));
    let on = |host: &str| target(host, "");
    let created = Change { verb: Verb::Create, ..change("mode", Datum::Absent, Value::Mode(0o755), None) };
    tape.step(&step(0, on("lab1"), "directory", "/srv/web", 40), 3, Outcome::Changed(created), Map::new());
    tape.step(&step(0, on("lab2"), "directory", "/srv/web", 40), 3, Outcome::Ok, Map::new());
    let motd = change("content", Datum::content(&b"a"[..]), Datum::content(&b"b"[..]), Some(DIFF));
    tape.step(&step(1, on("lab1"), "file", "/etc/motd", 44), 4, Outcome::Changed(motd), Map::new());
    let image = step(2, on("lab1"), "image", "fanli/base:12", 60);
    tape.say("lab1", 2, EventKind::StepStarted { step: image.clone() });
    for (done, after) in [(10, 100), (90, 31_000), (95, 2_000), (180, 45_000)] {
        let message = "packages unpacked".to_owned();
        tape.say("lab1", after, EventKind::Progress { id: 2, message, amount: Some((done, 200)) });
    }
    let built =
        Change { verb: Verb::Create, ..change("bootstrap", Datum::Absent, Value::from("debian bookworm"), None) };
    let output =
        Map::from([("id".to_owned(), Value::from("sha256:11aa")), ("size".to_owned(), Value::Size(123 << 20))]);
    let took = EventKind::StepFinished { step: image, outcome: Outcome::Changed(built), output, took_ms: 84_210 };
    tape.say("lab1", 6_000, took);
    let removed = Change { verb: Verb::Remove, fields: Vec::new() };
    tape.step(&step(3, on("lab1"), "file", "/etc/old.conf", 70), 2, Outcome::Changed(removed), Map::new());
    tape.step(
        &step(1, on("lab2"), "file", "/etc/motd", 44),
        2,
        Outcome::Skipped("`when` does not hold".to_owned()),
        Map::new(),
    );
    let handler = StepRef { handler: true, ..step(4, on("lab1"), "command", "apachectl -k graceful", 90) };
    let output = Map::from([
        ("stdout".to_owned(), Value::from("")),
        ("stderr".to_owned(), Value::from("AH00558: no name\nSyntax OK\n")),
        ("exit_code".to_owned(), Value::Int(0)),
    ]);
    tape.step(&handler, 1_340, Outcome::Ran, output);
    for host in ["lab1", "lab2"] {
        tape.say(host, 1, EventKind::StageFinished { stage: 0, failed: Vec::new() });
    }
    let nodes = vec![target("lab1", "web08010"), target("lab2", "web08011")];
    tape.say("", 1, stage("nodes", Some((1, 2)), nodes));
    let mtu = Change {
        verb: Verb::Update,
        fields: [
            change("address", Datum::Absent, Value::from("10.88.8.10/24"), None),
            change("mtu", Value::Int(1400), Value::Int(1500), None),
        ]
        .into_iter()
        .flat_map(|change| change.fields)
        .collect(),
    };
    tape.step(&step(5, target("lab1", "web08010"), "attach", "web-lan", 120), 8, Outcome::Changed(mtu), Map::new());
    tape.step(&step(2, target("lab2", "web08011"), "attach", "web-lan", 120), 8, Outcome::Ok, Map::new());
    let message = "the clock of lab2 is 3 minutes behind".to_owned();
    tape.say("lab2", 1, EventKind::Warning { message });
    tape.say("lab1", 1, finished(tally(0, 6, 0, 0, 0), None));
    tape.say("lab2", 1, finished(tally(2, 0, 1, 0, 0), None));
    tape.end(tally(2, 6, 1, 0, 0), Verdict::Converged)
}

fn nothing_to_do() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1"], 2);
    tape.say("web1", 90, EventKind::HostConnected { uploaded: false });
    tape.say("", 1, stage("docker hosts", None, vec![target("web1", "")]));
    tape.step(&step(0, target("web1", ""), "directory", "/srv", 3), 1, Outcome::Ok, Map::new());
    tape.step(&step(1, target("web1", ""), "file", "/srv/a", 4), 1, Outcome::Ok, Map::new());
    tape.say("web1", 1, EventKind::StageFinished { stage: 0, failed: Vec::new() });
    tape.say("web1", 1, finished(tally(2, 0, 0, 0, 0), None));
    tape.end(tally(2, 0, 0, 0, 0), Verdict::Converged)
}

fn check_mode() -> Vec<Event> {
    let mut tape = Tape::start(true, &["web1", "a-host-with-a-long-name.example.org"], 4);
    let on = || target("web1", "");
    tape.say("web1", 90, EventKind::HostConnected { uploaded: false });
    tape.say("", 1, stage("docker hosts", None, vec![on(), target("a-host-with-a-long-name.example.org", "")]));
    let mode = change("mode", Value::Mode(0o700), Value::Mode(0o755), None);
    tape.step(&step(0, on(), "directory", "/srv", 3), 1, Outcome::WouldChange(mode), Map::new());
    tape.step(&step(1, on(), "command", "make", 4), 1, Outcome::WouldRun, Map::new());
    let reason = "it uses the result `made`, which is not known yet".to_owned();
    tape.step(&step(2, on(), "file", "/srv/made", 5), 1, Outcome::Unknown(reason), Map::new());
    let other = || target("a-host-with-a-long-name.example.org", "");
    tape.step(&step(0, other(), "directory", "/srv", 3), 1, Outcome::Ok, Map::new());
    tape.say("web1", 1, finished(tally(0, 2, 0, 1, 0), None));
    tape.say("a-host-with-a-long-name.example.org", 1, finished(tally(1, 0, 0, 0, 0), None));
    tape.end(tally(1, 2, 0, 1, 0), Verdict::WouldChange)
}

fn failures() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1", "web2"], 6);
    tape.say("", 1, stage("docker hosts", None, vec![target("web1", ""), target("web2", "")]));
    let failure = Failure::new("`apachectl -t` exited with 1")
        .because("AH00526: Syntax error on line 12 of /etc/apache2/sites.conf:\nInvalid command 'Foo'")
        .hint("mend the template, or leave `validate` out");
    let change = change("content", Datum::content(&b"a"[..]), Datum::content(&b"b"[..]), None);
    let config = step(0, target("web1", ""), "template", "/etc/apache2/sites.conf", 31);
    tape.step(&config, 2_400, Outcome::Failed(failure, Some(change)), Map::new());
    let mut late = Failure::timeout("timeout", std::time::Duration::from_secs(30));
    late = late.within("http://10.0.0.5/ping does not answer");
    tape.step(
        &step(0, target("web2", ""), "http", "http://10.0.0.5/ping", 40),
        30_004,
        Outcome::Failed(late, None),
        Map::new(),
    );
    let stopped = || Some(Failure::new("a step failed"));
    tape.say("web1", 1, EventKind::StageFinished { stage: 0, failed: vec![target("web1", "")] });
    tape.say("web1", 1, finished(tally(0, 0, 0, 0, 1), stopped()));
    tape.say("web2", 1, finished(tally(0, 0, 0, 0, 1), stopped()));
    tape.end(tally(0, 0, 0, 0, 2), Verdict::Failed)
}

/// A batch fails, and the later ones do not take place.
fn left_out() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1", "web2", "web3", "web4"], 8);
    tape.say("", 1, stage("roll", Some((1, 3)), vec![target("web1", "")]));
    let failure = Failure::new("`false` failed with exit code 1");
    tape.step(&step(0, target("web1", ""), "command", "false", 31), 3, Outcome::Failed(failure, None), Map::new());
    let all = [vec![target("web2", "")], vec![target("web3", "node1"), target("web3", "node2"), target("web4", "")]];
    for (targets, number) in all.into_iter().zip(2..) {
        tape.say("", 1, EventKind::BatchLeftOut { play: "roll".to_owned(), batch: (number, 3), targets });
    }
    for host in ["web1", "web2", "web3", "web4"] {
        tape.say(host, 1, finished(tally(0, 0, 0, 0, u32::from(host == "web1")), None));
    }
    tape.end(tally(0, 0, 0, 0, 1), Verdict::Failed)
}

fn ignored() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1", "web2"], 4);
    let failure = || Failure::new("`false` failed with exit code 1").hint("when this code is a good end, say so");
    for host in ["web1", "web2"] {
        let command = step(0, target(host, ""), "command", "false", 31);
        tape.step(&command, 3, Outcome::Ignored(failure(), None), Map::new());
    }
    let of = |ok, ignored| Tally { ignored, ..tally(ok, 0, 0, 0, 0) };
    tape.step(&step(1, target("web2", ""), "directory", "/srv", 3), 1, Outcome::Ok, Map::new());
    tape.say("web1", 1, finished(of(0, 1), None));
    tape.say("web2", 1, finished(of(1, 1), None));
    tape.end(of(1, 2), Verdict::Converged)
}

fn unreachable() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1", "web2"], 2);
    let failure = Failure::of(FailureKind::Unreachable, "ssh cannot connect to web1")
        .because("ssh: connect to host 192.0.2.1 port 22: Connection timed out")
        .hint("try it: ssh web1");
    tape.say("web1", 10_000, EventKind::HostLost { failure });
    tape.say("web2", 1, EventKind::HostConnected { uploaded: false });
    tape.say("", 1, stage("docker hosts", None, vec![target("web2", "")]));
    tape.step(&step(0, target("web2", ""), "directory", "/srv", 3), 1, Outcome::Ok, Map::new());
    let failure = Failure::of(FailureKind::Lost, "the connection ended before the helper did");
    tape.say("web2", 1, EventKind::HostLost { failure });
    tape.end(tally(1, 0, 0, 0, 0), Verdict::Unreachable)
}

fn untrusted() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1", "web2"], 2);
    tape.say("", 1, stage("docker hosts", None, vec![target("web1", ""), target("web2", "")]));
    let failure =
        Failure::of(FailureKind::Untrusted, "it said `step_finished` in the name of `web1`, and may not: it is `web2`")
            .hint("its helper may not be fanli's own: look who can write to /var/lib/fanli there");
    tape.say("web2", 1, EventKind::HostLost { failure });
    tape.step(&step(0, target("web1", ""), "directory", "/srv", 3), 1, Outcome::Ok, Map::new());
    tape.say("web1", 1, finished(tally(1, 0, 0, 0, 0), None));
    tape.end(tally(1, 0, 0, 0, 0), Verdict::Unreachable)
}

fn busy() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1", "web2"], 2);
    let by = "run 1a22-7 of alice@build3 (web-tier.fp), since 2026-11-30 01:40:12 UTC (process 4711 there)";
    let message =
        format!("another run is at work on web1: {by}; this one waits for it, 10s at most, and changes nothing before");
    tape.say("", 1, EventKind::Warning { message });
    let failure = Failure::of(FailureKind::Busy, format!("another run is at work on web1: {by}"))
        .because("over its limit `lock_wait` of 10s")
        .hint("nothing was changed on any host; wait for it");
    tape.say("web1", 10_000, finished(tally(0, 0, 0, 0, 0), Some(failure)));
    let others = Failure::of(FailureKind::Busy, "nothing was done, as web1 is busy");
    tape.say("web2", 1, finished(tally(0, 0, 0, 0, 0), Some(others)));
    tape.end(tally(0, 0, 0, 0, 0), Verdict::Busy)
}

fn aborted() -> Vec<Event> {
    let mut tape = Tape::start(false, &["web1"], 2);
    tape.say("", 1, stage("docker hosts", None, vec![target("web1", "")]));
    tape.step(&step(0, target("web1", ""), "directory", "/srv", 3), 1, Outcome::Ok, Map::new());
    let stopped = Failure::of(FailureKind::Aborted, "stopped by a signal");
    tape.say("web1", 1, finished(tally(1, 0, 0, 0, 0), Some(stopped)));
    tape.end(tally(1, 0, 0, 0, 0), Verdict::Aborted)
}

/// At least one event of each kind, and each word that an event can hold.
pub(super) fn one_of_each() -> Vec<Event> {
    let mut events: Vec<Event> = runs().into_iter().flat_map(|(_, events)| events).collect();
    let kinds = [FailureKind::DidNotConverge, FailureKind::Internal, FailureKind::Step, FailureKind::Timeout];
    for kind in kinds {
        let failure = Failure::of(kind, "x");
        events.push(Event { host: "a".to_owned(), index: 0, at_ms: 0, kind: EventKind::HostLost { failure } });
    }
    events
}
