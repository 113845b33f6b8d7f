//! Where the unit's symbols are.

use crate::matched::Located;
use crate::names::is_label;
use crate::place::Placement;
use crate::refer::{Claim, claim};
use crate::shipped::Shipped;
use crate::unit::{Unit, is_merged};
use kmend_object::{Binding, Place, SymbolId, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};

/// Every symbol whose place is certain.
pub(crate) fn symbols(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
) -> BTreeMap<String, Located> {
    let led_to = led_to(unit, shipped, placement);
    let mut found: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for id in unit.object.symbol_ids() {
        let symbol = unit.object.symbol(id);
        if matches!(symbol.kind, SymbolKind::File | SymbolKind::Section) || is_label(&symbol.name) {
            continue;
        }
        if let Some(address) = address(unit, placement, &led_to, id) {
            found.entry(&symbol.name).or_default().insert(address);
        }
    }
    // Two symbols of one name in one unit (assembly can have them) are not told apart by it: neither is
    // certain.
    let certain = found.into_iter().filter_map(|(name, addresses)| {
        let mut addresses = addresses.into_iter();
        let only = addresses.next().filter(|_| addresses.next().is_none())?;
        Some((name.to_owned(), shipped.located(only, name)))
    });
    certain.collect()
}

/// The addresses that references to symbols of other units, and to weak ones, lead to.
fn led_to(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
) -> BTreeMap<SymbolId, BTreeSet<u64>> {
    let mut led_to: BTreeMap<SymbolId, BTreeSet<u64>> = BTreeMap::new();
    for (id, _) in unit.kept() {
        let Some(base) = placement.base(id) else { continue };
        for relocation in unit.relocations(id) {
            let place = base.wrapping_add(relocation.offset);
            let address = match claim(unit, shipped, place, relocation) {
                Claim::Symbol(_, address) => Some(address),
                Claim::Base(..) => None,
                Claim::Nothing => {
                    weak(unit, relocation.symbol).then(|| shipped.target(place, relocation)).flatten()
                }
            };
            if let Some(address) = address {
                led_to.entry(relocation.symbol).or_default().insert(address);
            }
        }
    }
    led_to
}

fn weak(unit: &Unit<'_>, symbol: SymbolId) -> bool {
    let symbol = unit.object.symbol(symbol);
    symbol.binding == Binding::Weak && symbol.section().is_some()
}

fn address(
    unit: &Unit<'_>,
    placement: &Placement,
    led_to: &BTreeMap<SymbolId, BTreeSet<u64>>,
    id: SymbolId,
) -> Option<u64> {
    let references = || led_to.get(&id);
    match unit.object.symbol(id).place {
        Place::Section(section) => {
            if is_merged(unit.object.section(section)) {
                return None;
            }
            let here = placement.base(section)?.wrapping_add(unit.object.symbol(id).value);
            if unit.is_overridden(id, here) { in_force(unit, id, references()) } else { Some(here) }
        }
        Place::Undefined | Place::Common => in_force(unit, id, references()),
        Place::Absolute | Place::Livepatch => None,
    }
}

/// Where a symbol is that another unit defines: where all references lead to; without references, where the
/// only global symbol of the name is. The linker takes no other.
fn in_force(unit: &Unit<'_>, id: SymbolId, references: Option<&BTreeSet<u64>>) -> Option<u64> {
    if let Some(addresses) = references {
        let mut addresses = addresses.iter().copied();
        let only = addresses.next().filter(|&address| address != 0)?;
        return addresses.next().is_none().then_some(only);
    }
    let mut global = unit.named(id).iter().filter(|named| named.global);
    let only = global.next()?;
    global.next().is_none().then_some(only.address)
}
