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
        ("stop_timeout", Value::Duration(std::time::Duration::ZERO)),
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

    // Every declared field that differs is named, alone, and leads to a new container; taking them out again as well.
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
    let mut names: Vec<&str> = cases.iter().map(|(field, _)| *field).collect();
    names.sort_unstable();
    let mut all = plain.clone();
    for (field, value) in cases {
        let before = id();
        all.args.insert(field.to_owned(), value);
        assert_eq!(drive.one(&all).fields(), [field]);
        assert_ne!(id(), before, "{field} did not lead to a new container");
        drive.one(&all).no_change();
    }
    assert_eq!(drive.one(&plain).fields(), names, "taking them out");
    assert_eq!(host.must("docker ps -a --format '{{.Names}}'"), "fdk-a");

    // Drift by hand: stopped, paused, updated.
    for (script, field) in [
        ("docker stop -t 0 fdk-a", "state"),
        ("docker pause fdk-a", "state"),
        ("docker update --restart no fdk-a", "restart"),
        ("docker update --memory 32m --memory-swap 32m fdk-a", "memory"),
        ("docker update --cpus 0.3 fdk-a", "cpus"),
        ("docker update --cpu-shares 512 --pids-limit 100 fdk-a", "limits"),
    ] {
        host.must(script);
        assert_eq!(look.one(&plain).fields(), [field], "{script}");
        assert_eq!(drive.one(&plain).fields(), [field], "{script}");
        drive.one(&plain).no_change();
    }

    // And its networks.
    let bridged = sleeper("fdk-a", &[("network", text("bridge"))]);
    assert_eq!(drive.one(&bridged).fields(), ["network"]);
    host.must("docker network create fdk-other");
    for (script, says) in [
        ("docker network connect fdk-other fdk-a", "bridge, fdk-other"),
        ("docker network disconnect bridge fdk-a", "nothing"),
        ("docker network disconnect bridge fdk-a; docker network connect fdk-other fdk-a", "fdk-other"),
        ("docker stop -t 0 fdk-a; docker network disconnect bridge fdk-a; docker start fdk-a", "nothing"),
    ] {
        host.must(script);
        let seen = look.one(&bridged);
        assert_eq!(seen.fields(), ["network"], "{script}");
        assert_eq!(seen.change.unwrap().fields[0].from.to_string(), says, "{script}");
        assert_eq!(drive.one(&bridged).fields(), ["network"], "{script}");
        drive.one(&bridged).no_change();
    }
    assert_eq!(drive.one(&plain).fields(), ["network"]);
    host.must("docker network rm fdk-other");

    // The image's name comes to stand for another image.
    host.busybox("fanli/example:1", "two");
    assert_eq!(drive.one(&plain).fields(), ["image"]);
    drive.one(&plain).no_change();

    // Stopped, then absent.
    assert_eq!(drive.one(&sleeper("fdk-a", &[("state", text("stopped"))])).fields(), ["state"]);
    drive.one(&sleeper("fdk-a", &[("state", text("stopped"))])).no_change();
    // A name is enough for that.
    let absent = task("container", [("name", text("fdk-a")), ("state", text("absent"))]);
    drive.one(&absent).fields();
    drive.one(&absent).no_change();
    assert_eq!(host.must("docker ps -aq"), "");
    drive.one(&sleeper("fdk-a", &[("state", text("absent"))])).no_change();

    // What a killed run leaves is cleaned by the next; the only one there is comes back to its name.
    drive.one(&plain).fields();
    host.must("docker create --name fdk-a.fanli-new --label fanli.spec={} fanli/example:1 sleep 1");
    assert_eq!(drive.one(&plain).fields(), ["leftover"]);
    let only = id();
    host.must("docker rename fdk-a fdk-a.fanli-old");
    assert_eq!(drive.one(&plain).fields(), ["leftover"]);
    assert_eq!(id(), only);
    assert_eq!(host.must("docker ps -a --format '{{.Names}}'"), "fdk-a");
    drive.one(&plain).no_change();

    // A new container that cannot start: the old one comes back.
    let before = id();
    let broken = drive.one(&sleeper("fdk-a", &[("command", list(&["/no/such/program"]))]));
    println!("{}", broken.failed());
    assert_eq!(id(), before);
    drive.one(&plain).no_change();

    // Somebody else's container is not removed, whatever it is called, and the one that runs keeps its place.
    for taken in ["fdk-a.fanli-new", "fdk-a.fanli-old"] {
        host.must(&format!("docker run --detach --name {taken} --net none fanli/example:1 sleep 1000"));
        let refused = drive.one(&sleeper("fdk-a", &[("command", list(&["sleep", "77"]))])).failed().to_string();
        assert!(refused.contains("fanli did not make it"), "{refused}");
        assert_eq!(host.must("docker ps --format '{{.Names}}' | sort"), format!("fdk-a\n{taken}"));
        assert_eq!(id(), before);
        host.must(&format!("docker rm --force {taken}"));
    }
    drive.one(&plain).no_change();

    // Mounts that are not there, are no directories, or are the host under another name.
    for source in ["/data/web/missing", "/data/web/file", "/data/web/rootlink", "/data/web/rootlink/etc"] {
        let refused = drive.one(&sleeper("fdk-a", &[("mounts", Value::List(vec![arrow(source, "/x", &[])]))]));
        println!("{}", refused.failed());
        assert_eq!(id(), before);
    }
    assert!(!host.sh("test -e /data/web/missing").status.success());

    // A program that ends at once, by itself or after a moment, is never one that runs; and one that Docker starts again and again.
    for (script, restart) in
        [("exit 3", "no"), ("sleep 0.4; exit 3", "no"), ("exit 3", "always"), ("sleep 0.4", "always")]
    {
        let command = list(&["sh", "-c", &format!("echo already running; {script}")]);
        let failed = drive.one(&sleeper("fdk-a", &[("command", command), ("restart", text(restart))]));
        let said = failed.failed().to_string();
        assert!(said.contains("already running") && said.contains("has been put back"), "{said}");
        assert_eq!(id(), before, "{script}, {restart}");
    }
    // The same of one that is started again as it is: what it left in its own files stops it.
    let once = "[ ! -e /tmp/pid ] || { echo already running; exit 1; }; echo 1 > /tmp/pid; exec sleep 600";
    let once = sleeper("fdk-o", &[("command", list(&["sh", "-c", once])), ("restart", text("no"))]);
    drive.one(&once).fields();
    host.must("docker kill fdk-o");
    let failed = drive.one(&once);
    assert!(failed.failed().to_string().contains("did not stay up"), "{}", failed.failed());
    assert!(failed.failed().to_string().contains("already running"), "{}", failed.failed());
    host.must("docker rm -f fdk-o");
    host.must("docker rm -f fdk-a; docker run -d --name fdk-a --restart always --label fanli.spec={} fanli/example:1 sh -c 'sleep 2'");
    host.must(
        "for n in $(seq 100); do [ $(docker inspect -f '{{.RestartCount}}' fdk-a) = 0 ] || break; sleep 0.1; done",
    );
    assert!(look.one(&plain).fields().contains(&"state".to_owned()));
    assert!(drive.one(&plain).change.is_some());

    // Another's container is not touched, unless asked for.
    host.must("docker run -d --name fdk-b --net none fanli/example:1 sleep 600");
    println!("{}", drive.one(&sleeper("fdk-b", &[])).failed());
    let adopt = sleeper("fdk-b", &[("adopt", Value::Bool(true))]);
    assert!(drive.one(&adopt).change.is_some());
    drive.one(&adopt).no_change();

    // What any container mounts writable, stopped ones too, leads nowhere, though root has made its link.
    host.must("mkdir -p /run/fdk/logs /data/victim; docker run -d --name fdk-e --net none -v /run/fdk:/x fanli/example:1 sleep 600");
    host.must("docker exec fdk-e busybox ln -s /data/victim /x/logs/eagle; docker stop -t 0 fdk-e");
    let through = task("file", [("path", text("/run/fdk/logs/eagle/motd")), ("content", text("x"))]);
    let failure = drive.one(&through).failed().to_string();
    assert!(
        failure.contains("`eagle` points to /data/victim, in /run/fdk, which a container mounts writable"),
        "{failure}"
    );
    assert_eq!(host.must("ls /data/victim; docker rm fdk-e"), "fdk-e");

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
fn a_container_sees_the_directories_that_are_declared() {
    let hosts = Hosts::start("s", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    host.must(
        "mount --make-shared /data; mkdir -p /data/site/releases/1 /data/site/releases/2 /data/share /data/swapped/conf /data/victim; \
         for n in 1 2; do echo release $n > /data/site/releases/$n/page; done; ln -s releases/1 /data/site/current; \
         touch /data/victim/secret",
    );
    let mounts = [arrow("/data/site/current", "/www", &["read_only"]), arrow("/data/share", "/share", &["slave"])];
    let site = sleeper("fdk-v", &[("mounts", Value::List(mounts.to_vec()))]);
    let sees = |inside: &str| host.must(&format!("docker exec fdk-v cat {inside}"));
    drive.one(&site).fields();
    drive.one(&site).no_change();
    // A link that was turned, also under one that is stopped; a directory that was made anew; one that is not there at all.
    for (script, release) in [
        ("ln -sfn releases/2 /data/site/current", "release 2"),
        ("docker stop -t 0 fdk-v; ln -sfn releases/1 /data/site/current", "release 1"),
        (
            "mv /data/site/releases/1 /data/site/old; cp -r /data/site/old /data/site/releases/1; echo release 3 > /data/site/releases/1/page",
            "release 3",
        ),
        ("rm -r /data/site/releases/1; cp -r /data/site/old /data/site/releases/1", "release 1"),
    ] {
        host.must(script);
        let change = drive.one(&site).fields();
        assert!(change.contains(&"mounts".to_owned()), "{script}: {change:?}");
        assert_eq!(sees("/www/page"), release, "{script}");
        drive.one(&site).no_change();
    }
    // With `slave` a share that is mounted later is seen; it is another one once it was mounted anew.
    host.must("mount -t tmpfs one /data/share; echo shared > /data/share/file");
    drive.one(&site).no_change();
    assert_eq!(sees("/share/file"), "shared");
    let private = sleeper("fdk-v", &[("mounts", Value::List(vec![arrow("/data/share", "/share", &[])]))]);
    host.must("umount /data/share");
    assert_eq!(drive.one(&private).fields(), ["mounts"]);
    drive.one(&private).no_change();
    host.must("mount -t tmpfs one /data/share; echo shared > /data/share/file");
    let changed = drive.one(&private);
    assert_eq!(changed.fields(), ["mounts"]);
    println!("{:?}", changed.change);
    assert_eq!(sees("/share/file"), "shared");
    host.must("mv /data/site/current /data/site/gone");
    println!("{}", drive.one(&site).failed());
    host.must("docker rm -f fdk-v; umount /data/share");

    // Its owner swaps a directory with a link while it is being mounted: the container never runs with what the link leads to.
    let folder = format!("/proc/{}/root/data/swapped", host.pid);
    let (conf, evil) = (format!("{folder}/conf"), format!("{folder}/evil"));
    std::os::unix::fs::symlink("/data/victim", &evil).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = renameat_with(CWD, &conf, CWD, &evil, RenameFlags::EXCHANGE);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        for turn in 0..6 {
            let mounts = Value::List(vec![arrow("/data/swapped/conf", "/x", &[])]);
            let version = map(&[("TURN", &format!("{turn}"))]);
            let report = drive.try_run(&[sleeper("fdk-r", &[("mounts", mounts), ("env", version)])]).unwrap().remove(0);
            println!("{:?}", report.failure.map(|failure| failure.to_string()));
            let seen = host.sh("docker exec fdk-r ls /x");
            let seen = String::from_utf8_lossy(&seen.stdout);
            assert!(!seen.contains("secret"), "the container was given the victim: {seen}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
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
