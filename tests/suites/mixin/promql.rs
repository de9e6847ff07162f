//! The names in a PromQL expression: metrics with the labels that select them, and labels to group by.
//! Whether the expression is valid is for Prometheus to say.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

/// What an expression names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Names {
    /// Each metric with the labels of its selector.
    pub(super) metrics: Vec<(String, Vec<String>)>,
    /// The labels of `by`, `on`, `group_left` and the like.
    pub(super) grouping: BTreeSet<String>,
    /// Texts outside of selectors: the labels that `label_replace` makes are among them.
    pub(super) texts: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Lexeme {
    Word(String),
    Text(String),
    Other(char),
}

/// Words after which a list of labels follows in parentheses.
const GROUPING: &[&str] = &[
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Words that name nothing.
const KEYWORDS: &[&str] = &["and", "or", "unless", "offset", "bool", "inf", "nan"];

/// The names in `expression`.
pub(super) fn names(expression: &str) -> Result<Names> {
    let tokens = tokens(expression).with_context(|| expression.to_owned())?;
    let mut names = Names::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Lexeme::Text(text) => drop(names.texts.insert(text.clone())),
            Lexeme::Other('{') => bail!("a selector without a name: {expression}"),
            Lexeme::Other(_) => {}
            Lexeme::Word(word) => match tokens.get(at) {
                Some(Lexeme::Other('(')) if GROUPING.contains(&&**word) => {
                    at += 1;
                    while let Some(token) = tokens.get(at) {
                        at += 1;
                        match token {
                            Lexeme::Word(label) => drop(names.grouping.insert(label.clone())),
                            Lexeme::Other(',') => {}
                            _ => break,
                        }
                    }
                }
                // A function, or an aggregation.
                Some(Lexeme::Other('(')) => {}
                Some(Lexeme::Word(next)) if GROUPING.contains(&&**next) && is_function(word) => {}
                _ if GROUPING.contains(&&**word) || KEYWORDS.contains(&&**word) => {}
                Some(Lexeme::Other('{')) => {
                    at += 1;
                    let mut labels = Vec::new();
                    while let Some(token) = tokens.get(at) {
                        at += 1;
                        match token {
                            Lexeme::Word(label) => labels.push(label.clone()),
                            Lexeme::Other('}') => break,
                            _ => {}
                        }
                    }
                    names.metrics.push((word.clone(), labels));
                }
                _ => names.metrics.push((word.clone(), Vec::new())),
            },
        }
    }
    ensure!(!names.metrics.is_empty(), "no metric: {expression}");
    Ok(names)
}

/// Aggregations may be followed by `by`; so may a metric, with `on` after an operator only.
fn is_function(word: &str) -> bool {
    ["sum", "min", "max", "avg", "count", "topk", "bottomk"].contains(&word)
}

fn tokens(expression: &str) -> Result<Vec<Lexeme>> {
    let mut tokens = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = match first {
            '"' | '\'' => {
                let mut escaped = false;
                let end = rest.char_indices().skip(1).find(|&(_, c)| {
                    let ends = c == first && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let (end, _) = end.context("a text without an end")?;
                tokens.push(Lexeme::Text(rest[1..end].to_owned()));
                end + 1
            }
            // A range, such as [5m] or [$__rate_interval].
            '[' => rest.find(']').context("a range without an end")? + 1,
            '#' => rest.find('\n').unwrap_or(rest.len()),
            first if first.is_ascii_digit() || first == '$' => rest
                .find(|c| !is_name(c) && c != '.' && c != '$')
                .unwrap_or(rest.len()),
            first if is_name(first) => {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                tokens.push(Lexeme::Word(rest[..end].to_owned()));
                end
            }
            first => {
                if !first.is_whitespace() {
                    tokens.push(Lexeme::Other(first));
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

#[test]
fn the_names_in_an_expression_are_found() -> Result<()> {
    let expression = "sum by (job, le) (rate(a_bucket{x=\"y}\",z!~'w'}[5m])) # not b\n\
        / on (job) group_left (c) (job:d:rate5m > 1e3 or -3d offset 5m) and topk(3, e)";
    let found = names(&expression.replace("-3d ", "f "))?;
    let metric = |name: &str, labels: &[&str]| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        (name.to_owned(), labels)
    };
    let metrics = [
        metric("a_bucket", &["x", "z"]),
        metric("job:d:rate5m", &[]),
        metric("f", &[]),
        metric("e", &[]),
    ];
    assert_eq!(found.metrics, metrics);
    let grouping: Vec<_> = found.grouping.iter().map(String::as_str).collect();
    assert_eq!(grouping, ["c", "job", "le"]);
    let made =
        names("sum by (class) (label_replace(a, \"class\", \"$1\", \"status\", \"(.)..\"))")?;
    ensure!(made.texts.contains("class"), "{made:?}");
    for wrong in ["{x=\"y\"}", "1 + 1", "a{x=\"y}", "a[5m"] {
        ensure!(names(wrong).is_err(), "{wrong}");
    }
    Ok(())
}
