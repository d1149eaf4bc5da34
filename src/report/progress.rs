//! Bars for a person at a terminal: one line a host with the step it is at.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::words::short;
use crate::event::{Event, EventKind};

/// The most hosts with a line of their own; the others are counted in one.
const MOST_BARS: usize = 16;

/// Redraws a second.
const RATE: u8 = 8;

/// The bars of a run.
pub(super) struct Bars {
    all: MultiProgress,
    of_host: BTreeMap<String, ProgressBar>,
    rest: Option<ProgressBar>,
    rest_left: usize,
}

impl Bars {
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(RATE));
        Self { all, of_host: BTreeMap::new(), rest: None, rest_left: 0 }
    }

    pub(super) fn hear(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { hosts, .. } => self.start(hosts),
            EventKind::StepStarted { step } => {
                self.say(&event.host, &format!("{} {}", short(&step.kind), short(&step.title)));
            }
            EventKind::Progress { message, amount, .. } => {
                let amount = amount.map_or_else(String::new, |(done, total)| format!(" {done}/{total}"));
                self.say(&event.host, &format!("{}{amount}", short(message)));
            }
            EventKind::StepFinished { .. } => {
                if let Some(bar) = self.of_host.get(&event.host) {
                    bar.inc(1);
                }
            }
            EventKind::StageFinished { .. } => self.say(&event.host, "waits for the others"),
            EventKind::HostFinished { .. } | EventKind::HostLost { .. } => {
                match self.of_host.remove(&event.host) {
                    Some(bar) => bar.finish_and_clear(),
                    None => self.rest_left = self.rest_left.saturating_sub(1),
                }
                if let Some(rest) = &self.rest {
                    rest.set_message(format!("and {} more hosts", self.rest_left));
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, hosts: &[String]) {
        let width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0).min(30);
        let style =
            ProgressStyle::with_template(&format!("  {{prefix:{width}}}  {{spinner}} {{pos:>4}}  {{wide_msg}}"));
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        for host in hosts.iter().take(MOST_BARS) {
            let bar = self.all.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(short(host)));
            bar.set_message("connects");
            bar.enable_steady_tick(Duration::from_millis(250));
            self.of_host.insert(host.clone(), bar);
        }
        self.rest_left = hosts.len().saturating_sub(MOST_BARS);
        if self.rest_left > 0 {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_message(format!("and {} more hosts", self.rest_left));
            self.rest = Some(bar);
        }
    }

    fn say(&self, host: &str, text: &str) {
        if let Some(bar) = self.of_host.get(host) {
            bar.set_message(text.to_owned());
        }
    }

    /// Prints while the bars are out of the way.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    /// Takes the bars away.
    pub(super) fn clear(self) {
        let _ = self.all.clear();
    }
}
