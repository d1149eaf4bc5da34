use std::io::{Read as _, Write as _};

use fanli::value::{Map, Value};

use super::ledger::{Client, Held, Load, summary};
use super::place::{Place, apache_config, compare, millis, seconds, state, task, until};
use crate::args;
use crate::drive::{Report, Task};

const NODES: [&str; 3] = ["web1", "web2", "web3"];

const CONFIG: &str = "global
  stats socket DIR/admin.sock mode 600 level admin
  stats socket DIR/looking.sock mode 600 level user
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout queue 60s
  timeout check 10s
frontend front
  bind 127.0.0.1:80
  default_backend web
backend web
  option httpchk GET /
  server web1 127.0.0.11:80 check inter 100 rise 2 fall 2
  server web2 127.0.0.12:80 check inter 100 rise 2 fall 2
  server web3 127.0.0.13:80 check inter 100 rise 2 fall 2
frontend bound_front
  bind 127.0.0.1:81
  default_backend bound
backend bound
  option httpchk GET /
  cookie node insert indirect nocache
  server web1 127.0.0.11:80 cookie web1 check inter 100 rise 2 fall 2
  server web2 127.0.0.12:80 cookie web2 check inter 100 rise 2 fall 2
backend more
  server one 127.0.0.11:80
  server off 127.0.0.12:80 disabled
";

fn config(node: &str) -> String {
    let address = format!("127.0.0.1{}:80", &node[3..]);
    apache_config(node, &address, "")
}

fn site() -> Place {
    let mut place = Place::new();
    place.write("www/index.html", "hello\n");
    for node in NODES {
        place.apache(node, &config(node));
    }
    place.write("haproxy.cfg", CONFIG);
    place.start(&["haproxy", "-f", "DIR/haproxy.cfg"]);
    until("all are up", || {
        let said = socket(&place, "show stat -1 4 -1");
        said.lines().filter(|line| line.contains(",UP,")).count() == 5
    });
    place
}

/// A line for the runtime socket, by other means than fanli's.
fn socket(place: &Place, line: &str) -> String {
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(place.path("admin.sock")) else {
        return String::new();
    };
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

fn backend(place: &Place, name: &str, wanted: &str, more: Map) -> Task {
    let mut args = args! {
        "name" => name, "pool" => "web", "state" => wanted, "haproxy" => place.text("admin.sock"), "within" => seconds(60),
    };
    args.extend(more);
    task("backend", args)
}

fn bring(place: &Place, name: &str, wanted: &str) -> Report {
    let report = place.run(&backend(place, name, wanted, Map::new()));
    assert_eq!(state(&report), wanted);
    report
}

/// The server that has a session under way.
fn busy(place: &Place) -> String {
    let mut found = None;
    until("a request is under way", || {
        let said = socket(place, "show stat web 4 -1");
        found = said
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>())
            .find(|row| row.len() > 4 && row[4] == "1")
            .map(|row| row[1].to_owned());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_server_goes_out_and_comes_back() {
    let place = site();
    place.run(&backend(&place, "web1", "ready", Map::new())).no_change();
    assert_eq!(bring(&place, "web1", "drained").fields(), ["state"]);
    place.run(&backend(&place, "web1", "drained", Map::new())).no_change();
    bring(&place, "web1", "ready");

    // One that is down is sick, and is drained all the same, so that it does not come back by itself.
    place.end("web2");
    let down = |report: &Report| state(report).starts_with("down (") && report.output["sick"] == Value::Bool(true);
    let looking = crate::drive::Drive { apply: false, ..place.drive() };
    until("it is down", || down(&looking.one(&backend(&place, "web2", "ready", Map::new()))));
    bring(&place, "web2", "drained");

    // In maintenance by hand: it counts as drained, and comes back only when that is asked for.
    socket(&place, "set server web/web3 state maint");
    let report = place.run(&backend(&place, "web3", "drained", Map::new()));
    report.no_change();
    assert_eq!(state(&report), "maint");
    compare("balance_maint", &place.refusal(&backend(&place, "web3", "ready", Map::new())));
    let adopted = place.run(&backend(&place, "web3", "ready", args! { "adopt" => true }));
    assert_eq!(state(&adopted), "ready");
}

/// Whether a run of a rollout has left a server out of traffic.
fn left_out(place: &Place, name: &str) -> bool {
    let server = backend(place, name, "drained", Map::new()).args;
    let report =
        place.run(&task("left_out", args! { "node" => name, "servers" => Value::List(vec![Value::Map(server)]) }));
    report.no_change();
    report.output["out"] == Value::Bool(true)
}

/// What `slots` tells of the servers that are out of traffic.
fn told_out(place: &Place) -> Vec<(String, String)> {
    let report = place.run(&task("slots", Map::new()));
    let Some(Value::List(out)) = report.output.get("out").cloned() else { return Vec::new() };
    let told = |server: Value| {
        let Value::Map(server) = server else { panic!("{server:?}") };
        let text = |name: &str| server.get(name).map_or_else(String::new, ToString::to_string);
        assert_eq!((text("rollout").as_str(), text("left").as_str()), ("r", "true"));
        (text("server"), if server.contains_key("trouble") { "trouble".to_owned() } else { text("state") })
    };
    out.into_iter().map(told).collect()
}

#[test]
fn what_a_rollout_takes_out_of_traffic_is_known_until_it_is_back() {
    let place = site();
    let drain = |name: &str| place.run(&backend(&place, name, "drained", args! { "rollout" => "r" }));
    assert!(!left_out(&place, "web1") && told_out(&place).is_empty());
    drain("web1");
    assert!(left_out(&place, "web1") && !left_out(&place, "web2"));
    assert_eq!(told_out(&place), [("web/web1".to_owned(), "drained".to_owned())]);

    // A balancer that cannot be asked: status says so, a rollout goes on.
    place.must("mv DIR/admin.sock DIR/away.sock");
    assert_eq!(told_out(&place), [("web/web1".to_owned(), "trouble".to_owned())]);
    assert!(!left_out(&place, "web1"));
    place.must("mv DIR/away.sock DIR/admin.sock");

    // A person puts it into maintenance, and lets it in again: that is no rollout's any more.
    socket(&place, "set server web/web1 state maint");
    assert!(!left_out(&place, "web1"));
    socket(&place, "set server web/web1 state drain");
    assert!(left_out(&place, "web1"));
    socket(&place, "set server web/web1 state ready");
    until("it is up", || !left_out(&place, "web1") && told_out(&place).is_empty());
    // The note goes with the next task that wants the server in traffic.
    assert_eq!(place.run(&backend(&place, "web1", "ready", Map::new())).fields(), ["note"]);
    place.run(&backend(&place, "web1", "ready", Map::new())).no_change();
    place.must("test -z \"$(ls DIR/state/rollout/out)\"");

    // A server that a person drains, or a task of a play, is nobody's business.
    socket(&place, "set server web/web2 state drain");
    bring(&place, "web2", "drained");
    assert!(!left_out(&place, "web2") && told_out(&place).is_empty());
    bring(&place, "web2", "ready");

    drain("web3");
    bring(&place, "web3", "ready");
    place.must("test -z \"$(ls DIR/state/rollout/out)\"");
}

#[test]
fn what_is_wrong_is_said() {
    let mut place = site();
    let refusal = |more: Map, name: &str, wanted: &str| place.refusal(&backend(&place, name, wanted, more));
    drop(std::os::unix::net::UnixListener::bind(place.path("left.sock")).unwrap());
    let mut told = vec![
        refusal(Map::new(), "wed1", "drained"),
        refusal(args! { "pool" => "wep" }, "web1", "drained"),
        refusal(args! { "haproxy" => place.text("nothing.sock") }, "web1", "drained"),
        refusal(args! { "haproxy" => place.text("left.sock") }, "web1", "drained"),
        refusal(args! { "haproxy" => place.text("looking.sock") }, "web1", "drained"),
        refusal(args! { "pool" => "more" }, "one", "drained"),
    ];
    socket(&place, "set server web/web1 weight 0");
    told.push(refusal(Map::new(), "web1", "ready"));

    let held = Held::start(place.pid, "127.0.0.1:80");
    let busy = busy(&place);
    let short = args! { "within" => millis(500) };
    told.push(refusal(short.clone(), &busy, "drained").replace(&busy, "WEB"));
    let looking = crate::drive::Drive { apply: false, ..place.drive() };
    let report = looking.one(&backend(&place, &busy, "drained", Map::new()));
    assert_eq!(state(&report), "draining (1 session)");
    assert_eq!(report.output["sessions"], Value::Int(1));
    // What was let finish, finishes.
    assert!(held.end().starts_with("HTTP/1.1 200"));
    bring(&place, &busy, "drained");
    bring(&place, &busy, "ready");

    place.end("web3");
    place.must("sleep 1");
    place.run(&backend(&place, "web3", "drained", Map::new()));
    told.push(refusal(short, "web3", "ready"));
    // It did not come up, so it was not let in.
    let report = looking.one(&backend(&place, "web3", "drained", Map::new()));
    report.no_change();
    compare("balance_haproxy", &told.join("\n\n"));
    place.apache("web3", &config("web3"));
    bring(&place, "web3", "ready");
}

#[test]
fn the_last_one_in_traffic_waits_for_another_that_was_just_started() {
    let mut place = site();
    place.end("web2");
    place.end("web3");
    until("two are down", || {
        let said = socket(&place, "show stat web 4 -1");
        said.lines().filter(|line| line.contains(",DOWN,")).count() == 2
    });
    compare("balance_last", &place.refusal(&backend(&place, "web1", "drained", args! { "within" => millis(500) })));
    place.run(&backend(&place, "web1", "ready", Map::new())).no_change();

    place.start(&["sh", "-c", "sleep 1; exec apache2 -f DIR/web2/httpd.conf -DFOREGROUND"]);
    bring(&place, "web1", "drained");
    place.run(&backend(&place, "web2", "ready", Map::new())).no_change();
    // What is out of traffic by order does not come back by itself: nothing is waited for.
    bring(&place, "web3", "drained");
    let refused = place.refusal(&backend(&place, "web2", "drained", Map::new()));
    assert!(!refused.contains("over its limit"), "{refused}");
}

#[test]
fn at_the_limit_the_rest_is_cut_off_when_that_is_asked_for() {
    let place = site();
    let held = Held::start(place.pid, "127.0.0.1:80");
    let busy = busy(&place);
    let more = args! { "within" => millis(500), "at_limit" => "cut" };
    assert_eq!(state(&place.run(&backend(&place, &busy, "drained", more))), "drained");
    assert!(!held.end().starts_with("HTTP/1.1 200"));
}

#[test]
fn killed_between_any_two_requests_the_next_run_goes_on() {
    let place = site();
    let mut kills = 0;
    for wanted in ["drained", "ready"] {
        let other = if wanted == "ready" { "drained" } else { "ready" };
        for when in 1.. {
            let inject = format!("inject=connect:signal=KILL:when={when}");
            let wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=connect", "-e", &inject];
            let drive = crate::drive::Drive { wrap: wrap.map(str::to_owned).to_vec(), ..place.drive() };
            let of_rollout = if wanted == "drained" {
                args! { "rollout" => "r" }
            } else {
                Map::new()
            };
            let ended = drive.try_run(&[backend(&place, "web2", wanted, of_rollout)]);
            // Whenever it is out of traffic by a rollout, the host knows.
            let is_out = socket(&place, "show stat web 4 -1")
                .lines()
                .any(|line| line.starts_with("web,web2,") && line.contains(",DRAIN,"));
            assert_eq!(left_out(&place, "web2"), is_out && wanted == "drained", "{wanted}, {when}");
            bring(&place, "web2", wanted);
            bring(&place, "web2", other);
            if ended.is_some() {
                break;
            }
            kills += 1;
            assert!(when < 1000, "it is killed for ever");
        }
        bring(&place, "web2", wanted);
    }
    eprintln!("killed before {kills} requests to the socket");
    assert!(kills >= 8, "{kills}");
}

/// Clients that a cookie binds to a server that is restarted: they go elsewhere meanwhile.
#[test]
fn bound_clients_are_sent_to_others() {
    let mut place = site();
    let more = || args! { "pool" => "bound", "bound" => "move" };
    let load = Load::start(place.pid, "127.0.0.1:81", &[(Client::Bound, 6)]);
    until("there is load", || load.count() > 50);
    // With a plain drain they still come, so a step that drains would never find it empty for long.
    socket(&place, "set server bound/web1 state drain");
    let seen = crate::drive::Drive { apply: false, ..place.drive() }.one(&backend(&place, "web1", "drained", more()));
    assert!(state(&seen).ends_with(", but for bound clients"), "{}", state(&seen));
    for _ in 0..2 {
        assert_eq!(state(&place.run(&backend(&place, "web1", "drained", more()))), "maint");
        place.run(&backend(&place, "web1", "drained", more())).no_change();
        place.end("web1");
        place.apache("web1", &config("web1"));
        let up = args! { "url" => "http://127.0.0.11/", "within" => seconds(60), "every" => millis(50) };
        assert!(place.run(&task("http", up)).failure.is_none());
        assert_eq!(state(&place.run(&backend(&place, "web1", "ready", more()))), "ready");
    }
    let ledger = load.stop();
    println!("bound clients: {}", summary(&ledger));
    assert!(!ledger.iter().any(super::ledger::Row::failed), "{}", summary(&ledger));
}

/// Slow posts and kept connections through a restart of every server: with drain none fails.
#[test]
fn no_request_is_lost_over_drain_restart_ready() {
    let mut place = site();
    let load = |place: &Place| {
        let clients =
            [(Client::KeepAlive, 6), (Client::Once, 2), (Client::SlowPost, 6), (Client::SlowPostKeepAlive, 6)];
        Load::start(place.pid, "127.0.0.1:80", &clients)
    };
    let answers = |node: &str| {
        let url = format!("http://127.0.0.1{}/", &node[3..]);
        task("http", args! { "url" => url, "within" => seconds(60), "every" => millis(50) })
    };

    let running = load(&place);
    until("there is load", || running.count() > 50);
    for node in NODES {
        place.end(node);
        place.apache(node, &config(node));
        assert!(place.run(&answers(node)).failure.is_none());
        place.must("sleep 1");
    }
    println!("plain restart: {}", summary(&running.stop()));

    for node in NODES {
        bring(&place, node, "ready");
    }
    let running = load(&place);
    until("there is load", || running.count() > 50);
    for node in NODES {
        bring(&place, node, "drained");
        place.end(node);
        place.apache(node, &config(node));
        assert!(place.run(&answers(node)).failure.is_none());
        bring(&place, node, "ready");
    }
    let ledger = running.stop();
    println!("drain, restart, ready: {}", summary(&ledger));
    assert!(!ledger.iter().any(super::ledger::Row::failed), "{}", summary(&ledger));
    assert!(ledger.iter().filter(|row| row.what() == "POST").count() > 20);
}
