//! The processes of this host as `/proc` lists them, and what each has (proc(5)). One that ends while this looks, or that may not be
//! looked at, has nothing.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;

/// Every process number.
pub(super) fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A namespace of a process (a number, or `self`), to be compared: `mnt`, `net`, `pid`.
pub(super) fn namespace(of: impl Display, sort: &str) -> Option<(u64, u64)> {
    std::fs::metadata(format!("/proc/{of}/ns/{sort}")).ok().map(|seen| (seen.dev(), seen.ino()))
}

/// The numbers of what a process has open of a sort: of `pipe:[12]`, 12.
pub(super) fn open_ones(pid: u32, sort: &str) -> BTreeSet<u64> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let number = |link: &str| link.strip_prefix(sort)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok();
    links.filter_map(|link| number(link.to_str()?)).collect()
}
