//! What is done to the program, and asked of it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::tree::Id;
use super::{How, Settings, probe};
use crate::failure::Failure;
use crate::system::http::Request;
use crate::system::process::{Program, run_within, stays_up};
use crate::system::supervisor::{Births, Did, Patience, ProcessState, SupervisorHands, births as births_of};

/// The header that tells which generation is loaded.
const HEADER: &str = "x-generation";
/// How long a page may take to answer which generation is loaded (`proof answer`).
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is asked after a reload.
const RETRY: Duration = Duration::from_millis(200);
/// How long a program must stay up after a signal, or started by `--try`.
const STEADY: Duration = Duration::from_secs(2);

/// How long what `--try` has started may take to end again, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

fn patience(settings: &Settings) -> Patience {
    Patience { start: settings.limit, stop: settings.limit, steady: STEADY }
}

/// A command with the environment that the container has; nobody's shell reads it.
fn command(argv: &[String]) -> Program {
    std::env::vars().fold(Program::new(argv), |program, (name, value)| program.env(name, value))
}

async fn run(argv: &[String], settings: &Settings) -> Result<(), Failure> {
    run_within(&command(argv), ("limit", settings.limit)).await?.expect_success().map(|_| ())
}

/// Whether the configuration can be used: `--validate` finds nothing, and what `--try` starts stays up. Without both, it can.
pub(super) async fn validate(settings: &Settings) -> Result<(), Failure> {
    if let Some(argv) = &settings.validate {
        run(argv, settings).await?;
    }
    match &settings.attempt {
        Some(argv) => {
            let stays = stays_up(&command(argv), STEADY, GRACE).await;
            stays.map_err(|failure| failure.within("what `--try` starts does not stay up"))
        }
        None => Ok(()),
    }
}

/// Who the program's processes are; none where no supervisor tells.
pub(super) async fn births(settings: &Settings) -> Result<Births, Failure> {
    let How::Program(name, _, socket) = &settings.how else { return Ok(Births::new()) };
    let found = SupervisorHands::own(socket)?.program(name).await?;
    Ok(births_of(&found))
}

/// Has the program load what stands there; in words what was done, and who its processes are then.
pub(super) async fn load(settings: &Settings, id: &Id) -> Result<(String, Births), Failure> {
    let done = match &settings.how {
        How::Command(argv) => {
            run(argv, settings).await?;
            ("its command has run".to_owned(), Births::new())
        }
        How::Program(name, signal, socket) => {
            let reloaded = SupervisorHands::own(socket)?.reload(name, signal, patience(settings)).await?;
            let did = match reloaded.did {
                Did::Signalled => format!("`{name}` got {signal}"),
                Did::Started => format!("`{name}` was down and has been started"),
                Did::Updated => format!("`{name}` was taken in anew by supervisor"),
                Did::Died => format!("`{name}` died of {signal}, and supervisor has started it again"),
                Did::Nothing => format!("`{name}` is stopped, and stays so"),
            };
            if reloaded.did == Did::Nothing {
                return Ok((did, births_of(&reloaded.processes)));
            }
            (did, births_of(&reloaded.processes))
        }
    };
    if can_prove(settings, id) && !proven_within(settings, id, settings.limit).await {
        return Err(Failure::timeout("limit", settings.limit)
            .within(format!("it does not answer that it has {}, as `--proof` asks", id.show())));
    }
    Ok(done)
}

/// What was done about a program that was down.
pub(super) struct Healed {
    /// Who its processes are then, where supervisor had given it up.
    pub(super) started: Option<Births>,
    /// How many processes that it had left behind were ended.
    pub(super) ended: usize,
}

/// Ends what a program that is down has left behind, and starts it where supervisor has given it up.
pub(super) async fn heal(settings: &Settings) -> Result<Healed, Failure> {
    let How::Program(name, _, socket) = &settings.how else { return Ok(Healed { started: None, ended: 0 }) };
    let supervisor = SupervisorHands::own(socket)?;
    let found = supervisor.program(name).await?;
    let given_up = found.iter().any(|process| process.state == ProcessState::Fatal);
    if given_up {
        validate(settings).await?;
    }
    let mut ended = 0;
    for process in &found {
        ended += supervisor.end_leftovers(process).await?;
    }
    if !given_up {
        return Ok(Healed { started: None, ended });
    }
    let up = supervisor.bring_up(name, patience(settings)).await?;
    Ok(Healed { started: Some(births_of(&up)), ended })
}

fn can_prove(settings: &Settings, id: &Id) -> bool {
    settings.proof.is_some() && id.generation.is_some()
}

/// As [`proven`], asked again until it is or `limit` is over; at once where nothing can be proven.
pub(super) async fn proven_within(settings: &Settings, id: &Id, limit: Duration) -> bool {
    let begun = Instant::now();
    while can_prove(settings, id) {
        if proven(settings, id).await {
            return true;
        }
        if begun.elapsed() >= limit {
            break;
        }
        sleep(RETRY).await;
    }
    false
}

/// Whether the program itself says that it has this generation. No answer is no proof.
pub(super) async fn proven(settings: &Settings, id: &Id) -> bool {
    let (Some(url), Some(generation)) = (&settings.proof, &id.generation) else { return false };
    match probe().http(&Request::get(url, ANSWER)).await {
        // In the header with any status: for Apache a page would need a file.
        Ok(answer) if answer.header(HEADER) == Some(generation) => true,
        Ok(answer) if answer.status == 200 => {
            let text = String::from_utf8_lossy(&answer.body);
            text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == generation)
        }
        _ => false,
    }
}
