//! A container's successor by plays: it keeps its place only when it stays up, is plugged in and answers; else the one before is back.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::fanli;
use crate::docker_hosts::{Host, Hosts};
use crate::tier::run::eventually;
use crate::watched::{Watched, wait_for};

/// The site: a container with an address on the wire, which must answer.
const SITE: &str = r#"
vars {
  program = ["httpd", "-f", "-h", "/www"]
  address = 10.99.0.21
  image   = "fanli/example:1"
  restart = "no"
  within  = 3s
  wanted  = "running"
}

hosts here {
  host "localhost" { connection = local }
}

network "wire" {
  mode   = macvlan
  parent = "eth0"
  subnet = 10.99.0.0/24
}

play "site" on hosts.here {
  container "fdk-s" {
    image        = image
    command      = program
    restart      = restart
    state        = wanted
    stop_timeout = 1s
    attach "wire" { address = address  probe = off }
    healthy = http("http://{{ address }}/", within: within)
  }
}
"#;

/// An image whose context has what is none of its business, and a container on it.
const IMAGE: &str = r#"
hosts here {
  host "localhost" { connection = local }
}

vars { release = "one" }

play "image" on hosts.here {
  image "fdk/app:1" { context = "app" }
  directory "/srv/fdk/{{ release }}"
  link "/srv/fdk/current" { to = "/srv/fdk/{{ release }}" }
  container "fdk-i" {
    image        = "fdk/app:1"
    mounts       = ["/srv/fdk/current" -> "/data"]
    command      = ["sleep", "600"]
    stop_timeout = 0s
  }
}
"#;

struct Place<'a> {
    host: &'a Host,
    folder: PathBuf,
}

impl Place<'_> {
    fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Plays a playbook: the exit code, and all that was said.
    fn play(&self, playbook: &str, more: &str) -> (i32, String) {
        let script = format!("cd {}; {} play {playbook} {more} 2>&1", self.folder.display(), fanli());
        let done = self.host.sh(&script);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        eprintln!("{more}\n{text}");
        (done.status.code().unwrap(), text)
    }

    #[track_caller]
    fn plays(&self, playbook: &str, more: &str) -> String {
        let (code, text) = self.play(playbook, more);
        assert_eq!(code, 0, "{text}");
        text
    }

    /// A play that fails, and says so.
    #[track_caller]
    fn fails(&self, more: &str, says: &[&str]) {
        let (code, text) = self.play("site.fp", more);
        assert_eq!(code, 4, "{text}");
        for say in says {
            assert!(text.contains(say), "it does not say `{say}`: {text}");
        }
    }

    fn id(&self) -> String {
        self.host.must("docker inspect -f '{{.Id}}' fdk-s")
    }

    /// What the host remembers of containers that were moved aside.
    fn aside(&self) -> String {
        self.host.must("ls /var/lib/fanli/aside 2>/dev/null || :")
    }

    /// The site's container is the only one, runs, and answers on the wire; nothing is aside.
    #[track_caller]
    fn stands(&self, hosts: &Hosts, when: &str) {
        assert_eq!(self.host.must("docker ps -a --format '{{.Names}} {{.State}}'"), "fdk-s running", "{when}");
        let answer = hosts.on_switch("timeout 5 busybox wget -qO- http://10.99.0.21/");
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "one", "{when}");
        assert_eq!(self.aside(), "", "{when}");
    }
}

#[test]
fn a_successor_that_fails_gives_its_place_back() {
    let hosts = Hosts::start("y", 1);
    let host = &hosts.hosts[0];
    let place = Place { host, folder: hosts.shared().join("plays") };
    place.write("site.fp", SITE);
    place.plays("site.fp", "");
    let first = place.id();
    let as_before = |when: &str| {
        assert_eq!(place.id(), first, "{when}");
        place.stands(&hosts, when);
    };
    as_before("at first");
    let back = "the container as it was before has been put back, and runs";
    let ends = r#"--set 'program=["sh", "-c", "echo cannot read config; exit 3"]'"#;
    place.fails(ends, &["exit code 3", "cannot read config", back]);
    as_before("after one that ends");
    place.fails(&format!("{ends} --set restart=always"), &["cannot read config", back]);
    as_before("after one that is started again and again");
    let silent = r#"--set 'program=["sh", "-c", "echo nobody listens; exec sleep 600"]'"#;
    place.fails(silent, &["does not answer as it should", "nobody listens", back]);
    as_before("after one that does not answer");
    place.fails(&format!("{silent} --set address=10.99.0.22"), &[back]);
    as_before("after one with another address");
    assert_eq!(host.must("ls /var/lib/fanli/attach | wc -l"), "1");
    assert_eq!(host.must("ip route show 10.99.0.22"), "");

    // What a kill between the two renames leaves; the run after it fails, too.
    host.must("docker stop -t 0 fdk-s; docker rename fdk-s fdk-s.fanli-old");
    place.fails("--set image=fanli/none:1", &["there is no image fanli/none:1", back]);
    as_before("after a kill between the renames");
    // The successor stands there already: the next run goes on, or goes back.
    host.must("docker stop -t 0 fdk-s; docker rename fdk-s fdk-s.fanli-old");
    host.must("docker run -d --name fdk-s --net none --label fanli.spec={} fanli/example:1 sleep 600");
    // Where nothing is done to it, it stays.
    let two = || host.must("docker ps -a --format '{{.Names}} {{.State}}' | sort | tr '\\n' ' '");
    let before = two();
    place.fails("--set image=fanli/none:1", &["there is no image fanli/none:1"]);
    assert_eq!(two(), before);
    place.fails(silent, &[back]);
    as_before("after a kill behind the renames");
    let said = place.plays("site.fp", "");
    assert!(said.contains("nothing to do"), "{said}");

    // A good one takes the place, and what a killed run left aside goes.
    host.must("docker create --name fdk-s.fanli-old --label fanli.spec={} fanli/example:1 sleep 1");
    place.plays("site.fp", "");
    as_before("after a run that was killed before the old one went");
    place.plays("site.fp", "--set address=10.99.0.23");
    let again = r#"--set 'program=["httpd", "-f", "-h", "/www", "-p", "80"]'"#;
    place.plays("site.fp", again);
    assert_ne!(place.id(), first);
    assert_eq!(host.must("docker ps -a --format '{{.Names}}'"), "fdk-s");

    // What is not to run is neither plugged in nor asked.
    for (wanted, left) in [("stopped", "fdk-s exited"), ("absent", "")] {
        let more = format!("{again} --set wanted={wanted}");
        place.plays("site.fp", &more);
        assert_eq!(host.must("docker ps -a --format '{{.Names}} {{.State}}'"), left);
        let said = place.plays("site.fp", &more);
        assert!(said.contains("nothing to do"), "{wanted}: {said}");
    }
    assert_eq!(host.must("ls /var/lib/fanli/attach; ip route show 10.99.0.21"), "");
}

/// Starts a play, and waits until its new container runs and is plugged in.
fn begun(place: &Place, more: &[&str]) -> Child {
    let pid = place.host.pid.to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-m", "-n", "-u", fanli(), "play"]).arg(place.folder.join("site.fp")).args(more);
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.host.must(
        "for turn in $(seq 200); do \
           [ \"$(docker inspect -f '{{.State.Running}}' fdk-s.fanli-old 2>/dev/null)\" = false ] && \
           docker exec fdk-s ip addr 2>/dev/null | grep -q 10.99.0. && exit 0; sleep 0.05; \
         done; docker ps -a; exit 1",
    );
    run
}

fn kill(run: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap().success());
}

/// The exit code of a run and what it said.
fn end(run: Child) -> (Option<i32>, String) {
    let done = run.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    eprintln!("{text}");
    (done.status.code(), text)
}

#[test]
fn a_run_that_is_stopped_brings_an_exchange_to_its_end() {
    let hosts = Hosts::start("yg", 1);
    let host = &hosts.hosts[0];
    let place = Place { host, folder: hosts.shared().join("plays") };
    place.write("site.fp", SITE);
    place.plays("site.fp", "");
    let first = place.id();
    let as_before = |when: &str| {
        eventually(when, Duration::from_secs(20), || place.aside().is_empty());
        assert_eq!(place.id(), first, "{when}");
        place.stands(&hosts, when);
    };
    let silent = [r#"--set=program=["sleep", "600"]"#, "--set=within=60s"];

    let mut run = begun(&place, &silent);
    kill(&run, "-KILL");
    run.wait().unwrap();
    as_before("after a kill of the controller");

    // A signal gives the new one the time that a step has.
    let run = begun(&place, &silent);
    kill(&run, "-HUP");
    let (code, said) = end(run);
    assert_eq!(code, Some(129));
    assert!(said.contains("the container as it was before has been put back, and runs"), "{said}");
    as_before("after a signal that found a silent one");

    let run = begun(&place, &silent);
    kill(&run, "-INT");
    std::thread::sleep(Duration::from_millis(300));
    kill(&run, "-INT");
    let (code, said) = end(run);
    assert_eq!(code, Some(130));
    assert!(said.contains("the host itself puts the old one back"), "{said}");
    as_before("after two signals");

    // A good one is judged, and stays.
    let run = begun(&place, &[r#"--set=program=["sh", "-c", "sleep 2; exec httpd -f -h /www"]"#, "--set=within=60s"]);
    kill(&run, "-TERM");
    let (code, _) = end(run);
    assert_eq!(code, Some(143));
    assert_ne!(place.id(), first);
    place.stands(&hosts, "after a signal that found a good one");
}

#[test]
fn docker_that_restarts_during_an_exchange_does_not_start_the_old_container() {
    let mut watched = Watched::start("yr");
    let folder = watched.hosts.shared().join("plays");
    let silent = [r#"--set=program=["sleep", "600"]"#, "--set=within=60s", "--set=restart=always"];
    let place = Place { host: watched.host(), folder: folder.clone() };
    place.write("site.fp", SITE);
    place.plays("site.fp", "--set restart=always");
    let first = place.id();
    let mut run = begun(&place, &silent);
    // The helper, which would put the old one back.
    assert!(Command::new("pkill").args(["-KILL", "-P", &run.id().to_string()]).status().unwrap().success());
    run.wait().unwrap();

    watched.end_daemon("-TERM");
    watched.start_daemon(&[]);
    let place = Place { host: watched.host(), folder };
    let state = |name: &str| place.host.must(&format!("docker inspect -f '{{{{.State.Status}}}}' {name}"));
    wait_for("the new one runs again", || state("fdk-s") == "running");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state("fdk-s.fanli-old"), "exited");

    // A check tells what a run would go on with.
    let (_, said) = place.play("site.fp", &format!("--check '{}' --set within=2s --set restart=always", silent[0]));
    assert!(said.contains("an earlier run was stopped before it could judge"), "{said}");
    // Put back, it is as it was.
    place.fails(&format!("'{}' --set within=2s --set restart=always", silent[0]), &["put back, and runs"]);
    assert_eq!(place.id(), first);
    place.stands(&watched.hosts, "after the exchange");
    assert_eq!(place.host.must("docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' fdk-s"), "always");
    let said = place.plays("site.fp", "--set restart=always");
    assert!(said.contains("nothing to do"), "{said}");
}

#[test]
fn what_a_check_cannot_know_is_unknown_and_what_is_ignored_is_no_part_of_an_image() {
    let hosts = Hosts::start("u", 1);
    let host = &hosts.hosts[0];
    let place = Place { host, folder: hosts.shared().join("plays") };
    place.write("image.fp", IMAGE);
    place.write("app/Dockerfile", "FROM fanli/example:1\nCOPY . /app\n");
    place.write("app/.dockerignore", "# not for others\n*.key\n!open.key\n**/tmp\n.dockerignore\nDockerfile\n");
    for (path, text) in
        [("page", "one"), ("secret.key", "secret"), ("open.key", "open"), ("a/tmp/x", "x"), ("a/b", "b")]
    {
        place.write(&format!("app/{path}"), text);
    }
    place.plays("image.fp", "");
    assert_eq!(
        host.must("docker exec fdk-i busybox find /app -type f | sort | tr '\\n' ' '"),
        "/app/a/b /app/open.key /app/page"
    );
    // What is ignored makes no other image.
    place.write("app/secret.key", "another");
    assert!(place.plays("image.fp", "").contains("nothing to do"));
    let before = host.must("docker inspect -f '{{.Id}}' fdk-i");
    place.write("app/page", "two");
    let said = place.plays("image.fp", "--check");
    assert!(said.contains("unknown") && said.contains("container fdk-i"), "{said}");
    assert!(said.contains("`image fdk/app:1` was not applied"), "{said}");
    assert_eq!(host.must("docker inspect -f '{{.Id}}' fdk-i"), before);
    place.plays("image.fp", "");
    assert_eq!(host.must("docker exec fdk-i cat /app/page"), "two");
    // A link that is turned under what a container mounts.
    let said = place.plays("image.fp", "--check --set release=two");
    assert!(said.contains("`link /srv/fdk/current` was not applied, and this may have to change with it"), "{said}");
    place.plays("image.fp", "--set release=two");
    host.must("touch /srv/fdk/two/x; docker exec fdk-i busybox test -e /data/x");
}
