//! What a lab's things are called and where they are: all of it follows from the lab's name, folder and network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure};

/// Where running labs are remembered, one file each. `/run` forgets them when the machine starts anew, as the kernel does.
const RUNNING: &str = "/run/fanli-lab";

/// Places that every host sees as its own and empty. `/root` among them: what this machine's login files start is no part of a
/// host. `/tmp` comes last: a lab's folder may lie below it.
pub(super) const PRIVATE: [&str; 6] = ["/run", "/data", "/root", "/var/lib/docker", "/var/lib/fanli", "/tmp"];

/// Places of which every host has its own version: what it writes there, no other host sees.
pub(super) const OVERLAID: [&str; 9] =
    ["/etc", "/home", "/opt", "/srv", "/usr", "/var/cache", "/var/log", "/var/lib/apt", "/var/lib/dpkg"];

/// A lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lab {
    /// Its name.
    pub(super) name: String,
    /// Its folder.
    pub(super) dir: PathBuf,
    /// The network of hosts and nodes.
    pub(super) network: Ipv4Net,
    /// Whether this lab turned on `net.ipv4.ip_forward`, and has to turn it off again.
    #[serde(default)]
    pub(super) forwarding: bool,
    /// Folders of this machine that had to be made for hosts to mount their own over them.
    #[serde(default)]
    pub(super) made: Vec<PathBuf>,
}

/// One host of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// From 1.
    pub(super) number: u8,
    /// `lab1`: its hostname and its name in the inventory.
    pub(super) name: String,
    /// Its network namespace, and this machine's end of its cable.
    pub(super) link: String,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// Its files.
    pub(super) dir: PathBuf,
}

impl Lab {
    /// A lab that may or may not run.
    ///
    /// # Errors
    /// When the name does not fit into an interface's name, or the folder or the network cannot be used.
    pub(super) fn new(name: &str, dir: &Path, network: Ipv4Net) -> Result<Self, Failure> {
        check_name(name)?;
        if network.prefix_len() != 16 || network.addr() != network.network() {
            return Err(Failure::new(format!("`{network}` is not a /16 network")).hint("for example: 10.88.0.0/16"));
        }
        let odd = |c: char| c == ':' || c == ',' || c == '\\' || c.is_whitespace() || c.is_control();
        if !dir.is_absolute() || dir.components().any(|part| part.as_os_str() == "..") {
            return Err(Failure::new(format!("`{}` is not an absolute path", dir.display())));
        }
        if dir.to_str().is_none_or(|text| text.contains(odd)) {
            return Err(Failure::new(format!("`{}` cannot be the source of an overlay", dir.display()))
                .hint("use a folder without spaces, colons, commas and backslashes in its path"));
        }
        let own = PRIVATE.iter().filter(|place| **place != "/tmp").chain(&OVERLAID);
        if let Some(place) = own.into_iter().find(|place| dir.starts_with(place)) {
            return Err(Failure::new(format!("{} lies below {place}, which every host has for itself", dir.display()))
                .hint(format!("use {} or a folder below /tmp", super::DIR)));
        }
        Ok(Self { name: name.to_owned(), dir: dir.join(name), network, forwarding: false, made: Vec::new() })
    }

    /// The running lab of that name, if there is one.
    ///
    /// # Errors
    /// When the name cannot be a lab's, or what was written down about it cannot be read.
    pub(super) fn find(name: &str) -> Result<Option<Self>, Failure> {
        check_name(name)?;
        let path = Self::file(name);
        let failed = || format!("cannot read {}", path.display());
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(failed),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(failed),
        }
    }

    /// The running lab of that name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn running(name: &str) -> Result<Self, Failure> {
        Self::find(name)?.ok_or_else(|| {
            Failure::new(format!("there is no lab `{name}`")).hint(format!("start one: fanli lab up 3 --name {name}"))
        })
    }

    /// Remembers that the lab runs.
    pub(super) fn remember(&self) -> Result<(), Failure> {
        let path = Self::file(&self.name);
        std::fs::create_dir_all(RUNNING).with_context(|| format!("cannot make {RUNNING}"))?;
        let text = serde_json::to_string(self).context("cannot write down the lab")?;
        let new = path.with_extension("new");
        std::fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets it; the folder of all labs goes with the last one.
    pub(super) fn forget(name: &str) {
        let _ = std::fs::remove_file(Self::file(name));
        let _ = std::fs::remove_file(Self::lock(name));
        let _ = std::fs::remove_dir(RUNNING);
    }

    /// Returns a running lab of another name, if there is one.
    ///
    /// # Errors
    /// When what was written down about it cannot be read.
    pub(super) fn another(name: &str) -> Result<Option<Self>, Failure> {
        let entries = std::fs::read_dir(RUNNING).into_iter().flatten().flatten().map(|entry| entry.path());
        let names = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let mut others =
            names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).filter(|other| other != name);
        others.next().map_or(Ok(None), |other| Self::find(&other))
    }

    fn file(name: &str) -> PathBuf {
        Path::new(RUNNING).join(format!("{name}.json"))
    }

    /// The file that `up` and `down` lock, so that only one of them works on a lab.
    pub(super) fn lock(name: &str) -> PathBuf {
        Path::new(RUNNING).join(format!("{name}.lock"))
    }

    /// The bridge that is the lab's switch.
    pub(super) fn bridge(&self) -> String {
        format!("fl-{}", self.name)
    }

    /// This machine's address in the lab: gateway of hosts and nodes.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.address(255, 254)
    }

    fn address(&self, third: u8, fourth: u8) -> Ipv4Addr {
        let [first, second, ..] = self.network.network().octets();
        Ipv4Addr::new(first, second, third, fourth)
    }

    /// The host of that number.
    pub(super) fn host(&self, number: u8) -> Host {
        let name = format!("{}{number}", self.name);
        Host {
            number,
            link: format!("{}-{number}", self.bridge()),
            address: self.address(0, number),
            dir: self.dir.join(&name),
            name,
        }
    }

    /// The hosts that have a network namespace or files, in order.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let numbers = |folder: &Path, start: &str| -> BTreeSet<u8> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(start)?.parse().ok()).collect()
        };
        let mut found = numbers(Path::new(NETNS), &format!("{}-", self.bridge()));
        found.extend(numbers(&self.dir, &self.name));
        found.into_iter().map(|number| self.host(number)).collect()
    }

    /// The ssh configuration of the lab.
    pub(super) fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }
}

impl Host {
    /// Its network namespace as a file.
    pub(super) fn netns(&self) -> PathBuf {
        Path::new(NETNS).join(&self.link)
    }

    /// Its Docker socket, seen from this machine.
    pub(super) fn docker(&self) -> PathBuf {
        self.dir.join("run/docker.sock")
    }

    /// The parent of its containers' control groups, below each controller's folder.
    pub(super) fn cgroup(&self) -> String {
        format!("fanli-lab/{}", self.name)
    }
}

/// Where iproute2 keeps named network namespaces.
const NETNS: &str = "/run/netns";

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // An interface's name has 15 letters: `fl-`, the name, `-`, three digits.
    if name.is_empty() || name.len() > 8 || !name.chars().all(fits) {
        return Err(Failure::new(format!("`{name}` cannot be a lab's name")).hint("use 1 to 8 of a-z and 0-9"));
    }
    // `lab1` beside a lab `lab` with a host `lab1` would be a riddle.
    if name.ends_with(|c: char| c.is_ascii_digit()) {
        return Err(Failure::new(format!("`{name}` ends with a digit, as only hosts do")).hint("end it with a letter"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(name: &str, dir: &str, network: &str) -> Result<Lab, Failure> {
        Lab::new(name, Path::new(dir), network.parse().unwrap())
    }

    #[test]
    fn everything_follows_from_the_name() {
        let lab = lab("lab", "/var/lib/fanli-lab", "10.88.0.0/16").unwrap();
        let host = lab.host(200);
        assert_eq!((lab.bridge().as_str(), lab.gateway().to_string().as_str()), ("fl-lab", "10.88.255.254"));
        assert_eq!((host.name.as_str(), host.link.as_str()), ("lab200", "fl-lab-200"));
        assert_eq!(host.address.to_string(), "10.88.0.200");
        assert_eq!(host.dir, Path::new("/var/lib/fanli-lab/lab/lab200"));
        assert!(Lab { name: "eightlet".to_owned(), ..lab }.host(200).link.len() <= 15);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (name, dir, network) in [
            ("", "/x", "10.88.0.0/16"),
            ("ninechars", "/x", "10.88.0.0/16"),
            ("Lab", "/x", "10.88.0.0/16"),
            ("lab1", "/x", "10.88.0.0/16"),
            ("../a", "/x", "10.88.0.0/16"),
            ("lab", "x", "10.88.0.0/16"),
            ("lab", "/x/../y", "10.88.0.0/16"),
            ("lab", "/x:y", "10.88.0.0/16"),
            ("lab", "/opt/lab", "10.88.0.0/16"),
            ("lab", "/run/lab", "10.88.0.0/16"),
            ("lab", "/x", "10.88.0.0/24"),
            ("lab", "/x", "10.88.1.0/16"),
        ] {
            assert!(lab(name, dir, network).is_err(), "{name} {dir} {network}");
        }
        assert!(lab("lab", "/tmp/x", "10.88.0.0/16").is_ok());
    }
}
