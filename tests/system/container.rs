//! `container` against a real daemon.

use fanli::value::{Arrow, Value};

use crate::common::chance::soak;
use crate::docker_hosts::Hosts;
use crate::drive::{Task, task};
use crate::faults::{killed_at_request, requests, some_of};

fn text(text: &str) -> Value {
    Value::from(text)
}

fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| text(item)).collect())
}

fn map(items: &[(&str, &str)]) -> Value {
    Value::Map(items.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect())
}

fn arrow(from: &str, to: &str, flags: &[&str]) -> Value {
    let flags = flags.iter().map(ToString::to_string).collect();
    Value::Arrow(Box::new(Arrow { from: from.to_owned(), to: to.to_owned(), flags }))
}

fn sleeper(name: &str, more: &[(&'static str, Value)]) -> Task {
    let base = [
        ("name", text(name)),
        ("image", text("fanli/example:1")),
        ("command", list(&["sleep", "600"])),
        ("stop_timeout", Value::Duration(std::time::Duration::from_secs(1))),
    ];
    task("container", base.into_iter().chain(more.iter().cloned()))
}

#[test]
fn a_container_is_made_kept_and_mended() {
    let hosts = Hosts::start("c", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    host.must("mkdir -p /data/web/logs /data/web/conf; ln -s / /data/web/rootlink; echo x > /data/web/file");

    // Check mode makes nothing; then it is made; then there is nothing to do.
    let plain = sleeper("fdk-a", &[]);
    let mut look = host.drive();
    look.apply = false;
    assert!(look.one(&plain).change.is_some());
    assert_eq!(host.must("docker ps -aq"), "");
    let made = drive.one(&plain);
    assert!(made.fields().contains(&"image".to_owned()));
    let second = drive.one(&plain);
    second.no_change();
    println!("second look at a container: {} us", second.observe_us);

    // Every declared field that differs is named, alone, and leads to a new container; taking it out again as well.
    let cases: Vec<(&'static str, Value)> = vec![
        ("command", list(&["sleep", "601"])),
        ("entrypoint", list(&["/bin/busybox"])),
        ("env", map(&[("STAGE", "test")])),
        ("hostname", text("other")),
        ("user", text("1")),
        ("workdir", text("/tmp")),
        ("memory", Value::Size(64 << 20)),
        ("cpus", text("0.5")),
        (
            "mounts",
            Value::List(vec![arrow("/data/web/logs", "/logs", &[]), arrow("/data/web/conf", "/conf", &["read_only"])]),
        ),
        ("tmpfs", list(&["/tmp:size=1m"])),
        ("network", text("bridge")),
        ("dns", list(&["10.0.0.53"])),
        ("extra_hosts", list(&["db:10.0.0.5"])),
        ("sysctls", list(&["net.ipv4.ip_nonlocal_bind=1"])),
        ("capabilities", list(&["NET_ADMIN"])),
        ("restart", text("always")),
        ("stop_signal", text("SIGINT")),
        ("init", Value::Bool(true)),
        ("read_only", Value::Bool(true)),
        ("labels", map(&[("team", "web")])),
        ("log_size", Value::Size(1 << 20)),
        ("log_files", Value::Int(5)),
    ];
    let id = || host.must("docker inspect -f '{{.Id}}' fdk-a");
    for (field, value) in cases {
        let before = id();
        let changed = drive.one(&sleeper("fdk-a", &[(field, value.clone())]));
        assert_eq!(changed.fields(), [field]);
        assert_ne!(id(), before, "{field} did not lead to a new container");
        drive.one(&sleeper("fdk-a", &[(field, value)])).no_change();
        assert_eq!(drive.one(&plain).fields(), [field], "taking {field} out");
    }
    assert_eq!(host.must("docker ps -a --format '{{.Names}}'"), "fdk-a");

    // Drift by hand: stopped, paused, updated.
    for (script, field) in [
        ("docker stop -t 0 fdk-a", "state"),
        ("docker pause fdk-a", "state"),
        ("docker update --restart no fdk-a", "restart"),
        ("docker update --memory 32m --memory-swap 32m fdk-a", "memory"),
        ("docker update --cpus 0.3 fdk-a", "cpus"),
    ] {
        host.must(script);
        assert_eq!(look.one(&plain).fields(), [field], "{script}");
        assert_eq!(drive.one(&plain).fields(), [field], "{script}");
        drive.one(&plain).no_change();
    }

    // The image's name comes to stand for another image.
    host.busybox("fanli/example:1", "two");
    assert_eq!(drive.one(&plain).fields(), ["image"]);
    drive.one(&plain).no_change();

    // Stopped, then absent.
    assert_eq!(drive.one(&sleeper("fdk-a", &[("state", text("stopped"))])).fields(), ["state"]);
    drive.one(&sleeper("fdk-a", &[("state", text("stopped"))])).no_change();
    drive.one(&sleeper("fdk-a", &[("state", text("absent"))])).fields();
    assert_eq!(host.must("docker ps -aq"), "");
    drive.one(&sleeper("fdk-a", &[("state", text("absent"))])).no_change();

    // What a killed run leaves is cleaned by the next.
    drive.one(&plain).fields();
    host.must("docker create --name fdk-a.fanli-new --label fanli.spec={} fanli/example:1 sleep 1");
    assert_eq!(drive.one(&plain).fields(), ["leftover"]);
    host.must("docker rename fdk-a fdk-a.fanli-old");
    assert!(drive.one(&plain).change.is_some());
    assert_eq!(host.must("docker ps -a --format '{{.Names}}'"), "fdk-a");
    drive.one(&plain).no_change();

    // A new container that cannot start: the old one comes back.
    let before = id();
    let broken = drive.one(&sleeper("fdk-a", &[("command", list(&["/no/such/program"]))]));
    println!("{}", broken.failed());
    assert_eq!(id(), before);
    drive.one(&plain).no_change();

    // Mounts that are not there, are no directories, or are the host under another name.
    for source in ["/data/web/missing", "/data/web/file", "/data/web/rootlink", "/data/web/rootlink/etc"] {
        let refused = drive.one(&sleeper("fdk-a", &[("mounts", Value::List(vec![arrow(source, "/x", &[])]))]));
        println!("{}", refused.failed());
        assert_eq!(id(), before);
    }
    assert!(!host.sh("test -e /data/web/missing").status.success());

    // Another's container is not touched, unless asked for.
    host.must("docker run -d --name fdk-b --net none fanli/example:1 sleep 600");
    println!("{}", drive.one(&sleeper("fdk-b", &[])).failed());
    let adopt = sleeper("fdk-b", &[("adopt", Value::Bool(true))]);
    assert!(drive.one(&adopt).change.is_some());
    drive.one(&adopt).no_change();

    // An image that is not there.
    println!("{}", drive.one(&sleeper("fdk-c", &[("image", text("fanli/none:1"))])).failed());

    // Published ports.
    let web = sleeper(
        "fdk-d",
        &[
            ("network", text("bridge")),
            ("ports", list(&["8080:80"])),
            ("command", list(&["httpd", "-f", "-h", "/www"])),
        ],
    );
    drive.one(&web).fields();
    assert_eq!(host.must("sleep 0.3; busybox wget -qO- http://127.0.0.1:8080/"), "two");
    drive.one(&web).no_change();
}

#[test]
fn a_replacement_that_is_killed_anywhere_is_finished_by_the_next() {
    let hosts = Hosts::start("x", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let version = |number: usize| sleeper("fdk-x", &[("env", map(&[("VERSION", &number.to_string())]))]);
    drive.one(&version(0)).fields();
    // Every request to the daemon is one `sendto`, on connections that are kept.
    let most = requests(host, &[version(1000)]);
    assert!(most > 10, "only {most} requests");
    let mut killed = 0;
    for request in some_of(most, 4) {
        killed += usize::from(killed_at_request(host, &[version(request)], request));
        drive.one(&version(request));
        drive.one(&version(request)).no_change();
        assert_eq!(host.must("docker ps -a --format '{{.Names}} {{.State}}'"), "fdk-x running", "request {request}");
        let env = host.must("docker exec fdk-x env");
        assert!(env.contains(&format!("VERSION={request}\n")), "{env}");
    }
    println!("killed at {killed} requests");
    assert!(killed > if soak() { 10 } else { 0 }, "only {killed}");
}
