//! The patch table: the C file that tells the livepatch core which function replaces which.

use crate::merge::Merged;
use crate::plan::VMLINUX;
use crate::{LinkInput, Linked, Location, Mends, PatchedFunction, callbacks, engine, names, pins, updates};
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The functions to patch, by object and name.
pub(crate) fn patched_functions(
    input: &LinkInput<'_>,
    merged: &Merged,
    refusals: &mut Vec<Refusal>,
) -> Vec<PatchedFunction> {
    let mut functions = Vec::new();
    for (index, unit) in input.units.iter().enumerate() {
        for change in &unit.delta.functions {
            let Some(original) = &change.original else { continue };
            let target = match &change.home {
                Some(home) => unit.matched.locate_in(home, original),
                None => unit.matched.locate(original),
            };
            let Some(target) = target else {
                let why = format!("no function of {} matches the compiled original", unit.owner);
                refusals.push(Refusal::new(Code::NotInImage, original, why).at(unit.source, None));
                continue;
            };
            if let Some(refusal) = check(&target) {
                refusals.push(refusal.at(unit.source, None));
                continue;
            }
            let symbol = merged.placed[index].get(change.symbol.index()).copied().flatten();
            let Some(symbol) = symbol.and_then(|id| merged.object.symbols.get(id.index())) else {
                let why = "the extract lacks the function that it was made for";
                refusals.push(Refusal::new(Code::LinkFailed, original, why).at(unit.source, None));
                continue;
            };
            functions.push(PatchedFunction { target, replacement: symbol.name.clone() });
        }
    }
    functions.sort_by(|a, b| (&a.target, &a.replacement).cmp(&(&b.target, &b.replacement)));
    for pair in functions.windows(2) {
        if pair[0].target == pair[1].target {
            let why = "two changed functions claim one place in the image";
            refusals.push(Refusal::new(Code::LinkFailed, &pair[0].target.name, why));
        }
    }
    functions
}

/// `klp_init_object` and `klp_init_func` refuse longer names (kernel/livepatch/core.c).
fn check(target: &Location) -> Option<Refusal> {
    let too_long = target.object.len() > names::LONGEST_OBJECT || target.name.len() > names::LONGEST_SYMBOL;
    too_long.then(|| {
        let why = format!("the kernel cannot patch a function of this name in {}", target.object);
        Refusal::new(Code::NameTooLong, &target.name, why)
    })
}

/// The symbol by which the table means the replacement of this number until the finish.
pub(crate) fn alias(number: usize) -> String {
    format!("kmend_new_{number}")
}

/// The number in an alias.
fn alias_number(name: &str) -> Option<usize> {
    name.strip_prefix("kmend_new_")?.parse().ok()
}

/// The symbol by which the table means the list of an object's late relocations until the finish.
pub(crate) fn places_alias(object: usize) -> String {
    format!("kmend_places_{object}")
}

/// Whether the finish has to put something of the module in the place of this symbol.
pub(crate) fn is_alias(name: &str) -> bool {
    let number = alias_number(name).or_else(|| callbacks::alias_number(name));
    number.or_else(|| updates::alias_number(name)).is_some()
}

/// The symbol in the merged object that one of the table's aliases stands for.
pub(crate) fn meaning<'a>(linked: &'a Linked, name: &str) -> Option<&'a str> {
    if let Some(number) = alias_number(name) {
        return linked.functions.get(number).map(|function| function.replacement.as_str());
    }
    if let Some(number) = updates::alias_number(name) {
        return linked.words.get(number).map(|words| words.table.as_str());
    }
    let number = callbacks::alias_number(name)?;
    linked.callbacks.get(number).map(|callback| callback.function.as_str())
}

/// The objects of the table in their order, each with its functions.
pub(crate) fn objects(linked: &Linked) -> BTreeMap<&str, Vec<(usize, &PatchedFunction)>> {
    let mut objects: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (number, function) in linked.functions.iter().enumerate() {
        objects.entry(&function.target.object).or_default().push((number, function));
    }
    let called_back = linked.callbacks.iter().map(|callback| &callback.object);
    let written = linked.words.iter().map(|words| &words.object);
    for object in called_back.chain(written).chain(linked.pins.iter().map(|pin| &pin.object)) {
        objects.entry(object).or_default();
    }
    objects
}

/// The C file. The aliases are weak, so that modpost lets them pass undefined.
pub(crate) fn source(linked: &Linked) -> String {
    let mut text = String::from(
        "// SPDX-License-Identifier: GPL-2.0-only\n#define pr_fmt(fmt) KBUILD_MODNAME \": \" fmt\n#include <linux/module.h>\n#include <linux/livepatch.h>\n\n",
    );
    for number in 0..linked.functions.len() {
        let _ = writeln!(text, "extern void {}(void) __attribute__((weak));", alias(number));
    }
    text.push_str(&callbacks::declarations(linked));
    if pins::are_needed(&linked.pins, &linked.words) {
        let _ = write!(text, "\n{}\n", pins::CODE);
    }
    text.push_str(&updates::declarations(&linked.words));
    if let Some(placeholders) = &linked.clearing {
        text.push_str(&clearing(placeholders));
    }
    if let Some(engine) = &linked.engine {
        text.push_str(&engine::declarations(linked, &engine.header.0));
        text.push_str(engine::conversion(linked));
    }
    let of_kind = if linked.engine.is_some() { "kmend" } else { "klp" };
    let mut entries = String::new();
    for (group, (object, functions)) in objects(linked).into_iter().enumerate() {
        let _ = writeln!(text, "\nstatic struct {of_kind}_func kmend_functions_{group}[] = {{");
        for (number, function) in functions {
            text.push_str(&function_entry(linked, number, function));
        }
        text.push_str("\t{ }\n};\n");
        entries.push_str(&object_entry(&mut text, linked, group, object));
    }
    let _ = write!(text, "\nstatic struct {of_kind}_object kmend_objects[] = {{\n{entries}\t{{ }}\n}};\n");
    text.push_str(&frame(linked));
    if let Some(engine) = &linked.engine {
        text.push_str(&engine::descriptions(engine));
    }
    add_mends(&mut text, &linked.mends);
    text.push_str(&callbacks::descriptions(linked));
    text.push_str(&updates::descriptions(&linked.words));
    text.push_str(&pins::descriptions(&linked.pins, &linked.words));
    text
}

/// One element of an array of functions.
fn function_entry(linked: &Linked, number: usize, function: &PatchedFunction) -> String {
    if linked.engine.is_some() {
        return engine::function_entry(number, function);
    }
    let (name, position) = (literal(&function.target.name), function.target.sympos());
    let new = alias(number);
    format!("\t{{ .old_name = {name}, .new_func = {new}, .old_sympos = {position} }},\n")
}

/// One element of the array of objects; what it refers to is added to `text`.
fn object_entry(text: &mut String, linked: &Linked, group: usize, object: &str) -> String {
    let name = if object == VMLINUX { "NULL".to_owned() } else { literal(object) };
    let places = places_alias(group);
    let clear = (object != VMLINUX && linked.clearing.is_some()).then(|| format!("kmend_clear({places});"));
    if clear.is_some() {
        let _ = writeln!(text, "\nextern const struct kmend_place {places}[] __attribute__((weak));");
    }
    let callbacks = callbacks::of_object(text, linked, group, object, clear.as_deref());
    format!("\t{{ .name = {name}, .funcs = kmend_functions_{group}{callbacks} }},\n")
}

/// The function that clears the places of late relocations, see `clear`.
fn clearing([poke, sync, mutex]: &[String; 3]) -> String {
    let [poke, sync, mutex] = [literal(poke), literal(sync), literal(mutex)];
    format!(
        "\nstruct kmend_place {{\n\tvoid *address;\n\tunsigned long size;\n}};\n\
         void *kmend_text_poke(void *address, const void *bytes, size_t size) __asm__({poke});\n\
         void kmend_text_poke_sync(void) __asm__({sync});\n\
         extern struct mutex kmend_text_mutex __asm__({mutex});\n\n\
         static void kmend_clear(const struct kmend_place *place)\n{{\n\
         \tstatic const u64 zero;\n\n\
         \tmutex_lock(&kmend_text_mutex);\n\
         \tfor (; place->address; place++)\n\
         \t\tkmend_text_poke(place->address, &zero, place->size);\n\
         \tkmend_text_poke_sync();\n\
         \tmutex_unlock(&kmend_text_mutex);\n}}\n"
    )
}

fn frame(linked: &Linked) -> String {
    let stem = literal(&linked.stem);
    let (version, build_id) = (literal(env!("CARGO_PKG_VERSION")), literal(&linked.build_id));
    let patch = linked.engine.as_ref().map_or_else(|| patch(linked), |engine| engine::patch(linked, engine));
    format!(
        "{patch}\nmodule_init(kmend_init);\nmodule_exit(kmend_exit);\n\
         MODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION({stem});\nMODULE_INFO(livepatch, \"Y\");\n\
         MODULE_INFO(kmend_version, {version});\nMODULE_INFO(kmend_build_id, {build_id});\n",
    )
}

/// The structure that the kernel's livepatch is given, and how.
fn patch(linked: &Linked) -> String {
    format!(
        "\nstatic struct klp_patch kmend_patch = {{\n\
         \t.mod = THIS_MODULE,\n\t.objs = kmend_objects,\n\t.replace = {replace},\n}};\n\n\
         static int __init kmend_init(void)\n{{\n\treturn klp_enable_patch(&kmend_patch);\n}}\n\n\
         static void __exit kmend_exit(void)\n{{\n}}\n",
        replace = linked.replace,
    )
}

/// What the module mends: `.modinfo` for its file, and read-only parameters, which sysfs shows of a loaded module (it shows
/// nothing of `.modinfo` but `version` and `srcversion`).
fn add_mends(text: &mut String, mends: &Mends) {
    for (name, values, separator) in [("fixes", &mends.fixes, ","), ("subject", &mends.subjects, "; ")] {
        if values.is_empty() {
            continue;
        }
        for value in values {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "MODULE_INFO(kmend_{name}, {});", literal(value));
        }
        let all = literal(&values.join(separator));
        let _ = write!(
            text,
            "static char *kmend_{name} = {all};\nmodule_param_named({name}, kmend_{name}, charp, 0444);\n"
        );
    }
}

/// A C string literal. Symbol names are printable; anything else is written in octal.
pub(crate) fn literal(text: &str) -> String {
    let mut quoted = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "\\{byte:03o}");
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
