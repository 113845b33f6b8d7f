//! Positions of a module's symbols, as the kernel's livepatch counts them.
//!
//! The kernel walks the module's symbol table in file order (kernel/module/kallsyms.c,
//! `module_kallsyms_on_each_symbol`). But the table changes once: while the module is loading it is the
//! whole one, but for undefined symbols; once its init function has run only core symbols are left
//! (`is_core_symbol`), those in sections that stay in memory. Livepatch resolves symbols at either time, by
//! whether the module or the livepatch is loaded first.

use super::Module;
use crate::symbols::Position;
use kmend_object::{Object, Place, Symbol, SymbolId};

/// Sections that the loader reads and does not keep (kernel/module/main.c, `rewrite_section_headers`).
const NOT_KEPT: [&str; 2] = [".modinfo", "__versions"];

/// The position of a module's symbol at both times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModulePosition {
    /// Once the module's init function has run.
    pub live: Position,
    /// While the module is loading.
    pub coming: Position,
}

impl ModulePosition {
    /// The position that holds at both times. `None` where a symbol of the same name in an init section
    /// comes before it: no number is right both times. A name that is unique at one time only is none either:
    /// position 0 would be refused at the other.
    pub fn settled(self) -> Option<Position> {
        (self.live.position == self.coming.position && self.live.is_unique() == self.coming.is_unique())
            .then_some(self.live)
    }
}

impl Module {
    /// The position of a symbol among those of its name in this module; `None` for symbols that the loaded
    /// module does not have: undefined ones, and those of init sections.
    pub fn position(&self, id: SymbolId) -> Option<ModulePosition> {
        let object = &self.object;
        let symbol = object.symbols.get(id.index()).filter(|symbol| is_core(object, symbol))?;
        let mut position = ModulePosition {
            live: Position { position: 0, count: 0 },
            coming: Position { position: 0, count: 0 },
        };
        for other in object.symbols_named(&symbol.name) {
            let candidate = object.symbol(other);
            if candidate.place == Place::Undefined {
                continue;
            }
            count(&mut position.coming, other <= id);
            if is_core(object, candidate) {
                count(&mut position.live, other <= id);
            }
        }
        Some(position)
    }
}

fn count(position: &mut Position, up_to_it: bool) {
    position.count += 1;
    position.position += u32::from(up_to_it);
}

/// Whether the symbol is left once the init function has run.
fn is_core(object: &Object, symbol: &Symbol) -> bool {
    let Place::Section(section) = symbol.place else { return false };
    let Some(section) = object.sections.get(section.index()) else { return false };
    let name = section.name.as_str();
    !symbol.name.is_empty()
        && section.is_allocated()
        && !name.starts_with(".init")
        && !NOT_KEPT.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_object::{Binding, Section, SectionId, SymbolKind};

    fn section(name: &str, contents: &[u8]) -> Section {
        Section::allocated(name, 0, 1, contents.to_vec())
    }

    fn symbol(name: &str, section: SectionId) -> Symbol {
        Symbol {
            name: name.into(),
            value: 0,
            size: 0,
            binding: Binding::Local,
            kind: SymbolKind::Function,
            other: 0,
            place: Place::Section(section),
        }
    }

    /// `show` in .text, in the given section, and in .text again; `only` in .text.
    fn module(second: &str) -> Module {
        let mut object = Object::new();
        object.add_section(section(".modinfo", b"name=some\0"));
        let text = object.add_section(section(".text", &[0xc3]));
        let second = object.add_section(section(second, &[0xc3]));
        for (name, place) in [("show", text), ("show", second), ("show", text), ("only", text)] {
            object.add_symbol(symbol(name, place));
        }
        Module::parse(&object.write().unwrap()).unwrap()
    }

    fn positions(module: &Module, name: &str) -> Vec<Option<(u32, u32)>> {
        let ids: Vec<_> = module.object().symbols_named(name).collect();
        let settled = |id| module.position(id)?.settled().map(|found| (found.position, found.count));
        ids.into_iter().map(settled).collect()
    }

    #[test]
    fn positions_follow_the_symbol_table() {
        let module = module(".text.unlikely");
        assert_eq!(positions(&module, "show"), [Some((1, 3)), Some((2, 3)), Some((3, 3))]);
        assert_eq!(positions(&module, "only"), [Some((1, 1))]);
    }

    #[test]
    fn what_comes_after_an_init_symbol_of_its_name_has_no_settled_position() {
        let module = module(".init.text");
        assert_eq!(positions(&module, "show"), [Some((1, 2)), None, None]);
        let third = module.object().symbols_named("show").last().unwrap();
        let position = module.position(third).unwrap();
        assert_eq!((position.live.position, position.coming.position), (2, 3));
    }
}
