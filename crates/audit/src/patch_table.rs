//! The patch table as the kernel will walk it: `struct klp_patch`, its objects and their functions.
//!
//! It is found where the module's start hands it to `klp_enable_patch()`, and its fields where the kernel's own types have them
//! (kernel/livepatch/core.c, `klp_for_each_object_static` and `klp_for_each_func_static`, say where it ends). That of a patch for
//! kmend's consistency engine goes to `kmend_register()`, has the same shape, and points to the living functions by livepatch
//! relocations instead of by names and positions (engine/kmend_engine.h).

use crate::code::{Reference, Target};
use crate::finding::{Fault, Finding};
use crate::lead::Spot;
use crate::living::VMLINUX;
use crate::side::Side;
use kmend_kernel::Btf;
use std::collections::BTreeSet;

/// Who takes a livepatch, and a patch for the consistency engine.
const LIVEPATCH: &str = "klp_enable_patch";
const ENGINE: &str = "kmend_register";
/// Most entries of one array.
const MOST: u64 = 100_000;

/// One function of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `vmlinux` or a module's name.
    pub(crate) object: String,
    pub(crate) name: String,
    pub(crate) meant: Meant,
    pub(crate) replacement: Spot,
}

/// How an entry says which function it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meant {
    /// By the position among the object's symbols of the name; 0 if there must be one.
    Position(u64),
    /// By a relocation that the livepatch loader applies.
    Reference(Reference),
}

/// What of it the audit needs to know.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
    pub(crate) findings: Vec<Finding>,
    /// Those of them that point to replacements.
    pub(crate) replacements: BTreeSet<(usize, u64)>,
    /// The relocations that were read.
    pub(crate) visited: BTreeSet<(usize, u64)>,
}

/// Offsets and sizes of the structures, in bytes.
struct Layout {
    objects: u64,
    object: u64,
    name: u64,
    functions: u64,
    function: u64,
    old: u64,
    new: u64,
    position: Option<u64>,
    living: Option<u64>,
}

impl Layout {
    fn of(types: &Btf) -> Option<Layout> {
        let patch = types.structure("klp_patch")?;
        let object = types.structure("klp_object")?;
        let function = types.structure("klp_func")?;
        Some(Layout {
            objects: patch.member("objs")?.into(),
            object: object.size.into(),
            name: object.member("name")?.into(),
            functions: object.member("funcs")?.into(),
            function: function.size.into(),
            old: function.member("old_name")?.into(),
            new: function.member("new_func")?.into(),
            position: Some(function.member("old_sympos")?.into()),
            living: None,
        })
    }

    /// That of engine/kmend_engine.h, which states these numbers for the compiler to check.
    const ENGINE: Layout = Layout {
        objects: 8,
        object: 64,
        name: 0,
        functions: 8,
        function: 56,
        old: 0,
        new: 16,
        position: None,
        living: Some(8),
    };
}

/// Reads the table.
pub(crate) fn read(module: &Side, types: Option<&Btf>) -> Table {
    let mut table = Table::default();
    let (livepatches, engines) = (handed_over(module, LIVEPATCH), handed_over(module, ENGINE));
    let (patch, layout) = match (&livepatches[..], &engines[..]) {
        (&[patch], []) => (patch, types.and_then(Layout::of)),
        ([], &[patch]) => (patch, Some(Layout::ENGINE)),
        _ => {
            let found = livepatches.len() + engines.len();
            table.fault(0, "one patch that is given to klp_enable_patch()", &found.to_string());
            return table;
        }
    };
    let Some(layout) = layout else {
        table.fault(0, "the types of a patch table in the kernel", "none");
        return table;
    };
    let reader = Reader { module, layout };
    reader.objects(patch, &mut table);
    table
}

/// What the module's functions give to one that takes a patch: the address that the instruction before the call loads.
fn handed_over(module: &Side, taker: &str) -> Vec<Spot> {
    let mut found = Vec::new();
    for function in module.functions() {
        let Some(code) = module.code(function) else { continue };
        for pair in code.insns.windows(2) {
            let calls = pair[1].references.iter().any(|reference| {
                matches!(reference.target, Target::Outside(symbol, _) if module.name(symbol) == taker)
            });
            let given = pair[0].references.first().map(|reference| reference.target);
            if let (true, Some(Target::Inside(section, offset))) = (calls, given)
                && let Ok(offset) = u64::try_from(offset)
                && !found.contains(&(section, offset))
            {
                found.push((section, offset));
            }
        }
    }
    found
}

struct Reader<'a> {
    module: &'a Side,
    layout: Layout,
}

impl Reader<'_> {
    /// What a pointer leads to.
    fn pointer(&self, (section, at): Spot, table: &mut Table) -> Option<Spot> {
        let list = self.module.elf.sections.get(section)?.relocations_in(&(at..at + 1));
        let [relocation] = list else { return None };
        // The kernel has it before anything that waits is written.
        if relocation.kind != crate::elf::R_64 || relocation.late.is_some() {
            table.fault(at, "a pointer", "a relocation of another kind");
        }
        table.visited.insert((section, at));
        let reference = crate::code::reference(&self.module.elf, relocation, 0, 0, false)?;
        match reference.target {
            Target::Inside(section, offset) => Some((section, u64::try_from(offset).ok()?)),
            Target::Outside(..) => None,
        }
    }

    fn text(&self, at: Spot, table: &mut Table) -> Option<String> {
        let (section, offset) = self.pointer(at, table)?;
        self.module.elf.string_at(section, offset).map(str::to_owned)
    }

    fn number(&self, (section, at): Spot) -> Option<u64> {
        let bytes = self.module.elf.bytes(section, &(at..at.checked_add(8)?))?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn objects(&self, (section, at): Spot, table: &mut Table) {
        let Some(array) = self.pointer((section, at + self.layout.objects), table) else {
            return table.fault(self.layout.objects, "a pointer to the objects", "none");
        };
        for number in 0..MOST {
            let at = array.1 + number * self.layout.object;
            let name = self.text((array.0, at + self.layout.name), table);
            let functions = self.pointer((array.0, at + self.layout.functions), table);
            match (name, functions) {
                (None, None) => return,
                (name, Some(functions)) => {
                    let object = name.unwrap_or_else(|| VMLINUX.to_owned());
                    self.functions(&object, functions, table);
                }
                (Some(name), None) => table.fault(at, &format!("the functions of {name}"), "none"),
            }
        }
    }

    fn functions(&self, object: &str, array: Spot, table: &mut Table) {
        for number in 0..MOST {
            let at = array.1 + number * self.layout.function;
            let name = self.text((array.0, at + self.layout.old), table);
            let replacement = self.pointer((array.0, at + self.layout.new), table);
            let meant = self.meant((array.0, at), table);
            match (name, replacement, meant) {
                (None, None, None | Some(Meant::Position(0))) => return,
                (Some(name), Some(replacement), Some(meant)) => {
                    table.replacements.insert((array.0, at + self.layout.new));
                    table.entries.push(Entry { object: object.to_owned(), name, meant, replacement });
                }
                (name, ..) => {
                    let name = name.unwrap_or_else(|| "a function".to_owned());
                    return table.fault(at, &format!("name and replacement of {name}"), "half of them");
                }
            }
        }
    }

    fn meant(&self, (section, at): Spot, table: &mut Table) -> Option<Meant> {
        if let Some(position) = self.layout.position {
            return Some(Meant::Position(self.number((section, at + position))?));
        }
        let at = at + self.layout.living?;
        let list = self.module.elf.sections.get(section)?.relocations_in(&(at..at + 1));
        let [relocation] = list else { return None };
        if relocation.kind != crate::elf::R_64 {
            table.fault(at, "a pointer", "a relocation of another kind");
        }
        table.visited.insert((section, at));
        Some(Meant::Reference(crate::code::reference(&self.module.elf, relocation, 0, 0, false)?))
    }
}

impl Table {
    fn fault(&mut self, at: u64, expected: &str, found: &str) {
        self.findings.push(Finding::new(Fault::Entry, "the patch table", at, expected, found));
    }
}
