//! How a build's report looks.

use super::stage_name;
use crate::commands::diff::{line, reasons, words};
use crate::style::{BOLD, CYAN, DIM, GREEN, YELLOW, paint, size};
use kmend_build::{
    Built, Effect, EngineReport, FunctionReport, NoteKind, Recommendation, Report, Stage, Status, Steps,
    UnitReport,
};
use std::fmt::Write;
use std::time::Duration;

/// The changed functions by unit, the notes, the module, and the time of each stage.
pub(crate) fn text(built: &Built) -> String {
    let report = &built.report;
    let mut text = format!("{} {} {}\n", paint(BOLD, "kernel"), report.kernel.release, report.kernel.version);
    for unit in &report.units {
        add_unit(&mut text, unit);
    }
    if let Some(reach) = &report.reach {
        let Steps { considered, preprocessed, compiled } = reach;
        let [considered, preprocessed, compiled] = [considered, preprocessed, compiled].map(Vec::len);
        let counts =
            format!("{considered} units considered, {preprocessed} preprocessed, {compiled} compiled");
        let _ = writeln!(text, "{} {counts}", paint(BOLD, "headers"));
    }
    for note in &report.notes {
        let word = match note.kind {
            NoteKind::Fact => "note",
            NoteKind::Advice => "advice",
        };
        let _ = writeln!(text, "{} {}: {}", paint(YELLOW, word), note.subject, note.text);
    }
    add_symbols(&mut text, report);
    if let (Some(module), Some(path)) = (&report.module, &built.module) {
        let _ = writeln!(text, "{} {} {}", paint(BOLD, "module"), path.display(), size(module.size as u64));
        if let Some(engine) = &module.engine {
            add_engine(&mut text, engine, report.recommended.as_ref());
        }
        if let Some(by) = &module.signed_by {
            let _ = writeln!(text, "{} by {} ({})", paint(BOLD, "signed"), by.subject, by.key);
        }
    }
    let time =
        |(stage, time): &(Stage, Duration)| format!("{} {:.2} s", stage_name(*stage), time.as_secs_f64());
    let times: Vec<String> = built.times.iter().map(time).collect();
    if !times.is_empty() {
        let _ = writeln!(text, "{} {}", paint(BOLD, "time"), times.join(", "));
    }
    text
}

/// That the module is for the consistency engine, and which model suits the patch.
fn add_engine(text: &mut String, engine: &EngineReport, recommended: Option<&Recommendation>) {
    let model = engine.model.as_deref().unwrap_or("the engine's default");
    let redirect = engine.redirect.as_deref().unwrap_or("the engine's default");
    let _ = writeln!(text, "{} model {model}, redirect {redirect}", paint(BOLD, "engine"));
    let Some(recommended) = recommended else { return };
    let word = paint(YELLOW, "advice");
    let reasons = recommended.reasons.join("; ");
    let _ = writeln!(text, "{word} model {}: {reasons}", paint(BOLD, recommended.model));
    for caution in &recommended.cautions {
        let _ = writeln!(text, "{word} {caution}");
    }
}

fn add_unit(text: &mut String, unit: &UnitReport) {
    let match_text = match (unit.functions_matched, unit.functions_elsewhere) {
        (matched, 0) => format!("{matched} functions match the image"),
        (matched, elsewhere) => {
            format!("{matched} functions match the image, {elsewhere} overridden or dropped there")
        }
    };
    let _ = writeln!(text, "{} {}: {}", paint(BOLD, &unit.source), unit.object, paint(DIM, match_text));
    for function in &unit.functions {
        add_function(text, function);
    }
    for variable in &unit.variables {
        line(text, &paint(CYAN, "variable"), variable, "new");
    }
    for update in &unit.updates {
        line(text, &paint(YELLOW, "updated "), &update.variable, &words(update));
    }
    for callback in &unit.callbacks {
        line(text, &paint(CYAN, "callback"), &callback.function, callback.moment.name());
    }
}

fn add_function(text: &mut String, function: &FunctionReport) {
    let status = match function.status {
        Status::Changed => paint(YELLOW, "changed "),
        Status::New => paint(GREEN, "new     "),
    };
    let name = match function.position {
        Some(position) => format!("{} (position {position})", function.name),
        None => function.name.clone(),
    };
    line(text, &status, &name, &reasons(&function.reasons));
}

fn add_symbols(text: &mut String, report: &Report) {
    if report.symbols.is_empty() {
        return;
    }
    let count = report.symbols.len();
    let noun = if count == 1 { "symbol" } else { "symbols" };
    let _ = writeln!(
        text,
        "{} {count} {noun} of the running kernel by livepatch relocation",
        paint(BOLD, "link")
    );
}

/// What each hunk comes to.
pub(crate) fn hunks(report: &Report) -> String {
    let mut text = String::new();
    for hunk in &report.hunks {
        let word = match hunk.effect {
            Effect::Changed | Effect::Data => paint(GREEN, hunk.effect.name()),
            Effect::None => paint(DIM, hunk.effect.name()),
            Effect::Refused | Effect::Unexplained => paint(YELLOW, hunk.effect.name()),
        };
        let names: Vec<&str> = hunk.functions.iter().chain(&hunk.variables).map(String::as_str).collect();
        let _ = write!(text, "{} {}:{} {}: {word}", paint(BOLD, "hunk"), hunk.patch, hunk.line, hunk.file);
        if !names.is_empty() {
            let _ = write!(text, " {}", names.join(", "));
        }
        if let Some(why) = &hunk.why {
            let _ = write!(text, " ({why})");
        }
        text.push('\n');
    }
    text
}
