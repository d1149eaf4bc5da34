//! The whole way in the modes beside macvlan: a playbook over two hosts by SSH, its nodes answer at what the plan says, a second play
//! changes nothing, a container that is started again answers again by itself, and all of it goes.

use crate::common::fanli;
use crate::common::kept_lab::Lab;
use crate::tier::run::output;
use crate::watched::wait_for;

/// How the texts here name the lab and its network.
const ALIAS: (&str, &str) = ("fnm", "10.85");

const HOSTS: [usize; 2] = [1, 2];

fn lab() -> Lab {
    let lab = Lab::up(ALIAS, 2);
    for host in HOSTS {
        lab.on(
            host,
            "d=$(mktemp -d); mkdir -p $d/bin $d/etc $d/www; cp /bin/busybox $d/bin/; \
             for applet in sh httpd; do ln -s busybox $d/bin/$applet; done; echo root:x:0:0:root:/:/bin/sh > $d/etc/passwd; \
             tar -C $d -c . | docker import - fanli/example:1 >/dev/null; rm -rf $d; \
             sysctl -qw net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP",
        );
    }
    lab
}

/// What is on a host before and after.
fn bare(lab: &Lab, host: usize) -> String {
    lab.on(
        host,
        "ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\\n' ' '; ip -4 -br addr show dev eth0 | tr -s ' '; \
         ip route show default; docker ps -aq; docker network ls -q --filter label=fanli.network; ls /var/lib/fanli/attach 2>/dev/null || :; \
         iptables-save | grep fanli || :",
    )
}

/// The playbook of a mode. Where nodes have ports, they say so themselves.
fn playbook(mode: &str, network: &str, gone: bool) -> String {
    let ports = ["nat", "host"].contains(&mode);
    let at = if ports { "{{ node.address }}:{{ node.port }}" } else { "{{ node.address }}" };
    let listen = if mode == "host" { "{{ node.port }}" } else { "80" };
    let (state, attached) = (if gone { "state = absent" } else { "" }, if gone && ports { "" } else { "attached" });
    let plug = match (attached, ports, gone) {
        ("", ..) => String::new(),
        (_, true, _) => "attach \"lan\" {}".to_owned(),
        (_, false, true) => {
            "attach \"lan\" { container = node.name  address = node.address  state = absent }".to_owned()
        }
        (_, false, false) => "attach \"lan\" { address = node.address }".to_owned(),
    };
    // What is taken out goes before its container.
    let (before, inside) = if gone { (plug, String::new()) } else { (String::new(), plug) };
    let network_of = if gone && mode == "nat" { "network = bridge" } else { "" };
    format!(
        r#"hosts docker {{
  host "fnm1" {{ address = 10.85.0.1  config = "SSH_CONFIG" }}
  host "fnm2" {{ address = 10.85.0.2  config = "SSH_CONFIG" }}
}}

network "lan" {{
  mode = {mode}
  {network}
}}

nodes web {{
  count   = 4
  on      = hosts.docker
  network = "lan"
  name    = "{mode}{{{{ node.index }}}}"
}}

play "hosts" on hosts.docker {{
  watcher {{ {state} }}
  directory "/run/fn3"
}}

play "nodes" on nodes.web {{
  file "/run/fn3/{{{{ node.name }}}}" {{ content = "{at}" }}
  {before}
  container node.name {{
    image        = "fanli/example:1"
    command      = ["sh", "-c", "echo {{{{ node.name }}}} > /www/index.html; exec httpd -f -p {listen} -h /www"]
    stop_timeout = 0s
    {network_of}
    {state}
    {inside}
  }}
}}
"#
    )
}

/// A node, where the plan says that it answers, and its host.
type Node = (String, String, usize);

/// All nodes, sorted.
fn places(lab: &Lab) -> Vec<Node> {
    let mut all = Vec::new();
    for host in HOSTS {
        let said = lab.on(host, "cd /run/fn3; for file in *; do echo \"$file $(cat $file)\"; done");
        let pairs = said.lines().filter_map(|line| line.split_once(' '));
        all.extend(pairs.map(|(name, at)| (name.to_owned(), at.to_owned(), host)));
    }
    all.sort();
    all
}

/// Whether a node answers with its own name, asked from the other host; of a tunnel's network, from a node there.
fn answers(lab: &Lab, mode: &str, (name, at, host): &Node, all: &[Node]) -> bool {
    let other = all.iter().find(|place| place.2 != *host).unwrap();
    let ask = match mode {
        "vxlan" => format!(
            "nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' {}) -n timeout 3 busybox wget -qO- http://{at}/ || :",
            other.0
        ),
        _ => format!("timeout 3 busybox wget -qO- http://{at}/ || :"),
    };
    lab.on(other.2, &ask) == *name
}

fn whole_way(mode: &str, network: &str) {
    let lab = lab();
    let play = |gone: bool, more: &[&str]| {
        let text = lab.here(&playbook(mode, network, gone)).replace("SSH_CONFIG", &lab.config());
        let file = lab.project().join("play.fp");
        std::fs::write(&file, text).unwrap();
        let done = output(fanli(), &[&["play", file.to_str().unwrap()], more].concat());
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let bare = || HOSTS.map(|host| bare(&lab, host));
    let before = bare();
    let (code, said) = play(false, &[]);
    assert_eq!(code, Some(0), "{said}");
    let all = places(&lab);
    assert_eq!(all.len(), 4, "{all:?}");
    println!("{mode}: {all:?}");
    // A play without `healthy` ends when the containers are up; their programs may still be on the way.
    for place in &all {
        wait_for(&format!("{mode}: {place:?} answers"), || answers(&lab, mode, place, &all));
    }
    let (code, said) = play(false, &["--check", "--detailed-exit-code"]);
    assert_eq!(code, Some(0), "{mode}: a second play would do something: {said}");
    let (code, said) = play(false, &[]);
    assert!(code == Some(0) && said.contains("nothing to do"), "{mode}: a second play does something: {said}");
    // One of each host, without another play.
    for place in [&all[0], &all[1]] {
        lab.on(place.2, &format!("docker restart -t 0 {}", place.0));
    }
    for place in &all {
        wait_for(&format!("{mode}: {place:?} answers after a restart"), || answers(&lab, mode, place, &all));
    }
    let (code, said) = play(false, &[]);
    assert!(code == Some(0) && said.contains("nothing to do"), "{mode}: after a restart: {said}");
    let (code, said) = play(true, &[]);
    assert_eq!(code, Some(0), "{mode}: {said}");
    for host in HOSTS {
        lab.on(host, "rm -r /run/fn3");
    }
    assert_eq!(bare(), before, "{mode}: something is left");
}

/// A network of the hosts' own.
const OWN: &str =
    "parent = \"eth0\"\n  subnet = 10.85.0.0/16\n  gateway = 10.85.255.254\n  pool = 10.85.8.10 - 10.85.8.19";

#[test]
fn bridge() {
    whole_way("bridge", OWN);
}

#[test]
fn macvtap() {
    whole_way("macvtap", OWN);
}

#[test]
fn vxlan() {
    whole_way("vxlan", "parent = \"eth0\"\n  subnet = 10.85.200.0/24\n  pool = 10.85.200.10 - 10.85.200.19");
}

#[test]
fn nat() {
    whole_way("nat", "ports = 8280 - 8289\n  inside = 80");
}

#[test]
fn host() {
    whole_way("host", "ports = 8290 - 8299");
}
