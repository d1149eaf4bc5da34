//! Whole plays on this machine: the language, the plan, the wire, the helper and the engine as one.

mod network;
mod rollout;
mod dead_mount;
mod engine;
mod run;
mod signals;
mod slots;
mod sources;
mod stages;
