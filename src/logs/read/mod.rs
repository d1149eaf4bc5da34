//! Reads the lines of segments back: of a stretch of time, those that match a pattern, the last ones, or as they are written.
//!
//! ```text
//! [folder](super::folder): what is there -> [source]: one segment's lines, each with its time -> [merge]: in the order of time -> a [`Sink`]
//! ```
//!
//! Nothing is written and no lock is kept, so reading is possible beside writers and keepers. Folders belong to users that are not trusted: everything
//! is opened by descriptors, as keepers do.

mod find;
mod follow;
mod last;
mod merge;
mod source;
mod stamp;

use std::path::PathBuf;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use self::source::{Open, Source};
use crate::failure::{Context as _, Failure};

/// The longest piece of a line, in bytes: a longer line comes in several.
pub const MOST_PIECE: usize = 64 * 1024;

/// The longest line that is looked at as a whole, in bytes. What is behind that is taken or left with it.
const MOST_LINE: usize = 1024 * 1024;

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The folders of segments, each with all that is below it.
    pub folders: Vec<PathBuf>,
    /// Only what stands below a directory of that name.
    pub site: Option<String>,
    /// Lines of this time and later: microseconds since 1970.
    pub since: Option<i64>,
    /// Lines of this time and earlier: microseconds since 1970.
    pub until: Option<i64>,
    /// Lines that match.
    pub pattern: Option<Pattern>,
    /// The last lines alone, so many.
    pub last: Option<usize>,
    /// Whether it goes on with what is written from now on.
    pub follow: bool,
}

/// A regular expression, in the syntax of the crate `regex`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// The expression.
    pub text: String,
    /// Whether small and capital letters of ASCII are the same.
    pub ignore_case: bool,
    /// Whether lines are taken that do not match.
    pub invert: bool,
}

impl Pattern {
    /// Makes it ready for use.
    ///
    /// # Errors
    /// It is no regular expression, or a very large one.
    pub fn compile(&self) -> Result<Regex, Failure> {
        let built = RegexBuilder::new(&self.text).case_insensitive(self.ignore_case).unicode(false).build();
        built.with_context(|| format!("`{}` is no regular expression", self.text))
    }
}

/// A line of a segment, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where it belongs: microseconds since 1970. It is the time that the line gives for itself, within the period of its file, and never
    /// before that of the line before it.
    pub at: i64,
    /// The bytes, with the line's end; without one where more of the line follows.
    #[serde(with = "crate::value::as_bytes")]
    pub text: Vec<u8>,
}

/// What a reader tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Lines of another file will follow.
    File {
        /// Its number, from now on.
        number: u32,
        /// Which of the query's folders it is in.
        folder: u32,
        /// Its path below the folder, as its writer named it.
        path: String,
    },
    /// A line.
    Line {
        /// The number of its file.
        file: u32,
        /// The line.
        line: Line,
    },
    /// No line of that file follows.
    Over {
        /// Its number.
        number: u32,
    },
    /// Something could not be read.
    Failed(Box<Failure>),
    /// Everything that was there is told; what follows is written from now on.
    Current,
    /// Nothing follows.
    End,
}

/// Takes what a reader tells. Both return whether the reader is to go on.
pub trait Sink {
    /// Takes one thing.
    fn take(&mut self, told: Told) -> bool;
    /// Nothing more may come for a while: what was taken is to be shown.
    fn flush(&mut self) -> bool;
}

/// The sink wants nothing more.
struct Enough;

/// Reads what is asked for, and tells it.
///
/// # Errors
/// The pattern is none. What cannot be read is told.
pub fn read(query: &Query, sink: &mut dyn Sink) -> Result<(), Failure> {
    let mut desk = Desk { filter: Filter::new(query)?, query, sink, next: 0 };
    // Whether the sink wanted all of it makes no difference here.
    let _ = desk.all();
    Ok(())
}

/// Which lines are taken.
struct Filter {
    since: i64,
    until: i64,
    pattern: Option<(Regex, bool)>,
}

impl Filter {
    fn new(query: &Query) -> Result<Self, Failure> {
        let compiled = |pattern: &Pattern| pattern.compile().map(|compiled| (compiled, pattern.invert));
        Ok(Self {
            since: query.since.unwrap_or(i64::MIN),
            until: query.until.unwrap_or(i64::MAX),
            pattern: query.pattern.as_ref().map(compiled).transpose()?,
        })
    }

    fn takes(&self, line: &Line) -> bool {
        let text = line.text.strip_suffix(b"\n").unwrap_or(&line.text);
        let matches = || self.pattern.as_ref().is_none_or(|(pattern, invert)| pattern.is_match(text) != *invert);
        (self.since..=self.until).contains(&line.at) && matches()
    }
}

/// One reader at work.
struct Desk<'q> {
    query: &'q Query,
    filter: Filter,
    sink: &'q mut dyn Sink,
    /// The number of the next file.
    next: u32,
}

impl Desk<'_> {
    fn all(&mut self) -> Result<(), Enough> {
        let mut found = find::Found::default();
        let segments = self.look(&mut found)?;
        let live = match self.query.last {
            Some(most) => self.last(segments, most)?,
            None if self.query.follow && self.query.since.is_none() => self.last(segments, 0)?,
            None => self.merged(segments)?,
        };
        if self.query.follow {
            self.tell(Told::Current)?;
            self.flush()?;
            self.follow(found, live)?;
        }
        Ok(())
    }

    fn tell(&mut self, told: Told) -> Result<(), Enough> {
        if self.sink.take(told) { Ok(()) } else { Err(Enough) }
    }

    fn flush(&mut self) -> Result<(), Enough> {
        if self.sink.flush() { Ok(()) } else { Err(Enough) }
    }

    fn fail(&mut self, failure: Failure) -> Result<(), Enough> {
        self.tell(Told::Failed(Box::new(failure)))
    }

    /// Opens a segment; `None` where it cannot be read, which is told.
    fn open(&mut self, source: &Source) -> Result<Option<Open>, Enough> {
        match source.open() {
            Ok(open) => Ok(Some(open)),
            Err(failure) => self.fail(failure).map(|()| None),
        }
    }

    /// Returns the next line of a segment; `None` where there is none (yet), or it cannot be read, which is told.
    fn next(&mut self, open: &mut Open) -> Result<Option<Line>, Enough> {
        match open.next() {
            Ok(line) => Ok(line),
            Err(failure) => self.fail(failure).map(|()| None),
        }
    }

    /// Tells a line, if it is one that is asked for.
    fn line(&mut self, open: &mut Open, line: &Line) -> Result<(), Enough> {
        if !std::mem::replace(&mut open.is_rest, !line.text.ends_with(b"\n")) {
            open.is_taken = self.filter.takes(line);
        }
        if !open.is_taken {
            return Ok(());
        }
        let file = match open.file {
            Some(file) => file,
            None => {
                let number = self.next;
                self.next = number.wrapping_add(1);
                open.file = Some(number);
                self.tell(Told::File { number, folder: open.folder, path: open.path.clone() })?;
                number
            }
        };
        let mut pieces = line.text.chunks(MOST_PIECE);
        pieces.try_for_each(|piece| self.tell(Told::Line { file, line: Line { at: line.at, text: piece.to_vec() } }))
    }

    /// Tells that a segment has no more lines.
    fn over(&mut self, open: &Open) -> Result<(), Enough> {
        open.file.map_or(Ok(()), |number| self.tell(Told::Over { number }))
    }
}

#[cfg(test)]
mod tests;
