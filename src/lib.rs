//! fanli: a task runner for web clusters in containers on plain Docker hosts.
//!
//! The data goes one way, and each stage is a type of its own that accepts only its parent:
//!
//! ```text
//! .fp text -> Ast -> Playbook -> HostPlan (one per host, plain data) -> engine on the host -> Event* -> coordinator -> reporters
//!  syntax/    playbook/    plan/                            engine/, resource/       event      coordinator     report/
//! ```
//!
//! The modules below stand in that order: each may use only those above it. `tests/layers.rs` holds the order;
//! `ARCHITECTURE.md` tells why.

pub mod visible;
pub mod calendar;
pub mod source;
pub mod value;
pub mod failure;
pub mod change;
pub mod event;
pub mod diagnostic;
pub mod syntax;
pub mod expr;
pub mod system;
pub mod logs;
pub mod resource;
pub mod book;
pub mod playbook;
pub mod plan;
pub mod engine;
pub mod watch;
pub mod refresh;
pub mod remote;
pub mod coordinator;
pub mod report;
pub mod lab;
pub mod cli;
