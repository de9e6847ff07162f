use std::fmt::Write as _;

use super::super::tests::resolve;
use super::*;
use crate::config::UpstreamsConfig;

/// What several upstreams say, each given by its keys; the first is on line 2.
fn resolved(upstreams: &[&str]) -> Result<Vec<RequestMatch>, String> {
    let mut yaml = "upstreams:\n".to_owned();
    for (at, keys) in upstreams.iter().enumerate() {
        let _ = writeln!(
            yaml,
            "- {{name: u{at}, replicas: ['http://r{at}'], {keys}}}"
        );
    }
    let (config, printed) = resolve(&yaml, Vec::new())?;
    let (_, again) = resolve(&printed, Vec::new())?;
    assert_eq!(again, printed);
    let UpstreamsConfig::Remote(upstreams) = config.upstreams else {
        return Err("the embedded registry".to_owned());
    };
    Ok(upstreams.into_iter().map(|one| one.matching).collect())
}

#[test]
fn a_match_is_read_whole_and_without_one_every_request_fits() {
    let matches = resolved(&[
        "match: {hosts: ['A.example', 'b:5000'], prefixes: [team-a, x], ns: ['Docker.io']}",
        "match: {prefixes: [y], strip_prefix: true}",
        "read_only: true",
    ])
    .unwrap();
    let texts = |list: &[HostPattern]| -> Vec<_> {
        list.iter().map(|host| host.text().to_owned()).collect()
    };
    assert_eq!(texts(&matches[0].hosts), ["a.example", "b:5000"]);
    assert_eq!(texts(&matches[0].ns), ["docker.io"]);
    assert_eq!(matches[0].prefixes, ["team-a", "x"]);
    assert_eq!(matches[0].stripped, None);
    assert_eq!(matches[1].stripped, Some(StrippedPrefix::new("y")));
    assert!(matches[2].is_for_all());
}

#[test]
fn an_entry_that_cannot_match_is_refused_where_it_is_written() {
    let long = format!("prefixes: ['{}']", "a".repeat(256));
    let many: Vec<_> = (0..257).map(|at| format!("p{at}")).collect();
    let many = format!("prefixes: [{}]", many.join(", "));
    for (keys, message) in [
        ("hosts: ['http://a']", "hosts[0]: `http://a` is no host"),
        ("hosts: [a, '*.b']", "hosts[1]: `*.b` is no host"),
        ("hosts: ['a:0']", "hosts[0]: `a:0` is no host"),
        ("hosts: ['']", "hosts[0]: `` is no host"),
        ("hosts: [a, A]", "hosts[1]: is the same as hosts[0]"),
        (
            "ns: [docker.io/library]",
            "ns[0]: `docker.io/library` is no host",
        ),
        ("ns: [a, b, a]", "ns[2]: is the same as ns[0]"),
        (
            "prefixes: [a/b]",
            "prefixes[0]: must be the first component",
        ),
        ("prefixes: [A]", "prefixes[0]: must be the first component"),
        ("prefixes: ['']", "prefixes[0]: must be the first component"),
        ("prefixes: [..]", "prefixes[0]: must be the first component"),
        (
            "prefixes: [_catalog]",
            "prefixes[0]: must be the first component",
        ),
        (
            "prefixes: [a%2fb]",
            "prefixes[0]: must be the first component",
        ),
        (
            "prefixes: [a, a]",
            "prefixes[1]: is the same as prefixes[0]",
        ),
        (&long, "prefixes[0]: must be the first component"),
        (&many, "prefixes: must have at most 256 entries, not 257"),
        (
            "strip_prefix: true",
            "strip_prefix: takes away the one entry",
        ),
        (
            "prefixes: [a, b], strip_prefix: true",
            "strip_prefix: takes away the one entry",
        ),
        ("prefix: [a]", "prefix: unknown key"),
        ("hosts: a", "hosts: "),
    ] {
        let error = resolved(&["match: {hosts: [z]}", &format!("match: {{{keys}}}")]);
        let error = error.map(|_| ()).unwrap_err();
        let start = format!("FILE:3: upstreams[1].match.{message}");
        assert!(error.starts_with(&start), "{keys}: {error}");
    }
}

#[test]
fn what_no_request_ever_reaches_is_refused() {
    for (upstreams, hidden) in [
        (&["read_only: false", "read_only: true"][..], "[1]: "),
        (&["read_only: false", "match: {hosts: [a]}"], "[1].match: "),
        (
            &["match: {hosts: [a]}", "match: {hosts: [A]}"],
            "[1].match: ",
        ),
        (
            &["match: {hosts: [a]}", "match: {hosts: [b, 'a:5000']}"],
            "[1].match.hosts[1]: ",
        ),
        (
            &["match: {hosts: [a]}", "match: {hosts: [a], prefixes: [x]}"],
            "[1].match: ",
        ),
        (
            &["match: {prefixes: [x, y]}", "match: {prefixes: [z, y]}"],
            "[1].match.prefixes[1]: ",
        ),
        (
            &["match: {ns: [a]}", "match: {ns: [b, a]}"],
            "[1].match.ns[1]: ",
        ),
        (
            &[
                "match: {hosts: [a]}",
                "match: {hosts: [b]}",
                "match: {hosts: [c, b], prefixes: [x]}",
            ],
            "[2].match.hosts[1]: ",
        ),
    ] {
        let error = resolved(upstreams).map(|_| ()).unwrap_err();
        let line = upstreams.len() + 1;
        let start = format!("FILE:{line}: upstreams{hidden}is never reached: the upstream `u");
        assert!(error.starts_with(&start), "{upstreams:?}: {error}");
    }
    for upstreams in [
        &["match: {hosts: [a]}", "read_only: true"][..],
        &["match: {hosts: ['a:5000']}", "match: {hosts: [a]}"],
        &["match: {hosts: [a], prefixes: [x]}", "match: {hosts: [a]}"],
        &[
            "match: {hosts: [a], prefixes: [x]}",
            "match: {hosts: [b], prefixes: [x]}",
        ],
        // Requests that name a registry are for no upstream without names.
        &["read_only: true", "match: {ns: [a]}"],
        &["match: {ns: [a]}", "match: {ns: ['a:5000']}"],
    ] {
        resolved(upstreams).unwrap();
    }
}

#[test]
fn several_upstreams_by_the_same_name_are_sent_to_the_file() {
    let flags = [Vec::from(["http://a"]), Vec::from(["http://b"])];
    let upstreams: Vec<_> = flags
        .into_iter()
        .map(|replicas| std::collections::BTreeMap::from([("replicas", replicas)]))
        .collect();
    let flag = service::config::Flag::new("--upstream", "upstreams", upstreams);
    let error = resolve("", vec![flag]).map(|_| ()).unwrap_err();
    let message = "--upstream: upstreams[1].name: must be a name of its own: several upstreams are \
        written in the file, each with a `name` and a `match`";
    assert_eq!(error, message);
}
