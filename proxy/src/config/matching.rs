//! Which requests an upstream is for, and that each upstream is reached by some.

use registry::oci::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use service::config::{Checker, ConfigError};

use crate::upstream::{HostPattern, RequestMatch, StrippedPrefix};

/// The most entries of each list.
const MOST_ENTRIES: usize = 256;

/// Which requests an upstream is for: those that fit each list that is not empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MatchFields {
    /// The hosts that clients ask for, with a port or for any port, at most 256; none: all.
    pub hosts: Vec<String>,
    /// The first components of repositories, at most 256; none: all.
    pub prefixes: Vec<String>,
    /// The registries that containerd names in `?ns=`, at most 256.
    pub ns: Vec<String>,
    /// Whether the upstream's own repositories lack the prefix. Needs exactly one entry in `prefixes`.
    pub strip_prefix: bool,
}

impl MatchFields {
    /// What the fields mean.
    pub(super) fn resolve(&self, checker: &Checker<'_>) -> Result<RequestMatch, ConfigError> {
        let prefixes = resolve_prefixes(&self.prefixes, checker)?;
        let stripped = match &prefixes[..] {
            _ if !self.strip_prefix => None,
            [prefix] => Some(StrippedPrefix::new(prefix)),
            // Two names of one repository: a response could not say by which the client knows it.
            _ => {
                let message =
                    "takes away the one entry of prefixes: write an upstream for each of several";
                return Err(checker.error("strip_prefix", message));
            }
        };
        Ok(RequestMatch {
            hosts: resolve_hosts("hosts", &self.hosts, checker)?,
            prefixes,
            ns: resolve_hosts("ns", &self.ns, checker)?,
            stripped,
        })
    }
}

fn resolve_hosts(
    key: &str,
    texts: &[String],
    checker: &Checker<'_>,
) -> Result<Vec<HostPattern>, ConfigError> {
    checker.entries(key, texts.len(), MOST_ENTRIES)?;
    let mut hosts: Vec<HostPattern> = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let error = |message: &str| checker.error(&format!("{key}[{at}]"), message);
        let host: HostPattern = text
            .parse()
            .map_err(|reason: crate::upstream::HostPatternError| error(&reason.to_string()))?;
        if let Some(first) = hosts.iter().position(|known| known.text() == host.text()) {
            return Err(error(&format!("is the same as {key}[{first}]")));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn resolve_prefixes(texts: &[String], checker: &Checker<'_>) -> Result<Vec<String>, ConfigError> {
    checker.entries("prefixes", texts.len(), MOST_ENTRIES)?;
    for (at, text) in texts.iter().enumerate() {
        let error = |message: &str| checker.error(&format!("prefixes[{at}]"), message);
        let is_component = !text.contains('/') && Name::parse(text).is_ok();
        if !is_component {
            return Err(error(
                "must be the first component of repositories: lower-case letters and digits, with single \
                 periods, one or two underscores, or hyphens between them, and no slash",
            ));
        }
        if let Some(first) = texts[..at].iter().position(|known| known == text) {
            return Err(error(&format!("is the same as prefixes[{first}]")));
        }
    }
    Ok(texts.to_vec())
}

/// Refuses an upstream, or an entry of its lists, that no request ever reaches: an `earlier` upstream is
/// for all of them.
pub(super) fn check_reached<'m>(
    matching: &RequestMatch,
    earlier: impl Iterator<Item = (&'m str, &'m RequestMatch)>,
    checker: &Checker<'_>,
) -> Result<(), ConfigError> {
    for (name, earlier) in earlier {
        let covered = Covered::by(earlier, matching);
        let (hosts, prefixes, ns) = (covered.hosts, covered.prefixes, covered.ns);
        let hidden = match (hosts.is_all(), prefixes.is_all(), ns.is_all()) {
            (true, true, true) => Some("match".to_owned()),
            (false, true, true) => hosts.first("match.hosts"),
            (true, false, true) => prefixes.first("match.prefixes"),
            (true, true, false) => ns.first("match.ns"),
            _ => None,
        };
        let Some(key) = hidden else {
            continue;
        };
        let message = format!(
            "is never reached: the upstream `{name}` before it is for all of these requests; move this \
             one up, or match less there"
        );
        // Where there is no `match`, the upstream itself is the place.
        let is_for_all = matching.is_for_all();
        return Err(checker.error(if is_for_all { "" } else { &key }, &message));
    }
    Ok(())
}

/// Which entries of each list another upstream is for.
struct Covered {
    hosts: CoveredEntries,
    prefixes: CoveredEntries,
    ns: CoveredEntries,
}

/// An empty list has one entry, which stands for everything.
struct CoveredEntries(Vec<bool>);

impl Covered {
    fn by(earlier: &RequestMatch, later: &RequestMatch) -> Covered {
        let covers = |one: &[HostPattern], other: &HostPattern| {
            one.is_empty() || one.iter().any(|pattern| pattern.covers(other))
        };
        let has = |one: &[HostPattern], other: &HostPattern| {
            one.iter().any(|pattern| pattern.text() == other.text())
        };
        let holds =
            |prefix: &String| earlier.prefixes.is_empty() || earlier.prefixes.contains(prefix);
        Covered {
            hosts: CoveredEntries::of(&later.hosts, earlier.hosts.is_empty(), |host| {
                covers(&earlier.hosts, host)
            }),
            prefixes: CoveredEntries::of(&later.prefixes, earlier.prefixes.is_empty(), holds),
            // A request with a name is for no upstream without it, so an empty list covers none.
            ns: CoveredEntries::of(&later.ns, earlier.ns.is_empty(), |ns| has(&earlier.ns, ns)),
        }
    }
}

impl CoveredEntries {
    fn of<T>(list: &[T], is_all: bool, covers: impl Fn(&T) -> bool) -> CoveredEntries {
        CoveredEntries(if list.is_empty() {
            vec![is_all]
        } else {
            list.iter().map(covers).collect()
        })
    }

    fn is_all(&self) -> bool {
        self.0.iter().all(|is_covered| *is_covered)
    }

    /// The key of the first entry that is covered.
    fn first(&self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|is_covered| *is_covered)?;
        Some(format!("{key}[{at}]"))
    }
}

#[cfg(test)]
mod tests;
