//! A section of its own for every function and datum of a section that the source names.
//!
//! `-ffunction-sections` leaves functions alone that the source puts into a section: those of `.sched.text`,
//! `.noinstr.text`, `.init.text` and the like stand behind each other. Then a jump from one to the next may be a
//! short one, without a relocation, and nothing could be moved apart. So in the text from which the
//! differ's objects are made, `S` becomes `S.FUNCTION` for each function.
//!
//! What the compiler writes of a function (gcc/varasm.cc, `assemble_start_function`) begins with its alignment and
//! may switch to other sections and back, and ends with `.size`. Between two functions of one section it writes no
//! directive. It leaves inline assembly (`#NO_APP`) before it begins. Data is the business of [`crate::own_data`].

use crate::assembly::section;
use crate::own_data::Data;
use std::collections::HashMap;

/// The assembly with a section for every function and datum, also of those that the source puts into one section.
pub fn with_own_sections(assembly: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = assembly.split_inclusive(|&byte| byte == b'\n').collect();
    let mut sections =
        Sections { flags: HashMap::new(), current: None, inside: None, in_inline_assembly: false };
    let mut data = Data::default();
    let mut text = Vec::with_capacity(assembly.len());
    for (index, line) in lines.iter().enumerate() {
        if sections.inside.is_none() && !sections.in_inline_assembly && begins_function(line) {
            let function = lines.get(index..).and_then(function_begun);
            text.extend(sections.enter(function).unwrap_or_default().into_bytes());
        }
        if sections.inside.is_none() && !sections.in_inline_assembly {
            text.extend(data.enter(&lines[index..]).unwrap_or_default().into_bytes());
        }
        // What inline assembly switches to, it leaves.
        if !sections.in_inline_assembly {
            data.pass(line);
        }
        match sections.pass(line) {
            Some(directive) => text.extend(directive.into_bytes()),
            None => text.extend_from_slice(line),
        }
    }
    text
}

/// Where in the text the reader is.
struct Sections<'a> {
    /// Executable sections of the source with the flags of their first directive.
    flags: HashMap<&'a str, &'a str>,
    /// The one of them that the assembler is in.
    current: Option<&'a str>,
    /// The function that is being written.
    inside: Option<&'a str>,
    in_inline_assembly: bool,
}

impl<'a> Sections<'a> {
    /// Begins a function; the result is the directive for its section.
    fn enter(&mut self, function: Option<&'a str>) -> Option<String> {
        self.inside = function;
        self.directive(self.current?)
    }

    /// Reads a line; the result is what to write instead.
    fn pass(&mut self, line: &'a [u8]) -> Option<String> {
        if let Some((name, flags)) = section(line) {
            if flags.starts_with(",\"ax") {
                self.flags.entry(name).or_insert(flags);
            }
            self.current = Some(name).filter(|name| self.flags.contains_key(name));
            return self.directive(self.current?);
        }
        match line.trim_ascii_end() {
            b"\t.text" | b"\t.data" | b"\t.bss" => self.current = None,
            b"#APP" => self.in_inline_assembly = true,
            b"#NO_APP" => self.in_inline_assembly = false,
            _ => {}
        }
        let ended = text(line).and_then(|line| line.strip_prefix("\t.size\t")?.split(',').next());
        if ended.is_some() && ended == self.inside {
            self.inside = None;
        }
        None
    }

    /// The directive that opens the own section of the function that is being written.
    fn directive(&self, section: &str) -> Option<String> {
        let (function, flags) = (self.inside?, self.flags.get(section)?);
        let is_own = section.strip_suffix(function).is_some_and(|rest| rest.ends_with('.'));
        (!is_own).then(|| format!("\t.section\t{section}.{function}{flags}\n"))
    }
}

/// Whether a line is the first of a function: its alignment, the label of its padding, or its type.
fn begins_function(line: &[u8]) -> bool {
    line.starts_with(b"\t.p2align") || line.starts_with(b".LPFE") || function_type(line).is_some()
}

/// The function whose text begins with these lines.
fn function_begun<'a>(lines: &[&'a [u8]]) -> Option<&'a str> {
    lines.iter().find_map(|line| function_type(line))
}

fn function_type(line: &[u8]) -> Option<&str> {
    text(line)?.strip_prefix("\t.type\t")?.strip_suffix(", @function")
}

fn text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok().map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        assert_eq!(String::from_utf8(with_own_sections(input.as_bytes())).unwrap(), expect);
    }

    #[test]
    fn functions_of_a_named_section_come_apart() {
        check(
            "\t.section\t.sched.text,\"ax\",@progbits\n\t.p2align 4\n\t.type\tf, @function\nf:\n\tjmp\tg\n\t.size\tf, .-f\n\
             \t.p2align 4\n\t.globl\tg\n\t.type\tg, @function\ng:\n\tret\n\t.size\tg, .-g\n",
            "\t.section\t.sched.text,\"ax\",@progbits\n\t.section\t.sched.text.f,\"ax\",@progbits\n\t.p2align 4\n\
             \t.type\tf, @function\nf:\n\tjmp\tg\n\t.size\tf, .-f\n\t.section\t.sched.text.g,\"ax\",@progbits\n\
             \t.p2align 4\n\t.globl\tg\n\t.type\tg, @function\ng:\n\tret\n\t.size\tg, .-g\n",
        );
    }

    #[test]
    fn a_function_comes_back_to_its_own_section() {
        check(
            "\t.section\t.sched.text,\"ax\",@progbits\n\t.p2align 4\n\t.section\t__patchable_function_entries,\"awo\",@progbits,f\n\
             \t.quad\t.LPFE1\n\t.section\t.sched.text\n.LPFE1:\n\tnop\n\t.type\tf, @function\nf:\n\t.size\tf, .-f\n\t.text\n",
            "\t.section\t.sched.text,\"ax\",@progbits\n\t.section\t.sched.text.f,\"ax\",@progbits\n\t.p2align 4\n\
             \t.section\t__patchable_function_entries,\"awo\",@progbits,f\n\t.quad\t.LPFE1\n\
             \t.section\t.sched.text.f,\"ax\",@progbits\n.LPFE1:\n\tnop\n\t.type\tf, @function\nf:\n\t.size\tf, .-f\n\t.text\n",
        );
    }

    #[test]
    fn what_the_flags_made_and_inline_assembly_stay() {
        for text in [
            "\t.section\t.text.f,\"ax\",@progbits\n\t.p2align 4\n\t.type\tf, @function\nf:\n\
             \t.section\t.text.unlikely.f,\"ax\",@progbits\n\t.type\tf.cold, @function\nf.cold:\n\
             \t.section\t.text.f\n\t.size\tf, .-f\n\t.section\t.text.unlikely.f\n\t.size\tf.cold, .-f.cold\n",
            "\t.section\t.sched.text,\"ax\",@progbits\n#APP\n\t.pushsection .static_call.text, \"ax\"\n\t.p2align 4\n\
             t:\n\t.popsection\n#NO_APP\n",
            "\t.section\t.data.v,\"aw\"\n\t.type\tv, @object\nv:\n\t.size\tv, 4\n\t.p2align 4\n",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn text_that_ends_anywhere_is_passed_on() {
        let whole = "\t.section\t.sched.text,\"ax\",@progbits\n\t.p2align 4\n\t.type\tf, @function\nf:\n\t.size\tf, .-f\n";
        for end in 0..whole.find("\tf, @function").unwrap() {
            check(&whole[..end], &whole[..end]);
        }
    }
}
