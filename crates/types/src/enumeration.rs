//! Two lists of an enumeration's values.

use crate::dwarf::Entries;
use gimli::constants as dw;
use std::collections::BTreeMap;

/// A name that stands for another number than before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueChange {
    /// The name.
    pub name: String,
    /// The number before.
    pub before: i128,
    /// The number after.
    pub after: i128,
    /// Whether it only tells how many names there are: it stands behind all others and no one stores it.
    pub is_end: bool,
}

/// Parts of names that mark the end of a list (`NR_VALUES`, `__VALUE_MAX`, `VALUE_LAST`).
const ENDS: &[&str] = &["MAX", "NR", "NUM", "COUNT", "CNT", "LAST", "END", "SIZE", "TOTAL", "MASK"];

/// The names whose number changed, in the order of their old numbers.
pub(crate) fn compare(before: &Values, after: &Values) -> Vec<ValueChange> {
    let changed = |(name, &old): (&String, &i128)| {
        let new = after.get(name).copied().filter(|&new| new != old)?;
        Some(ValueChange { name: name.clone(), before: old, after: new, is_end: false })
    };
    let mut changes: Vec<ValueChange> = before.iter().filter_map(changed).collect();
    let moved = |name: &str| after.get(name) != before.get(name);
    // The highest number that a name keeps which is no end marker.
    let last = before.iter().filter(|(name, _)| !is_end_name(name)).map(|(_, &value)| value).max();
    let members_stay = before.keys().all(|name| is_end_name(name) || !moved(name));
    for change in &mut changes {
        change.is_end =
            members_stay && is_end_name(&change.name) && last.is_none_or(|last| change.before >= last);
    }
    changes.sort_by_key(|change| (change.before, change.name.clone()));
    changes
}

/// Numbers by name.
pub(crate) type Values = BTreeMap<String, i128>;

/// The names of an enumeration.
pub(crate) fn values(side: &Entries<'_>, enumeration: usize) -> Values {
    let named =
        |(_, entry): (usize, &crate::dwarf::Entry<'_>)| Some((entry.name?.to_owned(), entry.constant?));
    let names = side.children(enumeration).filter(|(_, entry)| entry.tag == dw::DW_TAG_enumerator);
    names.filter_map(named).collect()
}

fn is_end_name(name: &str) -> bool {
    name.split('_').any(|part| ENDS.contains(&part.to_ascii_uppercase().trim_end_matches(char::is_numeric)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(names: &[(&str, i128)]) -> Values {
        names.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn a_name_added_before_the_end_moves_the_end_only() {
        let before = values(&[("A", 0), ("B", 1), ("NR_AB", 2), ("AB_MAX", 1)]);
        let after = values(&[("A", 0), ("B", 1), ("C", 2), ("NR_AB", 3), ("AB_MAX", 2)]);
        let changes = compare(&before, &after);
        assert_eq!(changes.len(), 2);
        assert!(changes.iter().all(|change| change.is_end));
    }

    #[test]
    fn a_name_added_in_the_middle_moves_those_behind_it() {
        let before = values(&[("A", 0), ("B", 1), ("NR_AB", 2)]);
        let after = values(&[("A", 0), ("C", 1), ("B", 2), ("NR_AB", 3)]);
        let changes = compare(&before, &after);
        assert_eq!(changes.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["B", "NR_AB"]);
        assert!(changes.iter().all(|change| !change.is_end));
    }

    #[test]
    fn names_that_come_and_go_change_nothing() {
        assert_eq!(compare(&values(&[("A", 0), ("B", 1)]), &values(&[("A", 0), ("C", 1)])), []);
    }
}
