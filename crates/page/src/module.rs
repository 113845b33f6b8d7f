//! The module's symbols and relocations.

use kmend_build::Report;
use kmend_explain::visible;
use kmend_inspect::{Inspection, LivepatchSymbol, ObjectRelocations, PatchedObject};
use maud::{Markup, html};

/// What the module holds, as it says itself; nothing if there is none.
pub(crate) fn module(report: &Report, module: Option<&Inspection>) -> Markup {
    html! {
        @if let Some(module) = module {
            section aria-labelledby="module" {
                h2 id="module" { "The module" }
                dl {
                    dt { "name" } dd { code { (visible(&module.name)) } }
                    dt { "vermagic" } dd { code { (visible(&module.vermagic)) } }
                    dt { "signature" } dd { @if module.signed { "appended" } @else { "none" } }
                    dt { "switched by" } dd {
                        @if module.engine.is_some() { "kmend's consistency engine" } @else { "the kernel's own livepatch" }
                    }
                    dt { "depends on" } dd {
                        @if module.depends.is_empty() { "nothing" } @else { (visible(&module.depends.join(", "))) }
                    }
                }
                (variables(report))
                (updates(module))
                @for object in &module.objects { (patched(object)) }
                @for relocations in &module.relocations { (resolved(relocations)) }
                (exports(module))
            }
        }
    }
}

fn variables(report: &Report) -> Markup {
    let all =
        || report.units.iter().flat_map(|unit| unit.variables.iter().map(move |name| (&unit.source, name)));
    html! {
        @if all().next().is_some() {
            h3 { "New variables" }
            table.list {
                thead { tr { th scope="col" { "variable" } th scope="col" { "source" } } }
                tbody { @for (source, name) in all() {
                    tr { td { code { (visible(name)) } } td { (visible(source)) } }
                } }
            }
        }
    }
}

fn updates(module: &Inspection) -> Markup {
    html! {
        @if !module.updates.is_empty() {
            h3 { "Variables whose values it exchanges" }
            ul { @for update in &module.updates { li { code { (visible(update)) } } } }
        }
        @if module.stays {
            p { "Once it was enabled it stays in memory: something of it may be in use when it is disabled." }
        }
        @for names in [&module.outlives, &module.ends] {
            @if !names.is_empty() { ul { @for name in names { li { code { (visible(name)) } } } } }
        }
    }
}

fn patched(object: &PatchedObject) -> Markup {
    html! {
        h3 { "Patches " (visible(&object.name)) }
        table.list {
            thead { tr {
                th scope="col" { "function" } th scope="col" { "position" } th scope="col" { "replaced by" }
            } }
            tbody {
                @for function in &object.functions { tr {
                    td { code { (visible(&function.name)) } }
                    td { (position(function.position)) }
                    td { code { (visible(&function.replacement)) } }
                } }
                @for callback in &object.callbacks { tr {
                    td { (callback.when) " callback" } td {} td { code { (visible(&callback.function)) } }
                } }
            }
        }
    }
}

fn resolved(relocations: &ObjectRelocations) -> Markup {
    html! {
        h3 { "Resolved with " (visible(&relocations.object)) ": " (relocations.count) " livepatch relocations" }
        table.list {
            thead { tr { th scope="col" { "symbol" } th scope="col" { "object" } th scope="col" { "position" } } }
            tbody { @for LivepatchSymbol { object, name, position: at } in &relocations.symbols { tr {
                td { code { (visible(name)) } } td { (visible(object)) } td { (position(*at)) }
            } } }
        }
    }
}

/// A position, where the name alone is not enough.
fn position(position: u64) -> String {
    if position == 0 { "the only one".into() } else { format!("number {position} of its name") }
}

fn exports(module: &Inspection) -> Markup {
    html! {
        @if !module.exports.is_empty() {
            h3 { "Exported symbols that it uses" }
            p { @for (number, name) in module.exports.iter().enumerate() {
                @if number > 0 { ", " }
                code { (visible(name)) }
            } }
        }
    }
}
