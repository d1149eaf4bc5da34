//! `package`: packages of the host's distribution.

use std::time::Duration;

use super::param::Presence;
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, State};
use crate::failure::Failure;
use crate::system::packages::{Found, Install, Remove, Wish, held as held_packages};
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Keeps packages installed, or away: by apt, dnf or yum, whichever the host has.
    ///
    /// Each name is a package's own; a virtual one, which others only provide, is refused with their names. `name=1.2*` pins a
    /// version: the whole one, or its beginning and a `*`; without it any version is fine, and an installed package is not
    /// upgraded. The beginning may leave out the epoch: `2.3*` is `1:2.3-4`, too. What is pinned and fits stays at its version when
    /// another package of the list is installed. A package that is held (`apt-mark hold`) is left as it is; a task that would have
    /// to change it fails, in check mode too, and the hold stays. There is no `latest`: what it means changes from day to day, so
    /// the same playbook would not give the same hosts.
    ///
    /// Looking touches no network. The lists of packages are refreshed only when they lack a name, when they name files that
    /// the mirror no longer has, or when they are older than `refresh`. A configuration file that somebody changed is kept.
    pub struct Package = "package" {
        /// The packages: names, or `name=version`.
        names: Vec<String>,
        /// Whether they are to be there.
        state: Presence = Presence::Present,
        /// Whether packages that these only recommend are installed too.
        recommends: bool = false,
        /// Whether new packages may start their daemons (Debian's do). Otherwise a `service` task does, with its configuration
        /// in place. A `policy-rc.d` of the host's own has the last word.
        start: bool = false,
        /// Before something is installed: how old the lists of packages may be.
        refresh: Option<Duration>,
        /// Whether other packages may be removed for it: those that need one of these, or that conflict with one.
        may_remove: bool = false,
        /// With `state = absent`: whether configuration and data go too (Debian only).
        purge: bool = false,
        /// How long to wait while another package manager is at work.
        lock_wait: Duration = Duration::from_secs(300),
    }
    example r#"package ["hello", "tree=2.*"]"#
}

impl Package {
    fn wishes(&self) -> Vec<Wish> {
        self.names.iter().map(|name| Wish::parse(name)).collect()
    }
}

impl Resource for Package {
    fn check(&self) -> Result<(), ArgError> {
        let wrong = |message: String| Err(ArgError::new("names", message));
        let mut seen = std::collections::BTreeSet::new();
        for wish in self.wishes() {
            let Wish { name, version } = &wish;
            if let Some(message) = wrong_name(name) {
                return wrong(message);
            }
            match version {
                Some(_) if self.state == Presence::Absent => {
                    return wrong(format!("`{name}` has a version, which means nothing for what is to be `absent`"));
                }
                Some(version) if wrong_version(version) => {
                    return wrong(format!("`{version}` is not a version, nor a version's beginning and a `*`"));
                }
                _ => {}
            }
            if !seen.insert(name.clone()) {
                return wrong(format!("`{name}` stands there twice"));
            }
        }
        let only = |field: &str, state: &str| Err(ArgError::new(field, format!("is for `state = {state}` only")));
        match self.state {
            Presence::Present if self.purge => only("purge", "absent"),
            Presence::Absent if self.recommends => only("recommends", "present"),
            Presence::Absent if self.start => only("start", "present"),
            Presence::Absent if self.refresh.is_some() => only("refresh", "present"),
            _ => Ok(()),
        }
    }

    fn desired(&self) -> State {
        let wanted = |wish: Wish| {
            let state = match self.state {
                Presence::Present => {
                    wish.version.map_or_else(|| Datum::from("installed"), |version| version.as_str().into())
                }
                Presence::Absent => Datum::Absent,
            };
            (wish.name, state)
        };
        State::Present(self.wishes().into_iter().map(wanted).collect())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let wishes = self.wishes();
        let names: Vec<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
        let mut found = probe.packages(&names).await?;
        let must_change = |wish: &&Wish| match found.get(&wish.name) {
            Some(Found::Held(version)) => self.state == Presence::Absent || !wish.accepts(version),
            _ => false,
        };
        let held: Vec<String> = wishes.iter().filter(must_change).map(|wish| wish.name.clone()).collect();
        if !held.is_empty() {
            return Err(held_packages(&held));
        }
        let state = |wish: &Wish| {
            let state = match found.remove(&wish.name).unwrap_or(Found::Absent) {
                Found::Leftover if self.purge => Datum::from("config-files"),
                Found::Absent | Found::Leftover => Datum::Absent,
                Found::Broken(word) => Datum::from(word.as_str()),
                Found::Installed(version) | Found::Held(version) => match &wish.version {
                    None => Datum::from("installed"),
                    Some(wanted) if wish.accepts(&version) => Datum::from(wanted.as_str()),
                    Some(_) => Datum::from(version.as_str()),
                },
            };
            (wish.name.clone(), state)
        };
        Ok(State::Present(wishes.iter().map(state).collect()).into())
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let (lock_wait, may_remove) = (self.lock_wait, self.may_remove);
        match self.state {
            Presence::Present => {
                let mut wishes = self.wishes();
                // A pinned one stays in sight of the solver; any other that is there would be upgraded by being named.
                wishes.retain(|wish| change.touches(&wish.name) || wish.version.is_some());
                let (recommends, start, refresh) = (self.recommends, self.start, self.refresh);
                hands.install(&Install { wishes, recommends, start, may_remove, refresh, lock_wait }).await?;
            }
            Presence::Absent => {
                let names = change.fields.iter().map(|field| field.field.clone()).collect();
                hands.uninstall(&Remove { names, purge: self.purge, may_remove, lock_wait }).await?;
            }
        }
        Ok(Map::new())
    }
}

/// Debian's names and rpm's, with an architecture (`:i386`, `.x86_64`). Nothing that a program would take for an option or a
/// pattern, nor the sign at the end by which apt removes.
fn wrong_name(name: &str) -> Option<String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | ':');
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && !name.ends_with(['-', '.', ':']) && name.chars().all(inner) && name.len() <= 255 {
        return None;
    }
    Some(if name.is_empty() { "an empty name".to_owned() } else { format!("`{name}` is not the name of a package") })
}

fn wrong_version(version: &str) -> bool {
    let start = version.strip_suffix('*').unwrap_or(version);
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | ':' | '~' | '^');
    !start.starts_with(|c: char| c.is_ascii_alphanumeric()) || !start.chars().all(inner) || start.len() > 255
}
