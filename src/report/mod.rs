//! What people and programs see of a run. Reporters hear events and know nothing else.
//!
//! `lines` is the text of a run, one thing a line; `progress` draws bars above which the same lines scroll; `json` is the
//! stream for machines; `recap` ends it.

mod json;
mod lines;
mod progress;
mod recap;
mod rollout;
mod words;

use std::io::Write as _;

use crate::event::{Event, EventKind};

pub use lines::Detail;
pub use words::harmless;

/// How a run is shown.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Bars and colour: a person sits at a terminal.
    pub terminal: bool,
    /// Colour.
    pub color: bool,
    /// The event stream as JSON on stdout; the text goes to stderr.
    pub json: bool,
    /// How much is said.
    pub detail: Detail,
}

/// What a report says of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The event as one line of JSON, without its end, when the style asks for it.
    pub json: Option<String>,
    /// Lines for people; empty for what is silent.
    pub text: String,
}

/// Shows a run.
pub struct Reporter {
    style: Style,
    lines: lines::Lines,
    recap: recap::Recap,
    bars: Option<progress::Bars>,
}

impl Reporter {
    /// A reporter of that style.
    pub fn new(style: Style) -> Self {
        Self {
            style,
            lines: lines::Lines::new(style.color, style.detail),
            recap: recap::Recap::new(style.color, style.detail),
            bars: (style.terminal && !style.json).then(progress::Bars::new),
        }
    }

    /// Shows one event.
    pub fn hear(&mut self, event: &Event) {
        let Said { json, text } = self.say(event);
        if let Some(json) = json {
            // A reader that went away (`| head`) is no failure of the run.
            let _ = writeln!(std::io::stdout(), "{json}");
        }
        if let Some(bars) = &mut self.bars {
            bars.hear(event);
        }
        if let EventKind::RunFinished { .. } = event.kind
            && let Some(bars) = self.bars.take()
        {
            bars.clear();
        }
        self.print(&text);
    }

    /// What is said of one event, without saying it.
    pub fn say(&mut self, event: &Event) -> Said {
        let json = self.style.json.then(|| json::line(event));
        self.recap.hear(event);
        let mut text = self.lines.hear(event);
        if let EventKind::RunFinished { .. } = event.kind {
            text.push_str(&self.recap.text());
        }
        Said { json, text }
    }

    fn print(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        let write = || {
            let _ = if self.style.json {
                std::io::stderr().write_all(text.as_bytes())
            } else {
                let mut stdout = std::io::stdout();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            };
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}
