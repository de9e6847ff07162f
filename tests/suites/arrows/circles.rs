//! No two files of a crate need each other, directly or through others: each can be read once those
//! that it imports are known.
//!
//! What a file imports is read off its text: `use` declarations and paths in the code that begin with
//! `crate`, `super`, `self` or the name of a child module. An import counts for the file that declares
//! the item, also where another module re-exports it. `mod` and `pub use` are no imports, but a use of
//! the re-exported name in the same file is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;

use super::identifier;
use super::source::{self, ModulePath, SourceFile, after_visibility};

#[test]
fn service_files_have_no_import_cycle() -> Result<()> {
    check_circles("service")
}

#[test]
fn registry_files_have_no_import_cycle() -> Result<()> {
    check_circles("registry")
}

#[test]
fn proxy_files_have_no_import_cycle() -> Result<()> {
    check_circles("proxy")
}

fn check_circles(package: &str) -> Result<()> {
    let files = Files::new(&source::read(package)?);
    let edges = files.edges();
    assert!(edges.len() > 20, "{package}: only {} imports", edges.len());
    let circles = circles(&edges);
    let mut message = String::new();
    for circle in &circles {
        let names: Vec<_> = circle.iter().map(|module| files.name(module)).collect();
        writeln!(message, "{} files: {}", names.len(), names.join(", "))?;
        for ((from, to), items) in &edges {
            if circle.contains(from) && circle.contains(to) {
                let items: Vec<_> = items.iter().map(String::as_str).collect();
                let (from, to) = (files.name(from), files.name(to));
                writeln!(message, "  {from} -> {to}: {}", items.join(", "))?;
            }
        }
    }
    assert!(circles.is_empty(), "{} circles\n{message}", circles.len());
    Ok(())
}

/// From a module to one that it imports, with the names of the items.
type Edges = BTreeMap<(ModulePath, ModulePath), BTreeSet<String>>;

/// The modules of a crate that have a file.
struct Files(BTreeMap<ModulePath, ModuleFile>);

/// What matters of a file here.
struct ModuleFile {
    name: String,
    uses: Vec<UsedName>,
    /// The items that the file declares itself.
    declared: BTreeSet<String>,
    /// The code without the `use` declarations.
    code: String,
}

/// One name that a `use` declaration brings into scope; `*` for a glob.
#[derive(Debug, PartialEq)]
struct UsedName {
    name: String,
    path: Vec<String>,
    is_reexported: bool,
}

impl Files {
    fn new(files: &[SourceFile]) -> Self {
        let modules = files.iter().map(|file| {
            let (code, uses) = split_uses(&file.code);
            let module = ModuleFile {
                name: file.name.clone(),
                uses,
                declared: declared(&code),
                code,
            };
            (file.module.clone(), module)
        });
        Self(modules.collect())
    }

    fn name(&self, module: &[String]) -> &str {
        self.0.get(module).map_or("?", |file| &*file.name)
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (module, file) in &self.0 {
            let words: BTreeSet<&str> = words(&file.code).collect();
            let used = file
                .uses
                .iter()
                .filter(|used| !used.is_reexported || words.contains(&*used.name))
                .map(|used| used.path.clone());
            for path in used.chain(paths(&file.code)) {
                let Some(absolute) = self.absolute(module, &path) else {
                    continue;
                };
                let target = self.declaring(&absolute);
                if target != *module {
                    let item = path.last().cloned().unwrap_or_default();
                    let edge = (module.clone(), target);
                    edges.entry(edge).or_default().insert(item);
                }
            }
        }
        edges
    }

    /// A path as written in a module, from the crate root on; `None` if it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => module.to_vec(),
            child if self.0.contains_key(&[module, &[child.to_owned()]].concat()) => {
                return Some([module, path].concat());
            }
            _ => return None,
        };
        let mut rest = path;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = others;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The module whose file declares what an absolute path names. Re-exports are followed.
    fn declaring(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        // Two modules may import all of each other: such a path leads nowhere.
        for _ in 0..8 {
            let depth = (0..=path.len())
                .rev()
                .find(|&depth| self.0.contains_key(&path[..depth]));
            let Some((module, item)) = depth.map(|depth| path.split_at(depth)) else {
                return path;
            };
            let Some(next) = self.reexport(module, item) else {
                return module.to_vec();
            };
            path = next;
        }
        path
    }

    /// Where else the item of a module comes from, as an absolute path.
    fn reexport(&self, module: &[String], item: &[String]) -> Option<Vec<String>> {
        let (name, rest) = item.split_first()?;
        let file = self.0.get(module)?;
        if file.declared.contains(name) {
            return None;
        }
        if let Some(used) = file.uses.iter().find(|used| used.name == *name) {
            let target = self.absolute(module, &used.path)?;
            return Some([&target, rest].concat());
        }
        let mut globs = file.uses.iter().filter(|used| used.name == "*");
        globs.find_map(|glob| {
            let (_, parent) = glob.path.split_last()?;
            let parent = self.absolute(module, parent)?;
            let file = self.0.get(&parent)?;
            let has = file.declared.contains(name) || file.uses.iter().any(|u| u.name == *name);
            has.then(|| [&parent, item].concat())
        })
    }
}

/// The groups of modules that reach each other.
fn circles(edges: &Edges) -> Vec<BTreeSet<ModulePath>> {
    let modules: BTreeSet<&ModulePath> = edges.keys().map(|(from, _)| from).collect();
    let reached: BTreeMap<_, _> = modules
        .iter()
        .map(|module| (*module, reachable(edges, module)))
        .collect();
    let mut circles = BTreeSet::new();
    for (module, from_here) in &reached {
        let mut circle: BTreeSet<ModulePath> = from_here
            .iter()
            .filter(|other| {
                reached
                    .get(*other)
                    .is_some_and(|from| from.contains(*module))
            })
            .map(|other| (*other).clone())
            .collect();
        if !circle.is_empty() {
            circle.insert((*module).clone());
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// The modules to which imports lead from this one.
fn reachable<'a>(edges: &'a Edges, from: &ModulePath) -> BTreeSet<&'a ModulePath> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for (edge_from, to) in edges.keys() {
            if edge_from == module && found.insert(to) {
                next.push(to);
            }
        }
    }
    found
}

/// The code without its `use` declarations, and the names that these bring into scope.
fn split_uses(code: &str) -> (String, Vec<UsedName>) {
    let mut rest = String::new();
    let mut uses = Vec::new();
    let mut declaration: Option<(bool, String)> = None;
    for line in code.lines() {
        let line = line.trim();
        let item = after_visibility(line);
        if declaration.is_none() {
            if let Some(tree) = item.strip_prefix("use ") {
                declaration = Some((item.len() < line.len(), tree.to_owned()));
            } else {
                rest += line;
                rest.push('\n');
            }
        } else if let Some((_, tree)) = &mut declaration {
            tree.push_str(line);
        }
        if let Some((is_reexported, tree)) = declaration.take_if(|(_, tree)| tree.ends_with(';')) {
            for (path, name) in leaves(&[], tree.trim_end_matches(';')) {
                uses.push(UsedName {
                    name,
                    path,
                    is_reexported,
                });
            }
        }
    }
    (rest, uses)
}

/// The paths of a `use` tree below a prefix, each with the name that it gets.
fn leaves(prefix: &[String], tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let prefix = [prefix, &segments(head)].concat();
        let group = group.strip_suffix('}').unwrap_or(group);
        let items = items(group);
        return items
            .iter()
            .flat_map(|item| leaves(&prefix, item))
            .collect();
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_owned())),
        None => (tree, None),
    };
    let mut path = [prefix, &segments(path)].concat();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = alias.or_else(|| path.last().cloned());
    name.map(|name| (path, name)).into_iter().collect()
}

/// The parts of a group that its own commas separate.
fn items(group: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = group.split(|character| {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

fn segments(path: &str) -> Vec<String> {
    let parts = path.split("::").map(str::trim);
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(ToOwned::to_owned).collect()
}

/// The items that code declares. A macro such as `labels!` declares indented ones.
fn declared(code: &str) -> BTreeSet<String> {
    const KEYWORDS: [&str; 10] = [
        "fn ",
        "struct ",
        "enum ",
        "union ",
        "trait ",
        "type ",
        "const ",
        "static ",
        "macro_rules! ",
        "async fn ",
    ];
    let mut names = BTreeSet::new();
    for line in code.lines() {
        let item = after_visibility(line);
        let item = item.strip_prefix("const fn ").unwrap_or(item);
        let item = item.strip_prefix("unsafe ").unwrap_or(item);
        let declares = KEYWORDS.iter().find_map(|word| item.strip_prefix(word));
        names.extend(declares.and_then(identifier));
    }
    names
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| c != '_' && !c.is_alphanumeric())
}

/// The paths of two segments and more in code.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c == '_' || c == ':' || c.is_alphanumeric();
    // The path of `pub(in …)` says who may import the item and imports nothing.
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap_or_default();
    let others = parts.filter_map(|part| part.split_once(')'));
    let code = std::iter::once(first).chain(others.map(|(_, code)| code));
    code.flat_map(|code| code.split(|c| !is_part(c)))
        .filter(|path| path.contains("::") && !path.starts_with(':'))
        .map(segments)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports between these files, as `from to`, by their module paths.
    fn imported(files: &[(&str, &str)]) -> Vec<String> {
        let files = Files::new(&source::parse("a", files.iter().copied()));
        let edges = files.edges();
        let joined = |module: &ModulePath| module.join("::");
        let edges = edges.keys();
        edges
            .map(|(from, to)| format!("{} {}", joined(from), joined(to)))
            .collect()
    }

    #[test]
    fn imports_of_files_are_found_in_every_syntax() {
        let files = [
            ("lib.rs", "pub mod a;\npub mod d;\n"),
            (
                "a.rs",
                "mod b;\nmod c;\nmod e;\nuse self::b::B;\nfn f() {\n    c::go();\n}\npub struct A;\n",
            ),
            (
                "a/b.rs",
                "use crate::{\n    d::{self, D as Other},\n    x,\n};\npub struct B;\n",
            ),
            (
                "a/c.rs",
                "use super::e::{E, e};\npub(super) fn go() {}\npub(in crate::d) fn h() {}\n",
            ),
            ("a/e.rs", "fn f() -> Vec<super::A> {}\npub struct E;\n"),
            (
                "d.rs",
                "use std::fmt;\nuse a::foreign;\n/// [`crate::a`]\npub struct D;\n",
            ),
        ];
        assert_eq!(
            imported(&files),
            ["a a::b", "a a::c", "a::b d", "a::b ", "a::c a::e", "a::e a"]
                .map(ToOwned::to_owned)
                .into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_reexported_item_is_imported_from_the_file_that_declares_it() {
        let files = [
            ("lib.rs", "pub mod a;\npub mod d;\n"),
            (
                "a.rs",
                "mod b;\nmod c;\npub use b::{B, Unused};\npub use c::*;\nfn f(b: B) {}\n",
            ),
            (
                "a/b.rs",
                "use super::C;\npub struct B;\npub struct Unused;\n",
            ),
            ("a/c.rs", "pub struct C;\n"),
            ("d.rs", "use crate::a::{B, C};\nuse crate::a::gone::Gone;\n"),
        ];
        assert_eq!(
            imported(&files),
            ["a a::b", "a::b a::c", "d a", "d a::b", "d a::c"]
        );
    }

    #[test]
    fn a_reexport_alone_is_no_import() {
        let files = [
            ("a.rs", "mod b;\npub use b::B;\npub struct A;\n"),
            ("a/b.rs", "use super::A;\npub struct B;\n"),
        ];
        assert_eq!(imported(&files), ["a::b a"]);
    }

    #[test]
    fn each_cycle_is_found_once() {
        let files = [
            ("a.rs", "use crate::b::B;\npub struct A;\n"),
            ("b.rs", "use crate::c::C;\npub struct B;\n"),
            (
                "c.rs",
                "use crate::b::B;\nuse crate::d::D;\npub struct C;\n",
            ),
            ("d.rs", "pub struct D;\n"),
        ];
        let files = Files::new(&source::parse("a", files));
        let found = circles(&files.edges());
        let expected = ["b", "c"].map(|name| vec![name.to_owned()]);
        assert_eq!(found, [BTreeSet::from(expected)]);
    }
}
