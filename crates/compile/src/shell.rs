//! Splitting a command line as a POSIX shell does, for the commands that the kernel's build prints.
//!
//! Only quoting is understood (single quotes, double quotes, backslash; POSIX.1-2017 2.2): nothing is
//! expanded. `;`, `&`, `|` outside quotes end a command and are words of their own.

/// Splits a command line into words. A quote that is never closed ends with the line.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut open = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => flush(&mut words, &mut word, &mut open),
            ';' | '&' | '|' => {
                flush(&mut words, &mut word, &mut open);
                words.push(c.to_string());
            }
            '\'' => {
                open = true;
                word.extend(chars.by_ref().take_while(|&c| c != '\''));
            }
            '"' => {
                open = true;
                double_quoted(&mut chars, &mut word);
            }
            '\\' => {
                open = true;
                word.extend(chars.next());
            }
            _ => {
                open = true;
                word.push(c);
            }
        }
    }
    flush(&mut words, &mut word, &mut open);
    words
}

fn flush(words: &mut Vec<String>, word: &mut String, open: &mut bool) {
    if *open {
        words.push(std::mem::take(word));
        *open = false;
    }
}

fn double_quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            '"' => return,
            '\\' => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some('\n') | None => {}
                Some(c) => word.extend(['\\', c]),
            },
            _ => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_a_kernel_build_come_off() {
        assert_eq!(words(r#"gcc -DKBUILD_MODNAME='"foo"' -c"#), ["gcc", r#"-DKBUILD_MODNAME="foo""#, "-c"]);
        assert_eq!(words(r"'a '\''b'\'' c' d"), ["a 'b' c", "d"]);
        assert_eq!(words(r#""a\"b\n" ''"#), [r#"a"b\n"#, ""]);
    }

    #[test]
    fn operators_are_words() {
        assert_eq!(words("a b;c && d|e"), ["a", "b", ";", "c", "&", "&", "d", "|", "e"]);
    }

    #[test]
    fn what_is_never_closed_ends_with_the_line() {
        assert_eq!(words("a 'b c"), ["a", "b c"]);
        assert_eq!(words("a \"b\\"), ["a", "b"]);
        assert_eq!(words("a \\"), ["a", ""]);
    }
}
