//! A parsed exposition, and a test's expectations of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use service::exposition::{Exposition, ParseLimits, Sample};
use tokio::time::timeout;

use crate::octoserve::Server;
use crate::poll;

/// How long a count may take to appear: octoserve counts a request when the last byte has been
/// sent, which may be after the client has received it.
const DEADLINE: Duration = Duration::from_secs(20);

/// An exposition as it was served.
pub struct Scrape {
    text: String,
    exposition: Exposition,
}

/// The series of one metric that have all of these labels, and possibly more.
#[derive(Clone, Debug)]
pub struct Metric {
    name: String,
    labels: Vec<(String, String)>,
}

/// Some series and their expected sum.
#[derive(Clone, Debug)]
pub struct Expected {
    metric: Metric,
    value: f64,
}

/// All series of `name`; [`Metric::label`] narrows the selection.
pub fn metric(name: &str) -> Metric {
    Metric {
        name: name.to_owned(),
        labels: Vec::new(),
    }
}

impl Scrape {
    /// Parses an exposition of text 0.0.4.
    ///
    /// # Errors
    /// If anything in it is malformed or a duplicate.
    pub fn parse(text: String) -> Result<Self> {
        let (exposition, dropped) = Exposition::parse(text.as_str(), &ParseLimits::default());
        ensure!(
            dropped.total() == 0,
            "not everything on the exposition parses: {dropped:?}\n{text}"
        );
        Ok(Self { text, exposition })
    }

    /// The exposition byte for byte.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The exposition, parsed.
    pub fn exposition(&self) -> &Exposition {
        &self.exposition
    }

    /// The sum of all series that `metric` selects; `None` if it selects none.
    pub fn sum(&self, metric: &Metric) -> Option<f64> {
        let values: Vec<_> = self
            .samples()
            .filter(|sample| metric.matches(sample))
            .map(|s| s.value())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// All values of each label in the exposition.
    pub fn label_values(&self) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in self.samples().flat_map(|sample| sample.labels()) {
            let values = all.entry(name.into_owned()).or_default();
            if !values.iter().any(|known| *known == value) {
                values.push(value.into_owned());
            }
        }
        all
    }

    /// The name and labels of every series, without values: the series that a scrape adds to a
    /// database.
    pub fn series(&self) -> Vec<String> {
        let mut series: Vec<_> = self.samples().map(|sample| spell(&sample)).collect();
        series.sort();
        series
    }

    fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        self.exposition
            .families()
            .flat_map(|family| family.samples())
    }
}

impl Metric {
    /// Selects further: the label must have this value.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the expected sum of the selected series. No series at all does not count as a sum of 0.
    pub fn value(self, value: impl Into<f64>) -> Expected {
        Expected {
            metric: self,
            value: value.into(),
        }
    }

    fn matches(&self, sample: &Sample<'_>) -> bool {
        sample.name() == self.name
            && self
                .labels
                .iter()
                .all(|(name, value)| sample.label(name).is_some_and(|v| v == *value))
    }
}

impl Expected {
    /// Checks one exposition.
    ///
    /// # Errors
    /// If the sum differs; with every series of the metric.
    pub fn assert(&self, scrape: &Scrape) -> Result<()> {
        let sum = scrape.sum(&self.metric);
        if sum == Some(self.value) {
            return Ok(());
        }
        let mut there = String::new();
        for sample in scrape
            .samples()
            .filter(|sample| sample.name() == self.metric.name)
        {
            // Writing to a String cannot fail.
            writeln!(there, "  {} {}", spell(&sample), sample.value_text()).ok();
        }
        bail!("expected {self:?}, found {sum:?} in\n{there}")
    }

    /// Waits until the server's exposition has the expected sum.
    ///
    /// # Errors
    /// If it does not in time; with every series of the metric.
    pub async fn assert_in(&self, server: &Server) -> Result<()> {
        let mut last = None;
        let holds = poll::until("the metric has the expected value", DEADLINE, async || {
            last = Some(self.assert(&server.scrape().await?));
            Ok(last.as_ref().is_some_and(Result::is_ok).then_some(()))
        });
        let holds = timeout(DEADLINE + DEADLINE, holds).await?;
        match (holds, last) {
            (Err(_), Some(Err(difference))) => Err(difference),
            (result, _) => result.with_context(|| format!("{self:?}")),
        }
    }
}

fn spell(sample: &Sample<'_>) -> String {
    let mut labels: Vec<_> = sample
        .labels()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    labels.sort();
    format!("{}{{{}}}", sample.name(), labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPOSITION: &str = "# HELP pulls_total Pulls.\n# TYPE pulls_total counter\n\
        pulls_total{by=\"tag\",kind=\"image\"} 2\npulls_total{by=\"digest\",kind=\"image\"} 3\n";

    #[test]
    fn series_are_selected_by_any_of_their_labels() {
        let scrape = Scrape::parse(EXPOSITION.to_owned()).unwrap();
        metric("pulls_total").value(5).assert(&scrape).unwrap();
        metric("pulls_total")
            .label("by", "tag")
            .value(2)
            .assert(&scrape)
            .unwrap();
        metric("pulls_total")
            .label("by", "tag")
            .label("kind", "image")
            .value(2)
            .assert(&scrape)
            .unwrap();
        assert!(
            metric("pulls_total")
                .label("by", "name")
                .value(0)
                .assert(&scrape)
                .is_err()
        );
        let error = metric("pulls_total")
            .label("by", "tag")
            .value(7)
            .assert(&scrape)
            .unwrap_err();
        assert!(error.to_string().contains("by=\"digest\""), "{error}");
    }

    #[test]
    fn an_exposition_with_a_malformed_line_is_refused() {
        assert!(Scrape::parse(format!("{EXPOSITION}pulls_total{{by=}} 1\n")).is_err());
    }
}
