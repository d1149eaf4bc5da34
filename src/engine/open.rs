//! Changes that are kept only when the steps that belong to them have gone well, too: a container stays when it was plugged in and is
//! healthy, and its predecessor comes back otherwise.

use super::beside::{Queue, Share};
use super::step::{Ready, applies, hands};
use crate::event::Outcome;
use crate::failure::{Failure, FailureKind};
use crate::plan::{RunOptions, Step};
use crate::resource::Resource as _;
use crate::system::Probe;

/// A change that is neither confirmed nor put back yet.
pub(super) struct Open {
    ready: Box<Ready>,
    /// How many steps are still to come that belong to it.
    left: u32,
    /// Whether a rollout decides about it: the host puts it back by itself when nobody confirms it.
    pub(super) in_rollout: bool,
}

/// What is needed to judge.
pub(super) struct Judging<'a> {
    pub(super) options: RunOptions,
    pub(super) probe: &'a Probe,
    pub(super) queue: &'a Queue,
    /// The target's place in it.
    pub(super) place: usize,
    /// Whether the run is to stop at once.
    pub(super) cut: bool,
}

/// The failure of a step that was cut short, as the run is to stop at once.
pub(super) fn given_up() -> Failure {
    Failure::of(FailureKind::Aborted, "the run was stopped before this could be judged")
}

/// Judges what is open by the outcome of a step, which is its own or one that belongs to it. What cannot be confirmed fails that step,
/// and so does what is cut short before all of its steps are done.
pub(super) async fn judge(
    open: &mut Option<Open>,
    step: &Step,
    ready: Option<Box<Ready>>,
    outcome: Outcome,
    judging: &Judging<'_>,
) -> Outcome {
    let &Judging { options, probe, queue, place, cut } = judging;
    let (judged, own) = match (open.take(), ready) {
        (Some(open), _) => (Open { left: open.left.saturating_sub(1), ..open }, false),
        (None, Some(ready)) => match begins(step, &ready, &outcome, options, probe).await {
            Ok(true) => (Open { ready, left: step.followers, in_rollout: step.in_rollout }, true),
            Ok(false) => return outcome,
            Err(failure) => return Outcome::Failed(failure, None),
        },
        (None, None) => return outcome,
    };
    let Some(hands) = hands(options, probe) else { return outcome };
    let (failure, change) = match outcome {
        Outcome::Failed(failure, change) if own || !step.ignore_failure => (failure, change),
        Outcome::Changed(change) if judged.left > 0 && cut => (given_up(), Some(change)),
        _ if judged.left > 0 && cut => (given_up(), None),
        outcome if judged.left > 0 => {
            *open = Some(judged);
            return outcome;
        }
        outcome => match (judged.ready.kind.confirm(&hands).await, outcome) {
            (Ok(()), outcome) => return outcome,
            (Err(failure), Outcome::Changed(change)) => (failure, Some(change)),
            (Err(failure), _) => (failure, None),
        },
    };
    let kind = &judged.ready.kind;
    let failure = kind.explain(failure, probe).await;
    if judged.in_rollout {
        return Outcome::Failed(failure, change);
    }
    // With what was attached to it, which is the whole host's.
    let _turn = queue.admit(place, Share::Turn).await;
    let failure = kind.put_back(failure, &hands).await;
    Outcome::Failed(failure, change)
}

/// Whether a step leaves something to confirm or to put back.
async fn begins(
    step: &Step,
    ready: &Ready,
    outcome: &Outcome,
    options: RunOptions,
    probe: &Probe,
) -> Result<bool, Failure> {
    match outcome {
        Outcome::Changed(_) | Outcome::Ran | Outcome::Failed(_, Some(_)) => Ok(true),
        Outcome::Ok => {
            let open = ready.kind.is_open(probe).await?;
            if open && !applies(options) {
                probe.warn(format!(
                    "{} {}: an earlier run was stopped before it could judge what stands there; a run goes on with that, and \
                     puts back what was there before when it fails",
                    step.kind, ready.title
                ));
            }
            Ok(open && applies(options))
        }
        _ => Ok(false),
    }
}
