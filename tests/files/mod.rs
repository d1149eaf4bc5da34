//! `system/fs` and the kinds that keep files.

mod drift;
mod fs;
mod line;
mod property;
mod racer;
mod slots;
mod trust;
