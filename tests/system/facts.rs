//! Facts of this machine, beside what its own programs say.

use std::process::Command;

use fanli::system::facts::fact_names;
use fanli::value::{Map, Value};

use crate::apart::sh;
use crate::common::Bench;

fn get(facts: &Map, name: &str) -> Value {
    let mut value = Value::Map(facts.clone());
    for part in name.split('.') {
        let Value::Map(map) = value else { panic!("{name}: no map before {part}") };
        value = map.get(part).unwrap_or_else(|| panic!("{name} is not there")).clone();
    }
    value
}

#[test]
fn facts_are_what_the_programs_say() {
    let bench = Bench::new();
    let facts = bench.block(bench.probe.facts()).unwrap();
    let text = |name: &str| get(&facts, name).to_string();
    for (name, _) in fact_names() {
        get(&facts, name);
    }
    let tops = |name: &str| fact_names().iter().any(|(known, _)| known.split('.').next() == Some(name));
    assert!(facts.keys().all(|name| tops(name)), "{facts:?}");
    assert_eq!(text("hostname"), sh("uname -n"));
    assert_eq!(text("kernel"), sh("uname -r"));
    assert_eq!(text("architecture"), sh("uname -m"));
    assert_eq!(text("cpus"), sh("getconf _NPROCESSORS_ONLN"));
    assert_eq!(
        get(&facts, "memory"),
        Value::Size(sh("awk '/^MemTotal/ { printf \"%.0f\", $2 * 1024 }' /proc/meminfo").parse().unwrap())
    );
    assert_eq!(
        (text("os.id"), text("os.family"), text("package_manager")),
        ("debian".into(), "debian".into(), "apt".into())
    );
    assert_eq!(text("os.version"), sh(". /etc/os-release; echo $VERSION_ID"));
    assert_eq!(text("default_interface"), sh("ip -4 route show default | sed -n '1s/.* dev \\([^ ]*\\).*/\\1/p'"));
    let device = text("default_interface");
    let nets = sh(&format!("ip -br address show dev {device} | tr -s ' ' '\\n' | tail -n +3"));
    assert_eq!(
        text(&format!("interfaces.{device}.addresses")),
        format!("[{}]", nets.lines().collect::<Vec<_>>().join(", "))
    );
    assert_eq!(text("default_address"), nets.lines().next().unwrap().split('/').next().unwrap());
    assert_eq!(text(&format!("interfaces.{device}.mtu")), sh(&format!("cat /sys/class/net/{device}/mtu")));
    assert_eq!(text(&format!("interfaces.{device}.mac")), sh(&format!("cat /sys/class/net/{device}/address")));
    assert_eq!(text("boot_id"), sh("cat /proc/sys/kernel/random/boot_id"));
}

#[test]
fn a_bare_network_has_no_default() {
    const INSIDE: &str = "FANLI_TEST_FACTS_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net"]).arg(exe).args(["--exact", "facts::a_bare_network_has_no_default", "--nocapture"]);
        let done = command.env(INSIDE, "1").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    let bench = Bench::new();
    let facts = bench.block(bench.probe.facts()).unwrap();
    for name in ["default_interface", "default_gateway", "default_address"] {
        assert_eq!(get(&facts, name), Value::Null, "{name}");
    }
    assert_eq!(get(&facts, "addresses"), Value::List(Vec::new()));
}
