//! Accounts as the files of `/etc` tell them: `passwd(5)`, `group(5)`, and who has a line in `shadow(5)` and `gshadow(5)`.
//!
//! A static binary has no name service switch, and fanli keeps local accounts only: what LDAP or NIS know is not here.

use std::collections::{BTreeMap, BTreeSet};

use super::Probe;
use crate::failure::Failure;

/// The longest table that is read.
const MOST_ACCOUNTS: u64 = 16 << 20;

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its primary group.
    pub gid: u32,
    /// The full name and more (GECOS).
    pub comment: String,
    /// The home directory.
    pub home: String,
    /// The login shell.
    pub shell: String,
    /// Whether the password is said to be in `/etc/shadow`.
    pub shadowed: bool,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// The users for whom it is a supplementary group.
    pub members: Vec<String>,
    /// Whether the password is said to be in `/etc/gshadow`.
    pub shadowed: bool,
}

impl Probe {
    /// Every user of `/etc/passwd`, in its order. Lines that name no number (`+` of NIS) are left out.
    pub fn users(&self) -> Result<Vec<User>, Failure> {
        Ok(self.table("/etc/passwd")?.lines().filter_map(user).collect())
    }

    /// Every group of `/etc/group`, in its order.
    pub fn groups(&self) -> Result<Vec<Group>, Failure> {
        Ok(self.table("/etc/group")?.lines().filter_map(group).collect())
    }

    /// The names that have a line in `/etc/shadow`; `None` where there is no such file, or for anybody but root. Nothing else
    /// of it is kept.
    pub fn shadowed_users(&self) -> Result<Option<BTreeSet<String>>, Failure> {
        let table = self.shadow_table("/etc/shadow")?;
        Ok(table.map(|table| table.lines().filter_map(first).map(str::to_owned).collect()))
    }

    /// The groups that have a line in `/etc/gshadow`, each with its members there; `None` as for [`Probe::shadowed_users`].
    pub fn shadowed_groups(&self) -> Result<Option<BTreeMap<String, Vec<String>>>, Failure> {
        let group = |line: &str| Some((first(line)?.to_owned(), names(line.split(':').nth(3).unwrap_or_default())));
        Ok(self.shadow_table("/etc/gshadow")?.map(|table| table.lines().filter_map(group).collect()))
    }

    fn shadow_table(&self, path: &str) -> Result<Option<String>, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let bytes = self.read(path, MOST_ACCOUNTS)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn table(&self, path: &str) -> Result<String, Failure> {
        // Other people's full names need not be UTF-8.
        let bytes = self.read(path, MOST_ACCOUNTS)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn first(line: &str) -> Option<&str> {
    line.split_once(':').map(|(name, _)| name)
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let mut next = || fields.next();
    let (name, password, uid, gid) = (next()?, next()?, next()?.parse().ok()?, next()?.parse().ok()?);
    let mut text = || next().unwrap_or_default().to_owned();
    let (comment, home, shell) = (text(), text(), text());
    Some(User { name: name.to_owned(), uid, gid, comment, home, shell, shadowed: password == "x" })
}

fn group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let (name, password, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    let members = names(fields.next().unwrap_or_default());
    Some(Group { name: name.to_owned(), gid, members, shadowed: password == "x" })
}

fn names(list: &str) -> Vec<String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tables() {
        let web = user("web:x:501:502:Web, Tier:/nonexistent:/usr/sbin/nologin").unwrap();
        assert_eq!((web.uid, web.gid, web.comment.as_str(), web.shadowed), (501, 502, "Web, Tier", true));
        assert_eq!(user("web:!:501:502").unwrap().shell, "");
        assert_eq!(user("+::::::"), None);
        assert_eq!(user("# web:x:501"), None);
        assert_eq!(user(""), None);
        let group_of = |line| group(line).map(|group| (group.gid, group.members.join("+"), group.shadowed));
        assert_eq!(group_of("docker:x:990:a,b"), Some((990, "a+b".to_owned(), true)));
        assert_eq!(group_of("docker::990:"), Some((990, String::new(), false)));
        assert_eq!(group_of("docker:x:990"), Some((990, String::new(), true)));
        assert_eq!(group_of("+:::"), None);
    }
}
