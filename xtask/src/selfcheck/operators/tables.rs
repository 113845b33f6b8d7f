//! Tables beside the code: exports, sets of types, flags of what happens once.

use super::{Change, Place, one_of};
use crate::selfcheck::random::Random;
use crate::selfcheck::source::words;

fn line_with<'a>(
    place: &Place<'a>,
    random: &mut Random,
    fits: impl Fn(&str) -> bool,
) -> Option<(usize, &'a str)> {
    let lines: Vec<(usize, &str)> =
        place.source.lines.iter().enumerate().map(|(at, line)| (at, line.as_str())).collect();
    one_of(&lines, random, |(_, line)| fits(line)).copied()
}

pub(super) fn export_to_gpl(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let (at, line) = line_with(place, random, |line| line.starts_with("EXPORT_SYMBOL("))?;
    Some(Change::new(line.trim()).replace(at, &line.replacen("EXPORT_SYMBOL(", "EXPORT_SYMBOL_GPL(", 1)))
}

pub(super) fn export_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let is_export = |line: &str| line.starts_with("EXPORT_SYMBOL(") || line.starts_with("EXPORT_SYMBOL_GPL(");
    let (at, line) = line_with(place, random, is_export)?;
    Some(Change::new(format!("{} goes", line.trim())).replace(at, ""))
}

pub(super) fn btf_entry_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let is_entry = |line: &str| line.starts_with("BTF_ID(func") || line.starts_with("BTF_ID_FLAGS(func");
    let (at, line) = line_with(place, random, is_entry)?;
    Some(Change::new(format!("{} goes", line.trim())).replace(at, ""))
}

/// Of two messages in one function, the one that was said once is said always, and the other way round.
pub(super) fn once_exchanged(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    const KINDS: [&str; 6] = ["pr_warn", "pr_err", "pr_info", "WARN_ON", "WARN", "pr_notice"];
    let lines = &place.source.lines;
    let mut found = Vec::new();
    for function in place.source.functions.iter().filter(|function| !function.is_start_code()) {
        let calls = |at: usize, end: &str| {
            let kind = |kind: &&str| words(&lines[at]).any(|word| word == format!("{kind}{end}"));
            KINDS.iter().find(|one| kind(one)).map(|kind| (at, *kind))
        };
        let once: Vec<_> = function
            .body
            .clone()
            .filter_map(|at| calls(at, "_once").or_else(|| calls(at, "_ONCE")))
            .collect();
        let always: Vec<_> = function.body.clone().filter_map(|at| calls(at, "")).collect();
        if let ([first, ..], [second, ..]) = (once.as_slice(), always.as_slice())
            && first.0 != second.0
        {
            found.push((function, *first, *second));
        }
    }
    let (function, (first, one), (second, other)) = random.one_of(&found)?;
    let once = |kind: &str| format!("{kind}{}", if kind.starts_with("pr_") { "_once" } else { "_ONCE" });
    let less = lines[*first].replacen(&format!("{}(", once(one)), &format!("{one}("), 1);
    let more = lines[*second].replacen(&format!("{other}("), &format!("{}(", once(other)), 1);
    let what = format!("{}: lines {} and {} exchange being said once", function.name, first + 1, second + 1);
    Some(Change::new(what).replace(*first, &less).replace(*second, &more))
}
