//! Real services in a copy of this machine: systemd as process 1, an init script of Debian's, and daemons that nobody supervises.

use std::time::Duration;

use fanli::resource::kinds::schema;
use fanli::value::{Map, Value};

use crate::common::{Bench, fanli, refused};
use crate::copy::Copy;
use crate::drive::{Report, Task, task};
use crate::file_examples::planned_args;

fn service<const N: usize>(name: &str, args: [(&'static str, Value); N]) -> Task {
    task("service", [("name", Value::from(name))].into_iter().chain(args))
}

fn with(task: &Task, more: impl IntoIterator<Item = (&'static str, Value)>) -> Task {
    let mut task = task.clone();
    task.args.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    task
}

fn words(words: &[&str]) -> Value {
    Value::List(words.iter().map(|word| Value::from(*word)).collect())
}

fn fallback(command: &[&str], more: &[(&str, &str)]) -> Value {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    Value::Map([("command".to_owned(), words(command))].into_iter().chain(more).collect::<Map>())
}

/// `state: stopped -> running`; what is left afterwards is a failure.
fn said(report: &Report) -> Vec<String> {
    assert!(report.failure.is_none(), "{}", report.failure.as_ref().unwrap());
    assert!(report.left.is_none(), "{:?}", report.left);
    ran(report)
}

/// As [`said`] for actions, which leave their difference.
fn ran(report: &Report) -> Vec<String> {
    assert!(report.failure.is_none(), "{}", report.failure.as_ref().unwrap());
    let fields = report.change.iter().flat_map(|change| &change.fields);
    fields.map(|field| format!("{}: {} -> {}", field.field, field.from, field.to)).collect()
}

fn manager(report: &Report) -> String {
    report.output["manager"].to_string()
}

/// Something listens there.
const ANSWERS: &str =
    "for _ in $(seq 50); do bash -c ': < /dev/tcp/127.0.0.1/8730' 2> /dev/null && exit 0; sleep 0.1; done; exit 1";

/// Kills the process of a pid file, and waits until it is gone: it lives on for a moment after the signal.
fn kill(copy: &Copy, pid_file: &str) {
    copy.sh(&format!(
        "pid=$(cat {pid_file}); kill -9 $pid; while grep -q 'State:.[^ZX]' /proc/$pid/status 2> /dev/null; do sleep 0.01; done"
    ));
}

/// rsync's daemon, as Debian's own script starts it.
fn rsync_script(copy: &Copy) {
    copy.sh(
        "printf 'port = 8730\\naddress = 127.0.0.1\\n' > /etc/rsyncd.conf; echo RSYNC_ENABLE=true > /etc/default/rsync",
    );
    copy.sh("rm -f /etc/rc*.d/*rsync");
}

#[test]
fn by_an_init_script() {
    let copy = Copy::new();
    rsync_script(&copy);
    let drive = copy.drive();
    let up = service("rsync", [("state", "running".into()), ("enabled", true.into())]);
    let report = drive.one(&up);
    assert_eq!(said(&report), ["enabled: false -> true", "state: stopped -> running"]);
    assert_eq!((manager(&report).as_str(), report.output["at_boot"].to_string().as_str()), ("sysvinit", "enabled"));
    copy.sh(ANSWERS);
    copy.sh("ls /etc/rc3.d/S*rsync");
    drive.one(&up).no_change();
    // What it started is not killed with the helper, nor at its end.
    let pid = copy.sh("cat /run/rsync.pid");
    kill(&copy, "/run/rsync.pid");
    assert_eq!(said(&drive.one(&up)), ["state: stopped -> running"]);
    copy.sh(ANSWERS);
    copy.sh("mv /etc/rc3.d/S*rsync /etc/rc3.d/K01rsync; rm -f /etc/rc[245].d/*rsync");
    assert_eq!(said(&drive.one(&up)), ["enabled: false -> true"]);

    let before = copy.sh("cat /run/rsync.pid");
    assert_ne!(pid, before);
    assert_eq!(ran(&drive.one(&service("rsync", [("state", "restarted".into())]))), ["state: running -> restarted"]);
    copy.sh(ANSWERS);
    assert_ne!(copy.sh("cat /run/rsync.pid"), before);
    assert_eq!(ran(&drive.one(&service("rsync", [("state", "reloaded".into())]))), ["state: running -> reloaded"]);

    let down = service("rsync", [("state", "stopped".into()), ("enabled", false.into())]);
    assert_eq!(said(&drive.one(&down)), ["enabled: true -> false", "state: running -> stopped"]);
    assert_eq!(copy.sh("pidof rsync || :"), "");
    drive.one(&down).no_change();
    drive.one(&service("rsync", [("state", "reloaded".into())])).no_change();
    assert_eq!(ran(&drive.one(&service("rsync", [("state", "restarted".into())]))), ["state: stopped -> restarted"]);
    copy.sh(ANSWERS);

    let failure = drive.one(&service("no-such", [("state", "running".into())]));
    assert!(failure.failed().to_string().starts_with("there is no service `no-such` on this host: "));
    copy.sh("printf '#!/bin/sh\\necho Usage: $0 start; exit 3\\n' > /etc/init.d/mute; chmod 755 /etc/init.d/mute");
    let failure = drive.one(&service("mute", [("state", "running".into())]));
    assert!(failure.failed().to_string().contains("cannot tell whether its service runs"), "{}", failure.failed());
    copy.sh("sed -i '2s/.*/[ $1 = start ] || exit 3; echo no such limit; exit 1/' /etc/init.d/mute");
    let failure = drive.one(&service("mute", [("state", "running".into())]));
    assert_eq!(failure.failed().to_string(), "`/etc/init.d/mute start` failed with exit code 1: no such limit");
}

#[test]
fn by_a_fallback() {
    let copy = Copy::new();
    rsync_script(&copy);
    // A script that cannot start it here.
    copy.sh("printf '#!/bin/sh\\n[ $1 = start ] || exit 3\\necho it may not; exit 2\\n' > /etc/init.d/fanli-f; chmod 755 /etc/init.d/fanli-f");
    let drive = copy.drive();
    let command = ["rsync", "--daemon", "--no-detach", "--dparam=pid file=/run/fanli-f.pid"];
    let files = [("pid_file", "/run/fanli-f.pid"), ("log", "/var/log/fanli-f.log")];
    let up = service("fanli-f", [("state", "running".into()), ("fallback", fallback(&command, &files))]);
    let report = drive.one(&up);
    assert_eq!(said(&report), ["state: stopped -> running"]);
    assert_eq!(manager(&report), "fallback");
    let told = "`/etc/init.d/fanli-f start` failed with exit code 2: it may not; it is run by its fallback instead";
    assert!(report.progress.iter().any(|line| line == told), "{:?}", report.progress);
    copy.sh(ANSWERS);
    // rsync has a child for each client, which may not have ended yet.
    let sessions = copy.sh("ps -o pid=,pgid=,sid= -C rsync | awk '{ all[$3] } $1 == $2 && $1 == $3 { leads++ } END { print length(all), leads }'");
    assert_eq!(sessions, "1 1", "a session of its own");
    drive.one(&up).no_change();
    let pids = || copy.sh("pidof rsync || :");
    let first = pids();

    // Without its pid file it is found by its mark.
    copy.sh("mv /run/fanli-f.pid /run/away");
    drive.one(&up).no_change();
    copy.sh("mv /run/away /run/fanli-f.pid");
    // Killed, with the pid file left behind; rsync refuses to start beside one.
    kill(&copy, "/run/fanli-f.pid");
    assert_eq!(said(&drive.one(&up)), ["state: stopped -> running"]);
    assert_ne!(pids(), first);
    // The pid file of another process says nothing.
    kill(&copy, "/run/fanli-f.pid");
    copy.sh("echo 1 > /run/fanli-f.pid");
    assert_eq!(said(&drive.one(&up)), ["state: stopped -> running"]);
    let before = pids();
    assert_eq!(before.split(' ').count(), 1);
    assert_eq!(ran(&drive.one(&with(&up, [("state", "restarted".into())]))), ["state: running -> restarted"]);
    assert_ne!(pids(), before);
    let down = with(&up, [("state", "stopped".into())]);
    assert_eq!(said(&drive.one(&down)), ["state: running -> stopped"]);
    assert_eq!(pids(), "");
    drive.one(&down).no_change();

    // Detaching itself, without a pid file, for a service that no manager knows.
    let detached = service(
        "fanli-g",
        [
            ("state", "running".into()),
            ("enabled", true.into()),
            ("fallback", fallback(&["/usr/bin/rsync", "--daemon"], &[])),
            ("ready", words(&["bash", "-c", ": < /dev/tcp/127.0.0.1/8730"])),
        ],
    );
    let report = drive.one(&detached);
    assert_eq!(said(&report), ["state: stopped -> running"]);
    assert_eq!(report.output["at_boot"].to_string(), "unsupported");
    drive.one(&detached).no_change();
    assert_eq!(pids().split(' ').count(), 1);
    said(&drive.one(&with(&detached, [("state", "stopped".into())])));
    assert_eq!(pids(), "");

    // One that dies at once is told with what its log has since then.
    copy.sh("echo older > /var/log/fanli-f.log");
    let broken = fallback(&["rsync", "--daemon", "--no-detach", "--no-such-option"], &files);
    let failure = drive.one(&service("fanli-h", [("state", "running".into()), ("fallback", broken)]));
    let text = failure.failed().to_string();
    assert!(
        text.starts_with("`rsync` ended right after its start: its log /var/log/fanli-f.log ends with\n"),
        "{text}"
    );
    assert!(text.contains("--no-such-option") && !text.contains("older"), "{text}");
}

/// A program that takes its time with its pid file, and does not end when it is asked to.
const STUBBORN: &str = r"cat > /usr/local/bin/fanli-s <<'END'
#!/bin/sh
trap 'echo asked' TERM
trap 'echo reload' HUP
sleep 2
echo $$ > /run/fanli-s.pid
while :; do sleep 0.1; done
END
chmod 755 /usr/local/bin/fanli-s";

#[test]
fn never_twice_and_always_ended() {
    let copy = Copy::new();
    copy.sh(STUBBORN);
    let files = [("pid_file", "/run/fanli-s.pid"), ("log", "/var/log/fanli-s.log")];
    let up = service("fanli-s", [("state", "running".into()), ("fallback", fallback(&["fanli-s"], &files))]);
    let count = || copy.sh("pgrep -c -f [/]usr/local/bin/fanli-s || :");
    for moment in ["0.3", "0.6", "1.2", "1.8"] {
        let mut drive = copy.drive();
        drive.wrap = ["timeout", "--signal=KILL", moment].map(str::to_owned).to_vec();
        let report = drive.try_run(std::slice::from_ref(&up));
        assert!(report.is_none(), "it was done after {moment} s: {report:?}");
        // The next run follows at once. Either it sees one that lives, or it starts the first.
        said(&copy.drive().one(&up));
        assert_eq!(count(), "1", "killed after {moment} s");
        copy.drive().one(&up).no_change();
        // On a busy machine what is killed is still there for a while.
        copy.sh("pkill -9 -f [/]usr/local/bin/fanli-s; while pgrep -f [/]usr/local/bin/fanli-s; do sleep 0.05; done; \
             rm -f /run/fanli-s.pid");
    }
    let impatient = with(&up, [("start_limit", Value::Duration(Duration::from_millis(500)))]);
    let text = copy.drive().one(&impatient).failed().to_string();
    assert!(
        text.starts_with("`fanli-s` is not up: over its limit `start_limit` of 500ms: it lives, but has not"),
        "{text}"
    );
    said(&copy.drive().one(&impatient));
    assert_eq!(count(), "1");
    copy.sh("until [ -e /run/fanli-s.pid ]; do sleep 0.1; done");
    assert_eq!(ran(&copy.drive().one(&with(&up, [("state", "reloaded".into())]))), ["state: running -> reloaded"]);
    copy.sh("until grep -q reload /var/log/fanli-s.log; do sleep 0.1; done");
    let limit = ("stop_limit", Value::Duration(Duration::from_millis(500)));
    let report = copy.drive().one(&with(&up, [("state", "stopped".into()), limit]));
    assert_eq!(said(&report), ["state: running -> stopped"]);
    assert!(report.progress.iter().any(|line| line.contains("killing it")), "{:?}", report.progress);
    assert_eq!(
        (count(), copy.sh("cat /var/log/fanli-s.log; ls /run/fanli-s.pid 2> /dev/null || :")),
        ("0".into(), "reload\nasked".into())
    );
}

/// A start script that leaves another program running and ends; where it is told to, it writes that one's number down.
const FORKS: &str = r"cat > /usr/local/bin/fanli-k <<'END'
#!/bin/sh
sleep 614233 &
[ $# = 0 ] || echo $! > $1
END
chmod 755 /usr/local/bin/fanli-k";

#[test]
fn a_start_that_leaves_another_program_running() {
    let copy = Copy::new();
    copy.sh(FORKS);
    let count = || copy.sh("pgrep -c -f '^sleep 61423[3]' || :");
    let up = service("fanli-k", [("state", "running".into()), ("fallback", fallback(&["fanli-k"], &[]))]);
    for _ in 0..2 {
        let text = copy.drive().one(&up).failed().to_string();
        assert!(text.starts_with("`fanli-k` ended right after its start: it left /"), "{text}");
        assert!(text.contains("sleep running, which is another program than the one of `command`"), "{text}");
        assert_eq!(count(), "0");
    }
    let file = [("pid_file", "/run/fanli-k.pid")];
    let command = fallback(&["fanli-k", "/run/fanli-k.pid"], &file);
    let up = service("fanli-k", [("state", "running".into()), ("fallback", command)]);
    // By a run whose caller holds a lock, as `flock` does; the daemon does not keep it.
    let playbook = r#"hosts here {
  host "localhost" { connection = local }
}

play "service" on hosts.here {
  service "fanli-k" {
    state    = running
    fallback = { command = ["fanli-k", "/run/fanli-k.pid"]  pid_file = "/run/fanli-k.pid" }
  }
}
"#;
    copy.sh(&format!(
        "cat > /run/fanli-k.fp <<'END'\n{playbook}END\n\
         flock /run/fanli-k.lock {} play /run/fanli-k.fp --state-dir /run/fanli-k.state",
        fanli()
    ));
    copy.sh("flock --nonblock /run/fanli-k.lock true");
    copy.drive().one(&up).no_change();
    assert_eq!(count(), "1");
    assert_eq!(said(&copy.drive().one(&with(&up, [("state", "stopped".into())]))), ["state: running -> stopped"]);
    assert_eq!(count(), "0");
}

#[test]
fn dockerd_where_its_script_cannot_start_it() {
    let copy = Copy::new();
    copy.sh("mkdir -p /var/lib/docker; mount -t tmpfs fanli-copy /var/lib/docker; rm -f /var/log/dockerd.log");
    let drive = copy.drive();
    // As in the playbook of the web tier.
    let files = [("pid_file", "/run/docker.pid"), ("log", "/var/log/dockerd.log")];
    let up = service(
        "docker",
        [
            ("state", "running".into()),
            ("enabled", true.into()),
            ("fallback", fallback(&["dockerd", "--host", "unix:///run/docker.sock"], &files)),
            ("ready", words(&["docker", "version"])),
        ],
    );
    let report = drive.one(&up);
    assert_eq!(said(&report), ["state: stopped -> running"]);
    // `docker version` has succeeded: it is of use at once.
    assert_eq!(copy.sh("docker ps --quiet | wc -l; pidof dockerd | wc -w"), "0\n1");
    drive.one(&up).no_change();
    kill(&copy, "/run/docker.pid");
    assert_eq!(said(&drive.one(&up)), ["state: stopped -> running"]);
    assert_eq!(said(&drive.one(&with(&up, [("state", "stopped".into())]))), ["state: running -> stopped"]);
    assert_eq!(copy.sh("pidof dockerd || :"), "");
}

#[test]
fn by_systemd() {
    let copy = Copy::booted();
    rsync_script(&copy);
    // What the unit hides from its program cannot be hidden inside this copy; that is not looked at here.
    copy.sh("rm -f /etc/init.d/rsync; mkdir /etc/systemd/system/rsync.service.d");
    let open = "[Service]\\nProtectSystem=no\\nProtectHome=no\\nPrivateDevices=no\\nNoNewPrivileges=no\\n";
    copy.sh(&format!("printf '{open}' > /etc/systemd/system/rsync.service.d/copy.conf; systemctl daemon-reload"));
    let drive = copy.drive();
    let fallback = fallback(&["rsync", "--daemon"], &[]);
    let up = service("rsync", [("state", "running".into()), ("enabled", true.into()), ("fallback", fallback)]);
    let report = drive.one(&up);
    assert_eq!(said(&report), ["enabled: false -> true", "state: stopped -> running"]);
    assert_eq!((manager(&report).as_str(), report.output["at_boot"].to_string().as_str()), ("systemd", "enabled"));
    copy.sh(ANSWERS);
    assert_eq!(copy.sh("systemctl is-active rsync; systemctl is-enabled rsync"), "active\nenabled");
    drive.one(&up).no_change();
    let pid = copy.sh("systemctl show --value --property MainPID rsync");
    assert_eq!(ran(&drive.one(&service("rsync", [("state", "restarted".into())]))), ["state: running -> restarted"]);
    assert_ne!(copy.sh("systemctl show --value --property MainPID rsync"), pid);
    let failure = drive.one(&service("rsync", [("state", "reloaded".into())]));
    assert_eq!(failure.failed().hint.as_deref(), Some("`state = restarted` always works"));
    copy.sh("systemctl stop rsync; systemctl disable -q rsync");
    assert_eq!(said(&drive.one(&up)), ["enabled: false -> true", "state: stopped -> running"]);
    let down = service("rsync", [("state", "stopped".into()), ("enabled", false.into())]);
    assert_eq!(said(&drive.one(&down)), ["enabled: true -> false", "state: running -> stopped"]);
    drive.one(&down).no_change();

    copy.sh("systemctl mask -q rsync");
    drive.one(&down).no_change();
    let failure = drive.one(&service("rsync", [("state", "running".into())]));
    assert!(failure.failed().to_string().contains("is masked"), "{}", failure.failed());
    copy.sh("systemctl unmask -q rsync; sed -i 's/^port/no such = x\\nport/; 1i [' /etc/rsyncd.conf");
    copy.sh("printf '[Unit]\\nDefaultDependencies=no\\n[Service]\\nType=notify\\nExecStart=/bin/sh -c \"echo nothing works; exit 3\"\\n' > /etc/systemd/system/fanli-b.service; systemctl daemon-reload");
    let failure = drive.one(&service("fanli-b", [("state", "running".into())]));
    let text = failure.failed().to_string();
    assert!(
        text.starts_with("`systemctl start -- fanli-b` failed with exit code 1: Job for fanli-b.service failed"),
        "{text}"
    );
    assert!(text.contains("nothing works"), "{text}");
    // A start that succeeds, of a program that does not.
    copy.sh("sed -i s/notify/simple/ /etc/systemd/system/fanli-b.service; systemctl daemon-reload");
    let failure = drive.one(&service("fanli-b", [("state", "running".into())]));
    let text = failure.failed().to_string();
    assert!(text.starts_with("`fanli-b` was started, and is failed right after it: "), "{text}");
    assert!(text.contains("nothing works"), "{text}");
}

#[test]
fn the_example_runs() {
    let bench = Bench::new();
    let (kind, args) = planned_args(&bench, schema("service").unwrap().example);
    let copy = Copy::new();
    let drive = copy.drive();
    let example = Task { kind, args };
    assert_eq!(said(&drive.one(&example)), ["state: stopped -> running"]);
    copy.sh("bash -c ': < /dev/tcp/127.0.0.1/8399'");
    drive.one(&example).no_change();
    assert_eq!(copy.sh("pidof busybox | wc -w"), "1");
}

#[test]
fn wrong_arguments_name_the_parameter() {
    let error = |args: Vec<(&str, Value)>| {
        let named = std::iter::once(("name", Value::from("x"))).chain(args);
        refused("service", named.map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let running = || ("state", Value::from("running"));
    let with = |map: Value| error(vec![running(), ("fallback", map)]);
    assert_eq!(error(vec![]), "state: is required, or `enabled`: there is nothing to keep");
    assert_eq!(error(vec![("name", "../x".into()), running()]), "name: `../x` is not the name of a service");
    assert_eq!(error(vec![("name", "-x".into()), running()]), "name: `-x` is not the name of a service");
    assert!(
        error(vec![("state", "restarted".into()), ("enabled", true.into())]).starts_with("enabled: is kept by a task")
    );
    assert!(error(vec![("state", "runing".into())]).ends_with("did you mean `running`?"));
    assert_eq!(with(Value::Map(Map::new())), "fallback: `command` is required: the program and its arguments");
    assert_eq!(with(fallback(&[], &[])), "fallback: `command` is empty, or holds a NUL");
    assert_eq!(with(fallback(&["a"], &[("pidfile", "/x")])), "fallback: `pidfile` is none of command, pid_file, log");
    assert_eq!(with(fallback(&["a"], &[("log", "x")])), "fallback: `log`: `x` is not an absolute path");
}
