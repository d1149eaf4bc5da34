//! Everything that needs neither root nor a daemon, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod actions;
mod book;
mod cli;
mod common;
mod diagnostics;
mod examples;
mod facts;
mod files;
mod grammar;
mod play;
mod promises;
mod remote;
mod layers;
mod snap;
mod syntax;
mod report;
