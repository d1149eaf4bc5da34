//! Extended attributes of a file that is replaced: access lists, capabilities, labels, notes of users.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{XattrFlags, fremovexattr, fsetxattr, getxattr, listxattr};
use rustix::io::Errno;

use super::failed;
use super::walk::by_descriptor;
use crate::failure::Failure;

/// The longest list of names, and the longest value (`xattr(7)`).
const MOST: usize = 1 << 16;

/// The access list.
const ACL: &str = "system.posix_acl_access";

/// Carries the extended attributes of a file over to the one that takes its place. The new one has no access list that the old
/// one had not, whatever the directory hands down. Owner before, permissions after: an access list sets some of them.
///
/// # Errors
/// An attribute that decides on rights, or that a user set, cannot be read or set.
pub(super) fn carry(old: &OwnedFd, new: &File, path: &Path) -> Result<(), Failure> {
    let from = by_descriptor(old);
    let mut names = vec![0u8; MOST];
    let length = match listxattr(&from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
        Err(errno) => return Err(failed("list the extended attributes of", path, errno)),
    };
    let names = names.get(..length).unwrap_or_default();
    let names: Vec<&str> = names
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|n| !n.is_empty())
        .collect();
    if !names.contains(&ACL) {
        match fremovexattr(new, ACL) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(failed("take the directory's access list off", path, errno)),
        }
    }
    let mut value = vec![0u8; MOST];
    for name in names.into_iter().filter(|name| !is_of_content(name)) {
        let copied = match getxattr(&from, name, value.as_mut_slice()) {
            Ok(length) => fsetxattr(new, name, value.get(..length).unwrap_or_default(), XattrFlags::empty()),
            Err(Errno::NODATA) => Ok(()),
            Err(errno) => Err(errno),
        };
        match copied {
            Err(errno) if matters(name) => {
                return Err(failed(&format!("carry the extended attribute {name} over to the new"), path, errno).hint(
                    "without it others would have other rights than before: remove it from the file, or the file",
                ));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether an attribute is made from the content, or by the file system for itself: it would be wrong on other content.
fn is_of_content(name: &str) -> bool {
    ["security.ima", "security.evm"].contains(&name) || name.starts_with("trusted.overlay.")
}

/// Whether a file without the attribute would be another file to its users. A label that cannot be set is the directory's rule.
fn matters(name: &str) -> bool {
    name.starts_with("user.") || [ACL, "system.nfs4_acl", "security.capability"].contains(&name)
}
