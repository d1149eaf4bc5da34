//! Balancers that are only known by three programs; and arguments that are refused before any host is touched.

use fanli::value::{Map, Value};

use super::place::{Place, compare, millis, state, task};
use crate::args;
use crate::common::refused;

fn words(words: &[&str]) -> Value {
    Value::List(words.iter().map(|word| Value::from(*word)).collect())
}

fn programs(place: &Place) -> Value {
    let file = place.text("stands");
    Value::Map(Map::from([
        ("drain".to_owned(), words(&["sh", "-c", &format!("echo draining 2 > {file}")])),
        ("ready".to_owned(), words(&["sh", "-c", &format!("echo ready > {file}")])),
        // It is empty when it was looked at twice.
        (
            "check".to_owned(),
            words(&[
                "sh",
                "-c",
                &format!("cat {file}; sed -i 's/draining 1/drained/; s/draining 2/draining 1/' {file}"),
            ]),
        ),
    ]))
}

#[test]
fn three_programs_do_it_as_well() {
    let place = Place::new();
    place.write("stands", "ready\n");
    let backend = |wanted: &str, command: Value| {
        task("backend", args! { "name" => "a", "state" => wanted, "command" => command, "within" => millis(5000) })
    };
    assert_eq!(state(&place.run(&backend("drained", programs(&place)))), "drained");
    place.run(&backend("drained", programs(&place))).no_change();
    assert_eq!(state(&place.run(&backend("ready", programs(&place)))), "ready");

    let with = |name: &str, argv: &[&str]| {
        let Value::Map(mut map) = programs(&place) else { unreachable!() };
        map.insert(name.to_owned(), words(argv));
        Value::Map(map)
    };
    let mut lazy = backend("drained", with("drain", &["true"]));
    lazy.args.insert("within".to_owned(), millis(200));
    let told = [
        place.refusal(&lazy),
        place.refusal(&backend("drained", with("drain", &["sh", "-c", "echo no such balancer >&2; exit 3"]))),
        place.refusal(&backend("drained", with("check", &["false"]))),
        place.refusal(&backend("drained", with("check", &["true"]))),
    ];
    compare("balance_programs", &told.join("\n\n"));
}

#[test]
fn arguments_that_do_not_fit() {
    let haproxy = || args! { "name" => "web1", "pool" => "web", "state" => "drained", "haproxy" => "/run/h" };
    let with = |more: Map| haproxy().into_iter().chain(more).collect::<Map>();
    let loaded = |more: Map| {
        let first = args! { "name" => "web1", "url" => "http://10.0.0.1/", "generation" => "abc" };
        first.into_iter().chain(more).collect::<Map>()
    };
    let told = [
        refused("backend", args! { "name" => "web1", "state" => "drained" }),
        refused("backend", with(args! { "nginx" => "/etc/x" })),
        refused("backend", args! { "name" => "web1", "state" => "drained", "haproxy" => "/run/h" }),
        refused("backend", with(args! { "name" => "web1; shutdown" })),
        refused("backend", with(args! { "state" => "maint" })),
        refused("backend", with(args! { "within" => millis(0) })),
        refused("backend", with(args! { "reload" => words(&["nginx"]) })),
        refused("backend", args! { "name" => "a", "state" => "ready", "command" => Value::Map(Map::new()) }),
        refused(
            "backend",
            args! { "name" => "a", "state" => "ready", "command" => Value::Map(args! { "chek" => "x" }) },
        ),
        refused("loaded", loaded(args! { "generation" => "a/b" })),
        refused("loaded", loaded(args! { "header" => "X Generation" })),
        refused("loaded", loaded(args! { "port" => 0i64, "slot" => "/srv/a" })),
    ];
    compare("balance_arguments", &told.join("\n"));
}
