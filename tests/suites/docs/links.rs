//! Every link within the repository leads to a file, and every anchor to a heading. What the sources
//! name as a page of the documentation is one.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::pages::{self, Page};

/// What the links of a page name.
fn targets(page: &Page) -> Vec<String> {
    // A link within `code` is none. Every second part between back quotes is code.
    let prose: String = page.prose().split('`').step_by(2).collect();
    let links = prose.split("](").skip(1);
    links
        .filter_map(|rest| rest.split([')', ' ']).next())
        .map(str::to_owned)
        .collect()
}

/// The path below the root that a link of a page leads to; `None` if it leads out of the repository.
fn resolved(page: &str, path: &str) -> Option<PathBuf> {
    let mut whole = PathBuf::from(page);
    whole.pop();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir if !whole.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => whole.push(other),
        }
    }
    Some(whole)
}

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() -> Result<()> {
    let pages = Page::all()?;
    let anchors: BTreeMap<&str, _> = pages
        .iter()
        .map(|page| (page.name.as_str(), page.anchors()))
        .collect();
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for page in &pages {
        for target in targets(page) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = match path {
                "" => Some(PathBuf::from(&page.name)),
                path => resolved(&page.name, path),
            };
            let file = file.filter(|file| pages::root().join(file).exists());
            let is_right = file.is_some_and(|file| {
                let known = anchors.get(&*file.to_string_lossy());
                anchor.is_empty() || known.is_some_and(|known| known.contains(anchor))
            });
            if !is_right {
                wrong.push(format!("{}: {target}", page.name));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(followed > 100, "only {followed} links");
    Ok(())
}

#[test]
fn every_page_is_reached_from_the_first_one() -> Result<()> {
    let pages = Page::all()?;
    let mut left: BTreeMap<&str, &Page> = pages
        .iter()
        .map(|page| (page.name.as_str(), page))
        .collect();
    let mut to_read: Vec<_> = left.remove("README.md").into_iter().collect();
    while let Some(page) = to_read.pop() {
        for target in targets(page) {
            let path = target.split('#').next().unwrap_or_default();
            let file = resolved(&page.name, path);
            let file = file.map(|file| file.to_string_lossy().into_owned());
            to_read.extend(file.and_then(|file| left.remove(&*file)));
        }
    }
    let left: Vec<_> = left.into_keys().collect();
    ensure!(left.is_empty(), "no link leads to {left:?}");
    Ok(())
}

#[test]
fn pages_that_the_sources_name_exist() -> Result<()> {
    let is_source = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(
            extension,
            Some("rs" | "toml" | "yaml" | "yml" | "sh" | "service" | "socket" | "json" | "tpl")
        ) || path.extension().is_none()
    };
    let (mut wrong, mut named) = (Vec::new(), 0);
    for path in pages::files("", is_source)? {
        let bytes = std::fs::read(pages::root().join(&path)).context(format!("{path:?}"))?;
        let text = String::from_utf8_lossy(&bytes);
        for (at, _) in text.match_indices("docs/") {
            let is_path = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
            let rest = &text[at..];
            let page = rest.split(|c| !is_path(c)).next().unwrap_or_default();
            let page = page.trim_end_matches('.');
            if Path::new(page)
                .extension()
                .is_some_and(|extension| extension == "md")
            {
                named += 1;
                if !pages::root().join(page).exists() {
                    wrong.push(format!("{}: {page}", path.display()));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(named > 10, "only {named}");
    Ok(())
}
