//! A section of its own for every datum of a data section that the source names.
//!
//! `-fdata-sections` leaves data alone that an attribute puts into a section (`__read_mostly`, `__ro_after_init`): it stands
//! behind each other. The assembler refers to what is static by section and offset, so that the end of an array
//! is the beginning of what stands behind it, and whoever moves one of them cannot tell which is meant. So in the text
//! from which the differ's objects are made, each datum of such a section gets a section of the same name
//! with a number that tells them apart (binutils 2.35: ".section NAME,FLAGS,TYPE,unique,NUMBER"). The name stays,
//! because it says what kind of memory it is.
//!
//! This is done where data stands alone. Of other sections with a name the kernel makes tables, in which place and order count
//! (`__param`, `.initcall6.init`, `__ksymtab`, what lies between a `__start_` and a `__stop_`).
//!
//! What the compiler writes of a datum (gcc/varasm.cc, `assemble_variable`) begins with its alignment if it has one, then
//! `.type NAME, @object`. It leaves inline assembly before.

use crate::assembly::section;
use std::collections::HashMap;

/// How the names of sections begin whose data stands alone (include/asm-generic/vmlinux.lds.h: DATA_DATA, BSS, RO_DATA,
/// READ_MOSTLY_DATA, CACHELINE_ALIGNED_DATA, PAGE_ALIGNED_DATA, RO_AFTER_INIT_DATA, PERCPU_INPUT, INIT_DATA and EXIT_DATA
/// collect them in any order).
const ALONE: &[&str] = &[
    ".data",
    ".bss",
    ".rodata",
    ".init.data",
    ".init.rodata",
    ".meminit.data",
    ".meminit.rodata",
    ".exit.data",
    ".exit.rodata",
    ".ref.data",
    ".ref.rodata",
];

/// Sections that have directives of their own, or no flags: as the assembler knows them.
const WELL_KNOWN: &[(&str, &str)] =
    &[(".data", ",\"aw\",@progbits"), (".bss", ",\"aw\",@nobits"), (".rodata", ",\"a\",@progbits")];

/// What the reader of the text has seen of its data.
pub struct Data<'a> {
    /// The flags and type of each section, from its first directive.
    flags: HashMap<&'a str, &'a str>,
    /// The section that the compiler is in, if its data stands alone.
    current: Option<&'a str>,
    /// The datum whose section is open.
    open: Option<&'a str>,
    /// How many got a section.
    count: u32,
}

impl Default for Data<'_> {
    fn default() -> Self {
        let flags = WELL_KNOWN.iter().copied().collect();
        Data { flags, current: None, open: None, count: 0 }
    }
}

impl<'a> Data<'a> {
    /// Begins a datum if one begins with these lines; the result is the directive for its section.
    pub fn enter(&mut self, lines: &[&'a [u8]]) -> Option<String> {
        let section = self.current?;
        let datum = datum_begun(lines).filter(|datum| self.open != Some(*datum))?;
        self.open = Some(datum);
        let made_by_the_flags = section.strip_suffix(datum).is_some_and(|rest| rest.ends_with('.'));
        let flags = *self.flags.get(section)?;
        let typed = match flags {
            ",\"a\"" | ",\"aw\"" => format!("{flags},@progbits"),
            _ if [",\"a\",@", ",\"aw\",@"].iter().any(|start| flags.starts_with(start)) => flags.to_owned(),
            // Mergeable, of a group, bound to another: it is no datum's alone.
            _ => return None,
        };
        if made_by_the_flags {
            return None;
        }
        self.count += 1;
        Some(format!("\t.section\t{section}{typed},unique,{}\n", self.count))
    }

    /// Reads a line.
    pub fn pass(&mut self, line: &'a [u8]) {
        let (name, flags) = match line.trim_ascii_end() {
            b"\t.data" => (".data", ""),
            b"\t.bss" => (".bss", ""),
            b"\t.text" => (".text", ""),
            _ => match section(line) {
                Some(directive) => directive,
                None => return,
            },
        };
        if !flags.is_empty() {
            self.flags.entry(name).or_insert(flags);
        }
        let is_alone = |start: &&str| {
            name.strip_prefix(*start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.current = ALONE.iter().any(is_alone).then_some(name);
        self.open = None;
    }
}

/// The datum whose text begins with these lines.
fn datum_begun<'a>(lines: &[&'a [u8]]) -> Option<&'a str> {
    let first = lines.first()?;
    let line = if first.starts_with(b"\t.align\t") || first.starts_with(b"\t.align ") {
        lines.get(1)?
    } else {
        first
    };
    std::str::from_utf8(line).ok()?.trim_end().strip_prefix("\t.type\t")?.strip_suffix(", @object")
}

#[cfg(test)]
mod tests {
    use crate::own_sections::with_own_sections;

    fn check(input: &str, expect: &str) {
        assert_eq!(String::from_utf8(with_own_sections(input.as_bytes())).unwrap(), expect);
    }

    #[test]
    fn data_of_a_named_section_comes_apart() {
        check(
            "\t.globl\ta\n\t.section\t.data..read_mostly,\"aw\"\n\t.align 4\n\t.type\ta, @object\n\t.size\ta, 4\na:\n\t.long\t5\n\
             \t.type\tc, @object\n\t.size\tc, 1\nc:\n\t.zero\t1\n\
             \t.section\t.init.rodata,\"a\"\n\t.type\tn, @object\nn:\n\t.string\t\"x\"\n\
             \t.section\t.data..read_mostly\n\t.align 4\n\t.type\tb, @object\nb:\n\t.long\t7\n",
            "\t.globl\ta\n\t.section\t.data..read_mostly,\"aw\"\n\t.section\t.data..read_mostly,\"aw\",@progbits,unique,1\n\
             \t.align 4\n\t.type\ta, @object\n\t.size\ta, 4\na:\n\t.long\t5\n\
             \t.section\t.data..read_mostly,\"aw\",@progbits,unique,2\n\t.type\tc, @object\n\t.size\tc, 1\nc:\n\t.zero\t1\n\
             \t.section\t.init.rodata,\"a\"\n\t.section\t.init.rodata,\"a\",@progbits,unique,3\n\t.type\tn, @object\nn:\n\t.string\t\"x\"\n\
             \t.section\t.data..read_mostly\n\t.section\t.data..read_mostly,\"aw\",@progbits,unique,4\n\t.align 4\n\t.type\tb, @object\nb:\n\t.long\t7\n",
        );
    }

    #[test]
    fn data_without_bytes_keeps_its_type() {
        check(
            "\t.section\t.bss..page_aligned,\"aw\",@nobits\n\t.align 4096\n\t.type\tp, @object\np:\n\t.zero\t1\n\t.data\n\t.type\td, @object\nd:\n",
            "\t.section\t.bss..page_aligned,\"aw\",@nobits\n\t.section\t.bss..page_aligned,\"aw\",@nobits,unique,1\n\
             \t.align 4096\n\t.type\tp, @object\np:\n\t.zero\t1\n\t.data\n\t.section\t.data,\"aw\",@progbits,unique,2\n\t.type\td, @object\nd:\n",
        );
    }

    #[test]
    fn tables_strings_and_what_the_flags_made_stay() {
        for text in [
            "\t.section\t.data.v,\"aw\"\n\t.align 4\n\t.type\tv, @object\nv:\n\t.long\t1\n",
            "\t.section\t.rodata.t.0,\"a\"\n\t.type\tt.0, @object\nt.0:\n\t.long\t1\n",
            "\t.section\t__param,\"a\"\n\t.align 8\n\t.type\tv, @object\nv:\n\t.quad\t1\n",
            "\t.section\t.initcall6.init,\"a\"\n\t.type\tv, @object\nv:\n\t.long\t1\n",
            "\t.section\t.database,\"aw\"\n\t.type\tv, @object\nv:\n\t.long\t1\n",
            "\t.section\t.rodata.str1.1,\"aMS\",@progbits,1\n\t.type\tv, @object\nv:\n\t.string\t\"\"\n",
            "\t.section\t.data..x,\"awG\",@progbits,v,comdat\n\t.type\tv, @object\nv:\n\t.long\t1\n",
            "\t.section\t.init.text,\"ax\",@progbits\n#APP\n\t.section\t.data..x,\"aw\"\n\t.previous\n#NO_APP\n\t.type\tv, @object\nv:\n",
            "\t.section\t.data..x,\"aw\"\n#APP\n\t.align 4\n\t.type\tv, @object\nv:\n#NO_APP\n",
            "\t.section\t.rodata\n\t.align 8\n.L4:\n\t.quad\t.L5\n",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn text_that_ends_anywhere_is_passed_on() {
        let whole = "\t.section\t.data..x,\"aw\"\n\t.align 4\n\t.type\tv, @object\n";
        for end in 0..whole.find(", @object").unwrap() {
            check(&whole[..end], &whole[..end]);
        }
    }
}
