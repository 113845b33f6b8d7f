//! The running kernel as its files have it: what a name and a position lead to, by the kernel's own rules.

use crate::elf::{Elf, Home, Malformed};
use kmend_kernel::{Image, ModuleTree, Packing, read_file};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;

/// The name of the kernel proper among objects.
pub(crate) const VMLINUX: &str = "vmlinux";
/// Distance between the made-up addresses of a module's sections; none is as large.
const STRIDE: u64 = 1 << 40;
/// The largest module that is read, in bytes.
const LARGEST_MODULE: u64 = 1 << 30;

/// A place in the kernel proper or in a module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Living {
    pub(crate) object: Rc<str>,
    /// In a module the section's number times a stride, and the offset.
    pub(crate) address: u64,
}

impl Living {
    pub(crate) fn moved(&self, by: i64) -> Living {
        Living { object: Rc::clone(&self.object), address: self.address.wrapping_add_signed(by) }
    }
}

impl fmt::Display for Living {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.object == VMLINUX {
            write!(f, "{:#x}", self.address)
        } else {
            write!(f, "{} section {}+{:#x}", self.object, self.address / STRIDE, self.address % STRIDE)
        }
    }
}

/// The kernel's files.
pub(crate) struct Kernel<'a> {
    pub(crate) image: &'a Image,
    modules: Option<&'a ModuleTree>,
    vmlinux: Rc<str>,
    read: RefCell<HashMap<String, Option<Rc<Module>>>>,
}

/// A module as it ships.
pub(crate) struct Module {
    pub(crate) name: Rc<str>,
    pub(crate) elf: Elf,
}

impl Module {
    /// Where a section is.
    pub(crate) fn at(&self, section: usize, offset: u64) -> Living {
        Living { object: Rc::clone(&self.name), address: section as u64 * STRIDE + offset }
    }

    /// The section and the offset of a made-up address.
    pub(crate) fn split(address: u64) -> (usize, u64) {
        ((address / STRIDE) as usize, address % STRIDE)
    }

    /// The places of a name in the order in which the kernel counts them: that of the symbol table, as long as the module starts,
    /// and without what only its start needs after that (kernel/module/kallsyms.c, `is_core_symbol`).
    fn positions(&self, name: &str, core: bool) -> Vec<Living> {
        let mut places = Vec::new();
        let mut numbers = self.elf.named(name).to_vec();
        numbers.sort_unstable();
        for number in numbers {
            let Home::Section(section) = self.elf.symbols[number].home else { continue };
            let parsed = &self.elf.sections[section];
            if !core || parsed.is_loaded() && !is_start(&parsed.name) {
                places.push(self.at(section, self.elf.symbols[number].value));
            }
        }
        places
    }
}

/// Whether a module's section goes when the module has started (kernel/module/main.c, `module_init_section`).
pub(crate) fn is_start(section: &str) -> bool {
    section.starts_with(".init")
}

impl<'a> Kernel<'a> {
    pub(crate) fn new(image: &'a Image, modules: Option<&'a ModuleTree>) -> Self {
        Kernel { image, modules, vmlinux: VMLINUX.into(), read: RefCell::default() }
    }

    pub(crate) fn at(&self, address: u64) -> Living {
        Living { object: Rc::clone(&self.vmlinux), address }
    }

    /// A module of the kernel's package.
    pub(crate) fn module(&self, name: &str) -> Result<Rc<Module>, Malformed> {
        if let Some(known) = self.read.borrow().get(name) {
            return known.clone().ok_or_else(|| Malformed(format!("the kernel has no module {name}")));
        }
        let read = self.read_module(name);
        let kept = read.as_ref().ok().map(Rc::clone);
        self.read.borrow_mut().insert(name.to_owned(), kept);
        read
    }

    fn read_module(&self, name: &str) -> Result<Rc<Module>, Malformed> {
        let path = self.modules.and_then(|tree| tree.path_of(name));
        let path = path.ok_or_else(|| Malformed(format!("the kernel has no module {name}")))?;
        let bytes = read_file(path, LARGEST_MODULE).map_err(|error| Malformed(error.to_string()))?;
        let bytes = match Packing::detect(&bytes) {
            Some(packing) => packing.unpack(&bytes).map_err(Malformed)?,
            None => bytes,
        };
        Ok(Rc::new(Module { name: name.into(), elf: Elf::parse(bytes)? }))
    }

    /// Every place of a name in an object, in the kernel's order.
    pub(crate) fn named(&self, object: &str, name: &str) -> Vec<Living> {
        if object == VMLINUX {
            return self.image.symbols().named(name).map(|symbol| self.at(symbol.address)).collect();
        }
        self.module(object).map(|module| module.positions(name, false)).unwrap_or_default()
    }

    /// What a livepatch's name and position lead to (kernel/livepatch/core.c, `klp_find_object_symbol`): position 0 asks for the
    /// only symbol of the name.
    pub(crate) fn resolve(&self, object: &str, name: &str, position: u64) -> Result<Living, String> {
        let lists = if object == VMLINUX {
            vec![self.named(object, name)]
        } else {
            let module = self.module(object).map_err(|error| error.to_string())?;
            vec![module.positions(name, false), module.positions(name, true)]
        };
        let mut found = BTreeSet::new();
        for list in &lists {
            let at = match (position, list.len()) {
                (_, 0) => return Err(format!("{object} has no symbol {name}")),
                (0, 1) => 0,
                (0, count) => return Err(format!("{object} has {count} symbols {name}")),
                (position, _) => position as usize - 1,
            };
            let Some(place) = list.get(at) else {
                return Err(format!("{object} has {} symbols {name}", list.len()));
            };
            found.insert(place.clone());
        }
        let first = found.pop_first().ok_or_else(|| format!("{object} has no symbol {name}"))?;
        if found.is_empty() {
            Ok(first)
        } else {
            Err(format!("{name} has another place when {object} started"))
        }
    }

    /// What a livepatch symbol `.klp.sym.OBJECT.NAME,POSITION` leads to, with the object.
    pub(crate) fn livepatch_symbol(&self, text: &str) -> Result<Living, String> {
        let parse = || {
            let (object, rest) = text.strip_prefix(".klp.sym.")?.split_once('.')?;
            let (name, position) = rest.split_once(',')?;
            Some((object, name, position.parse::<u64>().ok()?))
        };
        let (object, name, position) = parse().ok_or_else(|| "the kernel cannot read its name".to_owned())?;
        self.resolve(object, name, position)
    }

    /// What a module of the kernel may use by this name without more: an export of the kernel proper.
    pub(crate) fn export(&self, name: &str) -> Option<Living> {
        self.image.exports().get(name).map(|export| self.at(export.address))
    }

    /// The same for a module, which may also use what the modules export that it depends on.
    pub(crate) fn export_to(&self, module: &str, name: &str) -> Option<Living> {
        if let Some(found) = self.export(name) {
            return Some(found);
        }
        let (mut waiting, mut seen) = (vec![module.to_owned()], BTreeSet::new());
        while let Some(next) = waiting.pop() {
            if !seen.insert(next.clone()) {
                continue;
            }
            let Ok(read) = self.module(&next) else { continue };
            if next != module
                && read.elf.only(&format!("__ksymtab_{name}")).is_some()
                && let Some((section, value)) = read.elf.only(name).and_then(|symbol| read.elf.place(symbol))
            {
                return Some(read.at(section, value));
            }
            let depends = read.elf.modinfo("depends").next().unwrap_or_default();
            waiting.extend(
                depends.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")),
            );
        }
        None
    }

    /// The only global symbol of a name.
    pub(crate) fn global(&self, object: &str, name: &str) -> Option<Living> {
        let mut found: Vec<Living> = if object == VMLINUX {
            let named = self.image.symbols().named(name);
            let global =
                named.filter(|symbol| symbol.kind.is_ascii_uppercase() || matches!(symbol.kind, b'w' | b'v'));
            global.map(|symbol| self.at(symbol.address)).collect()
        } else {
            let module = self.module(object).ok()?;
            let named = module.elf.named(name).iter();
            let global = named.filter(|&&symbol| module.elf.symbols[symbol].is_global());
            let places = global.filter_map(|&symbol| module.elf.place(symbol));
            places.map(|(section, value)| module.at(section, value)).collect()
        };
        found.dedup();
        if found.len() == 1 { found.pop() } else { None }
    }

    /// The names that the kernel has at a place.
    pub(crate) fn names_at(&self, place: &Living) -> String {
        if &*place.object != VMLINUX {
            let (section, offset) = Module::split(place.address);
            let Ok(module) = self.module(&place.object) else { return place.to_string() };
            let list = module.elf.named_in(section).iter().map(|&number| &module.elf.symbols[number]);
            let nearest = list.rev().find(|symbol| symbol.value <= offset);
            return nearest.map_or_else(
                || place.to_string(),
                |symbol| format!("{}+{:#x} of {}", symbol.name, offset - symbol.value, place.object),
            );
        }
        match self.image.symbols().containing(place.address) {
            Some((symbol, 0)) => symbol.name.to_string(),
            Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.name),
            None => place.to_string(),
        }
    }

    fn address_of(&self, name: &str) -> Option<u64> {
        let mut named = self.image.symbols().named(name);
        let first = named.next()?.address;
        named.next().is_none().then_some(first)
    }

    /// Whether the kernel frees what is there when it, or the module, has started.
    pub(crate) fn is_freed(&self, place: &Living) -> bool {
        if &*place.object != VMLINUX {
            let (section, _) = Module::split(place.address);
            return self.module(&place.object).is_ok_and(|module| {
                module.elf.sections.get(section).is_some_and(|section| is_start(&section.name))
            });
        }
        self.is_between(place.address, "__init_begin", "__init_end")
    }

    /// Whether the kernel has it write-protected when it, or the module, has started.
    pub(crate) fn is_read_only(&self, place: &Living) -> bool {
        if &*place.object != VMLINUX {
            let (section, _) = Module::split(place.address);
            return self.module(&place.object).is_ok_and(|module| {
                let section = module.elf.sections.get(section);
                section.is_some_and(|one| !one.is_writable() || one.name.starts_with(".data..ro_after_init"))
            });
        }
        self.is_between(place.address, "__start_rodata", "__end_rodata")
            || self.is_between(place.address, "_stext", "_etext")
    }

    fn is_between(&self, address: u64, from: &str, to: &str) -> bool {
        self.address_of(from).zip(self.address_of(to)).is_some_and(|(from, to)| (from..to).contains(&address))
    }
}
