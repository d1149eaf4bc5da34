//! Tests that need root, real daemons or network namespaces: `tests/run test FILTER`.
//!
//! They fail, never skip, when they cannot run, and leave nothing behind.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod accounts;
mod accounts_killed;
mod apart;
mod actions;
mod attach;
mod attach_conflict;
mod attach_faults;
mod balance;
mod book;
mod book_hosts;
mod book_race;
#[path = "../common/mod.rs"]
mod common;
mod container;
mod copy;
mod docker_hosts;
mod drive;
mod faults;
mod file_examples;
mod files;
mod host_view;
mod image;
mod facts;
mod kill;
mod lab;
mod log_audit;
mod log_keep;
mod log_model;
mod log_pipe;
mod log_read;
mod log_ship;
mod logins;
mod tier;
mod mode_plays;
mod mode_switch;
mod mode_faults;
mod modes;
mod mount;
mod net_invariants;
mod net_trace;
mod sshfs;
mod successor;
mod package;
mod plugs;
mod refresh;
mod refresh_more;
mod reload;
mod rollout;
mod service;
mod slots;
mod slots_dead_man;
#[path = "../snap.rs"]
mod snap;
mod trial;
mod trial_killed;
mod trial_programs;
mod supervised;
mod slots_killed;
mod watch;
mod watch_daemon;
mod watch_gate;
mod watch_killed;
mod watch_trouble;
mod watch_unit;
mod watched;
