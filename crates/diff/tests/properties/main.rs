//! What holds for every object: the order and the numbers in it mean nothing, and whatever else changes is seen.

mod damage;
mod fixture;
mod rearrange;

use fixture::{CHANGED, ORIGINAL, PATCHED};
use kmend_diff::{Delta, Fentry};
use kmend_object::Object;
use kmend_refusal::Refusal;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn compare(original: &Object, patched: &Object) -> Result<Delta, Vec<Refusal>> {
    kmend_diff::compare(original, patched, Fentry::Required)
}

/// A failure prints the smallest input that fails; a test leaves no files in the source.
pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Any order of `count` things.
fn order(count: usize) -> impl Strategy<Value = Vec<usize>> {
    Just((0..count).collect::<Vec<_>>()).prop_shuffle()
}

/// Nothing changes between the unit and another form of it, whichever is the original; and between the other form and the
/// patched unit, the patch's functions and nothing else.
fn means_nothing(other: &Object) -> Result<(), TestCaseError> {
    for (one, two) in [(&*ORIGINAL, other), (other, &*ORIGINAL)] {
        let delta = compare(one, two);
        prop_assert!(delta.as_ref().is_ok_and(Delta::is_empty), "{}", told(&delta));
    }
    is_the_patch(&compare(other, &PATCHED))
}

/// The patch's functions and nothing else.
fn is_the_patch(delta: &Result<Delta, Vec<Refusal>>) -> Result<(), TestCaseError> {
    let Ok(delta) = delta else { return Err(TestCaseError::fail(told(delta))) };
    let names: BTreeSet<String> =
        delta.functions.iter().map(|function| kmend_diff::source_function(&function.name)).collect();
    prop_assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), CHANGED);
    let kept_apart = delta.functions.iter().all(|function| function.original.is_some());
    prop_assert!(kept_apart && delta.variables.is_empty(), "{:?} {:?}", delta.functions, delta.variables);
    Ok(())
}

fn told(delta: &Result<Delta, Vec<Refusal>>) -> String {
    match delta {
        Ok(delta) => format!("{:?}", delta.functions),
        Err(refusals) => refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; "),
    }
}

#[test]
fn the_unit_is_what_the_properties_need() {
    let has = |name: &str| ORIGINAL.symbols.iter().any(|symbol| symbol.name.starts_with(name));
    for name in
        ["clone3.constprop.", "clone4.constprop.", "cold.cold", "count.", "state.", ".LC", "__func__."]
    {
        assert!(has(name), "{name}");
    }
    let strings = ORIGINAL.sections.iter().filter(|section| section.is_strings());
    let widths: BTreeSet<(u64, u64)> = strings.map(|section| (section.entsize, section.align)).collect();
    assert!(widths.len() >= 3, "{widths:?}");
    is_the_patch(&compare(&ORIGINAL, &PATCHED)).unwrap();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_order_of_sections(order in order(ORIGINAL.sections.len())) {
        means_nothing(&rearrange::sections(&ORIGINAL, &order))?;
    }

    #[test]
    fn the_order_of_symbols(order in order(ORIGINAL.symbols.len() - 1)) {
        means_nothing(&rearrange::symbols(&ORIGINAL, &order))?;
    }

    #[test]
    fn the_numbers_that_the_compiler_gives(more in 0..5000_u64) {
        means_nothing(&rearrange::numbers(&ORIGINAL, more))?;
    }

    #[test]
    fn the_sections_that_strings_lie_in(
        places in prop::collection::vec(0..4_usize, 1..40),
        order in order(64),
    ) {
        means_nothing(&rearrange::strings(&ORIGINAL, &places, &order))?;
    }

    #[test]
    fn all_of_these_at_once(
        sections in order(PATCHED.sections.len()),
        symbols in order(PATCHED.symbols.len() - 1),
        more in 0..5000_u64,
        places in prop::collection::vec(0..4_usize, 1..40),
    ) {
        let other = rearrange::sections(&PATCHED, &sections);
        let other = rearrange::numbers(&rearrange::symbols(&other, &symbols), more);
        is_the_patch(&compare(&ORIGINAL, &rearrange::strings(&other, &places, &[])))?;
    }
}
