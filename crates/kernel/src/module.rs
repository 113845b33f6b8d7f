//! One kernel module: its object, what it says of itself, its exports and its symbols' positions.

mod exports;
mod positions;
mod tree;

use crate::error::KernelError;
use crate::exports::Export;
use crate::file::{LARGEST_MODULE, read_file};
use crate::unpack::Packing;
use kmend_object::{Object, ObjectError, Section};
pub use positions::ModulePosition;
use std::collections::BTreeMap;
use std::path::Path;
pub use tree::ModuleTree;

/// How a signed module ends (include/linux/module_signature.h, `MODULE_SIG_STRING`).
pub const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// A kernel module as it lies in the tree.
pub struct Module {
    object: Object,
    name: String,
    exports: BTreeMap<String, Export>,
    signed: bool,
}

impl Module {
    /// Reads a module, packed or not; by its contents, not by its file name.
    pub fn open(path: &Path) -> Result<Module, KernelError> {
        let bytes = read_file(path, LARGEST_MODULE)
            .map_err(|source| KernelError::Io { path: path.into(), source })?;
        Module::parse(&bytes).map_err(|error| error.in_file(path))
    }

    /// The same from the file's contents.
    pub fn parse(bytes: &[u8]) -> Result<Module, KernelError> {
        match Packing::detect(bytes) {
            Some(packing) => Module::parse_plain(&packing.unpack(bytes).map_err(KernelError::Module)?),
            None => Module::parse_plain(bytes),
        }
    }

    fn parse_plain(bytes: &[u8]) -> Result<Module, KernelError> {
        let object = Object::parse(bytes).map_err(|error| match error {
            ObjectError::Architecture(machine) => KernelError::Architecture(machine),
            other => KernelError::Module(other.to_string()),
        })?;
        let name = modinfo(&object, "name").next().map(str::to_owned).ok_or_else(|| {
            KernelError::Module("its .modinfo does not name it: an object, but not a module".into())
        })?;
        let exports = exports::read(&object)?;
        Ok(Module { object, name, exports, signed: bytes.ends_with(SIGNATURE_MARK) })
    }

    /// The ELF object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The same, for a stage that goes on with it alone.
    pub fn into_object(self) -> Object {
        self.object
    }

    /// Its name as /proc/modules prints it, with `_`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values of a key of `.modinfo`, as modinfo(8) prints them.
    pub fn modinfo<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        modinfo(&self.object, key)
    }

    /// The release of the kernel that it is built for: the first word of `vermagic`.
    pub fn release(&self) -> Option<&str> {
        modinfo(&self.object, "vermagic").next()?.split(' ').next()
    }

    /// The modules that must be loaded before it, by name with `_`.
    pub fn depends(&self) -> impl Iterator<Item = String> {
        let lists = modinfo(&self.object, "depends");
        lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty()).map(plain_name)
    }

    /// The modules that it would have loaded before it if they are there (`MODULE_SOFTDEP("pre: ...")`), by
    /// name with `_`, or by an alias.
    pub fn soft_depends(&self) -> impl Iterator<Item = String> {
        modinfo(&self.object, "softdep").flat_map(before).map(plain_name)
    }

    /// Whether it stays in memory once it was enabled, because the kernel's data then points to it: kmend's own
    /// word for livepatches that exchange data. Such a livepatch cannot be loaded again before the next boot.
    pub fn stays(&self) -> bool {
        self.modinfo("kmend_pins").any(|value| value == "Y")
    }

    /// What it exports to other modules, by name.
    pub fn exports(&self) -> &BTreeMap<String, Export> {
        &self.exports
    }

    /// Whether a signature is appended to it. It is not checked here.
    pub fn is_signed(&self) -> bool {
        self.signed
    }
}

/// The words of a soft dependency between `pre:` and `post:`.
fn before(softdep: &str) -> impl Iterator<Item = &str> {
    let words = softdep.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
    words.take_while(|word| *word != "post:")
}

/// `-` and `_` are one in names of modules; the kernel prints `_`.
fn plain_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The values of a key in `.modinfo`: `key=value` texts, each with its terminator.
fn modinfo<'a>(object: &'a Object, key: &'a str) -> impl Iterator<Item = &'a str> {
    let section = object.sections.iter().find(|section| section.name == ".modinfo");
    let contents = section.map_or(&[][..], |section: &Section| &section.data);
    contents
        .split(|&byte| byte == 0)
        .filter_map(move |entry| std::str::from_utf8(entry).ok()?.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(modinfo: &str) -> Object {
        let mut object = Object::new();
        object.add_section(Section::allocated(".modinfo", 0, 1, modinfo.into()));
        object
    }

    const MODINFO: &str = "name=some_one\0depends=a-b,c\0softdep=post: late pre: x-y z post: w\0\
                           vermagic=6.1.0-9-amd64 SMP preempt \0alias=one\0alias=two\0";

    #[test]
    fn a_module_says_what_it_is() {
        let mut bytes = object(MODINFO).write().unwrap();
        assert!(!Module::parse(&bytes).unwrap().is_signed());
        bytes.extend_from_slice(SIGNATURE_MARK);
        let module = Module::parse(&bytes).unwrap();
        assert!(module.is_signed());
        assert_eq!(module.name(), "some_one");
        assert_eq!(module.release(), Some("6.1.0-9-amd64"));
        assert_eq!(module.modinfo("alias").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(module.depends().collect::<Vec<_>>(), ["a_b", "c"]);
        assert_eq!(module.soft_depends().collect::<Vec<_>>(), ["x_y", "z"]);
    }

    #[test]
    fn a_packed_module_is_unpacked() {
        let bytes = zstd::encode_all(&object(MODINFO).write().unwrap()[..], 1).unwrap();
        assert_eq!(Module::parse(&bytes).unwrap().name(), "some_one");
    }

    #[test]
    fn an_object_without_a_name_is_no_module() {
        let bytes = object("license=GPL\0").write().unwrap();
        assert!(matches!(Module::parse(&bytes), Err(KernelError::Module(_))));
        assert!(matches!(Module::parse(b"hello"), Err(KernelError::Module(_))));
    }
}
