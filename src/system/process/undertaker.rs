//! Whoever kills the helper with a signal that it cannot catch must not leave its children at work.
//!
//! A shell of a few lines reads the process groups that were started and those that have ended. When the helper is gone, its
//! end of the pipe closes, and the shell kills what is left. It is started with the first program; a plan that runs none
//! pays nothing.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Stdio};
use std::sync::OnceLock;

use rustix::process::Pid;
use tokio::process::Command;

/// `+ GROUP` when it starts, `- GROUP` when it has ended. No `--` before the group: dash's `kill` does not know it.
const SCRIPT: &str = r#"trap '' HUP INT TERM
while read -r sign group; do
  case $sign in
    +) set -- "$@" "$group" ;;
    -) for one do shift; [ "$one" = "$group" ] || set -- "$@" "$one"; done ;;
  esac
done
for one do kill -9 "-$one"; done"#;

static PIPE: OnceLock<Option<OwnedFd>> = OnceLock::new();

fn pipe() -> Option<&'static OwnedFd> {
    PIPE.get_or_init(|| start().ok().map(OwnedFd::from)).as_ref()
}

fn start() -> io::Result<ChildStdin> {
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", SCRIPT]).env_clear().current_dir("/").process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn()?;
    child.stdin.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

/// Has the child say its own group before it becomes the program: between its birth and that moment nothing can be lost.
pub(super) fn announce(command: &mut Command) {
    let Some(pipe) = pipe() else { return };
    let say = move || {
        let mut line = [b'+', b' ', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'\n'];
        let digits = decimal(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
        if let Some(place) = line.get_mut(2..12) {
            place.copy_from_slice(&digits);
        }
        // The undertaker may be gone; the program is run all the same.
        let _ = rustix::io::write(pipe.as_fd(), &line);
        Ok(())
    };
    #[expect(unsafe_code, reason = "what runs between fork and exec must be async-signal-safe")]
    // SAFETY: `say` makes two system calls on numbers and a fixed buffer: it neither allocates nor locks.
    unsafe {
        command.pre_exec(say);
    }
}

/// Ten digits with blanks before them, made without allocating: `read` in the shell takes the blanks away.
fn decimal(mut number: u32) -> [u8; 10] {
    let mut digits = [b' '; 10];
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits
}

/// The program of that group has ended.
pub(super) fn forget(group: Pid) {
    if let Some(pipe) = pipe() {
        let _ = rustix::io::write(pipe, format!("- {}\n", group.as_raw_nonzero()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_right_aligned() {
        assert_eq!(&decimal(0), b"         0");
        assert_eq!(&decimal(4_294_967_295), b"4294967295");
    }
}
