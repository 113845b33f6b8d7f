//! Jump labels of modules' keys turned into tests of the keys.
//!
//! A jump label is an instruction that the kernel rewrites when its static key changes, and an entry of
//! `__jump_table` that tells where it is, where it leads, and by which key. The kernel reads a module's entries before
//! it applies those relocations of a livepatch that wait for another module (kernel/jump_label.c,
//! `jump_label_add_module`; kernel/livepatch/core.c, `klp_module_coming`), so that an entry of a livepatch cannot
//! name such a key. What it can do is look at the key: this pass puts a test of the key's count in the
//! place of the instruction and drops the entry, in the original and in the patched unit alike. What the kernel ships
//! is compared with the text as the compiler wrote it.
//!
//! The site is written by `arch_static_branch` and `arch_static_branch_jump` (arch/x86/include/asm/jump_label.h):
//! one line with the label `1:`, then the entry with the target and `KEY + N - .`. Bit 0 of N says which way the key
//! leads: the code goes to the target if and only if the key is enabled and the bit is 0, or disabled and 1
//! (kernel/jump_label.c, `jump_label_type`). A key is enabled if its count is not 0: while it is being enabled it is
//! negative (`static_key_count`). The count is the key's first member.
//!
//! The test changes the flags, which the jump did not. On x86 compilers take every `asm` to change them: GCC adds the
//! clobber itself (gcc/config/i386/i386.cc, `ix86_md_asm_adjust`), as does clang (clang/lib/Basic/Targets/X86.h,
//! `getClobbers`), and the kernel's own `asm goto` statements rely on it (arch/x86/include/asm/rmwcc.h).

use crate::assembly::{is_symbol, section};
use std::collections::HashMap;

/// Where descriptors of dynamic debugging lie (include/linux/dynamic_debug.h): each copy of the code has its own,
/// with the key in it.
const DESCRIPTORS: &str = "__dyndbg";

/// The symbols that vmlinux exports, from the text of `Module.symvers`: CRC, symbol, object and kind, with tabs
/// between (Documentation/kbuild/modules.rst, "Symbols and Modules").
pub fn exported_by_vmlinux(symvers: &str) -> impl Iterator<Item = &str> {
    symvers.lines().filter_map(|line| {
        let mut fields = line.split('\t').skip(1);
        let symbol = fields.next()?;
        (fields.next()? == "vmlinux").then_some(symbol)
    })
}

/// The assembly of a module's unit with its jump labels turned into tests, but for those of keys in vmlinux,
/// which a module can refer to only if they are exported. A site of another form than the kernel's stays as it is.
pub fn test_keys_of_modules(assembly: &[u8], is_exported_by_vmlinux: impl Fn(&str) -> bool) -> Vec<u8> {
    let defined = definitions(assembly);
    let is_of_module = |key: &str| match defined.get(key) {
        Some(section) => !section.starts_with(DESCRIPTORS),
        None => !is_exported_by_vmlinux(key),
    };
    let lines: Vec<&[u8]> = assembly.split_inclusive(|&byte| byte == b'\n').collect();
    let mut text = Vec::with_capacity(assembly.len());
    let mut rest = lines.as_slice();
    while let [line, following @ ..] = rest {
        if let Some(site) = Site::parse(rest).filter(|site| is_of_module(site.key_symbol())) {
            text.extend_from_slice(site.test().as_bytes());
            rest = rest.get(Site::LINES..).unwrap_or_default();
        } else {
            text.extend_from_slice(line);
            rest = following;
        }
    }
    text
}

/// A jump label as the kernel writes it.
#[derive(Debug, PartialEq, Eq)]
struct Site<'a> {
    /// Where the code goes if the label is a jump.
    target: &'a str,
    /// The key as the assembler reads it, such as `__tracepoint_x+8`.
    key: &'a str,
    /// Bit 0 of the entry's last word: the label jumps when the key is disabled.
    inverted: bool,
}

impl<'a> Site<'a> {
    /// From the label to `.popsection`.
    const LINES: usize = 7;

    /// Reads the site that begins with the first line.
    fn parse(lines: &[&'a [u8]]) -> Option<Self> {
        // Nearly every line ends here.
        lines.first()?.trim_ascii_start().strip_prefix(b"1:")?;
        let mut words = lines.iter().skip(1).map(|line| std::str::from_utf8(line).map(str::trim));
        let mut next = || words.next()?.ok();
        next()?.strip_prefix(".pushsection __jump_table,")?;
        next()?.strip_prefix(".balign ")?;
        (next()? == ".long 1b - .").then_some(())?;
        let target = next()?.strip_prefix(".long ")?.strip_suffix(" - .")?;
        let (key, bits) = next()?.strip_prefix(".quad ")?.strip_suffix(" - .")?.rsplit_once(" + ")?;
        (next()? == ".popsection").then_some(())?;
        let bits: u8 = bits.parse().ok()?;
        let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
        let is_known = bits < 4 && is_word(target) && is_word(key);
        is_known.then_some(Self { target, key, inverted: bits & 1 != 0 })
    }

    fn key_symbol(&self) -> &'a str {
        self.key.split(['+', '-']).next().unwrap_or_default()
    }

    fn test(&self) -> String {
        let jump = if self.inverted { "je" } else { "jne" };
        format!("\tcmpl\t$0, {}(%rip)\n\t{jump}\t{}\n", self.key, self.target)
    }
}

/// The symbols that the compiler defines in a file, with their sections' names as far as it named them.
fn definitions(assembly: &[u8]) -> HashMap<&str, &str> {
    let mut defined = HashMap::new();
    let mut current = "";
    for line in assembly.split_inclusive(|&byte| byte == b'\n') {
        if let Some((name, _)) = section(line) {
            current = name;
        }
        let label = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().strip_suffix(':'));
        if let Some(label) = label.filter(|label| is_symbol(label)) {
            defined.insert(label, current);
        }
    }
    defined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(first: &str, key: &str) -> String {
        format!(
            "#APP\n# 27 \"./arch/x86/include/asm/jump_label.h\" 1\n\t1:{first}\n\t.pushsection __jump_table,  \"aw\" \n\
             \t .balign 8 \n\t.long 1b - . \n\t.long .L12 - . \n\t .quad {key} - .\n\t.popsection \n\t\n# 0 \"\" 2\n#NO_APP\n"
        )
    }

    fn check(input: &str, expect: &str) {
        let text = test_keys_of_modules(input.as_bytes(), |key| key == "exported");
        assert_eq!(String::from_utf8(text).unwrap(), expect);
    }

    fn around(test: &str) -> String {
        format!("#APP\n# 27 \"./arch/x86/include/asm/jump_label.h\" 1\n{test}\t\n# 0 \"\" 2\n#NO_APP\n")
    }

    #[test]
    fn a_label_jumps_when_enabled_unless_it_is_inverted() {
        let nop = "jmp .L12 # objtool NOPs this ";
        let enabled = "\tcmpl\t$0, __tracepoint_x+8(%rip)\n\tjne\t.L12\n";
        let disabled = "\tcmpl\t$0, __tracepoint_x+8(%rip)\n\tje\t.L12\n";
        check(&site(nop, "__tracepoint_x+8 + 2"), &around(enabled));
        check(&site(nop, "__tracepoint_x+8 + 3"), &around(disabled));
        check(&site("jmp .L12", "__tracepoint_x+8 + 0"), &around(enabled));
        check(&site(".byte 0x0f,0x1f,0x44,0x00,0x00", "__tracepoint_x+8 + 1"), &around(disabled));
    }

    #[test]
    fn keys_of_vmlinux_and_of_descriptors_keep_their_labels() {
        let exported = site("jmp .L12", "exported + 1");
        check(&exported, &exported);
        let array = site("jmp .L12", "exported+32 + 0");
        check(&array, &array);
        let descriptor =
            format!("\t.section\t__dyndbg,\"aw\"\nd.1:\n\t.zero 8\n{}", site("jmp .L12", "d.1+40 + 2"));
        check(&descriptor, &descriptor);
        // The unit's own, whatever vmlinux exports.
        let own = "\t.section\t.data.exported,\"aw\"\nexported:\n\t.zero 16\n";
        let expect = format!("{own}{}", around("\tcmpl\t$0, exported(%rip)\n\tjne\t.L12\n"));
        check(&format!("{own}{exported}", exported = site("jmp .L12", "exported + 2")), &expect);
    }

    #[test]
    fn what_is_no_site_of_the_kernel_stays() {
        for text in [
            "1:\n",
            "\t1:jmp .L1\n\t.pushsection __jump_table, \"aw\"\n",
            &site("jmp .L12", "key"),
            &site("jmp .L12", "key + 4"),
            &site("jmp .L12", "a b + 1"),
            &site("jmp .L12", "key + 2").replace("1b", "2b"),
            &site("jmp .L12", "key + 2").replace(".popsection", ".previous"),
        ] {
            check(text, text);
        }
        let whole = site("jmp .L12", "key + 2");
        for end in 0..whole.find("\t.popsection").unwrap() {
            check(&whole[..end], &whole[..end]);
        }
    }

    #[test]
    fn only_what_vmlinux_exports_counts() {
        let text = "0x1\tone\tvmlinux\tEXPORT_SYMBOL\t\n0x2\ttwo\tnet/mac80211\tEXPORT_SYMBOL_GPL\t\n\n0x3\n";
        assert_eq!(exported_by_vmlinux(text).collect::<Vec<_>>(), ["one"]);
    }
}
