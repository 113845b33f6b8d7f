//! What is read of a running machine: the addresses of symbols and of a module's sections, and memory.

use crate::living::VMLINUX;
use kmend_kernel::{Btf, Listing};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most bytes of `/proc/kallsyms` and of one header that are read.
const LARGEST: u64 = 256 << 20;
const MOST_HEADERS: usize = 4096;
const PT_LOAD: u32 = 1;
/// Symbols that the tracer's code has (arch/x86/kernel/ftrace_64.S); kernel/trace/ftrace.c lists the copies for one user as
/// `ftrace_trampoline` of `__builtin__ftrace`.
const TRACER: [&str; 3] = ["ftrace_caller", "ftrace_regs_caller", "ftrace_trampoline"];

/// Why a running machine could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the kernel could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel tells nobody where it is, or in another form.
    #[error("{}: no addresses: only root is told them, and kernel.kptr_restrict must not be 2", .0.display())]
    Hidden(PathBuf),
    /// `/proc/kcore` is not the core file that it should be.
    #[error("{}: {why}", path.display())]
    Core {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The module is not loaded.
    #[error("the module {0} is not loaded")]
    NotLoaded(String),
}

/// Where memory is read.
pub trait Memory {
    /// The bytes at an address; `None` if there are none.
    fn read(&self, address: u64, length: usize) -> Option<Vec<u8>>;
}

/// What the livepatch loader makes of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    Place(u64),
    /// Its module is not loaded, so that nothing is written yet.
    NotLoaded,
    /// The kernel has no such symbol, or several.
    Nothing,
}

/// A running machine, and one of its modules.
pub struct Machine {
    sections: HashMap<String, u64>,
    symbols: Listing,
    memory: Box<dyn Memory>,
    types: Option<Btf>,
}

impl Machine {
    /// Reads `/proc` and `/sys` below `root`, which is `/` on the machine itself.
    ///
    /// # Errors
    ///
    /// [`MachineError`] if one of the files cannot be read, or the kernel hides addresses.
    pub fn open(root: &Path, module: &str) -> Result<Machine, MachineError> {
        let folder = root.join("sys/module").join(module).join("sections");
        if !folder.is_dir() {
            return Err(MachineError::NotLoaded(module.to_owned()));
        }
        let mut sections = HashMap::new();
        let list = fs::read_dir(&folder).map_err(failed(&folder))?;
        for entry in list {
            let entry = entry.map_err(failed(&folder))?;
            let path = entry.path();
            let text = fs::read_to_string(&path).map_err(failed(&path))?;
            let address = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap_or(0);
            sections.insert(entry.file_name().to_string_lossy().into_owned(), address);
        }
        let path = root.join("proc/kallsyms");
        let mut text = Vec::new();
        let file = File::open(&path).map_err(failed(&path))?;
        file.take(LARGEST).read_to_end(&mut text).map_err(failed(&path))?;
        let memory = Core::open(&root.join("proc/kcore"))?;
        let types = fs::read(root.join("sys/kernel/btf/vmlinux")).ok();
        let types = types.and_then(|bytes| Btf::parse(&bytes).ok());
        let symbols = Listing::parse(&String::from_utf8_lossy(&text)).ok_or(MachineError::Hidden(path))?;
        Ok(Machine::new(sections, symbols, types, Box::new(memory)))
    }

    /// A machine of its parts: the module's sections, its symbols, the kernel's types, and memory.
    #[must_use]
    pub fn new(
        sections: HashMap<String, u64>,
        symbols: Listing,
        types: Option<Btf>,
        memory: Box<dyn Memory>,
    ) -> Machine {
        Machine { sections, symbols, memory, types }
    }

    pub(super) fn types(&self) -> Option<&Btf> {
        self.types.as_ref()
    }

    /// Where a section of the module is.
    pub(super) fn section(&self, name: &str) -> Option<u64> {
        self.sections.get(name).copied().filter(|&address| address != 0)
    }

    pub(super) fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        self.memory.read(address, length)
    }

    pub(super) fn has_module(&self, name: &str) -> bool {
        self.symbols.symbols(name).is_some()
    }

    /// A symbol by its position among those of its name in an object; 0 if there must be one
    /// (Documentation/livepatch/module-elf-format.rst).
    pub(super) fn resolve(&self, object: &str, name: &str, position: u64) -> Option<u64> {
        let mut found = self.symbols.symbols(object)?.named(name);
        let index = match position {
            0 if found.len() == 1 => 0,
            0 => return None,
            position => usize::try_from(position - 1).ok()?,
        };
        found.nth(index).map(|symbol| symbol.address)
    }

    /// What a livepatch symbol leads to.
    pub(super) fn livepatch_symbol(&self, text: &str) -> Resolved {
        let parse = || {
            let (object, rest) = text.strip_prefix(".klp.sym.")?.split_once('.')?;
            let (name, position) = rest.rsplit_once(',')?;
            Some((object, name, position.parse().ok()?))
        };
        match parse() {
            Some((object, ..)) if object != VMLINUX && !self.has_module(object) => Resolved::NotLoaded,
            Some((object, name, position)) => {
                self.resolve(object, name, position).map_or(Resolved::Nothing, Resolved::Place)
            }
            None => Resolved::Nothing,
        }
    }

    /// What is exported under a name: a global symbol of the kernel proper, or of the one module that has it.
    pub(super) fn export(&self, name: &str) -> Option<u64> {
        let global = |object: &str| {
            let named = self.symbols.symbols(object)?.named(name);
            let mut global =
                named.filter(|symbol| symbol.kind.is_ascii_uppercase() || matches!(symbol.kind, b'w' | b'v'));
            global.next().filter(|_| global.next().is_none()).map(|symbol| symbol.address)
        };
        if let Some(found) = global(VMLINUX) {
            return Some(found);
        }
        let mut found = self.symbols.objects().filter(|object| *object != VMLINUX).filter_map(global);
        found.next().filter(|_| found.next().is_none())
    }

    /// Whether an address is in the tracer's code.
    pub(super) fn is_tracer(&self, address: u64) -> bool {
        let Some((object, nearest, _)) = self.symbols.owner(address) else { return false };
        let is_kernel = object == VMLINUX || object.starts_with("__builtin");
        let aliases = self.symbols.symbols(object).map_or(&[][..], |symbols| symbols.at(nearest.address));
        is_kernel && aliases.iter().any(|symbol| TRACER.contains(&&*symbol.name))
    }
}

/// `/proc/kcore` (fs/proc/kcore.c): an ELF core file whose segments are the kernel's memory.
#[derive(Debug)]
struct Core {
    file: File,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
}

impl Core {
    fn open(path: &Path) -> Result<Core, MachineError> {
        let file = File::open(path).map_err(failed(path))?;
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).map_err(failed(path))?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return Err(MachineError::Core { path: path.to_owned(), why: "it is no 64-bit ELF file" });
        }
        let start = number(&header[32..40]);
        let size = number(&header[54..56]);
        let count = number(&header[56..58]) as usize;
        if size < 56 || count > MOST_HEADERS {
            return Err(MachineError::Core {
                path: path.to_owned(),
                why: "its program headers are malformed",
            });
        }
        let mut segments = Vec::new();
        for index in 0..count as u64 {
            let mut one = [0; 56];
            let at = start.saturating_add(index * size);
            file.read_exact_at(&mut one, at).map_err(failed(path))?;
            if number(&one[..4]) == u64::from(PT_LOAD) {
                segments.push(Segment {
                    offset: number(&one[8..16]),
                    address: number(&one[16..24]),
                    size: number(&one[40..48]),
                });
            }
        }
        Ok(Core { file, segments })
    }
}

impl Memory for Core {
    fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let segment = self.segments.iter().find(|segment| {
            let from = address.checked_sub(segment.address);
            from.and_then(|from| from.checked_add(length as u64)).is_some_and(|end| end <= segment.size)
        })?;
        let mut bytes = vec![0; length];
        let at = segment.offset.checked_add(address - segment.address)?;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> MachineError + use<> {
    let path = path.to_owned();
    |source| MachineError::Io { path, source }
}
