//! Variables that several changed functions write in another way than before.
//!
//! If one function adds 1 to a counter and another takes 1 off, and a patch makes it 2 in both, a task that added 1 in the
//! old code may take off 2 in the new.

use crate::Changed;
use crate::code::{Code, Target, Write};
use kmend_refusal::{Advice, Sign};
use std::collections::{BTreeMap, BTreeSet};

/// How code writes each thing.
fn writes<'a>(code: &'a Code<'_>) -> BTreeMap<&'a Target, BTreeSet<&'a Write>> {
    let mut writes: BTreeMap<&Target, BTreeSet<&Write>> = BTreeMap::new();
    for write in &code.writes {
        writes.entry(&write.target).or_default().insert(write);
    }
    writes
}

pub(crate) fn advise(changed: &[Changed<'_>]) -> Vec<Advice> {
    let mut writers: BTreeMap<Target, BTreeSet<&str>> = BTreeMap::new();
    for function in changed {
        let (before, after) = (writes(&function.before), writes(&function.after));
        // A thing that only one side writes is an added or removed use, which is what most fixes are.
        for (target, old) in before {
            if after.get(target).is_some_and(|new| *new != old) {
                writers.entry(target.clone()).or_default().insert(&function.name);
            }
        }
    }
    let several = writers.into_iter().filter(|(_, functions)| functions.len() > 1);
    several.map(|(target, functions)| advice(&target, &functions)).collect()
}

fn advice(target: &Target, functions: &BTreeSet<&str>) -> Advice {
    let functions: Vec<&str> = functions.iter().copied().collect();
    let subject = match target {
        Target::Variable(name) => name.clone(),
        Target::Field(offset) => format!("field at {offset:#x}"),
    };
    let text = format!(
        "{} write it in another way than before: a task may be in the old code of one and then in the new code of another, so the \
         two ways must fit together",
        functions.join(", ")
    );
    Advice { sign: Sign::Data, subject, text }
}
