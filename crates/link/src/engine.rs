//! A module for kmend's consistency engine instead of the kernel's livepatch.
//!
//! All that is different is the patch table: it fills in the structures of `engine/kmend_engine.h`, and the addresses of
//! the living functions are livepatch relocations in it. So the functions, their relocations and the callbacks are what they are in
//! a livepatch; callbacks are still given a `struct klp_object`, one that the table makes from the engine's. What the kernel does
//! for a livepatch the engine does itself (engine/objects.c): among it, clearing the places of a module that goes.

use crate::callbacks::ObjectCallback;
use crate::plan::Resolution;
use crate::{Linked, PatchedFunction, PlannedSymbol, table};
use kmend_diff::Moment;
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The engine's name as a module, which the patch depends on.
pub const ENGINE: &str = "kmend_engine";

/// The way to redirect callers that a patch asks for by a field of its own; the others need none.
pub const JUMP: &str = "jump";

/// What a module must know of the engine that it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForEngine {
    /// An id of what patches and the engine must agree on.
    pub interface: String,
    /// The header that patches include: its file name and its text.
    pub header: (String, String),
    /// The `Module.symvers` of the engine for this kernel.
    pub symvers: String,
    /// The consistency model to begin with; the engine's default if `None`.
    pub model: Option<String>,
    /// How callers are redirected to begin with; the engine's default if `None`.
    pub redirect: Option<String>,
    /// Functions that ftrace does not know. If there are any, the redirect has to be a jump.
    pub untraced: Vec<String>,
    /// The only models that switch these; not used if there are none.
    pub stopping: Vec<String>,
}

/// The symbol by which the table means the living function of this number until the finish.
fn alias(number: usize) -> String {
    format!("kmend_living_{number}")
}

/// The living functions, as symbols to resolve.
pub(crate) fn living(functions: &[PatchedFunction]) -> impl Iterator<Item = PlannedSymbol> {
    let symbol = |(number, function): (usize, &PatchedFunction)| PlannedSymbol {
        placeholder: alias(number),
        name: function.target.name.clone(),
        resolution: Resolution::Livepatch {
            target: function.target.clone(),
            applied_with: function.target.object.clone(),
        },
        ends: false,
    };
    functions.iter().enumerate().map(symbol)
}

/// Whether a module may need these to be loaded first: a patch for the engine needs that and nothing else.
pub(crate) fn allows(linked: &Linked, depends: &str) -> bool {
    linked.engine.is_some() && depends == ENGINE
}

/// What the table declares beside what every table does.
pub(crate) fn declarations(linked: &Linked, header: &str) -> String {
    let mut text = format!("#include {}\n\n", table::literal(header));
    for number in 0..linked.functions.len() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "extern void {}(void);", alias(number));
    }
    text
}

/// What the objects' callbacks need; empty if there are none.
pub(crate) fn conversion(linked: &Linked) -> &'static str {
    if linked.callbacks.is_empty() && linked.words.is_empty() && linked.pins.is_empty() {
        return "";
    }
    "\n/* Callbacks are written for the kernel's livepatch. */\n\
     static struct klp_object *kmend_as_livepatch(struct klp_object *to, const struct kmend_object *from,\n\
     \t\t\t\t\t     bool patched)\n{\n\
     \tto->name = from->name;\n\tto->mod = from->mod;\n\tto->patched = patched;\n\treturn to;\n}\n"
}

/// One function of the table.
pub(crate) fn function_entry(number: usize, function: &PatchedFunction) -> String {
    let (name, living, new) = (table::literal(&function.target.name), alias(number), table::alias(number));
    format!("\t{{ .name = {name}, .old_func = {living}, .new_func = {new} }},\n")
}

/// The beginning of an object's callback: its parameter, and what makes an object of the kernel's of it.
pub(crate) fn callback_head(group: usize, moment: Moment) -> (String, String) {
    let patched = matches!(moment, Moment::PostPatch | Moment::PreUnpatch);
    let parameter = "struct kmend_object *from".to_owned();
    let object = format!(
        "\tstruct klp_object *object __maybe_unused =\n\
         \t\tkmend_as_livepatch(&kmend_livepatch_{group}, from, {patched});\n"
    );
    (parameter, object)
}

/// What an object's callbacks are given.
pub(crate) fn livepatch_object(group: usize) -> String {
    format!("\nstatic struct klp_object kmend_livepatch_{group};\n")
}

/// The structure that is registered, and how.
pub(crate) fn patch(linked: &Linked, engine: &ForEngine) -> String {
    let mut wishes = String::new();
    if let Some(model) = &engine.model {
        let _ = writeln!(wishes, "\t.wanted_model = {},", table::literal(model));
    }
    if engine.redirect.as_deref() == Some(JUMP) {
        wishes.push_str("\t.jump = true,\n");
    }
    format!(
        "\nstatic struct kmend_patch kmend_patch = {{\n\
         \t.mod = THIS_MODULE,\n\t.objects = kmend_objects,\n\t.replace = {replace},\n{wishes}}};\n\n\
         static int __init kmend_init(void)\n{{\n\treturn kmend_register(&kmend_patch);\n}}\n\n\
         static void __exit kmend_exit(void)\n{{\n\tkmend_unregister(&kmend_patch);\n}}\n",
        replace = linked.replace,
    )
}

/// Tells of the engine in `.modinfo`, where `kmend load` and `kmend inspect` read it.
pub(crate) fn descriptions(engine: &ForEngine) -> String {
    let once = [
        ("engine", Some(&engine.interface)),
        ("model", engine.model.as_ref()),
        ("redirect", engine.redirect.as_ref()),
    ];
    let once = once.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let untraced = engine.untraced.iter().map(|name| ("untraced", name));
    let stopping = engine.stopping.iter().filter(|_| !engine.untraced.is_empty()).map(|name| ("stops", name));
    once.chain(untraced).chain(stopping).fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "MODULE_INFO(kmend_{name}, {});", table::literal(value));
        text
    })
}

/// The model that switches functions while tasks may still run the old ones.
const IMMEDIATE: &str = "immediate";

/// Why the model that is asked for would break what the patch was written for.
pub(crate) fn check(linked: &Linked) -> Option<Refusal> {
    let wanted = linked.engine.as_ref()?.model.as_deref()?;
    let too_weak = wanted == IMMEDIATE && linked.waits_for_old_code();
    too_weak.then(|| {
        let why = "the patch exchanges data, or has a post_patch callback, for when nothing runs the old code any more, and \
                   this model does not wait for that";
        Refusal::new(Code::ModelTooWeak, wanted, why)
    })
}

impl Linked {
    /// Whether something is to happen when nothing runs the old code any more: values that are exchanged, and
    /// `post_patch` callbacks.
    pub fn waits_for_old_code(&self) -> bool {
        let waits = |callback: &ObjectCallback| callback.moment == Moment::PostPatch;
        !self.words.is_empty() || self.callbacks.iter().any(waits)
    }

    /// Pairs of living functions of which the first one's replacement leads to the second's, in one step or by way of
    /// functions that are new. A transfer of control and a pointer are not told apart.
    pub fn meetings(&self) -> BTreeSet<(String, String)> {
        let object = &self.object;
        let home = |name: &str| object.symbols_named(name).find_map(|id| object.symbol(id).section());
        let mut replaced: Vec<_> = Vec::new();
        for function in &self.functions {
            replaced
                .extend(home(&function.replacement).map(|section| (section, function.target.name.as_str())));
        }
        let name_in = |section| replaced.iter().find(|(home, _)| *home == section).map(|(_, name)| *name);
        let mut meetings = BTreeSet::new();
        for (start, caller) in &replaced {
            let (mut seen, mut waiting) = (BTreeSet::from([*start]), vec![*start]);
            while let Some(section) = waiting.pop() {
                let relocations = &object.section(section).relocations;
                let targets =
                    relocations.iter().filter_map(|it| object.symbols.get(it.symbol.index())?.section());
                for target in targets.filter(|&target| object.section(target).is_code()) {
                    if !seen.insert(target) {
                        continue;
                    }
                    match name_in(target) {
                        Some(callee) => {
                            meetings.insert(((*caller).to_owned(), callee.to_owned()));
                        }
                        None => waiting.push(target),
                    }
                }
            }
        }
        meetings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::{Kernel, Matched, Unit, input, location};
    use kmend_object::Binding;

    /// `a` calls `new`, which calls `b`; `c` calls nobody.
    fn linked() -> Linked {
        let mut unit = Unit::new();
        let [a, b, c] = ["a", "b", "c"].map(|name| unit.function(name, Some(name), Binding::Global));
        let new = unit.function("new", None, Binding::Local);
        for (caller, callee) in [(a, new), (new, b), (new, new), (c, c)] {
            let section = unit.section_of(caller);
            unit.relocate(section, 4, callee, -4);
        }
        let matched = ["a", "b", "c"]
            .into_iter()
            .fold(Matched::default(), |matched, name| matched.at(name, location("vmlinux", name, 1, 1)));
        let units = [unit.input("a.c", "vmlinux", &matched)];
        let kernel = Kernel::default();
        let engine = ForEngine::default();
        crate::link(&crate::LinkInput { engine: Some(&engine), ..input(&units, &kernel) }).unwrap()
    }

    #[test]
    fn functions_that_lead_to_each_other_meet() {
        assert_eq!(linked().meetings(), BTreeSet::from([("a".into(), "b".into())]));
    }

    #[test]
    fn the_living_functions_are_symbols_to_resolve() {
        let linked = linked();
        let planned: Vec<_> = linked.symbols.iter().map(|symbol| symbol.placeholder.as_str()).collect();
        assert_eq!(planned, ["kmend_living_0", "kmend_living_1", "kmend_living_2"]);
        assert!(allows(&linked, "kmend_engine") && !allows(&linked, "kmend_engine,zram"));
        assert!(!allows(&Linked { engine: None, ..linked }, "kmend_engine"));
    }
}
