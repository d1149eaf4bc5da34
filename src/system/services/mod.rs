//! Services: systemd where it really runs, scripts in `/etc/init.d`, and programs that nobody supervises.

mod daemon;
mod systemd;
mod sysvinit;

pub use daemon::Daemon;
pub use systemd::Unit;
pub use sysvinit::{Script, ScriptState};
