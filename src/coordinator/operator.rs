//! Who runs this.

/// `alice@build3`: the login name, that of whoever became root by sudo first, and this machine's name.
pub fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim();
    let machine = if machine.is_empty() { "an unnamed machine" } else { machine };
    let name =
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    format!("{name}@{machine}")
}
