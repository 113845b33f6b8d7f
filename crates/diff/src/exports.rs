//! On what terms a symbol is exported: to whom, and in which namespace.
//!
//! The running kernel's table of exports is read when a module is loaded, and a livepatch does not change it. A symbol that is exported
//! on other terms than before goes on as it was.

use crate::atoms::{AtomId, Unit};
use crate::compare::Comparison;
use crate::references::{Reference, Target};
use crate::special::{Registers, Treatment};
use kmend_refusal::{Code, Refusal};

/// How an entry's symbol is called before the exported one: in the kernel's own table and, since Linux 6.4 (ddb5cdbafaaa), in what
/// modpost makes that of (include/linux/export.h).
const BEGINNINGS: [&str; 2] = ["__ksymtab_", "__export_symbol_"];

/// An entry of a table of exports.
struct Export<'a> {
    symbol: String,
    gpl: bool,
    namespace: Vec<u8>,
    /// What is exported.
    value: &'a Reference,
}

impl<'a> Export<'a> {
    fn of(unit: &'a Unit<'_>, id: AtomId) -> Option<Self> {
        if unit.treatment_of(id) != Treatment::Registration(Registers::Export) {
            return None;
        }
        let name = unit.name(id);
        let symbol = BEGINNINGS.iter().find_map(|beginning| name.strip_prefix(beginning))?.to_owned();
        let section = &unit.section_of(id).name;
        match unit.atom(id).references.as_slice() {
            // struct kernel_symbol: value, name, namespace.
            [value, _, namespace] => {
                let Target::Text { section: home, offset } = namespace.target else { return None };
                let namespace = unit.object.section(home).string_at(offset)?.bytes().to_vec();
                Some(Export { symbol, gpl: section.starts_with("___ksymtab_gpl"), namespace, value })
            }
            // Two strings, the licence and the namespace, and the value behind them.
            [value] => {
                let mut texts = unit.bytes(id).get(..value.offset as usize)?.split(|&byte| byte == 0);
                let (licence, namespace) = (texts.next()?, texts.next()?);
                Some(Export { symbol, gpl: licence == b"GPL", namespace: namespace.to_vec(), value })
            }
            _ => None,
        }
    }

    fn terms(&self) -> String {
        let whom = if self.gpl { "to modules under the GPL" } else { "to all modules" };
        if self.namespace.is_empty() {
            return whom.to_owned();
        }
        format!("{whom}, in the namespace {}", String::from_utf8_lossy(&self.namespace))
    }
}

/// Whether it is the name of a namespace, which belongs to an entry. An entry with another one is another.
pub(crate) fn is_namespace(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.treatment_of(id) == Treatment::Registration(Registers::Export)
        && unit.name(id).starts_with("__kstrtabns_")
}

/// What to say of a symbol that is exported on both sides, and only the terms differ.
pub(crate) fn other_terms(comparison: &Comparison<'_>, original: AtomId, patched: AtomId) -> Option<Refusal> {
    let (before, after) =
        (Export::of(comparison.original, original)?, Export::of(comparison.patched, patched)?);
    let is_same = before.gpl == after.gpl && before.namespace == after.namespace;
    if is_same || !comparison.leads_to_the_same(before.value, after.value) {
        return None;
    }
    let why = format!(
        "it is exported {} and the patch exports it {}: the running kernel goes on as before",
        before.terms(),
        after.terms()
    );
    Some(Refusal::new(Code::ChangedExport, after.symbol, why))
}
