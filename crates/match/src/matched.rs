//! The result of a match.

use kmend_kernel::Position;
use kmend_refusal::{Code, Refusal};
use serde::Serialize;
use std::collections::BTreeMap;

/// Functions that a refusal shows in full; the rest is counted. One is enough to see what is wrong, and a
/// wrong compiler changes them all.
const SHOWN: usize = 3;

/// What a match found.
#[derive(Debug, Clone, Serialize)]
pub struct Matched {
    /// Every function of the unit, in the order of its sections and offsets.
    pub functions: Vec<FunctionMatch>,
    /// The unit's sections of data, and those of code without symbols.
    pub sections: Vec<SectionMatch>,
    /// Every symbol of the unit, defined or referred to, whose place in the kernel is proven; by its name in
    /// the unit.
    pub symbols: BTreeMap<String, Located>,
}

/// One function of the unit and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionMatch {
    /// Its name in the unit; `SECTION+0xOFFSET` for code that has none.
    pub name: String,
    /// The unit's section that it is in.
    pub section: String,
    /// Where it begins in that section, in bytes.
    pub offset_in_unit: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its address in the image, or its offset in the section of the `.ko`; 0 where it was not found.
    pub address: u64,
    /// Whether it is there.
    pub outcome: Outcome,
}

/// Whether the shipped kernel contains a function as it was compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Byte for byte, and every reference leads where it should.
    Equal,
    /// The same, but it is a weak definition and the one of another unit is in force.
    Overridden,
    /// It is in a section that the kernel's linker script discards.
    Dropped,
    /// Its section was not found in the kernel.
    Absent,
    /// Its section is in the kernel as it was compiled, but at several places: which of them is this unit's
    /// cannot be told. An `inline` function that several units define as their own is such. It has no
    /// [`Located`]: whoever needs its position must refuse.
    Ambiguous {
        /// How many.
        places: usize,
    },
    /// It is not what was compiled.
    Differs(Difference),
}

/// The first instruction that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The function.
    pub function: String,
    /// The instruction's offset in the function, in bytes.
    pub offset: u64,
    /// The compiled instruction, disassembled.
    pub compiled: String,
    /// The shipped kernel's instruction at the same place.
    pub image: String,
    /// What is wrong with it, in words.
    pub why: String,
}

/// A section of the unit that is not judged function by function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SectionMatch {
    /// Its name.
    pub name: String,
    /// Its address in the image, or its offset in the section of the `.ko`; `None` if it was not found.
    pub address: Option<u64>,
    /// `None` where its contents could not be compared: it was not found (nothing that was found refers to
    /// it), or it begins as zeros. Otherwise the data that differ, by symbol or as `SECTION+0xOFFSET`.
    pub differs: Option<Vec<String>>,
}

/// Where a symbol is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located {
    /// Its address in the image, without KASLR, per-CPU symbols as the image holds them; in a module, its
    /// offset in `section`.
    pub address: u64,
    /// The module's section that it is in; `None` in the kernel proper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// `vmlinux` or the module's name; `None` for what a module takes from another module: the linker finds
    /// out which.
    pub object: Option<String>,
    /// How livepatch finds it. `None` where the kernel keeps no name for it (labels that kallsyms leaves out,
    /// what is gone after init in a module).
    pub kernel: Option<KernelName>,
}

/// What `.klp.sym.OBJECT.NAME,POSITION` and `struct klp_func` call a symbol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelName {
    /// Its name in kallsyms.
    pub name: String,
    /// Its place among those of its name.
    pub position: Position,
}

impl FunctionMatch {
    /// Whether the function is proven to be what runs.
    pub fn is_equal(&self) -> bool {
        self.outcome == Outcome::Equal
    }

    /// Whether both sides have the same instruction there: the function is elsewhere, or refers to another
    /// place.
    fn shows_one_instruction(&self) -> bool {
        matches!(&self.outcome, Outcome::Differs(difference) if difference.compiled == difference.image)
    }

    /// Whether it is not a function but what lies between two.
    fn is_between(&self) -> bool {
        self.name.starts_with(&self.section)
    }
}

impl Matched {
    /// Where a symbol of the unit is in the kernel.
    pub fn locate(&self, name: &str) -> Option<&Located> {
        self.symbols.get(name)
    }

    /// A function's match, by its name in the unit.
    pub fn function(&self, name: &str) -> Option<&FunctionMatch> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// Whether all that could be compared is equal.
    pub fn is_proven(&self) -> bool {
        self.functions.iter().all(|function| reason(&function.outcome).is_none())
            && self.changed_data().next().is_none()
    }

    /// The reasons not to trust the compiled unit; `unit` is its source's path.
    ///
    /// Data that differ are given where all functions match: where they do not, the cause is the same, and the
    /// code shows it better.
    pub fn refusals(&self, unit: &str) -> Vec<Refusal> {
        let mut bad: Vec<_> = self
            .functions
            .iter()
            .filter_map(|function| reason(&function.outcome).map(|(code, why)| (function, code, why)))
            .collect();
        if bad.is_empty() {
            return self
                .changed_data()
                .map(|(section, names)| data(&section.name, names).at(unit, None))
                .collect();
        }
        // What lies between functions differs as soon as they do, and all functions after one of another size
        // are elsewhere: neither says why.
        bad.sort_by_key(|(function, ..)| (function.is_between(), function.shows_one_instruction()));
        let mut refusals: Vec<_> = bad
            .iter()
            .take(SHOWN)
            .map(|(function, code, why)| {
                let refusal = Refusal::new(*code, &function.name, why);
                refusal.at(unit, None).with_details(details(&function.outcome))
            })
            .collect();
        if let Some(more) = bad.len().checked_sub(SHOWN).filter(|&more| more > 0)
            && let Some(last) = refusals.last_mut()
        {
            let total = self.functions.len();
            last.details.push(format!("{more} more of the unit's {total} functions do not match"));
        }
        refusals
    }

    fn changed_data(&self) -> impl Iterator<Item = (&SectionMatch, &Vec<String>)> {
        let differing = self.sections.iter().filter_map(|section| Some((section, section.differs.as_ref()?)));
        differing.filter(|(_, names)| !names.is_empty())
    }
}

fn data(section: &str, names: &[String]) -> Refusal {
    let shown = names.get(..SHOWN).unwrap_or(names).join(", ");
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Refusal::new(Code::ImageDiffers, section, format!("the image holds other contents of {shown}{more}"))
}

fn reason(outcome: &Outcome) -> Option<(Code, String)> {
    match outcome {
        // Equal at all of its places: only its position is not known, and `locate` does not give one.
        Outcome::Equal | Outcome::Overridden | Outcome::Dropped | Outcome::Ambiguous { .. } => None,
        Outcome::Absent => Some((Code::NotInImage, "the image does not contain it".into())),
        Outcome::Differs(difference) => {
            Some((Code::ImageDiffers, format!("at offset {:#x}: {}", difference.offset, difference.why)))
        }
    }
}

fn details(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Differs(difference) => {
            vec![format!("compiled: {}", difference.compiled), format!("image:    {}", difference.image)]
        }
        _ => Vec::new(),
    }
}
