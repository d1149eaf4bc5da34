//! Copies at a place that rsync(1) reaches: over ssh, or a daemon.
//!
//! rsync walks paths, and the folder belongs to a user that is not trusted: it could be led anywhere. So it is given a directory of
//! fanli's own, with a link for each segment that leads to the descriptor which fanli has open. What arrived is compared by a second call, which reads
//! both sides and sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, create_dir_all, remove_dir_all, write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use super::{Done, Known};
use crate::failure::{Context as _, Failure};
use crate::logs::parcel::Parcel;
use crate::logs::policy::Shipping;
use crate::system::process::{Program, run_within};

/// How long rsync waits for the other side while nothing moves, in seconds.
const SILENCE: u32 = 60;
/// How long one call takes at most: limit `store`.
const LIMIT: Duration = Duration::from_secs(12 * 3600);
/// What is only half there stays in this directory beside it, and is gone on with.
const PARTIAL: &str = ".fanli-partial";
/// Where nothing is, and nothing can be written.
const NOWHERE: &str = "/proc/self/fanli/nowhere/";
/// rsync: some files could not be sent, or went away. What arrived is compared all the same.
const PARTLY: [i32; 2] = [23, 24];

/// Stores copies by rsync; `stage` is a directory of fanli's own that is made and removed.
pub(super) fn store(shipping: &Shipping, stage: &Path, parcels: &[Parcel], done: Done<'_>) -> Result<(), Failure> {
    let stored = Stage::make(stage, parcels).and_then(|stage| stage.store(shipping, parcels, done));
    let _ = remove_dir_all(stage);
    stored
}

/// Looks for copies: see [`super::lengths`]. It is a call that would fetch them, into a directory which is not there.
pub(super) fn lengths(shipping: &Shipping, copies: &[Known]) -> Result<Vec<Option<u64>>, Failure> {
    let list = copies.iter().flat_map(|copy| copy.path.bytes().chain([0])).collect();
    let fetch = Stage { dir: Path::new("/"), list }.rsync(shipping);
    let fetch = fetch.args(["--dry-run", "--ignore-times", "--8-bit-output", "--out-format=%l %n"]);
    let told = run(&fetch.args([&format!("{}/", shipping.to), NOWHERE]))?;
    // One that is not there is a failure for rsync.
    let told = if PARTLY.contains(&told.code) { told } else { told.expect_success()? };
    let text = told.stdout.text();
    let lengths = text.lines().filter_map(|line| line.split_once(' '));
    let lengths: BTreeMap<&str, u64> =
        lengths.filter_map(|(length, path)| Some((path, length.parse().ok()?))).collect();
    Ok(copies.iter().map(|copy| lengths.get(copy.path.as_str()).copied()).collect())
}

/// The directory that rsync sends.
struct Stage<'a> {
    dir: &'a Path,
    /// The paths below it, each with a zero byte behind it.
    list: Vec<u8>,
}

impl<'a> Stage<'a> {
    fn make(dir: &'a Path, parcels: &[Parcel]) -> Result<Self, Failure> {
        let failed = || format!("cannot write {}", dir.display());
        match remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(failed),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(dir).with_context(failed)?;
        let mut list = Vec::new();
        for parcel in parcels {
            let (seal, file) = (dir.join(&parcel.seal_path), dir.join(&parcel.path));
            file.parent().map_or(Ok(()), create_dir_all).with_context(failed)?;
            write(seal, &parcel.seal).with_context(failed)?;
            let opened = format!("/proc/{}/fd/{}", std::process::id(), parcel.file.as_raw_fd());
            symlink(opened, file).with_context(failed)?;
            for path in [&parcel.seal_path, &parcel.path] {
                list.extend_from_slice(path.as_os_str().as_encoded_bytes());
                list.push(0);
            }
        }
        Ok(Self { dir, list })
    }

    fn store(&self, shipping: &Shipping, parcels: &[Parcel], done: Done<'_>) -> Result<(), Failure> {
        let send =
            self.rsync(shipping).args(["--copy-links", "--ignore-existing", "--fsync", "--partial-dir", PARTIAL]);
        let send = send.args(shipping.rate.map(|rate| format!("--bwlimit={}", rate.div_ceil(1024))));
        let sent = run(&send.args(["./", &format!("{}/", shipping.to)]))?;
        let partly = PARTLY.contains(&sent.code).then(|| sent.failure());
        if partly.is_none() {
            sent.expect_success()?;
        }
        let compare = self.rsync(shipping).args([
            "--copy-links",
            "--checksum",
            "--dry-run",
            "--8-bit-output",
            "--out-format=%i %n",
        ]);
        let compared = run(&compare.args(["./", &format!("{}/", shipping.to)]))?.expect_success()?;
        let text = compared.stdout.text();
        let [mut missing, mut other] = [BTreeSet::new(), BTreeSet::new()];
        for (changes, path) in text.lines().filter_map(|line| line.strip_prefix('<')?.split_once(' ')) {
            // `f` and what differs: `+` of one that is not there.
            if changes.contains('+') {
                missing.insert(path)
            } else {
                other.insert(path)
            };
        }
        for parcel in parcels {
            let path = parcel.path.to_str().unwrap_or_default();
            if other.contains(path) {
                done(parcel, Err(parcel.differs(Path::new(&shipping.to.to_string()))));
            } else if !missing.contains(path) {
                done(parcel, Ok(()));
            } else if let Some(failure) = &partly {
                // rsync went on with the others.
                done(parcel, Err(failure.clone()));
            } else {
                return Err(Failure::new("rsync has sent a file that is not there"));
            }
        }
        Ok(())
    }

    /// A call that reads the list.
    fn rsync(&self, shipping: &Shipping) -> Program {
        let program = Program::new(["rsync", "--from0", "--files-from=-", "--times", "--mkpath"]);
        let program = program.arg(format!("--timeout={SILENCE}")).dir(self.dir).stdin(self.list.clone());
        let key = shipping.key.as_ref().map(|path| path.display().to_string());
        if !shipping.to.is_ssh() {
            return program.arg("--contimeout=15").args(key.map(|path| format!("--password-file={path}")));
        }
        let identity = key.map(|path| format!(" -i {path}")).unwrap_or_default();
        program
            .args(["--rsh", &format!("ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15{identity}")])
    }
}

fn run(program: &Program) -> Result<crate::system::process::Ended, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot run rsync")?;
    runtime.block_on(run_within(program, ("store", LIMIT)))
}
