//! Facts of one target kernel, read from its image and its modules.
//!
//! A packaged kernel carries no debug information, and yet the image holds nearly everything that a
//! livepatch needs to know: [`Image`] unpacks a `vmlinuz` and reads from it every symbol with its address
//! and its position, the types, the exports with their CRCs, the release and the build id. [`Module`] reads
//! one `.ko`, packed or not, and [`ModuleTree`] the tree that they are installed in. [`Listing`] is what the
//! running kernel says of the same symbols.
//!
//! Whatever differs between kernels is found by its structure and never decided by a version number:
//! distributions backport.
//!
//! All input is untrusted. A damaged file is a [`KernelError`], never a panic; what a parser allocates is
//! bounded by the size of its input.
//!
//! Architecture invariant: this crate reads files and nothing else. It runs no command, writes nothing, and
//! knows nothing of sources, patches or the cache's layout.

mod btf;
mod error;
mod exports;
mod file;
mod image;
mod kallsyms;
mod le;
mod listing;
mod module;
mod symbols;
mod symtab;
mod unpack;

pub use btf::{Btf, Layout};
pub use error::KernelError;
pub use exports::Export;
pub use file::{LARGEST_MODULE, read_file};
pub use image::{Image, ImageSection, build_id};
pub use listing::Listing;
pub use module::{Module, ModulePosition, ModuleTree, SIGNATURE_MARK};
pub use symbols::{KernelSymbol, Position, Symbols};
pub use unpack::Packing;
