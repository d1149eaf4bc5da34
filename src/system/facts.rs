//! Facts: what a host tells of itself.
//!
//! They are read once, before the first step, from `/proc`, `/sys`, `/etc` and netlink; no program is started. What a host
//! does not have is `null`; only looking that itself fails is a failure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Probe;
use super::netlink::{Link, Mac};
use crate::failure::Failure;
use crate::value::{Map, Value};

/// The longest file below `/etc` that is read for facts.
const MOST_TEXT: u64 = 64 << 10;

/// Every fact, with what it holds. A dot leads into a map: `os.id` is `facts.os.id`.
pub fn fact_names() -> &'static [(&'static str, &'static str)] {
    &[
        ("hostname", "the kernel's name for the host: `web01`"),
        ("os.id", "the distribution's short name: `debian`, `ubuntu`, `centos`"),
        ("os.name", "its name for people: `Debian GNU/Linux 12 (bookworm)`"),
        ("os.version", "its version as a string: `12`, `22.04`; null on rolling ones"),
        ("os.codename", "its code name: `bookworm`; null where it has none"),
        ("os.family", "`debian`, `redhat`, `suse`, `arch`, `alpine`; else the same as `os.id`"),
        ("kernel", "the kernel's release: `6.1.0-18-amd64`"),
        ("architecture", "of the processor: `x86_64`"),
        ("cpus", "how many processors are online"),
        ("memory", "all of the host's memory, a size"),
        ("init", "what starts services: `systemd`, `sysvinit` or `none`"),
        ("package_manager", "`apt`, `dnf`, `yum` or `none`"),
        ("default_interface", "the interface that the default route leaves by; null without one"),
        ("default_gateway", "the router of the default route; null without one"),
        ("default_address", "the first address of the default interface; null without one"),
        ("addresses", "every address of the host as a list, without loopback and link-local ones"),
        (
            "interfaces",
            "a map by name, without `lo`; each has `mac`, `mtu`, `up` and `addresses` (a list, such as 10.0.0.2/24)",
        ),
        ("boot_id", "changes with every start of the host"),
        ("docker", "whether a Docker socket was there when the run began"),
    ]
}

impl Probe {
    /// The facts of this host: every name of [`fact_names`].
    ///
    /// # Errors
    /// A file is there but cannot be read, or netlink does not answer.
    pub async fn facts(&self) -> Result<Map, Failure> {
        self.all_facts().await.map_err(|failure| failure.within("cannot gather the facts of this host"))
    }

    async fn all_facts(&self) -> Result<Map, Failure> {
        let mut facts = self.network_facts().await?;
        let mut set = |name: &str, value: Value| facts.insert(name.to_owned(), value);
        set("hostname", text(self.read_small("/proc/sys/kernel/hostname")?));
        set("os", Value::Map(self.os()?));
        set("kernel", text(self.read_small("/proc/sys/kernel/osrelease")?));
        set("architecture", Value::from(std::env::consts::ARCH));
        let online = self.read_small("/sys/devices/system/cpu/online")?;
        set("cpus", online.as_deref().and_then(count_of_ranges).map_or(Value::Null, Value::Int));
        let memory = self.read_small("/proc/meminfo")?;
        set("memory", memory.as_deref().and_then(total_memory).map_or(Value::Null, Value::Size));
        set("init", Value::from(self.init()?));
        set("package_manager", Value::from(self.package_manager()?));
        set("boot_id", text(self.read_small("/proc/sys/kernel/random/boot_id")?));
        let docker = self.exists("/run/docker.sock")? || self.exists("/var/run/docker.sock")?;
        set("docker", Value::Bool(docker));
        Ok(facts)
    }

    fn os(&self) -> Result<Map, Failure> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(bytes) = self.read(path, MOST_TEXT)? {
                return Ok(os_release(&String::from_utf8_lossy(&bytes)));
            }
        }
        // CentOS 6 and its like.
        let bytes = self.read("/etc/redhat-release", MOST_TEXT)?.unwrap_or_default();
        Ok(redhat_release(&String::from_utf8_lossy(&bytes)))
    }

    /// `systemd` as `sd_booted(3)` decides it; `sysvinit` where the first process is an init with scripts for it.
    fn init(&self) -> Result<&'static str, Failure> {
        if self.exists("/run/systemd/system")? {
            return Ok("systemd");
        }
        let first = self.read_small("/proc/1/comm")?.unwrap_or_default();
        Ok(if first.trim() == "init" && self.exists("/etc/init.d")? { "sysvinit" } else { "none" })
    }

    fn package_manager(&self) -> Result<&'static str, Failure> {
        for (program, name) in [("apt-get", "apt"), ("dnf", "dnf"), ("yum", "yum")] {
            if self.program(program)?.is_some() {
                return Ok(name);
            }
        }
        Ok("none")
    }

    async fn network_facts(&self) -> Result<Map, Failure> {
        let netlink = self.netlink(None)?;
        let found = async { Ok::<_, Failure>((netlink.links().await?, netlink.all_addresses().await?)) }.await;
        netlink.close().await;
        let (links, addresses) = found?;
        let routes = self.read_small("/proc/net/route")?.unwrap_or_default();
        let routes6 = self.read_small("/proc/net/ipv6_route")?.unwrap_or_default();
        let default = default_route(&routes).or_else(|| default_route6(&routes6));
        Ok(network(&links, &addresses, default))
    }
}

/// A line of the kernel as text; null when it is missing or empty.
fn text(line: Option<String>) -> Value {
    line.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).map_or(Value::Null, Value::Str)
}

/// `os-release(5)`: shell-like assignments.
fn os_release(release: &str) -> Map {
    let assignment = |line: &str| {
        let (name, value) = line.trim().split_once('=')?;
        let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        Some((name.to_owned(), value.replace("\\\"", "\"").replace("\\$", "$").replace("\\\\", "\\")))
    };
    let all: BTreeMap<String, String> = release.lines().filter_map(assignment).collect();
    let get = |name: &str| all.get(name).filter(|value| !value.is_empty()).map(String::as_str);
    let codename = get("VERSION_CODENAME").or_else(|| get("UBUNTU_CODENAME"));
    os(get("ID"), get("ID_LIKE").unwrap_or_default(), get("PRETTY_NAME"), get("VERSION_ID"), codename)
}

/// `CentOS release 6.10 (Final)`
fn redhat_release(release: &str) -> Map {
    let line = release.trim();
    let name = line.split(' ').next().filter(|name| !name.is_empty()).map(str::to_lowercase);
    let version = line.split(' ').find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let like = if name.is_some() { "rhel" } else { "" };
    os(name.as_deref(), like, Some(line).filter(|line| !line.is_empty()), version, None)
}

fn os(id: Option<&str>, like: &str, name: Option<&str>, version: Option<&str>, codename: Option<&str>) -> Map {
    let families = [
        ("debian", ["debian", "ubuntu"].as_slice()),
        ("redhat", &["rhel", "fedora", "centos"]),
        ("suse", &["suse", "opensuse", "sles"]),
        ("arch", &["arch"]),
        ("alpine", &["alpine"]),
    ];
    let of = |word: &str| families.iter().find(|(_, words)| words.contains(&word)).map(|(family, _)| *family);
    let family = id.and_then(of).or_else(|| like.split_whitespace().find_map(of)).or(id);
    [("id", id), ("name", name), ("version", version), ("codename", codename), ("family", family)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.map_or(Value::Null, Value::from)))
        .collect()
}

/// `0-3,8` is five.
fn count_of_ranges(ranges: &str) -> Option<i64> {
    ranges.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(sum + last.parse::<i64>().ok()? - first.parse::<i64>().ok()? + 1)
    })
}

/// `MemTotal:       24684092 kB`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Where a host sends what it has no better way for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DefaultRoute {
    interface: String,
    gateway: Option<IpAddr>,
}

/// The default route with the smallest metric in `/proc/net/route`: numbers in hexadecimal, addresses in the host's order.
fn default_route(table: &str) -> Option<DefaultRoute> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [interface, to, via, flags, _, _, metric, mask, ..] = *columns.as_slice() else { return None };
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let (up, reject) = (1, 0x200);
        if number(to)? != 0 || number(mask)? != 0 || number(flags)? & (up | reject) != up {
            return None;
        }
        let gateway = Some(number(via)?).filter(|via| *via != 0).map(|via| IpAddr::from(via.to_ne_bytes()));
        Some((metric.parse::<u32>().ok()?, DefaultRoute { interface: interface.to_owned(), gateway }))
    };
    table.lines().skip(1).filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, route)| route)
}

/// As [`default_route`], of `/proc/net/ipv6_route`.
fn default_route6(table: &str) -> Option<DefaultRoute> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [to, length, _, _, via, metric, _, _, flags, interface] = *columns.as_slice() else { return None };
        let (up, reject) = (1, 0x200);
        let flags = u32::from_str_radix(flags, 16).ok()?;
        if length != "00" || to.bytes().any(|digit| digit != b'0') || flags & (up | reject) != up || interface == "lo" {
            return None;
        }
        let via = Some(u128::from_str_radix(via, 16).ok()?).filter(|via| *via != 0);
        let gateway = via.map(|via| IpAddr::from(via.to_be_bytes()));
        let metric = u32::from_str_radix(metric, 16).ok()?;
        Some((metric, DefaultRoute { interface: interface.to_owned(), gateway }))
    };
    table.lines().filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, route)| route)
}

fn network(links: &[Link], addresses: &[(u32, IpNet)], default: Option<DefaultRoute>) -> Map {
    let of = |link: &Link| {
        let index = link.index;
        addresses.iter().filter(move |(link, _)| *link == index).map(|(_, net)| *net)
    };
    let far = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let interface = |link: &Link| {
        let fields = [
            ("mac", link.mac.map_or(Value::Null, |mac| Value::Str(Mac(mac).to_string()))),
            ("mtu", Value::from(link.mtu)),
            ("up", Value::Bool(link.up)),
            ("addresses", Value::List(of(link).map(Value::Net).collect())),
        ];
        Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let on_default = |default: &DefaultRoute| {
        let link = links.iter().find(|link| link.name == default.interface)?;
        // IPv4 comes first: it is what container networks are made of.
        let mut found: Vec<IpAddr> = of(link).map(|net| net.addr()).filter(far).collect();
        found.sort_by_key(IpAddr::is_ipv6);
        found.first().copied()
    };
    let shown = links.iter().filter(|link| link.name != "lo");
    let all = links.iter().flat_map(of).map(|net| net.addr()).filter(far).map(Value::Ip);
    let facts = [
        ("default_address", default.as_ref().and_then(on_default).map_or(Value::Null, Value::Ip)),
        ("default_gateway", default.as_ref().and_then(|default| default.gateway).map_or(Value::Null, Value::Ip)),
        ("default_interface", default.map_or(Value::Null, |default| Value::Str(default.interface))),
        ("addresses", Value::List(all.collect())),
        ("interfaces", Value::Map(shown.map(|link| (link.name.clone(), interface(link))).collect())),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(map: &Map) -> String {
        Value::Map(map.clone()).to_string()
    }

    #[test]
    fn distributions() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(
            shown(&os_release(debian)),
            r#"{ codename = "bookworm" family = "debian" id = "debian" name = "Debian GNU/Linux 12 (bookworm)" version = "12" }"#
        );
        let rocky =
            "NAME=\"Rocky Linux\"\n# a comment\nID='rocky'\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.3\"\n";
        assert_eq!(
            shown(&os_release(rocky)),
            r#"{ codename = null family = "redhat" id = "rocky" name = null version = "9.3" }"#
        );
        assert_eq!(
            shown(&redhat_release("CentOS release 6.10 (Final)\n")),
            r#"{ codename = null family = "redhat" id = "centos" name = "CentOS release 6.10 (Final)" version = "6.10" }"#
        );
        assert_eq!(
            shown(&redhat_release("")),
            "{ codename = null family = null id = null name = null version = null }"
        );
        assert_eq!(os_release("ID=void\n").get("family"), Some(&Value::from("void")));
    }

    #[test]
    fn numbers_of_the_kernel() {
        assert_eq!(count_of_ranges("0-3,8\n"), Some(5));
        assert_eq!(count_of_ranges("0\n"), Some(1));
        assert_eq!(count_of_ranges(""), None);
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_default_route_is_the_one_with_the_smallest_metric() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     *\t00000000\t00000000\t0201\t0\t0\t1\t00000000\t0\t0\t0\n\
                     eth1\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
        let found = default_route(table).unwrap();
        assert_eq!(found, DefaultRoute { interface: "eth0".to_owned(), gateway: Some("192.0.2.1".parse().unwrap()) });
        assert_eq!(default_route(""), None);
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0\n"
        );
        let found = default_route6(&table).unwrap();
        assert_eq!(found, DefaultRoute { interface: "eth0".to_owned(), gateway: Some("fe80::1".parse().unwrap()) });
    }

    #[test]
    fn the_default_address_is_far_and_ipv4_first() {
        let link = |index, name: &str| Link { index, name: name.to_owned(), mtu: 1500, up: true, ..Link::default() };
        let addresses = ["127.0.0.1/8", "fe80::7/64", "fd00::2/64", "192.0.2.2/24"];
        let addresses: Vec<(u32, IpNet)> =
            addresses.iter().enumerate().map(|(at, net)| (if at == 0 { 1 } else { 2 }, net.parse().unwrap())).collect();
        let default = DefaultRoute { interface: "eth0".to_owned(), gateway: None };
        let facts = network(&[link(1, "lo"), link(2, "eth0")], &addresses, Some(default));
        assert_eq!(
            shown(&facts),
            "{ addresses = [fd00::2, 192.0.2.2] default_address = 192.0.2.2 default_gateway = null \
             default_interface = \"eth0\" interfaces = { eth0 = { addresses = [fe80::7/64, fd00::2/64, 192.0.2.2/24] \
             mac = null mtu = 1500 up = true } } }"
        );
        let none = network(&[link(1, "lo")], &addresses[..1], None);
        assert_eq!(none.get("default_interface"), Some(&Value::Null));
    }

    #[test]
    fn every_fact_has_a_name_once() {
        let mut names: Vec<&str> = fact_names().iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), fact_names().len());
    }
}
