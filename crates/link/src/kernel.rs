//! The kernel's symbols from its image, its modules and its `Module.symvers`.

use crate::neighbours::{Candidate, Exported, KernelSymbols, Location};
use crate::plan::VMLINUX;
use kmend_diff::ENDBR64;
use kmend_kernel::{Image, Module, ModulePosition, ModuleTree};
use kmend_object::SymbolId;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The landing pads that nothing needs (tools/objtool/check.c, `create_ibt_endbr_seal_sections`).
const SEALED: &str = ".ibt_endbr_seal";

/// A packaged kernel as the linker sees it.
pub struct TargetKernel<'a> {
    image: &'a Image,
    modules: Option<&'a ModuleTree>,
    exports: BTreeMap<String, Exported>,
    /// Modules that were read already; `None` for those that the tree does not have.
    read: RefCell<BTreeMap<String, Option<Rc<Module>>>>,
    /// See [`TargetKernel::sealed`].
    sealed: OnceCell<Option<BTreeSet<u64>>>,
}

impl<'a> TargetKernel<'a> {
    /// `symvers` is the text of the `Module.symvers` that the build system will use.
    pub fn new(image: &'a Image, modules: Option<&'a ModuleTree>, symvers: &str) -> Self {
        let exports = symvers.lines().filter_map(export).collect();
        Self { image, modules, exports, read: RefCell::default(), sealed: OnceCell::new() }
    }

    fn module(&self, name: &str) -> Option<Rc<Module>> {
        let mut read = self.read.borrow_mut();
        let entry = read
            .entry(name.to_owned())
            .or_insert_with(|| self.modules.and_then(|tree| tree.module(name).ok()).map(Rc::new));
        entry.clone()
    }
}

impl KernelSymbols for TargetKernel<'_> {
    fn exported(&self, symbol: &str) -> Option<Exported> {
        self.exports.get(symbol).cloned()
    }

    fn needs(&self, module: &str, other: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![module.to_owned()];
        while let Some(name) = waiting.pop() {
            if name == other {
                return true;
            }
            if let Some(module) = self.module(&name).filter(|_| !seen.contains(&name)) {
                waiting.extend(module.depends());
                seen.insert(name);
            }
        }
        false
    }

    /// Of a module, what is freed has no candidate at all. Of the image, include/asm-generic/sections.h names the bounds, and
    /// mm/page_alloc.c (`free_initmem_default`) and arch/x86/mm/init.c (`free_initmem`) free what lies between.
    fn is_freed(&self, location: &Location) -> bool {
        let (Some(begin), Some(end)) = (self.address("__init_begin", 1), self.address("__init_end", 1))
        else {
            return false;
        };
        let there =
            (location.object == VMLINUX).then(|| self.address(&location.name, location.position)).flatten();
        there.is_some_and(|address| (begin..end).contains(&address))
    }

    fn is_called_by_name_alone(&self, location: &Location) -> bool {
        let Some(sealed) = self.sealed() else { return false };
        if location.object == VMLINUX {
            let address = self.address(&location.name, location.position);
            let address = address.filter(|&address| self.is_code(address));
            return address.is_some_and(|address| {
                sealed.contains(&address)
                    || self.image.read(address, ENDBR64.len()).is_some_and(|bytes| bytes != ENDBR64)
            });
        }
        self.module(&location.object).is_some_and(|module| is_sealed_in(&module, location))
    }

    fn candidates(&self, object: &str, symbol: &str) -> Vec<Candidate> {
        if object == VMLINUX {
            return self.of_image(symbol);
        }
        let Some(module) = self.module(object) else { return Vec::new() };
        let ids: Vec<_> = module.object().symbols_named(symbol).collect();
        let candidates = ids.into_iter().filter_map(|id| {
            let place = module.position(id)?.settled()?;
            let global = module.object().symbol(id).binding != kmend_object::Binding::Local;
            let weak = module.object().symbol(id).binding == kmend_object::Binding::Weak;
            Some(Candidate { location: location(object, symbol, place.position, place.count), global, weak })
        });
        candidates.collect()
    }
}

impl TargetKernel<'_> {
    /// The address of one of the image's symbols of a name, counted from 1.
    fn address(&self, name: &str, position: u32) -> Option<u64> {
        let index = usize::try_from(position).ok()?.checked_sub(1)?;
        self.image.symbols().named(name).nth(index).map(|symbol| symbol.address)
    }

    fn is_code(&self, address: u64) -> bool {
        self.image.sections().iter().any(|section| section.is_code() && section.range().contains(&address))
    }

    /// The functions whose landing pads the kernel takes away when it starts, by address: each entry of `.ibt_endbr_seal` is the
    /// distance from itself (arch/x86/kernel/alternative.c, `apply_seal_endbr`, since Linux 5.18). `None` for a kernel whose
    /// indirect calls need no landing pads.
    fn sealed(&self) -> Option<&BTreeSet<u64>> {
        self.sealed
            .get_or_init(|| {
                let section = self.image.section_named(SEALED)?;
                let data = self.image.section_data(SEALED)?;
                let places = (section.range().start..).step_by(4).zip(data.chunks_exact(4));
                let target = |(place, bytes): (u64, &[u8])| {
                    let distance = i32::from_le_bytes(bytes.try_into().unwrap_or_default());
                    place.wrapping_add_signed(i64::from(distance))
                };
                Some(places.map(target).collect())
            })
            .as_ref()
    }

    fn of_image(&self, symbol: &str) -> Vec<Candidate> {
        let named = self.image.symbols().named(symbol);
        let count = named.len() as u32;
        let candidate = |(position, found): (u32, &kmend_kernel::KernelSymbol)| Candidate {
            location: location(VMLINUX, symbol, position, count),
            global: found.kind.is_ascii_uppercase(),
            weak: matches!(found.kind, b'W' | b'V'),
        };
        (1..).zip(named).map(candidate).collect()
    }
}

/// Whether a function of a module has no landing pad, or none that is kept.
fn is_sealed_in(module: &Module, location: &Location) -> bool {
    let object = module.object();
    let is_it = |&id: &SymbolId| {
        let position = module.position(id).and_then(ModulePosition::settled);
        position.is_some_and(|settled| settled.position == location.position)
    };
    let Some(id) = object.symbols_named(&location.name).find(is_it) else { return false };
    let symbol = object.symbol(id);
    let Some(section) = symbol.section().filter(|&section| object.section(section).is_code()) else {
        return false;
    };
    let start = usize::try_from(symbol.value).unwrap_or(usize::MAX);
    let bytes = start.checked_add(ENDBR64.len()).and_then(|end| object.section(section).data.get(start..end));
    let is_sealed = object.section_named(SEALED).is_some_and(|table| {
        object.section(table).relocations.iter().any(|relocation| {
            let target = object.symbol(relocation.symbol);
            target.section() == Some(section)
                && target.value.checked_add_signed(relocation.addend) == Some(symbol.value)
        })
    });
    is_sealed || bytes.is_some_and(|bytes| bytes != ENDBR64)
}

fn location(object: &str, name: &str, position: u32, count: u32) -> Location {
    Location { object: object.to_owned(), name: name.to_owned(), position, count }
}

/// One line of `Module.symvers`: CRC, symbol, module's path, kind of export, namespace, with tabs between
/// (Documentation/kbuild/modules.rst, "Symbols and Modules"; the namespace since Linux 5.4).
fn export(line: &str) -> Option<(String, Exported)> {
    let mut fields = line.split('\t').skip(1);
    let symbol = fields.next()?.to_owned();
    let path = fields.next()?;
    let namespaced = fields.nth(1).is_some_and(|namespace| !namespace.trim().is_empty());
    let by = path.rsplit('/').next().unwrap_or(path).replace('-', "_");
    Some((symbol, Exported { by, namespaced }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_symvers_gives_symbol_module_and_namespace() {
        let cases = [
            ("0x12345678\tmemcpy\tvmlinux\tEXPORT_SYMBOL\t", "memcpy", "vmlinux", false),
            ("0x00000001\tdma_a\tdrivers/base/dma-buf\tEXPORT_SYMBOL_GPL\tDMA_BUF", "dma_a", "dma_buf", true),
            ("0x00000001\told\tfs/ext4/ext4\tEXPORT_SYMBOL", "old", "ext4", false),
        ];
        for (line, symbol, by, namespaced) in cases {
            let (name, exported) = export(line).unwrap();
            assert_eq!(name, symbol);
            assert_eq!(exported, Exported { by: by.into(), namespaced });
        }
        assert_eq!(export(""), None);
        assert_eq!(export("0x1\tonly"), None);
    }
}
