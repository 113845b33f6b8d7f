//! From assembly with a section per function and datum to what the compiler would have written without.
//!
//! The differ needs objects compiled with `-ffunction-sections -fdata-sections`, the match needs the object
//! as the kernel's build makes it. The two flags change nothing but the sections that the compiler names in
//! its assembly (gcc/varasm.cc: `default_unique_section`, `default_function_rodata_section`, and
//! `default_elf_select_section`), and so one compile serves both: the section directives are rewritten to
//! what is written without the flags, and the text is assembled a second time.
//!
//! One thing besides the names differs. Without the flags a zero-initialised variable of internal linkage is
//! written as `.local` and `.comm`, which the assembler puts into subsection 1 of `.bss`, behind all others
//! (gas/read.c, `bss_alloc`); with them it has a section of its own. `.bss 1` has the same effect.
//!
//! Debug information goes as well: its sections, the lines' marks and what describes stack frames. The kernel's
//! build strips it from what ships, and none of it says anything about code.
//!
//! Sections given in the C source and those of inline assembly stay as they are: a name is taken to be made by
//! the flags only if what follows the known prefix is a symbol of the file, or if strings of a function follow.
//! (`#APP` and `#NO_APP` do not tell inline assembly: after an `asm` at file level the compiler goes on to
//! write strings before it writes `#NO_APP`.)

use std::collections::HashSet;

/// Prefixes of text sections that the flags extend by the function's name, with what is written without.
/// Longer ones first: `.text.` would match them all.
const TEXT: &[(&str, &str)] = &[
    (".text.unlikely.", "\t.section\t.text.unlikely"),
    (".text.startup.", "\t.section\t.text.startup"),
    (".text.exit.", "\t.section\t.text.exit"),
    (".text.hot.", "\t.section\t.text.hot"),
    (".text.", "\t.text"),
];

/// The same for data; `.bss.` is handled apart.
const DATA: &[(&str, &str)] = &[
    (".data.rel.ro.local.", "\t.section\t.data.rel.ro.local"),
    (".data.rel.ro.", "\t.section\t.data.rel.ro"),
    (".data.rel.local.", "\t.section\t.data.rel.local"),
    (".data.rel.", "\t.section\t.data.rel"),
    (".data.", "\t.data"),
    (".rodata.", "\t.section\t.rodata"),
];

/// The assembly as it would be without `-ffunction-sections -fdata-sections -g`.
pub fn without_own_sections(assembly: &[u8]) -> Vec<u8> {
    let symbols = Symbols::of(assembly);
    let mut plain = Vec::with_capacity(assembly.len());
    let mut debug = DebugInformation::default();
    for line in assembly.split_inclusive(|&byte| byte == b'\n') {
        if debug.holds(line) {
            continue;
        }
        let rewritten = section(line).and_then(|(name, rest)| symbols.rewrite(name, rest));
        match rewritten {
            Some(text) => {
                plain.extend_from_slice(text.as_bytes());
                plain.push(b'\n');
            }
            None => plain.extend_from_slice(line),
        }
    }
    plain
}

/// Tells the lines of debug information from the others (gcc/dwarf2out.cc writes them).
#[derive(Default)]
struct DebugInformation {
    in_section: bool,
}

impl DebugInformation {
    fn holds(&mut self, line: &[u8]) -> bool {
        if let Some(name) = line.strip_prefix(b"\t.section\t") {
            self.in_section = name.starts_with(b".debug_");
        } else if self.in_section && SWITCHES.iter().any(|other| line.starts_with(other)) {
            self.in_section = false;
        }
        // `.file "x.c"` names the unit in its symbol table; with a number it begins an entry of the line table.
        let is_numbered_file =
            line.strip_prefix(b"\t.file ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit));
        // `.ident` stands in no section, wherever it is written.
        (self.in_section && !line.starts_with(b"\t.ident\t"))
            || is_numbered_file
            || line.starts_with(b"\t.loc ")
            || line.starts_with(b"\t.cfi_")
    }
}

/// What leaves a section, beside `.section`.
const SWITCHES: &[&[u8]] = &[b"\t.text", b"\t.data", b"\t.bss"];

/// The name and the rest (from the comma, or empty) of a section directive as the compiler writes it.
pub fn section(line: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(line.strip_prefix(b"\t.section\t")?).ok()?.trim_end();
    Some(text.split_at(text.find(',').unwrap_or(text.len())))
}

/// The symbols that a file defines.
struct Symbols<'a> {
    defined: HashSet<&'a str>,
    global: HashSet<&'a str>,
}

impl<'a> Symbols<'a> {
    fn of(assembly: &'a [u8]) -> Self {
        let mut symbols = Self { defined: HashSet::new(), global: HashSet::new() };
        for line in assembly.split(|&byte| byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let line = line.trim_end();
            if let Some(label) = line.strip_suffix(':').filter(|label| is_symbol(label)) {
                symbols.defined.insert(label);
            }
            let visible = line.strip_prefix("\t.globl\t").or_else(|| line.strip_prefix("\t.weak\t"));
            symbols.global.extend(visible);
        }
        symbols
    }

    /// The directive to write in the place of one whose name the flags made; `None` for any other.
    fn rewrite(&self, name: &str, rest: &str) -> Option<String> {
        for (prefix, plain) in TEXT {
            if name.strip_prefix(prefix).is_some_and(|symbol| self.defined.contains(symbol)) {
                return Some(directive(plain, rest));
            }
        }
        if let Some(symbol) = name.strip_prefix(".bss.").filter(|symbol| self.defined.contains(symbol)) {
            return Some(if self.global.contains(symbol) { "\t.bss" } else { "\t.bss 1" }.to_owned());
        }
        if !rest.contains("\"aM") {
            for (prefix, plain) in DATA {
                if name.strip_prefix(prefix).is_some_and(|symbol| self.defined.contains(symbol)) {
                    return Some(directive(plain, rest));
                }
            }
        }
        without_function(name).map(|plain| format!("\t.section\t{plain}{rest}"))
    }
}

/// `.rodata.FUNCTION.str1.8` holds the strings of one function; without the flags it is `.rodata.str1.8`.
///
/// FUNCTION is the name in the source: a clone's symbol (`f.isra.0`) is another, so it is not looked up.
fn without_function(name: &str) -> Option<String> {
    let inner = name.strip_prefix(".rodata.")?;
    let at = inner.rfind(".str").or_else(|| inner.rfind(".cst"))?;
    let (function, kind) = inner.split_at_checked(at)?;
    let digits = kind.get(".str".len()..)?;
    let is_size =
        digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    (is_size && !function.is_empty()).then(|| format!(".rodata{kind}"))
}

/// `.text` and `.data` have directives of their own, which take no flags.
fn directive(plain: &str, rest: &str) -> String {
    if plain.starts_with("\t.section\t") && plain != "\t.section\t.rodata" {
        format!("{plain}{rest}")
    } else {
        plain.to_owned()
    }
}

pub fn is_symbol(label: &str) -> bool {
    !label.starts_with(".L") && !label.starts_with(char::is_whitespace) && !label.contains(['"', '#', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        assert_eq!(String::from_utf8(without_own_sections(input.as_bytes())).unwrap(), expect);
    }

    #[test]
    fn names_made_by_the_flags_go() {
        check(
            "\t.section\t.text.f,\"ax\",@progbits\nf:\n\t.section\t.text.unlikely.f,\"ax\",@progbits\nf.cold:\n\t.section\t.text.f\n",
            "\t.text\nf:\n\t.section\t.text.unlikely,\"ax\",@progbits\nf.cold:\n\t.text\n",
        );
        check(
            "\t.section\t.data.v,\"aw\"\nv:\n\t.section\t.rodata.t.0,\"a\"\nt.0:\n",
            "\t.data\nv:\n\t.section\t.rodata\nt.0:\n",
        );
    }

    #[test]
    fn zero_initialised_variables_keep_their_order() {
        check(
            "\t.globl\tg\n\t.section\t.bss.g,\"aw\",@nobits\ng:\n\t.section\t.bss.s,\"aw\",@nobits\ns:\n",
            "\t.globl\tg\n\t.bss\ng:\n\t.bss 1\ns:\n",
        );
    }

    #[test]
    fn debug_information_goes() {
        check(
            "\t.file\t\"a.c\"\n\t.file 0 \"/\" \"a.c\"\n\t.section\t.text.f,\"ax\",@progbits\nf:\n\t.loc 1 3\n\t.cfi_startproc\n\tret\n\
             \t.section\t.debug_info,\"\",@progbits\n.Ldebug_info0:\n\t.long\t1\n\t.ident\t\"GCC\"\n\
             \t.section\t.note.GNU-stack,\"\",@progbits\n",
            "\t.file\t\"a.c\"\n\t.text\nf:\n\tret\n\t.ident\t\"GCC\"\n\t.section\t.note.GNU-stack,\"\",@progbits\n",
        );
    }

    #[test]
    fn strings_of_a_function_go_together() {
        check(
            "f:\n\t.section\t.rodata.f.str1.8,\"aMS\",@progbits,1\n\t.section\t.rodata.f.str1.8\n\t.section\t.rodata.cst8,\"aM\",@progbits,8\n",
            "f:\n\t.section\t.rodata.str1.8,\"aMS\",@progbits,1\n\t.section\t.rodata.str1.8\n\t.section\t.rodata.cst8,\"aM\",@progbits,8\n",
        );
    }

    #[test]
    fn sections_of_the_source_and_of_inline_assembly_stay() {
        for text in [
            "f:\n\t.section\t.init.text\n",
            "f:\n\t.section\t.data..read_mostly,\"aw\"\n",
            "f:\n\t.section\t.text.other,\"ax\",@progbits\n",
            "f:\n#APP\n\t.pushsection .text.f,\"ax\"\n\t.section \"__ksymtab_strings\",\"aMS\",%progbits,1\n#NO_APP\n",
        ] {
            check(text, text);
        }
    }
}
