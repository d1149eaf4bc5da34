//! Whether a running container sees the directories that were declared for it.
//!
//! A mount stays what it was: a link that was turned, a directory that was made anew, a share that was mounted later show on the host
//! alone. The kernel's tables of mounts are compared, the device and the place on it. Nothing is opened, so a dead server hangs nobody,
//! and nothing that the container could make says where to look.

use std::collections::BTreeMap;
use std::path::Path;

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

/// A share or a volume that was mounted on the host below a directory after the container had started, so that it sees what was there
/// before: its place inside, and what is mounted. `others` are the places of the container's other mounts.
fn missed<'a>(
    from: &str,
    to: &str,
    others: &[&str],
    host: &'a MountTable,
    inside: &MountTable,
) -> Option<(String, &'a Mount)> {
    // Where the place is a link in the image, what it leads to is not known here.
    inside.on(to)?;
    // Not what comes and goes with programs and containers.
    let lasts = |mount: &&Mount| mount.is_far() || mount.source.starts_with("/dev/");
    host.below(from).into_iter().filter_map(|point| host.on(point)).filter(lasts).find_map(|mount| {
        let place = Path::new(to).join(Path::new(&mount.point).strip_prefix(from).ok()?);
        let covered = |other: &&str| Path::new(*other).starts_with(to) && **other != *to && place.starts_with(*other);
        let place = place.to_str()?.to_owned();
        let shown = inside.place_of(&place) == host.place_of(&mount.point);
        (!shown && !others.iter().any(covered)).then_some((place, mount))
    })
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
        let places: Vec<&str> = self.mounts.iter().map(|arrow| arrow.to.as_str()).collect();
        let strayed = self.mounts.iter().zip(real).filter_map(|(arrow, real)| {
            let Some(real) = real else { return Some((arrow, format!("{} is not there", arrow.from))) };
            match &inside {
                Some(inside) => match instead(&real, &arrow.to, &host, inside) {
                    Some(seen) => Some((arrow, format!("shows {}", described(&seen, &host)))),
                    None => {
                        let (place, mount) = missed(&real, &arrow.to, &places, &host, inside)?;
                        Some((arrow, format!("{place} was seen before {} was mounted there", mount.source)))
                    }
                },
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
    #[test]
    fn what_was_mounted_below_it_later() {
        let host = MountTable::parse(
            "27 1 254:0 / / rw - ext4 /dev/vda rw\n40 27 0:50 / /srv/two/up rw - nfs store:/web rw\n\
             41 27 0:51 / /srv/two/tmp rw - tmpfs tmpfs rw\n",
        );
        let missed = |others: &[&str], more: &str| {
            let inside = inside(&format!("81 80 254:0 /srv/two /www rw - ext4 /dev/vda rw\n{more}"));
            missed("/srv/two", "/www", others, &host, &inside).map(|(place, mount)| (place, mount.source.clone()))
        };
        assert_eq!(missed(&["/www"], ""), Some(("/www/up".to_owned(), "store:/web".to_owned())));
        assert_eq!(missed(&["/www"], "82 81 0:50 / /www/up rw - nfs store:/web rw"), None);
        // Another of its mounts stands there.
        assert_eq!(missed(&["/www", "/www/up"], "82 81 254:0 /srv/one /www/up rw - ext4 /dev/vda rw"), None);
    }
}
