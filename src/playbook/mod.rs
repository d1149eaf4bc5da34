//! A playbook as it is meant: every block named, every kind and parameter known, every error collected.
//!
//! `load` reads the files, `resolve` gives the trees their meaning, `names` checks that every name is bound somewhere,
//! `set` reads what the command line binds.
//! Nothing here knows a value that differs from host to host; that is `plan/`'s business.

mod blocks;
mod find;
mod load;
pub mod model;
mod names;
mod other_words;
mod resolve;
mod rollouts;
mod set;
mod tasks;

pub use blocks::{HOST_SETTINGS, PARAM_TYPES};
pub(crate) use find::{Missing, find};
pub use load::{Request, load};
pub use model::Playbook;
pub use names::{GENERATION, HOST_FIELDS, NODE_FIELDS, RESULT_FIELDS};
pub use resolve::{DEEPEST_ROLES, NETWORK_SETTINGS, NODE_SETTINGS, RESERVED, STORE_SETTINGS, TOP_WORDS, too_deep};
pub use rollouts::{ACCESS_LOG_SETTINGS, CONFIG_SETTINGS, ROLLOUT_PARTS, ROLLOUT_SETTINGS};
pub use tasks::BODY_WORDS;
pub(crate) use tasks::misfit;
