//! Whether a running container sees the directories that were declared for it.
//!
//! A mount stays what it was: a link that was turned, a directory that was made anew, a share that was mounted later show on the host
//! alone. The kernel's tables of mounts are compared, the device and the place on it. Nothing is opened, so a dead server hangs nobody,
//! and nothing that the container could make says where to look.

use std::collections::BTreeMap;

use super::Container;
use super::spec::shown;
use crate::failure::Failure;
use crate::system::Probe;
use crate::system::docker::Container as Found;
use crate::system::mounts::{Mount, MountTable};
use crate::value::Value;

/// What a container sees at a place instead of a directory of the host.
enum Instead<'a> {
    Another(&'a Mount),
    Nothing,
}

/// `None` when it sees that directory.
fn instead<'a>(from: &str, to: &str, host: &MountTable, inside: &'a MountTable) -> Option<Instead<'a>> {
    let shows = |mount: &Mount| host.place_of(from) == Some((&mount.device, mount.root.clone()));
    match inside.on(to) {
        Some(mount) => (!shows(mount)).then_some(Instead::Another(mount)),
        // The place may be a link in the image, which Docker followed.
        None => (!inside.all().iter().any(shows)).then_some(Instead::Nothing),
    }
}

/// As messages say what is seen.
fn described(seen: &Instead, host: &MountTable) -> String {
    let Instead::Another(mount) = seen else { return "nothing of the host".to_owned() };
    match host.origin_of(mount) {
        _ if mount.root.ends_with("//deleted") => "a directory that was removed".to_owned(),
        Some(path) => path,
        None => format!("{} of another {} ({})", mount.root, mount.kind, mount.source),
    }
}

/// Why a container that was just started must not run: it was given another directory than the one that was looked at.
pub(super) fn mistaken(found: &Found, probe: &Probe) -> Result<Option<Failure>, Failure> {
    let Some(pid) = found.pid.filter(|_| !found.mounts.is_empty()) else { return Ok(None) };
    let (Some(inside), host) = (probe.mounts_of(pid)?, probe.mounts()?) else { return Ok(None) };
    // It may have ended meanwhile.
    if inside.all().is_empty() {
        return Ok(None);
    }
    let wrong = found.mounts.iter().find_map(|(to, from)| Some((to, from, instead(from, to, &host, &inside)?)));
    Ok(wrong.map(|(to, from, seen)| {
        let seen = described(&seen, &host);
        Failure::new(format!("container {} was given {seen} as {to} instead of {from}: it was stopped", found.name))
            .hint("something changes that path while it is mounted: let its directories belong to root alone")
    }))
}

impl Container {
    /// The declared mounts that are not what they should be, as the field `mounts` shows them: by the words of the declaration.
    pub(super) async fn strayed(&self, found: &Found, probe: &Probe) -> Result<BTreeMap<String, Value>, Failure> {
        if self.mounts.is_empty() {
            return Ok(BTreeMap::new());
        }
        let host = probe.mounts()?;
        let inside = found.pid.map(|pid| probe.mounts_of(pid)).transpose()?.flatten();
        let inside = inside.filter(|inside| !inside.all().is_empty());
        let real = probe.real_places(self.mounts.iter().map(|arrow| arrow.from.clone()).collect()).await?;
        let strayed = self.mounts.iter().zip(real).filter_map(|(arrow, real)| {
            let Some(real) = real else { return Some((arrow, format!("{} is not there", arrow.from))) };
            match &inside {
                Some(inside) => {
                    let seen = instead(&real, &arrow.to, &host, inside)?;
                    Some((arrow, format!("shows {}", described(&seen, &host))))
                }
                // It would be started with what it was made with.
                None => {
                    let made_with = found.mounts.get(&arrow.to).filter(|made_with| **made_with != real)?;
                    Some((arrow, format!("was made with {made_with}")))
                }
            }
        });
        Ok(strayed.map(|(arrow, what)| (shown(arrow), Value::Str(format!("{} ({what})", shown(arrow))))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(line: &str) -> MountTable {
        MountTable::parse(&format!("80 70 0:90 / / rw - overlay overlay rw\n{line}\n"))
    }

    #[test]
    fn what_is_seen_instead() {
        let host =
            MountTable::parse("27 1 254:0 / / rw - ext4 /dev/vda rw\n40 27 0:50 / /srv/share rw - nfs store:/web rw\n");
        let seen = |from: &str, line: &str| {
            let inside = inside(line);
            instead(from, "/www", &host, &inside).map(|seen| described(&seen, &host))
        };
        assert_eq!(seen("/srv/two", "81 80 254:0 /srv/two /www rw - ext4 /dev/vda rw"), None);
        assert_eq!(seen("/srv/two", "81 80 254:0 /srv/one /www rw - ext4 /dev/vda rw").unwrap(), "/srv/one");
        // Where the image has a link at /www.
        assert_eq!(seen("/srv/two", "81 80 254:0 /srv/two /var/www rw - ext4 /dev/vda rw"), None);
        assert_eq!(
            seen("/srv/two", "81 80 254:0 /srv/one /var/www rw - ext4 /dev/vda rw").unwrap(),
            "nothing of the host"
        );
        // Made anew, and mounted later.
        let gone = "81 80 254:0 /srv/two//deleted /www rw - ext4 /dev/vda rw";
        assert_eq!(seen("/srv/two", gone).unwrap(), "a directory that was removed");
        assert_eq!(seen("/srv/share", "81 80 254:0 /srv/share /www rw - ext4 /dev/vda rw").unwrap(), "/srv/share");
        assert_eq!(seen("/srv/share/a", "81 80 0:50 /a /www rw - nfs store:/web rw"), None);
    }
}
