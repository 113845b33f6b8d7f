//! Tables that the module's build makes from its code: each entry must be at what it is for, and each of these must have one.

use crate::code::{Branch, Code, Insn, Target, reference};
use crate::elf::{R_64, R_NONE, R_PC32};
use crate::finding::{Fault, Finding};
use crate::lead::{Lead, Spot};
use crate::living::VMLINUX;
use crate::side::Side;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// `endbr64`.
const LANDING: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Before the name of a static call in those of its trampoline and of its key (include/linux/static_call_types.h).
const TRAMPOLINE: &str = "__SCT__";
const KEY: &str = "__SCK__";
/// Flag of an entry of `.static_call_sites`: the site is a jump (`STATIC_CALL_SITE_TAIL`).
const TAIL: i64 = 1;
const RETURN_THUNK: &str = "__x86_return_thunk";
const INDIRECT_THUNK: &str = "__x86_indirect_thunk_";
const TRACER: &str = "__fentry__";
/// Room that the compiler leaves before a function, in bytes.
const ROOM: u64 = 16;

/// All code of the module by section and offset.
pub(crate) struct Map<'a> {
    module: &'a Side,
    functions: BTreeMap<Spot, Rc<Code>>,
}

impl<'a> Map<'a> {
    fn of(module: &'a Side) -> Map<'a> {
        let functions = module.functions().filter_map(|symbol| {
            let code = module.code(symbol)?;
            Some(((code.section, code.range.start), code))
        });
        Map { module, functions: functions.collect() }
    }

    /// Every place within a function that something refers to: branches, tables of jumps, fixups.
    pub(crate) fn entered(&self) -> BTreeSet<Spot> {
        let own = self.functions.values().flat_map(|code| &code.insns).flat_map(|insn| &insn.references);
        let mut entered: BTreeSet<Spot> = own.filter_map(|one| inside(one.target)).collect();
        let loaded = self.module.elf.sections.iter().filter(|section| {
            section.is_loaded() && !section.name.starts_with(".orc_") && !section.name.ends_with("_sites")
        });
        for relocation in loaded.flat_map(|section| &section.relocations) {
            // A relative number may count from the place's begin or its end, and a table's from the table's.
            let targets = [0, 4].map(|behind| reference(&self.module.elf, relocation, 0, behind, false));
            entered.extend(targets.into_iter().flatten().filter_map(|one| inside(one.target)));
        }
        entered
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = &Rc<Code>> {
        self.functions.values()
    }

    /// Where functions begin with the room that is left before them.
    pub(crate) fn begins(&self) -> BTreeSet<Spot> {
        let begin = |&(section, start): &Spot| {
            let contents = self.module.elf.contents(section);
            let room = start.checked_sub(ROOM).filter(|&room| {
                let room = contents.get(room as usize..start as usize);
                room.is_some_and(|room| room.iter().all(|&byte| byte == 0x90))
            });
            (section, room.unwrap_or(start))
        };
        self.functions.keys().map(begin).collect()
    }

    pub(crate) fn name_at(&self, spot: Spot) -> String {
        name_at(self.module, spot)
    }

    /// Whether a place is behind a function's begin, or begins a part of one.
    pub(crate) fn is_inside_a_function(&self, (section, offset): (usize, i64)) -> bool {
        let Ok(at) = u64::try_from(offset) else { return false };
        let Some(code) = self.function((section, at)) else { return false };
        at != code.range.start || crate::pair::is_part(&self.name_at((section, at)))
    }

    /// Whether a function begins at a place.
    pub(crate) fn is_begin(&self, spot: Spot) -> bool {
        self.functions.contains_key(&spot)
    }

    /// The function that covers a place, or ends there.
    pub(crate) fn function(&self, (section, at): Spot) -> Option<&Rc<Code>> {
        let (_, code) = self.functions.range(..=(section, at)).next_back()?;
        (code.section == section && at <= code.range.end).then_some(code)
    }

    /// The instruction that begins at a place.
    fn insn(&self, spot: Spot) -> Option<&Insn> {
        let code = self.function(spot)?;
        code.insns.get(code.index_at(spot.1 as i64)?)
    }

    /// The name that an instruction branches to.
    fn callee(&self, insn: &Insn) -> Option<&str> {
        insn.branch?;
        match insn.references.first()?.target {
            Target::Outside(symbol, _) => Some(called(self.module.name(symbol))),
            Target::Inside(..) => None,
        }
    }

    /// The places of all instructions for which something holds.
    fn all(&self, holds: impl Fn(&Self, &Insn) -> bool) -> BTreeSet<Spot> {
        let each = self.functions.values().flat_map(|code| {
            let own = code.insns.iter().filter(|insn| holds(self, insn));
            own.map(|insn| (code.section, code.range.start + insn.at)).collect::<Vec<_>>()
        });
        each.collect()
    }
}

/// The name in the sources of a symbol that the livepatch loader resolves.
fn called(name: &str) -> &str {
    let rest = name.strip_prefix(".klp.sym.").and_then(|rest| rest.split_once('.'));
    rest.and_then(|(_, rest)| rest.rsplit_once(',')).map_or(name, |(name, _)| name)
}

/// Checks them all.
pub(crate) fn check(lead: &mut Lead<'_>) {
    let map = Map::of(lead.module);
    let calls_tracer = |map: &Map<'_>, insn: &Insn| map.callee(insn) == Some(TRACER);
    let returns = |map: &Map<'_>, insn: &Insn| map.callee(insn) == Some(RETURN_THUNK);
    let indirect =
        |map: &Map<'_>, insn: &Insn| map.callee(insn).is_some_and(|name| name.starts_with(INDIRECT_THUNK));
    same(lead, &map, "__mcount_loc", &map.all(calls_tracer));
    same(lead, &map, ".return_sites", &map.all(returns));
    same(lead, &map, ".retpoline_sites", &map.all(indirect));
    each(lead, ".call_sites", |spot| map.insn(spot).is_some_and(|insn| insn.branch == Some(Branch::Call)));
    let pointed = pointed_to(lead);
    each(lead, ".ibt_endbr_seal", |spot| {
        map.insn(spot).is_some_and(|insn| insn.shape == LANDING) && !pointed.contains(&spot)
    });
    each(lead, "__patchable_function_entries", |spot| map.begins().contains(&spot));
    static_calls(lead, &map);
    crate::unwind::check(lead, &map);
    kinds(lead);
}

/// The places that the references of a section lead to, with the places of the references. Each is looked at by that.
fn targets(lead: &mut Lead<'_>, table: &str) -> Vec<(u64, Option<Spot>)> {
    let module = lead.module;
    let mut found = Vec::new();
    for (section, parsed) in module.elf.sections.iter().enumerate().filter(|(_, one)| one.name == table) {
        for relocation in parsed.relocations.iter().filter(|one| one.kind != R_NONE) {
            lead.visited.insert((section, relocation.offset));
            let kind = if WIDE.contains(&table) { R_64 } else { R_PC32 };
            let is_plain = relocation.kind == kind && relocation.late.is_none();
            let target = reference(&module.elf, relocation, 0, 0, false).and_then(|one| match one.target {
                Target::Inside(section, offset) => Some((section, u64::try_from(offset).ok()?)),
                Target::Outside(..) => None,
            });
            found.push((relocation.offset, target.filter(|_| is_plain)));
        }
        let whole = found.len() as u64 * width(table);
        if parsed.size != whole && table != ".static_call_sites" {
            lead.findings.push(Finding::new(
                Fault::Table,
                table,
                whole,
                "as many sites as there is room for",
                "fewer",
            ));
        }
    }
    found
}

/// Tables whose entries are whole addresses.
const WIDE: [&str; 2] = ["__mcount_loc", "__patchable_function_entries"];

/// Bytes of an entry.
fn width(table: &str) -> u64 {
    if WIDE.contains(&table) { 8 } else { 4 }
}

/// Kinds of memory that the kernel's build gives to what no patched object has: loaded all, and some writable.
fn kinds(lead: &mut Lead<'_>) {
    const WRITABLE: [(&str, bool); 13] = [
        (".return_sites", false),
        (".retpoline_sites", false),
        (".call_sites", false),
        (".ibt_endbr_seal", false),
        (".static_call_sites", true),
        (".orc_unwind", false),
        (".orc_unwind_ip", false),
        (".orc_header", false),
        ("__mcount_loc", false),
        ("__patchable_function_entries", true),
        ("__versions", false),
        (".modinfo", false),
        (".gnu.linkonce.this_module", true),
    ];
    for section in &lead.module.elf.sections {
        let own = section.name.starts_with(".rodata.kmend_").then_some(&("", false));
        let known = WRITABLE.iter().find(|(name, _)| *name == section.name).or(own);
        if known.is_some_and(|&(_, writable)| {
            section.is_writable() != writable || !section.is_loaded() || section.is_code()
        }) {
            lead.findings.push(Finding::new(
                Fault::Memory,
                &section.name,
                0,
                "memory of its kind",
                "another kind",
            ));
        }
    }
}

/// A table whose entries are exactly some instructions.
fn same(lead: &mut Lead<'_>, map: &Map<'_>, table: &str, expected: &BTreeSet<Spot>) {
    let width = width(table);
    if lead.module.elf.section_named(table).is_none() {
        // A kernel that has no such table, or rewrites nothing of the kind.
        return;
    }
    let mut left = expected.clone();
    for (number, (at, spot)) in targets(lead, table).into_iter().enumerate() {
        if at != number as u64 * width || spot.is_none_or(|spot| !left.remove(&spot)) {
            lead.findings.push(Finding::new(Fault::Table, table, at, "a site of its kind", "another place"));
        }
    }
    for spot in left {
        let name = map
            .function(spot)
            .map_or_else(String::new, |code| name_at(lead.module, (code.section, code.range.start)));
        lead.findings.push(Finding::new(
            Fault::Table,
            &name,
            spot.1,
            &format!("an entry of {table}"),
            "none",
        ));
    }
}

fn name_at(module: &Side, (section, at): Spot) -> String {
    let named = module.elf.named_in(section).iter();
    let mut here = named.filter(|&&symbol| module.elf.symbols[symbol].value == at);
    here.next().map_or_else(String::new, |&symbol| module.name(symbol).to_owned())
}

/// A table each of whose entries must be right.
fn each(lead: &mut Lead<'_>, table: &str, is_right: impl Fn(Spot) -> bool) {
    let width = width(table);
    let mut seen = BTreeSet::new();
    let mut next = 0;
    for (at, spot) in targets(lead, table) {
        let is_whole = at == next;
        next = at + width;
        if !is_whole || spot.is_none_or(|spot| !is_right(spot) || !seen.insert(spot)) {
            lead.findings.push(Finding::new(Fault::Table, table, at, "a site of its kind", "another place"));
        }
    }
}

/// The places that something other than a branch leads to, but for the patch table, whose functions the tracer enters, and what
/// is made from code.
fn pointed_to(lead: &Lead<'_>) -> BTreeSet<Spot> {
    let module = lead.module;
    let mut pointed = BTreeSet::new();
    for symbol in module.functions() {
        let Some(code) = module.code(symbol) else { continue };
        for reference in code.insns.iter().filter(|one| one.branch.is_none()).flat_map(|one| &one.references)
        {
            pointed.extend(inside(reference.target));
        }
    }
    let holds = |name: &str| {
        name == ".gnu.linkonce.this_module"
            || [".rodata", ".data"].iter().any(|start| name.starts_with(start))
    };
    for (number, section) in
        module.elf.sections.iter().enumerate().filter(|(_, section)| holds(&section.name))
    {
        let list =
            section.relocations.iter().filter(|one| !lead.replacements.contains(&(number, one.offset)));
        let targets = list.filter_map(|one| reference(&module.elf, one, 0, 0, false));
        pointed.extend(targets.filter_map(|one| inside(one.target)));
    }
    pointed
}

fn inside(target: Target) -> Option<Spot> {
    match target {
        Target::Inside(section, offset) => Some((section, u64::try_from(offset).ok()?)),
        Target::Outside(..) => None,
    }
}

/// Each entry is a branch to a trampoline, and the key of the same call; and each branch to a trampoline of the kernel proper
/// has one. (Those of modules go through the trampoline, because their keys are not known when the table is read.)
fn static_calls(lead: &mut Lead<'_>, map: &Map<'_>) {
    const TABLE: &str = ".static_call_sites";
    let module = lead.module;
    let mut left = map.all(|map, insn| {
        let is_call = map.callee(insn).is_some_and(|name| name.starts_with(TRAMPOLINE));
        is_call && insn.references.iter().all(|one| one.late.as_deref().is_none_or(|list| list == VMLINUX))
    });
    let Some(section) = module.elf.section_named(TABLE) else { return };
    let _ = targets(lead, TABLE);
    let list: Vec<_> =
        module.elf.sections[section].relocations.iter().filter(|one| one.kind != R_NONE).collect();
    let size = module.elf.sections[section].size;
    for number in 0..size.div_ceil(8) {
        let at = number * 8;
        let mut own = list.iter().filter(|one| (at..at + 8).contains(&one.offset));
        let is_right = match (own.next(), own.next(), own.next()) {
            (Some(site), Some(key), None) if (site.offset, key.offset) == (at, at + 4) => {
                let place = module
                    .elf
                    .place(site.symbol)
                    .and_then(|(section, value)| Some((section, value.checked_add_signed(site.addend)?)));
                let insn = place.filter(|place| left.remove(place)).and_then(|place| map.insn(place));
                let jumps = insn.is_some_and(|insn| insn.branch != Some(Branch::Call));
                let call = insn.and_then(|insn| map.callee(insn)?.strip_prefix(TRAMPOLINE));
                let expected =
                    call.and_then(|call| match &lead.kernel.named(VMLINUX, &format!("{KEY}{call}"))[..] {
                        [only] => Some(only.clone()),
                        _ => None,
                    });
                let found = reference(&module.elf, key, 0, -key.addend, false);
                let found = found.and_then(|found| lead.place_of(&found).ok());
                expected.is_some()
                    && expected == found
                    && key.addend == if jumps { TAIL } else { 0 }
                    && (site.kind, key.kind) == (R_PC32, R_PC32)
            }
            _ => false,
        };
        if !is_right {
            let text = "a static call and its key";
            lead.findings.push(Finding::new(Fault::Table, TABLE, at, text, "something else"));
        }
    }
    for spot in left {
        let name =
            map.function(spot).map_or_else(String::new, |code| map.name_at((code.section, code.range.start)));
        lead.findings.push(Finding::new(
            Fault::Table,
            &name,
            spot.1,
            &format!("an entry of {TABLE}"),
            "none",
        ));
    }
}
