//! What a `network` block gives to the tasks on it, for each mode.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fanli::plan::{self, Arg, Part, PlanRequest, RunOptions, RunPlan};
use fanli::source::Sources;
use fanli::value::Value;

/// The plan of a playbook file.
fn plan_of(playbook: PathBuf, env: Option<&str>, set: BTreeMap<String, String>) -> Result<RunPlan, String> {
    let second = std::time::Duration::from_secs(1);
    let options = RunOptions { check: true, diff: false, step_limit: second, lock_wait: Some(second) };
    let request = PlanRequest {
        playbook,
        env: env.map(str::to_owned),
        set,
        limit: None,
        tags: Vec::new(),
        skip_tags: Vec::new(),
        run: "test".to_owned(),
        options,
        part: Part::All,
    };
    let mut sources = Sources::default();
    let (playbook, found) = plan::load(&request, &mut sources);
    let made = plan::make(&playbook, found, &request, &mut sources, &mut fanli::book::View::new("tests"));
    made.map(|(run, _)| run).map_err(|errors| {
        errors.iter().map(|error| format!("{} {:?}", error.message, error.help)).collect::<Vec<_>>().join("\n")
    })
}

fn planned(network: &str, body: &str) -> Result<RunPlan, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.fp");
    let text = format!(
        "hosts web {{\n  host \"one\" {{ address = 10.0.0.1 }}\n  host \"two\" {{ address = 10.0.0.2 }}\n  \
         host \"three\" {{ address = 10.0.0.3 }}\n}}\n{network}\n\
         nodes web {{\n  count = 4\n  on = hosts.web\n  network = \"lan\"\n  name = \"web{{{{ node.index }}}}\"\n}}\n\
         play \"nodes\" on nodes.web {{\n  container node.name {{\n    image = \"fanli/example:1\"\n    {body}\n  }}\n\n}}\n"
    );
    std::fs::write(&path, text).unwrap();
    plan_of(path, None, BTreeMap::new())
}

/// The arguments of every step of a kind, with its host.
fn args(run: &RunPlan, kind: &str) -> Vec<(String, BTreeMap<String, Value>)> {
    let mut found = Vec::new();
    for host in &run.hosts {
        let steps = host.plan.stages.iter().flat_map(|stage| &stage.targets).flat_map(|target| &target.steps);
        for step in steps.filter(|step| step.kind == kind) {
            let ready = |arg: &Arg| if let Arg::Ready(value) = arg { value.clone() } else { panic!("late") };
            found.push((
                host.plan.host.clone(),
                step.args.iter().map(|(name, arg)| (name.clone(), ready(arg))).collect(),
            ));
        }
    }
    found
}

#[test]
fn hosts_network_with_a_port_per_node() {
    let network =
        "network \"lan\" {\n  mode = host\n  ports = 8080 - 8081\n  dns = [10.0.0.53]\n  search = [\"lan\"]\n}";
    let run = planned(network, "attach \"lan\" { }").unwrap();
    let containers = args(&run, "container");
    let told: Vec<_> = containers
        .iter()
        .map(|(host, args)| format!("{host} {} {} {} {}", args["name"], args["network"], args["listens"], args["dns"]))
        .collect();
    assert_eq!(
        told,
        [
            "one web1 host [8080] [10.0.0.53]",
            "one web4 host [8081] [10.0.0.53]",
            "two web2 host [8080] [10.0.0.53]",
            "three web3 host [8080] [10.0.0.53]",
        ]
    );
    assert!(args(&run, "attach").iter().all(|(_, args)| matches!(args["port"], Value::Int(8080 | 8081))));
    let few = network.replace("8081", "8080");
    assert!(planned(&few, "attach \"lan\" { }").unwrap_err().contains("do not fit the ports 8080 - 8080"));
    let other = planned(network, "network = bridge\n    attach \"lan\" { }").unwrap_err();
    assert!(other.contains("needs `network = host`"), "{other}");
}

#[test]
fn dockers_bridge_with_published_ports() {
    let network = "network \"lan\" {\n  mode = nat\n  ports = 8080 - 8099\n  inside = 80\n}";
    let run = planned(network, "attach \"lan\" { }").unwrap();
    let told: Vec<_> = args(&run, "container")
        .iter()
        .map(|(host, args)| format!("{host} {} {} {}", args["name"], args["network"], args["ports"]))
        .collect();
    assert_eq!(
        told,
        [
            "one web1 bridge [\"8080:80\"]",
            "one web4 bridge [\"8081:80\"]",
            "two web2 bridge [\"8080:80\"]",
            "three web3 bridge [\"8080:80\"]",
        ]
    );
}

#[test]
fn dockers_own_macvlan_has_fanlis_address() {
    let network = "network \"lan\" {\n  mode = docker\n  parent = \"eth0\"\n  subnet = 10.72.1.0/24\n  \
                   pool = 10.72.1.10 - 10.72.1.99\n}";
    let run = planned(network, "attach \"lan\" { address = node.address }").unwrap();
    let (host, first) = args(&run, "container").swap_remove(0);
    assert_eq!(
        format!("{host} {} {}", first["network"], first["lan"]),
        "one macvlan { address = 10.72.1.10 name = \"lan\" parent = \"eth0\" subnet = 10.72.1.0/24 }"
    );
}

#[test]
fn tunnels_know_the_other_hosts_and_their_nodes() {
    let network = "network \"lan\" {\n  mode = vxlan\n  parent = \"eth0\"\n  subnet = 10.72.1.0/24\n  \
                   pool = 10.72.1.10 - 10.72.1.99\n  routes = [10.50.0.0/16 -> 10.72.1.1]\n}";
    let run = planned(network, "attach \"lan\" { address = node.address }").unwrap();
    let told: Vec<_> = args(&run, "attach")
        .iter()
        .map(|(host, args)| format!("{host} {} {}", args["address"], args["peers"]))
        .collect();
    assert_eq!(
        told,
        [
            "one 10.72.1.10 { 10.0.0.2 = [10.72.1.11] 10.0.0.3 = [10.72.1.12] }",
            "one 10.72.1.13 { 10.0.0.2 = [10.72.1.11] 10.0.0.3 = [10.72.1.12] }",
            "two 10.72.1.11 { 10.0.0.1 = [10.72.1.10, 10.72.1.13] 10.0.0.3 = [10.72.1.12] }",
            "three 10.72.1.12 { 10.0.0.1 = [10.72.1.10, 10.72.1.13] 10.0.0.2 = [10.72.1.11] }",
        ]
    );
    assert_eq!(args(&run, "container")[0].1.get("network"), None);
    let bad = network.replace("vxlan\n", "vxlan\n  variant = private\n");
    let wrong = planned(&bad, "attach \"lan\" { address = node.address }").unwrap_err();
    assert!(wrong.contains("`variant`: is for `mode = macvlan` alone"), "{wrong}");
}

#[test]
fn dockers_own_networks_are_not_taken_from_a_container() {
    for (mode, more) in [
        ("nat", "ports = 8080 - 8099\n  inside = 80"),
        ("host", "ports = 8080 - 8099"),
        ("docker", "parent = \"eth0\"\n  subnet = 10.72.1.0/24\n  pool = 10.72.1.10 - 10.72.1.99"),
    ] {
        let address = if mode == "docker" { "address = node.address" } else { "" };
        let wrong = planned(
            &format!("network \"lan\" {{\n  mode = {mode}\n  {more}\n}}"),
            &format!("attach \"lan\" {{ {address}  state = absent }}"),
        );
        let wrong = wrong.unwrap_err();
        assert!(
            wrong.contains(&format!(
                "`state`: is not for `mode = {mode}`: the network comes and goes with the container; remove that"
            )),
            "{wrong}"
        );
    }
}

#[test]
fn words_of_every_choice_stand_in_a_network() {
    let network = |more: &str| {
        format!(
            "network \"lan\" {{\n  mode = macvlan\n  parent = \"eth0\"\n  subnet = 10.71.0.0/24\n  pool = 10.71.0.10 - 10.71.0.19\n  {more}\n}}"
        )
    };
    let run =
        planned(&network("probe = strict\n  variant = private"), "attach \"lan\" { address = node.address }").unwrap();
    let attached = args(&run, "attach");
    assert!(
        attached.len() == 4 && attached.iter().all(|(_, args)| args["probe"] == Value::from("strict")),
        "{attached:?}"
    );
    let wrong = planned(&network("probe = strikt"), "attach \"lan\" { address = node.address }").unwrap_err();
    assert!(wrong.contains("`strikt` is none of quick, strict, off") && wrong.contains("strict"), "{wrong}");
}

#[test]
fn the_shipped_playbook_asks_nodes_from_where_they_are_reached() {
    let asked = |reach: bool| {
        let playbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks/web-tier.fp");
        let set = BTreeMap::from([("hosts_reach_all".to_owned(), reach.to_string())]);
        let run = plan_of(playbook, Some("lab"), set).unwrap();
        let mut found = Vec::new();
        for host in &run.hosts {
            let targets = host.plan.stages.iter().flat_map(|stage| &stage.targets);
            let pages = |step: &&plan::Step| step.kind == "http" && step.args.contains_key("contains");
            for step in targets.flat_map(|target| &target.steps).filter(pages) {
                let title = if let Arg::Ready(title) = &step.title { title.to_string() } else { panic!("late") };
                found.push(format!("{} {title}", host.plan.host));
            }
        }
        found
    };
    assert_eq!(asked(true).len(), 9);
    // The nodes of three hosts stand one on each.
    let own = asked(false);
    assert_eq!(own.len(), 3, "{own:?}");
    assert_eq!(own.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), ["lab1", "lab2", "lab3"]);
}
