//! The web tier for real: on this machine, and over SSH on the lab's hosts. One lab serves all tests, one after another; the
//! images that the bare machine builds are the lab's, too.

mod bare_machine;
mod drift;
mod kills;
pub mod run;
mod shared_lab;
mod ssh_hosts;
mod traffic;
