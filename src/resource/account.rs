//! What `user` and `group` share: names that every tool takes, numbers, and the programs that keep the tables.

use super::ArgError;
use crate::failure::Failure;
use crate::system::process::Program;
use crate::system::{Actuator, Probe};

/// The longest name that Linux tools take for users and groups, in bytes.
const LONGEST_NAME: usize = 32;

/// The tables that shadow's programs lock with a file of this name and `.lock`.
const LOCKED: [&str; 6] = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];

/// A name of a user or group: letters, digits, `_`, `-` and `.`, beginning with a letter or `_`; Samba's `$` at the end.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), ArgError> {
    let (bare, long) = (name.strip_suffix('$').unwrap_or(name), name.len() > LONGEST_NAME);
    let begins = bare.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if begins && !long && bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        return Ok(());
    }
    let rule = format!(
        "`{name}` is no account name: letters, digits, `_`, `-`, `.`, a letter or `_` first, {LONGEST_NAME} at most"
    );
    Err(ArgError::new(field, rule))
}

/// A number of a user or group. The largest of 32 bits means "nobody at all" to the kernel.
pub(super) fn check_id(field: &str, id: Option<i64>) -> Result<(), ArgError> {
    match id {
        Some(id) if !(0..i64::from(u32::MAX)).contains(&id) => {
            Err(ArgError::new(field, format!("`{id}` is not a number from 0 to {}", u32::MAX - 1)))
        }
        _ => Ok(()),
    }
}

/// Runs a program that keeps the tables of accounts.
pub(super) async fn keep(hands: &Actuator, program: &Program) -> Result<(), Failure> {
    sweep(hands)?;
    let ended = hands.run(program).await?;
    if ended.success() {
        return Ok(());
    }
    let failure = ended.failure();
    Err(match lock_holder(hands)? {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// Takes away what a killed program left beside the tables: `/etc/passwd.1234`, the first half of its lock. The lock itself is
/// for the next program to take over.
fn sweep(hands: &Actuator) -> Result<(), Failure> {
    for name in hands.list("/etc")?.unwrap_or_default() {
        let Some((table, pid)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        let Ok(pid) = pid.parse::<u32>() else { continue };
        if LOCKED.contains(&table) && hands.read_small(format!("/proc/{pid}/comm"))?.is_none() {
            hands.remove_file(format!("/etc/{table}.{pid}"))?;
        }
    }
    Ok(())
}

/// Who holds a lock on the tables. shadow's programs take over the lock of a process that is gone, but wait in vain when its
/// number belongs to another one by now.
fn lock_holder(probe: &Probe) -> Result<Option<String>, Failure> {
    for table in LOCKED {
        let lock = format!("/etc/{table}.lock");
        let note = probe.read(&lock, 64)?.unwrap_or_default();
        let note = String::from_utf8_lossy(&note);
        let Ok(pid) = note.trim_matches(['\0', '\n', ' ']).parse::<u32>() else { continue };
        if let Some(program) = probe.read_small(format!("/proc/{pid}/comm"))? {
            let program = program.trim();
            return Ok(Some(format!(
                "{lock} is held by process {pid} (`{program}`): wait for it; when it does not keep accounts, the lock is a \
                 dead program's and can be removed"
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for good in ["www-data", "_apt", "tuangouadmin", "Web.1", "host$", "a"] {
            assert_eq!(check_name("name", good), Ok(()), "{good}");
        }
        for bad in ["", "-r", "1a", "501", "a:b", "a b", "a,b", "a\n", "ä", "$", "a$b", &"a".repeat(33), "+a", ".a"] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
        assert_eq!(check_id("uid", Some(4_294_967_294)), Ok(()));
        assert!(check_id("uid", Some(4_294_967_295)).is_err() && check_id("uid", Some(-1)).is_err());
    }
}
