//! The texts a playbook is made of, and places in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A range of bytes in one source file. `start..end` are byte offsets; the file is a number given by [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The file, as numbered by [`Sources::add`].
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// No place at all, for errors of the command line; no file has this number.
    pub const NOWHERE: Self = Self { file: u32::MAX, start: 0, end: 0 };

    /// The smallest span that covers both. Both must lie in the same file; else `self` is returned.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        if self.file != other.file {
            return self;
        }
        Self { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// One file's text, with the offsets of its lines.
#[derive(Debug)]
pub struct SourceFile {
    /// The path as the user wrote it or as the import resolved it; what error messages show.
    pub path: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
    line_starts: Vec<u32>,
}

/// A line and a column, both counted from 1; the column counts characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineColumn {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl SourceFile {
    fn new(path: PathBuf, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let after = newlines.map(|(offset, _)| u32::try_from(offset + 1).unwrap_or(u32::MAX));
        let line_starts = std::iter::once(0).chain(after).collect();
        Self { path, text: text.into(), line_starts }
    }

    /// Where a byte offset stands. Offsets beyond the end give the end.
    pub fn position(&self, offset: u32) -> LineColumn {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start as usize..(offset as usize).min(self.text.len())).unwrap_or("");
        let column = before.chars().count() + 1;
        LineColumn { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }

    /// The text of a line, counted from 1, without its line end.
    pub fn line(&self, line: u32) -> &str {
        let index = (line as usize).saturating_sub(1);
        let start = self.line_starts.get(index).copied().unwrap_or(0) as usize;
        let end = self.line_starts.get(index + 1).map_or(self.text.len(), |next| *next as usize);
        self.text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }
}

/// Every text that a run has read, in the order of reading.
#[derive(Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    /// Keeps a text and gives it a number.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: &str) -> u32 {
        self.files.push(SourceFile::new(path.into(), text));
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The file of that number, if there is one.
    pub fn get(&self, file: u32) -> Option<&SourceFile> {
        self.files.get(file as usize)
    }

    /// The text a span covers; empty when the span fits no file.
    pub fn text(&self, span: Span) -> &str {
        self.get(span.file).and_then(|file| file.text.get(span.start as usize..span.end as usize)).unwrap_or("")
    }

    /// `path:line:column` of a span's start, as every message shows it.
    pub fn locate(&self, span: Span) -> String {
        self.get(span.file).map_or_else(String::new, |file| {
            let at = file.position(span.start);
            format!("{}:{}:{}", file.path.display(), at.line, at.column)
        })
    }

    /// `path:line` of a span's start, for what ran: people want the line, the column is for errors.
    pub fn line(&self, span: Span) -> String {
        self.get(span.file)
            .map_or_else(String::new, |file| format!("{}:{}", file.path.display(), file.position(span.start).line))
    }

    /// The path of a file, for resolving what it names.
    pub fn path(&self, file: u32) -> Option<&Path> {
        self.get(file).map(|file| file.path.as_path())
    }
}

/// Why the system refused something, without its number: `no such file or directory`.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
