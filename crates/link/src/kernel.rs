//! The kernel's symbols from its image, its modules and its `Module.symvers`.

use crate::neighbours::{Candidate, Exported, KernelSymbols, Location};
use crate::plan::VMLINUX;
use kmend_kernel::{Image, Module, ModuleTree};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A packaged kernel as the linker sees it.
pub struct TargetKernel<'a> {
    image: &'a Image,
    modules: Option<&'a ModuleTree>,
    exports: BTreeMap<String, Exported>,
    /// Modules that were read already; `None` for those that the tree does not have.
    read: RefCell<BTreeMap<String, Option<Rc<Module>>>>,
}

impl<'a> TargetKernel<'a> {
    /// `symvers` is the text of the `Module.symvers` that the build system will use.
    pub fn new(image: &'a Image, modules: Option<&'a ModuleTree>, symvers: &str) -> Self {
        let exports = symvers.lines().filter_map(export).collect();
        Self { image, modules, exports, read: RefCell::default() }
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
        let symbols = self.image.symbols();
        let address = |name: &str, position: u32| {
            let index = usize::try_from(position).ok()?.checked_sub(1)?;
            symbols.named(name).nth(index).map(|symbol| symbol.address)
        };
        let (Some(begin), Some(end)) = (address("__init_begin", 1), address("__init_end", 1)) else {
            return false;
        };
        let there =
            (location.object == VMLINUX).then(|| address(&location.name, location.position)).flatten();
        there.is_some_and(|address| (begin..end).contains(&address))
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
