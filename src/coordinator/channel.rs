//! One host's channel: connects, sends the plan, passes orders on, answers questions, hears events.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::logins::{Logins, TRIES, pause};
use super::protocol::{Protocol, violation};
use super::sending::Sending;
use crate::event::{Event, EventKind};
use crate::failure::{Failure, FailureKind};
use crate::plan::{Connection, Contents, HostPlan};
use crate::remote::codec::{Reader, encode, hello};
use crate::remote::pulse::Pulse;
use crate::remote::wire::{LockAnswer, MOST_CHUNK, Patience, ToController, ToHelper};
use crate::remote::{Input, Link, Reach, START, TURNED_AWAY, Tail, connect};

#[cfg(test)]
mod tests;

/// How many messages of a host wait at most until they are dealt with.
const MOST_WAITING: usize = 4;

/// What the coordinator asks of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Stages up to this number may run; that one without these nodes.
    Go { stage: u32, without: Vec<String> },
    /// These stages do not take place.
    Skip { from: u32, to: u32 },
    /// No further step may start.
    Stop,
    /// The host's lock is to be taken, waiting at most so long.
    Lock { wait: Duration, by: String },
    /// It is to be freed.
    Unlock,
}

/// What a channel tells the coordinator.
pub(super) struct Report {
    pub(super) number: usize,
    pub(super) said: Said,
}

/// What a host says.
pub(super) enum Said {
    Event(Box<Event>),
    Lock(LockAnswer),
}

/// One host's channel.
pub(super) struct Channel {
    pub(super) number: usize,
    /// The host's inventory name.
    pub(super) name: String,
    pub(super) connection: Connection,
    pub(super) contents: Arc<Contents>,
    pub(super) reach: Arc<Reach>,
    pub(super) logins: Arc<Logins>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) patience: Patience,
}

impl Channel {
    /// Runs until the host has said its terminal event; says one for it when it cannot.
    pub(super) async fn run(mut self, plan: HostPlan) {
        if let Err(failure) = self.speak(plan).await {
            self.tell(EventKind::HostLost { failure });
        }
    }

    async fn speak(&mut self, plan: HostPlan) -> Result<(), Failure> {
        let link = log_in(&self.name, &self.connection, &self.reach, &self.logins).await?;
        self.converse(link, plan).await
    }

    /// Speaks with a helper over an open channel, until one side ends.
    async fn converse(&mut self, link: Link, plan: HostPlan) -> Result<(), Failure> {
        let Link { mut input, output, stderr, uploaded, guard } = link;
        // What was sent before the helper may still be on its way.
        let limit = if uploaded { ("start", START) } else { ("silence", self.patience.silence) };
        if let Err(failure) = timed_hello(&mut input, limit).await {
            return Err(with_tail(failure, &stderr).await);
        }
        self.tell(EventKind::HostConnected { uploaded });
        let mut opening = hello();
        add_plan(&mut opening, &plan)?;
        let mut protocol = Protocol::new(plan, Instant::now());
        // Words that wait already go out with the plan: no question is asked in between.
        while let Ok(order) = self.orders.try_recv() {
            protocol.order(&order, Instant::now());
            opening.extend(encode(&message(order))?);
        }
        let sending = Sending::start(output, opening, Arc::clone(&self.contents), self.patience.heartbeat);
        let pulse = input.pulse();
        let (sender, mut incoming) = mpsc::channel(MOST_WAITING);
        // A task of its own reads, so that no frame is cut by a select.
        let reading = tokio::spawn(async move {
            loop {
                let next = input.next::<ToController>().await;
                let over = !matches!(next, Ok(Some(_)));
                if sender.send(next).await.is_err() || over {
                    return;
                }
            }
        });
        let ended = self.listen(&mut incoming, &pulse, &sending, &mut protocol).await;
        reading.abort();
        drop(sending);
        drop(guard);
        match ended {
            Err(failure) if failure.kind == FailureKind::Lost => Err(with_tail(failure, &stderr).await),
            ended => ended,
        }
    }

    async fn listen(
        &mut self,
        incoming: &mut mpsc::Receiver<Result<Option<ToController>, Failure>>,
        pulse: &Pulse,
        sending: &Sending,
        protocol: &mut Protocol,
    ) -> Result<(), Failure> {
        let lost = |text: &str| Failure::of(FailureKind::Lost, text.to_owned());
        let silence = self.patience.silence;
        loop {
            tokio::select! {
                reply = incoming.recv() => {
                    let gone = || lost("the helper ended without saying how the run went");
                    match reply.ok_or_else(gone)??.ok_or_else(gone)? {
                        ToController::Event(event) => {
                            let Some(event) = protocol.hear(*event, Instant::now())? else { continue };
                            let last = matches!(event.kind, EventKind::HostFinished { .. });
                            self.report(Said::Event(Box::new(event)));
                            if last {
                                return Ok(());
                            }
                        }
                        ToController::NeedBlob { digest } => {
                            protocol.needs(digest)?;
                            sending.content(digest);
                        }
                        ToController::Fatal(failure) => return Err(protocol.fatal(failure).unwrap_or_else(|refused| refused)),
                        ToController::Lock(answer) => {
                            let answer = protocol.lock(answer, Instant::now())?;
                            self.report(Said::Lock(answer));
                        }
                        ToController::Read(_) => return Err(violation("lines of log files", "it was not asked for them")),
                        ToController::Pong => {}
                    }
                }
                order = self.orders.recv() => {
                    let Some(order) = order else { return Err(lost("the run is over")) };
                    // Before it is sent: the answer may come at once.
                    protocol.order(&order, Instant::now());
                    sending.frames(encode(&message(order))?);
                }
                () = until(protocol.limit(sending.opening().last())) => {
                    // A piece of the plan may have gone out meanwhile.
                    let over = protocol.limit(sending.opening().last()).filter(|(end, _)| Instant::now() >= *end);
                    if let Some((_, failure)) = over {
                        return Err(failure);
                    }
                }
                () = pulse.silence(silence) => {
                    return Err(lost("the helper has fallen silent").because(Failure::timeout("silence", silence)));
                }
            }
        }
    }

    fn tell(&self, kind: EventKind) {
        let event = Event { host: self.name.clone(), index: 0, at_ms: 0, kind };
        self.report(Said::Event(Box::new(event)));
    }

    fn report(&self, said: Said) {
        let _ = self.reports.send(Report { number: self.number, said });
    }
}

/// Opens a channel to a host; tries again, later and with fewer at a time, where the host or a bastion before it turns logins away.
///
/// # Errors
/// The host cannot be reached, or its helper cannot be started there.
pub(super) async fn log_in(
    name: &str,
    connection: &Connection,
    reach: &Reach,
    logins: &Logins,
) -> Result<Link, Failure> {
    let mut tries = 0;
    loop {
        let place = logins.enter().await;
        match connect(name, connection, reach).await {
            Err(failure) if failure.facts.contains_key(TURNED_AWAY) && tries < TRIES => place.turned_away(),
            Err(failure) if tries > 0 => return Err(failure.because(format!("it was tried {} times", tries + 1))),
            done => return done,
        }
        tokio::time::sleep(pause(tries)).await;
        tries += 1;
    }
}

async fn until(limit: Option<(Instant, Failure)>) {
    match limit {
        Some((end, _)) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn message(order: Order) -> ToHelper {
    match order {
        Order::Go { stage, without } => ToHelper::Go { stage, without },
        Order::Skip { from, to } => ToHelper::Skip { from, to },
        Order::Stop => ToHelper::Stop,
        Order::Lock { wait, by } => ToHelper::Lock { wait, by },
        Order::Unlock => ToHelper::Unlock,
    }
}

/// Waits for the helper's hello, within a limit that has a name.
///
/// # Errors
/// It does not come, or is none.
pub(super) async fn timed_hello(input: &mut Reader<Input>, (name, limit): (&str, Duration)) -> Result<(), Failure> {
    match tokio::time::timeout(limit, input.hello()).await {
        Ok(read) => read.map(drop),
        Err(_) => Err(Failure::of(FailureKind::Unreachable, "the helper does not say hello")
            .because(Failure::timeout(name, limit))),
    }
}

fn add_plan(out: &mut Vec<u8>, plan: &HostPlan) -> Result<(), Failure> {
    let bytes = postcard::to_stdvec(plan)
        .map_err(|error| Failure::of(FailureKind::Internal, format!("the plan cannot be encoded: {error}")))?;
    let pieces = bytes.len().div_ceil(MOST_CHUNK);
    for (number, piece) in bytes.chunks(MOST_CHUNK).enumerate() {
        out.extend(encode(&ToHelper::Plan { piece: piece.to_vec(), last: number + 1 == pieces })?);
    }
    Ok(())
}

/// Adds what the helper, or what ran before it, said on stderr.
pub(super) async fn with_tail(failure: Failure, stderr: &Tail) -> Failure {
    tokio::time::sleep(Duration::from_millis(50)).await;
    stderr.lines().into_iter().fold(failure, Failure::because)
}
