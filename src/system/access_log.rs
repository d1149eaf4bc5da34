//! What a web server's access log says of a while: how many requests it answered, and how many of them with which sort of status.
//!
//! Containers write these files, so nothing in them or about them is trusted: links are passed by, and a line is read byte by byte,
//! however long it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Probe;
use super::fs::EntryKind;
use crate::failure::{Context as _, Failure};

/// The most that is read of a node's logs for one answer; what is written beyond says nothing new.
const MOST_READ: u64 = 1 << 30;

/// The most files that one pattern may name.
const MOST_FILES: usize = 10_000;

/// Requests that were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// All of them.
    pub requests: u64,
    /// Those with a status of 500 to 599.
    pub errors: u64,
    /// Those with the status 404.
    pub not_found: u64,
    /// Those with a status of 400 or above.
    pub refused: u64,
    /// How many files the pattern names now.
    pub files: u64,
}

/// How long each log was at a moment, by file system and number: a log that is renamed meanwhile is still the same one.
#[derive(Clone, Debug, Default)]
pub struct LogMarks(BTreeMap<(u64, u64), u64>);

impl Probe {
    /// How long the files of a pattern are now; see [`Probe::served_since`].
    ///
    /// # Errors
    /// The pattern names too many files, or a directory that is not there or cannot be read.
    pub fn log_marks(&self, pattern: &str) -> Result<LogMarks, Failure> {
        let files = self.matching(pattern)?.into_iter();
        Ok(LogMarks(files.map(|(_, entry)| ((entry.dev, entry.ino), entry.size)).collect()))
    }

    /// What was written to the files of a pattern since then: whole lines in Apache's or nginx's common or combined format, where
    /// the status is the first word behind the quoted request. New files count from their beginning, and so do those that were cut.
    ///
    /// # Errors
    /// As [`Probe::log_marks`]; a file cannot be read.
    pub fn served_since(&self, pattern: &str, marks: &LogMarks) -> Result<Served, Failure> {
        let (mut served, mut left) = (Served::default(), MOST_READ);
        for (path, entry) in self.matching(pattern)? {
            let from = marks.0.get(&(entry.dev, entry.ino)).copied().filter(|from| *from <= entry.size).unwrap_or(0);
            let Some(mut file) = self.open(&path)? else { continue };
            served.files += 1;
            let read = file.seek(SeekFrom::Start(from)).and_then(|_| served.read(file, left));
            left = left.saturating_sub(read.with_context(|| format!("cannot read {}", path.display()))?);
        }
        Ok(served)
    }

    /// The regular files of a pattern in which `*` stands for any part of a name, in order.
    fn matching(&self, pattern: &str) -> Result<Vec<(PathBuf, super::fs::Entry)>, Failure> {
        let mut parts =
            pattern.strip_prefix('/').unwrap_or(pattern).split('/').filter(|part| !part.is_empty()).peekable();
        let (mut places, mut stars) = (vec![PathBuf::from("/")], false);
        while let Some(part) = parts.next() {
            let wanted = if parts.peek().is_some() { EntryKind::Directory } else { EntryKind::File };
            // What leads to the first star may hold links of root's; from there on it is the container's.
            if !part.contains('*') {
                places.iter_mut().for_each(|place| place.push(part));
                continue;
            }
            let mut found = Vec::new();
            for place in places {
                let names = self.list(&place)?;
                // A folder that the pattern names must be there; one that a star stands for may be gone by now.
                if names.is_none() && !stars {
                    return Err(Failure::new(format!("there is no directory {}", place.display())));
                }
                for name in names.unwrap_or_default() {
                    if name.to_str().is_some_and(|name| fits(part, name)) {
                        let path = place.join(name);
                        found.extend(self.stat(&path)?.filter(|entry| entry.kind == wanted).map(|_| path));
                    }
                }
            }
            (places, stars) = (found, true);
            if places.len() > MOST_FILES {
                return Err(Failure::new(format!("`{pattern}` names more than {MOST_FILES} files"))
                    .hint("name the newest alone, or keep fewer"));
            }
        }
        let mut files = Vec::new();
        for path in places {
            let entry = self.stat(&path)?.filter(|entry| entry.kind == EntryKind::File);
            files.extend(entry.map(|entry| (path, entry)));
        }
        Ok(files)
    }
}

/// Whether a name fits a pattern with stars.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    // A star stands for no leading dot, as in a shell.
    if head.is_empty() && name.starts_with('.') {
        return false;
    }
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = name.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    name.ends_with(last)
}

/// Where in a line the reader is.
#[derive(Clone, Copy)]
enum At {
    /// Before the request's quote.
    Head,
    /// In the request.
    Request,
    /// Behind it: the digits of the status so far, and how many they are.
    Status(u16, u8),
    /// Behind the status, or in a line that has none.
    Rest,
}

impl Served {
    /// Returns what both served together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            errors: self.errors.saturating_add(more.errors),
            not_found: self.not_found.saturating_add(more.not_found),
            refused: self.refused.saturating_add(more.refused),
            files: self.files.saturating_add(more.files),
        }
    }

    /// Counts the lines of a file; gives how many bytes it read.
    fn read(&mut self, file: File, most: u64) -> std::io::Result<u64> {
        let mut reader = BufReader::with_capacity(128 * 1024, file.take(most));
        let (mut at, mut escaped, mut read) = (At::Head, false, 0);
        loop {
            let piece = reader.fill_buf()?;
            if piece.is_empty() {
                return Ok(read);
            }
            for byte in piece {
                at = match (at, byte) {
                    (_, b'\n') => At::Head,
                    // Apache and nginx write a quote that a client sent as `\"` or `\x22`.
                    (at @ (At::Head | At::Request), _) if escaped => at,
                    (At::Head, b'"') => At::Request,
                    (At::Request, b'"') | (At::Status(0, 0), b' ') => At::Status(0, 0),
                    (At::Status(number, digits @ 0..3), b'0'..=b'9') => {
                        At::Status(number * 10 + u16::from(byte - b'0'), digits + 1)
                    }
                    (At::Status(number, 3), b' ') => {
                        self.requests += 1;
                        self.errors += u64::from((500..600).contains(&number));
                        self.not_found += u64::from(number == 404);
                        self.refused += u64::from((400..600).contains(&number));
                        At::Rest
                    }
                    (At::Status(..) | At::Rest, _) => At::Rest,
                    (at, _) => at,
                };
                escaped = *byte == b'\\' && !escaped;
            }
            let length = piece.len();
            read += length as u64;
            reader.consume(length);
        }
    }
}

/// The parameter of a pattern: an absolute path without `..`.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let path = Path::new(pattern);
    if !path.is_absolute() || pattern.split('/').any(|part| part == "..") || pattern.contains('\0') {
        return Err(format!("`{pattern}` is not an absolute path of log files, such as `/data/logs/*.log`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::{LogMarks, Served, fits};
    use crate::system::{NoBlobs, Probe};

    #[test]
    fn files_of_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = |end: &str| format!("{}/{end}", dir.path().display());
        let probe = Probe::new(Arc::new(NoBlobs), Arc::new(|_: &str, _| {}), dir.path().into());
        let line = "1.2.3.4 - - [x] \"GET / HTTP/1.1\" 503 9\n";
        let log = dir.path().join("a.log");
        std::fs::write(&log, line).unwrap();
        let marks = probe.log_marks(&pattern("*.log")).unwrap();
        let since = |marks| probe.served_since(&pattern("*.log"), marks).unwrap();
        assert_eq!(since(&marks), Served { files: 1, ..Served::default() });
        std::fs::rename(&log, dir.path().join("old.log")).unwrap();
        std::fs::write(&log, line.repeat(2)).unwrap();
        assert_eq!(since(&marks), Served { requests: 2, errors: 2, not_found: 0, refused: 2, files: 2 });
        let none = probe.served_since(&pattern("*.txt"), &LogMarks::default()).unwrap();
        assert_eq!(none, Served::default());
        probe.log_marks(&pattern("none/*.log")).unwrap_err();
    }

    fn served(text: &str) -> Served {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut served = Served::default();
        assert_eq!(served.read(file, u64::MAX).unwrap(), text.len() as u64);
        served
    }

    #[test]
    fn lines_of_apache_and_nginx() {
        let text = "10.0.0.1 - - [26/Nov/2026:03:00:00 +0000] \"GET / HTTP/1.1\" 200 12 \"-\" \"curl \\\" 500 \"\n\
            10.0.0.1 www.a.org - bob [x] \"GET /\\\"\\\\ HTTP/1.1\" 503 0\n\
            10.0.0.1 \\\"host - - [x] \"-\" 408 0\n\
            10.0.0.1 - - [x] \"GET /gone\" 404 7\n\
            10.0.0.1 - - [x] \"POST /a b\\\\\" 599 -\n\
            nothing of the kind\n\
            \"GET /\" 5000 1\n\
            \"GET /\" 50 1\n\
            \"GET /\" 500";
        // The last line is still being written.
        assert_eq!(served(text), Served { requests: 5, errors: 2, not_found: 1, refused: 4, files: 0 });
        assert_eq!(served(""), Served::default());
    }

    #[test]
    fn what_is_no_text_counts_nothing_and_ends() {
        let garbage: String = (0..300_000u32).map(|number| char::from((number * 7 % 128) as u8)).collect();
        assert!(served(&garbage).requests < 10);
        let long = format!("\"{}\" 502 1\n", "x".repeat(1_000_000));
        assert_eq!(served(&long), Served { requests: 1, errors: 1, not_found: 0, refused: 1, files: 0 });
    }

    #[test]
    fn names_with_stars() {
        for (pattern, name, wanted) in [
            ("a.log", "a.log", true),
            ("*", "a.log", true),
            ("*", ".hidden", false),
            ("*.log", "a.log", true),
            ("*.log", "a.log.gz", false),
            ("acc*_*.log", "access_09.log", true),
            ("acc*_*.log", "access.log", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("a*b*", "ab", true),
        ] {
            assert_eq!(fits(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
