//! `fanli net`: what hosts show of their networks, and what is between two nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use super::asking::{Ended, FORKS, Reaching, as_json, hosts_of, planned};
use super::{columns, exit, print, request};
use crate::coordinator::ask::{Answer, Question, ask, survey};
use crate::diagnostic::nearest;
use crate::event::Target;
use crate::failure::Failure;
use crate::plan::{Arg, Connection, Inventory, RunPlan};
use crate::report::harmless;
use crate::resource::interfaces::{Seen, SeenContainer, SeenLink};
use crate::resource::trace::{Check, Verdict, Way};
use crate::value::{Map, Value};

/// Look at the network: what hosts show, what is between two nodes
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli net list web-tier.fp --env lab                      every interface, address and MAC
  fanli net trace web08010 web-tier.fp --env lab            what is wrong with a node's network
  fanli net trace web08010 web08012 web-tier.fp --env lab   and from there to another node

docs/network-trouble.md tells what each line means.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    List(List),
    Trace(Trace),
}

/// List what hosts show: containers with their interfaces, addresses and MACs
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli net list web-tier.fp --env lab
  fanli net list web-tier.fp --env lab --json | jq '.lab1.containers'

Nothing is changed. A host that cannot be reached is unknown, and said so: exit code 5.")]
struct List {
    #[command(flatten)]
    playbook: request::Playbook,

    /// Print everything as JSON: a map from the host's name to what it shows, or to `unknown` with the reason
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

/// Say what is between two nodes, step by step, and the first thing that is wrong
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "fanli net trace [OPTIONS] <NODE> [TO] <FILE>",
    after_help = "Examples:
  fanli net trace web08010 web-tier.fp --env lab             the node and its host
  fanli net trace web08010 web08012 web-tier.fp --env lab    both nodes, then between them
  fanli net trace web08010 10.88.0.254 web-tier.fp --env lab
  fanli net trace web08010 web08012 web-tier.fp --env lab --port 80

Nothing is changed. Exit code 4 when something is wrong."
)]
struct Trace {
    /// The node; then, if wanted, another node or an address to reach from it; then the playbook
    #[arg(value_name = "NODE", num_args = 2..=3, required = true)]
    names: Vec<String>,

    #[command(flatten)]
    more: request::Given,

    /// Also connect to this TCP port at the far end
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Print the checks as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reach: Reaching,
}

pub(super) fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::List(args) => list(&args),
        Command::Trace(args) => trace(args),
    };
    match done {
        Ok(code) | Err(Ended(code)) => code.into(),
    }
}

fn list(args: &List) -> Result<u8, Ended> {
    let hosts = hosts_of(&args.playbook)?;
    let seen = args.reach.ask::<_, Ended>(|reach| survey(hosts, &[], reach, FORKS))?;
    print(&if args.json { as_json(&seen) } else { table(&seen) });
    Ok(if seen.values().any(Result::is_err) { exit::UNREACHABLE } else { exit::OK })
}

/// One line for each interface of each container, below its host.
fn table(seen: &BTreeMap<String, Result<Seen, Failure>>) -> String {
    let mut text = String::new();
    for (name, seen) in seen {
        let seen = match seen {
            Ok(seen) => seen,
            Err(failure) => {
                let _ = writeln!(text, "{name}  unknown: {}", harmless(&failure.to_string()));
                continue;
            }
        };
        let own = seen.links.iter().filter(|link| link.name != "lo" && !link.addresses.is_empty());
        let own: Vec<String> = own.map(|link| format!("{} {}", link.name, addresses(link))).collect();
        let _ = writeln!(text, "{name}  {}", own.join(", "));
        let rows: Vec<[String; 6]> = seen.containers.iter().flat_map(rows_of).collect();
        let gone = seen.records.iter().filter(|record| seen.containers.iter().all(|one| one.name != record.container));
        let gone = gone.map(|record| {
            let words = format!("remembered in {}, but there is no such container", record.network);
            [record.container.clone(), "-".into(), record.address.to_string(), "-".into(), record.parent.clone(), words]
        });
        let rows = rows.into_iter().chain(gone);
        for line in columns(&rows.map(|row| row.map(|cell| harmless(&cell))).collect::<Vec<_>>()) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn addresses(link: &SeenLink) -> String {
    let all: Vec<String> =
        link.addresses.iter().filter(|net| !link_local(net.addr())).map(ToString::to_string).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80))
}

/// Container, interface, addresses, MAC, what it stands on, whose it is.
fn rows_of(container: &SeenContainer) -> Vec<[String; 6]> {
    let dash = || "-".to_owned();
    let bare = |words: String| vec![[container.name.clone(), dash(), dash(), dash(), dash(), words]];
    if let Some(why) = &container.unseen {
        return bare(format!("unknown: {why}"));
    }
    if container.links.is_empty() {
        return bare(match (container.status.as_str(), container.network_mode.as_str()) {
            ("running", "none") => "running, without an interface".to_owned(),
            ("running", mode) => format!("running, network {mode}"),
            (status, _) => status.to_owned(),
        });
    }
    let row = |link: &SeenLink| {
        let kind = format!("{} {}", link.kind, link.mode);
        let whose = match link.alias.strip_prefix("fanli:1:") {
            Some(owner) => format!("fanli, {}", owner.split(':').nth(1).unwrap_or("?")),
            None => format!("not fanli's ({})", container.network_mode),
        };
        let down = if link.up { "" } else { ", down" };
        [
            container.name.clone(),
            link.name.clone(),
            addresses(link),
            link.mac.map_or_else(dash, |mac| mac.to_string()),
            link.parent.clone().unwrap_or_else(dash),
            format!("{}, MTU {}, {whose}{down}", kind.trim(), link.mtu),
        ]
    };
    container.links.iter().map(row).collect()
}

/// A node with its host and its attachments.
struct Node {
    host: String,
    connection: Connection,
    attach: Map,
    address: Option<IpAddr>,
}

/// The first `attach` of a node in the plan.
fn node(name: &str, planned: &RunPlan, inventory: &Inventory) -> Result<Node, String> {
    let known = || inventory.nodes.iter().map(|node| node.name.as_str());
    let mut late = false;
    for run in &planned.hosts {
        let targets = run.plan.stages.iter().flat_map(|stage| &stage.targets);
        for (target, step) in targets.flat_map(|plan| plan.steps.iter().map(|step| (&plan.target, step))) {
            if step.kind != "attach" || !is_of(name, target, &step.args) {
                continue;
            }
            let Some(attach) = Arg::all_ready(&step.args) else {
                late = true;
                continue;
            };
            let address = match attach.get("address") {
                Some(Value::Ip(address)) => Some(*address),
                Some(other) => other.to_string().parse().ok(),
                None => None,
            };
            let (host, connection) = (run.plan.host.clone(), run.connection.clone());
            return Ok(Node { host, connection, attach, address });
        }
    }
    if late {
        return Err(format!("the attachment of {name} needs facts or results: it is known only while a play runs"));
    }
    if known().any(|known| known == name) {
        return Err(format!("the playbook attaches no interface to {name}"));
    }
    let near = nearest(name, known()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(format!("there is no node `{name}`{near}"))
}

fn is_of(name: &str, target: &Target, args: &BTreeMap<String, Arg>) -> bool {
    let container = matches!(args.get("container"), Some(Arg::Ready(Value::Str(container))) if container == name);
    container || target.node.as_deref() == Some(name)
}

fn trace(args: Trace) -> Result<u8, Ended> {
    let Trace { mut names, more, port, json, reach: reaching } = args;
    let file = names.pop().unwrap_or_default();
    let playbook = request::Playbook { file: file.into(), given: more };
    let first = names.remove(0);
    let to = names.pop();
    let (node, other, address) = planned(&playbook, &request::Part::default(), |planned, inventory| {
        let node = node(&first, &planned, inventory)?;
        let (other, address) = match &to {
            None => (None, None),
            Some(to) => match to.parse::<IpAddr>() {
                Ok(address) => (None, Some(address)),
                Err(_) => {
                    let other = self::node(to, &planned, inventory)?;
                    let address = other.address;
                    (Some(other), address)
                }
            },
        };
        Ok((node, other, address))
    })?;
    let mut task = Map::from([("attach".to_owned(), Value::Map(node.attach.clone()))]);
    task.extend(address.map(|address| ("to".to_owned(), Value::Ip(address))));
    task.extend(port.map(|port| ("port".to_owned(), Value::Int(port.into()))));
    let mut questions = vec![question(&node, task)];
    if let Some(other) = &other {
        let task = Map::from([("attach".to_owned(), Value::Map(other.attach.clone()))]);
        match questions.iter_mut().find(|question| question.host == other.host) {
            Some(question) => question.tasks.push(("trace".to_owned(), task)),
            None => questions.push(question(other, task)),
        }
    }
    let mut answers = reaching.ask::<_, Ended>(|reach| ask(questions, "trace", reach, FORKS))?;
    let mut ways = Vec::new();
    let ends = [Some((first, &node)), other.as_ref().map(|other| (to.unwrap_or_default(), other))];
    for (name, node) in ends.into_iter().flatten() {
        ways.push((name, node, next_way(&mut answers, &node.host)));
    }
    let told = told(&ways);
    print(&if json { trace_json(&ways) } else { told.text });
    Ok(told.code)
}

fn question(node: &Node, task: Map) -> Question {
    let (host, connection) = (node.host.clone(), node.connection.clone());
    Question { host, connection, tasks: vec![("trace".to_owned(), task)] }
}

/// The next answer of a host.
fn next_way(answers: &mut BTreeMap<String, Answer>, host: &str) -> Result<Way, Failure> {
    match answers.get_mut(host) {
        Some(Ok(given)) if !given.is_empty() => Way::from_output(&given.remove(0)?),
        Some(Err(failure)) => Err(failure.clone()),
        _ => Err(Failure::new("the host did not answer")),
    }
}

type Ways<'a> = [(String, &'a Node, Result<Way, Failure>)];

/// A trace in words, and the exit code that goes with it.
struct Told {
    text: String,
    code: u8,
}

fn told(ways: &Ways) -> Told {
    let mut text = String::new();
    let mut first: Option<Check> = None;
    let mut code = exit::OK;
    let mut unknown = None;
    let width = |way: &Way| way.checks.iter().chain(&way.path).map(|check| check.what.chars().count()).max();
    let width = ways.iter().filter_map(|(_, _, way)| way.as_ref().ok().and_then(width)).max().unwrap_or(0);
    let line = |check: &Check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Wrong => "WRONG",
            Verdict::Unknown => "-",
        };
        format!("  {verdict:5}  {:width$}  {}\n", harmless(&check.what), harmless(&check.detail))
    };
    for (name, node, way) in ways {
        let address = node.address.map_or_else(String::new, |address| format!(" ({address})"));
        let _ = writeln!(text, "{name}{address} on {}", node.host);
        match way {
            Ok(way) => way.checks.iter().for_each(|check| text.push_str(&line(check))),
            Err(failure) => {
                let failure = harmless(&failure.to_string());
                let _ = writeln!(text, "  -      {failure}");
                unknown.get_or_insert_with(|| format!("{name} on {} could not be looked at", node.host));
            }
        }
    }
    if let Some((name, _, Ok(way))) = ways.first()
        && !way.path.is_empty()
    {
        let _ = writeln!(text, "from {name}");
        way.path.iter().for_each(|check| text.push_str(&line(check)));
    }
    // What is wrong with either end goes before what is wrong between them.
    let found = ways.iter().filter_map(|(_, _, way)| way.as_ref().ok());
    let ends = found.clone().flat_map(|way| &way.checks);
    let wrong = ends.chain(found.flat_map(|way| &way.path)).find(|check| check.verdict == Verdict::Wrong);
    if let Some(check) = wrong {
        let _ = writeln!(text, "\nwrong: {}", harmless(&check.detail));
        if let Some(way) = &check.way_out {
            let _ = writeln!(text, "help:  {}", harmless(way));
        }
        code = exit::FAILED;
        first = Some(check.clone());
    }
    match (&first, unknown) {
        (None, Some(unknown)) => {
            let _ = writeln!(text, "\nunknown: {unknown}");
            code = exit::UNREACHABLE;
        }
        (None, None) => text.push_str("\nnothing is wrong\n"),
        (Some(_), _) => {}
    }
    Told { text, code }
}

fn trace_json(ways: &Ways) -> String {
    let of_node = |(name, node, way): &(String, &Node, Result<Way, Failure>)| match way {
        Ok(way) => serde_json::json!({ "node": name, "host": node.host, "checks": way.checks, "path": way.path }),
        Err(failure) => serde_json::json!({ "node": name, "host": node.host, "unknown": failure.to_string() }),
    };
    format!("{}\n", serde_json::Value::Array(ways.iter().map(of_node).collect()))
}
