//! Mounting, unmounting, remounting and writing fstab. Each can be killed and run again: what is left to do is seen in the
//! kernel's table and in fstab.

use std::time::Duration;

use super::dead;
use super::{Look, Mount, fstab, options};
use crate::failure::Failure;
use crate::system::Actuator;
use crate::system::fs::{Attrs, EntryKind};
use crate::system::mounts::{Mount as Found, MountTable};
use crate::system::process::{Ended, Program};

/// How long mount(8) may take: limit `mount`. `mount.nfs` itself gives up after two minutes.
const MOUNT: Duration = Duration::from_secs(150);

/// How long umount(8) may take: limit `unmount`.
const UNMOUNT: Duration = Duration::from_secs(45);

/// The most mounts over each other at one place that are taken away.
const MOST_LAYERS: usize = 16;

/// Programs that mount(8) needs for a type, and where they come from.
const HELPERS: [(&str, &str, &str); 6] = [
    ("nfs", "mount.nfs", "nfs-common on Debian, nfs-utils elsewhere"),
    ("nfs4", "mount.nfs4", "nfs-common on Debian, nfs-utils elsewhere"),
    ("cifs", "mount.cifs", "cifs-utils"),
    ("fuse.sshfs", "sshfs", "sshfs on Debian, fuse-sshfs elsewhere"),
    ("glusterfs", "mount.glusterfs", "glusterfs-client on Debian, glusterfs-fuse elsewhere"),
    ("ceph", "mount.ceph", "ceph-common"),
];

async fn within(limit: (&str, Duration), hands: &Actuator, program: &Program, what: &str) -> Result<Ended, Failure> {
    match tokio::time::timeout(limit.1, hands.run(program)).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::timeout(limit.0, limit.1).within(what)),
    }
}

impl Mount {
    /// Mounts it.
    pub(super) async fn attach(&self, look: &Look, hands: &Actuator) -> Result<(), Failure> {
        let (path, kind) = (&self.path.0, self.kind());
        self.check_place(look, hands)?;
        if let Some((_, program, package)) = HELPERS.iter().find(|(of, ..)| *of == kind)
            && hands.program(program)?.is_none()
        {
            return Err(Failure::new(format!("this host has no `{program}`, which mounts of type `{kind}` need"))
                .hint(format!("install it with a `package` task before this one: {package}")));
        }
        if self.is_guarded(&look.table, hands)? {
            return self.mount_at(path, look, hands).await;
        }
        self.mount_held(look, hands).await
    }

    /// Whether only root can change the names that lead to the mount point; what lies on a network is not asked.
    fn is_guarded(&self, table: &MountTable, hands: &Actuator) -> Result<bool, Failure> {
        let parent = self.path.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        let far = table.leading_to(parent).is_some_and(Found::is_far);
        if far { Ok(true) } else { hands.is_guarded(&self.path.0) }
    }

    /// Mounts it on a place, with its options.
    async fn mount_at(&self, place: &str, look: &Look, hands: &Actuator) -> Result<(), Failure> {
        let (from, kind, all) = (self.source(), self.kind(), self.all_options());
        if self.is_bind() {
            let recursive = all.iter().any(|option| option == "rbind");
            let how = if recursive { "--rbind" } else { "--bind" };
            // Others may change the names that lead to what is bound, too.
            let far = look.table.leading_to(&from).is_some_and(Found::is_far);
            let held = if far { None } else { hands.hold(&from)? };
            let program = match &held {
                Some(held) => Program::new(["mount", "--no-canonicalize", how, "--"]).arg(held.path()),
                None => Program::new(["mount", how, "--"]).arg(&from),
            };
            self.mount(hands, program.arg(place)).await?;
            // The kernel takes no flags with the bind itself: a second step sets them.
            let flags: Vec<String> = all.into_iter().filter(|option| options::is_flag(option)).collect();
            if !flags.is_empty() {
                self.remount_flags(hands, &flags, place).await?;
            }
            return Ok(());
        }
        let mut program = Program::new(["mount", "-t", &kind]);
        if !all.is_empty() {
            program = program.arg("-o").arg(all.join(","));
        }
        self.mount(hands, program.arg("--").arg(&from).arg(place)).await
    }

    /// Mounts it where others can change the names that lead to the mount point: first on a place of fanli's own, whole, and
    /// from there on the directory that is held open.
    async fn mount_held(&self, look: &Look, hands: &Actuator) -> Result<(), Failure> {
        let path = &self.path.0;
        let point = hands.hold_name(path)?.ok_or_else(|| Failure::new(format!("there is no {path} to mount on")))?;
        let folder = hands.state_dir().join("mounting");
        hands.own_dirs([hands.state_dir(), &folder])?;
        let file = hands.stat(path)?.is_some_and(|entry| entry.kind == EntryKind::File);
        let place = folder.join(if file { "file" } else { "directory" });
        let shown = place.to_string_lossy().into_owned();
        // What a run that was killed has left.
        for _ in 0..MOST_LAYERS {
            if hands.mounts()?.on(&shown).is_none() {
                break;
            }
            hands.unmount_name(&shown, true, ("unmount", UNMOUNT)).await?;
        }
        if file {
            hands.replace(&place, b"", Attrs::mode(0o600))?;
        } else {
            hands.own_dirs([&place])?;
        }
        let mounted = match self.mount_at(&shown, look, hands).await {
            Ok(()) => hands.shift_mount(&place, &point).map_err(|failure| {
                failure.hint("a directory is mounted on a directory, a file on a file; was it changed meanwhile?")
            }),
            Err(failure) => Err(failure),
        };
        if mounted.is_err() && hands.mounts()?.on(&shown).is_some() {
            hands.unmount_name(&shown, true, ("unmount", UNMOUNT)).await?;
        }
        mounted
    }

    /// The place must be a directory (for a bind of a file: a file), and so must what is bound.
    fn check_place(&self, look: &Look, hands: &Actuator) -> Result<(), Failure> {
        let path = &self.path.0;
        let near = |path: &str| !look.table.leading_to(path).is_some_and(Found::is_far);
        let kind = |path: &str| Ok::<_, Failure>(hands.stat_following(path)?.map(|entry| entry.kind));
        let from = self.source();
        let mut wanted = EntryKind::Directory;
        if self.is_bind() && near(&from) {
            let Some(found) = kind(&from)? else {
                return Err(Failure::new(format!("there is no {from} to mount on {path}"))
                    .hint("make it with a `directory` task before this one"));
            };
            wanted = found;
        }
        if !near(path) {
            return Ok(());
        }
        let Some(found) = kind(path)? else {
            return Err(Failure::new(format!("there is no {path} to mount on"))
                .hint("make it with a `directory` task before this one"));
        };
        if (found == EntryKind::Directory) == (wanted == EntryKind::Directory) {
            return Ok(());
        }
        Err(Failure::new(format!("{} cannot be mounted on {path}: it is {}", from, found.show()))
            .hint("a directory is mounted on a directory, a file on a file"))
    }

    async fn mount(&self, hands: &Actuator, program: Program) -> Result<(), Failure> {
        let what = format!("cannot mount {} on {}", self.source(), self.path.0);
        // What serves a FUSE mount lives on after mount(8).
        let ended = within(("mount", MOUNT), hands, &program.leaves_children(), &what).await?;
        if ended.success() { Ok(()) } else { Err(ended.failure().within(what)) }
    }

    async fn remount_flags(&self, hands: &Actuator, flags: &[String], place: &str) -> Result<(), Failure> {
        // mount(8) would add what fstab says; the kernel's own call takes the flags alone, and asks no helper.
        let all = format!("remount,bind,{}", flags.join(","));
        let program = Program::new(["mount", "--internal-only", "--no-canonicalize", "-o"]).arg(all);
        self.mount(hands, program.arg("--").arg("none").arg(place)).await
    }

    /// Gives a mount its declared options.
    pub(super) async fn change_options(&self, look: &Look, hands: &Actuator) -> Result<(), Failure> {
        let Some(mount) = &look.mount else { return Ok(()) };
        let all = self.all_options();
        let compared = options::compared(&self.kind(), &all);
        let found = options::observed(&self.kind(), &compared, mount);
        let differing: Vec<&String> =
            compared.iter().zip(&found).filter(|(wanted, found)| wanted != found).map(|(wanted, _)| wanted).collect();
        let flags = options::flags_for_remount(&compared, mount);
        let by_flags = differing.iter().all(|option| options::is_flag(option));
        // `ro` of the whole file system cannot be lifted from one mount of it.
        let lifted = differing.iter().any(|option| *option == "rw") && mount.options.iter().any(|found| found == "ro");
        let guarded = self.is_guarded(&look.table, hands)?;
        if self.is_bind() || (by_flags && !lifted && mount.kind.starts_with("fuse")) {
            if guarded {
                return self.remount_flags(hands, &flags, &self.path.0).await;
            }
            if let Some(held) = hands.hold_name(&self.path.0)?
                && held.mount_id()? == mount.id
            {
                return self.remount_flags(hands, &flags, &held.path()).await;
            }
        }
        if guarded && !mount.kind.starts_with("fuse") {
            // With the source named, what fstab says is not mixed in.
            let rest = all.into_iter().filter(|option| !options::is_flag(option));
            let list = ["remount".to_owned()].into_iter().chain(flags).chain(rest).collect::<Vec<_>>().join(",");
            let program = Program::new(["mount", "-t", &mount.kind, "-o"]).arg(list).arg("--");
            if self.mount(hands, program.arg(self.source()).arg(&self.path.0)).await.is_ok() {
                return Ok(());
            }
        }
        self.detach(hands).await?;
        self.attach(&self.look(hands).await?, hands).await
    }

    /// Unmounts whatever is mounted there, layer by layer.
    pub(super) async fn detach(&self, hands: &Actuator) -> Result<(), Failure> {
        for _ in 0..MOST_LAYERS {
            let table = hands.mounts()?;
            let path = self.real_path(hands, &table)?;
            let Some(mount) = table.on(&path) else { return Ok(()) };
            let dead = dead::why(hands, mount).await?.is_some();
            let gone =
                format!("its server may be gone; `umount --force --lazy {path}` by hand takes it away all the same");
            let limit = ("unmount", UNMOUNT);
            // Whoever still holds something of a dead one has lost it anyway.
            let unmounted = if self.is_guarded(&table, hands)? {
                let program = Program::new(["umount"]).args(dead.then_some("--lazy")).arg("--").arg(&path);
                let what = format!("cannot unmount {path}");
                let ended = within(limit, hands, &program, &what).await.map_err(|failure| failure.hint(gone))?;
                if ended.success() { Ok(()) } else { Err(ended.failure().within(what)) }
            } else {
                hands.unmount_name(&path, dead, limit).await
            };
            let Err(failure) = unmounted else { continue };
            let below = hands.mounts()?.below(&path).join(", ");
            if !below.is_empty() {
                return Err(failure.hint(format!("unmount what is mounted below it first: {below}")));
            }
            let users = hands.users_of(&path).join(", ");
            if users.is_empty() {
                return Err(failure);
            }
            return Err(failure.hint(format!("stop what uses it first: {users}")));
        }
        Err(Failure::new(format!("more than {MOST_LAYERS} mounts lie over each other on {}", self.path.0)))
    }

    /// Brings the line of fstab into its declared form, or takes it out.
    pub(super) async fn write_fstab(&self, look: &Look, hands: &Actuator) -> Result<(), Failure> {
        let wanted = self.line();
        if !self.fstab || (wanted.is_none() && self.state != super::MountState::Absent) {
            return Ok(());
        }
        if self.told_line(look) == wanted.as_ref().map(fstab::Line::show) {
            return Ok(());
        }
        let text = fstab::replaced(&look.fstab, &self.points(&look.path), wanted.as_ref());
        hands.replace(fstab::PATH, text.as_bytes(), Attrs::default())?;
        // systemd keeps what it read at the start, and would unmount by it.
        if hands.exists("/run/systemd/system")? {
            let program = Program::new(["systemctl", "daemon-reload"]);
            hands.run(&program).await?.expect_success()?;
        }
        Ok(())
    }
}
