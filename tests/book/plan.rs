//! How plans use the book: nothing is written while planning, and hosts are told whose address it is.

use std::collections::BTreeMap;
use std::path::Path;

use fanli::book::{Book, Bound, Entry, Refused, Spot, State, View};
use fanli::diagnostic::render;
use fanli::plan::{Arg, RunPlan, book_of, holders, load, make, stamp};
use fanli::source::Sources;
use fanli::value::{Map, Value};

use crate::common::request;

fn text(group: &str) -> String {
    format!(
        r#"
hosts docker {{
  host "lab1" {{ connection = local }}
}}
network "lan" {{
  mode   = macvlan
  parent = "eth0"
  subnet = 10.71.0.0/24
  pool   = 10.71.0.10 - 10.71.0.14
}}
nodes {group} {{
  count   = 2
  on      = hosts.docker
  network = "lan"
  name    = "{group}{{{{ node.index }}}}"
}}
play "nodes" on nodes.{group} {{
  attach "lan" {{ container = node.name  address = node.address }}
  attach "lan" {{ container = node.name  address = 10.71.0.99  interface = "eth1" }}
}}
"#
    )
}

/// Plans, and does with the view what the caller likes before the plan is stamped.
fn planned<T>(
    folder: &Path,
    group: &str,
    view: &mut View,
    then: impl FnOnce(&View, &BTreeMap<(String, String), Bound>) -> (BTreeMap<(String, String), Entry>, T),
) -> (RunPlan, T) {
    let path = folder.join(format!("{group}.fp"));
    std::fs::write(&path, text(group)).unwrap();
    let (request, mut sources) = (request(path), Sources::default());
    let (playbook, errors) = load(&request, &mut sources);
    let made = make(&playbook, errors, &request, &mut sources, view);
    let (mut run, inventory) = made.unwrap_or_else(|errors| panic!("{}", render(&errors, &sources)));
    let (entries, more) = then(view, &holders(&run, &inventory));
    let id = view.book().unwrap().store().id().unwrap();
    stamp(&mut run, &inventory, id.as_deref(), &[], &entries);
    (run, more)
}

fn keep(
    view: &View,
    holders: &BTreeMap<(String, String), Bound>,
) -> Result<BTreeMap<(String, String), Entry>, Refused> {
    view.keep(|given| holders[&(given.network.clone(), given.owner.clone())].clone())
}

/// `owner`, `store` and `revision` of each `attach`, in order.
fn told(run: &RunPlan) -> Vec<[Option<Value>; 3]> {
    let targets = run.hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
    let arg = |args: &BTreeMap<String, Arg>, name: &str| match args.get(name) {
        Some(Arg::Ready(value)) => Some(value.clone()),
        _ => None,
    };
    let steps = targets.flat_map(|target| &target.steps);
    steps.map(|step| ["owner", "store", "revision"].map(|name| arg(&step.args, name))).collect()
}

#[test]
fn hosts_are_told_whose_address_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join(".fanli/local/book.redb");
    // Looking first: nothing is known of a book that is not there, and none is made.
    let (run, ()) = planned(folder.path(), "web", &mut View::new("r1"), |view, _| (view.standing().unwrap(), ()));
    assert!(!book.exists());
    let owners = |run: &RunPlan| told(run).into_iter().map(|[owner, ..]| owner).collect::<Vec<_>>();
    let wanted = [Some(Value::from("web/1")), None, Some(Value::from("web/2")), None];
    assert_eq!(owners(&run), wanted, "only for the node's own address");
    assert!(told(&run).iter().all(|[_, store, revision]| store.is_none() && revision.is_none()));
    // For real.
    let bind = |view: &View, holders: &BTreeMap<_, _>| (keep(view, holders).unwrap(), ());
    let (first, ()) = planned(folder.path(), "web", &mut View::new("r2"), bind);
    assert!(book.exists());
    assert_eq!(owners(&first), wanted);
    let [_, store, revision] = &told(&first)[0];
    assert!(matches!(store, Some(Value::Str(id)) if id.len() == 32) && matches!(revision, Some(Value::Int(1..))));
    // Again, and as check mode sees it: the very same, so nothing differs for hosts.
    let (again, ()) = planned(folder.path(), "web", &mut View::new("r3"), bind);
    assert_eq!(told(&again), told(&first));
    let (looked, ()) = planned(folder.path(), "web", &mut View::new("r4"), |view, _| (view.standing().unwrap(), ()));
    assert_eq!(told(&looked), told(&first));
}

#[test]
fn a_plan_whose_addresses_were_taken_meanwhile_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut slow = View::new("slow");
    let (_, refused) = planned(folder.path(), "web", &mut slow, |view, holders| {
        // Another run is faster between this one's plan and its reservation.
        planned(folder.path(), "db", &mut View::new("fast"), |view, holders| (keep(view, holders).unwrap(), ()));
        (BTreeMap::new(), keep(view, holders))
    });
    assert!(matches!(&refused, Err(Refused::Held(record)) if record.owner.as_deref() == Some("db/1")), "{refused:?}");
    slow.again();
    let (_, kept) =
        planned(folder.path(), "web", &mut slow, |view, holders| (BTreeMap::new(), keep(view, holders).unwrap()));
    let spots: Vec<Spot> = kept.values().map(|entry| entry.record.spot.clone()).collect();
    assert_eq!(spots, ["10.71.0.12".parse().unwrap(), "10.71.0.13".parse().unwrap()]);
    let all = Book::new(fanli::book::open(&place(folder.path()), "r").unwrap(), "r").all().unwrap();
    assert!(all.entries.len() == 4 && all.entries.iter().all(|entry| entry.record.state == State::Bound));
}

fn place(folder: &Path) -> fanli::book::Place {
    let (request, mut sources) = (request(folder.join("web.fp")), Sources::default());
    book_of(&load(&request, &mut sources).0, &Map::new()).unwrap()
}
