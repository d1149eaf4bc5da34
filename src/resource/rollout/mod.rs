//! What a configuration rollout is made of, and what is of use without one.

mod program;
mod reload;
mod supervised;

pub use program::Program;
pub use reload::Reload;
