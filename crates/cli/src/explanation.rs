//! How an explanation looks on a terminal.

use crate::style::{BOLD, CYAN, DIM, GREEN, RED, YELLOW, paint};
use anstyle::Style;
use kmend_explain::{Explanation, Function, Instruction, Place, Row, Status, visible};
use std::fmt::Write;

/// Each function with its reasons and the first instruction that differs.
pub(crate) fn text(explanation: &Explanation) -> String {
    explanation.functions.iter().map(function_text).collect()
}

fn function_text(function: &Function) -> String {
    let style = if function.status == Status::New { GREEN } else { YELLOW };
    // The two objects of `kmend diff` are of no unit.
    let place = match function.unit.as_str() {
        "" => String::new(),
        unit => format!(" ({} of {})", visible(unit), visible(&function.object)),
    };
    let mut text = format!(
        "\n{} {}{}\n",
        paint(style, function.status.word()),
        paint(BOLD, visible(&function.name)),
        paint(DIM, place)
    );
    for cause in &function.causes {
        let _ = writeln!(text, "  {} {}", paint(BOLD, "why:"), cause.text);
        for line in &cause.details {
            let _ = writeln!(text, "      {line}");
        }
    }
    let _ = writeln!(text, "  {}", paint(DIM, counts(function)));
    add_rows(&mut text, &function.first);
    if !function.first_touched.is_empty() {
        let _ = writeln!(text, "  {}", paint(DIM, "the first at a line that the patch touches:"));
        add_rows(&mut text, &function.first_touched);
    }
    text
}

/// How much of it differs.
fn counts(function: &Function) -> String {
    let sum = |count: fn(&kmend_explain::Piece) -> usize| function.pieces.iter().map(count).sum::<usize>();
    let (before, after) = (sum(|piece| piece.original), sum(|piece| piece.patched));
    match (before, sum(|piece| piece.differing)) {
        (0, _) => format!("{after} instructions"),
        (_, 0) => format!("all its {after} instructions are the same"),
        (_, differing) => {
            let verb = if differing == 1 { "line differs" } else { "lines differ" };
            format!("{differing} {verb}, {before} instructions before and {after} after; the first:")
        }
    }
}

/// One side's mark and colour, and the source line that was printed last.
struct Margin {
    mark: char,
    style: Style,
}

const SAME: Margin = Margin { mark: ' ', style: Style::new() };
const OLD: Margin = Margin { mark: '-', style: RED };
const NEW: Margin = Margin { mark: '+', style: GREEN };

/// Rows as a unified diff: of differing rows first all of the original, then all of the patched side.
fn add_rows(text: &mut String, rows: &[Row]) {
    let (mut old, mut new) = (None, None);
    for group in rows.chunk_by(|one, other| one.differs == other.differs) {
        let (originals, patched) = (
            group.iter().filter_map(|row| row.original.as_ref()),
            group.iter().filter_map(|row| row.patched.as_ref()),
        );
        if group.first().is_some_and(|row| row.differs) {
            originals.for_each(|instruction| add_instruction(text, &OLD, instruction, &mut old));
            patched.for_each(|instruction| add_instruction(text, &NEW, instruction, &mut new));
        } else {
            patched.for_each(|instruction| add_instruction(text, &SAME, instruction, &mut new));
            old = group.last().and_then(|row| row.original.as_ref()?.place.as_ref());
        }
    }
}

fn add_instruction<'a>(
    text: &mut String,
    margin: &Margin,
    instruction: &'a Instruction,
    last: &mut Option<&'a Place>,
) {
    let Margin { mark, style } = margin;
    if let Some(place) = instruction.place.as_ref().filter(|place| *last != Some(*place)) {
        let which = if place.text.len() > 1 { " (one of these)" } else { "" };
        let at = format!("{}:{}{which}", place.file, place.line);
        let _ = writeln!(text, "  {} {}", paint(*style, mark), paint(CYAN, at));
        for line in &place.text {
            let _ = writeln!(text, "  {}   {}", paint(*style, mark), line.replace('\t', "    "));
        }
        *last = Some(place);
    }
    let line = format!("{mark} {:>9}  {}", format!("+{:#x}", instruction.offset), instruction.text);
    let _ = writeln!(text, "  {}", paint(*style, line));
}
