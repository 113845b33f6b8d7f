//! Two layouts of one structure or union.

use crate::dwarf::Entries;
use crate::queries::Member;
use crate::same::{Pair, Relation};
use std::collections::BTreeMap;
use std::fmt;

/// Where a field is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From the structure's begin, in bits.
    pub offset: u64,
    /// In bits.
    pub size: u64,
    /// Its type, as C writes it.
    pub shown: String,
    /// Whether it is a bit-field.
    pub is_bit_field: bool,
}

/// A field that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldChange {
    /// Its name; `outer.inner` for one of a structure without a tag.
    pub name: String,
    /// Where it was; `None` for a new field.
    pub before: Option<Place>,
    /// Where it is; `None` for a removed field.
    pub after: Option<Place>,
    /// How its two types relate; [`Relation::Same`] for a field that is new or removed.
    pub relation: Relation,
}

/// What a new layout means for the instances that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// Every field that stays is where it was, and the size is the same.
    InPlace,
    /// The same, but it is larger.
    Grown,
    /// Fields moved or became something else, or it is smaller.
    Shifted,
}

/// A changed layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layout {
    /// The sizes before and after, in bytes.
    pub sizes: (u64, u64),
    /// The fields that differ, in the order of their offsets.
    pub fields: Vec<FieldChange>,
    /// What it means.
    pub placement: Placement,
}

/// Compares the layouts of a structure; `None` if nothing differs.
pub(crate) fn compare(pair: &Pair<'_>, before: usize, after: usize) -> Option<Layout> {
    let sizes = (pair.before.size(Some(before)), pair.after.size(Some(after)));
    let mut old = by_name(pair.before.members(before));
    let mut new = by_name(pair.after.members(after));
    drop_renamed(pair, &mut old, &mut new);
    let mut fields = Vec::new();
    for (name, member) in &old {
        let other = new.get(name);
        let relation = other.map_or(Relation::Same, |other| pair.relate(member.target, other.target));
        let stays = other.is_some_and(|other| (other.offset, other.size) == (member.offset, member.size));
        if !stays || relation != Relation::Same {
            fields.push(FieldChange {
                name: name.clone(),
                before: Some(place(pair.before, member)),
                after: other.map(|other| place(pair.after, other)),
                relation,
            });
        }
    }
    for (name, member) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        fields.push(FieldChange {
            name: name.clone(),
            before: None,
            after: Some(place(pair.after, member)),
            relation: Relation::Same,
        });
    }
    if fields.is_empty() && sizes.0 == sizes.1 {
        return None;
    }
    fields.sort_by_key(|field| (field.offset(), field.name.clone()));
    let placement = placement(sizes, &fields);
    Some(Layout { sizes, fields, placement })
}

type Members = BTreeMap<String, Member>;

fn by_name(members: Vec<Member>) -> Members {
    members.into_iter().map(|member| (member.name.clone(), member)).collect()
}

fn place(side: &Entries<'_>, member: &Member) -> Place {
    Place {
        offset: member.offset,
        size: member.size,
        shown: side.show(member.target),
        is_bit_field: member.is_bit_field,
    }
}

/// Leaves out fields that only have another name: names are not in the kernel.
fn drop_renamed(pair: &Pair<'_>, old: &mut Members, new: &mut Members) {
    let renamed = |name: &String, member: &Member, others: &Members, own: &Members| {
        let other = others.values().find(|other| {
            (other.offset, other.size) == (member.offset, member.size) && !own.contains_key(&other.name)
        });
        other.filter(|_| !others.contains_key(name)).map(|other| (name.clone(), other.name.clone()))
    };
    let pairs: Vec<(String, String)> =
        old.iter().filter_map(|(name, member)| renamed(name, member, new, old)).collect();
    for (before, after) in pairs {
        let (Some(first), Some(second)) = (old.get(&before), new.get(&after)) else { continue };
        if pair.relate(first.target, second.target) == Relation::Same {
            old.remove(&before);
            new.remove(&after);
        }
    }
}

fn placement(sizes: (u64, u64), fields: &[FieldChange]) -> Placement {
    let is_broken = fields.iter().any(|field| match (&field.before, &field.after) {
        (Some(before), Some(after)) => {
            (before.offset, before.size) != (after.offset, after.size)
                || field.relation == Relation::Different
        }
        _ => false,
    });
    match sizes {
        _ if is_broken => Placement::Shifted,
        (before, after) if after < before => Placement::Shifted,
        (before, after) if after > before => Placement::Grown,
        _ => Placement::InPlace,
    }
}

impl FieldChange {
    fn offset(&self) -> u64 {
        self.after.as_ref().or(self.before.as_ref()).map_or(0, |place| place.offset)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_bit_field {
            return write!(
                f,
                "{} of {} bits at byte {}, bit {}",
                self.shown,
                self.size,
                self.offset / 8,
                self.offset % 8
            );
        }
        write!(f, "{} of {} bytes at {}", self.shown, self.size / 8, self.offset / 8)
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{}: {before}, then {after}", self.name),
            (Some(before), None) => write!(f, "{}: removed, was {before}", self.name),
            (None, Some(after)) => write!(f, "{}: new, {after}", self.name),
            (None, None) => f.write_str(&self.name),
        }
    }
}
