//! What the image puts into memory: the loaded sections and their contents, by name and by address.

use super::elf::ImageSection;

/// The unpacked kernel.
pub(crate) struct Memory {
    pub(super) bytes: Vec<u8>,
    pub(super) sections: Vec<ImageSection>,
}

impl Memory {
    /// The loaded section of a name.
    pub(crate) fn section_named(&self, name: &str) -> Option<&ImageSection> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The section that an address is in.
    pub(crate) fn section_at(&self, address: u64) -> Option<&ImageSection> {
        self.sections.iter().find(|section| section.range().contains(&address))
    }

    /// A section's contents, if the file has any.
    pub(crate) fn contents(&self, section: &ImageSection) -> Option<&[u8]> {
        self.bytes.get(section.file.clone()?)
    }

    /// `length` bytes at an address, if one section holds them all.
    pub(crate) fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.tail(address)?.get(..length)
    }

    /// The bytes from an address to the end of its section's contents.
    pub(crate) fn tail(&self, address: u64) -> Option<&[u8]> {
        let section = self.section_at(address)?;
        self.contents(section)?.get(usize::try_from(address - section.address).ok()?..)
    }

    /// The sections that hold no code, with their contents; `.rodata` is among the first.
    pub(crate) fn constants(&self) -> impl Iterator<Item = (&ImageSection, &[u8])> {
        self.sections
            .iter()
            .filter(|section| !section.is_code())
            .filter_map(|section| Some((section, self.contents(section)?)))
    }
}
