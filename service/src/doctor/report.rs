//! What was found, for a person at a terminal and for a script.

use std::fmt::Write as _;

use serde::Serialize;

use super::{CheckResult, Diagnosis, Finding};

/// The longest text of a finding, in characters: parts of it come from servers that were asked.
const LONGEST: usize = 400;

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoctorFormat {
    /// In lines, with or without colours.
    Text {
        /// Whether results have colours.
        colours: bool,
    },
    /// As one JSON object.
    Json,
}

/// What was found.
#[derive(Debug)]
pub struct DoctorReport {
    program: &'static str,
    diagnoses: Vec<Diagnosis>,
}

#[derive(Serialize)]
struct JsonReport<'r> {
    program: &'r str,
    version: &'r str,
    result: &'static str,
    ok: usize,
    warnings: usize,
    failed: usize,
    checks: Vec<JsonFinding<'r>>,
}

#[derive(Serialize)]
struct JsonFinding<'r> {
    subject: String,
    check: &'r str,
    result: &'static str,
    message: String,
    mend: Option<String>,
}

impl CheckResult {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The code of a colour (ECMA-48, SGR).
    fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warn => 33,
            Self::Fail => 31,
        }
    }
}

impl DoctorReport {
    /// What was found for this program.
    pub fn new(program: &'static str, diagnoses: Vec<Diagnosis>) -> Self {
        Self { program, diagnoses }
    }

    /// The exit code: 0 if nothing is wrong, 1 if a check failed, 2 if there are warnings and they count.
    pub fn exit_code(&self, strict: bool) -> u8 {
        match self.worst() {
            CheckResult::Fail => 1,
            CheckResult::Warn if strict => 2,
            CheckResult::Warn | CheckResult::Ok => 0,
        }
    }

    /// The text to print.
    pub fn print(&self, format: DoctorFormat) -> String {
        match format {
            DoctorFormat::Text { colours } => self.text(colours),
            DoctorFormat::Json => self.json(),
        }
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.diagnoses.iter().flat_map(|one| &one.findings)
    }

    fn worst(&self) -> CheckResult {
        let results = self.findings().map(|finding| finding.result);
        results.max().unwrap_or(CheckResult::Ok)
    }

    fn count(&self, result: CheckResult) -> usize {
        let all = self.findings();
        all.filter(|finding| finding.result == result).count()
    }

    fn text(&self, colours: bool) -> String {
        let longest = self.findings().map(|finding| finding.check.chars().count());
        let width = longest.max().unwrap_or_default();
        let mut text = String::new();
        for Diagnosis { subject, findings } in &self.diagnoses {
            let _ = writeln!(text, "{}", shown(subject));
            for finding in findings {
                let (word, check) = (finding.result.word(), shown(&finding.check));
                let word = if colours {
                    format!("\x1b[{}m{word:<4}\x1b[0m", finding.result.colour())
                } else {
                    format!("{word:<4}")
                };
                let message = shown(&finding.message);
                let _ = writeln!(text, "  {word}  {check:<width$}  {message}");
                if let Some(mend) = &finding.mend {
                    let _ = writeln!(text, "        {:<width$}  mend: {}", "", shown(mend));
                }
            }
        }
        let (ok, warnings) = (self.count(CheckResult::Ok), self.count(CheckResult::Warn));
        let failed = self.count(CheckResult::Fail);
        let s = if warnings == 1 { "" } else { "s" };
        let _ = writeln!(text, "\n{ok} ok, {warnings} warning{s}, {failed} failed");
        text
    }

    fn json(&self) -> String {
        let checks = self.diagnoses.iter().flat_map(|one| {
            one.findings.iter().map(|finding| JsonFinding {
                subject: shown(&one.subject),
                check: &finding.check,
                result: finding.result.word(),
                message: shown(&finding.message),
                mend: finding.mend.as_deref().map(shown),
            })
        });
        let report = JsonReport {
            program: self.program,
            version: env!("CARGO_PKG_VERSION"),
            result: self.worst().word(),
            ok: self.count(CheckResult::Ok),
            warnings: self.count(CheckResult::Warn),
            failed: self.count(CheckResult::Fail),
            checks: checks.collect(),
        };
        let text = serde_json::to_string_pretty(&report);
        // It holds texts and numbers, of which JSON is always made.
        text.unwrap_or_default() + "\n"
    }
}

/// A text for one line of a terminal: what a server said must not move its cursor.
fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let mut characters = text.chars().map(printable);
    let mut shown: String = characters.by_ref().take(LONGEST).collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>) -> DoctorReport {
        let subject = "upstream main".to_owned();
        DoctorReport::new("octoserve", vec![Diagnosis { subject, findings }])
    }

    #[test]
    fn each_check_has_a_line_and_each_trouble_what_to_do() {
        let report = report(vec![
            Finding::ok("answers", "200 in 1 ms"),
            Finding::warn("clock", "is 40 s ahead", "set it"),
            Finding::fail("token realm", "a\x1b[2Jb", "start it"),
        ]);
        let text = report.print(DoctorFormat::Text { colours: false });
        assert_eq!(
            text,
            "upstream main\n  \
               ok    answers      200 in 1 ms\n  \
               warn  clock        is 40 s ahead\n                     mend: set it\n  \
               fail  token realm  a?[2Jb\n                     mend: start it\n\
             \n1 ok, 1 warning, 1 failed\n"
        );
        let coloured = report.print(DoctorFormat::Text { colours: true });
        assert!(coloured.contains("\x1b[31mfail\x1b[0m"), "{coloured}");
        let json = report.print(DoctorFormat::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["result"], "fail");
        assert_eq!(json["failed"], 1);
        assert_eq!(json["checks"][2]["message"], "a?[2Jb");
        assert_eq!(json["checks"][0]["mend"], serde_json::Value::Null);
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_check() {
        let warning = || Finding::warn("a", "b", "c");
        for (findings, lax, strict) in [
            (vec![], 0, 0),
            (vec![Finding::ok("a", "b")], 0, 0),
            (vec![Finding::ok("a", "b"), warning()], 0, 2),
            (vec![Finding::fail("a", "b", "c"), warning()], 1, 1),
        ] {
            let report = report(findings);
            assert_eq!(
                (report.exit_code(false), report.exit_code(true)),
                (lax, strict)
            );
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "ä".repeat(LONGEST + 1);
        let text =
            report(vec![Finding::ok("a", long)]).print(DoctorFormat::Text { colours: false });
        assert!(text.contains("ä..."), "{text}");
        assert!(text.chars().count() < LONGEST + 100);
    }
}
