//! How a command ends, and the reasons if it does not end well.

use kmend_build::RefusalReport;
use kmend_refusal::{Code, Coded, Kind, Refusal};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It did what it was asked.
    Done,
    /// Something failed on the way.
    Failed,
    /// It was asked for something that it will not do.
    Refused,
    /// There was nothing to do.
    Nothing,
}

impl End {
    /// How a command ends that met these codes: a failure outweighs a refusal, a refusal outweighs nothing.
    pub(crate) fn of(codes: impl IntoIterator<Item = Code>) -> End {
        let kinds: Vec<Kind> = codes.into_iter().map(Code::kind).collect();
        match kinds.as_slice() {
            [] => End::Done,
            kinds if kinds.contains(&Kind::Error) => End::Failed,
            kinds if kinds.contains(&Kind::Refusal) => End::Refused,
            _ => End::Nothing,
        }
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        ExitCode::from(match end {
            End::Done => 0,
            End::Failed => 1,
            End::Refused => 2,
            End::Nothing => 3,
        })
    }
}

/// All the reasons why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    reasons: Vec<RefusalReport>,
}

impl Failure {
    pub(crate) fn new(code: Code, subject: impl Into<String>, why: impl Into<String>) -> Failure {
        Failure::refused(vec![Refusal::new(code, subject, why)])
    }

    /// All the refusals of a stage.
    pub(crate) fn refused(refusals: Vec<Refusal>) -> Failure {
        Failure { reasons: refusals.into_iter().map(Into::into).collect() }
    }

    /// A file that cannot be read or written.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Failure {
        Failure::new(Code::Io, path.display().to_string(), error.to_string())
    }

    /// An error of a stage about one thing.
    pub(crate) fn about(subject: impl Into<String>, error: &(impl Coded + Display)) -> Failure {
        Failure::refused(vec![refusal(subject, error)])
    }

    /// Several errors of a stage about one thing.
    pub(crate) fn all(subject: &str, errors: &[impl Coded + Display]) -> Failure {
        Failure::refused(errors.iter().map(|error| refusal(subject, error)).collect())
    }

    /// Errors of a stage, each about a thing of its own.
    pub(crate) fn many<'a, E: Coded + Display + 'a>(
        errors: impl Iterator<Item = (String, &'a E)>,
    ) -> Failure {
        Failure::refused(errors.map(|(subject, error)| refusal(subject, error)).collect())
    }

    /// Adds the reasons of another failure.
    pub(crate) fn and(mut self, other: Failure) -> Failure {
        self.reasons.extend(other.reasons);
        self
    }

    /// Adds what else is to be known, to the last reason.
    pub(crate) fn with_detail(mut self, lines: impl Iterator<Item = String>) -> Failure {
        if let Some(reason) = self.reasons.last_mut() {
            reason.refusal.details.extend(lines);
        }
        self
    }

    pub(crate) fn reasons(&self) -> &[RefusalReport] {
        &self.reasons
    }

    pub(crate) fn end(&self) -> End {
        End::of(self.reasons.iter().map(RefusalReport::code))
    }
}

fn refusal(subject: impl Into<String>, error: &(impl Coded + Display)) -> Refusal {
    let text = error.to_string();
    let mut lines = text.lines().map(str::to_owned);
    // What follows the first line shows it: a compiler's words, a console's tail.
    let why = lines.next().unwrap_or_default().trim_end_matches(':').to_owned();
    let details = lines.collect();
    Refusal::new(error.code(), subject, why).with_details(details)
}

impl<E: Coded + Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::about("", &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outweighs_a_refusal() {
        assert_eq!(End::of([]), End::Done);
        assert_eq!(End::of([Code::NothingChanges]), End::Nothing);
        assert_eq!(End::of([Code::NothingChanges, Code::ChangedData]), End::Refused);
        assert_eq!(End::of([Code::ChangedData, Code::Io, Code::NothingChanges]), End::Failed);
    }

    #[test]
    fn the_lines_after_the_first_are_details() {
        let error = stage::Error("`make` ended with 2:\nfirst\nlast");
        let failure = Failure::from(error);
        let refusal = &failure.reasons[0].refusal;
        assert_eq!((refusal.why.as_str(), refusal.details.len()), ("`make` ended with 2", 2));
    }

    mod stage {
        use kmend_refusal::{Code, Coded};

        pub(super) struct Error(pub(super) &'static str);

        impl std::fmt::Display for Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }

        impl Coded for Error {
            fn code(&self) -> Code {
                Code::CommandFailed
            }
        }
    }
}
