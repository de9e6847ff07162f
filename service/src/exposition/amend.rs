//! What one exposition says otherwise than the cells from which it was gathered.

use std::sync::Arc;

use super::model::{Exposition, Sample};

impl Exposition {
    /// Sets the samples of a family to 0 in which a label has this value.
    pub fn set_to_zero(&mut self, family: &str, (label, value): (&str, &str)) {
        let mut families = self.families.iter();
        let Some(found) = families.find(|one| one.name(&self.texts) == family) else {
            return;
        };
        for part in found.parts.clone() {
            for at in part.samples.clone() {
                let text = &mut self.texts[part.text as usize];
                let data = text.samples[at];
                let sample = Sample {
                    text,
                    part: &part,
                    data,
                };
                if sample.label(label).as_deref() != Some(value) {
                    continue;
                }
                // A value has one character at least, of which the others are left out.
                let first = data.value_start()..=data.value_start();
                let content = Arc::make_mut(&mut text.content);
                if content.get(first.clone()).is_some() {
                    content.replace_range(first, "0");
                    text.samples[at].value_len = 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::ParseLimits;

    #[test]
    fn only_the_samples_with_the_label_are_set_to_zero() {
        let text = "# TYPE up gauge\nup{a=\"x\",source=\"one\"} 123.5 7\nup{source=\"two\"} 1\n\
                    up 1\n# TYPE down gauge\ndown{source=\"one\"} 1\n";
        let (mut exposition, _) = Exposition::parse(text.to_owned(), &ParseLimits::default());
        let before = exposition.clone();
        exposition.set_to_zero("up", ("source", "one"));
        exposition.set_to_zero("none", ("source", "one"));
        let values = |of: &Exposition, family: &str| -> Vec<(f64, Option<i64>)> {
            let family = of.family(family).unwrap();
            let samples = family.samples();
            samples
                .map(|one| (one.value(), one.timestamp_ms()))
                .collect()
        };
        let up = values(&exposition, "up");
        let numbers: Vec<_> = up.iter().map(|(value, _)| *value).collect();
        assert_eq!(numbers, [0.0, 1.0, 1.0]);
        assert_eq!(up[1..], [(1.0, None), (1.0, None)]);
        assert_eq!(values(&exposition, "down"), [(1.0, None)]);
        assert_eq!(values(&before, "up")[0], (123.5, Some(7)));
    }
}
