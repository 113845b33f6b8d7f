//! What the matcher asks of the kernel that ships.
//!
//! Both kinds answer in one space of addresses: an image in the one it is linked to, a module in one made up
//! for the match, in which every section and every undefined symbol has a place of its own.

mod image;
mod module;

use crate::matched::Located;
#[cfg(test)]
pub(crate) use image::linked_target;
pub(crate) use image::{InImage, exported};
use kmend_object::Relocation;
pub(crate) use module::InModule;
use std::ops::Range;

/// The contents of a piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents<'a> {
    /// These bytes.
    Held(&'a [u8]),
    /// It begins as zeros, or is filled at boot.
    Zeros,
    /// It is not, or not as a whole, in one section.
    Nowhere,
}

/// A symbol of the shipped kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) address: u64,
    /// Seen by all units.
    pub(crate) global: bool,
}

/// The shipped kernel or module.
pub(crate) trait Shipped {
    /// The initial contents of `length` bytes of memory.
    fn contents(&self, address: u64, length: u64) -> Contents<'_>;

    /// The address of the symbol (`S` in the psABI's formulas) that a relocation of this kind and addend at
    /// this place must have referred to; `None` where there can have been no such relocation.
    fn target(&self, place: u64, relocation: &Relocation) -> Option<u64>;

    /// Whether a relocation is left at a place where the unit has none. Linked code has none left.
    fn has_relocation(&self, places: Range<u64>) -> Option<u64>;

    /// The symbols of a name.
    fn named(&self, name: &str) -> Vec<Named>;

    /// The names of the symbols at an address.
    fn names_at(&self, address: u64) -> Vec<&str>;

    /// The nearest symbol before an address and the distance from it in bytes.
    fn nearest(&self, address: u64) -> Option<(&str, u64)>;

    /// The memory that holds all units' sections of this name, where it has known bounds.
    fn gathered(&self, section: &str) -> Option<Range<u64>>;

    /// The address as it is told to the user: in a module, the offset in the section.
    fn shown(&self, address: u64) -> u64;

    /// How the kernel knows the symbol at an address that the unit calls `name`.
    fn located(&self, address: u64, name: &str) -> Located;
}
