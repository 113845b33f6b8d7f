//! Each function's reasons and its two disassemblies.

use kmend_explain::{Explanation, Function, Instruction, Piece, Place, Row, Status, Stretch, visible};
use maud::{Markup, html};

/// With more functions than this each is folded: first the list is read.
const MANY: usize = 20;

/// The table of all functions, which leads to each.
pub(crate) fn overview(explanation: &Explanation) -> Markup {
    let functions = &explanation.functions;
    html! {
        section aria-labelledby="overview" {
            h2 id="overview" { "Functions" }
            @if functions.is_empty() { p { "No function is known to differ." } }
            @else {
                p { (functions.len()) @if functions.len() == 1 { " function." } @else { " functions." } }
                div.tools #tools hidden {
                    label { "Filter " input #filter type="search" autocomplete="off"; }
                    button #unfold type="button" { "Unfold all" }
                    button #fold type="button" { "Fold all" }
                    span #count.faint role="status" {}
                }
                nav aria-label="Functions" {
                    table.list #functions tabindex="-1" {
                        thead { tr {
                            th scope="col" { "function" } th scope="col" { "is" } th scope="col" { "source" }
                            th scope="col" { "object" } th.number scope="col" { "lines that differ" }
                        } }
                        tbody { @for (number, function) in functions.iter().enumerate() {
                            tr data-of=(id(number)) {
                                td { a.mono href={ "#" (id(number)) } { (visible(&function.name)) } }
                                td { (function.status.word()) }
                                td { (visible(&function.unit)) }
                                td { (visible(&function.object)) }
                                td.number { (differing(function)) }
                            }
                        } }
                    }
                }
            }
        }
    }
}

/// Every function in turn.
pub(crate) fn all(explanation: &Explanation) -> Markup {
    let open = explanation.functions.len() <= MANY;
    html! {
        @if !explanation.functions.is_empty() {
            section aria-labelledby="code" {
                h2 id="code" { "Before and after" }
                @for (number, function) in explanation.functions.iter().enumerate() {
                    article id=(id(number)) aria-labelledby={ (id(number)) "-name" } {
                        details open[open] {
                            summary {
                                h3.mono id={ (id(number)) "-name" } { (visible(&function.name)) }
                                " " span.faint { (function.status.word()) " in " (visible(&function.unit)) }
                            }
                            div.body { (body(function)) }
                        }
                    }
                }
            }
        }
    }
}

fn id(number: usize) -> String {
    format!("f{number}")
}

fn differing(function: &Function) -> usize {
    function.pieces.iter().map(|piece| piece.differing).sum()
}

fn body(function: &Function) -> Markup {
    html! {
        p { span.tag { (function.status.word()) } (explain_status(function)) }
        ul.why { @for cause in &function.causes {
            li {
                (visible(&cause.text))
                @if !cause.details.is_empty() {
                    ul { @for line in &cause.details { li { code { (visible(line)) } } } }
                }
            }
        } }
        @if differing(function) == 0 { p { "All its instructions are the same." } }
        @for piece in &function.pieces { (piece_table(function, piece)) }
    }
}

fn explain_status(function: &Function) -> String {
    match (function.status, &function.original) {
        (Status::Changed, Some(original)) if *original != function.name => {
            format!("Replaces {} of {}.", visible(original), visible(&function.object))
        }
        (Status::Changed, _) => format!("Replaces the function of {}.", visible(&function.object)),
        (Status::Carried, _) => "Called by functions that are replaced.".into(),
        (Status::New, _) => "Added.".into(),
    }
}

fn piece_table(function: &Function, piece: &Piece) -> Markup {
    let both = piece.original > 0;
    html! {
        @if piece.name != function.name { h4.mono { (visible(&piece.name)) } }
        p.faint {
            @if both { (piece.original) " instructions before, " (piece.patched) " after; " (piece.differing)
                @if piece.differing == 1 { " line differs." } @else { " lines differ." } }
            @else { (piece.patched) " instructions." }
        }
        @for stretch in &piece.stretches {
            @match stretch {
                Stretch::Differs { count, rows } => {
                    (table(&piece.name, rows, both))
                    @if rows.len() < *count {
                        p.same { (count - rows.len()) " more lines are left out here: the page has no room for them." }
                    }
                }
                Stretch::Same { count, rows } if rows.is_empty() => {
                    p.same { (same(*count)) ", left out here: the page has no room for them." }
                }
                Stretch::Same { count, rows } => {
                    details.same { summary { (same(*count)) } (table(&piece.name, rows, both)) }
                }
            }
        }
    }
}

fn same(count: usize) -> String {
    format!("{count} unchanged instruction{}", if count == 1 { "" } else { "s" })
}

fn table(name: &str, rows: &[Row], both: bool) -> Markup {
    let (mut old, mut new) = (None, None);
    html! {
        table.code {
            caption.unseen { (visible(name)) }
            colgroup { @if both { col.at; col; } col.at; col; }
            thead { tr {
                @if both { th scope="col" { "at" } th scope="col" { "original" } }
                th scope="col" { "at" } th scope="col" { "patched" }
            } }
            tbody { @for row in rows {
                @let places = [next(&mut old, row.original.as_ref()), next(&mut new, row.patched.as_ref())];
                @if places.iter().any(Option::is_some) { (source_row(row, places, both)) }
                (code_row(row, both))
            } }
        }
    }
}

/// The instruction's place if it is another than that of the one before.
fn next<'a>(last: &mut Option<&'a Place>, instruction: Option<&'a Instruction>) -> Option<&'a Place> {
    let place = instruction?.place.as_ref()?;
    let is_other = *last != Some(place);
    *last = Some(place);
    is_other.then_some(place)
}

fn source_row(row: &Row, places: [Option<&Place>; 2], both: bool) -> Markup {
    let sides = if both { &places[..] } else { &places[1..] };
    let same = !row.differs && places[0] == places[1];
    html! {
        tr.src.same[same] {
            @for place in sides {
                td.none[place.is_none()].touched[place.is_some_and(|place| place.touched)] colspan="2" {
                    @if let Some(place) = place {
                        (visible(&place.file)) ":" (place.line)
                        @if place.text.len() > 1 { " (one of these)" }
                        @if place.touched { " (touched by the patch)" }
                        @for line in &place.text { "\n" (visible(line)) }
                    }
                }
            }
        }
    }
}

fn code_row(row: &Row, both: bool) -> Markup {
    let sides = [(&row.original, "old", "−"), (&row.patched, "new", "+")];
    let shown = if both { &sides[..] } else { &sides[1..] };
    html! {
        tr.same[!row.differs] {
            @for (side, class, mark) in shown {
                @let colour = if row.differs && both && side.is_some() { class } else { "" };
                @match side {
                    Some(instruction) => {
                        td class={ "at " (colour) } {
                            @if row.differs && both { (mark) " " }
                            (format!("+{:#x}", instruction.offset))
                        }
                        td class=[Some(colour).filter(|colour| !colour.is_empty())] { (visible(&instruction.text)) }
                    }
                    None => { td.none {} td.none {} }
                }
            }
        }
    }
}
