//! How a rollout is planned: which nodes go together, in which batch, and what each stage holds.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use fanli::plan::{self, Arg, Part, RolloutPart, RolloutPart as P, RunPlan};
use fanli::source::Sources;
use fanli::value::Value;

const HEAD: &str = r#"
hosts docker { host "h1" { address = 10.0.0.1 }  host "h2" { address = 10.0.0.2 } }
hosts balancers { host "lb" { address = 10.0.0.3 } }
nodes web { count = 6  on = hosts.docker  name = "web{{ node.index }}" }
"#;

fn planned(rollout: &str, template: &str, change: impl Fn(&mut plan::PlanRequest)) -> Result<RunPlan, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf")).unwrap();
    std::fs::write(dir.path().join("conf/httpd.conf"), template).unwrap();
    std::fs::write(dir.path().join("web.fp"), format!("{HEAD}{rollout}")).unwrap();
    let mut request = crate::common::request(dir.path().join("web.fp"));
    change(&mut request);
    made(&request)
}

fn made(request: &plan::PlanRequest) -> Result<RunPlan, String> {
    let mut sources = Sources::default();
    let (playbook, found) = plan::load(request, &mut sources);
    let made = plan::make(&playbook, found, request, &mut sources, &mut fanli::book::View::new("tests"));
    made.map(|(run, _)| run).map_err(|errors| {
        errors.iter().fold(String::new(), |mut text, error| {
            let _ = writeln!(text, "{} {:?}", error.message, error.help);
            text
        })
    })
}

fn rollout(path: &str, batch: &str) -> String {
    format!(
        "rollout \"r\" on nodes.web batch {batch} {{\n  settle = 1s\n  config \"{path}\" {{ from = \"conf\" }}\n  \
         drain on hosts.balancers {{ backend node.name {{ haproxy = \"/run/haproxy.sock\"  pool = \"web\" }} }}\n  \
         reload {{ command [\"reload\", node.name, generation] }}\n  healthy {{ command [\"look\", generation] }}\n}}\n"
    )
}

fn batches(run: &RunPlan) -> Vec<Vec<&str>> {
    let info = run.rollouts.values().next().unwrap();
    info.batches.iter().map(|batch| batch.iter().map(String::as_str).collect()).collect()
}

fn warnings(run: &RunPlan) -> &[String] {
    &run.rollouts.values().next().unwrap().warnings
}

#[test]
fn nodes_that_share_a_directory_go_together() {
    let own = planned(&rollout("/data/{{ node.name }}", "[1, 2, 100%]"), "x\n", |_| {}).unwrap();
    assert_eq!(batches(&own), [vec!["web1"], vec!["web2", "web3"], vec!["web4", "web5", "web6"]]);
    // Two copies on each host; nodes are spread in turn, so h1 carries 1, 3, 5.
    let copies = planned(&rollout("/data/{{ node.index > 3 }}", "[1, 100%]"), "x\n", |_| {}).unwrap();
    assert_eq!(batches(&copies), [vec!["web1", "web3"], vec!["web2", "web4", "web6"], vec!["web5"]]);
    assert_eq!(warnings(&copies), [""; 0]);
    // One for all of a host: it is more than the batch, and goes all the same.
    let one = planned(&rollout("/data/conf", "1"), "x\n", |_| {}).unwrap();
    assert_eq!(batches(&one), [vec!["web1", "web3", "web5"], vec!["web2", "web4", "web6"]]);
    let said = "rollout \"r\": all 3 nodes of h1 mount one directory, /data/conf, and change together";
    assert!(warnings(&one).len() == 2 && warnings(&one)[0].starts_with(said), "{:?}", warnings(&one));
    // Every second node in turn is on h1: by their numbers all nodes of a host have one copy, by those on their host they do not.
    let by_index = planned(&rollout("/data/{{ node.index % 2 }}", "1"), "x\n", |_| {}).unwrap();
    assert_eq!((batches(&by_index).len(), warnings(&by_index).len()), (2, 2));
    let by_local = planned(&rollout("/data/{{ node.local_index % 2 }}", "1"), "x\n", |_| {}).unwrap();
    assert_eq!(batches(&by_local), [vec!["web1", "web5"], vec!["web2", "web6"], vec!["web3"], vec!["web4"]]);
    assert_eq!(warnings(&by_local), [""; 0]);
}

#[test]
fn no_batch_takes_more_nodes_than_may_be_down() {
    let sizes = |text: &str| -> Vec<usize> {
        let text = rollout("/data/{{ node.name }}", "[1, 100%]").replace("  settle", &format!("{text}\n  settle"));
        batches(&planned(&text, "x\n", |_| {}).unwrap()).iter().map(Vec::len).collect()
    };
    assert_eq!(sizes(""), [1, 3, 2]);
    assert_eq!(sizes("max_down = 2"), [1, 2, 2, 1]);
    assert_eq!(sizes("max_down = 10%"), [1; 6]);
    assert_eq!(sizes("max_down = 100%"), [1, 5]);
    // A graceful reload takes nobody out of traffic.
    let text = rollout("/data/{{ node.name }}", "[1, 100%]");
    let (before, rest) = text.split_once("  drain on").unwrap();
    let graceful = format!("{before}{}", rest.split_once('\n').unwrap().1);
    assert_eq!(batches(&planned(&graceful, "x\n", |_| {}).unwrap()).iter().map(Vec::len).collect::<Vec<_>>(), [1, 5]);
    let wrong = rollout("/data/x", "1").replace("  settle", "max_down = 0%\n  settle");
    let said = planned(&wrong, "x\n", |_| {}).unwrap_err();
    assert!(said.contains("`max_down` cannot be") && said.contains("out of traffic at once"), "{said}");
}

#[test]
fn what_only_goes_forward_is_known_before() {
    let stays = |change: &str| {
        let text =
            rollout("/data/{{ node.name }}", "1").replace("  settle", &format!("  change {{ {change} }}\n  settle"));
        planned(&text, "x\n", |_| {}).unwrap().rollouts.into_values().next().unwrap().stays
    };
    assert_eq!(stays("http \"http://10.0.0.9/\""), Vec::<String>::new());
    assert_eq!(stays("command [\"true\"]\n directory \"/data/x\"\n command [\"false\"]"), ["command", "directory"]);
}

#[test]
fn what_is_shared_must_be_alike_and_is_never_torn() {
    let said = planned(&rollout("/data/conf", "1"), "{{ node.name }}\n", |_| {}).unwrap_err();
    assert!(said.contains("web1 and web3 share /data/conf, and their files differ"), "{said}");
    let limit = |request: &mut plan::PlanRequest| request.limit = Some("web1,web2".to_owned());
    let said = planned(&rollout("/data/conf", "1"), "x\n", limit).unwrap_err();
    assert!(said.contains("--limit leaves out web3, which mounts the same configuration as web1"), "{said}");
    let own = planned(&rollout("/data/{{ node.name }}", "1"), "{{ node.name }}\n", limit).unwrap();
    assert_eq!(batches(&own), [vec!["web1"], vec!["web2"]]);
    // The balancer is told of them all the same.
    assert!(own.hosts.iter().any(|host| host.plan.host == "lb"));
}

#[test]
fn the_same_input_has_the_same_generation_and_it_stands_in_the_files() {
    let generation = |run: &RunPlan| -> (String, String) {
        let steps = run.hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
        let slot = steps.flat_map(|target| &target.steps).find(|step| step.kind == "slot").unwrap();
        let Some(Arg::Ready(Value::Str(id))) = slot.args.get("generation") else { panic!("{slot:?}") };
        let Some(Arg::Ready(Value::Map(files))) = slot.args.get("files") else { panic!("{slot:?}") };
        let Some(Value::Blob(blob)) = files.get("httpd.conf") else { panic!("{files:?}") };
        (id.clone(), String::from_utf8(run.contents.read(blob.digest).unwrap().to_vec()).unwrap())
    };
    let make = |template: &str| planned(&rollout("/data/{{ node.name }}", "1"), template, |_| {}).unwrap();
    let (first, text) = generation(&make("is {{ generation }}\n"));
    assert_eq!(text, format!("is {first}\n"));
    assert_eq!(generation(&make("is {{ generation }}\n")).0, first);
    assert_ne!(generation(&make("is  {{ generation }}\n")).0, first);
}

#[test]
fn every_stage_is_there_forwards_and_backwards() {
    let run = planned(&rollout("/data/{{ node.name }}", "50%"), "x\n", |_| {}).unwrap();
    let parts: Vec<RolloutPart> = run.stages.iter().filter_map(|stage| stage.part).collect();
    let forwards = [P::Prepare, P::GiveBack, P::Drain(0), P::Change(0), P::Ready(0), P::Settle(0)];
    let more = [P::Drain(1), P::Change(1), P::Ready(1), P::Settle(1), P::Confirm];
    let back = [P::DrainBack(1), P::Back(1), P::ReadyBack(1), P::DrainBack(0), P::Back(0), P::ReadyBack(0)];
    assert_eq!(parts, [&forwards[..], &more, &back].concat());
    // On the way back the checks ask for what was there before, which only the host knows.
    let stage = |part: RolloutPart| run.stages.iter().find(|stage| stage.part == Some(part)).unwrap().number;
    let steps = |part: RolloutPart| -> Vec<&plan::Step> {
        let stages = run.hosts.iter().flat_map(|host| &host.plan.stages);
        let targets = stages.filter(|one| one.number == stage(part)).flat_map(|one| &one.targets);
        targets.flat_map(|target| &target.steps).collect()
    };
    let late = |part: RolloutPart| {
        steps(part).iter().any(|step| step.kind == "command" && matches!(step.args.get("argv"), Some(Arg::Late(_))))
    };
    assert!(late(P::Back(0)) && !late(P::Change(0)));
    for part in [P::Ready(0), P::Back(0)] {
        let rescue = run.hosts.iter().flat_map(|host| &host.plan.stages).find(|one| one.number == stage(part)).unwrap();
        assert!(rescue.rescue, "{part:?}");
    }
}

#[test]
fn a_part_of_a_playbook() {
    let text =
        format!("play \"p\" on hosts.docker {{ command [\"true\"] }}\n{}", rollout("/data/{{ node.name }}", "1"));
    let titles = |change: &dyn Fn(&mut plan::PlanRequest)| -> Vec<String> {
        let run = planned(&text, "x\n", change).unwrap();
        let mut titles: Vec<String> = run.stages.iter().map(|stage| stage.title.clone()).collect();
        titles.dedup();
        titles
    };
    assert_eq!(titles(&|_| {}), ["p", "r"]);
    assert_eq!(titles(&|request| request.part = Part::Rollouts), ["r"]);
    assert_eq!(titles(&|request| request.tags = vec!["rollout".to_owned()]), ["r"]);
    assert_eq!(titles(&|request| request.skip_tags = vec!["rollout".to_owned()]), ["p"]);
    let run = planned(&text, "x\n", |request| request.part = Part::PutBack { undo: None }).unwrap();
    assert!(run.rollouts.values().all(|info| info.put_back));
}

/// A rollout that makes containers anew; `more` stands in its block.
fn image(more: &str) -> String {
    format!(
        "network \"lan\" {{ mode = macvlan  parent = \"eth0\"  subnet = 10.1.0.0/16 }}\n\
         rollout \"r\" on nodes.web batch 50% {{\n  {more}\n  change {{\n    container node.name {{ image = \"a:1\"  \
         attach \"lan\" {{ address = 10.1.0.9 }} }}\n  }}\n  healthy {{ http \"http://10.1.0.9/\" }}\n}}\n"
    )
}

#[test]
fn what_needs_facts_is_looked_at_on_the_host_and_what_needs_results_is_not() {
    let looked = |text: &str| -> (Option<Arg>, Option<Arg>) {
        let run = planned(text, "x\n", |_| {}).unwrap();
        let steps = run.hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
        let standing = steps.flat_map(|target| &target.steps).find(|step| step.kind == "standing").unwrap();
        (standing.args.get("tasks").cloned(), standing.args.get("changes").cloned())
    };
    let text = image("").replace("\"eth0\"", "facts.default_interface");
    let (tasks, changes) = looked(&text);
    assert_eq!(changes, Some(Arg::Ready(Value::Bool(false))));
    let Some(Arg::Late(late)) = tasks else { panic!("{tasks:?}") };
    let facts = fanli::value::Map::from([("default_interface".to_owned(), Value::from("ens3"))]);
    let known = fanli::value::Map::from([("facts".to_owned(), Value::Map(facts))]);
    let plan::LateValue::Value(Value::List(tasks)) = late.evaluate(&known).unwrap() else { panic!("{late:?}") };
    assert!(tasks.len() == 2 && tasks[1].to_string().contains("ens3"), "{tasks:?}");

    let text = image("").replace("change {", "change {\n command [\"id\"] as r\n file \"/x\" { content = r.stdout }\n");
    assert_eq!(looked(&text), (None, Some(Arg::Ready(Value::Bool(true)))));
}

#[test]
fn a_container_that_is_made_anew_is_written_down_before_and_has_a_way_back() {
    let run = planned(&image(""), "x\n", |_| {}).unwrap();
    let kinds = |part: RolloutPart| -> Vec<String> {
        let number = run.stages.iter().find(|stage| stage.part == Some(part)).unwrap().number;
        let stages = run.hosts.iter().flat_map(|host| &host.plan.stages).filter(|one| one.number == number);
        let target = stages.flat_map(|one| &one.targets).next().unwrap();
        let state = |step: &plan::Step| match step.args.get("state") {
            Some(Arg::Ready(state)) => format!(" {state}"),
            _ => String::new(),
        };
        target.steps.iter().map(|step| format!("{}{}", step.kind, state(step))).collect()
    };
    assert_eq!(kinds(P::Prepare), ["standing"]);
    assert_eq!(kinds(P::Change(0)), ["former kept", "container", "attach", "http"]);
    assert_eq!(kinds(P::Confirm), ["former confirmed"]);
    assert_eq!(kinds(P::Back(0)), ["former back", "attach", "http"]);
    // What the nodes need can be looked at before: nothing hangs on facts or results.
    let steps = run.hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
    let standing = steps.flat_map(|target| &target.steps).find(|step| step.kind == "standing").unwrap();
    let Some(Arg::Ready(Value::List(tasks))) = standing.args.get("tasks") else { panic!("{standing:?}") };
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    assert_eq!(standing.args.get("changes"), Some(&Arg::Ready(Value::Bool(false))));

    // Every node stands in a first batch, which mends those that are sick; it has no number of its own.
    let info = run.rollouts.values().next().unwrap();
    assert!(info.mends && info.batches.iter().map(Vec::len).eq([6, 3, 3]), "{info:?}");
    let drawn: Vec<_> =
        run.stages.iter().filter(|stage| matches!(stage.part, Some(P::Change(_)))).map(|one| one.batch).collect();
    assert_eq!(drawn, [None, Some((1, 2)), Some((2, 2))]);

    let said = planned(&image("within = 1m"), "x\n", |_| {}).unwrap_err();
    assert!(said.contains("`within` means nothing without a `config`"), "{said}");
}

/// The modes that a slot gets for its files, as they are with these permissions beside the playbook.
fn modes(permissions: u32, settings: &str) -> Result<Vec<(String, u32)>, String> {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("conf/ssl/site.key");
    std::fs::create_dir_all(key.parent().unwrap()).unwrap();
    std::fs::write(&key, "secret").unwrap();
    std::fs::write(dir.path().join("conf/httpd.conf"), "x\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(permissions)).unwrap();
    let rollout = format!(
        "rollout \"r\" on nodes.web batch 1 {{ config \"/data/conf\" {{ from = \"conf\"  {settings} }}  reload {{ command [\"x\"] }} }}\n"
    );
    std::fs::write(dir.path().join("web.fp"), format!("{HEAD}{rollout}")).unwrap();
    let run = made(&crate::common::request(dir.path().join("web.fp")))?;
    let steps = run.hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
    let slot = steps.flat_map(|target| &target.steps).find(|step| step.kind == "slot").unwrap();
    let Some(Arg::Ready(Value::Map(modes))) = slot.args.get("modes") else { return Ok(Vec::new()) };
    Ok(modes
        .iter()
        .map(|(path, mode)| match mode {
            Value::Mode(mode) => (path.clone(), *mode),
            other => panic!("{other}"),
        })
        .collect())
}

#[test]
fn what_not_everybody_may_read_stays_so_and_modes_can_be_declared() {
    let key = |mode: u32| Ok(vec![("ssl/site.key".to_owned(), mode)]);
    for (permissions, kept) in [(0o600, 0o600), (0o400, 0o600), (0o640, 0o640), (0o700, 0o700), (0o775, 0o755)] {
        assert_eq!(modes(permissions, ""), key(kept), "{permissions:o}");
    }
    // What the umask of a checkout does to a file that all may read is no difference.
    assert_eq!(modes(0o664, ""), Ok(Vec::new()));
    assert_eq!(modes(0o644, "modes = { \"ssl/site.key\" = 0600 }"), key(0o600));
    assert_eq!(modes(0o600, "modes = { \"ssl/site.key\" = 0644 }"), Ok(Vec::new()));
    let wrong = |settings: &str| modes(0o600, settings).unwrap_err();
    insta::assert_snapshot!(
        [
            wrong("modes = { \"ssl/site.kye\" = 0600 }"),
            wrong("modes = { \"ssl/site.key\" = 600 }"),
            wrong("modes = 0600")
        ]
        .concat()
    );
}
