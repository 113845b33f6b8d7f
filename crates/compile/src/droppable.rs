//! Outermost declarations that come to nothing in an object unless another declaration leads to them, for
//! [`crate::live_text`].
//!
//! These are static inline functions, declarations of functions and of variables that are elsewhere (`extern`), and types. What
//! is not certainly one of them is none.

/// Functions that the compiler calls where the source does not (GCC manual, "Standards": what it requires of a freestanding
/// environment).
const IMPLIED: &[&[u8]] = &[b"memcpy", b"memmove", b"memset", b"memcmp", b"abort"];

/// The names by which other declarations lead to this one; none if it counts in any case.
pub fn names(declaration: &[u8]) -> Vec<&[u8]> {
    let names = droppable_names(declaration).unwrap_or_default();
    if names.iter().any(|name| IMPLIED.contains(name)) { Vec::new() } else { names }
}

fn droppable_names(declaration: &[u8]) -> Option<Vec<&[u8]>> {
    if let Some(name) = inline_function(declaration) {
        return Some(vec![name]);
    }
    let text = declaration.trim_ascii().strip_suffix(b";")?;
    if words(text).any(|word| KEPT.contains(&word)) {
        return None;
    }
    let tokens = tokens(text)?;
    type_names(&tokens).or_else(|| function_or_variable(&tokens))
}

/// A part of a declaration, outside of all parentheses. Attributes are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a [u8]),
    /// Parentheses of a kind with what is in them.
    Group(u8, &'a [u8]),
    Sign(u8),
}

use Token::{Group, Sign, Word};

fn tokens(text: &[u8]) -> Option<Vec<Token<'_>>> {
    let mut found = Vec::new();
    let mut rest = text.trim_ascii();
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'(' | b'[' | b'{' => {
                let close = closing_parenthesis(rest, 0)?;
                let is_attribute = matches!(found.last(), Some(Word(b"__attribute__" | b"__attribute")));
                if is_attribute {
                    found.pop();
                } else {
                    found.push(Group(byte, rest.get(1..close)?));
                }
                close + 1
            }
            _ if is_word(byte) => {
                let end = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
                found.push(Word(rest.get(..end)?));
                end
            }
            _ => {
                found.push(Sign(byte));
                1
            }
        };
        rest = rest.get(length..)?.trim_ascii_start();
    }
    Some(found)
}

/// The names of a type: its tag, or a typedef's name. Those of types and constants that are declared within it too.
fn type_names<'a>(tokens: &[Token<'a>]) -> Option<Vec<&'a [u8]>> {
    let (tokens, mut names) = match tokens {
        [Word(b"typedef"), tokens @ .., Word(name)] => (tokens, vec![*name]),
        tokens => (tokens, Vec::new()),
    };
    let is_typedef = !names.is_empty();
    match tokens {
        [Word(kind @ (b"struct" | b"union" | b"enum")), rest @ ..] => {
            let rest = match rest {
                [Word(tag), rest @ ..] => {
                    names.extend((!is_typedef || !rest.is_empty()).then_some(*tag));
                    rest
                }
                rest => rest,
            };
            match rest {
                [Group(b'{', body), rest @ ..] if is_typedef || rest.is_empty() => {
                    members(kind, body, 0, &mut names)?;
                    rest.iter().all(is_part_of_type).then_some(names)
                }
                rest => (rest.is_empty() || is_typedef && rest.iter().all(is_part_of_type)).then_some(names),
            }
        }
        tokens => (is_typedef && tokens.iter().all(is_part_of_type)).then_some(names),
    }
}

/// How deep types within types are followed.
const DEEPEST: u32 = 30;

/// The names that a type's body declares for the whole unit: constants and tags (C11 6.2.1).
fn members<'a>(kind: &[u8], body: &'a [u8], depth: u32, names: &mut Vec<&'a [u8]>) -> Option<()> {
    if kind == b"enum" {
        names.extend(words(body));
        return Some(());
    }
    if depth > DEEPEST {
        return None;
    }
    let tokens = tokens(body)?;
    for (at, token) in tokens.iter().enumerate() {
        let Word(kind @ (b"struct" | b"union" | b"enum")) = token else { continue };
        match tokens.get(at + 1..).unwrap_or_default() {
            [Word(tag), Group(b'{', body), ..] => {
                names.push(tag);
                members(kind, body, depth + 1, names)?;
            }
            [Group(b'{', body), ..] => members(kind, body, depth + 1, names)?,
            _ => {}
        }
    }
    Some(())
}

fn is_part_of_type(token: &Token<'_>) -> bool {
    matches!(token, Word(_) | Sign(b'*'))
}

/// The name of a function that is only declared, or of a variable that is elsewhere.
fn function_or_variable<'a>(tokens: &[Token<'a>]) -> Option<Vec<&'a [u8]>> {
    const NO_TYPE: &[&[u8]] = &[
        b"extern",
        b"static",
        b"inline",
        b"__inline",
        b"__inline__",
        b"const",
        b"volatile",
        b"register",
        b"__extension__",
        b"_Noreturn",
    ];
    let (kind, name) = match tokens {
        [kind @ .., Word(name), Group(b'(', parameters)] if !parameters.trim_ascii().starts_with(b"*") => {
            (kind, name)
        }
        [kind @ .., Group(b'[', _), Group(b'[', _)] | [kind @ .., Group(b'[', _)] | kind => match kind {
            [Word(b"extern"), kind @ .., Word(name)] => (kind, name),
            _ => return None,
        },
    };
    let has_type = kind.iter().any(|token| matches!(token, Word(word) if !NO_TYPE.contains(word)));
    let is_tag = matches!(kind.last(), Some(Word(b"struct" | b"union" | b"enum")));
    let is_plain = kind.iter().all(is_part_of_type) && !matches!(kind.first(), Some(Word(b"typedef")));
    (has_type && is_plain && !is_tag && !name.ends_with(b"tatic_assert")).then(|| vec![*name])
}

/// Whether this is what stands before a function's body: there are parentheses that belong to no attribute.
pub fn is_function_head(text: &[u8]) -> bool {
    let tokens = tokens(text).unwrap_or_default();
    !tokens.contains(&Sign(b'=')) && tokens.iter().any(|token| matches!(token, Group(b'(', _)))
}

/// The place of the quote that closes the one at `open`, or the end.
pub fn closing_quote(text: &[u8], open: usize) -> usize {
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
const KEPT: &[&[u8]] = &[
    b"__used__",
    b"used",
    b"__constructor__",
    b"constructor",
    b"alias",
    b"__alias__",
    b"ifunc",
    b"__ifunc__",
    b"weakref",
    b"__weakref__",
    b"weak",
    b"__weak__",
    b"asm",
    b"__asm",
    b"__asm__",
];

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

/// The place of the parenthesis, of any kind, that closes the one at `open`.
fn closing_parenthesis(text: &[u8], open: usize) -> Option<usize> {
    let (mut depth, mut at) = (0u32, open);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            b'"' | b'\'' => at = closing_quote(text, at),
            _ => {}
        }
        at += 1;
    }
    None
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
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| !is_word(byte))
        .filter(|word| word.first().is_some_and(|first| !first.is_ascii_digit()))
}

/// Whether a name may hold a byte, in what gcc has preprocessed.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(declaration: &str, expect: &[&str]) {
        let found: Vec<_> = names(declaration.as_bytes()).into_iter().map(String::from_utf8_lossy).collect();
        assert_eq!(found, expect, "{declaration}");
    }

    #[test]
    fn declarations_go_by_their_names() {
        check("\nstatic inline __attribute__((x)) int f(int a) { return a; }", &["f"]);
        check("struct s *f(struct t *a, int (*g)(void)) __attribute__((__warn__(\")\")));", &["f"]);
        check("static int f(void);", &["f"]);
        check("extern const struct s v[3][2];", &["v"]);
        check("extern unsigned long __attribute__((x)) volatile v;", &["v"]);
        check("struct s;", &["s"]);
        check("struct __attribute__((packed)) s { int a; struct t b; } __attribute__((aligned(4)));", &["s"]);
        check("struct s { union { struct t { int a; }; enum { A = '{', B }; } u; };", &["s", "t", "A", "B"]);
        check("enum e { A, B = 2 };", &["e", "A", "B"]);
        check("enum { A };", &["A"]);
        check("typedef struct s t;", &["t"]);
        check("typedef struct s { int a; } *t;", &["t", "s"]);
        check("typedef unsigned long t;", &["t"]);
    }

    #[test]
    fn what_makes_something_or_is_unclear_has_no_names() {
        for declaration in [
            "int f(void) { return 1; }",
            "inline int f(void) { return 1; }",
            "static inline __attribute__((used)) int f(void) { return 1; }",
            "int v;",
            "struct s v;",
            "struct s { int a; } v;",
            "struct { int a; } v;",
            "extern int v = 3;",
            "extern int v, w;",
            "extern struct { int a; } v;",
            "int f(void), g(void);",
            "int (*v)(void);",
            "static t (*v);",
            "static t (v);",
            "struct s (*v)(void);",
            "struct s (v);",
            "t (v)(int);",
            "typedef int t(void);",
            "typedef int (*t)(void);",
            "typedef int t[4];",
            "_Static_assert(1, \"x\");",
            "__extension__ _Static_assert(1, \"x\");",
            "__asm__(\"x\");",
            "extern int f(void) __asm__(\"g\");",
            "extern int f(void) __attribute__((weak));",
            "void *memcpy(void *to, const void *from, unsigned long size);",
            "__typeof__(f) g(void);",
            "int f(a) int a;",
            ";",
            "",
            "struct",
            "struct s {",
            "#pragma pack(1)",
        ] {
            check(declaration, &[]);
        }
        check(&format!("struct s {{ {}int a; {}", "struct { ".repeat(9000), "} ;".repeat(9001)), &[]);
    }

    #[test]
    fn functions_are_told_from_types_and_initial_values() {
        for head in ["int f(void)", "struct s *f(int a) __attribute__((x))", "__attribute__((x)) int f(void)"]
        {
            assert!(is_function_head(head.as_bytes()), "{head}");
        }
        for head in
            ["struct s", "struct __attribute__((x)) s", "int v[] =", "int (*v[2])(void) =", "enum", ""]
        {
            assert!(!is_function_head(head.as_bytes()), "{head}");
        }
    }
}
