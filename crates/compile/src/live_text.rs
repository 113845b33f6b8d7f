//! The part of a preprocessed unit that its object depends on.
//!
//! A change to one inline function of a header changes the text of every unit that includes it, but the object of only
//! those that use the function: the compiler drops static inline functions that nothing refers to before it
//! looks at anything else (gcc/cgraphunit.cc, `analyze_functions`, keeps what is reachable). So the text is cut
//! into its outermost declarations, and those of static inline functions that no other declaration leads to are
//! left out. When in doubt a declaration stays.
//!
//! White space does not count, nor do the numbers of lines: what `__LINE__` stands for is in the text already.

use std::collections::HashMap;

/// Changes with what a fingerprint says.
pub const FORMAT: &str = "kmend-live-text-1";

/// A fingerprint of what counts of a preprocessed text (`-E -P`): two units with the same one and the same command
/// have the same object.
///
/// `None` if the text asks for its own line numbers behind the preprocessor's back.
pub fn fingerprint(text: &[u8]) -> Option<blake3::Hash> {
    memchr::memmem::find(text, b"__builtin_LINE").is_none().then(|| live_part(text))
}

fn live_part(text: &[u8]) -> blake3::Hash {
    let declarations = declarations(text);
    let mut by_name: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let mut is_live = vec![true; declarations.len()];
    for (at, declaration) in declarations.iter().enumerate() {
        if let Some(name) = declaration.inline_function {
            by_name.entry(name).or_default().push(at);
            is_live[at] = false;
        }
    }
    let mut todo: Vec<usize> = (0..declarations.len()).filter(|&at| is_live[at]).collect();
    while let Some(at) = todo.pop() {
        for word in words(declarations[at].text) {
            // Taken out: once reached is enough.
            for found in by_name.remove(word).unwrap_or_default() {
                is_live[found] = true;
                todo.push(found);
            }
        }
    }
    let mut hasher = blake3::Hasher::new();
    let mut plain = Vec::new();
    for (declaration, is_live) in declarations.iter().zip(is_live) {
        if is_live {
            plain.clear();
            squeeze(declaration.text, &mut plain);
            hasher.update(&plain);
            hasher.update(b"\n");
        }
    }
    hasher.finalize()
}

/// An outermost declaration, up to its `;` or the `}` of its body.
struct Declaration<'a> {
    text: &'a [u8],
    /// Its name, if it is a static inline function that goes away when nothing refers to it.
    inline_function: Option<&'a [u8]>,
}

/// Cuts a text into its outermost declarations. Lines that are directives (`#pragma`) are declarations.
fn declarations(text: &[u8]) -> Vec<Declaration<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at, mut depth, mut line_start) = (0usize, 0usize, 0u32, true);
    while let Some(&byte) = text.get(at) {
        let mut end = None;
        match byte {
            b'"' | b'\'' => at = closing_quote(text, at),
            b'#' if line_start => {
                let line = memchr::memchr(b'\n', text.get(at..).unwrap_or_default());
                at = line.map_or(text.len(), |line| at + line);
                end = (depth == 0).then_some(at);
            }
            b'(' | b'{' | b'[' => depth = depth.saturating_add(1),
            b')' | b'}' | b']' => {
                depth = depth.saturating_sub(1);
                end = (byte == b'}' && depth == 0).then_some(at + 1);
            }
            b';' if depth == 0 => end = Some(at + 1),
            _ => {}
        }
        line_start = byte == b'\n' || (line_start && byte.is_ascii_whitespace());
        at += 1;
        if let Some(end) = end {
            let text = text.get(start..end).unwrap_or_default();
            found.push(Declaration { text, inline_function: inline_function(text) });
            start = end;
            at = at.max(end);
        }
    }
    let text = text.get(start..).unwrap_or_default();
    found.push(Declaration { text, inline_function: None });
    found
}

/// The place of the quote that closes the one at `open`, or the end.
fn closing_quote(text: &[u8], open: usize) -> usize {
    let quote = text.get(open).copied().unwrap_or_default();
    let mut at = open + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            _ if byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Words that may stand before a `(` and are not the function's name.
const NOT_NAMES: &[&[u8]] =
    &[b"__attribute__", b"__attribute", b"__typeof__", b"typeof", b"__asm__", b"asm", b"_Alignas"];

/// Words of a head that say that the function has a meaning of its own.
const KEPT: &[&[u8]] =
    &[b"__used__", b"used", b"__constructor__", b"constructor", b"alias", b"__alias__", b"ifunc"];

/// The name of a static inline function, of its definition or its declaration, that goes away unless something refers to
/// it.
fn inline_function(text: &[u8]) -> Option<&[u8]> {
    let head_end = text.iter().position(|&byte| byte == b'{' || byte == b'=').unwrap_or(text.len());
    let head = text.get(..head_end)?;
    let body = text.get(head_end..)?;
    if body.starts_with(b"=") || !head.trim_ascii_start().starts_with(b"static") {
        return None;
    }
    if !words(head).any(|word| matches!(word, b"inline" | b"__inline" | b"__inline__"))
        || words(head).any(|word| KEPT.contains(&word))
        || declares_others(body)
    {
        return None;
    }
    let mut rest = head;
    loop {
        let open = memchr::memchr(b'(', rest)?;
        let before = rest.get(..open)?.trim_ascii_end();
        let name_start = before.iter().rposition(|&byte| !is_word(byte)).map_or(0, |at| at + 1);
        let name = before.get(name_start..)?;
        if !NOT_NAMES.contains(&name) {
            return (!name.is_empty()).then_some(name);
        }
        rest = rest.get(closing_parenthesis(rest, open)? + 1..)?;
    }
}

fn closing_parenthesis(text: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0u32;
    text.iter().enumerate().skip(open).find_map(|(at, byte)| {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => return None,
        }
        (depth == 0).then_some(at)
    })
}

/// Whether a body declares things outside of itself, beside those that `BUILD_BUG_ON` makes
/// (include/linux/compiler_types.h, `compiletime_assert`): attributes given there would hold elsewhere too.
fn declares_others(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"extern").any(|at| {
        let rest = body.get(at + b"extern".len()..).unwrap_or_default();
        let is_assertion = rest.trim_ascii_start().strip_prefix(b"void").is_some_and(|rest| {
            words(rest).find(|word| !word.starts_with(b"__attribute")).is_some_and(is_assertion_name)
        });
        let before = at.checked_sub(1).and_then(|before| body.get(before)).copied().unwrap_or(b' ');
        let after = rest.first().copied().unwrap_or(b' ');
        !is_word(before) && !is_word(after) && !is_assertion
    })
}

fn is_assertion_name(word: &[u8]) -> bool {
    word.starts_with(b"__compiletime_assert_")
}

/// The words of a text, also those in strings: assembly refers to functions by their names.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| !is_word(byte))
        .filter(|word| word.first().is_some_and(|first| !first.is_ascii_digit()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
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
    fn what_is_used_counts() {
        assert!(!same(|unit| unit.replace("return x", "return x + 1")));
        assert!(!same(|unit| unit.replace("int a;", "long a;")));
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
