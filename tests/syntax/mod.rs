//! The language: text to tree and back.

mod mutated;
mod property;
mod shape;

use fanli::syntax::parse;

#[test]
fn the_example_parses() {
    let (ast, errors) = parse(0, include_str!("cases/web-tier.fp"));
    assert_eq!(errors, Vec::new());
    assert_eq!(ast.body.iter().filter(|item| matches!(item, fanli::syntax::ast::Item::Statement(_))).count(), 9);
}

#[test]
fn the_example_is_laid_out_as_it_was_written() {
    let text = include_str!("cases/web-tier.fp");
    let (ast, _) = parse(0, text);
    let once = fanli::syntax::format(&ast);
    insta::assert_snapshot!(once);
    let (again, errors) = parse(0, &once);
    assert_eq!(errors, Vec::new());
    assert_eq!(fanli::syntax::format(&again), once);
}
