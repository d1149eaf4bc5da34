//! Kinds for bringing new configuration to nodes.

mod trial;

pub use trial::Trial;
