//! One host's channel: connects, sends the plan, passes orders on, answers questions, hears events.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::event::{Event, EventKind};
use crate::failure::{Failure, FailureKind};
use crate::plan::{Contents, HostPlan, HostRun};
use crate::remote::codec::{encode, hello, send_bytes};
use crate::remote::wire::{HEARTBEAT, MOST_CHUNK, SILENCE, ToController, ToHelper};
use crate::remote::{Link, Output, Reach, Tail, connect};
use crate::value::Digest;

/// What the coordinator asks of a channel.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Stages up to this number may run; that one without these nodes.
    Go { stage: u32, without: Vec<String> },
    /// These stages do not take place.
    Skip { from: u32, to: u32 },
    /// No further step may start.
    Stop,
}

/// What a channel tells the coordinator.
pub(super) struct Report {
    pub(super) number: usize,
    pub(super) event: Event,
}

/// One host's channel.
pub(super) struct Channel {
    pub(super) number: usize,
    pub(super) host: HostRun,
    pub(super) contents: Arc<Contents>,
    pub(super) reach: Arc<Reach>,
    pub(super) forks: Arc<Semaphore>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
}

impl Channel {
    /// Runs until the host has said its terminal event; says one for it when it cannot.
    pub(super) async fn run(mut self) {
        let name = self.host.plan.host.clone();
        if let Err(failure) = self.speak().await {
            let event = Event { host: name, index: 0, at_ms: 0, kind: EventKind::HostLost { failure } };
            let _ = self.reports.send(Report { number: self.number, event });
        }
    }

    async fn speak(&mut self) -> Result<(), Failure> {
        let Link { mut input, mut output, stderr, uploaded, guard } = {
            let _place = self.forks.acquire().await;
            connect(&self.host.plan.host, &self.host.connection, &self.reach).await?
        };
        if let Err(failure) = timed_hello(&mut input).await {
            return Err(with_tail(failure, &stderr).await);
        }
        self.tell(EventKind::HostConnected { uploaded });
        let mut opening = hello();
        add_plan(&mut opening, &self.host.plan)?;
        // Words that wait already go out with the plan: no question is asked in between.
        while let Ok(order) = self.orders.try_recv() {
            opening.extend(encode(&message(order))?);
        }
        if let Err(failure) = send_bytes(&mut output, &opening).await {
            return Err(with_tail(failure, &stderr).await);
        }
        let (sender, mut incoming) = mpsc::channel(256);
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
        let ended = self.listen(&mut incoming, &mut output).await;
        reading.abort();
        drop(output);
        drop(guard);
        match ended {
            Err(failure) if failure.kind == FailureKind::Lost => Err(with_tail(failure, &stderr).await),
            ended => ended,
        }
    }

    async fn listen(
        &mut self,
        incoming: &mut mpsc::Receiver<Result<Option<ToController>, Failure>>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let lost = |text: &str| Failure::of(FailureKind::Lost, text.to_owned());
        let mut heard = tokio::time::Instant::now();
        let mut ping = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                reply = incoming.recv() => {
                    heard = tokio::time::Instant::now();
                    let gone = || lost("the helper ended without saying how the run went");
                    match reply.ok_or_else(gone)??.ok_or_else(gone)? {
                        ToController::Event(event) => {
                            let last = matches!(event.kind, EventKind::HostFinished { .. } | EventKind::HostLost { .. });
                            let _ = self.reports.send(Report { number: self.number, event: *event });
                            if last {
                                return Ok(());
                            }
                        }
                        ToController::NeedBlob { digest } => send_blob(output, digest, &self.contents).await?,
                        ToController::Fatal(failure) => return Err(failure),
                        ToController::Pong => {}
                    }
                }
                order = self.orders.recv() => {
                    let Some(order) = order else { return Err(lost("the run is over")) };
                    let mut bytes = encode(&message(order))?;
                    while let Ok(more) = self.orders.try_recv() {
                        bytes.extend(encode(&message(more))?);
                    }
                    send_bytes(output, &bytes).await?;
                }
                _ = ping.tick() => send_bytes(output, &encode(&ToHelper::Ping)?).await?,
                () = tokio::time::sleep_until(heard + SILENCE) => {
                    return Err(lost("the helper has fallen silent").because(Failure::timeout("silence", SILENCE)));
                }
            }
        }
    }

    fn tell(&self, kind: EventKind) {
        let event = Event { host: self.host.plan.host.clone(), index: 0, at_ms: 0, kind };
        let _ = self.reports.send(Report { number: self.number, event });
    }
}

fn message(order: Order) -> ToHelper {
    match order {
        Order::Go { stage, without } => ToHelper::Go { stage, without },
        Order::Skip { from, to } => ToHelper::Skip { from, to },
        Order::Stop => ToHelper::Stop,
    }
}

async fn timed_hello(input: &mut crate::remote::codec::Reader<crate::remote::Input>) -> Result<(), Failure> {
    match tokio::time::timeout(SILENCE, input.hello()).await {
        Ok(read) => read.map(drop),
        Err(_) => Err(Failure::of(FailureKind::Unreachable, "the helper does not say hello")
            .because(Failure::timeout("silence", SILENCE))),
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

async fn send_blob(output: &mut Output, digest: Digest, contents: &Contents) -> Result<(), Failure> {
    // A content that cannot be read any more is sent as nothing: the helper sees that the hash does not fit, and says so.
    let bytes = contents.read(digest).unwrap_or_else(|_| Arc::from(Vec::new()));
    let pieces = bytes.len().div_ceil(MOST_CHUNK).max(1);
    for number in 0..pieces {
        let start = number * MOST_CHUNK;
        let piece = bytes.get(start..(start + MOST_CHUNK).min(bytes.len())).unwrap_or_default().to_vec();
        let frame = encode(&ToHelper::Blob { digest, piece, last: number + 1 == pieces })?;
        send_bytes(output, &frame).await?;
    }
    Ok(())
}

/// Adds what the helper, or what ran before it, said on stderr.
async fn with_tail(failure: Failure, stderr: &Tail) -> Failure {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    stderr.lines().into_iter().fold(failure, Failure::because)
}
