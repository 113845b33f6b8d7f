//! The exported symbols of a unit whose code changes, and their CRCs.

use crate::error::BuildError;
use crate::report::Note;
use kmend_compile::{CompiledUnit, Outcome, Owner, Prepared, Target};
use kmend_object::Object;
use kmend_types::ExportChange;
use std::collections::{BTreeMap, BTreeSet};

/// What an object's symbol for an export begins with; the kernel's build looks for the same (scripts/Makefile.build,
/// `gen_symversions`; the second since ddb5cdbafaaa, 6.5).
const MARKS: &[&str] = &["__ksymtab_", "__export_symbol_"];

/// What must be known to compare the CRCs of a unit.
pub(crate) struct Versions<'a> {
    pub(crate) outcome: &'a Outcome,
    pub(crate) target: &'a Target,
    pub(crate) prepared: &'a Prepared,
    /// The text of `Module.symvers`.
    pub(crate) symvers: &'a str,
}

impl Versions<'_> {
    /// The symbols that a unit exports, before and after the patch, and whose CRC changes; and what to tell of them.
    pub(crate) fn compare(
        &self,
        unit: &CompiledUnit,
        original: &Object,
        patched: &Object,
    ) -> Result<(BTreeSet<ExportChange>, Vec<Note>), BuildError> {
        let symbols = &exported(original) & &exported(patched);
        let shipped = shipped(&symbols, &unit.unit.owner, self.symvers);
        let exports = self.outcome.compare_exports(self.target, self.prepared, &unit.unit, &shipped)?;
        let change = |change: kmend_compile::ExportChange| ExportChange {
            name: change.symbol,
            crcs: (change.before, change.after),
            causes: change.causes,
        };
        let notes = exports.notes.into_iter().map(Note::from).collect();
        Ok((exports.changed.into_iter().map(change).collect(), notes))
    }
}

fn exported(object: &Object) -> BTreeSet<&str> {
    let names = object.symbols.iter().map(|symbol| symbol.name.as_str());
    names.filter_map(|name| MARKS.iter().find_map(|mark| name.strip_prefix(mark))).collect()
}

/// The CRCs of symbols as the kernel has them. Format of Module.symvers: `CRC NAME OWNER KIND`, with tabs between
/// (Documentation/kbuild/modules.rst); a CRC of 0 is none.
fn shipped(symbols: &BTreeSet<&str>, owner: &Owner, symvers: &str) -> BTreeMap<String, Option<u32>> {
    let owner = match owner {
        Owner::Vmlinux => "vmlinux",
        Owner::Module { file, .. } => file,
    };
    let mut shipped: BTreeMap<String, Option<u32>> =
        symbols.iter().map(|symbol| ((*symbol).to_owned(), None)).collect();
    if shipped.is_empty() {
        return shipped;
    }
    for line in symvers.lines() {
        let mut fields = line.split('\t');
        let (Some(crc), Some(symbol)) = (fields.next(), fields.next()) else { continue };
        if fields.next() != Some(owner) {
            continue;
        }
        if let Some(known) = shipped.get_mut(symbol) {
            let crc = crc.strip_prefix("0x").and_then(|crc| u32::from_str_radix(crc, 16).ok());
            *known = crc.filter(|&crc| crc != 0);
        }
    }
    shipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crcs_of_the_units_own_symbols_are_found() {
        let symvers = "0x0000002a\tone\tvmlinux\tEXPORT_SYMBOL\t\n0x2b\tone\tnet/a\tEXPORT_SYMBOL\n\
            0x00000000\tnone\tvmlinux\tEXPORT_SYMBOL\nx\tbad\tvmlinux\n0x2c\n\n0x2d\tother\tvmlinux\n";
        let symbols = BTreeSet::from(["one", "none", "bad", "missing"]);
        let expect = |one| {
            let of = |name: &str, crc| (name.to_owned(), crc);
            BTreeMap::from([of("one", one), of("none", None), of("bad", None), of("missing", None)])
        };
        assert_eq!(shipped(&symbols, &Owner::Vmlinux, symvers), expect(Some(42)));
        let module = Owner::Module { name: "a".to_owned(), file: "net/a".to_owned() };
        assert_eq!(shipped(&symbols, &module, symvers), expect(Some(43)));
        assert!(shipped(&BTreeSet::new(), &Owner::Vmlinux, symvers).is_empty());
    }
}
