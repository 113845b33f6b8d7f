//! What the linker asks of the kernel and of the match, as traits: the plan is a pure function of the
//! answers and can be tried on tables.

/// One definition of a name in the running kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Location {
    /// The object that holds it: `vmlinux` or a module's name.
    pub object: String,
    /// The symbol's name there.
    pub name: String,
    /// Its place among the object's symbols of this name in kallsyms order, counted from 1.
    pub position: u32,
    /// How many symbols of this name the object has.
    pub count: u32,
}

impl Location {
    /// The position as the kernel wants it in `old_sympos` and in `.klp.sym` names: 0 for a name that is
    /// unique in its object, else the place counted from 1 (kernel/livepatch/core.c,
    /// `klp_find_object_symbol`).
    pub fn sympos(&self) -> u32 {
        if self.count > 1 { self.position } else { 0 }
    }
}

/// What the match of one translation unit proved: where each symbol of the original object lives.
pub trait Locate {
    /// The living symbol for a symbol of the original object, by its name there.
    fn locate(&self, name: &str) -> Option<Location>;
    /// The same of another unit of the patch that belongs to the same object, by its source.
    fn locate_in(&self, unit: &str, name: &str) -> Option<Location>;
}

/// Who exports a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// `vmlinux` or a module's name.
    pub by: String,
    /// Whether a module must import a namespace to use it.
    pub namespaced: bool,
}

/// A symbol found by name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub location: Location,
    /// Whether it is global: an upper-case kind in kallsyms.
    pub global: bool,
    /// Whether it gives way to a definition that is not weak: `W` and `V` in kallsyms.
    pub weak: bool,
}

/// The kernel's symbols by name, without proof.
pub trait KernelSymbols {
    /// Who exports the symbol, if anyone does.
    fn exported(&self, symbol: &str) -> Option<Exported>;
    /// Whether `module` is `other` or is never loaded without it.
    fn needs(&self, module: &str, other: &str) -> bool;
    /// Whether what lies there is freed when the kernel has started.
    fn is_freed(&self, location: &Location) -> bool;
    /// Whether it is a function that must not be called through a pointer.
    fn is_called_by_name_alone(&self, location: &Location) -> bool;
    /// Every symbol of this name in `object` (`vmlinux` or a module), in kallsyms order.
    fn candidates(&self, object: &str, symbol: &str) -> Vec<Candidate>;
}
