//! One segment as a source of lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::rc::Rc;

use jiff::tz::TimeZone;
use rustix::fs::{AtFlags, FlockOperation, flock, statat};

use super::stamp::Stamps;
use super::{Line, MOST_LINE};
use crate::failure::{Context as _, Failure};
use crate::logs::codec::Codec;
use crate::logs::folder::{Folder, open_file};

/// How much of a file is read before its last lines, in bytes.
const BEFORE: u64 = 64 * 1024;

/// How much of a file is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// A segment that was found.
pub(super) struct Source {
    pub(super) folder: Rc<Folder>,
    /// Its number in the folder.
    pub(super) segment: usize,
    /// The number of the folder in the query.
    pub(super) number: u32,
    /// Its path below the folder.
    pub(super) path: PathBuf,
    /// The begin of its period: microseconds since 1970.
    pub(super) begin: i64,
    /// The end of its period: microseconds since 1970.
    pub(super) end: i64,
    /// When it was begun: microseconds since 1970.
    pub(super) opened: i64,
    /// When it was written to last, or the end of its period: seconds since 1970.
    pub(super) changed: i64,
    /// How many bytes its lines have, where its seal says so.
    pub(super) bytes: Option<u64>,
    /// Whether a writer is at work on it.
    pub(super) writing: bool,
}

/// A segment that is being read.
pub(super) struct Open {
    /// The number under which the sink knows it, once a line of it was told.
    pub(super) file: Option<u32>,
    /// The number of its folder in the query.
    pub(super) folder: u32,
    /// Its path below the folder.
    pub(super) path: String,
    /// The whole path, for messages.
    shown: String,
    lines: Lines,
    stamps: Stamps,
    /// The place of the line before; in the beginning that of a line that gives no time.
    at: i64,
    /// No line is before it.
    begin: i64,
    /// The end of its period.
    end: i64,
    /// A line, or a piece of it, as far as it was read.
    begun: Vec<u8>,
    /// Whether more of the line before follows.
    within: bool,
    /// The same, of the line that was told last.
    pub(super) is_rest: bool,
    /// Whether that line is one that is asked for.
    pub(super) is_taken: bool,
    writing: bool,
    /// How many bytes were read, and how many there should be, where that is known.
    read: u64,
    should: Option<u64>,
}

/// Where its lines come from.
enum Lines {
    Plain(BufReader<File>),
    Packed(Box<dyn BufRead>),
}

impl Source {
    /// Opens it for reading.
    ///
    /// # Errors
    /// It is no plain file of the folder's owner, cannot be read, or is gone.
    pub(super) fn open(&self) -> Result<Open, Failure> {
        let shown = self.folder.path.join(&self.path).display().to_string();
        let lines = self.lines().map_err(|failure| failure.within(format!("cannot read {shown}")))?;
        Ok(Open {
            file: None,
            folder: self.number,
            path: self.path.to_string_lossy().into_owned(),
            shown,
            lines,
            stamps: Stamps::new(TimeZone::system()),
            at: self.opened.clamp(self.begin, self.end.max(self.begin)),
            begin: self.begin,
            end: self.end,
            begun: Vec::new(),
            within: false,
            is_rest: false,
            is_taken: false,
            writing: self.writing,
            read: 0,
            should: self.bytes,
        })
    }

    /// A keeper may compress it at any moment.
    fn lines(&self) -> Result<Lines, Failure> {
        let gone = || Failure::new("it has gone before it was read");
        let segment = self.folder.segments.get(self.segment).ok_or_else(gone)?;
        let dir = self.folder.open(segment.dir).context("cannot open its directory")?;
        let is_there = |name: &str| statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if is_there(&segment.name) {
            let (file, _) = open_file(&dir, &segment.name)?;
            return Ok(Lines::Plain(BufReader::with_capacity(BLOCK, file)));
        }
        for codec in Codec::ALL {
            let name = format!("{}{}", segment.name, codec.extension());
            if is_there(&name) {
                let (file, _) = open_file(&dir, &name)?;
                // No further than one byte more than it should have: it may have been made to become endless. And not less: its own
                // checksum stands behind the last one.
                let most = self.bytes.map_or(u64::MAX, |bytes| bytes.saturating_add(1));
                let lines = codec.unpack(file).context(name)?.take(most);
                return Ok(Lines::Packed(Box::new(BufReader::with_capacity(BLOCK, lines))));
            }
        }
        Err(gone())
    }
}

impl Open {
    /// Returns the next line; `None` where there is none, or not yet.
    ///
    /// # Errors
    /// It cannot be read, or what was compressed is damaged. It has no more lines then.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Failure> {
        let line = self.line().with_context(|| format!("cannot read {} to its end", self.shown));
        let line = line.inspect_err(|_| (self.writing, self.should) = (false, None))?;
        let ended = line.is_none() && !self.writing;
        let odd = |should: &mut u64| self.read > *should || ended && self.read < *should;
        let Some(should) = self.should.take_if(odd) else { return Ok(line) };
        let more = if self.read > should { "more" } else { "fewer" };
        Err(Failure::new(format!("cannot read {} to its end", self.shown))
            .because(format!("it has {more} bytes than the {should} of its seal"))
            .hint("something has changed it after it was closed"))
    }

    fn line(&mut self) -> io::Result<Option<Line>> {
        let room = MOST_LINE.saturating_sub(self.begun.len()).try_into().unwrap_or(u64::MAX);
        let from: &mut dyn BufRead = match &mut self.lines {
            Lines::Plain(from) => from,
            Lines::Packed(from) => from,
        };
        self.read += u64::try_from(from.take(room).read_until(b'\n', &mut self.begun)?).unwrap_or(0);
        let (ends, is_full) = (self.begun.ends_with(b"\n"), self.begun.len() >= MOST_LINE);
        if self.begun.is_empty() || self.writing && !ends && !is_full {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut self.begun);
        // A last line without an end gets one.
        let ends = ends || !is_full;
        if !text.ends_with(b"\n") && ends {
            text.push(b'\n');
        }
        if !self.within {
            let own = self.stamps.of(&text).unwrap_or(self.at);
            self.at = own.min(self.end).max(self.begin);
            self.begin = self.at;
        }
        self.within = !ends;
        Ok(Some(Line { at: self.at, text }))
    }

    /// Notes whether its writer has gone: nothing is added to it any more.
    pub(super) fn watch_writer(&mut self) {
        if let (true, Lines::Plain(file)) = (self.writing, &self.lines)
            && flock(file.get_ref(), FlockOperation::NonBlockingLockShared).is_ok()
        {
            let _ = flock(file.get_ref(), FlockOperation::Unlock);
            self.writing = false;
        }
    }

    /// Returns whether its writer is at work.
    pub(super) fn is_written(&self) -> bool {
        self.writing
    }

    /// Goes to the last `most` lines and a little further back, as one of them may follow a line with a time; one that is compressed must be
    /// read to its end for them.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn skip_to_last(&mut self, most: usize) -> Result<(), Failure> {
        let Lines::Plain(from) = &mut self.lines else { return Ok(()) };
        let file = from.get_mut();
        let start = begin_of_last(file, most).and_then(|last| begin_of_line(file, last.saturating_sub(BEFORE)));
        let sought = start.and_then(|start| from.seek(SeekFrom::Start(start)));
        self.should = None;
        sought.with_context(|| format!("cannot read {}", self.shown)).map(drop)
    }
}

/// Returns where the first line begins that begins at `at` or later.
fn begin_of_line(file: &mut File, at: u64) -> io::Result<u64> {
    let Some(before) = at.checked_sub(1) else { return Ok(0) };
    file.seek(SeekFrom::Start(before))?;
    let skipped = BufReader::new(file).read_until(b'\n', &mut Vec::new())?;
    Ok(before + u64::try_from(skipped).unwrap_or(0))
}

/// Returns where the last `most` whole lines of a file begin.
fn begin_of_last(file: &mut File, most: usize) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; BLOCK];
    // The end of the line before them counts, too.
    let mut left = most.saturating_add(1);
    while end > 0 {
        let begin = end.saturating_sub(u64::try_from(BLOCK).unwrap_or(0));
        let part = block.get_mut(..usize::try_from(end - begin).unwrap_or(0)).unwrap_or_default();
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        for at in memchr::memrchr_iter(b'\n', part) {
            left -= 1;
            if left == 0 {
                return Ok(begin + u64::try_from(at).unwrap_or(0) + 1);
            }
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_lines_begin_behind_the_end_of_another_one() {
        let begin = |text: &str, most: usize| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            usize::try_from(begin_of_last(&mut file, most).unwrap()).unwrap()
        };
        let text = "one\ntwo\nthree\n";
        assert_eq!([0, 1, 2, 3, 4].map(|most| &text[begin(text, most)..]), ["", "three\n", "two\nthree\n", text, text]);
        // One that is not whole yet is none.
        assert_eq!(begin("one\ntw", 0), 4);
        assert_eq!(begin("tw", 0), 0);
        assert_eq!(begin("", 3), 0);
        let long = format!("first\n{}\nlast\n", "x".repeat(3 * BLOCK));
        assert_eq!(begin(&long, 1), long.len() - 5);
        assert_eq!(begin(&long, 2), 6);
        assert_eq!(begin(&"\n".repeat(2 * BLOCK), BLOCK + 1), BLOCK - 1);
    }
}
