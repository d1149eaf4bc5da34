//! This program itself, as it is installed on a host to stay.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use super::fs::Attrs;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

/// The running program, also when its file has no name any more.
const OWN: &str = "/proc/self/exe";

fn own() -> Result<File, Failure> {
    File::open(OWN).context("cannot read this program itself")
}

impl Probe {
    /// Whether the file is this very program, byte for byte; `None` when there is no file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_own_program(&self, path: &Path) -> Result<Option<bool>, Failure> {
        let failed = || format!("cannot read {}", path.display());
        let Some(theirs) = self.open(path)? else { return Ok(None) };
        let ours = own()?;
        let length = |file: &File| file.metadata().map(|meta| meta.len());
        if length(&ours).with_context(failed)? != length(&theirs).with_context(failed)? {
            return Ok(Some(false));
        }
        let (mut ours, mut theirs) =
            (BufReader::with_capacity(1 << 16, ours), BufReader::with_capacity(1 << 16, theirs));
        loop {
            let (left, right) = (ours.fill_buf().with_context(failed)?, theirs.fill_buf().with_context(failed)?);
            let length = left.len().min(right.len());
            if length == 0 {
                return Ok(Some(left.len() == right.len()));
            }
            if left.get(..length) != right.get(..length) {
                return Ok(Some(false));
            }
            ours.consume(length);
            theirs.consume(length);
        }
    }

    /// The program and the arguments of a process; the program is marked ` (deleted)` when its file was replaced. `None` when
    /// there is no such process.
    pub fn process(&self, pid: u32) -> Option<(String, Vec<String>)> {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut words: Vec<String> = words.collect();
        // It ends with a NUL, too.
        words.pop();
        Some((exe.to_string_lossy().into_owned(), words))
    }
}

impl Actuator {
    /// Puts a copy of this program there, atomically.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn install_own_program(&self, path: &Path) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        own()?.read_to_end(&mut bytes).context("cannot read this program itself")?;
        self.replace(path, &bytes, Attrs { mode: Some(0o755), uid: Some(0), gid: Some(0) })
    }
}
