//! `reload` and `program`: supervisor and Apache in a container of a real daemon.

use std::time::Duration;

use fanli::value::Value;

use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Task, task};
use crate::supervised::{ASK, apache, httpd_conf, lay_out, program, wait_for};

fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| Value::from(*item)).collect())
}

/// A container with this machine's own programs in it, read-only, and supervisor as its first process.
fn container(host: &Host, dir: &std::path::Path, name: &str) {
    host.must(&format!(
        "d=$(mktemp -d); mkdir -p $d/etc $d/tmp $d/run $d/usr $d/var/log $d/root; \
         for link in bin sbin lib lib64; do ln -s usr/$link $d/$link; done; \
         printf 'root:x:0:0:root:/root:/bin/sh\\nwww-data:x:33:33::/:/bin/false\\n' > $d/etc/passwd; \
         printf 'root:x:0:\\nwww-data:x:33:\\n' > $d/etc/group; \
         tar -C $d -c . | docker import - frl/node:1 > /dev/null; rm -r $d; \
         docker run -d --name {name} --network none -v /usr:/usr:ro -v {}:/mnt/frl frl/node:1 \
           /usr/bin/supervisord -n -c /mnt/frl/supervisord.conf > /dev/null",
        dir.display()
    ));
}

fn told(host: &Host, name: &str, program: &str) -> String {
    let said = host.sh(&format!("docker exec {name} supervisorctl -c /mnt/frl/supervisord.conf status {program}"));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // Without the time that it is up.
    said.split(", uptime").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn serves(host: &Host, name: &str, mark: &str) {
    wait_for(&format!("{name} serves {mark}"), || {
        let said = host.sh(&format!("docker exec {name} sh -c \"{ASK}\""));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines().any(|line| line.trim() == format!("X-Mark: {mark}")).then_some(())
    });
}

fn reload(more: &[(&'static str, Value)]) -> Task {
    let base = [("container", Value::from("frl-a"))];
    task("reload", base.into_iter().chain(more.iter().cloned()))
}

#[test]
fn a_program_in_a_container_is_kept_and_reloaded() {
    let hosts = Hosts::start("rl", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let dir = tempfile::Builder::new().prefix("frl").tempdir_in("/tmp").unwrap();
    let dir = dir.path();
    lay_out(dir);
    let conf = |mark: &str| std::fs::write(dir.join("conf/httpd.conf"), httpd_conf(mark)).unwrap();
    let programs = |name: &str, text: &str| std::fs::write(dir.join("programs").join(name), text).unwrap();
    conf("one");
    programs("apache2.conf", &apache("/mnt/frl/conf/httpd.conf", "startretries = 2\n"));
    programs("other.conf", &program("other", "/bin/sleep 100000", ""));
    container(host, dir, "frl-a");
    serves(host, "frl-a", "one");
    let text = |name: &'static str, value: &str| (name, Value::from(value));
    let check = ("validate", list(&["/usr/sbin/apache2", "-f", "/mnt/frl/conf/httpd.conf", "-t"]));
    let by_supervisor = reload(&[text("supervisor", "apache2"), check.clone()]);

    // A graceful reload: the same process, another configuration.
    wait_for("it is up", || told(host, "frl-a", "apache2").contains("RUNNING").then_some(()));
    let before = (told(host, "frl-a", "apache2"), told(host, "frl-a", "other"));
    conf("two");
    let mut look = host.drive();
    look.apply = false;
    assert!(look.one(&by_supervisor).change.is_some());
    let done = drive.one(&by_supervisor);
    assert!(done.failure.is_none(), "{:?}", done.failure);
    assert_eq!(done.output["did"], Value::from("signalled"));
    assert_eq!(done.output["state"], Value::from("running"));
    assert!(before.0.ends_with(&format!("pid {}", done.output["pid"])), "{before:?} {:?}", done.output);
    serves(host, "frl-a", "two");
    assert_eq!((told(host, "frl-a", "apache2"), told(host, "frl-a", "other")), before);

    // One that cannot be used: nothing is done, and it says why.
    conf("two\nNonsense here");
    let refused = drive.one(&by_supervisor);
    let said = refused.failed().to_string();
    assert!(said.contains("cannot be used; nothing was reloaded") && said.contains("Nonsense"), "{said}");
    serves(host, "frl-a", "two");
    assert_eq!(told(host, "frl-a", "apache2"), before.0);

    // Restarted with that, supervisor gives it up; reload starts it once the configuration is good.
    host.sh("docker exec frl-a supervisorctl -c /mnt/frl/supervisord.conf restart apache2");
    wait_for("it is given up", || told(host, "frl-a", "apache2").contains("FATAL").then_some(()));
    let down = drive.one(&reload(&[text("supervisor", "apache2")]));
    let said = down.failed().to_string();
    assert!(said.contains("does not stay up: it is fatal"), "{said}");
    conf("three");
    let done = drive.one(&by_supervisor);
    assert!(done.failure.is_none(), "{:?}", done.failure);
    assert_eq!(done.output["did"], Value::from("started"));
    serves(host, "frl-a", "three");
    assert_eq!(told(host, "frl-a", "other"), before.1);

    // `program`: as supervisor's files have it, and only what differs is touched.
    let kept = |name: &str, state: &str| {
        task("program", [text("name", name), text("container", "frl-a"), text("state", state)])
    };
    drive.one(&kept("apache2", "running")).no_change();
    let apache_before = told(host, "frl-a", "apache2");
    programs("other.conf", &program("other", "/bin/sleep 200000", ""));
    programs("third.conf", &program("third", "/bin/sleep 300000", ""));
    drive.one(&kept("apache2", "running")).no_change();
    assert_eq!(drive.one(&kept("other", "running")).fields(), ["config"]);
    drive.one(&kept("other", "running")).no_change();
    assert_ne!(told(host, "frl-a", "other"), before.1);
    assert!(told(host, "frl-a", "third").contains("ERROR"), "{}", told(host, "frl-a", "third"));
    let done = drive.one(&by_supervisor);
    assert_eq!(done.output["others"], list(&["third"]));
    assert_eq!(drive.one(&kept("third", "running")).fields(), ["config", "state"]);
    drive.one(&kept("third", "running")).no_change();
    assert_eq!(drive.one(&kept("third", "stopped")).fields(), ["state"]);
    drive.one(&kept("third", "stopped")).no_change();
    assert_eq!(told(host, "frl-a", "apache2"), apache_before);
    let unknown = drive.one(&kept("fourth", "running"));
    assert!(unknown.failed().to_string().contains("knows no program `fourth`"), "{}", unknown.failed());

    // Its own entry in supervisor's files changed: taken in anew.
    programs("apache2.conf", &apache("/mnt/frl/conf/httpd.conf", "startretries = 3\nautorestart = true\n"));
    let done = drive.one(&by_supervisor);
    assert_eq!(done.output["did"], Value::from("updated"));
    serves(host, "frl-a", "three");
    assert_ne!(told(host, "frl-a", "apache2"), apache_before);

    // A signal that kills: supervisor starts it again, and that is told.
    let died = drive.one(&reload(&[text("supervisor", "apache2"), text("signal", "TERM")]));
    assert_eq!(died.output.get("did"), Some(&Value::from("died")), "{:?}", died.failure);

    // A command in the container, good and bad.
    let done = drive
        .one(&reload(&[("command", list(&["/usr/sbin/apache2", "-f", "/mnt/frl/conf/httpd.conf", "-k", "graceful"]))]));
    assert_eq!(done.output["did"], Value::from("command"), "{:?}", done.failure);
    let failed = drive.one(&reload(&[("command", list(&["sh", "-c", "echo why >&2; exit 3"]))]));
    assert_eq!(failed.failed().to_string(), "`sh -c echo why >&2; exit 3` failed with exit code 3: why");
    let slow =
        reload(&[("command", list(&["sleep", "5"])), ("command_limit", Value::Duration(Duration::from_millis(500)))]);
    assert!(drive.one(&slow).failed().to_string().contains("over its limit `command_limit` of 500ms"));

    // A signal to the first process: supervisor itself ends with TERM, and the container with it.
    let gone = drive.one(&reload(&[text("signal", "TERM"), ("steady", Value::Duration(Duration::from_secs(60)))]));
    assert!(gone.failed().to_string().contains("it did not survive"), "{}", gone.failed());
    let away = drive.one(&by_supervisor);
    assert!(away.failed().to_string().contains("does not run: it is exited"), "{}", away.failed());
    host.must("docker rm -f frl-a");
    let away = drive.one(&by_supervisor);
    assert_eq!(away.failed().to_string(), "there is no container frl-a on this host");
}

#[test]
fn a_server_that_was_killed_leaves_nothing_in_its_own_way() {
    let hosts = Hosts::start("rk", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let dir = tempfile::Builder::new().prefix("frl").tempdir_in("/tmp").unwrap();
    let dir = dir.path();
    lay_out(dir);
    std::fs::write(dir.join("conf/httpd.conf"), httpd_conf("one")).unwrap();
    let programs = |name: &str, text: &str| std::fs::write(dir.join("programs").join(name), text).unwrap();
    programs("apache2.conf", &apache("/mnt/frl/conf/httpd.conf", "startretries = 2\n"));
    programs("other.conf", &program("other", "/bin/sleep 100000", ""));
    container(host, dir, "frl-a");
    let up = || {
        serves(host, "frl-a", "one");
        wait_for("it is up", || told(host, "frl-a", "apache2").contains("RUNNING").then_some(()));
    };
    up();
    // In a group that has lost its leader, too, but a person's.
    host.must("docker exec -d frl-a sh -c 'sleep 200001 & exec sleep 1'");
    let others = || (told(host, "frl-a", "other"), host.must("docker exec frl-a pgrep -f '^sleep 200001'"));
    let before = others();
    let killed = || {
        host.must("docker exec frl-a sh -c 'kill -9 $(cat /run/apache.pid)'");
        // Its workers go on, and hold the port.
        serves(host, "frl-a", "one");
    };
    let given_up = || wait_for("it is given up", || told(host, "frl-a", "apache2").contains("FATAL").then_some(()));
    let left = || host.must("docker exec frl-a sh -c 'pgrep -P 1 -u www-data -c apache2 || :'");
    let text = |name: &'static str, value: &str| (name, Value::from(value));
    let kept =
        |state: &str| task("program", [text("name", "apache2"), text("container", "frl-a"), text("state", state)]);
    let reloaded = || {
        let done = drive.one(&reload(&[text("supervisor", "apache2")]));
        assert!(done.failure.is_none(), "{:?}", done.failure);
        done.output["did"].clone()
    };

    killed();
    given_up();
    assert_ne!(left(), "0");
    assert_eq!(drive.one(&kept("running")).fields(), ["state"]);
    up();
    assert_eq!(left(), "0");
    drive.one(&kept("running")).no_change();

    killed();
    given_up();
    assert_eq!(reloaded(), Value::from("started"));
    up();
    assert_eq!(left(), "0");

    // While supervisor still tries, or is about to.
    killed();
    wait_for("it is seen", || (!told(host, "frl-a", "apache2").contains("RUNNING")).then_some(()));
    reloaded();
    up();
    assert_eq!(left(), "0");

    killed();
    given_up();
    assert_eq!(drive.one(&kept("stopped")).fields(), ["state"]);
    drive.one(&kept("stopped")).no_change();
    assert_eq!(host.must("docker exec frl-a sh -c 'pgrep -c apache2 || :'"), "0");
    assert_eq!(others(), before, "somebody else's process was touched");
}

#[test]
fn a_socket_that_a_container_planted_is_not_trusted() {
    let hosts = Hosts::start("rp", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    // A link out of the container to the daemon's own socket, and a file.
    host.must(
        "docker run -d --name frl-a --network none fanli/example:1 sh -c \
         'mkdir -p /run; ln -s /run/docker.sock /run/supervisor.sock; echo x > /run/file.sock; sleep 600'",
    );
    wait_for("it is laid out", || host.sh("docker exec frl-a cat /run/file.sock").status.success().then_some(()));
    let ask = |socket: &str| {
        drive.one(&reload(&[("supervisor", "x".into()), ("socket", socket.into())])).failed().to_string()
    };
    assert_eq!(
        ask("/run/supervisor.sock"),
        "supervisor does not run in container frl-a: there is no socket /run/supervisor.sock"
    );
    assert_eq!(ask("/none.sock"), "supervisor does not run in container frl-a: there is no socket /none.sock");
    let said = ask("/run/file.sock");
    assert!(said.ends_with("it is not trusted"), "{said}");
}

#[test]
fn a_container_with_tools_has_fanli_and_its_host_sees_what_refresh_knows() {
    let hosts = Hosts::start("rt", 1);
    let host = &hosts.hosts[0];
    let fanli = crate::common::fanli();
    // This test's own program is not fanli: the host has it already. The mount is the host's alone.
    host.must(&format!(
        "mount -t tmpfs frl /usr/local/lib; mkdir /usr/local/lib/fanli; cp {fanli} /usr/local/lib/fanli/fanli; \
         mkdir -p /data/conf; echo one > /data/conf/a"
    ));
    let refresh = "ln -s busybox /bin/grep; exec /.fanli/fanli refresh /conf --reload true \
                   --validate 'grep -q good /conf/a' --every 1h";
    let mount = fanli::value::Arrow { from: "/data/conf".into(), to: "/conf".into(), flags: vec![] };
    let node = |command: &str, tools: bool| {
        task(
            "container",
            [
                ("name", Value::from("frl-t")),
                ("image", "fanli/example:1".into()),
                ("command", list(&["sh", "-c", command])),
                ("mounts", Value::List(vec![Value::Arrow(Box::new(mount.clone()))])),
                ("stop_timeout", Value::Duration(Duration::from_secs(1))),
                ("tools", tools.into()),
            ],
        )
    };
    let drive = host.drive();
    assert!(drive.one(&node(refresh, true)).fields().contains(&"tools".to_owned()));
    drive.one(&node(refresh, true)).no_change();
    let look = || {
        let said = host.sh(&format!("{fanli} refresh --status --container frl-t && echo code 0 || echo code $?"));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    wait_for("it is refused", || look().contains("cannot be used, and the program keeps what it has").then_some(()));
    assert!(look().ends_with("code 4\n"), "{}", look());
    let status = || {
        let said = host.sh(&format!("{fanli} status && echo code 0 || echo code $?"));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let said = status();
    assert!(said.contains("refreshers  1: 1 cannot load what stands on the disk"), "{said}");
    assert!(said.contains("frl-t  /conf  NOT loaded, since "), "{said}");
    assert!(said.contains("cannot be used, and the program keeps what it has") && said.ends_with("code 4\n"), "{said}");
    host.must("echo good > /data/conf/a");
    wait_for("it is loaded", || look().ends_with("reloads     1\ncode 0\n").then_some(()));
    let said = status();
    assert!(said.contains("frl-t  /conf  loaded") && said.ends_with("code 0\n"), "{said}");
    // It ends in order, and is made anew without the tools.
    host.must("docker stop -t 60 frl-t");
    assert_eq!(drive.one(&node("exec sleep 600", false)).fields(), ["command", "state", "tools"]);
    let mounts = host.must("docker inspect -f '{{range .Mounts}}{{.Destination}} {{end}}' frl-t");
    assert_eq!(mounts, "/conf");
}
