//! What a rollout is made of, each a kind of its own.

pub mod backend;
pub mod loaded;

pub use backend::Backend;
pub use loaded::Loaded;
