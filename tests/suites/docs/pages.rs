//! The pages of the documentation, read as Markdown: prose, headings and blocks of code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Directories that hold no page of ours.
const FOREIGN: &[&str] = &["target", "data", "node_modules"];

/// One Markdown file.
pub(super) struct Page {
    /// Its path below the root of the repository.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

/// A fenced block of code.
pub(super) struct Block<'p> {
    page: &'p Page,
    line: usize,
    /// The word after the fence.
    pub(super) language: &'p str,
    /// What is between the fences, less the indentation of the first one.
    pub(super) text: String,
}

impl Block<'_> {
    /// Where it is, for a message.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.page.name, self.line)
    }
}

/// The root of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below a directory, with paths below the root, that a test of their path accepts.
pub(super) fn files(below: &str, is_wanted: fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from(below)];
    while let Some(directory) = left.pop() {
        let entries =
            std::fs::read_dir(root().join(&directory)).context(directory.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = directory.join(&*name);
            if entry.file_type()?.is_dir() {
                if !name.starts_with('.') && !FOREIGN.contains(&&*name) {
                    left.push(path);
                }
            } else if is_wanted(&path) && root().join(&path).is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

impl Page {
    /// All of them, in the order of their names.
    pub(super) fn all() -> Result<Vec<Self>> {
        let is_page = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
        let pages: Vec<_> = files("", is_page)?
            .into_iter()
            .map(|path| Self::read(&path.to_string_lossy()))
            .collect::<Result<_>>()?;
        ensure!(pages.len() > 30, "only {} pages", pages.len());
        Ok(pages)
    }

    /// The one of this path below the root.
    pub(super) fn read(name: &str) -> Result<Self> {
        let text = std::fs::read_to_string(root().join(name)).context(name.to_owned())?;
        let name = name.to_owned();
        Ok(Self { name, text })
    }

    /// Its blocks of code.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let mut lines = self.text.lines().enumerate();
        std::iter::from_fn(move || {
            let (at, fence) = lines.find(|(_, line)| line.trim_start().starts_with("```"))?;
            let indent = fence.len() - fence.trim_start().len();
            let mut text = String::new();
            for (_, line) in lines.by_ref() {
                if line.trim_start().starts_with("```") {
                    break;
                }
                text += line.get(indent..).unwrap_or(line.trim_start());
                text.push('\n');
            }
            Some(Block {
                page: self,
                line: at + 1,
                language: fence.trim_start().trim_start_matches('`').trim(),
                text,
            })
        })
    }

    /// Its text without the blocks of code.
    pub(super) fn prose(&self) -> String {
        let mut is_code = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
            } else if !is_code {
                prose += line;
                prose.push('\n');
            }
        }
        prose
    }

    /// What `#…` may name in it, as GitHub makes it of the headings.
    pub(super) fn anchors(&self) -> BTreeSet<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchors = BTreeSet::new();
        for line in self.prose().lines().filter(|line| line.starts_with('#')) {
            let heading = line.trim_start_matches('#').trim();
            let slug: String = heading
                .to_lowercase()
                .chars()
                .filter(|&c| c.is_alphanumeric() || " -_".contains(c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let times = seen.entry(slug.clone()).or_default();
            anchors.insert(match *times {
                0 => slug,
                more => format!("{slug}-{more}"),
            });
            *times += 1;
        }
        anchors
    }
}

#[test]
fn blocks_and_anchors_are_found() -> Result<()> {
    let page = Page {
        name: "a.md".to_owned(),
        text: "# One: `a` and B\n\n- x\n\n  ```sh\n  # no heading\n    ls\n  ```\n# One: a and B\n"
            .to_owned(),
    };
    let blocks: Vec<_> = page.blocks().collect();
    ensure!(blocks.len() == 1 && blocks[0].language == "sh");
    assert_eq!(blocks[0].text, "# no heading\n  ls\n");
    assert_eq!(blocks[0].place(), "a.md:5");
    let anchors = ["one-a-and-b", "one-a-and-b-1"].map(str::to_owned);
    assert_eq!(page.anchors(), anchors.into());
    Ok(())
}
