//! docs/reference/http-api.md has every endpoint and every error code, and no others.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use registry::oci::{Endpoint, ErrorCode};

use super::pages::Page;

/// What the first cells of a section's table name, which begin with this character class.
fn first_cells(section: &str, is_wanted: fn(char) -> bool) -> BTreeSet<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    names.filter(|name| name.starts_with(is_wanted)).collect()
}

#[test]
fn every_endpoint_and_every_code_has_a_row() -> Result<()> {
    let page = Page::read("docs/reference/http-api.md")?;
    let (endpoints, rest) = page.text.split_once("### Errors").context("no errors")?;
    let (codes, _) = rest.split_once("\n## ").context("nothing after them")?;
    let known = Endpoint::ALL.iter().map(|endpoint| endpoint.as_str());
    assert_eq!(
        first_cells(endpoints, |c| c.is_ascii_lowercase()),
        known.collect()
    );
    let known = ErrorCode::ALL.iter().map(|code| code.as_str());
    assert_eq!(
        first_cells(codes, |c| c.is_ascii_uppercase()),
        known.collect()
    );
    Ok(())
}
