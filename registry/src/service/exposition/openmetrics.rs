//! Writing OpenMetrics 1.0.

use super::claims::Claims;
use super::model::{Page, Sample};
use super::number::push_ms_as_seconds;
use super::text::{push_help, push_series, push_type};
use super::{Family, Kind};

impl Page {
    /// Appends the page in OpenMetrics' text format, with its `# EOF`.
    ///
    /// A counter's family is named without `_total` there; one that has no `_total`, or whose
    /// shorter name is another family's, is written as `unknown`. Families of `_created`
    /// timestamps are left out: the format has that name reserved for the family they tell of.
    pub fn write_openmetrics(&self, out: &mut String) {
        out.reserve(self.size_hint());
        let mut claims = Claims::default();
        for (index, family) in self.families().enumerate() {
            claims.add(family.name(), family.kind(), index);
        }
        for family in self
            .families()
            .filter(|family| !is_created(family, &claims))
        {
            let (name, kind) = name_and_type(&family, &claims);
            push_help(&family, name, true, out);
            push_type(name, kind, out);
            for sample in family.samples() {
                push_series(&sample, out);
                out.push_str(sample.value_text());
                push_timestamp(&sample, out);
                out.push('\n');
            }
        }
        out.push_str("# EOF\n");
    }
}

fn name_and_type<'a>(family: &Family<'a>, claims: &Claims<'_>) -> (&'a str, &'static str) {
    let name = family.name();
    match (family.kind(), name.strip_suffix("_total")) {
        (Kind::Counter, Some(base)) if !base.is_empty() && !claims.clash(base, Kind::Counter) => {
            (base, "counter")
        }
        (Kind::Counter | Kind::Untyped, _) => (name, "unknown"),
        (kind, _) => (name, kind.as_str()),
    }
}

/// Whether the family holds the creation times of another one.
fn is_created(family: &Family<'_>, claims: &Claims<'_>) -> bool {
    family.name().strip_suffix("_created").is_some_and(|base| {
        let counter = matches!(
            claims.get(&format!("{base}_total")),
            Some((Kind::Counter, _))
        );
        let own = claims.get(base).map(|(kind, _)| kind);
        counter || matches!(own, Some(Kind::Counter | Kind::Histogram | Kind::Summary))
    })
}

fn push_timestamp(sample: &Sample<'_>, out: &mut String) {
    if let Some(raw) = sample.timestamp_text() {
        out.push(' ');
        if sample.text.openmetrics {
            out.push_str(raw);
        } else if let Ok(ms) = raw.parse() {
            push_ms_as_seconds(ms, out);
        }
    }
}
