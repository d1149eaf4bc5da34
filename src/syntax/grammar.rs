//! The parser that pest makes from `grammar/fanli.pest`. Its `Rule` never leaves `syntax/`.

/// The generated parser.
#[derive(pest_derive::Parser)]
#[grammar = "../grammar/fanli.pest"]
pub(super) struct Grammar;
