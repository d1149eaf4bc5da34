//! What is mounted where, from `/proc/self/mountinfo` alone: nothing here touches a mount, so a dead server hangs nobody.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Probe;
use crate::failure::Failure;

/// How many processes that use a mount are looked for.
const MOST_USERS: usize = 5;

/// A line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number.
    pub id: u32,
    /// The number of the mount that it stands on.
    pub parent: u32,
    /// The file system's device: `254:0`.
    pub device: String,
    /// Which part of the file system it shows: `/`, or a path in it for binds.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// Flags of this mount alone: `ro`, `nosuid`, `relatime`.
    pub flags: Vec<String>,
    /// The file system's type, as the kernel says it.
    pub kind: String,
    /// What is mounted: a device, `server:/path`, any word.
    pub source: String,
    /// Options of the file system, for all of its mounts.
    pub options: Vec<String>,
}

/// All mounts that this process sees.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl Mount {
    /// Whether looking into it may wait for another machine or a program.
    pub fn is_far(&self) -> bool {
        let kind = self.kind.as_str();
        kind.starts_with("fuse") || ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "autofs"].contains(&kind)
    }
}

impl Probe {
    /// The table of mounts.
    pub fn mounts(&self) -> Result<MountTable, Failure> {
        let table = self.read_small("/proc/self/mountinfo")?;
        Ok(MountTable::parse(&table.ok_or_else(|| Failure::new("/proc is not mounted"))?))
    }

    /// The mounts that another process sees; `None` when it has ended.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn mounts_of(&self, pid: u32) -> Result<Option<MountTable>, Failure> {
        Ok(self.read_small(format!("/proc/{pid}/mountinfo"))?.map(|table| MountTable::parse(&table)))
    }

    /// Processes of this mount namespace that work in or below a path or hold something open there: number and name, the first
    /// few. A help for messages: who cannot be looked at is left out.
    pub fn users_of(&self, path: &str) -> Vec<String> {
        let link = |of: &Path| rustix::fs::readlink(of, Vec::new()).map(std::ffi::CString::into_bytes);
        let Ok(here) = link(Path::new("/proc/self/ns/mnt")) else { return Vec::new() };
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let inside = |of: &Path| link(of).is_ok_and(|to| Path::new(OsStr::from_bytes(&to)).starts_with(path));
        let uses = |process: &Path| {
            let mut files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            ["cwd", "root", "exe"].iter().any(|name| inside(&process.join(name)))
                || files.any(|file| inside(&file.path()))
        };
        let shown = |process: PathBuf| {
            let pid = process.file_name()?.to_str()?.parse::<u32>().ok()?;
            let same = link(&process.join("ns/mnt")).is_ok_and(|namespace| namespace == here);
            let comm = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            (same && uses(&process)).then(|| format!("{pid} ({})", comm.trim()))
        };
        processes.flatten().filter_map(|process| shown(process.path())).take(MOST_USERS).collect()
    }
}

impl MountTable {
    /// Reads the text of `mountinfo`. Lines that do not look like one are left out.
    pub fn parse(text: &str) -> Self {
        Self { mounts: text.lines().filter_map(mount).collect() }
    }

    /// Every mount, in the kernel's order.
    pub fn all(&self) -> &[Mount] {
        &self.mounts
    }

    /// The mount that a path leads into, taken as it stands: links are for the caller. Hidden mounts (below a later one, or
    /// under another at the same place) are not led into.
    pub fn leading_to(&self, path: &str) -> Option<&Mount> {
        let ids: std::collections::BTreeSet<u32> = self.mounts.iter().map(|mount| mount.id).collect();
        let rooted = |mount: &&Mount| mount.point == "/" && !ids.contains(&mount.parent);
        let mut here = self.mounts.iter().find(rooted)?;
        // Each step goes to another mount, so it ends; the bound is for tables that were read while they changed.
        for _ in 0..self.mounts.len() {
            let leads = |mount: &&Mount| {
                mount.parent == here.id && mount.id != here.id && Path::new(path).starts_with(&mount.point)
            };
            match self.mounts.iter().filter(leads).min_by_key(|mount| mount.point.len()) {
                Some(next) => here = next,
                None => break,
            }
        }
        Some(here)
    }

    /// The topmost mount at exactly that path.
    pub fn on(&self, path: &str) -> Option<&Mount> {
        self.leading_to(path).filter(|mount| mount.point == path)
    }

    /// Mount points below a path.
    pub fn below(&self, path: &str) -> Vec<&str> {
        let inside = |mount: &&Mount| mount.point != path && Path::new(&mount.point).starts_with(path);
        self.mounts.iter().filter(inside).map(|mount| mount.point.as_str()).collect()
    }

    /// The device that a path lies on, and its place on that: what a bind mount of it shows as `device` and `root`.
    pub fn place_of(&self, path: &str) -> Option<(&str, String)> {
        let mount = self.leading_to(path)?;
        let rest = Path::new(path).strip_prefix(&mount.point).ok()?.to_str()?;
        let root = if rest.is_empty() { mount.root.clone() } else { joined(&mount.root, rest) };
        Some((&mount.device, root))
    }

    /// A path that shows the same as a mount does, by another mount of its file system: where a bind mount was taken from.
    pub fn origin_of(&self, mount: &Mount) -> Option<String> {
        let origin = |other: &Mount| {
            let visible = self.on(&other.point).is_some_and(|top| top.id == other.id);
            if other.id == mount.id || other.device != mount.device || !visible {
                return None;
            }
            let rest = Path::new(&mount.root).strip_prefix(&other.root).ok()?.to_str()?;
            Some(if rest.is_empty() { other.point.clone() } else { joined(&other.point, rest) })
        };
        self.mounts.iter().filter_map(origin).min_by_key(String::len)
    }
}

fn joined(base: &str, rest: &str) -> String {
    format!("{}/{rest}", base.trim_end_matches('/'))
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (id, parent, device) = (left.next()?.parse().ok()?, left.next()?.parse().ok()?, left.next()?.to_owned());
    let (root, point, flags) = (unescape(left.next()?), unescape(left.next()?), list(left.next()?));
    let mut right = right.split(' ');
    let (kind, source, options) = (unescape(right.next()?), unescape(right.next()?), list(right.next().unwrap_or("")));
    Some(Mount { id, parent, device, root, point, flags, kind, source, options })
}

fn list(options: &str) -> Vec<String> {
    options.split(',').filter(|option| !option.is_empty()).map(unescape).collect()
}

/// `\040` is a blank: what mountinfo and fstab do with blanks, tabs, line ends and backslashes.
pub fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code =
            after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,nosuid shared:5 master:1 - proc proc rw
40 27 254:0 /srv/a\\040b /opt/x ro,relatime - ext4 /dev/vda rw
41 27 0:50 / /opt/y rw,relatime - fuse.sshfs me@store:/web\\040data rw,user_id=0
42 41 0:51 / /opt/y rw - tmpfs tmpfs rw,size=64k
43 27 0:52 / /opt/hidden/deep rw - tmpfs deep rw
44 27 0:53 / /opt/hidden rw - tmpfs over rw
";

    fn table() -> MountTable {
        MountTable::parse(TABLE)
    }

    #[test]
    fn lines_and_escapes() {
        let table = table();
        assert_eq!(table.all().len(), 7);
        let found = table.on("/opt/x").unwrap();
        assert_eq!(
            (found.root.as_str(), found.flags.as_slice()),
            ("/srv/a b", ["ro".to_owned(), "relatime".to_owned()].as_slice())
        );
        assert_eq!(table.all()[3].source, "me@store:/web data");
        assert_eq!(unescape("a\\134b\\011\\9\\04"), "a\\b\t\\9\\04");
    }

    #[test]
    fn the_topmost_counts_and_hidden_ones_do_not() {
        let table = table();
        assert_eq!(table.on("/opt/y").unwrap().kind, "tmpfs");
        assert_eq!(table.on("/opt"), None);
        assert_eq!(table.on("/opt/hidden").unwrap().source, "over");
        assert_eq!(table.on("/opt/hidden/deep"), None);
        assert_eq!(table.leading_to("/opt/hidden/deep/f").unwrap().source, "over");
        assert_eq!(table.leading_to("/optional").unwrap().point, "/");
        assert_eq!(table.below("/opt/hidden"), ["/opt/hidden/deep"]);
        assert_eq!(MountTable::default().leading_to("/"), None);
    }

    #[test]
    fn binds_and_where_they_are_from() {
        let table = table();
        assert_eq!(table.place_of("/srv/a b"), Some(("254:0", "/srv/a b".to_owned())));
        assert_eq!(table.place_of("/opt/x/sub"), Some(("254:0", "/srv/a b/sub".to_owned())));
        assert_eq!(table.place_of("/"), Some(("254:0", "/".to_owned())));
        assert_eq!(table.origin_of(table.on("/opt/x").unwrap()).as_deref(), Some("/srv/a b"));
        assert_eq!(table.origin_of(table.on("/opt/y").unwrap()), None);
    }
}
