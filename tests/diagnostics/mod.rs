//! What a user sees when a playbook is wrong: each case is run by the real binary, and none may come near a host.
//!
//! A case is `cases/NAME.fp` or `cases/NAME/main.fp`; a first line `#: ARGUMENTS` adds arguments. What cannot be kept as a
//! text file (bytes that are no text, links, megabytes) is made by `made.rs`.

mod made;
mod mutate;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::snap::Snaps;

/// A place to run fanli where every way to a host is watched.
pub(crate) struct Watched {
    folder: tempfile::TempDir,
}

impl Watched {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for program in ["ssh", "sudo", "docker", "sh", "env"] {
            let path = bin.join(program);
            let mark = folder.path().join("mark");
            std::fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\" >> {}\n", mark.display())).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    /// What `fanli play` says about a playbook that is wrong. It must end with 2, say nothing on stdout, and start nothing.
    pub(crate) fn complaint(&self, folder: &Path, playbook: &str, arguments: &[&str]) -> String {
        let state = self.folder.path().join("state");
        let output = Command::new(env!("CARGO_BIN_EXE_fanli"))
            .args(["play", playbook, "--state-dir"])
            .arg(&state)
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("PATH", self.folder.path().join("bin"))
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{playbook}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{playbook}");
        // The helper of a local host makes its state folder first of all; a remote one needs ssh.
        assert!(!state.exists(), "{playbook}: a helper was started");
        assert!(!self.folder.path().join("mark").exists(), "{playbook}: a program was started");
        assert!(!said.contains(&folder.display().to_string()), "{playbook}: absolute paths in {said}");
        said
    }
}

fn cases() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/cases");
    let mut cases: Vec<(String, PathBuf)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, if path.is_dir() { path.join("main.fp") } else { path })
        })
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_wrong_playbook_is_told_and_reaches_no_host() {
    let watched = Watched::new();
    let cases = cases();
    assert!(cases.len() >= 50, "only {} cases", cases.len());
    let mut snaps = Snaps::beside("diagnostics");
    for (name, path) in cases {
        let text = std::fs::read_to_string(&path).unwrap();
        let arguments: Vec<&str> = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("#:"))
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let said = watched.complaint(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), &arguments);
        snaps.compare(&name, &said);
    }
    snaps.end();
}
