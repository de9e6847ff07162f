//! What a check has found.

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckResult {
    /// Nothing is wrong.
    Ok,
    /// It works, but not for long or not for all.
    Warn,
    /// It does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in a word or two.
    pub check: String,
    /// How it ended.
    pub result: CheckResult,
    /// What was found.
    pub message: String,
    /// What to do about it; `None` where nothing is wrong.
    pub mend: Option<String>,
}

/// All checks of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was examined.
    pub subject: String,
    /// The checks, in order.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Nothing is wrong.
    pub fn ok(check: &str, message: impl Into<String>) -> Self {
        Self::new(check, CheckResult::Ok, message.into(), None)
    }

    /// It works, but not for long or not for all.
    pub fn warn(check: &str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into());
        Self::new(check, CheckResult::Warn, message.into(), mend)
    }

    /// It does not work.
    pub fn fail(check: &str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into());
        Self::new(check, CheckResult::Fail, message.into(), mend)
    }

    /// It does not work, and the text says after `; ` what to do, as those of TLS failures do.
    pub fn fail_as_said(check: &str, text: &str) -> Self {
        match text.split_once("; ") {
            Some((message, mend)) => Self::fail(check, message, mend),
            None => Self::new(check, CheckResult::Fail, text.to_owned(), None),
        }
    }

    fn new(check: &str, result: CheckResult, message: String, mend: Option<String>) -> Self {
        Self {
            check: check.to_owned(),
            result,
            message,
            mend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_told_from_what_was_found() {
        let finding = Finding::fail_as_said("certificate", "it expired; renew it");
        assert_eq!(
            finding,
            Finding::fail("certificate", "it expired", "renew it")
        );
        assert_eq!(Finding::fail_as_said("x", "it is gone").mend, None);
    }
}
