//! Tables of places within a function.
//!
//! An interpreter jumps through a table of its labels (`&&label`, as in kernel/bpf/core.c). The table has a name, but the
//! function alone can use it: it is a part of the function's code, as a switch's table without a name is, and each copy of
//! the code needs its own.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::names;
use crate::references::Target;
use kmend_object::{Binding, Section};
use std::collections::{BTreeMap, BTreeSet};

/// Constants with relocations, which compilers mark as writable for a loader's sake; in the kernel and its modules none is
/// (include/asm-generic/vmlinux.lds.h, `RO_DATA`; kernel/module/strict_rwx.c).
const RELOCATED: &str = ".data.rel.ro";

/// Whether nothing writes to what lies in a section.
pub(crate) fn is_constant(section: &Section) -> bool {
    !section.is_writable() || section.name.starts_with(RELOCATED)
}

impl Unit<'_> {
    /// Takes the tables of labels for content of their functions.
    pub(crate) fn own_label_tables(&mut self) {
        let mut tables: BTreeMap<AtomId, AtomId> =
            self.ids().filter_map(|id| Some((id, self.labelled(id)?))).collect();
        if tables.is_empty() {
            return;
        }
        for source in self.ids() {
            for reference in &self.atom(source).references {
                if let Target::Atom { id, .. } = reference.target
                    && tables.get(&id).is_some_and(|&function| !self.belongs_to(source, function))
                {
                    tables.remove(&id);
                }
            }
        }
        for table in tables.into_keys() {
            self.atoms[table.index()].kind = AtomKind::Content;
        }
    }

    /// Whether it is data without an identity that leads into code.
    pub(crate) fn is_label_table(&self, id: AtomId) -> bool {
        let atom = self.atom(id);
        let leads_into_code = |target: &Target| match target {
            Target::Atom { id, .. } => self.section_of(*id).is_code(),
            _ => false,
        };
        atom.kind == AtomKind::Content
            && !self.section_of(id).is_code()
            && atom.references.iter().any(|reference| leads_into_code(&reference.target))
    }

    /// The one function in the middle of which a static constant's pointers lead.
    fn labelled(&self, id: AtomId) -> Option<AtomId> {
        let atom = self.atom(id);
        let is_constant = atom.kind == AtomKind::Variable
            && is_constant(self.section_of(id))
            && self.symbol_of(id).is_some_and(|symbol| symbol.binding == Binding::Local);
        if !is_constant {
            return None;
        }
        let (mut function, mut parts) = (None, BTreeSet::new());
        for reference in &atom.references {
            match reference.target {
                Target::Atom { id, offset } if offset > 0 && self.atom(id).kind == AtomKind::Function => {
                    if function.is_some_and(|other| other != id) {
                        return None;
                    }
                    function = Some(id);
                }
                Target::Atom { id, .. }
                    if self.atom(id).kind == AtomKind::Content && self.section_of(id).is_code() =>
                {
                    parts.insert(id);
                }
                _ => return None,
            }
        }
        let function = function?;
        parts.into_iter().all(|part| self.belongs_to(part, function)).then_some(function)
    }

    /// Whether code or an entry of a table is a part of a function.
    fn belongs_to(&self, source: AtomId, function: AtomId) -> bool {
        let leads = |from: AtomId, to: AtomId| {
            self.atom(from).references.iter().any(|reference| reference.leads_to(to))
        };
        source == function
            || match self.atom(source).kind {
                AtomKind::Entry => self.atom(function).entries.contains(&source),
                AtomKind::Content if self.section_of(source).is_code() => {
                    let is_cold = names::cold_parent(&self.name(source)) == Some(&self.name(function));
                    is_cold || leads(function, source) && leads(source, function)
                }
                _ => false,
            }
    }
}
