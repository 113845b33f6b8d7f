//! Names that hold a number only to be told apart from others.
//!
//! The kernel makes them with `__COUNTER__`: `__UNIQUE_ID()` (include/linux/compiler.h), `compiletime_assert()`
//! (include/linux/compiler_types.h) and initcalls (include/linux/init.h, `__initcall_id`). Which number a name has
//! depends on all that is before it. To compare texts, each such name is taken as the how many-th it is.

use crate::droppable::is_word;
use std::collections::HashMap;
use std::ops::Range;

/// The names so far, by the order of their first place.
#[derive(Default)]
pub struct Counted(HashMap<Vec<u8>, usize>);

impl Counted {
    /// Passes a text on in parts, with the numbers of such names replaced.
    pub fn pass_on(&mut self, text: &[u8], take: &mut dyn FnMut(&[u8])) {
        let mut done = 0;
        for at in memchr::memmem::find_iter(text, b"__") {
            let is_start =
                at.checked_sub(1).and_then(|before| text.get(before)).is_none_or(|&byte| !is_word(byte));
            if at < done || !is_start {
                continue;
            }
            let rest = text.get(at..).unwrap_or_default();
            let word = rest.split(|&byte| !is_word(byte)).next().unwrap_or_default();
            let Some(number) = number_in(word) else { continue };
            let next = self.0.len();
            let rank = *self.0.entry(word.to_vec()).or_insert(next);
            take(text.get(done..at + number.start).unwrap_or_default());
            take(format!("#{rank}").as_bytes());
            done = at + number.end;
        }
        take(text.get(done..).unwrap_or_default());
    }
}

/// Where such a name holds its number.
fn number_in(word: &[u8]) -> Option<Range<usize>> {
    let digits = |word: &[u8]| word.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    if word.starts_with(b"__UNIQUE_ID_") || word.starts_with(b"__compiletime_assert_") {
        let count = digits(word);
        return (count > 0).then(|| word.len() - count..word.len());
    }
    // __initcall__kmod_MODULE__NUMBER_LINE_FUNCTION
    word.starts_with(b"__initcall__kmod_").then_some(())?;
    memchr::memmem::rfind_iter(word, b"__").find_map(|at| {
        let start = at + 2;
        let count = word.get(start..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let line = word.get(start + count..)?.strip_prefix(b"_")?;
        (count > 0 && line.first()?.is_ascii_digit()).then_some(start..start + count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(text: &str) -> String {
        let mut parts = Vec::new();
        Counted::default().pass_on(text.as_bytes(), &mut |part| parts.extend_from_slice(part));
        String::from_utf8(parts).unwrap()
    }

    #[test]
    fn names_count_by_their_order() {
        assert_eq!(
            passed("__compiletime_assert_9(); __UNIQUE_ID_a7 = &__UNIQUE_ID_b8; __UNIQUE_ID_a7"),
            "__compiletime_assert_#0(); __UNIQUE_ID_a#1 = &__UNIQUE_ID_b#2; __UNIQUE_ID_a#1"
        );
        assert_eq!(
            passed("asm(\"__initcall__kmod_x__12_34_f6: .long f\") __initcall__kmod_a__b2__9_34___f_1_26"),
            "asm(\"__initcall__kmod_x__#0_34_f6: .long f\") __initcall__kmod_a__b2__#1_34___f_1_26"
        );
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for text in [
            "a__UNIQUE_ID_a7",
            "__UNIQUE_ID_a",
            "__x7 y__ __",
            "__initcall__kmod_x",
            "__initcall__kmod_x__12",
            "",
        ] {
            assert_eq!(passed(text), text);
        }
    }
}
