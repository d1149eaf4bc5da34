//! A program's word on a staged file, before it is put in place.

use std::time::Duration;

use super::Staged;
use crate::failure::Failure;
use crate::system::process::{self, Program};

/// What stands for the staged file's path in the arguments.
pub const STAGED: &str = "{file}";

/// How long a validating program may take: limit `validate`.
const LIMIT: Duration = Duration::from_secs(60);

impl Staged {
    /// Runs a program that must succeed, with the staged file's path in place of `{file}`. No shell; stdin is empty.
    ///
    /// # Errors
    /// It cannot be started, does not end in time, or refuses the file: with what it said.
    pub async fn validate(&self, argv: &[String]) -> Result<(), Failure> {
        let shown = self.path().to_string_lossy();
        let Some(name) = argv.first() else { return Ok(()) };
        let program = Program::new(argv.iter().map(|word| word.replace(STAGED, &shown)));
        let Ok(ended) = tokio::time::timeout(LIMIT, process::run(&program, |_| {})).await else {
            return Err(Failure::timeout("validate", LIMIT).within(format!("`{name}` did not end")));
        };
        let ended = ended.map_err(|failure| failure.within("the new content cannot be validated"))?;
        if ended.success() {
            return Ok(());
        }
        let refused = format!("`{name}` refuses the new content (exit code {})", ended.code);
        let mut failure = ended.failure();
        failure.message = refused;
        Err(failure.hint("the file is as it was before"))
    }
}
