//! The part of a preprocessed unit that its object depends on.
//!
//! A change to a header changes the text of every unit that includes it, but the object of only those that use what changed: the
//! compiler drops static inline functions that nothing refers to before it looks at anything else (gcc/cgraphunit.cc,
//! `analyze_functions`, keeps what is reachable), and declarations of functions, variables and types make no code by
//! themselves. So the text is cut into its outermost declarations, and those of these kinds that no other declaration leads to
//! are left out ([`crate::droppable`]). When in doubt a declaration stays.
//!
//! White space does not count, nor do the numbers of lines: what `__LINE__` stands for is in the text already. Nor do the
//! numbers in names that `__COUNTER__` made ([`crate::counted`]): one more use of it in a header moves all that follow.

use crate::counted::Counted;
use crate::droppable::{closing_quote, is_function_head, names, words};
use std::collections::HashMap;

/// Changes with what a fingerprint says.
pub const FORMAT: &str = "kmend-live-text-3";

/// A fingerprint of what counts of a preprocessed text (`-E -P`): two units with the same one and the same command
/// have the same object.
///
/// `None` if the text asks for its own line numbers behind the preprocessor's back.
pub fn fingerprint(text: &[u8]) -> Option<blake3::Hash> {
    if memchr::memmem::find(text, b"__builtin_LINE").is_some() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let (mut plain, mut counted) = (Vec::new(), Counted::default());
    for declaration in live_part(text) {
        plain.clear();
        squeeze(declaration, &mut plain);
        counted.pass_on(&plain, &mut |part| {
            hasher.update(part);
        });
        hasher.update(b"\n");
    }
    Some(hasher.finalize())
}

/// The declarations of a preprocessed text that count.
pub fn live_part(text: &[u8]) -> Vec<&[u8]> {
    let declarations = declarations(text);
    let mut by_name: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let mut is_live = vec![true; declarations.len()];
    for (at, declaration) in declarations.iter().enumerate() {
        let names = names(declaration);
        is_live[at] = names.is_empty();
        for name in names {
            by_name.entry(name).or_default().push(at);
        }
    }
    let mut todo: Vec<usize> = (0..declarations.len()).filter(|&at| is_live[at]).collect();
    while let Some(at) = todo.pop() {
        for word in words(declarations[at]) {
            // Taken out: once reached is enough.
            for found in by_name.remove(word).unwrap_or_default() {
                if !std::mem::replace(&mut is_live[found], true) {
                    todo.push(found);
                }
            }
        }
    }
    declarations.into_iter().zip(is_live).filter_map(|(text, is_live)| is_live.then_some(text)).collect()
}

/// Cuts a text into its outermost declarations, each up to its `;` or the `}` of a function's body. Lines that are
/// directives (`#pragma`) are declarations.
fn declarations(text: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let (mut start, mut at, mut depth) = (0usize, 0usize, 0u32);
    let (mut line_start, mut is_body) = (true, false);
    while let Some(&byte) = text.get(at) {
        let mut end = None;
        match byte {
            b'"' | b'\'' => at = closing_quote(text, at),
            b'#' if line_start => {
                let line = memchr::memchr(b'\n', text.get(at..).unwrap_or_default());
                at = line.map_or(text.len(), |line| at + line);
                end = (depth == 0).then_some(at);
            }
            b'(' | b'{' | b'[' => {
                let head = text.get(start..at).unwrap_or_default();
                is_body |= byte == b'{' && depth == 0 && is_function_head(head);
                depth = depth.saturating_add(1);
            }
            b')' | b'}' | b']' => {
                depth = depth.saturating_sub(1);
                end = (byte == b'}' && depth == 0 && is_body).then_some(at + 1);
            }
            b';' if depth == 0 => end = Some(at + 1),
            _ => {}
        }
        line_start = byte == b'\n' || (line_start && byte.is_ascii_whitespace());
        at += 1;
        if let Some(end) = end {
            found.push(text.get(start..end).unwrap_or_default());
            (start, is_body) = (end, false);
            at = at.max(end);
        }
    }
    found.push(text.get(start..).unwrap_or_default());
    found
}

/// The text with each run of white space outside of strings as one blank.
fn squeeze(text: &[u8], plain: &mut Vec<u8>) {
    let mut at = 0;
    let mut blank = true;
    while let Some(&byte) = text.get(at) {
        if byte.is_ascii_whitespace() {
            if !blank {
                plain.push(b' ');
            }
            blank = true;
            at += 1;
            continue;
        }
        blank = false;
        let end = if matches!(byte, b'"' | b'\'') { closing_quote(text, at) + 1 } else { at + 1 };
        plain.extend_from_slice(text.get(at..end.min(text.len())).unwrap_or_default());
        at = end;
    }
    if plain.last() == Some(&b' ') {
        plain.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "typedef int t;\nstatic inline __attribute__((__gnu_inline__)) int used(int x)\n{\n\treturn x;\n}\n\
        static inline int one(void) { return two(); }\nstatic inline int two(void) { return '\"' + 1; }\n\
        struct s { int a; } __attribute__((packed));\n#pragma pack(1)\nint f(void) { return used(3); }\n";

    fn same(change: impl Fn(&str) -> String) -> bool {
        fingerprint(UNIT.as_bytes()) == fingerprint(change(UNIT).as_bytes())
    }

    #[test]
    fn unused_inline_functions_and_white_space_do_not_count() {
        assert!(same(|unit| unit.replace("+ 1", "+ 2")));
        assert!(same(|unit| unit.replace("return two()", "return 5")));
        assert!(same(|unit| unit.replace("{\n\treturn x;", "{  \n\n return  x;")));
        assert!(same(|unit| format!("static inline void more(void) {{ one(); }}\n{unit}")));
    }

    #[test]
    fn unused_declarations_do_not_count() {
        assert!(same(|unit| format!("struct more;\nint more(struct s *);\nextern int other;\n{unit}")));
        assert!(same(|unit| unit.replace("int a;", "long a;")));
        let used = |unit: &str| format!("{unit}int g(struct s *p) {{ return p->a + A; }}\n");
        let differs = |one: &str, two: &str| {
            let text =
                used(UNIT) + "enum { A = 1, B = 2 };\nint f2(struct more *);\nstruct more { struct s s; };\n";
            assert!(text.contains(one));
            fingerprint(text.as_bytes()) != fingerprint(text.replace(one, two).as_bytes())
        };
        assert!(differs("int a;", "long a;"));
        assert!(differs("packed", "aligned"));
        assert!(differs("B = 2", "B = 3"));
        assert!(!differs("struct s s;", "struct s *s;"));
        assert!(!differs("int f2", "long f2"));
    }

    #[test]
    fn what_is_used_counts() {
        assert!(!same(|unit| unit.replace("return x", "return x + 1")));
        assert!(!same(|unit| unit.replace("used(3)", "two()")));
        assert!(!same(|unit| unit.replace("pack(1)", "pack(2)")));
        assert!(!same(|unit| format!("{unit}asm(\"call two\");")));
        assert!(!same(|unit| unit.replace("static inline int two", "inline int two")));
        let used = |unit: &str| unit.replace("int two(void) {", "__attribute__((__used__)) int two(void) {");
        assert_ne!(
            fingerprint(used(UNIT).as_bytes()),
            fingerprint(used(UNIT).replace("+ 1", "+ 2").as_bytes())
        );
    }

    #[test]
    fn numbers_that_only_tell_names_apart_do_not_count() {
        let text = |first: u32, second: u32| {
            format!(
                "{UNIT}int g(void) {{ extern void __compiletime_assert_{first}(void); return __UNIQUE_ID_x{second}; }}"
            )
        };
        let print = |first, second| fingerprint(text(first, second).as_bytes());
        assert_eq!(print(3, 4), print(12, 13));
        assert_ne!(print(3, 4), fingerprint(text(3, 4).replace("__UNIQUE_ID_x", "__UNIQUE_ID_y").as_bytes()));
    }

    #[test]
    fn a_body_that_declares_others_counts() {
        let with = |inner: &str| format!("static inline void g(void) {{ {inner} }}");
        let print = |inner: &str| fingerprint(with(inner).as_bytes());
        assert_ne!(print("extern int h(void); h();"), print(""));
        assert_eq!(
            print(
                "__attribute__((__noreturn__)) extern void __compiletime_assert_12(void) __attribute__((error(\"x\")));"
            ),
            print("")
        );
    }

    #[test]
    fn strings_keep_their_blanks() {
        assert_ne!(fingerprint(b"char *s = \"a  b\";"), fingerprint(b"char *s = \"a b\";"));
        assert_ne!(fingerprint(b"int a b;"), fingerprint(b"int ab;"));
    }

    #[test]
    fn nothing_is_too_strange() {
        for text in [
            &b"}}}(("[..],
            b"static inline",
            b"static inline (",
            b"\"",
            b"'\\",
            b"#",
            b"static inline f({[",
            b"",
        ] {
            let _ = fingerprint(text);
        }
        let bytes = UNIT.as_bytes();
        for end in 0..bytes.len() {
            let _ = fingerprint(&bytes[..end]);
            let _ = fingerprint(&bytes[end..]);
        }
    }
}
