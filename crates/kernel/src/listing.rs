//! The symbols of a running kernel and of its modules, as /proc/kallsyms lists them.

use crate::symbols::{KernelSymbol, Symbols};
use std::collections::BTreeMap;

/// The kernel proper among the objects.
const VMLINUX: &str = "vmlinux";

/// A listing of symbols by the object that has them: `vmlinux`, or a module by its name. What the kernel
/// makes itself (`bpf`, `__builtin__ftrace`) is listed as modules are.
///
/// The addresses are those of the running kernel, which KASLR has moved.
#[derive(Debug, Clone)]
pub struct Listing {
    objects: BTreeMap<String, Symbols>,
}

impl Listing {
    /// Reads the lines `address type name[<tab>[module]]`. `None` where a line is not of that form, or where
    /// all addresses are hidden (`kptr_restrict`).
    pub fn parse(listing: &str) -> Option<Listing> {
        let mut objects: BTreeMap<&str, Vec<KernelSymbol>> = BTreeMap::new();
        let mut hidden = true;
        for line in listing.lines() {
            let (symbol, object) = match line.split_once('\t') {
                Some((symbol, object)) => (symbol, object.trim_end().strip_prefix('[')?.strip_suffix(']')?),
                None => (line, VMLINUX),
            };
            let symbol = parse_symbol(symbol)?;
            hidden &= symbol.address == 0;
            objects.entry(object).or_default().push(symbol);
        }
        let sorted = |(name, symbols): (&str, _)| (name.to_owned(), Symbols::with_name_order(symbols, None));
        (!hidden).then(|| Listing { objects: objects.into_iter().map(sorted).collect() })
    }

    /// The names of the objects, sorted.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// The symbols of an object; their positions are those that livepatch counts now.
    pub fn symbols(&self, object: &str) -> Option<&Symbols> {
        self.objects.get(object)
    }

    /// The object and the symbol that an address is in: the nearest symbol before it, and the distance from
    /// it in bytes.
    pub fn owner(&self, address: u64) -> Option<(&str, &KernelSymbol, u64)> {
        let nearest = self.objects.iter().filter_map(|(object, symbols)| {
            let (symbol, offset) = symbols.containing(address)?;
            Some((object.as_str(), symbol, offset))
        });
        nearest.min_by_key(|&(_, _, offset)| offset)
    }
}

fn parse_symbol(line: &str) -> Option<KernelSymbol> {
    let mut fields = line.split(' ');
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let &[kind] = fields.next()?.as_bytes() else { return None };
    Some(KernelSymbol { name: fields.next()?.into(), address, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
ffffffff81000000 T _text
ffffffff81000100 t show
ffffffffc0000200 t show\t[some]
ffffffffc0000100 t show\t[some]
ffffffffc0000000 t bpf_prog\t[bpf]
";

    #[test]
    fn each_object_has_its_own_positions_in_the_listings_order() {
        let listing = Listing::parse(LISTING).unwrap();
        assert_eq!(listing.objects().collect::<Vec<_>>(), ["bpf", "some", "vmlinux"]);
        assert_eq!(listing.symbols("vmlinux").unwrap().named("show").len(), 1);
        let shows = listing.symbols("some").unwrap().named("show");
        assert_eq!(shows.map(|symbol| symbol.address & 0xfff).collect::<Vec<_>>(), [0x200, 0x100]);
    }

    #[test]
    fn an_address_has_an_owner() {
        let listing = Listing::parse(LISTING).unwrap();
        let owner = |address| listing.owner(address).map(|(object, symbol, at)| (object, &*symbol.name, at));
        assert_eq!(owner(0xffff_ffff_c000_0105), Some(("some", "show", 5)));
        assert_eq!(owner(0xffff_ffff_8100_0001), Some(("vmlinux", "_text", 1)));
        assert_eq!(owner(1), None);
    }

    #[test]
    fn hidden_addresses_and_other_texts_are_no_listing() {
        assert!(Listing::parse("0000000000000000 T _text\n").is_none());
        assert!(Listing::parse("hello\n").is_none());
        assert!(Listing::parse("ffffffff81000000 T _text\tsome\n").is_none());
    }
}
