//! Packages of the host's distribution: apt, dnf and yum behind one interface.
//!
//! Looking asks the local database once for all names and touches no network. Which family a host has is told by the
//! database that it keeps, not by the programs that lie around.

mod apt;
mod locks;
mod policy;
mod rpm;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

pub use apt::held;

use super::fs::{Lock, lock};
use super::{Actuator, Probe};
use crate::failure::{Failure, FailureKind};

/// One package that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// The version that it is to have; a `*` at the end stands for anything. Any version will do when there is none.
    pub version: Option<String>,
}

impl Wish {
    /// Reads `name` or `name=version`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, version)) => Self { name: name.to_owned(), version: Some(version.to_owned()) },
            None => Self { name: text.to_owned(), version: None },
        }
    }

    /// Whether a version is what was wished: asked of what is installed, and of what is offered.
    pub fn accepts(&self, version: &str) -> bool {
        let Some(wanted) = &self.version else { return true };
        let matches = |version: &str| match wanted.strip_suffix('*') {
            Some(start) => version.starts_with(start),
            None => version == wanted,
        };
        // An epoch is rarely written down.
        matches(version) || version.split_once(':').is_some_and(|(_, rest)| matches(rest))
    }
}

/// What the database says about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing of it is there.
    Absent,
    /// It was removed; its configuration is still there (dpkg only).
    Leftover,
    /// Something was interrupted: dpkg's word for it, such as `half-configured`.
    Broken(String),
    /// Installed, in this version.
    Installed(String),
    /// The same, and somebody has forbidden to change it (`apt-mark hold`).
    Held(String),
}

/// What to install, and how.
#[derive(Clone, Debug)]
pub struct Install {
    /// What is missing, broken or of another version.
    pub wishes: Vec<Wish>,
    /// Whether what is only recommended comes too.
    pub recommends: bool,
    /// Whether daemons of the packages may start at once.
    pub start: bool,
    /// Whether others may be removed for it.
    pub may_remove: bool,
    /// Lists older than this are refreshed first.
    pub refresh: Option<Duration>,
    /// How long other package managers are waited for: limit `lock_wait`.
    pub lock_wait: Duration,
}

/// What to remove, and how.
#[derive(Clone, Debug)]
pub struct Remove {
    /// Names of packages that are there.
    pub names: Vec<String>,
    /// Whether configuration and data go too (dpkg only).
    pub purge: bool,
    /// Whether what needs them may go too.
    pub may_remove: bool,
    /// How long other package managers are waited for: limit `lock_wait`.
    pub lock_wait: Duration,
}

/// The families of distributions that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Apt,
    Rpm(&'static str),
}

/// Shared by all that work on this database, also by docker hosts that have a state folder of their own.
const SHARED: &str = "/var/cache/fanli";

impl Probe {
    fn family(&self) -> Result<Family, Failure> {
        if self.stat_following(apt::STATUS)?.is_some_and(|entry| entry.size > 0) {
            return Ok(Family::Apt);
        }
        for manager in ["dnf", "yum"] {
            if self.program(manager)?.is_some() {
                return Ok(Family::Rpm(manager));
            }
        }
        Err(Failure::new("this host has no package manager that fanli knows")
            .because(format!("{} is not there, and neither `dnf` nor `yum`", apt::STATUS)))
    }

    /// What is known of each of these packages.
    ///
    /// # Errors
    /// The host has no known package manager, or its database cannot be read.
    pub async fn packages(&self, names: &[&str]) -> Result<BTreeMap<String, Found>, Failure> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        match self.family()? {
            Family::Apt => self.dpkg_query(names).await,
            Family::Rpm(_) => self.rpm_query(names).await,
        }
    }
}

impl Actuator {
    /// Installs packages. What an interrupted run left half done is finished first.
    ///
    /// # Errors
    /// A package or a version that nobody offers, by name; a lock that is not freed in time; what the package manager says.
    pub async fn install(&self, install: &Install) -> Result<(), Failure> {
        let family = self.family()?;
        let wait = Wait::new(install.lock_wait);
        let _one = self.packages_lock(&wait).await?;
        match family {
            Family::Apt => self.apt_install(install, &wait).await,
            Family::Rpm(manager) => self.rpm_install(manager, install, &wait).await,
        }
    }

    /// Removes packages that are there.
    ///
    /// # Errors
    /// Others need them, and may not go too; a lock that is not freed in time; what the package manager says.
    pub async fn uninstall(&self, remove: &Remove) -> Result<(), Failure> {
        let family = self.family()?;
        let wait = Wait::new(remove.lock_wait);
        let _one = self.packages_lock(&wait).await?;
        match family {
            Family::Apt => self.apt_remove(remove, &wait).await,
            Family::Rpm(manager) => self.rpm_remove(manager, remove, &wait).await,
        }
    }

    /// The wishes, each with the whole version that is there where it is what was wished: naming it keeps it as it is.
    async fn as_installed(&self, wishes: &[Wish]) -> Result<Vec<Wish>, Failure> {
        let names: Vec<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
        let found = self.packages(&names).await?;
        let exact = |wish: &Wish| match found.get(&wish.name) {
            Some(Found::Installed(version) | Found::Held(version))
                if wish.version.is_some() && wish.accepts(version) =>
            {
                Wish { name: wish.name.clone(), version: Some(version.clone()) }
            }
            _ => wish.clone(),
        };
        Ok(wishes.iter().map(exact).collect())
    }

    async fn packages_lock(&self, wait: &Wait) -> Result<Lock, Failure> {
        self.own_dirs([SHARED])?;
        let note = format!("packages, by process {}", std::process::id());
        lock(Path::new(SHARED).join("packages.lock"), &note, wait.limit).await
    }
}

/// How long a lock is still waited for.
struct Wait {
    limit: Duration,
    until: Instant,
}

impl Wait {
    fn new(limit: Duration) -> Self {
        Self { limit, until: Instant::now() + limit }
    }

    fn over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn failure(&self, message: String) -> Failure {
        Failure::of(FailureKind::Timeout, message)
            .because(Failure::timeout("lock_wait", self.limit).message)
            .hint("see what the other process does; raise `lock_wait` in the task when it only needs longer")
    }
}

/// The failure of a change that would take others with it.
fn others_would_go(doing: &str, others: &[String]) -> Failure {
    Failure::new(format!("{doing} would also remove {}", listed(others)))
        .hint("name them in a `package` task of their own, or say `may_remove = true`")
}

/// Names as messages list them.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<String> = names.iter().take(12).map(|name| format!("`{}`", name.as_ref())).collect();
    let rest = names.len() - shown.len();
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::{Wish, listed};

    #[test]
    fn versions() {
        let accepts = |wish: &str, version: &str| Wish::parse(wish).accepts(version);
        assert!(accepts("a", "1"));
        assert!(accepts("a=1.2-3", "1.2-3"));
        assert!(!accepts("a=1.2", "1.2-3"));
        assert!(accepts("a=1.2*", "1.2-3"));
        assert!(accepts("a=1.2*", "1:1.2-3"));
        assert!(accepts("a=1:1.2-3", "1:1.2-3"));
        assert!(!accepts("a=2:1.2-3", "1:1.2-3"));
        assert!(!accepts("a=1.2*", "1.1"));
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed(&["a", "b"]), "`a`, `b`");
        assert!(listed(&["a"; 20]).ends_with("`a` and 8 more"));
    }
}
