//! `command`, `shell` and `http`.

mod command;
mod engine;
mod follow_up;
mod http;
mod server;
