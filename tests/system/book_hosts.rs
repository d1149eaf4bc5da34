//! The address book beside real docker hosts: what differs is named, a lost book is made anew, and nothing of a host that cannot be reached is
//! given away.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::book::Cluster;
use crate::common::fanli;
use crate::common::kept_lab::Lab as Hosts;

/// How the texts here name the lab and its network.
const ALIAS: (&str, &str) = ("fbk", "10.71");

const PLAYBOOK: &str = r#"
vars { size = 3  first = 11  last = 16 }

hosts docker {
  host "fbk1" { address = 10.71.0.1  config = "SSH_CONFIG" }
  host "fbk2" { address = 10.71.0.2  config = "SSH_CONFIG" }
}

network "lan" {
  mode    = macvlan
  parent  = "eth0"
  subnet  = 10.71.0.0/16
  gateway = 10.71.255.254
  POOL
}

nodes web {
  WHICH
  on      = hosts.docker
  network = "lan"
  name    = "fbk-web{{ node.index }}"
}

play "nodes" on nodes.web {
  container node.name {
    image        = "fanli/example:1"
    command      = ["httpd", "-f", "-h", "/www"]
    stop_timeout = 0s
    attach "lan" { address = node.address }
  }
}
"#;

const POOL: &str = "pool = 10.71.9.11 - 10.71.9.16";
const FENCE: &str = "I know that it is down";

/// Two docker hosts behind sshd, and a project.
struct Lab {
    hosts: Hosts,
}

struct Said {
    code: i32,
    text: String,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { hosts: Hosts::up(ALIAS, 2) };
        for host in [1, 2] {
            lab.on(
                host,
                "d=$(mktemp -d); mkdir -p $d/bin $d/etc $d/www; cp /bin/busybox $d/bin/; echo hello > $d/www/index.html; \
                 for applet in sh sleep httpd ip; do ln -s busybox $d/bin/$applet; done; \
                 tar -C $d -c . | docker import - fanli/example:1 >/dev/null; rm -rf $d",
            );
        }
        lab.write(POOL, "count = size", "");
        lab
    }

    /// Starts what of the hosts does not run.
    fn up(&self) {
        self.hosts.start(2);
    }

    #[track_caller]
    fn on(&self, host: usize, command: &str) -> String {
        self.hosts.on(host, command)
    }

    /// Gives this machine, which is on the hosts' switch, an address there, or takes it away.
    fn machine_has(&self, address: &str, has: bool) {
        let what = if has { "add" } else { "del" };
        let address = self.hosts.here(&format!("{address}/32"));
        let done = Command::new("ip").args(["addr", what, &address, "dev", &self.switch()]).status().unwrap();
        assert!(done.success(), "{what} {address}");
    }

    /// This machine's link into the hosts' network.
    fn switch(&self) -> String {
        format!("fl-{}", self.hosts.name())
    }

    /// Its MAC.
    fn machines_mac(&self) -> String {
        std::fs::read_to_string(format!("/sys/class/net/{}/address", self.switch())).unwrap()
    }

    /// Runs a command in a container's network, with the host's programs.
    fn inside(&self, host: usize, container: &str, command: &str) -> String {
        self.on(host, &format!("nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' {container}) -n {command}"))
    }

    fn project(&self) -> &Path {
        self.hosts.project()
    }

    fn write(&self, pool: &str, which: &str, more: &str) {
        let text = PLAYBOOK.replace("POOL", pool).replace("WHICH", which);
        let text = self.hosts.here(&format!("{text}{more}")).replace("SSH_CONFIG", &self.hosts.config());
        std::fs::write(self.project().join("web.fp"), text).unwrap();
    }

    /// What a call says, without what differs from run to run.
    fn fanli(&self, arguments: &[&str]) -> Said {
        let arguments = arguments.iter().map(|argument| self.hosts.here(argument));
        let done =
            Command::new(fanli()).args(arguments).current_dir(self.project()).env("TERM", "dumb").output().unwrap();
        let text = self.hosts.there(&String::from_utf8([done.stdout, done.stderr].concat()).unwrap());
        let mut text = text.replace(self.project().to_str().unwrap(), "PROJECT");
        for (store, name) in self.stores() {
            text = text.replace(&store, &name);
        }
        Said { code: done.status.code().unwrap(), text }
    }

    /// The names of the books that the hosts know.
    fn stores(&self) -> Vec<(String, String)> {
        let mut found: Vec<String> = Vec::new();
        for host in [1, 2] {
            let done =
                self.hosts.try_on(host, "cat /var/lib/fanli/attach/*.json 2>/dev/null | grep '\"store\"' || true");
            for line in String::from_utf8(done.stdout).unwrap().lines() {
                let store = line.split('"').nth(3).unwrap_or_default().to_owned();
                if store.len() == 32 && !found.contains(&store) {
                    found.push(store);
                }
            }
        }
        found.into_iter().map(|store| (store, "STORE".to_owned())).collect()
    }

    #[track_caller]
    fn play(&self, more: &[&str]) -> String {
        let said = self.fanli(&[&["play", "web.fp"], more].concat());
        assert_eq!(said.code, 0, "{}", said.text);
        said.text
    }

    #[track_caller]
    fn settled(&self) {
        let said = self.play(&[]);
        assert!(said.contains("nothing to do: everything is as declared"), "{said}");
    }

    fn list(&self) -> serde_json::Value {
        serde_json::from_str(&self.fanli(&["ip", "list", "web.fp", "--json"]).text).unwrap()
    }

    /// `OWNER ADDRESS STATE HOST` of every record.
    fn records(&self) -> Vec<String> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let list = self.list();
        let line =
            |one: &serde_json::Value| ["owner", "address", "state", "host"].map(|field| text(&one[field])).join(" ");
        list.as_array().unwrap().iter().map(line).collect()
    }

    fn lose_book(&self) {
        std::fs::remove_dir_all(self.project().join(".fanli")).unwrap();
    }

    fn stop_sshd(&self, host: usize) {
        self.on(host, "kill $(cat /run/sshd.pid)");
        let gone = || !self.hosts.reached(host);
        let begun = std::time::Instant::now();
        while !gone() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(30), "sshd of {host} lives on");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    // Revisions count whatever a run wrote, and runs have names of their own.
    let mut words = Vec::new();
    for word in text.split(' ') {
        let after = words.last().is_some_and(|last: &String| last.ends_with("revision"));
        let digits = word.chars().take_while(char::is_ascii_digit).count();
        words.push(if after && digits > 0 { format!("N{}", &word[digits..]) } else { word.to_owned() });
    }
    settings.bind(|| insta::assert_snapshot!(name, words.join(" ")));
}

const LINK: &str = "ip -o link show eth0";

#[test]
fn every_difference_between_book_and_hosts_is_named() {
    let lab = Lab::new();
    lab.play(&[]);
    lab.settled();
    let of = |state: &str| lab.records().into_iter().filter(|line| line.contains(state)).collect::<Vec<_>>();
    assert_eq!(
        of("bound"),
        ["web/1 10.71.9.11 bound fbk1", "web/2 10.71.9.12 bound fbk2", "web/3 10.71.9.13 bound fbk1"]
    );
    // The MAC in the book is the one that the link has.
    let mac = lab.list()[0]["mac"].as_str().unwrap().to_owned();
    assert!(lab.inside(1, "fbk-web1", LINK).contains(&mac), "{mac}");
    // All but the end of a node's MAC is the lab's.
    let labs = mac[..12].to_owned();
    let nodes_macs = |text: &str| text.replace(&labs, "02:24:0a:47:");
    let mut told = String::new();
    let mut check = |name: &str, kinds: &[&str], code: i32| {
        let json = lab.fanli(&["ip", "check", "web.fp", "--json"]);
        let found: serde_json::Value = serde_json::from_str(&json.text).unwrap();
        let found: Vec<&str> = found.as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert_eq!(found, kinds, "{name}: {}", json.text);
        let said = lab.fanli(&["ip", "check", "web.fp"]);
        assert_eq!((said.code, json.code), (code, code), "{name}: {}", said.text);
        let _ = write!(told, "# {name}\n{}", said.text);
    };
    check("all is well", &[], 0);

    lab.on(1, "docker rm -f fbk-web3");
    check("the container is gone", &["no_container"], 4);
    lab.play(&[]);
    lab.on(2, "docker stop -t 0 fbk-web2");
    check("the container is stopped", &["no_link"], 4);
    lab.on(2, "docker start fbk-web2");
    check("it has lost its interface", &["no_link"], 4);
    lab.play(&[]);

    lab.inside(1, "fbk-web1", "ip link set eth0 address 02:00:00:00:00:77");
    check("another MAC", &["other_mac"], 4);
    lab.play(&[]);

    // A copy on another host, with the same MAC: what a host that was given up for dead may come back with.
    let copy = format!(
        "docker run -d --name fbk-copy --net none fanli/example:1 sleep 1000 >/dev/null; \
         p=$(docker inspect -f '{{{{.State.Pid}}}}' fbk-copy); ip link add cp link eth0 type macvlan mode bridge; ip link set cp netns $p; \
         nsenter -t $p -n sh -c 'ip link set cp address {mac} name eth0; ip addr add 10.71.9.11/16 dev eth0; ip link set eth0 up'"
    );
    lab.on(2, &copy);
    check("two live copies", &["two_copies"], 4);
    lab.on(1, "docker stop -t 0 fbk-web1");
    check("on a link of somebody else", &["not_ours"], 4);
    lab.inside(2, "fbk-copy", "ip link set eth0 alias fanli:1:fbk-copy:lan:0");
    check("on another host", &["other_host"], 4);
    lab.on(2, "docker rm -f fbk-copy; docker run -d --name fbk-copy --net none fanli/example:1 sleep 1000 >/dev/null");
    lab.on(1, "docker start fbk-web1");
    lab.play(&[]);

    let take = |address: &str| {
        lab.on(
            2,
            &format!(
                "p=$(docker inspect -f '{{{{.State.Pid}}}}' fbk-copy); ip link del cp 2>/dev/null || true; \
                 nsenter -t $p -n ip link del cp 2>/dev/null || true; \
                 ip link add cp link eth0 address 02:00:00:00:00:99 type macvlan mode bridge; ip link set cp netns $p; \
                 nsenter -t $p -n sh -c 'ip addr add {address}/16 dev cp; ip link set cp up'"
            ),
        );
    };
    take("10.71.9.14");
    check("in use, and unknown to the book", &["unknown"], 4);
    assert_eq!(lab.fanli(&["ip", "reserve", "10.71.9.14", "web.fp", "--note", "printer"]).code, 0);
    check("kept by hand, and a container has it", &["static_in_use"], 4);
    lab.on(2, "docker rm -f fbk-copy");
    check("kept by hand, and silent", &[], 0);
    lab.on(2, "ip addr add 10.71.9.14/16 dev eth0");
    check("kept by hand, and a host has it", &["static_in_use"], 4);
    lab.on(2, "ip addr del 10.71.9.14/16 dev eth0");
    // A machine that is none of the hosts.
    lab.machine_has("10.71.9.14", true);
    let mac = lab.machines_mac();
    check("kept by hand, and another machine has it", &["static_answers"], 0);
    lab.machine_has("10.71.9.14", false);
    lab.fanli(&["ip", "release", "10.71.9.14", "web.fp"]);

    // Whose it is, and from which book.
    let edit = |sed: &str| lab.on(1, &format!("sed -i '{sed}' $(grep -l fbk-web1 /var/lib/fanli/attach/*.json)"));
    let record = lab.on(1, "cat $(grep -l fbk-web1 /var/lib/fanli/attach/*.json)");
    edit("s,web/1,web/9,");
    check("another owner", &["other_owner"], 4);
    let restore = || {
        let path = lab.on(1, "grep -l fbk-web1 /var/lib/fanli/attach/*.json");
        lab.on(1, &format!("cat > {path} <<'END'\n{record}\nEND"));
    };
    restore();
    edit(r#"s|"revision": [0-9][0-9]*|"revision": 4000|"#);
    check("a book that is older than the host", &["older_book"], 4);
    restore();
    edit(r#"s|"store": "[0-9a-f]*"|"store": "00000000000000000000000000000001"|"#);
    check("another book", &["other_store"], 4);
    restore();
    check("all is well again", &[], 0);

    let card = lab.on(2, "cat /sys/class/net/eth0/address");
    lab.stop_sshd(2);
    check("a host that cannot be reached", &["unreachable"], 5);
    compare("ip_check", &nodes_macs(&told).replace(mac.trim(), "MAC-OF-THE-MACHINE").replace(&card, "MAC-OF-THE-HOST"));

    // Nothing of it can be given back, but with the sentence.
    let mut told = String::new();
    let mut release = |name: &str, arguments: &[&str], code: i32| {
        let said = lab.fanli(&[&["ip", "release"], arguments].concat());
        assert_eq!(said.code, code, "{name}: {}", said.text);
        let _ = write!(told, "# {name}\n{}", said.text);
    };
    release("its host cannot be asked", &["web/2", "web.fp"], 2);
    lab.up();
    release("its container is there", &["web/2", "web.fp"], 2);
    lab.on(2, "docker rm -f fbk-web2");
    lab.machine_has("10.71.9.12", true);
    release("somebody answers for it", &["web/2", "web.fp"], 2);
    lab.machine_has("10.71.9.12", false);
    release("nothing is left of it", &["web/2", "web.fp"], 0);
    release("once more", &["web/2", "web.fp"], 0);
    release("with the sentence", &["web/3", "web.fp", "--fence", FENCE], 0);
    let filtered: String = told
        .lines()
        .map(|line| match line.split_once("free at ") {
            Some((before, _)) => format!("{before}free at TIME\n"),
            None => format!("{line}\n"),
        })
        .collect();
    compare("ip_release_asks", &nodes_macs(&filtered).replace(mac.trim(), "MAC-OF-THE-MACHINE"));
}

#[test]
fn a_lost_book_is_made_anew_and_gives_nothing_of_a_host_that_is_away() {
    let lab = Lab::new();
    // Slots that do not have their first choice: a fresh book would give other addresses.
    lab.fanli(&["ip", "reserve", "10.71.9.11", "web.fp", "--note", "for a while"]);
    lab.play(&["--set", "size=4"]);
    lab.fanli(&["ip", "release", "10.71.9.11", "web.fp"]);
    let before = lab.records();
    assert_eq!(before.len(), 4, "{before:?}");
    let links = || (lab.inside(1, "fbk-web1", "ip -o addr"), lab.inside(2, "fbk-web2", "ip -o addr"));
    let plugged = links();
    lab.on(1, "docker run -d --name fbk-other --net none fanli/example:1 sleep 1000 >/dev/null");
    lab.on(
        1,
        "p=$(docker inspect -f '{{.State.Pid}}' fbk-other); ip link add ot link eth0 address 02:00:00:00:00:98 type macvlan mode bridge; \
         ip link set ot netns $p; nsenter -t $p -n sh -c 'ip addr add 10.71.9.16/16 dev ot; ip link set ot up'",
    );

    // Lost while a host is away.
    lab.lose_book();
    lab.stop_sshd(2);
    let mut told = String::new();
    let mut say = |name: &str, arguments: &[&str], code: i32| {
        let said = lab.fanli(arguments);
        assert_eq!(said.code, code, "{name}: {}", said.text);
        let _ = write!(told, "# {name}\n$ fanli {}\n{}exit code {code}\n", arguments.join(" "), said.text);
    };
    say("what would be written", &["ip", "adopt", "web.fp"], 3);
    assert!(!lab.project().join(".fanli").exists(), "without --yes no book is made");
    say("written", &["ip", "adopt", "web.fp", "--yes"], 5);
    say("a node more", &["play", "web.fp", "--set", "size=5"], 2);
    say("nothing new is given by hand either", &["ip", "check", "web.fp"], 5);
    // Those that are known are played all the same.
    say("again: still unknown", &["ip", "adopt", "web.fp", "--yes"], 5);
    // Given up for good: what is free by the book may be given, but by the probe.
    let known: Vec<String> = lab.records();
    assert!(known.iter().all(|line| !line.contains("fbk2")), "{known:?}");
    lab.up();
    say("it is back", &["ip", "adopt", "web.fp", "--yes"], 0);
    let after = lab.records();
    let ours = |lines: &[String]| lines.iter().filter(|line| line.starts_with("web/")).cloned().collect::<Vec<_>>();
    assert_eq!(ours(&after), before, "every owner has its address again");
    assert!(after.contains(&"- 10.71.9.16 foreign fbk1".to_owned()), "{after:?}");
    say("nothing is left to adopt", &["ip", "adopt", "web.fp"], 0);
    compare("ip_adopt_lost", &told);
    // Hosts take the new book, with the interfaces as they are; the second play does nothing.
    lab.play(&["--set", "size=4"]);
    assert_eq!(links(), plugged);
    assert!(lab.play(&["--set", "size=4"]).contains("nothing to do"));
    let said = lab.fanli(&["ip", "check", "web.fp"]);
    assert_eq!(said.code, 0, "{}", said.text);

    // Lost together with a container: the one that is made in its place is not refused for what the host remembers of it.
    lab.lose_book();
    lab.on(1, "docker rm --force fbk-web1 > /dev/null");
    let said = lab.fanli(&["ip", "adopt", "web.fp", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.text);
    lab.play(&["--set", "size=4"]);
    assert!(lab.play(&["--set", "size=4"]).contains("nothing to do"));

    // Lost again, and the host is gone for ever.
    lab.lose_book();
    lab.stop_sshd(2);
    assert_eq!(lab.fanli(&["ip", "adopt", "web.fp", "--yes"]).code, 5);
    let refused = lab.fanli(&["play", "web.fp", "--set", "size=4"]);
    assert!(refused.code == 2 && refused.text.contains("nobody knows which addresses fbk2 holds"), "{}", refused.text);
    let said = lab.fanli(&["ip", "adopt", "web.fp", "--without", "fbk2", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.text);
    let found = lab.fanli(&["play", "web.fp", "--set", "size=5", "--check", "--limit", "fbk-web1"]);
    assert_eq!(found.code, 0, "{}", found.text);
    lab.up();
}

#[test]
fn a_book_moves_from_a_file_to_etcd() {
    let cluster = Cluster::start(1, 23310);
    let lab = Lab::new();
    lab.fanli(&["ip", "reserve", "10.71.9.11", "web.fp", "--note", "printer"]);
    lab.play(&[]);
    let before = lab.records();
    let link = || lab.inside(1, "fbk-web1", LINK);
    let plugged = link();
    let store = format!("\nstore {{\n  etcd   = [\"{}\"]\n  prefix = \"/fanli/moved\"\n}}\n", cluster.client(0));
    lab.write(POOL, "count = size", &store);
    let mut told = String::new();
    let mut say = |name: &str, arguments: &[&str], code: i32| {
        let said = lab.fanli(arguments);
        assert_eq!(said.code, code, "{name}: {}", said.text);
        let _ = write!(told, "# {name}\n$ fanli {}\n{}exit code {code}\n", arguments.join(" "), said.text);
    };
    say("the new book is empty", &["ip", "check", "web.fp"], 4);
    say("what would be written", &["ip", "adopt", "web.fp"], 3);
    // One host is away: the older book knows what it holds, so nothing is unknown.
    lab.stop_sshd(2);
    say("written", &["ip", "adopt", "web.fp", "--from", ".fanli/local/book.redb", "--yes"], 5);
    lab.up();
    compare("ip_adopt_etcd", &told.replace(&cluster.client(0), "ETCD"));
    assert_eq!(lab.records(), before, "every record, static ones too");
    lab.play(&[]);
    assert_eq!(link(), plugged, "the link is the same one");
    lab.settled();
    let said = lab.fanli(&["ip", "check", "web.fp"]);
    assert_eq!(said.code, 0, "{}", said.text);
    // Whoever still has the older book is refused by the hosts.
    lab.write(POOL, "count = size", "");
    let said = lab.fanli(&["play", "web.fp"]);
    assert_eq!(said.code, 4, "{}", said.text);
    assert!(said.text.contains("and this host plugged 10.71.9.12 from address book STORE"), "{}", said.text);
}

#[test]
fn an_address_changes_in_one_play_and_a_foreign_machine_is_kept_in_mind() {
    let lab = Lab::new();
    lab.play(&[]);
    let id = |host: usize, node: &str| {
        lab.on(host, &format!("docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {node}"))
    };
    let (one, two) = (id(1, "fbk-web1"), id(2, "fbk-web2"));
    let mut told = String::new();
    let mut say = |name: &str, arguments: &[&str], code: i32| {
        let said = lab.fanli(arguments);
        assert_eq!(said.code, code, "{name}: {}", said.text);
        let notes: String = said.text.split_inclusive('\n').filter(|line| line.starts_with("note:")).collect();
        let _ = write!(told, "# {name}\n{notes}");
        said.text
    };
    // Another pool: all three move, and nothing is made anew.
    let other = "pool = 10.71.9.21 - 10.71.9.26";
    lab.write(other, "count = size", "");
    let said = say("the plan says so", &["play", "web.fp", "--check"], 0);
    assert!(said.contains("10.71.9.21"), "{said}");
    assert!(lab.records().iter().all(|line| line.contains("10.71.9.1")), "{:?}", lab.records());
    say("another pool", &["play", "web.fp"], 0);
    let after = lab.records();
    assert_eq!(
        after,
        [
            "web/1/old 10.71.9.11 releasing fbk1",
            "web/2/old 10.71.9.12 releasing fbk2",
            "web/3/old 10.71.9.13 releasing fbk1",
            "web/1 10.71.9.21 bound fbk1",
            "web/2 10.71.9.22 bound fbk2",
            "web/3 10.71.9.23 bound fbk1",
        ]
    );
    assert_eq!((id(1, "fbk-web1"), id(2, "fbk-web2")), (one, two), "the containers are the same ones");
    let addresses = lab.inside(1, "fbk-web1", "ip -o -4 addr show eth0");
    assert!(addresses.contains("10.71.9.21/16") && !addresses.contains("10.71.9.11/"), "{addresses}");
    lab.settled();
    // A list, one of which is another address.
    lab.write(other, "addresses = [10.71.9.21, 10.71.9.32, 10.71.9.23]", "");
    say("a list", &["play", "web.fp"], 0);
    assert!(lab.records().contains(&"web/2/old-2 10.71.9.22 releasing fbk2".to_owned()), "{:?}", lab.records());
    // Fewer nodes: what is left over is told, until somebody gives it back.
    lab.write(other, "addresses = [10.71.9.21, 10.71.9.32]", "");
    say("fewer nodes", &["play", "web.fp"], 0);
    lab.on(1, "docker rm -f fbk-web3");
    say("given back", &["ip", "release", "web/3", "web.fp"], 0);
    say("nothing is left over", &["play", "web.fp"], 0);
    // A foreign machine has the next address.
    lab.machine_has("10.71.9.33", true);
    let mac = lab.machines_mac();
    lab.write("pool = 10.71.9.31 - 10.71.9.39", "count = size", "");
    say("a foreign machine", &["play", "web.fp"], 4);
    let list = lab.list();
    let foreign = list.as_array().unwrap().iter().find(|one| one["state"] == "foreign").unwrap();
    assert_eq!((foreign["address"].as_str(), foreign["mac"].as_str()), (Some("10.71.9.33"), Some(mac.trim())));
    say("the next one", &["play", "web.fp"], 0);
    assert!(lab.records().contains(&"web/3 10.71.9.34 bound fbk1".to_owned()), "{:?}", lab.records());
    lab.machine_has("10.71.9.33", false);
    compare("ip_moves", &told);
}
