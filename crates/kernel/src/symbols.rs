//! The kernel's symbols: by name, by address, and their positions among symbols of one name.

use serde::Serialize;
use std::fmt;

/// One symbol of the kernel proper or of a loaded module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSymbol {
    /// Its name.
    pub name: Box<str>,
    /// Where the kernel is linked to hold it, KASLR aside. Per-CPU symbols before 6.15 are offsets from 0.
    pub address: u64,
    /// Its type as /proc/kallsyms prints it: `t` and `T` code, `w` and `W` weak, and so on as in nm(1).
    pub kind: u8,
}

impl KernelSymbol {
    /// Whether it names code, or is weak and may.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }
}

/// The place of a symbol among those of its name: `old_sympos` of `struct klp_func` and the number in a
/// `.klp.sym.*` name (Documentation/livepatch/module-elf-format.rst, "4. Livepatch symbols").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Counted from 1.
    pub position: u32,
    /// How many symbols have the name.
    pub count: u32,
}

impl Position {
    /// Whether the name is the only one, so that the kernel takes position 0 for it too.
    pub fn is_unique(self) -> bool {
        self.count == 1
    }
}

impl fmt::Display for Position {
    /// `2 of 3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.position, self.count)
    }
}

/// All symbols of one object, the kernel proper or a module.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    all: Vec<KernelSymbol>,
    /// Numbers of symbols, sorted by name; those of one name in the order of their positions. Half the
    /// memory of a hash map, and a lookup still takes less than a microsecond.
    by_name: Vec<u32>,
}

impl Symbols {
    /// Symbols in the kernel's order, which is also that of positions. `order`, where the kernel has one, is
    /// its own table of their numbers sorted by name: since 6.2 livepatch counts positions in that table.
    pub(crate) fn with_name_order(mut all: Vec<KernelSymbol>, order: Option<Vec<u32>>) -> Symbols {
        let order = order.filter(|order| order.len() == all.len());
        let mut by_name = order.unwrap_or_else(|| (0..all.len() as u32).collect());
        // Stable, and linear where it is sorted already. Sorting again keeps the search right for kernels
        // that sort by something else than the whole name (clang LTO cuts `.llvm.` suffixes).
        by_name.sort_by(|&a, &b| name_of(&all, a).cmp(name_of(&all, b)));
        if !all.is_sorted_by_key(|symbol| symbol.address) {
            let renumbered = sort_by_address(&mut all);
            for number in &mut by_name {
                *number = renumbered.get(*number as usize).copied().unwrap_or(*number);
            }
        }
        Symbols { all, by_name }
    }

    /// All symbols, by rising address; those of one address as the kernel keeps them.
    pub fn all(&self) -> &[KernelSymbol] {
        &self.all
    }

    /// The symbols of a name; the first has position 1.
    pub fn named<'a>(&'a self, name: &str) -> impl ExactSizeIterator<Item = &'a KernelSymbol> + use<'a> {
        let start = self.by_name.partition_point(|&number| name_of(&self.all, number) < name);
        let tail = self.by_name.get(start..).unwrap_or_default();
        let count = tail.partition_point(|&number| name_of(&self.all, number) == name);
        // Every number is an index: `with_name_order` made them so.
        tail.get(..count).unwrap_or_default().iter().map(|&number| &self.all[number as usize])
    }

    /// The symbols at exactly this address: aliases have one.
    pub fn at(&self, address: u64) -> &[KernelSymbol] {
        let start = self.all.partition_point(|symbol| symbol.address < address);
        let tail = self.all.get(start..).unwrap_or_default();
        let count = tail.partition_point(|symbol| symbol.address == address);
        tail.get(..count).unwrap_or_default()
    }

    /// The nearest symbol at or before an address, and the address's distance from it in bytes. Of aliases
    /// the first, as the kernel's own lookup does (kernel/kallsyms.c, `get_symbol_pos`).
    pub fn containing(&self, address: u64) -> Option<(&KernelSymbol, u64)> {
        let after = self.all.partition_point(|symbol| symbol.address <= address);
        let nearest = self.all.get(after.checked_sub(1)?)?;
        let first = self.at(nearest.address).first()?;
        Some((first, address - first.address))
    }

    /// The position of a symbol among those of its name. Of two symbols of one name at one address, either
    /// position leads the kernel to that address; the first is given.
    ///
    /// A symbol that is not of this kernel has a count of 0 or a position of 0.
    pub fn position(&self, symbol: &KernelSymbol) -> Position {
        let named = self.named(&symbol.name);
        let count = named.len() as u32;
        let position = named
            .enumerate()
            .find(|(_, candidate)| candidate.address == symbol.address)
            .map_or(0, |(number, _)| number as u32 + 1);
        Position { position, count }
    }
}

/// Sorts by address, and tells by each symbol's number before the one it has now.
fn sort_by_address(all: &mut Vec<KernelSymbol>) -> Vec<u32> {
    let mut numbered: Vec<(usize, KernelSymbol)> = std::mem::take(all).into_iter().enumerate().collect();
    numbered.sort_by_key(|(_, symbol)| symbol.address);
    let mut renumbered = vec![0; numbered.len()];
    for (now, (before, symbol)) in numbered.into_iter().enumerate() {
        // Each number from before is there once.
        renumbered[before] = now as u32;
        all.push(symbol);
    }
    renumbered
}

fn name_of(all: &[KernelSymbol], number: u32) -> &str {
    all.get(number as usize).map_or("", |symbol| &symbol.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        Symbols::with_name_order(list(), None)
    }

    fn list() -> Vec<KernelSymbol> {
        const TEXT: u64 = 0xffff_ffff_8100_0000;
        let symbols = [(0, "fixed_percpu_data"), (TEXT, "_text"), (TEXT, "_stext")];
        let functions = [(TEXT + 0x100, "show"), (TEXT + 0x200, "store"), (TEXT + 0x300, "show")];
        let symbol = |(address, name): (u64, &str)| KernelSymbol { name: name.into(), address, kind: b't' };
        symbols.into_iter().chain(functions).map(symbol).collect()
    }

    #[test]
    fn positions_count_from_one_in_address_order() {
        let symbols = symbols();
        let shows: Vec<_> = symbols.named("show").collect();
        assert_eq!(shows.iter().map(|symbol| symbol.address & 0xfff).collect::<Vec<_>>(), [0x100, 0x300]);
        assert_eq!(symbols.position(shows[1]), Position { position: 2, count: 2 });
        assert_eq!(symbols.position(shows[1]).to_string(), "2 of 2");
        assert!(symbols.position(symbols.named("store").next().unwrap()).is_unique());
        assert_eq!(symbols.named("nothing").len(), 0);
    }

    #[test]
    fn the_kernels_own_order_of_names_wins() {
        let symbols = Symbols::with_name_order(list(), Some(vec![2, 1, 0, 5, 3, 4]));
        let shows: Vec<_> = symbols.named("show").map(|symbol| symbol.address & 0xfff).collect();
        assert_eq!(shows, [0x300, 0x100]);
    }

    #[test]
    fn an_address_is_found_with_its_aliases() {
        let symbols = symbols();
        assert_eq!(symbols.at(0xffff_ffff_8100_0000).len(), 2);
        let (symbol, offset) = symbols.containing(0xffff_ffff_8100_0010).unwrap();
        assert_eq!((&*symbol.name, offset), ("_text", 0x10));
        assert!(symbols.at(5).is_empty());
    }

    #[test]
    fn symbols_out_of_order_keep_their_positions() {
        let symbols = Symbols::with_name_order(list().into_iter().rev().collect(), None);
        assert!(symbols.all().is_sorted_by_key(|symbol| symbol.address));
        let shows: Vec<_> = symbols.named("show").map(|symbol| symbol.address & 0xfff).collect();
        assert_eq!(shows, [0x300, 0x100]);
    }

    #[test]
    fn a_stranger_has_no_position() {
        let stranger = KernelSymbol { name: "show".into(), address: 1, kind: b't' };
        assert_eq!(symbols().position(&stranger), Position { position: 0, count: 2 });
    }
}
