//! The explanation of the units' functions, for those who ask.

use crate::error::BuildError;
use crate::hunks::Inlined;
use crate::units::{self, Compared, UnitResult};
use kmend_compile::{CompiledUnit, Outcome};
use kmend_diff::FunctionChange;
use kmend_explain::{Explainer, Explanation, NumberedLine, Sources, Unit};
use std::path::Path;

/// Explains what the units add to the module; of refused units, what differs. `tree` holds the original sources.
pub(crate) fn explain(
    outcome: &Outcome,
    results: &[Compared],
    tree: &Path,
    inlined: &Inlined,
) -> Result<Explanation, BuildError> {
    let original = |file: &str| Some(NumberedLine::of_file(&std::fs::read(tree.join(file)).ok()?));
    let patched = |file: &str| match outcome.lines.get(file) {
        Some(lines) => Some(lines.iter().map(numbered).collect()),
        None => original(file),
    };
    let sources = Sources { original: &original, patched: &patched };
    let mut explainer = Explainer::default();
    for (unit, result) in outcome.units.iter().zip(results) {
        add(&mut explainer, unit, &result.result, outcome, (sources, inlined))?;
    }
    Ok(explainer.finish())
}

fn add(
    explainer: &mut Explainer,
    unit: &CompiledUnit,
    result: &UnitResult,
    outcome: &Outcome,
    (sources, inlined): (Sources<'_>, &Inlined),
) -> Result<(), BuildError> {
    let source = &unit.unit.source;
    if unit.new_file {
        return Ok(());
    }
    let patched = &unit.patched;
    if result.as_ref().is_ok_and(|proven| proven.delta.is_empty()) {
        return Ok(());
    }
    let (original, patched) = (units::parse(source, &unit.original)?, units::parse(source, patched)?);
    let functions = match result {
        Ok(proven) => proven.delta.functions.clone(),
        Err(_) => kmend_diff::changed(&original, &patched),
    };
    let with_reasons = |function: FunctionChange| {
        let reasons = units::reasons(source, &function, &outcome.touched, inlined);
        FunctionChange { reasons, ..function }
    };
    let functions: Vec<FunctionChange> = functions.into_iter().map(with_reasons).collect();
    let object = units::owner_name(unit);
    let (original, patched) = (&original, &patched);
    explainer.add(&Unit { source, object: &object, original, patched, functions: &functions, sources });
    Ok(())
}

fn numbered((number, bytes): &(u32, Vec<u8>)) -> NumberedLine {
    NumberedLine { number: *number, text: String::from_utf8_lossy(bytes).into_owned() }
}
