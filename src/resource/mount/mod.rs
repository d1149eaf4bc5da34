//! `mount`: a file system mounted on a directory, now and at every start of the host.

pub(super) mod dead;
mod fstab;
mod hands;
mod options;

use super::param::{HostPath, Param as _};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::fs::EntryKind;
use crate::system::mounts::{Mount as Found, MountTable};
use crate::system::process::Program;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};
use fstab::Line;

/// The longest `/etc/fstab` that is read.
const MOST_FSTAB: u64 = 1 << 20;

crate::choice! {
    /// What is mounted. `sshfs` is short for `fuse.sshfs`.
    pub enum FsType {
        /// A directory or file of this host, shown at a second place.
        Bind = "bind",
        /// Memory.
        Tmpfs = "tmpfs",
        /// NFS of any version.
        Nfs = "nfs",
        /// NFS 4 alone.
        Nfs4 = "nfs4",
        /// A Windows or Samba share.
        Cifs = "cifs",
        /// A directory over SSH.
        Sshfs = "sshfs",
        /// The same by its full name.
        FuseSshfs = "fuse.sshfs",
        /// A bucket, by s3fs.
        S3fs = "fuse.s3fs",
        /// A remote of rclone.
        Rclone = "fuse.rclone",
        /// A Gluster volume.
        Gluster = "glusterfs",
        /// A Ceph file system.
        Ceph = "ceph",
        /// A disk with ext3.
        Ext3 = "ext3",
        /// A disk with ext4.
        Ext4 = "ext4",
        /// A disk with XFS.
        Xfs = "xfs",
        /// A disk with Btrfs.
        Btrfs = "btrfs",
        /// A disk with VFAT.
        Vfat = "vfat",
        /// Layers over each other.
        Overlay = "overlay",
        /// A CD image.
        Iso9660 = "iso9660",
        /// A compressed image.
        Squashfs = "squashfs",
    }
}

crate::choice! {
    /// What is to become of the mount.
    pub enum MountState {
        /// Mounted now, and at every start when `fstab` says so.
        Mounted = "mounted",
        /// Not mounted now; its line in `/etc/fstab` stays.
        Unmounted = "unmounted",
        /// Not mounted, and not in `/etc/fstab`.
        Absent = "absent",
    }
}

crate::kind! {
    /// Keeps something mounted on a directory, and its line in `/etc/fstab`.
    ///
    /// It is mounted by mount(8), so every type works that the host has a helper for: `nfs-common` for NFS, `sshfs` for
    /// sshfs. `rw` or `ro` is always compared (`rw` unless declared). Of the other declared options those are compared that the
    /// kernel tells: `nosuid`, `nodev`, `noexec`, `nosymfollow`, `noatime` and the like; `size` and `nr_inodes` of tmpfs; `hard`,
    /// `soft`, `timeo` and `retrans` of NFS. The rest is compared in the line of `/etc/fstab` alone, and the mount takes it up
    /// when it is mounted the next time. What is not declared stays.
    ///
    /// Options change by a remount where that is possible, else by unmounting and mounting again; so does another `from`. A
    /// FUSE file system whose program has died, and one of a network whose export is gone (a stale file handle), is taken away and
    /// mounted again. A program of its own asks for a sign of life, so a server that is gone cannot hang the run: where it does not
    /// answer, FUSE is a failure, and what the kernel serves counts as mounted. The waits have the limits `mount`, `unmount`,
    /// `mount_answer`.
    ///
    /// Where others than root can change the names that lead to the mount point, it is mounted on a place of fanli's own first, and
    /// from there on the directory as it was looked at, whatever has become of its name; other options than flags then take
    /// unmounting and mounting again. What `/etc/fstab` mounts at the next start has no such guard: use `fstab = false`, or a
    /// path that is root's.
    pub struct Mount = "mount" {
        /// Where it is mounted. The directory must exist. A `directory` task that makes it should declare no owner and mode:
        /// once something is mounted there, these are of what is mounted. It does not mind when that is dead.
        path: HostPath,
        /// What kind of file system it is. `bind` shows a directory of this host at a second place.
        r#type: Option<FsType>,
        /// What is mounted: `server:/export` for NFS, `user@server:/path` for sshfs, a path for `bind`, a device or `UUID=…` for a
        /// disk. tmpfs needs none.
        from: Option<String>,
        /// Mount options, such as `["ro", "nosuid", "hard"]`. For `bind`, `rbind` takes what is mounted below along.
        options: Vec<String> = Vec::new(),
        /// Whether its line in `/etc/fstab` is kept too; with `false` that file is left alone.
        fstab: bool = true,
        /// `mounted`; `unmounted` for now; or `absent`, from `/etc/fstab` too.
        state: MountState = MountState::Mounted,
    }
    example r#"# presumes both directories
mount "/srv/fanli-example/shared" {
  type    = bind
  from    = "/srv/fanli-example/store"
  options = ["ro", "nosuid"]
}"#
}

/// A mount as it is found.
struct Look {
    table: MountTable,
    /// The path without links on the way.
    path: String,
    mount: Option<Found>,
    /// Why a FUSE mount is of no use any more.
    dead: Option<String>,
    /// The text of `/etc/fstab`.
    fstab: String,
}

impl Mount {
    /// The type as fields and messages say it.
    fn kind(&self) -> String {
        match self.r#type {
            Some(FsType::Sshfs) => FsType::FuseSshfs.show(),
            Some(kind) => kind.show(),
            None => String::new(),
        }
    }

    fn is_bind(&self) -> bool {
        self.r#type == Some(FsType::Bind)
    }

    /// What is mounted, as mount(8) and fstab are told it.
    fn source(&self) -> String {
        let word = if self.r#type == Some(FsType::Tmpfs) { "tmpfs" } else { "none" };
        let from = self.from.as_deref().unwrap_or(word);
        if from.len() > 1 && !from.ends_with(":/") { from.trim_end_matches('/') } else { from }.to_owned()
    }

    fn all_options(&self) -> Vec<String> {
        options::split(&self.options)
    }

    /// The declared line of fstab.
    fn line(&self) -> Option<Line> {
        self.r#type.filter(|_| self.fstab && self.state != MountState::Absent)?;
        let mut options = self.all_options();
        if self.is_bind() && !options.iter().any(|option| option == "rbind") {
            options.insert(0, "bind".to_owned());
        }
        let kind = if self.is_bind() { "none".to_owned() } else { self.kind() };
        Some(Line { from: self.source(), point: self.path.0.clone(), kind, options })
    }

    async fn look(&self, probe: &Probe) -> Result<Look, Failure> {
        let table = probe.mounts()?;
        let path = self.real_path(probe, &table)?;
        let mount = table.on(&path).cloned();
        let dead = match &mount {
            Some(mount) => dead::why(probe, mount).await?,
            None => None,
        };
        let fstab =
            if self.fstab { probe.read_text(fstab::PATH, MOST_FSTAB)?.unwrap_or_default() } else { String::new() };
        Ok(Look { table, path, mount, dead, fstab })
    }

    /// The path as the kernel tells it.
    fn real_path(&self, probe: &Probe, table: &MountTable) -> Result<String, Failure> {
        let path = self.path.0.as_str();
        let (real, looked_at) = dead::real_path(path, probe, table)?;
        if looked_at
            && table.on(&real).is_none()
            && let Some(EntryKind::Link(to)) = probe.stat(path)?.map(|entry| entry.kind)
        {
            return Err(Failure::new(format!("{path} is a link to {}", to.display()))
                .hint("name the directory itself: mounts do not stand on links"));
        }
        Ok(real)
    }

    /// What is mounted there, in the words of the declaration where it is the same.
    async fn found_from(&self, look: &Look, mount: &Found, probe: &Probe) -> Result<String, Failure> {
        let wanted = self.source();
        if self.is_bind() {
            let same = |path: &str| {
                look.table.place_of(path).is_some_and(|place| place == (mount.device.as_str(), mount.root.clone()))
            };
            if same(&wanted) {
                return Ok(wanted);
            }
            // By way of links, perhaps. A program of its own looks: the path may lead into a mount that hangs.
            let asked = probe.ask(&Program::new(["readlink", "-e", "--"]).arg(&wanted)).await?;
            if asked.success() && same(&asked.stdout.text()) {
                return Ok(wanted);
            }
            return Ok(look.table.origin_of(mount).unwrap_or_else(|| shown_source(mount)));
        }
        let found = shown_source(mount);
        let plain = if found.len() > 1 && !found.ends_with(":/") { found.trim_end_matches('/') } else { &found };
        if plain == wanted || self.same_device(&wanted, &found, probe).await? {
            return Ok(wanted);
        }
        Ok(found)
    }

    /// Whether a disk that is declared by a link, a label or an image is the device that is mounted.
    async fn same_device(&self, wanted: &str, found: &str, probe: &Probe) -> Result<bool, Failure> {
        if !found.starts_with("/dev/") {
            return Ok(false);
        }
        if let Some(loop_device) = found.strip_prefix("/dev/loop") {
            let file = probe.read_small(format!("/sys/class/block/loop{loop_device}/loop/backing_file"))?;
            if file.is_some_and(|file| file.trim_end_matches('\n') == wanted) {
                return Ok(true);
            }
        }
        let device = match wanted.split_once('=') {
            Some(_) => {
                let asked = probe.ask(&Program::new(["findfs"]).arg(wanted)).await?;
                if !asked.success() {
                    return Ok(false);
                }
                asked.stdout.text().trim().to_owned()
            }
            None => wanted.to_owned(),
        };
        if !device.starts_with("/dev/") {
            return Ok(false);
        }
        let (one, other) = (probe.canonical(&device)?, probe.canonical(found)?);
        Ok(one.is_some() && one == other)
    }

    /// The type that is mounted, in the words of the declaration where it is the same.
    fn found_type(&self, look: &Look, mount: &Found, from: &str) -> String {
        let wanted = self.kind();
        let same = match self.r#type {
            Some(FsType::Bind) => from == self.source() || look.table.origin_of(mount).is_some(),
            Some(FsType::Nfs) => mount.kind == "nfs4",
            Some(FsType::Gluster) => mount.kind == "fuse.glusterfs",
            _ => false,
        };
        if same { wanted } else { mount.kind.clone() }
    }

    fn told_line(&self, look: &Look) -> Option<String> {
        fstab::told(&look.fstab, &self.points(&look.path), self.line().as_ref())
    }

    fn points<'a>(&'a self, real: &'a str) -> Vec<&'a str> {
        vec![self.path.0.as_str(), real]
    }
}

/// The source, with the part of the file system that is shown when it is not all of it.
fn shown_source(mount: &Found) -> String {
    let part = mount.root != "/" && mount.kind != "btrfs";
    if part { format!("{}[{}]", mount.source, mount.root) } else { mount.source.clone() }
}

impl Resource for Mount {
    fn check(&self) -> Result<(), ArgError> {
        if self.path.0 == "/" {
            return Err(ArgError::new("path", "`/` is what everything stands on: it cannot be mounted or unmounted"));
        }
        let given =
            [("type", self.r#type.is_some()), ("from", self.from.is_some()), ("options", !self.options.is_empty())];
        match self.state {
            MountState::Absent => {
                if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
                    return Err(ArgError::new(*field, "means nothing for a mount that is to be `absent`"));
                }
            }
            MountState::Unmounted if self.r#type.is_none() => {
                if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
                    return Err(ArgError::new(*field, "needs `type` beside it, or neither"));
                }
            }
            MountState::Mounted if self.r#type.is_none() => {
                return Err(ArgError::new("type", "is required: what is mounted"));
            }
            _ => {}
        }
        if let (Some(kind), None) = (self.r#type, &self.from)
            && !matches!(kind, FsType::Tmpfs | FsType::Overlay)
        {
            return Err(ArgError::new("from", "is required: what is mounted"));
        }
        if let Some(from) = &self.from {
            self.check_from(from).map_err(|message| ArgError::new("from", message))?;
        }
        for option in self.all_options() {
            let refused = match option.as_str() {
                "remount" | "bind" => "fanli says that by itself",
                "rbind" if !self.is_bind() => "is for `type = bind`",
                _ if option.contains(|c: char| c.is_control()) => "holds a line end or another control character",
                _ => continue,
            };
            return Err(ArgError::new("options", format!("`{}` {refused}", option.escape_debug())));
        }
        Ok(())
    }

    fn desired(&self) -> State {
        let mut fields = Fields::new();
        let mut set = |name: &str, datum: Datum| fields.insert(name.to_owned(), datum);
        match self.state {
            MountState::Absent => return State::Absent,
            MountState::Unmounted => {
                set("mounted", Value::Bool(false).into());
            }
            MountState::Mounted => {
                set("mounted", Value::Bool(true).into());
                set("type", self.kind().into_datum());
                if self.from.is_some() {
                    set("from", self.source().into_datum());
                }
                set("options", options::compared(&self.kind(), &self.all_options()).join(",").into_datum());
            }
        }
        if let Some(line) = self.line() {
            set("fstab", line.show().into_datum());
        }
        State::Present(fields)
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let look = self.look(probe).await?;
        let line = self.told_line(&look);
        let nothing = look.mount.is_none() && line.is_none();
        if nothing && self.state != MountState::Unmounted {
            return Ok(State::Absent.into());
        }
        // What is not mounted has no type and no options that could differ: one field says it all.
        let mut fields = match self.desired() {
            State::Present(fields) => fields,
            State::Absent => Fields::new(),
        };
        let mut set = |name: &str, datum: Datum| fields.insert(name.to_owned(), datum);
        set("fstab", line.map_or(Datum::Absent, String::into_datum));
        set(
            "mounted",
            match (&look.mount, &look.dead) {
                (Some(_), Some(why)) => format!("dead: {why}").into_datum(),
                (mount, _) => Value::Bool(mount.is_some()).into(),
            },
        );
        if let Some(mount) = look.mount.as_ref().filter(|_| self.state == MountState::Mounted) {
            let from = self.found_from(&look, mount, probe).await?;
            set("type", self.found_type(&look, mount, &from).into_datum());
            set("from", from.into_datum());
            let compared = options::compared(&self.kind(), &self.all_options());
            set("options", options::observed(&self.kind(), &compared, mount).join(",").into_datum());
        }
        Ok(State::Present(fields).into())
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let look = self.look(hands).await?;
        if self.state != MountState::Mounted {
            self.detach(hands).await?;
        } else if look.mount.is_none() || change.verb == Verb::Create {
            self.attach(&look, hands).await?;
        } else if ["type", "from", "mounted"].iter().any(|field| change.touches(field)) {
            self.detach(hands).await?;
            self.attach(&self.look(hands).await?, hands).await?;
        } else if change.touches("options") {
            self.change_options(&look, hands).await?;
        }
        if change.touches("fstab") || change.verb != Verb::Update {
            self.write_fstab(&look, hands).await?;
        }
        Ok(Map::new())
    }
}

impl Mount {
    /// What is wrong with `from` for this type.
    fn check_from(&self, from: &str) -> Result<(), String> {
        if from.is_empty() || from.starts_with(['-', '#']) || from.contains(|c: char| c.is_control()) {
            return Err(format!("`{}` is nothing that can be mounted", from.escape_debug()));
        }
        let fits = match self.r#type {
            Some(FsType::Bind) => return HostPath::TYPE.accepts(&Value::from(from)),
            Some(FsType::Nfs | FsType::Nfs4) => from.contains(":/"),
            Some(FsType::Sshfs | FsType::FuseSshfs) => from.contains(':'),
            Some(FsType::Cifs) => from.starts_with("//"),
            _ => true,
        };
        let example = match self.r#type {
            Some(FsType::Cifs) => "//server/share",
            Some(FsType::Nfs | FsType::Nfs4) => "server:/export",
            _ => "user@server:/path",
        };
        if fits { Ok(()) } else { Err(format!("`{from}` is not like `{example}`")) }
    }
}

/// Text as a field.
trait IntoDatum {
    fn into_datum(self) -> Datum;
}

impl IntoDatum for String {
    fn into_datum(self) -> Datum {
        Datum::Value(Value::Str(self))
    }
}
