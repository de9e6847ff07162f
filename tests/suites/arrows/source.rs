//! The sources of a crate as text: one file per module, without comments and without tests.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

/// The path of a module below the crate root, such as `["store", "fs"]`; empty for the root itself.
pub(super) type ModulePath = Vec<String>;

/// A file that is compiled into the crate outside of its tests.
pub(super) struct SourceFile {
    /// The crate and the path below its `src`, such as `registry/store/fs/mod.rs`.
    pub(super) name: String,
    pub(super) module: ModulePath,
    /// The text without comments and test modules.
    pub(super) code: String,
}

/// Reads the sources of a crate of the workspace.
pub(super) fn read(package: &str) -> Result<Vec<SourceFile>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(package)
        .join("src");
    let mut texts = Vec::new();
    for file in super::sources(&root)? {
        let path = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        texts.push((path, text));
    }
    let texts = texts.iter().map(|(path, text)| (&**path, &**text));
    Ok(parse(package, texts))
}

/// The files among these, given by their path below `src` and their text, that are no tests.
pub(super) fn parse<'a>(
    package: &str,
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut test_modules = BTreeSet::new();
    for (path, text) in texts {
        let module = module(path);
        let (code, names) = without_tests(&without_comments(text));
        for name in names {
            test_modules.insert([&module[..], &[name]].concat());
        }
        files.push(SourceFile {
            name: format!("{package}/{path}"),
            module,
            code,
        });
    }
    files.retain(|file| {
        let mut ancestors = (0..=file.module.len()).map(|length| &file.module[..length]);
        !ancestors.any(|ancestor| {
            test_modules.contains(ancestor) || ancestor.last().is_some_and(|name| name == "tests")
        })
    });
    files
}

fn module(path: &str) -> ModulePath {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let path = if path == "lib" { "" } else { path };
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(ToOwned::to_owned).collect()
}

fn without_comments(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        // `//` within a string, as in a URL, begins no comment.
        let comment = line
            .match_indices("//")
            .find(|(at, _)| line[..*at].matches('"').count() % 2 == 0);
        code += comment.map_or(line, |(at, _)| &line[..at]).trim_end();
        code.push('\n');
    }
    code
}

/// The code without its test modules, and the names of those that have files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut kept = String::new();
    let mut elsewhere = Vec::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let module = lines.peek().and_then(|next| {
            let item = after_visibility(next);
            item.strip_prefix("mod ").map(ToOwned::to_owned)
        });
        match module {
            Some(module) if line == "#[cfg(test)]" => {
                let Some(name) = module.strip_suffix(';') else {
                    // An inline test module is the last item of its file.
                    break;
                };
                elsewhere.push(name.to_owned());
                lines.next();
            }
            _ => {
                kept += line;
                kept.push('\n');
            }
        }
    }
    (kept, elsewhere)
}

/// What follows `pub`, `pub(crate)` or the like; the whole text if it begins with none.
pub(super) fn after_visibility(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("pub") else {
        return text;
    };
    if let Some(rest) = rest.strip_prefix(' ') {
        return rest.trim_start();
    }
    match rest
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(") "))
    {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    }
}

#[test]
fn tests_and_comments_are_left_out() {
    let files = parse(
        "a",
        [
            (
                "lib.rs",
                "mod b;\n#[cfg(test)]\npub(crate) mod suite;\nmod c;\n",
            ),
            ("suite.rs", ""),
            ("suite/deep.rs", ""),
            ("b/mod.rs", "let url = \"http://x\"; // not a comment\n"),
            ("b/tests.rs", ""),
            (
                "c.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n",
            ),
        ],
    );
    let seen: Vec<_> = files
        .iter()
        .map(|file| (&*file.name, file.module.join("::"), &*file.code))
        .collect();
    assert_eq!(
        seen,
        [
            ("a/lib.rs", String::new(), "mod b;\nmod c;\n"),
            ("a/b/mod.rs", "b".to_owned(), "let url = \"http://x\";\n"),
            ("a/c.rs", "c".to_owned(), "fn f() {}\n"),
        ]
    );
}
