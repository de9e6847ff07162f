//! Which upstream a request is for: look-ups of what it names, and the first upstream that fits all.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::matching::{HostPattern, LONGEST_HOST, RequestMatch};
use super::requested::Requested;

/// A set of upstreams: one bit for each.
type UpstreamMask = u64;

/// Which upstream a request is for.
pub(super) struct ChoiceIndex {
    hosts: MatchCondition,
    prefixes: MatchCondition,
    ns: MatchCondition,
    /// Those that do not know a prefix of theirs.
    stripping: UpstreamMask,
}

/// Why a request is for no upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoUpstream {
    /// None is for its host and its repository.
    Unmatched,
    /// None is for the registry that it names in `?ns=`.
    UnknownNs,
    /// It asks for the catalog of an upstream whose repositories have other names here.
    Catalog,
}

/// What one kind of list says of each value.
#[derive(Default)]
struct MatchCondition {
    /// The upstreams whose list is empty.
    without: UpstreamMask,
    /// Only the configuration adds values, so nobody can make them collide.
    by_value: HashMap<Box<[u8]>, UpstreamMask, RandomState>,
}

impl ChoiceIndex {
    /// Of upstreams in their order; at most 64 of them are ever chosen.
    pub(super) fn new<'m>(matches: impl Iterator<Item = &'m RequestMatch>) -> ChoiceIndex {
        let mut index = ChoiceIndex {
            hosts: MatchCondition::default(),
            prefixes: MatchCondition::default(),
            ns: MatchCondition::default(),
            stripping: 0,
        };
        for (at, matching) in (0..UpstreamMask::BITS).zip(matches) {
            let bit = 1 << at;
            index
                .hosts
                .add(bit, matching.hosts.iter().map(HostPattern::text));
            index
                .prefixes
                .add(bit, matching.prefixes.iter().map(String::as_str));
            index.ns.add(bit, matching.ns.iter().map(HostPattern::text));
            index.stripping |= if matching.stripped.is_some() { bit } else { 0 };
        }
        index
    }

    /// The place of the upstream that a request is for.
    pub(super) fn choose(&self, requested: &Requested<'_>) -> Result<usize, NoUpstream> {
        let named = self.of_ns(requested)?;
        let fit = named & self.of_host(requested.host);
        if self.prefixes.is_unused() {
            return first(fit);
        }
        if !requested.is_plain() {
            return Err(NoUpstream::Unmatched);
        }
        if let Some(component) = requested.component() {
            let prefixed = if component.contains('%') {
                self.of_prefix(percent_encoding::percent_decode_str(component))
            } else {
                self.prefixes.without | self.prefixes.get(component.as_bytes())
            };
            return first(fit & prefixed);
        }
        if let Some(component) = requested.scoped_component() {
            return first(fit & self.of_prefix(component));
        }
        // It names no repository: an upstream for all of them comes first.
        let chosen = first(fit & self.prefixes.without).or_else(|_| first(fit))?;
        if self.stripping & (1 << chosen) != 0 && requested.is_catalog() {
            return Err(NoUpstream::Catalog);
        }
        Ok(chosen)
    }

    /// Whether a request may be for another upstream than the one whose repository it is about: it names
    /// none, and repositories matter.
    pub(super) fn is_open(&self, requested: &Requested<'_>) -> bool {
        !self.prefixes.is_unused() && requested.component().is_none()
    }

    fn of_host(&self, host: Option<&[u8]>) -> UpstreamMask {
        let Some(host) = host.filter(|_| !self.hosts.is_unused()) else {
            return self.hosts.without;
        };
        let mut buffer = [0; LONGEST_HOST];
        let Some(host) = lower_case(host, &mut buffer) else {
            return self.hosts.without;
        };
        // The colons of an IPv6 address are inside its brackets.
        let end = host.iter().rposition(|byte| matches!(byte, b':' | b']'));
        let named = match end {
            Some(at) if host[at] == b':' => self.hosts.get(&host[..at]),
            _ => 0,
        };
        self.hosts.without | self.hosts.get(host) | named
    }

    fn of_prefix(&self, component: impl Iterator<Item = u8>) -> UpstreamMask {
        let mut buffer = [0; LONGEST_HOST];
        let component = copied(component, &mut buffer);
        self.prefixes.without | component.map_or(0, |component| self.prefixes.get(component))
    }

    /// The registry's name is a promise about the content: where any upstream has such names, a request
    /// with one is for no other.
    fn of_ns(&self, requested: &Requested<'_>) -> Result<UpstreamMask, NoUpstream> {
        if self.ns.is_unused() {
            return Ok(self.ns.without);
        }
        let mut values = requested.parameters("ns");
        let Some(value) = values.next() else {
            return Ok(self.ns.without);
        };
        let named = self.ns.of(value);
        // The upstream might take another one.
        let is_one = values.all(|other| self.ns.of(other) == named);
        if named == 0 || !is_one {
            return Err(NoUpstream::UnknownNs);
        }
        Ok(named)
    }
}

impl MatchCondition {
    fn add<'v>(&mut self, bit: UpstreamMask, values: impl Iterator<Item = &'v str>) {
        let mut is_empty = true;
        for value in values {
            *self.by_value.entry(value.as_bytes().into()).or_default() |= bit;
            is_empty = false;
        }
        self.without |= if is_empty { bit } else { 0 };
    }

    fn is_unused(&self) -> bool {
        self.by_value.is_empty()
    }

    /// Those whose lists have a registry. Case does not matter.
    fn of(&self, registry: impl Iterator<Item = u8>) -> UpstreamMask {
        let mut buffer = [0; LONGEST_HOST];
        let registry = copied(registry.map(|byte| byte.to_ascii_lowercase()), &mut buffer);
        registry.map_or(0, |registry| self.get(registry))
    }

    fn get(&self, value: &[u8]) -> UpstreamMask {
        self.by_value.get(value).copied().unwrap_or_default()
    }
}

/// The host in lower case; `None` if it is longer than any value.
fn lower_case<'b>(host: &[u8], buffer: &'b mut [u8; LONGEST_HOST]) -> Option<&'b [u8]> {
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// The bytes as a slice; `None` if they are more than any value has.
fn copied(bytes: impl Iterator<Item = u8>, buffer: &mut [u8; LONGEST_HOST]) -> Option<&[u8]> {
    let mut length = 0;
    for byte in bytes {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    Some(&buffer[..length])
}

fn first(fit: UpstreamMask) -> Result<usize, NoUpstream> {
    match fit {
        0 => Err(NoUpstream::Unmatched),
        _ => Ok(fit.trailing_zeros() as usize),
    }
}
