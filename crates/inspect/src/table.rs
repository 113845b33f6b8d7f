//! The patch table: `struct klp_patch` with its objects and functions, as they lie in the module's data.
//!
//! The fields that a livepatch sets come first in all three structures, and have had these offsets since
//! Linux 5.5 (include/linux/livepatch.h; `states` came with 92c9abf5e575). What follows them is the kernel's
//! own, differs in size from kernel to kernel, and is zero in the file. So the entries of an array are found
//! by their relocations, and no structure's size is needed:
//!
//! ```text
//! klp_patch    0 mod      -> __this_module   8 objs  -> klp_object[]   16 states   24 replace
//! klp_object   0 name     -> text, or none   8 funcs -> klp_func[]     16 .. 40 callbacks
//! klp_func     0 old_name -> text            8 new_func -> function    16 old_sympos
//! ```
//!
//! A patch for kmend's consistency engine has structures of the same kind (engine/kmend_engine.h). In place of a position they
//! have a pointer to the living function, which is a livepatch relocation and names the position:
//!
//! ```text
//! kmend_patch  0 mod      -> __this_module   8 objects -> kmend_object[]     16 replace
//! kmend_object 0 name     -> text, or none   8 funcs -> kmend_func[]         16 .. 40 callbacks
//! kmend_func   0 name     -> text            8 old_func -> living function   16 new_func -> function
//! ```

use kmend_object::{Object, Relocation, SectionId, elf};
use serde::Serialize;
use std::collections::BTreeMap;

const MODULE_SYMBOL: &str = "__this_module";
/// For whom a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The kernel's livepatch.
    Kernel,
    /// kmend's consistency engine.
    Engine,
}

impl Reader {
    /// Of `replace` in the patch.
    fn replace(self) -> u64 {
        match self {
            Reader::Kernel => 24,
            Reader::Engine => 16,
        }
    }

    /// Of `new_func` in a function.
    fn new_function(self) -> u64 {
        match self {
            Reader::Kernel => 8,
            Reader::Engine => 16,
        }
    }
}

/// Of `old_sympos` in `klp_func`.
const POSITION: u64 = 16;
/// Of `old_func` in `kmend_func`.
const LIVING: u64 = 8;
/// Of the callbacks in an object.
const CALLBACKS: [(u64, &str); 4] =
    [(16, "pre_patch"), (24, "post_patch"), (32, "pre_unpatch"), (40, "post_unpatch")];

/// A module's patch table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) replace: bool,
    pub(crate) objects: Vec<PatchedObject>,
}

/// One object that a livepatch changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchedObject {
    /// `vmlinux` or a module's name.
    pub name: String,
    /// The functions that are replaced, in the table's order.
    pub functions: Vec<PatchedFunction>,
    /// What runs before and after the object is patched and unpatched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<Callback>,
}

/// One function that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchedFunction {
    /// Its name in the running kernel.
    pub name: String,
    /// Its position among the symbols of its name, counted from 1; 0 where it is unique.
    pub position: u64,
    /// The function of the module that is put in its place.
    pub replacement: String,
}

/// One callback of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Callback {
    /// `pre_patch`, `post_patch`, `pre_unpatch` or `post_unpatch`.
    pub when: &'static str,
    /// The function of the module.
    pub function: String,
}

/// Reads the patch table; `None` if the module has none in its data.
pub(crate) fn read(object: &Object, reader: Reader) -> Option<Patch> {
    let pointers = Pointers::of(object, reader);
    let patch = pointers.all.keys().find_map(|&place| pointers.patch_at(place));
    patch.map(|mut patch| {
        patch.objects.sort_by_key(|object| object.name != crate::VMLINUX);
        patch
    })
}

/// Names the functions of the patch's author in the place of those with which kmend calls them, as its modules say
/// in `.modinfo`: `OBJECT MOMENT FUNCTION`.
pub(crate) fn name_callbacks<'a>(patch: &mut Patch, described: impl Iterator<Item = &'a str>) {
    let mut named: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for description in described {
        let mut words = description.splitn(3, ' ');
        if let (Some(object), Some(when), Some(function)) = (words.next(), words.next(), words.next()) {
            named.entry((object, when)).or_default().push(function);
        }
    }
    for object in &mut patch.objects {
        for callback in std::mem::take(&mut object.callbacks) {
            let functions = named.get(&(object.name.as_str(), callback.when));
            let called = functions.into_iter().flatten().map(|&function| function.to_owned());
            let called = called.map(|function| Callback { when: callback.when, function });
            object.callbacks.extend(called);
            if functions.is_none() {
                object.callbacks.push(callback);
            }
        }
    }
}

/// A byte of a section.
type Place = (SectionId, u64);

/// Every 64-bit pointer in the module's data.
struct Pointers<'a> {
    object: &'a Object,
    reader: Reader,
    all: BTreeMap<Place, &'a Relocation>,
    /// Pointers that the livepatch loader writes: the names of their symbols.
    late: BTreeMap<Place, &'a str>,
    /// Functions by their entry.
    functions: BTreeMap<Place, &'a str>,
    /// Data by its start: its size.
    sizes: BTreeMap<Place, u64>,
}

impl<'a> Pointers<'a> {
    fn of(object: &'a Object, reader: Reader) -> Self {
        let data = || {
            object.section_ids().filter(|&id| {
                let section = object.section(id);
                section.is_allocated() && !section.is_code()
            })
        };
        let late = data().flat_map(|id| {
            let lists = object.section(id).livepatch.iter().flat_map(|list| &list.relocations);
            lists.filter_map(move |it| {
                Some(((id, it.offset), object.symbols.get(it.symbol.index())?.name.as_str()))
            })
        });
        let all = data()
            .flat_map(|id| object.section(id).relocations.iter().map(move |relocation| (id, relocation)))
            .filter(|(_, relocation)| relocation.kind == elf::R_X86_64_64)
            .map(|(id, relocation)| ((id, relocation.offset), relocation))
            .collect();
        let defined =
            || object.symbols.iter().filter_map(|symbol| Some((symbol, (symbol.section()?, symbol.value))));
        Pointers {
            object,
            reader,
            all,
            late: late.collect(),
            functions: defined()
                .filter(|(symbol, _)| symbol.is_function())
                .map(|(symbol, place)| (place, symbol.name.as_str()))
                .collect(),
            sizes: defined()
                .filter(|(symbol, _)| !symbol.is_function() && symbol.size > 0)
                .map(|(symbol, place)| (place, symbol.size))
                .collect(),
        }
    }

    /// What the pointer at a place points at, if that is in the module.
    fn follow(&self, place: Place) -> Option<Place> {
        let relocation = self.all.get(&place)?;
        let symbol = self.object.symbols.get(relocation.symbol.index())?;
        Some((symbol.section()?, symbol.value.wrapping_add_signed(relocation.addend)))
    }

    fn points_at_module(&self, place: Place) -> bool {
        let symbol = self.all.get(&place).and_then(|it| self.object.symbols.get(it.symbol.index()));
        symbol.is_some_and(|symbol| symbol.name == MODULE_SYMBOL)
    }

    fn text(&self, place: Place) -> Option<String> {
        let (section, offset) = self.follow(place)?;
        let text = self.object.section(section).string_at(offset)?;
        let text = str::from_utf8(text.bytes()).ok()?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn function(&self, place: Place) -> Option<String> {
        self.functions.get(&self.follow(place)?).map(|&name| name.to_owned())
    }

    /// Where the array at a place ends at the latest: its symbol's end, else that of the section.
    fn end(&self, (section, offset): Place) -> u64 {
        let size = self.sizes.get(&(section, offset)).copied();
        let end = size.and_then(|size| offset.checked_add(size));
        end.unwrap_or(u64::MAX).min(self.object.section(section).size)
    }

    /// The places of pointers in an array, in order.
    fn within(&self, array: Place, end: u64) -> impl Iterator<Item = Place> {
        // An array that ends before it begins has nothing in it.
        let end = end.max(array.1);
        self.all.range(array..(array.0, end)).map(|(&place, _)| place)
    }

    fn patch_at(&self, place: Place) -> Option<Patch> {
        if !self.points_at_module(place) {
            return None;
        }
        let objects = self.objects(self.follow(after(place, 8)?)?);
        let replace =
            self.object.section(place.0).bytes(place.1.checked_add(self.reader.replace())?, 1)? != [0];
        // Many things begin with THIS_MODULE; only a patch goes on to objects with functions or callbacks.
        let is_patch = objects.iter().any(|it| !it.functions.is_empty() || !it.callbacks.is_empty());
        is_patch.then_some(Patch { replace, objects })
    }

    fn objects(&self, array: Place) -> Vec<PatchedObject> {
        let end = self.end(array);
        // An object's name is NULL for vmlinux: the pointer to its functions is what it always has.
        let starts: Vec<(Place, Place)> = self
            .within(array, end)
            .filter_map(|funcs| Some(((funcs.0, funcs.1.checked_sub(8)?), self.follow(funcs)?)))
            .filter(|(start, funcs)| start.1 >= array.1 && self.is_object(*start, *funcs))
            .collect();
        let arrays: Vec<Place> = starts.iter().map(|&(_, funcs)| funcs).collect();
        starts.iter().map(|&(start, funcs)| self.object_at(start, funcs, &arrays)).collect()
    }

    /// Whether it is an object with these functions. One without any has callbacks at least, and an empty array where the
    /// kernel can write.
    fn is_object(&self, start: Place, funcs: Place) -> bool {
        let is_callback = |&(offset, _): &(u64, _)| {
            after(start, offset)
                .and_then(|place| self.follow(place))
                .is_some_and(|to| self.functions.contains_key(&to))
        };
        self.function_at(funcs).is_some()
            || self.object.section(funcs.0).is_writable() && CALLBACKS.iter().any(is_callback)
    }

    fn object_at(&self, place: Place, funcs: Place, arrays: &[Place]) -> PatchedObject {
        // In a stripped module nothing but the next array bounds this one.
        let next =
            arrays.iter().filter(|other| other.0 == funcs.0 && other.1 > funcs.1).map(|other| other.1).min();
        let end = self.end(funcs).min(next.unwrap_or(u64::MAX));
        let callback = |&(offset, when): &(u64, &'static str)| {
            Some(Callback { when, function: self.function(after(place, offset)?)? })
        };
        PatchedObject {
            name: self.text(place).unwrap_or_else(|| crate::VMLINUX.to_owned()),
            functions: self.within(funcs, end).filter_map(|entry| self.function_at(entry)).collect(),
            callbacks: CALLBACKS.iter().filter_map(callback).collect(),
        }
    }

    fn function_at(&self, place: Place) -> Option<PatchedFunction> {
        Some(PatchedFunction {
            name: self.text(place)?,
            position: self.position_at(place)?,
            replacement: self.function(after(place, self.reader.new_function())?)?,
        })
    }

    fn position_at(&self, place: Place) -> Option<u64> {
        if self.reader == Reader::Engine {
            let living = self.late.get(&after(place, LIVING)?)?;
            return crate::livepatch_symbol(living).map(|symbol| symbol.position);
        }
        let position = self.object.section(place.0).bytes(place.1.checked_add(POSITION)?, 8)?;
        Some(u64::from_le_bytes(position.try_into().ok()?))
    }
}

fn after((section, offset): Place, distance: u64) -> Option<Place> {
    Some((section, offset.checked_add(distance)?))
}

#[cfg(test)]
mod tests;
