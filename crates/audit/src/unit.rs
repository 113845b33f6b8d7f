//! One unit: its objects, where the original is in the kernel, and what of the two is one thing.

use crate::code::{Reference, Target};
use crate::elf::{Elf, Malformed};
use crate::ground::{self, Ground};
use crate::living::{Kernel, Living, VMLINUX};
use crate::pair::{self, Pairs};
use crate::side::Side;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// One translation unit.
pub(crate) struct Unit {
    pub(crate) source: String,
    /// `vmlinux`, or the module that it is part of.
    pub(crate) owner: String,
    pub(crate) original: Side,
    pub(crate) patched: Rc<Side>,
    /// What the module is made from: the patched object, or that with tests in the place of jump labels of modules' keys.
    pub(crate) live: Rc<Side>,
    pub(crate) ground: Ground,
    pub(crate) pairs: Pairs,
    /// Whether it is not the kernel's but the livepatch's own: its patch table, with what exchanges data and calls callbacks.
    pub(crate) is_table: bool,
    written: OnceCell<BTreeSet<String>>,
}

/// What a unit is made from.
pub(crate) struct Objects<'a> {
    pub(crate) source: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) plain: &'a [u8],
    pub(crate) patched: &'a [u8],
    pub(crate) tested: Option<&'a [u8]>,
}

impl Unit {
    pub(crate) fn read(objects: &Objects<'_>, kernel: &Kernel<'_>) -> Result<Unit, Malformed> {
        let original = Side::parse(objects.plain)?;
        let patched = Rc::new(Side::parse(objects.patched)?);
        let live = match objects.tested {
            Some(tested) => Rc::new(Side::parse(tested)?),
            None => Rc::clone(&patched),
        };
        let pairs = pair::pair(&original, &patched);
        let ground = ground::find(&original.elf, objects.owner, kernel)?;
        Ok(Unit {
            source: objects.source.to_owned(),
            owner: objects.owner.to_owned(),
            original,
            patched,
            live,
            ground,
            pairs,
            is_table: false,
            written: OnceCell::new(),
        })
    }

    /// The livepatch's own part, from the object that the module's build made.
    pub(crate) fn table(object: &[u8], kernel: &Kernel<'_>) -> Result<Unit, Malformed> {
        let patched = Rc::new(Side::parse(object)?);
        let original = Side::of(Elf::empty());
        let ground = ground::find(&original.elf, VMLINUX, kernel)?;
        Ok(Unit {
            source: "the patch table".into(),
            owner: VMLINUX.into(),
            original,
            live: Rc::clone(&patched),
            patched,
            ground,
            pairs: Pairs::default(),
            is_table: true,
            written: OnceCell::new(),
        })
    }

    /// Where something of the patched object lives that the original has, too.
    pub(crate) fn living(&self, patched: &str, kernel: &Kernel<'_>) -> Option<Living> {
        let name = self.pairs.original(patched)?;
        self.living_original(name, kernel)
    }

    /// Where something that the original defines lives: where its references lead, which may be another unit's stronger
    /// definition; else where its section is; else where the only symbol of its name is.
    pub(crate) fn living_original(&self, name: &str, kernel: &Kernel<'_>) -> Option<Living> {
        if self.ground.is_conflicting(name) {
            return None;
        }
        if let Some(place) = self.ground.referred(name) {
            return Some(place.clone());
        }
        let symbol = self.original.elf.only(name)?;
        let is_weak = self.original.elf.symbols[symbol].is_weak();
        if let Some(place) = self.ground.place(&self.original.elf, symbol)
            && (!is_weak || kernel.named(&self.owner, name).contains(&place))
        {
            return Some(place);
        }
        match kernel.named(&self.owner, name).as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    /// Where a name leads that the patched object refers to and does not define.
    pub(crate) fn outside(&self, name: &str, kernel: &Kernel<'_>) -> Option<Living> {
        if self.ground.is_conflicting(name) {
            return None;
        }
        if let Some(place) = self.ground.referred(name) {
            return Some(place.clone());
        }
        if self.original.elf.only(name).is_some() {
            return self.living_original(name, kernel);
        }
        // Another unit can mean nothing but what is global.
        let visible = |object: &str| kernel.global(object, name);
        if self.owner != VMLINUX
            && let Some(place) = visible(&self.owner).or_else(|| kernel.export_to(&self.owner, name))
        {
            return Some(place);
        }
        kernel.export(name).or_else(|| visible(VMLINUX))
    }

    /// Whether the original writes, too, to what a reference of the patched object leads to.
    pub(crate) fn writes_to(&self, its: &Reference) -> bool {
        let name = |side: &Side, reference: &Reference| match reference.target {
            Target::Outside(symbol, _) => Some(side.name(symbol).to_owned()),
            Target::Inside(..) => {
                side.atoms_of(reference).first().map(|&(symbol, _)| side.name(symbol).to_owned())
            }
        };
        let written = self.written.get_or_init(|| {
            let mut names = BTreeSet::new();
            for function in self.original.functions() {
                let Some(code) = self.original.code(function) else { continue };
                let all = code.insns.iter().flat_map(|insn| &insn.references);
                let written = all.filter(|one| one.is_written);
                names.extend(written.filter_map(|one| name(&self.original, one)));
            }
            names
        });
        let wanted = match its.target {
            Target::Outside(..) => name(&self.live, its),
            Target::Inside(..) => {
                name(&self.live, its).and_then(|one| self.pairs.original(&one).map(str::to_owned))
            }
        };
        wanted.is_some_and(|name| written.contains(&name))
    }
}
