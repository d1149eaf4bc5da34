//! Runs one host's plan, on the host: observe, plan, apply, verify, step by step.
//!
//! `step` carries out one step and is the only reader of check mode; `run` goes through stages, targets and handlers;
//! `pending` keeps notified handlers on the host until they have run; `open` confirms or puts back what the steps behind a change
//! judge; `blobs` joins rendered templates with what the
//! controller sends.

mod blobs;
mod container_mounts;
mod diff;
mod open;
mod pending;
mod run;
mod step;

pub use run::{Orders, Stop, World, run};
pub use step::keep;
