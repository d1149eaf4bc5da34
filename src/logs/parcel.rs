//! A closed segment, open for reading, and found to be what its seal says.

use std::fs::File;
use std::io::{Read as _, Seek as _, copy, sink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::Stat;

use super::codec::Codec;
use super::folder::{Folder, open_file};
use super::seal::{self, Closed, Seal};
use super::tally::{Counted, Tally};
use crate::failure::{Context as _, Failure};

/// An open segment.
pub(super) struct Parcel {
    /// Its number in the folder.
    pub(super) number: usize,
    /// Its path below the folder, as its writer named it.
    pub(super) segment: PathBuf,
    /// The path of the file below the folder, and of the copy below the target: what was compressed has an extension more.
    pub(super) path: PathBuf,
    /// The path of the seal, below both.
    pub(super) seal_path: PathBuf,
    /// What the copy's seal holds.
    pub(super) seal: Vec<u8>,
    /// The file, read to its end.
    pub(super) file: File,
    pub(super) stat: Stat,
    /// The length of the file.
    pub(super) bytes: u64,
    /// The SHA-256 of the file, in hex.
    pub(super) sha256: String,
    /// The SHA-256 of the lines: the same when they are not compressed.
    pub(super) content: String,
    pub(super) lines: u64,
    /// The end of its period.
    pub(super) end: Timestamp,
}

impl Parcel {
    /// Opens a segment of a folder, and compares its content with its seal.
    ///
    /// # Errors
    /// It is no plain file of the folder's owner; it has changed since it was closed; its name is none that can be sent.
    pub(super) fn open(folder: &Folder, number: usize) -> Result<Self, Failure> {
        let packed = folder.segments.get(number).and_then(|segment| segment.packed);
        Self::open_as(folder, number, packed)
    }

    /// Opens the file that was compressed like this, or was not: since the folder was looked at it may have been.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_as(folder: &Folder, number: usize, packed: Option<Codec>) -> Result<Self, Failure> {
        let segment = folder.segments.get(number).ok_or_else(|| Failure::new("there is no such segment"))?;
        let name = &segment.name;
        let path_below = folder.below(segment.dir, name);
        if path_below.to_str().is_none_or(|path| path.chars().any(char::is_control)) {
            return Err(Failure::new("its name holds a control character: no storage takes it"));
        }
        let dir = folder.open(segment.dir).with_context(|| format!("cannot open the directory of {name}"))?;
        let file_name = packed.map_or_else(|| name.clone(), |codec| format!("{name}{}", codec.extension()));
        let (file, stat) = open_file(&dir, &file_name)?;
        let seal = Seal::read(&dir, name);
        let Some(seal @ Seal { closed: Some(closed), .. }) = &seal else {
            let why = if seal.is_some() { "it is not closed" } else { "its seal cannot be read" };
            return Err(Failure::new(format!("{name} cannot be compared with its seal")).because(why));
        };
        let differs = |why: String| {
            Failure::new(format!("{file_name} is not as its seal says"))
                .because(why)
                .hint("something has changed it after it was closed")
        };
        let said = closed.bytes;
        // One that was made longer is not read to its end.
        if packed.is_none() && u64::try_from(stat.st_size).unwrap_or(0) != said {
            return Err(differs(format!("its lines have {} bytes, its seal says {said}", stat.st_size)));
        }
        let failed = || format!("cannot read {file_name}");
        let mut raw = Counted::new(&file);
        let lines = match packed {
            None => None,
            Some(codec) => {
                // No further than one byte more than it should have: it may have been made to become endless.
                let cannot = || format!("{file_name} cannot be unpacked");
                let unpacked = codec.unpack(&mut raw).with_context(cannot)?.take(said.saturating_add(1));
                let mut lines = Counted::new(unpacked);
                copy(&mut lines, &mut sink()).with_context(cannot)?;
                Some(lines.tally)
            }
        };
        copy(&mut raw, &mut sink()).with_context(failed)?;
        let of_lines = lines.as_ref().unwrap_or(&raw.tally);
        if let Some(why) = difference(of_lines, closed) {
            return Err(differs(why));
        }
        (&file).rewind().with_context(failed)?;
        Ok(Self {
            number,
            segment: path_below,
            path: folder.below(segment.dir, &file_name),
            seal_path: folder.below(segment.dir, &seal::name_of(name)),
            seal: seal.text().with_context(failed)?,
            bytes: raw.tally.bytes,
            sha256: raw.tally.sha256(),
            content: closed.sha256.clone(),
            lines: closed.lines,
            end: seal.end,
            file,
            stat,
        })
    }

    /// The failure of a copy that is there already and is another one.
    pub(super) fn differs(&self, target: &Path) -> Failure {
        Failure::new(format!("{} is there already, with other content", target.join(&self.path).display()))
            .because("a copy is never written over")
            .hint("compare the two, and remove the one that is wrong")
    }
}

/// What is not as a seal says; lines that go on beyond it were not read to their end.
fn difference(lines: &Tally, closed: &Closed) -> Option<String> {
    let said = closed.bytes;
    if lines.bytes > said {
        Some(format!("its lines have more than the {said} bytes that its seal says"))
    } else if lines.bytes < said {
        Some(format!("its lines have {} bytes, its seal says {said}", lines.bytes))
    } else if lines.sha256() != closed.sha256 {
        Some("its lines have another SHA-256".to_owned())
    } else if lines.all_lines() != closed.lines {
        Some(format!("it has {} lines, its seal says {}", lines.all_lines(), closed.lines))
    } else {
        None
    }
}
