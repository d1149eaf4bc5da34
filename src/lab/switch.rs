//! The lab's network: a bridge as the switch, a veth pair as each host's cable, and the way outward through this machine.

use std::path::Path;

use super::layout::{Host, Lab};
use super::tools::{succeeds, tool};
use crate::failure::Failure;

/// The kernel's switch for passing packets on.
pub(super) const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// One iptables rule.
struct Rule {
    table: &'static str,
    chain: &'static str,
    what: String,
}

impl Rule {
    fn run(&self, action: &str) -> Result<String, Failure> {
        let head = ["--wait", "--table", self.table, action, self.chain];
        tool("iptables", &head.into_iter().chain(self.what.split(' ')).collect::<Vec<_>>())
    }

    fn stands(&self) -> bool {
        self.run("--check").is_ok()
    }
}

/// What the lab needs of the machine's firewall. A dockerd of the machine sets FORWARD's policy to DROP, and bridged packets
/// pass FORWARD too (`bridge-nf-call-iptables`), so the lab's own traffic has to be let through by name.
fn rules(lab: &Lab) -> [Rule; 3] {
    let (bridge, network) = (lab.bridge(), lab.network);
    [
        Rule { table: "filter", chain: "FORWARD", what: format!("-i {bridge} -j ACCEPT") },
        Rule { table: "filter", chain: "FORWARD", what: format!("-o {bridge} -j ACCEPT") },
        Rule { table: "nat", chain: "POSTROUTING", what: format!("-s {network} ! -d {network} -j MASQUERADE") },
    ]
}

fn exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

/// The bridge with this machine's address on it, and the way outward through this machine.
pub(super) fn up(lab: &Lab) -> Result<(), Failure> {
    let bridge = lab.bridge();
    let address = format!("{}/{}", lab.gateway(), lab.network.prefix_len());
    if !exists(&bridge) {
        tool("ip", &["link", "add", &bridge, "type", "bridge"])?;
    }
    tool("ip", &["address", "replace", &address, "dev", &bridge])?;
    tool("ip", &["link", "set", &bridge, "up"])?;
    rules(lab).iter().filter(|rule| !rule.stands()).try_for_each(|rule| rule.run("--insert").map(drop))
}

/// A host's network namespace and its cable to the switch; what is there already stays.
pub(super) fn cable(lab: &Lab, host: &Host) -> Result<(), Failure> {
    let link = host.link.as_str();
    if !succeeds("ip", &["-n", link, "link", "show", "lo"]) {
        // A file without a namespace behind it is what a crash leaves.
        let _ = tool("ip", &["netns", "delete", link]);
        tool("ip", &["netns", "add", link])?;
    }
    if !exists(link) || !succeeds("ip", &["-n", link, "link", "show", "eth0"]) {
        let _ = tool("ip", &["link", "delete", link]);
        // A cable that is made again has the MAC that the neighbours know: they would ask the old one for up to a minute.
        let [a, b, c, d] = host.address.octets();
        let mac = format!("02:f1:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        tool("ip", &["link", "add", link, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", link])?;
    }
    let address = format!("{}/{}", host.address, lab.network.prefix_len());
    tool("ip", &["link", "set", link, "master", &lab.bridge(), "up"])?;
    tool("ip", &["-n", link, "address", "replace", &address, "dev", "eth0"])?;
    tool("ip", &["-n", link, "link", "set", "lo", "up"])?;
    tool("ip", &["-n", link, "link", "set", "eth0", "up"])?;
    tool("ip", &["-n", link, "route", "replace", "default", "via", &lab.gateway().to_string()]).map(drop)
}

/// Takes a host off the switch. The cable goes with either end.
pub(super) fn uncable(host: &Host) -> Vec<Failure> {
    let mut failures = Vec::new();
    if exists(&host.link) {
        failures.extend(tool("ip", &["link", "delete", &host.link]).err());
    }
    if host.netns().exists() {
        failures.extend(tool("ip", &["netns", "delete", &host.link]).err());
    }
    failures
}

/// Takes back what [`up`] did.
pub(super) fn down(lab: &Lab) -> Vec<Failure> {
    let mut failures = Vec::new();
    for rule in rules(lab) {
        // A crash between check and insert may have left two.
        while rule.stands() {
            if let Err(failure) = rule.run("--delete") {
                failures.push(failure);
                break;
            }
        }
    }
    if exists(&lab.bridge()) {
        failures.extend(tool("ip", &["link", "delete", &lab.bridge()]).err());
    }
    failures
}
