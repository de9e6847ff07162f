//! Writing OpenMetrics 1.0, which forbids what the text format allows.
//!
//! An exposition is written so that the strictest parser accepts all of it, by three rules:
//!
//! - A counter's sample that is NaN or negative is left out.
//! - A family that does not satisfy its type is written as `unknown`, whose samples may be anything:
//!   one family for each of its sample names. That holds for a counter without `_total`, a family
//!   one of whose names is taken ([`names`]), and an invalid histogram or summary ([`sound`]), such
//!   as one without a bucket `+Inf`.
//! - The exposition that was merged first decides the type. If its histogram or summary is valid,
//!   invalid samples of later expositions are left out. A family is left out if its own name is
//!   taken, as `x_created` is by a counter `x_total`.
//!
//! The text format needs none of this.

mod names;
mod sound;

use names::{FamilyForm, typed_name};

use super::limits::OmittedSamples;
use super::metric_type::MetricType;
use super::model::{Exposition, ExpositionFamily, FamilyPart, Sample};
use super::number::push_ms_as_seconds;
use super::text::{push_help, push_series, push_type};

impl Exposition {
    /// Appends the exposition in OpenMetrics' text format, with its `# EOF`; which samples had to
    /// be left out.
    ///
    /// A counter's family is named without `_total` there. What may not have its type is written as
    /// `unknown`; a counter that is NaN or negative is left out, and so is what cannot stand beside
    /// something that the exposition had first.
    pub fn write_openmetrics(&self, out: &mut String) -> OmittedSamples {
        out.reserve(self.size_hint());
        let mut omitted = OmittedSamples::default();
        for (family, form) in self.families().zip(self.forms()) {
            match form {
                FamilyForm::Typed { without } => {
                    write_typed(&family, &without, out, &mut omitted);
                }
                FamilyForm::Unknown => write_unknown(&family, out),
                FamilyForm::Omitted => family.parts().for_each(|part| omitted.add_all(part)),
            }
        }
        out.push_str("# EOF\n");
        omitted
    }
}

/// Writes a family under its type, but for the parts of these numbers.
fn write_typed(
    family: &ExpositionFamily<'_>,
    without: &[usize],
    out: &mut String,
    omitted: &mut OmittedSamples,
) {
    let name = typed_name(family);
    let kind = match family.kind() {
        // The one type that has another name in OpenMetrics.
        MetricType::Untyped => "unknown",
        kind => kind.as_str(),
    };
    push_help(family, name, true, out);
    push_type(name, kind, out);
    for (index, part) in family.parts().enumerate() {
        if without.contains(&index) {
            omitted.add_all(part);
            continue;
        }
        for sample in family.samples_of(part) {
            if family.kind() == MetricType::Counter && !is_counted(&sample) {
                omitted.add(part, 1);
            } else {
                push_sample(&sample, out);
            }
        }
    }
}

/// Writes each sample name of a family as a family of its own.
fn write_unknown(family: &ExpositionFamily<'_>, out: &mut String) {
    // By name, not in the order of the text: the samples of one family must stand together.
    for ending in family.kind().endings() {
        let name = format!("{}{ending}", family.name());
        let mut samples = family.samples().filter(|s| s.name() == name).peekable();
        if samples.peek().is_some() {
            push_help(family, &name, true, out);
            push_type(&name, "unknown", out);
            samples.for_each(|sample| push_sample(&sample, out));
        }
    }
}

/// Whether a counter's sample is a number of what was counted.
fn is_counted(sample: &Sample<'_>) -> bool {
    // Most values are plain digits, which need no parsing.
    sample
        .value_text()
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        || sample.value() >= 0.0
}

fn push_sample(sample: &Sample<'_>, out: &mut String) {
    push_series(sample, out);
    out.push_str(sample.value_text());
    if let Some(ms) = sample.timestamp_ms() {
        out.push(' ');
        push_ms_as_seconds(ms, out);
    }
    out.push('\n');
}

impl OmittedSamples {
    fn add(&mut self, part: &FamilyPart, samples: u64) {
        let source = part.source.clone().unwrap_or_default();
        *self.by_source.entry(source).or_default() += samples;
    }

    fn add_all(&mut self, part: &FamilyPart) {
        self.add(part, part.len());
    }
}

#[cfg(test)]
mod tests;
