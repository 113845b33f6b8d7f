//! What is asked of a type: its size, its fields, how C writes it.
//!
//! Types refer to each other in cycles only through names (`struct list { struct list *next; }`), but the input is not
//! trusted, so every walk has a bound.

use crate::dwarf::Entries;
use gimli::constants as dw;

/// Longest chain of pointers, arrays and typedefs that is followed.
const DEEPEST: u32 = 32;

/// A field with its place in the outermost structure.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// From the structure's first bit.
    pub(crate) offset: u64,
    /// In bits.
    pub(crate) size: u64,
    pub(crate) target: Option<usize>,
    pub(crate) is_bit_field: bool,
}

impl Entries<'_> {
    /// The type without typedefs and qualifiers; `None` for `void`.
    pub(crate) fn bare(&self, mut target: Option<usize>) -> Option<usize> {
        for _ in 0..DEEPEST {
            let index = target?;
            match self.get(index)?.tag {
                dw::DW_TAG_typedef
                | dw::DW_TAG_const_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type
                | dw::DW_TAG_atomic_type => target = self.target(index),
                _ => return Some(index),
            }
        }
        target
    }

    pub(crate) fn is_record(&self, index: usize) -> bool {
        self.get(index)
            .is_some_and(|entry| matches!(entry.tag, dw::DW_TAG_structure_type | dw::DW_TAG_union_type))
    }

    /// The structure, union or enumeration that a type is, holds in an array or points to.
    pub(crate) fn named_inside(&self, mut target: Option<usize>) -> Option<usize> {
        for _ in 0..DEEPEST {
            let index = self.bare(target)?;
            match self.get(index)?.tag {
                dw::DW_TAG_pointer_type | dw::DW_TAG_array_type => target = self.target(index),
                dw::DW_TAG_structure_type | dw::DW_TAG_union_type | dw::DW_TAG_enumeration_type => {
                    return Some(index);
                }
                _ => return None,
            }
        }
        None
    }

    /// How many elements an array has in each dimension; `None` where it does not say.
    pub(crate) fn counts(&self, array: usize) -> Vec<Option<u64>> {
        let ranges = self.children(array).filter(|(_, entry)| entry.tag == dw::DW_TAG_subrange_type);
        ranges.map(|(_, entry)| entry.count).collect()
    }

    /// The size in bytes; 0 for `void`, functions, and arrays without a bound.
    pub(crate) fn size(&self, target: Option<usize>) -> u64 {
        self.size_within(target, DEEPEST)
    }

    fn size_within(&self, target: Option<usize>, depth: u32) -> u64 {
        let Some(index) = self.bare(target).filter(|_| depth > 0) else { return 0 };
        let Some(entry) = self.get(index) else { return 0 };
        match entry.tag {
            dw::DW_TAG_array_type => {
                let count = self.counts(index).into_iter().map(|count| count.unwrap_or(0));
                let count = count.fold(1, u64::saturating_mul);
                count.saturating_mul(self.size_within(self.target(index), depth - 1))
            }
            dw::DW_TAG_pointer_type => entry.byte_size.unwrap_or(8),
            _ => entry.byte_size.unwrap_or(0),
        }
    }

    /// The fields of a structure or union. The place of a structure without a tag is taken by its own fields.
    pub(crate) fn members(&self, record: usize) -> Vec<Member> {
        let mut members = Vec::new();
        self.collect_members(record, "", 0, 8, &mut members);
        members
    }

    fn collect_members(&self, record: usize, prefix: &str, base: u64, depth: u32, members: &mut Vec<Member>) {
        for (index, entry) in self.children(record).filter(|(_, entry)| entry.tag == dw::DW_TAG_member) {
            let offset = base.saturating_add(entry.bit_offset);
            let target = self.target(index);
            let name = format!("{prefix}{}", entry.name.unwrap_or_default());
            let is_unnamed = |at: &usize| self.get(*at).is_some_and(|inner| inner.name.is_none());
            match target.filter(|&inner| depth > 0 && self.is_record(inner)).filter(is_unnamed) {
                // `struct { int a; } x;` has the field `x.a`; without the `x`, the field `a`.
                Some(inner) => {
                    let prefix = if entry.name.is_some() { format!("{name}.") } else { name };
                    self.collect_members(inner, &prefix, offset, depth - 1, members);
                }
                None if entry.name.is_some() => members.push(Member {
                    name,
                    offset,
                    size: entry.bit_size.unwrap_or_else(|| self.size(target).saturating_mul(8)),
                    target,
                    is_bit_field: entry.bit_size.is_some(),
                }),
                None => {}
            }
        }
    }

    /// The type as C writes it, without the name of what has it.
    pub(crate) fn show(&self, target: Option<usize>) -> String {
        self.show_within(target, 6)
    }

    fn show_within(&self, target: Option<usize>, depth: u32) -> String {
        let Some(index) = target else { return "void".to_owned() };
        let Some(entry) = self.get(index) else { return "?".to_owned() };
        let Some(depth) = depth.checked_sub(1) else { return "...".to_owned() };
        let inner = || self.show_within(self.target(index), depth);
        match entry.tag {
            dw::DW_TAG_pointer_type => match self.target(index).filter(|&to| self.is_function(to)) {
                Some(function) => self.show_function(function, "(*)", depth),
                None => format!("{} *", inner()).replace("* *", "**"),
            },
            // A constant array is one of constant elements, and is marked at both.
            dw::DW_TAG_const_type => format!("const {}", inner().trim_start_matches("const ")),
            dw::DW_TAG_volatile_type => format!("volatile {}", inner()),
            dw::DW_TAG_array_type => {
                let bound = |count: Option<u64>| count.map_or("[]".to_owned(), |count| format!("[{count}]"));
                let bounds: String = self.counts(index).into_iter().map(bound).collect();
                format!("{}{bounds}", inner())
            }
            dw::DW_TAG_subroutine_type | dw::DW_TAG_subprogram => self.show_function(index, "", depth),
            tag => [keyword(tag), entry.name.unwrap_or("{...}")].concat(),
        }
    }

    fn is_function(&self, index: usize) -> bool {
        self.get(index).is_some_and(|entry| entry.tag == dw::DW_TAG_subroutine_type)
    }

    /// A function's type: its result, `middle`, and its parameters.
    fn show_function(&self, index: usize, middle: &str, depth: u32) -> String {
        let (parameters, is_variadic) = self.parameters(index);
        let mut shown: Vec<String> =
            parameters.into_iter().map(|parameter| self.show_within(parameter, depth)).collect();
        if is_variadic {
            shown.push("...".to_owned());
        } else if shown.is_empty() {
            shown.push("void".to_owned());
        }
        format!("{} {middle}({})", self.show_within(self.target(index), depth), shown.join(", "))
    }

    /// The types of a function's parameters, and whether more may follow.
    pub(crate) fn parameters(&self, function: usize) -> (Vec<Option<usize>>, bool) {
        let mut types = Vec::new();
        let mut is_variadic = false;
        for (index, entry) in self.children(function) {
            match entry.tag {
                dw::DW_TAG_formal_parameter => types.push(self.target(index)),
                dw::DW_TAG_unspecified_parameters => is_variadic = true,
                _ => {}
            }
        }
        (types, is_variadic)
    }
}

/// What C writes before the name of a type of this kind.
pub(crate) fn keyword(tag: gimli::DwTag) -> &'static str {
    match tag {
        dw::DW_TAG_structure_type => "struct ",
        dw::DW_TAG_union_type => "union ",
        dw::DW_TAG_enumeration_type => "enum ",
        _ => "",
    }
}
