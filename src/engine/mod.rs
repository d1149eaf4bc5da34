//! Runs one host's plan, on the host: observe, plan, apply, verify, step by step.
//!
//! `run` goes through stages, `target` takes one target through a stage, `step` carries out one step and is the only reader of check
//! mode; `beside` says what nodes of a host do side by side, and tells it in order;
//! `pending` keeps notified handlers on the host until they have run; `open` confirms or puts back what the steps behind a change
//! judge; `blobs` joins rendered templates with what the
//! controller sends.

mod beside;
mod blobs;
mod container_mounts;
mod diff;
mod open;
mod pending;
mod run;
mod step;
mod target;

pub use run::{Orders, Stop, World, run};
pub use step::keep;
