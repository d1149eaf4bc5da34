use fanli::value::{Map, Value};

use super::ledger::{Client, Held, Load, Row, summary};
use super::place::{Place, apache_config, compare, millis, seconds, state, task, until};
use crate::args;
use crate::common::chance::{moments, soak};
use crate::drive::{Drive, Report, Task};

const NODES: [&str; 2] = ["web1", "web2"];

const CONFIG: &str = "user www-data;
worker_processes 2;
pid DIR/nginx.pid;
error_log DIR/nginx.log;
events { }
http {
  access_log off;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  include DIR/upstreams.conf;
  server {
    listen 127.0.0.1:80;
    location / {
      proxy_pass http://web;
      proxy_request_buffering off;
      proxy_http_version 1.1;
    }
  }
}
";

const UPSTREAMS: &str = "upstream web {
    server 127.0.0.11:80 max_fails=0; # web1
    server 127.0.0.12:80 max_fails=0; # web2
}
";

fn config(node: &str) -> String {
    apache_config(node, &format!("127.0.0.1{}:80", &node[3..]), "")
}

fn site() -> Place {
    let mut place = Place::new();
    place.write("www/index.html", "hello\n");
    for node in NODES {
        place.apache(node, &config(node));
    }
    place.write("upstreams.conf", UPSTREAMS);
    place.write("nginx.conf", CONFIG);
    // Workers that are as old as the file, to two hundredths of a second, count as older.
    place.must("sleep 0.1");
    place.start(&["nginx", "-c", "DIR/nginx.conf", "-g", "daemon off;"]);
    until("nginx runs", || std::fs::read_to_string(place.path("nginx.pid")).is_ok_and(|pid| !pid.trim().is_empty()));
    let up = args! { "url" => "http://127.0.0.1/", "within" => seconds(60), "every" => millis(50) };
    assert!(place.run(&task("http", up)).failure.is_none(), "{}", place.log());
    place
}

fn backend(place: &Place, name: &str, wanted: &str, more: Map) -> Task {
    let words = |words: &[&str]| {
        let conf = place.text("nginx.conf");
        let first = ["nginx", "-c", &conf];
        Value::List(first.iter().chain(words).map(|word| Value::from(*word)).collect())
    };
    let mut args = args! {
        "name" => name, "pool" => "web", "state" => wanted, "nginx" => place.text("upstreams.conf"), "within" => seconds(60),
        "pid_file" => place.text("nginx.pid"), "test" => words(&["-t"]), "reload" => words(&["-s", "reload"]),
    };
    args.extend(more);
    task("backend", args)
}

fn bring(place: &Place, name: &str, wanted: &str) -> Report {
    let report = place.run(&backend(place, name, wanted, Map::new()));
    assert_eq!(state(&report), wanted);
    report
}

fn file(place: &Place) -> String {
    std::fs::read_to_string(place.path("upstreams.conf")).unwrap()
}

#[test]
fn a_server_goes_out_and_comes_back() {
    let place = site();
    place.run(&backend(&place, "web1", "ready", Map::new())).no_change();
    bring(&place, "web1", "drained");
    assert_eq!(file(&place), UPSTREAMS.replace("max_fails=0; # web1", "max_fails=0 down; # web1"));
    place.run(&backend(&place, "web1", "drained", Map::new())).no_change();
    let mut told = vec![place.refusal(&backend(&place, "web2", "drained", Map::new()))];
    bring(&place, "web1", "ready");
    assert_eq!(file(&place), UPSTREAMS);

    // A file that somebody else has changed is not yet what nginx does.
    place.must("sleep 0.1; sed -i 's/max_fails=0; # web1/max_fails=0 down; # web1/' DIR/upstreams.conf");
    let looking = Drive { apply: false, ..place.drive() };
    let seen = looking.one(&backend(&place, "web1", "drained", Map::new()));
    assert_eq!(state(&seen), "down in the file, which nginx has not loaded");
    bring(&place, "web1", "drained");
    bring(&place, "web1", "ready");

    let refusal = |more: Map, name: &str| place.refusal(&backend(&place, name, "drained", more));
    told.extend([
        refusal(Map::new(), "wed1"),
        refusal(args! { "pool" => "wep" }, "web1"),
        refusal(args! { "nginx" => place.text("nothing.conf") }, "web1"),
        refusal(args! { "pid_file" => place.text("nothing.pid") }, "web1"),
        refusal(args! { "reload" => "true", "within" => millis(300) }, "web1"),
    ]);
    bring(&place, "web1", "ready");

    // What does not pass nginx's own test is taken back.
    place.must("echo 'http {' > DIR/broken.conf");
    let broken = ["nginx", "-q", "-c", &place.text("broken.conf"), "-t"].map(Value::from).to_vec();
    let words = refusal(args! { "test" => Value::List(broken) }, "web1");
    // nginx says when, and by which process.
    let timeless = |line: &str| {
        line.split_once("[emerg] ").map_or(line.to_owned(), |(_, said)| {
            format!("  TIME {}", said.split_once(": ").map_or(said, |(_, words)| words))
        })
    };
    told.push(words.lines().map(timeless).collect::<Vec<_>>().join("\n"));
    assert_eq!(file(&place), UPSTREAMS);

    let held = Held::start(place.pid, "127.0.0.1:80");
    place.must("sleep 0.3");
    told.push(refusal(args! { "within" => millis(500) }, "web1"));
    let seen = looking.one(&backend(&place, "web1", "drained", Map::new()));
    assert_eq!(state(&seen), "draining (1 old worker)");
    assert!(held.end().starts_with("HTTP/1.1 200"));
    bring(&place, "web1", "drained");
    bring(&place, "web1", "ready");

    let held = Held::start(place.pid, "127.0.0.1:80");
    place.must("sleep 0.3");
    let cut = args! { "within" => millis(500), "at_limit" => "cut" };
    assert_eq!(state(&place.run(&backend(&place, "web1", "drained", cut))), "drained");
    assert!(!held.end().starts_with("HTTP/1.1 200"));
    compare("balance_nginx", &told.join("\n\n"));
}

#[test]
fn killed_at_any_step_the_next_run_goes_on() {
    let place = site();
    let mut kills = 0;
    for wanted in ["drained", "ready"] {
        let other = if wanted == "ready" { "drained" } else { "ready" };
        // Before and after the new file has its name; before and after each program.
        for call in ["renameat", "fsync", "clone3", "vfork", "clone", "wait4", "waitid", "epoll_wait"] {
            for when in 1..=moments(1, 6) {
                let inject = format!("inject={call}:signal=KILL:when={when}");
                let trace = format!("trace={call}");
                let wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
                let drive = Drive { wrap: wrap.map(str::to_owned).to_vec(), ..place.drive() };
                let ended = drive.try_run(&[backend(&place, "web2", wanted, Map::new())]);
                let left = file(&place);
                assert!(left == UPSTREAMS || left.matches(" down;").count() == 1, "{left}");
                bring(&place, "web2", wanted);
                bring(&place, "web2", other);
                if ended.is_some() {
                    break;
                }
                kills += 1;
            }
        }
        bring(&place, "web2", wanted);
    }
    eprintln!("killed {kills} times");
    assert!(kills > if soak() { 5 } else { 1 }, "{kills} kills hit the work");
    assert_eq!(
        std::fs::read_dir(place.path("."))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_str().unwrap().contains("fanli") })
            .count(),
        0,
        "something of ours is left beside the file"
    );
}

/// Without kept connections: what nginx's reload does to those is not fanli's to mend, and only told here.
#[test]
fn no_request_is_lost_over_drain_restart_ready() {
    let mut place = site();
    let clients = [(Client::Once, 4), (Client::SlowPost, 6)];
    let running = Load::start(place.pid, "127.0.0.1:80", &clients);
    let kept = Load::start(place.pid, "127.0.0.1:80", &[(Client::KeepAlive, 4)]);
    until("there is load", || running.count() > 50);
    for node in NODES {
        bring(&place, node, "drained");
        place.end(node);
        place.apache(node, &config(node));
        let url = format!("http://127.0.0.1{}/", &node[3..]);
        let up = args! { "url" => url, "within" => seconds(60), "every" => millis(50) };
        assert!(place.run(&task("http", up)).failure.is_none());
        bring(&place, node, "ready");
    }
    let ledger = running.stop();
    println!("kept connections: {}", summary(&kept.stop()));
    println!("drain, restart, ready: {}", summary(&ledger));
    assert!(!ledger.iter().any(Row::failed), "{}", summary(&ledger));
}
