//! The web tier for real: on this machine, and over SSH on the lab's hosts. One lab serves all tests, in the order of their
//! names; the images are built once.

mod bare_machine;
mod drift;
mod kills;
pub mod run;
mod shared_lab;
mod ssh_hosts;
