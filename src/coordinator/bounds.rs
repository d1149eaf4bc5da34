//! How much a host may say: lengths of texts, numbers of messages, times that are possible.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::{Event, EventKind};
use crate::failure::Failure;
use crate::visible::{first_bytes, shortened};

/// The longest line, and the longest text, in bytes.
const MOST_LINE: usize = 4 * 1024;
const MOST_TEXT: usize = 64 * 1024;

/// The most causes of a failure, and facts beside it.
const MOST_CAUSES: usize = 64;

/// How many messages of progress are passed on in a second, and how many warnings in all.
const MOST_PROGRESS: u32 = 20;
const MOST_WARNINGS: u32 = 500;

/// The longest name in a message of the controller, in characters.
const MOST_NAME: usize = 200;

/// What was counted of a host.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Amounts {
    began: Instant,
    /// The second that is counted, and how much progress was passed on in it.
    second: Instant,
    progress: u32,
    warnings: u32,
    /// The time of the last event that was passed on, in milliseconds.
    at_ms: u64,
}

impl Amounts {
    /// Nothing counted yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, second: now, progress: 0, warnings: 0, at_ms: 0 }
    }

    /// Whether one more message of progress is passed on.
    pub(super) fn progress(&mut self, now: Instant) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.progress) = (now, 0);
        }
        self.progress += 1;
        self.progress <= MOST_PROGRESS
    }

    /// Whether one more warning is passed on; the last one says that it is.
    pub(super) fn warning(&mut self, message: &mut String) -> bool {
        self.warnings = self.warnings.saturating_add(1);
        if self.warnings == MOST_WARNINGS {
            "more warnings of this host are left out".clone_into(message);
        }
        self.warnings <= MOST_WARNINGS
    }

    /// Makes the times of an event possible ones: a host's clock goes forward, and not faster than the controller's.
    pub(super) fn time(&mut self, event: &mut Event, now: Instant) {
        let most = u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        event.at_ms = event.at_ms.clamp(self.at_ms.min(most), most);
        self.at_ms = event.at_ms;
        if let EventKind::StepFinished { took_ms, .. } = &mut event.kind {
            *took_ms = (*took_ms).min(most);
        }
    }
}

/// Cuts a line to its longest.
pub(super) fn cut_line(text: &mut String) {
    cut(text, MOST_LINE);
}

/// Cuts a text to its longest.
pub(super) fn cut_text(text: &mut String) {
    cut(text, MOST_TEXT);
}

/// Cuts the texts of a failure.
pub(super) fn cut_failure(failure: &mut Failure) {
    cut(&mut failure.message, MOST_TEXT);
    failure.causes.truncate(MOST_CAUSES);
    failure.causes.iter_mut().for_each(cut_text);
    failure.hint.iter_mut().for_each(cut_text);
    while failure.facts.len() > MOST_CAUSES {
        failure.facts.pop_last();
    }
    failure.facts.values_mut().for_each(cut_text);
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(first_bytes(text, most).len());
        text.push('…');
    }
}

/// The beginning of a name.
pub(super) fn short(name: &str) -> String {
    shortened(name, MOST_NAME)
}
