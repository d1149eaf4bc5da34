//! From text to tree and back. The only folder that knows pest.

pub mod ast;
mod build;
mod characters;
mod explain;
mod format;
mod grammar;
mod literal;
mod parse;
mod scan;
mod text;

pub use format::format;
pub use parse::{parse, parse_value};
