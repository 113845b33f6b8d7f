//! A livepatch as one HTML page, for the person who must approve it.
//!
//! [`page`] shows what the other stages found and adds nothing: the build's report, the explanation of every
//! function, and what the finished module says of itself. One file: no other resource is asked for, and a policy in the
//! page forbids it. It can be read without a script, on paper, and by a screen reader.
//!
//! ```text
//! lib        the page's frame: policy, header, patches, refusals, notes
//! functions  each function's reasons and its two disassemblies
//! module     the module's symbols and relocations
//! ```
//!
//! Architecture invariant: every text goes through a template that escapes it, and through [`kmend_explain::visible`]:
//! names of patches and strings of objects are of others.

mod functions;
mod module;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kmend_build::{NoteKind, RefusalReport, Report};
use kmend_explain::{Explanation, visible};
use kmend_inspect::Inspection;
use kmend_refusal::Kind;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page. The same values give the same bytes.
pub fn page(report: &Report, explanation: &Explanation, module: Option<&Inspection>) -> String {
    let title = format!("Livepatch {} for {}", visible(&report.name), visible(&report.kernel.release));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "kmend " (report.kmend) };
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#functions" { "To the functions" }
                header {
                    h1 { (title) }
                    (verdict(report))
                    (facts(report))
                }
                main {
                    (patches(report))
                    (hunks(report))
                    (refusals(report))
                    (notes(report))
                    (functions::overview(explanation))
                    (functions::all(explanation))
                    (module::module(report, module))
                }
                footer { p { "Written by kmend " (report.kmend) ". Disassembly in AT&T syntax; " code { "+0x…" }
                    " counts bytes from the entry of the function." } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// Nothing is loaded from anywhere, and no script runs but this crate's.
fn policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    )
}

fn verdict(report: &Report) -> Markup {
    let nothing = report.refusals.iter().all(|refusal| refusal.code().kind() == Kind::Nothing);
    html! {
        @if report.module.is_some() {
            p.verdict.good { "The module was built." }
        } @else if nothing {
            p.verdict { "Nothing changes: there is no module." }
        } @else {
            p.verdict.bad { "Refused: there is no module. What follows is what differs." }
        }
    }
}

fn facts(report: &Report) -> Markup {
    let kernel = &report.kernel;
    html! {
        dl {
            dt { "kernel" } dd { (visible(&kernel.release)) " (" (visible(&kernel.version)) ")" }
            dt { "build id" } dd { code { (kernel.build_id.as_deref().map_or_else(|| "none".into(), visible)) } }
            dt { "compiler" } dd { (visible(&kernel.compiler)) }
            @if let Some(module) = &report.module {
                dt { "module" } dd { code { (visible(&module.file)) } ", " (module.size) " bytes" }
                dt { "BLAKE3 of the module" } dd { code { (module.blake3) } }
                dt { "replaces" } dd {
                    @if module.replace { "all livepatches that are loaded before it" }
                    @else { "nothing: it is added to those that are loaded" }
                }
            }
        }
    }
}

fn patches(report: &Report) -> Markup {
    html! {
        section aria-labelledby="patches" {
            h2 id="patches" { "Patches" }
            table.list {
                thead { tr { th scope="col" { "patch" } th scope="col" { "BLAKE3" } } }
                tbody {
                    @for patch in &report.patches {
                        tr { td { (visible(&patch.name)) } td { code { (patch.blake3) } } }
                    }
                }
            }
        }
    }
}

fn hunks(report: &Report) -> Markup {
    html! {
        @if !report.hunks.is_empty() {
            section aria-labelledby="hunks" {
                h2 id="hunks" { "What each hunk comes to" }
                table.list {
                    thead { tr { th scope="col" { "hunk" } th scope="col" { "file" } th scope="col" { "effect" } th scope="col" { "what" } } }
                    tbody {
                        @for hunk in &report.hunks {
                            tr {
                                td { (visible(&hunk.patch)) ":" (hunk.line) }
                                td { (visible(&hunk.file)) }
                                td { (hunk.effect.name()) }
                                td {
                                    @for name in hunk.functions.iter().chain(&hunk.variables) { code { (visible(name)) } " " }
                                    @if let Some(why) = &hunk.why { (visible(why)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn refusals(report: &Report) -> Markup {
    html! {
        @if !report.refusals.is_empty() {
            section aria-labelledby="refusals" {
                h2 id="refusals" { "Why there is no module" }
                @for refusal in &report.refusals { (refusal_box(refusal)) }
            }
        }
    }
}

fn refusal_box(report: &RefusalReport) -> Markup {
    let refusal = &report.refusal;
    html! {
        div.box {
            p { strong { (refusal.code.to_string()) " " (report.title) } " " (visible(&refusal.subject))
                @if let Some(place) = &refusal.place { " (" (visible(&place.to_string())) ")" } }
            p { (visible(&refusal.why)) }
            @if !refusal.details.is_empty() {
                pre tabindex="0" { @for line in &refusal.details { (visible(line)) "\n" } }
            }
            p { strong { "Way out: " } (report.way_out) }
        }
    }
}

fn notes(report: &Report) -> Markup {
    html! {
        @if !report.notes.is_empty() {
            section aria-labelledby="notes" {
                h2 id="notes" { "Notes" }
                ul { @for note in &report.notes {
                    li {
                        @if note.kind == NoteKind::Advice { span.tag { "advice, not proof" } }
                        strong { (visible(&note.subject)) } ": " (visible(&note.text))
                    }
                } }
            }
        }
    }
}
