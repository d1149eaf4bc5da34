//! Who listens on a port of this host (`proc_net_tcp` in the kernel's documentation).

use std::os::unix::fs::MetadataExt;

use super::Probe;
use crate::failure::{Context, Failure};

/// The state `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its process number, when it could be found.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
}

impl Probe {
    /// Who listens on a TCP port of the host, on whatever address.
    pub fn listener(&self, port: u16) -> Result<Option<Listener>, Failure> {
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            let text = match std::fs::read_to_string(table) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.with_context(|| format!("cannot read {table}"))?,
            };
            if let Some(inode) = text.lines().find_map(|line| listening(line, port)) {
                return Ok(Some(owner(inode)));
            }
        }
        Ok(None)
    }

    /// Whether two processes see the same files: those of one container do.
    pub fn share_files(&self, one: u32, other: u32) -> bool {
        let space =
            |pid: u32| std::fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|seen| (seen.dev(), seen.ino()));
        let one = space(one);
        one.is_some() && one == space(other)
    }
}

/// The inode of a listening socket with that port: `  0: 0100007F:1F90 00000000:0000 0A … uid timeout inode`.
pub(super) fn listening(line: &str, port: u16) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (_, hex) = words.nth(1)?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?;
    (u16::from_str_radix(hex, 16).ok()? == port && state == LISTEN).then(|| inode.parse().ok())?
}

/// The first process that has the socket open.
fn owner(inode: u64) -> Listener {
    let socket = format!("socket:[{inode}]");
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
    };
    let pid = pids.into_iter().find(has);
    let name = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Listener { pid, name: name.map_or_else(|| "another process".to_owned(), |name| name.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::listening;

    #[test]
    fn a_line_of_the_kernels_table() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 51766 1 0 100 0 0 10 0";
        assert_eq!(listening(line, 8080), Some(51766));
        assert_eq!(listening(line, 8081), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 8080), None);
    }
}
