//! What stands inside of a container that is not to run: nothing is plugged in, and nothing has to answer.

use super::expand::Expander;
use super::model::{Arg, Step};
use crate::playbook::model::StepDef;
use crate::resource::Param as _;
use crate::resource::attach::Mode;
use crate::syntax::ast::{Expr, ExprKind};
use crate::value::Value;

/// Why a container does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// It stays, stopped.
    Stopped,
    /// It goes.
    Absent,
}

impl Idle {
    /// Returns why a step's container is not to run, where that is known when planning; `None` for all else.
    pub(super) fn of(step: &Step) -> Option<Self> {
        let state = step.args.get("state").filter(|_| step.kind == "container")?;
        [("stopped", Self::Stopped), ("absent", Self::Absent)]
            .into_iter()
            .find_map(|(word, idle)| (*state == Arg::Ready(Value::from(word))).then_some(idle))
    }
}

impl<'p> Expander<'_, '_, 'p> {
    /// Plans a task inside of such a container: what takes something away is done, an attachment goes with its container, and the rest
    /// is left out.
    pub(super) fn idle_follower(&mut self, def: &'p StepDef, idle: Idle) {
        let goes = idle == Idle::Absent && def.schema.name == "attach";
        if !goes && !says_absent(def) {
            return self.skipped(def);
        }
        let own = self.steps.len();
        self.step(def);
        let Some(step) = self.steps.get_mut(own).filter(|_| goes) else { return };
        if step.args.get("mode").is_some_and(comes_with_the_container) {
            self.steps.truncate(own);
            return self.skipped(def);
        }
        step.args.insert("state".to_owned(), Arg::Ready(Value::from("absent")));
    }
}

/// Whether there is nothing to take away once the container is gone.
fn comes_with_the_container(mode: &Arg) -> bool {
    matches!(mode, Arg::Ready(word) if Mode::read(word.clone()).is_ok_and(Mode::comes_with_the_container))
}

/// Whether a task says `state = absent`.
fn says_absent(def: &StepDef) -> bool {
    let absent = |value: &Expr| matches!(&value.kind, ExprKind::Name(word) if word == "absent");
    def.args.iter().any(|(name, value)| name.text == "state" && absent(value))
}
