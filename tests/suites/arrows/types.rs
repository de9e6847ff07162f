//! Each type of the workspace has a name of its own: a reader who meets one need not ask which.

use std::collections::BTreeMap;

use anyhow::Result;

use super::identifier;
use super::source::{self, after_visibility};

#[test]
fn no_two_types_share_a_name() -> Result<()> {
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in ["service", "registry", "proxy"] {
        for file in source::read(package)? {
            for name in types(&file.code) {
                declared.entry(name).or_default().push(file.name.clone());
            }
        }
    }
    assert!(declared.len() > 100, "only {} types", declared.len());
    declared.retain(|_, files| files.len() > 1);
    let ambiguous: Vec<_> = declared
        .iter()
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect();
    assert!(
        ambiguous.is_empty(),
        "{} names are declared more than once:\n{}",
        ambiguous.len(),
        ambiguous.join("\n")
    );
    Ok(())
}

/// The types and traits that a file declares for others to name. Those within a function and the
/// associated types of a trait or an `impl` are indented and have no visibility; those that a macro
/// such as `labels!` declares are indented and have one.
fn types(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in code.lines() {
        let item = after_visibility(line.trim_start());
        let is_indented = line.starts_with(' ');
        let is_public = item.len() < line.trim_start().len();
        for keyword in ["struct ", "enum ", "union ", "trait ", "type "] {
            let declares = item.strip_prefix(keyword);
            if !is_indented || (is_public && keyword != "type ") {
                names.extend(declares.and_then(identifier));
            }
        }
    }
    names
}

#[test]
fn types_are_found_in_every_syntax() {
    let code = "
struct A;
pub struct B<T> {
pub(crate) enum C {
pub(in crate::a) union D {
trait E: F {
    type Item;
pub type G = H;
impl I for J {
    type Error = K;
fn structure() {
    struct Local;
labels! {
    pub enum L {
";
    assert_eq!(types(code), ["A", "B", "C", "D", "E", "G", "L"]);
}
