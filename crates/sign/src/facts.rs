//! Facts of a manifest beside those of the module.

use crate::certificate::plain;
use crate::error::SignError;
use serde::Serialize;
use std::path::Path;

/// Whether a manifest is right in one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equality {
    /// The module, or the file that was given, says the same.
    Equal,
    /// It says something else.
    Differs,
    /// Only the manifest says it: nothing was there to compare it with.
    Stated,
}

/// One thing that a manifest states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub fact: String,
    /// Whether it is so.
    pub equality: Equality,
    /// What the manifest states.
    pub stated: String,
    /// What is so, if that can be known.
    pub found: Option<String>,
}

impl Fact {
    /// A fact that the module knows as well.
    pub(crate) fn compared(fact: &str, stated: &str, found: &str) -> Fact {
        let equality = if stated == found { Equality::Equal } else { Equality::Differs };
        let (stated, found) = (plain(stated), Some(plain(found)));
        Fact { fact: fact.into(), equality, stated, found }
    }

    /// A fact that only the manifest knows.
    pub(crate) fn stated(fact: &str, stated: &str) -> Fact {
        let (equality, stated) = (Equality::Stated, plain(stated));
        Fact { fact: fact.into(), equality, stated, found: None }
    }
}

/// An error if the manifest is wrong in anything.
pub(crate) fn require_equal(manifest: &Path, facts: &[Fact]) -> Result<(), SignError> {
    let differs = facts.iter().filter(|fact| fact.equality == Equality::Differs);
    let facts: Vec<String> = differs.map(|fact| fact.fact.clone()).collect();
    if facts.is_empty() { Ok(()) } else { Err(SignError::Differs { path: manifest.into(), facts }) }
}
