//! Many snapshots in one test: all that differ are told, not only the first.

/// The snapshots beside the tests of one folder.
pub(crate) struct Snaps {
    folder: &'static str,
    wrong: Vec<String>,
}

impl Snaps {
    /// Those in `tests/FOLDER/snapshots/`.
    pub(crate) fn beside(folder: &'static str) -> Self {
        Self { folder, wrong: Vec::new() }
    }

    /// Compares a text with the snapshot of that name.
    pub(crate) fn compare(&mut self, name: &str, text: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_snapshot_path(format!("{}/snapshots", self.folder));
        let compare = || settings.bind(|| insta::assert_snapshot!(name, text));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err() {
            self.wrong.push(name.to_owned());
        }
    }

    /// Fails when one differed.
    pub(crate) fn end(self) {
        assert!(self.wrong.is_empty(), "other than their snapshots: {:?}", self.wrong);
    }
}
