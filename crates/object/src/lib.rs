//! Relocatable ELF as plain data: an arena of sections, symbols and relocations
