//! `line`: one line in a file that something else keeps.

use std::borrow::Cow;

use super::content::{check_validate, put_staged, regular, warn_of_names};
use super::param::{HostPath, Presence};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, State, Verb, between};
use crate::failure::Failure;
use crate::system::fs::{Attrs, Entry, foreign_owner};
use crate::system::{Actuator, Probe};
use crate::value::Map;

/// The longest file that is edited: limit `line_file_size`.
const MOST_FILE: u64 = 16 << 20;

/// How many other lines a change names.
const MOST_SHOWN: usize = 3;

crate::kind! {
    /// Keeps one line in a file, and leaves the rest of it alone.
    ///
    /// `present`: the line is there, and of the lines that `starting` or `containing` finds it is the only one. When it is nowhere in
    /// the file, it takes the place of the last line found; without such a line it is put after the last line that starts with
    /// `after`, before the first that starts with `before`, or at the end. The others that are found go, as `others` of the change
    /// tells: `Port 22` would count beside `Port 2222`. So let the text find what the line stands for and no more: `10.0.0.1 ` with its
    /// blank, not `10.0.0.1`. `absent`: every line that `starting` or `containing` finds goes, or every line that equals `line`.
    /// Owner and mode of the file stay, and so do its line ends. For a whole file, `file` or `template` says more.
    pub struct Line = "line" {
        /// The file.
        path: HostPath,
        /// The line, without its end.
        line: Option<String>,
        /// Finds lines that start with this text.
        starting: Option<String>,
        /// Finds lines that contain this text.
        containing: Option<String>,
        /// A new line goes after the last line that starts with this text.
        after: Option<String>,
        /// A new line goes before the first line that starts with this text.
        before: Option<String>,
        /// Whether the line is to be there.
        state: Presence = Presence::Present,
        /// Whether a missing file is made, with mode 0644; else it is a failure.
        create: bool = false,
        /// A command that must succeed on the new content before it is put in place; `{file}` stands for its path.
        validate: Vec<String> = Vec::new(),
    }
    example r#"line "/etc/fanli-example.conf" { line = "Port 2222"  starting = "Port "  create = true }"#
}

/// A text cut at each `\n`. With DOS line ends the `\r` stays on the line, so that untouched lines stay as they are.
struct Text<'a> {
    lines: Vec<Cow<'a, [u8]>>,
    dos: bool,
}

impl<'a> Text<'a> {
    fn cut(bytes: &'a [u8]) -> Self {
        let mut lines: Vec<Cow<'a, [u8]>> = bytes.split(|byte| *byte == b'\n').map(Cow::Borrowed).collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let dos = lines.first().is_some_and(|line| line.ends_with(b"\r"));
        Self { lines, dos }
    }

    /// The lines without their ends.
    fn plain(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.lines.iter().map(|line| line.strip_suffix(b"\r").filter(|_| self.dos).unwrap_or(line))
    }

    /// A new line, with the `\r` that the others have.
    fn fresh(&self, line: &str) -> Cow<'a, [u8]> {
        let end: &[u8] = if self.dos { b"\r" } else { b"" };
        Cow::Owned([line.as_bytes(), end].concat())
    }

    fn join(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| [line.as_ref(), b"\n"]).flatten().copied().collect()
    }
}

impl Line {
    /// The bytes of the file, and what it was before they were read.
    fn read(&self, probe: &Probe) -> Result<Option<(Vec<u8>, Entry)>, Failure> {
        let path = &self.path.0;
        let Some(entry) = regular(probe, path)? else { return Ok(None) };
        if entry.foreign {
            return Err(foreign_owner(path.as_ref(), entry.uid)
                .hint("declare its `owner` with a `file` task before this one, or remove it"));
        }
        probe.read_seen(path, MOST_FILE)
    }

    /// Whether `starting` or `containing` finds a line.
    fn finds(&self, line: &[u8]) -> bool {
        let starts = self.starting.as_ref().is_some_and(|text| line.starts_with(text.as_bytes()));
        let holds = |text: &String| line.windows(text.len()).any(|part| part == text.as_bytes());
        starts || self.containing.as_ref().is_some_and(holds)
    }

    fn is_line(&self, line: &[u8]) -> bool {
        self.line.as_ref().is_some_and(|wanted| line == wanted.as_bytes())
    }

    /// Whether a line has to go for `absent`.
    fn condemns(&self, line: &[u8]) -> bool {
        if self.starting.is_some() || self.containing.is_some() { self.finds(line) } else { self.is_line(line) }
    }

    /// The line as it stands now, by place: itself, or the one whose place it would take.
    fn current(&self, text: &Text<'_>) -> Option<usize> {
        match self.state {
            Presence::Present => {
                let itself = text.plain().position(|line| self.is_line(line));
                itself.or_else(|| text.plain().rposition(|line| self.finds(line)))
            }
            Presence::Absent => text.plain().position(|line| self.condemns(line)),
        }
    }

    /// What else is found besides the line that stays, as a change tells it.
    fn others(&self, text: &Text<'_>) -> Datum {
        let stays = self.current(text);
        let found = text.plain().enumerate().filter(|(at, line)| Some(*at) != stays && self.finds(line));
        let found: Vec<_> = found.map(|(_, line)| String::from_utf8_lossy(line)).collect();
        let shown = found.iter().take(MOST_SHOWN).map(|line| format!("`{line}`")).collect::<Vec<_>>().join(", ");
        match found.len().saturating_sub(MOST_SHOWN) {
            _ if found.is_empty() => Datum::Absent,
            0 => Datum::from(shown),
            more => Datum::from(format!("{shown} and {more} more")),
        }
    }

    /// The content as it should be; called only when the line is not as it should be.
    fn mended(&self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Text::cut(bytes);
        match (self.state, &self.line) {
            (Presence::Absent, _) => {
                let keep: Vec<bool> = text.plain().map(|line| !self.condemns(line)).collect();
                let mut keep = keep.into_iter();
                text.lines.retain(|_| keep.next().unwrap_or(true));
            }
            (Presence::Present, None) => {}
            (Presence::Present, Some(wanted)) => {
                let current = self.current(&text);
                let stays = |(at, line): (usize, &[u8])| Some(at) == current || !self.finds(line);
                let stay: Vec<bool> = text.plain().enumerate().map(stays).collect();
                let fresh = text.fresh(wanted);
                match current.and_then(|at| text.lines.get_mut(at)) {
                    Some(old) => *old = fresh,
                    None => text.lines.insert(self.place(&text), fresh),
                }
                if current.is_some() {
                    let mut stay = stay.into_iter();
                    text.lines.retain(|_| stay.next().unwrap_or(true));
                }
            }
        }
        text.join()
    }

    /// Where a new line goes.
    fn place(&self, text: &Text<'_>) -> usize {
        let starts = |line: &[u8], with: Option<&String>| with.is_some_and(|with| line.starts_with(with.as_bytes()));
        let after = text.plain().rposition(|line| starts(line, self.after.as_ref())).map(|at| at + 1);
        let before = || text.plain().position(|line| starts(line, self.before.as_ref()));
        after.or_else(before).unwrap_or(text.lines.len())
    }
}

impl Resource for Line {
    fn check(&self) -> Result<(), ArgError> {
        let texts = [
            ("line", &self.line),
            ("starting", &self.starting),
            ("containing", &self.containing),
            ("after", &self.after),
            ("before", &self.before),
        ];
        for (field, text) in texts {
            if text.as_ref().is_some_and(|text| text.contains(['\n', '\r', '\0'])) {
                return Err(ArgError::new(field, "is one line: it holds no line end and no NUL"));
            }
            if field != "line" && text.as_ref().is_some_and(String::is_empty) {
                return Err(ArgError::new(field, "is empty, so it finds every line"));
            }
        }
        let finds = self.starting.is_some() || self.containing.is_some();
        match (self.state, &self.line) {
            (Presence::Present, None) => return Err(ArgError::new("line", "is required")),
            (Presence::Absent, None) if !finds => {
                return Err(ArgError::new("line", "is required, or `starting` or `containing`: which line is to go"));
            }
            (Presence::Absent, Some(_)) if finds => {
                return Err(ArgError::new("line", "cannot stand beside `starting` or `containing` when it is to go"));
            }
            _ => {}
        }
        if self.starting.is_some() && self.containing.is_some() {
            return Err(ArgError::new("containing", "cannot stand beside `starting`"));
        }
        if self.after.is_some() && self.before.is_some() {
            return Err(ArgError::new("before", "cannot stand beside `after`"));
        }
        check_validate(&self.validate)
    }

    fn desired(&self) -> State {
        match (self.state, &self.line) {
            (Presence::Present, Some(line)) => {
                let finds = self.starting.is_some() || self.containing.is_some();
                let others = finds.then_some(("others", Datum::Absent));
                State::present([("line", Datum::from(line.as_str()))].into_iter().chain(others))
            }
            _ => State::present([("line", Datum::Absent)]),
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let Some(found) = self.read(probe)? else {
            // A missing file has no lines: nothing is left to do for `absent`.
            return Ok(match self.state {
                Presence::Present => State::Absent.into(),
                Presence::Absent => State::present([("line", Datum::Absent)]).into(),
            });
        };
        let (bytes, entry) = found;
        let text = Text::cut(&bytes);
        let current = self.current(&text).and_then(|at| text.plain().nth(at));
        let current = current.map(|line| String::from_utf8_lossy(line).into_owned());
        let others = match self.state {
            Presence::Present => self.others(&text),
            Presence::Absent => Datum::Absent,
        };
        let state = State::present([("line", current.map_or(Datum::Absent, Datum::from)), ("others", others)]);
        if between(&self.desired(), &state).is_some() {
            warn_of_names(probe, &self.path.0, &entry);
        }
        Ok(state.into())
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = &self.path.0;
        let (bytes, seen) = self.read(hands)?.unzip();
        if bytes.is_none() && change.verb == Verb::Create && !self.create {
            return Err(Failure::new(format!("{path} does not exist"))
                .hint("`create = true` makes it, or put the task that does before this one"));
        }
        let staged = hands.stage(path, &self.mended(&bytes.unwrap_or_default()), Attrs::default())?;
        put_staged(staged.made_from(seen), path, &self.validate).await?;
        Ok(Map::new())
    }
}
