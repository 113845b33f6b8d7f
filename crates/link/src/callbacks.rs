//! The callbacks of each object: those of the patch's author, from all units of the object, and kmend's own.
//!
//! The kernel has room for one callback of a kind in an object. So each is a function of the patch table that calls
//! the others: in the order of the units when something is done, in reverse when it is undone. Units stand for
//! themselves as objects do in the kernel: when a `pre_patch` declines, the `post_unpatch` callbacks of the
//! units before it run, and the object's own does not (kernel/livepatch/core.c, `klp_pre_patch_callback`).
//!
//! The calls are direct, so that no function needs a landing pad that objtool would take away for want of a
//! reference it can see (`.ibt_endbr_seal`).

use crate::merge::Merged;
use crate::{LinkInput, Linked, engine, pins, table, updates};
use kmend_diff::Moment;
use std::fmt::Write;

/// A callback of the patch's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectCallback {
    /// `vmlinux` or a module's name.
    pub(crate) object: String,
    /// When it runs.
    pub(crate) moment: Moment,
    /// The number of its unit.
    pub(crate) unit: usize,
    /// Its name in the source.
    pub(crate) name: String,
    /// Its symbol in the merged object.
    pub(crate) function: String,
}

/// The callbacks of all units, in their order.
pub(crate) fn collect(input: &LinkInput<'_>, merged: &Merged) -> Vec<ObjectCallback> {
    let mut callbacks = Vec::new();
    for (unit, part) in input.units.iter().enumerate() {
        for callback in &part.delta.callbacks {
            let placed = merged.placed[unit].get(callback.symbol.index()).copied().flatten();
            // The extract was made with it; the finish reports a table whose aliases have no function.
            let function = placed.map(|id| merged.object.symbol(id).name.clone()).unwrap_or_default();
            callbacks.push(ObjectCallback {
                object: part.owner.to_owned(),
                moment: callback.moment,
                unit,
                name: callback.function.clone(),
                function,
            });
        }
    }
    callbacks
}

/// The symbol by which the table means a callback until the finish.
pub(crate) fn alias(number: usize) -> String {
    format!("kmend_callback_{number}")
}

/// The number in an alias.
pub(crate) fn alias_number(name: &str) -> Option<usize> {
    name.strip_prefix("kmend_callback_")?.parse().ok()
}

/// Declares the callbacks. They are weak, so that modpost lets them pass undefined.
pub(crate) fn declarations(linked: &Linked) -> String {
    let mut text = String::new();
    for (number, callback) in linked.callbacks.iter().enumerate() {
        let result = if callback.moment == Moment::PrePatch { "int" } else { "void" };
        let name = alias(number);
        let _ = writeln!(text, "extern {result} {name}(struct klp_object *object) __attribute__((weak));");
    }
    text
}

/// Tells of the callbacks in `.modinfo`, where `kmend inspect` reads them: `OBJECT MOMENT FUNCTION`.
pub(crate) fn descriptions(linked: &Linked) -> String {
    linked.callbacks.iter().fold(String::new(), |mut text, callback| {
        let what = format!("{} {} {}", callback.object, callback.moment, callback.name);
        let _ = writeln!(text, "MODULE_INFO(kmend_callback, {});", table::literal(&what));
        text
    })
}

/// The callbacks of one object: adds their functions to `text` and returns the initializer of the field, empty if
/// there are none. `clear` is the statement that clears the object's late relocations.
pub(crate) fn of_object(
    text: &mut String,
    linked: &Linked,
    group: usize,
    object: &str,
    clear: Option<&str>,
) -> String {
    let of = ObjectCallbacks { linked, object, clear };
    let bodies: Vec<_> = Moment::ALL.into_iter().map(|moment| (moment, of.body(moment))).collect();
    if bodies.iter().all(|(_, body)| body.is_empty()) {
        return String::new();
    }
    if linked.engine.is_some() {
        text.push_str(&engine::livepatch_object(group));
    }
    let mut fields = Vec::new();
    for (moment, body) in bodies.into_iter().filter(|(_, body)| !body.is_empty()) {
        let (result, end) = match moment {
            Moment::PrePatch => ("int", "\treturn 0;\n"),
            _ => ("void", ""),
        };
        let (parameter, head) = match &linked.engine {
            Some(_) => engine::callback_head(group, moment),
            None => ("struct klp_object *object".to_owned(), String::new()),
        };
        let _ =
            write!(text, "\nstatic {result} kmend_{moment}_{group}({parameter})\n{{\n{head}{body}{end}}}\n");
        fields.push(format!(".{moment} = kmend_{moment}_{group}"));
    }
    let fields = fields.join(", ");
    // The engine's objects have them without a structure of their own.
    if linked.engine.is_some() { format!(", {fields}") } else { format!(", .callbacks = {{ {fields} }}") }
}

struct ObjectCallbacks<'a> {
    linked: &'a Linked,
    object: &'a str,
    clear: Option<&'a str>,
}

impl ObjectCallbacks<'_> {
    fn callbacks(&self, moment: Moment) -> impl DoubleEndedIterator<Item = (usize, &ObjectCallback)> {
        let callbacks = self.linked.callbacks.iter().enumerate();
        callbacks.filter(move |(_, callback)| callback.moment == moment && callback.object == self.object)
    }

    /// The statements of one callback.
    fn body(&self, moment: Moment) -> String {
        let words = updates::statements(&self.linked.words, self.object, moment);
        let pin = pins::statement(&self.linked.pins, self.object, moment);
        match moment {
            Moment::PrePatch => self.pre_patch(words, pin),
            Moment::PostPatch => words + &calls(self.callbacks(moment), "\t"),
            Moment::PreUnpatch => calls(self.callbacks(moment).rev(), "\t") + &words,
            Moment::PostUnpatch => {
                let clear = self.clear.map(|clear| format!("\t{clear}\n")).unwrap_or_default();
                calls(self.callbacks(moment).rev(), "\t") + &clear + pin
            }
        }
    }

    /// Checks `words` first: that has nothing to undo. The module is held last, when nothing declines any more.
    fn pre_patch(&self, words: String, pin: &str) -> String {
        let mut text = words;
        for (number, callback) in self.callbacks(Moment::PrePatch) {
            let before = self.callbacks(Moment::PostUnpatch).filter(|(_, other)| other.unit < callback.unit);
            let undo = calls(before.rev(), "\t\t");
            let clear = self.clear.map(|clear| format!("\t\t{clear}\n")).unwrap_or_default();
            let call = alias(number);
            let _ = write!(
                text,
                "\terror = {call}(object);\n\tif (error) {{\n{undo}{clear}\t\treturn error;\n\t}}\n"
            );
        }
        if !text.is_empty() {
            text.insert_str(0, "\tint error;\n\n");
        }
        text + pin
    }
}

fn calls<'a>(callbacks: impl Iterator<Item = (usize, &'a ObjectCallback)>, indent: &str) -> String {
    callbacks.fold(String::new(), |mut text, (number, _)| {
        let _ = writeln!(text, "{indent}{}(object);", alias(number));
        text
    })
}
