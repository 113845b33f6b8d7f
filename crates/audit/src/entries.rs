//! The entries of tables that belong to one function, one by one.

use crate::code::{Reference, Target};
use crate::copies::Aligned;
use crate::finding::Fault;
use crate::lead::{Lead, spot};
use crate::rewrite;
use crate::tables::Entry;

impl Lead<'_> {
    /// The entries of tables that belong to a function, one by one.
    pub(crate) fn compare_entries(&mut self, unit: usize, name: &str, aligned: &Aligned) {
        let (theirs, ours) = (&aligned.theirs, &aligned.ours);
        let all = self.patched_entries[unit].get(&theirs.section).map_or(&[][..], Vec::as_slice);
        let its: Vec<Entry> =
            all.iter().filter(|entry| theirs.range.contains(&entry.site)).cloned().collect();
        let mut mine: Vec<(usize, Entry)> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.code == ours.section && ours.range.contains(&entry.site))
            .map(|(number, entry)| (number, entry.clone()))
            .collect();
        mine.sort_by(|(_, a), (_, b)| {
            (a.site, &a.table, a.range.start).cmp(&(b.site, &b.table, b.range.start))
        });
        let constants = |entry: &Entry| rewrite::is_constant_table(&entry.table);
        for entry in its.iter().filter(|entry| !constants(entry)) {
            let site = aligned.place(entry.site as i64);
            let found = mine.iter().position(|(_, other)| {
                other.table == entry.table && ours.index_within(other.site as i64) == site
            });
            let at = entry.site - theirs.range.start;
            let Some(found) = found else {
                // The module's own build makes these anew.
                if entry.counts() || !rewrite::is_made_anew(&entry.table) {
                    self.fault(Fault::Table, name, at, &format!("an entry of {}", entry.table), "none");
                }
                continue;
            };
            let (number, own) = mine.remove(found);
            self.taken.insert(number);
            self.compare_entry(unit, name, aligned, entry, &own);
        }
        for (number, entry) in mine {
            if rewrite::is_made_anew(&entry.table) {
                self.taken.insert(number);
                self.visit(entry.section, &entry.range);
                continue;
            }
            let at = entry.site - ours.range.start;
            self.taken.insert(number);
            self.fault(Fault::Table, name, at, "no entry", &format!("one of {}", entry.table));
        }
    }

    pub(crate) fn compare_entry(
        &mut self,
        unit: usize,
        name: &str,
        aligned: &Aligned,
        its: &Entry,
        own: &Entry,
    ) {
        let side = &self.units[unit].live;
        let at = its.site - aligned.theirs.range.start;
        let (mut one, mut other) = (its.bytes(side), own.bytes(self.module));
        // The last entry of some tables lacks the room to the next.
        let length = one.len().max(other.len());
        one.resize(length, 0);
        other.resize(length, 0);
        self.check_memory((unit, its.section, its.range.start), (own.section, own.range.start), name, None);
        if one != other {
            let text = format!("an entry of {} as compiled", its.table);
            self.fault(Fault::Table, name, at, &text, "another one");
        }
        let lists = (its.references(side), own.references(self.module));
        self.visit(own.section, &own.range);
        if lists.0.len() != lists.1.len() {
            self.fault(Fault::Table, name, at, &format!("an entry of {}", its.table), "a broken one");
            return;
        }
        for (number, (reference, found)) in lists.0.iter().zip(&lists.1).enumerate() {
            if (reference.at, reference.form) != (found.at, found.form) {
                let expected = side.shown(reference);
                self.fault(Fault::Reference, name, at, &expected, "a reference of another kind");
                continue;
            }
            match its.replacement_length(number, &one) {
                Some(0) => {}
                Some(length) => self.replacement(unit, name, at, (reference, found), length),
                None => self.reference(unit, name, aligned, (reference, found), at, false),
            }
        }
    }

    /// Code that an alternative puts in the place of a site's.
    pub(crate) fn replacement(
        &mut self,
        unit: usize,
        name: &str,
        at: u64,
        (its, mine): (&Reference, &Reference),
        length: u64,
    ) {
        let places = match (its.target, mine.target) {
            (Target::Inside(theirs, from), Target::Inside(section, to)) => {
                u64::try_from(from).ok().zip(spot(section, to)).map(|(from, to)| ((unit, theirs, from), to))
            }
            _ => None,
        };
        let Some((thing, spot)) = places else {
            let found = self.module.shown(mine);
            self.fault(Fault::Reference, name, at, "the alternative's code", &found);
            return;
        };
        let range = thing.2..thing.2.saturating_add(length);
        if let Err(why) = self.add(thing, spot, range, None) {
            self.fault(Fault::Reference, name, at, "the alternative's code", &why);
        }
    }
}
