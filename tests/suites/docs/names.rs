//! Tests and suites that the pages name exist. `documented` does the same for docs/protocol.md, where
//! each line must name one.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};

use super::pages::{self, Page};

/// The text of the sources of a suite, or of a crate; `None` if there is none of this name.
fn sources(name: &str) -> Result<Option<String>> {
    let (file, directory) = match name {
        "proxy" | "registry" | "service" => (String::new(), format!("{name}/src")),
        suite => (
            format!("tests/suites/{suite}.rs"),
            format!("tests/suites/{suite}"),
        ),
    };
    let mut text = std::fs::read_to_string(pages::root().join(file)).unwrap_or_default();
    if pages::root().join(&directory).is_dir() {
        let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
        for path in pages::files(&directory, is_source)? {
            text += &std::fs::read_to_string(pages::root().join(path))?;
        }
    }
    Ok((!text.is_empty()).then_some(text))
}

/// The suites that follow the word: `suite`, and `suites` with "and" and commas.
fn suites(prose: &str) -> Vec<&str> {
    let mut named = Vec::new();
    let starts = ["suite `", "suites `"];
    for start in starts {
        for rest in prose.split(start).skip(1) {
            for (at, part) in rest.split('`').enumerate() {
                let is_name = at % 2 == 0;
                if is_name {
                    named.push(part);
                } else if !matches!(part.replace('\n', " ").as_str(), ", " | " and ") {
                    break;
                }
            }
        }
    }
    named
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[test]
fn every_test_and_suite_that_a_page_names_exists() -> Result<()> {
    let mut read = BTreeMap::new();
    let (mut wrong, mut named) = (Vec::new(), 0);
    for page in Page::all()? {
        let prose = page.prose();
        let code = prose.split('`').skip(1).step_by(2);
        let tests = code.filter_map(|name| name.split_once("::"));
        let tests =
            tests.filter(|(section, _)| !section.is_empty() && section.chars().all(is_name));
        let suites = suites(&prose).into_iter().map(|suite| (suite, ""));
        for (section, test) in tests.chain(suites) {
            if !read.contains_key(section) {
                read.insert(section.to_owned(), sources(section)?);
            }
            let test = test.rsplit("::").next().unwrap_or_default();
            let declared = format!("fn {test}()");
            let exists = read[section]
                .as_ref()
                .is_some_and(|text| test.is_empty() || text.contains(&declared));
            if !exists {
                wrong.push(format!("{}: {section}::{test}", page.name));
            }
            named += 1;
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(named > 100, "only {named}");
    Ok(())
}

#[test]
fn suites_are_found_in_a_sentence() {
    let prose = "(suites `a`, `b` and\n`c`), `no` and suite `d`: `no`";
    assert_eq!(suites(prose), ["d", "a", "b", "c"]);
}
