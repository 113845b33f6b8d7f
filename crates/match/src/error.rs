//! Why a unit could not be matched at all.

use kmend_refusal::{Code, Coded};

/// Why a unit could not be matched at all. Differences are no error, see [`crate::Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum MatchError {
    /// Its tables contradict one another.
    #[error("the compiled unit is damaged: {0}")]
    Damaged(String),
    /// No section of its code could be found.
    #[error("none of the unit's functions is in the kernel's image")]
    Absent,
}

impl Coded for MatchError {
    fn code(&self) -> Code {
        match self {
            MatchError::Damaged(_) => Code::ObjectFormat,
            MatchError::Absent => Code::NotInImage,
        }
    }
}
