//! Whether what was stored as one type can be read as another.
//!
//! Structures, unions and enumerations of one name count as the same here: each is compared on its own, and what holds
//! one is not reported for what changed inside it.

use crate::dwarf::Entries;
use crate::enumeration;
use gimli::constants as dw;
use std::collections::HashSet;

/// How the two types of one thing relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// The same but for names and qualifiers.
    Same,
    /// As large, and the bits are read in another way: signed for unsigned, `void *` for a pointer to a structure.
    Reread,
    /// Pointers to functions whose parameters or results differ.
    Signature,
    /// Nothing that is stored as the one can be taken for the other.
    Different,
}

/// Two sides, and the pairs of types that are taken to be the same while they are being compared.
pub(crate) struct Pair<'a> {
    pub(crate) before: &'a Entries<'a>,
    pub(crate) after: &'a Entries<'a>,
}

type Assumed = HashSet<(usize, usize)>;

impl Pair<'_> {
    /// Relates a type of the original to one of the patched side.
    pub(crate) fn relate(&self, before: Option<usize>, after: Option<usize>) -> Relation {
        self.relate_within(before, after, &mut Assumed::new(), 64)
    }

    /// Relates the types of two functions. Parameters that are only read in another way are passed alike.
    pub(crate) fn relate_functions(&self, before: usize, after: usize) -> Relation {
        self.relate_signatures(before, after, &mut Assumed::new(), 64)
    }

    fn relate_within(
        &self,
        before: Option<usize>,
        after: Option<usize>,
        assumed: &mut Assumed,
        depth: u32,
    ) -> Relation {
        let (bare_before, bare_after) = (self.before.bare(before), self.after.bare(after));
        let (Some(a), Some(b)) = (bare_before, bare_after) else {
            return if bare_before.is_none() && bare_after.is_none() {
                Relation::Same
            } else {
                Relation::Different
            };
        };
        let Some(depth) = depth.checked_sub(1) else { return Relation::Different };
        if !assumed.insert((a, b)) {
            return Relation::Same;
        }
        let (Some(first), Some(second)) = (self.before.get(a), self.after.get(b)) else {
            return Relation::Different;
        };
        let is_scalar = |tag| tag == dw::DW_TAG_base_type || tag == dw::DW_TAG_enumeration_type;
        match (first.tag, second.tag) {
            (dw::DW_TAG_base_type, dw::DW_TAG_base_type) if first.byte_size == second.byte_size => {
                if first.encoding == second.encoding { Relation::Same } else { Relation::Reread }
            }
            (dw::DW_TAG_pointer_type, dw::DW_TAG_pointer_type) => {
                self.relate_pointees(self.before.target(a), self.after.target(b), assumed, depth)
            }
            (dw::DW_TAG_array_type, dw::DW_TAG_array_type) => {
                let counts = |side: &Entries<'_>, index| -> Vec<u64> {
                    side.counts(index).into_iter().map(|count| count.unwrap_or(0)).collect()
                };
                if counts(self.before, a) != counts(self.after, b) {
                    return Relation::Different;
                }
                self.relate_within(self.before.target(a), self.after.target(b), assumed, depth)
            }
            (dw::DW_TAG_subroutine_type, dw::DW_TAG_subroutine_type) => {
                self.relate_signatures(a, b, assumed, depth)
            }
            (dw::DW_TAG_enumeration_type, dw::DW_TAG_enumeration_type)
                if first.byte_size == second.byte_size && self.are_alike(a, b) =>
            {
                Relation::Same
            }
            (one, other) if is_scalar(one) && is_scalar(other) && first.byte_size == second.byte_size => {
                Relation::Reread
            }
            (one, other) if one == other && self.before.is_record(a) => {
                self.relate_records(a, b, assumed, depth)
            }
            // `refcount_t` for `int`: the one field of a structure that is no larger.
            _ => match (only_member(self.before, a), only_member(self.after, b)) {
                (Some(inner), _) => self.relate_within(Some(inner), after, assumed, depth),
                (None, Some(inner)) => self.relate_within(before, Some(inner), assumed, depth),
                (None, None) => Relation::Different,
            },
        }
    }

    /// Whether two enumerations have one name, or their names stand for the same numbers.
    fn are_alike(&self, a: usize, b: usize) -> bool {
        let name =
            |side: &Entries<'_>, index| side.get(index).and_then(|entry| entry.name.map(str::to_owned));
        let first = name(self.before, a);
        let values = |side, index| enumeration::values(side, index);
        (first.is_some() && first == name(self.after, b))
            || enumeration::compare(&values(self.before, a), &values(self.after, b)).is_empty()
    }

    /// What a pointer leads to. A pointer to nothing known may lead to anything.
    fn relate_pointees(
        &self,
        before: Option<usize>,
        after: Option<usize>,
        assumed: &mut Assumed,
        depth: u32,
    ) -> Relation {
        let is_void = |side: &Entries<'_>, target| side.bare(target).is_none();
        match (is_void(self.before, before), is_void(self.after, after)) {
            (true, true) => Relation::Same,
            (false, false) => self.relate_within(before, after, assumed, depth),
            _ => Relation::Reread,
        }
    }

    /// Two structures or two unions: of one name, or alike in all their fields.
    fn relate_records(&self, a: usize, b: usize, assumed: &mut Assumed, depth: u32) -> Relation {
        let (Some(first), Some(second)) = (self.before.get(a), self.after.get(b)) else {
            return Relation::Different;
        };
        if first.name.is_some() && first.name == second.name {
            return Relation::Same;
        }
        let (fields, others) = (self.before.members(a), self.after.members(b));
        let is_alike = !first.is_declaration
            && !second.is_declaration
            && first.byte_size == second.byte_size
            && fields.len() == others.len()
            && fields.iter().zip(&others).all(|(one, other)| {
                (&one.name, one.offset, one.size) == (&other.name, other.offset, other.size)
                    && self.relate_within(one.target, other.target, assumed, depth) == Relation::Same
            });
        if is_alike { Relation::Same } else { Relation::Different }
    }

    fn relate_signatures(&self, a: usize, b: usize, assumed: &mut Assumed, depth: u32) -> Relation {
        let ((first, one), (second, other)) = (self.before.parameters(a), self.after.parameters(b));
        if first.len() != second.len() || one != other {
            return Relation::Signature;
        }
        let results = (self.before.target(a), self.after.target(b));
        let pairs = first.into_iter().zip(second).chain([results]);
        let worst = pairs.map(|(before, after)| self.relate_within(before, after, assumed, depth)).max();
        worst.unwrap_or(Relation::Same).min(Relation::Signature)
    }
}

/// The one field of a structure that is no larger than it.
fn only_member(side: &Entries<'_>, index: usize) -> Option<usize> {
    if !side.is_record(index) {
        return None;
    }
    let members = side.members(index);
    let [member] = members.as_slice() else { return None };
    let is_whole = member.offset == 0 && member.size == side.size(Some(index)).saturating_mul(8);
    member.target.filter(|_| is_whole)
}
