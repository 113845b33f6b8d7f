//! What objdump says of an object: functions as text with what they lead to, and variables with their kind of memory.
//!
//! No code is shared with the differ or with kmend's reader of objects. Numbers that the compiler gives are taken off names; where
//! that leaves two things of one name, nothing is said of them, so that what is said is certain.

use super::plain::Verdict;
use anyhow::Result;
use kmend_process::Command;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// An object in words.
#[derive(Debug, Default)]
pub(super) struct Listing {
    symbols: Vec<Symbol>,
    /// By section.
    contents: BTreeMap<String, Vec<u8>>,
    /// By section: offset and what is there.
    relocations: BTreeMap<String, Vec<(u64, String)>>,
    /// Names of several sections: what lies where in them, objdump does not tell.
    doubled: BTreeSet<String>,
    /// By name: the instructions.
    functions: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone)]
struct Symbol {
    name: String,
    section: String,
    value: u64,
    size: u64,
    is_data: bool,
}

/// Before the name of a section of which there are several.
const UNCLEAR: &str = "one of several ";

/// A variable: where it lies, and what it holds.
#[derive(Debug, PartialEq, Eq)]
struct Variable {
    memory: Memory,
    size: u64,
    bytes: Vec<u8>,
    leads_to: Vec<(u64, String)>,
}

/// Kinds of memory that are not each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Writable,
    ReadOnly,
    AfterInit,
    PerCpu,
    Init,
    Other,
}

impl Memory {
    fn of(section: &str) -> Self {
        let rows = [
            (".data..percpu", Memory::PerCpu),
            (".data..ro_after_init", Memory::AfterInit),
            (".init.", Memory::Init),
            (".exit.", Memory::Init),
            (".data", Memory::Writable),
            (".bss", Memory::Writable),
            (".rodata", Memory::ReadOnly),
        ];
        rows.iter().find(|row| section.starts_with(row.0)).map_or(Memory::Other, |row| row.1)
    }
}

/// How two objects differ.
#[derive(Debug, Default)]
pub(super) struct Opinion {
    /// By the function's name in the source, cold part and clones together.
    pub(super) functions: BTreeMap<String, Verdict>,
    /// Of the functions that differ: the first instruction that does, before and after.
    pub(super) firsts: BTreeMap<String, String>,
    /// Variables of the original that nobody writes to.
    pub(super) constants: BTreeSet<String>,
    /// Variables that differ in their kind of memory, size or initial value, with how.
    pub(super) variables: BTreeMap<String, &'static str>,
    /// The original's variables by size in bytes.
    pub(super) sizes: BTreeMap<String, u64>,
    /// Whether anything differs at all that a name of the source stands for.
    pub(super) differs: bool,
}

impl Listing {
    pub(super) fn of(object: &[u8]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("unit.o");
        fs::write(&path, object)?;
        Command::new("strip").arg("--strip-debug").arg(&path).run()?;
        let tables = Command::new("objdump").args(["-t", "-s", "-r", "-w"]).arg(&path).run()?;
        let code = Command::new("objdump").args(["-d", "-r", "-w", "-z", "--no-show-raw-insn"]).arg(&path);
        let mut listing = Listing::default();
        listing.read_tables(&tables.text());
        listing.find_overlaps();
        listing.read_code(&code.run()?.text());
        Ok(listing)
    }

    fn read_tables(&mut self, text: &str) {
        let (mut relocations, mut contents) = (None, None);
        for line in text.lines() {
            if let Some(section) = line.strip_prefix("RELOCATION RECORDS FOR [") {
                (relocations, contents) = (Some(section.trim_end_matches("]:").to_owned()), None);
            } else if let Some(section) = line.strip_prefix("Contents of section ") {
                let section = section.trim_end_matches(':').to_owned();
                if self.contents.contains_key(&section) {
                    self.doubled.insert(section.clone());
                }
                (relocations, contents) = (None, Some(section));
            } else if let Some(section) = &contents {
                self.contents.entry(section.clone()).or_default().extend(dumped(line));
            } else if let Some(section) = &relocations {
                let mut cells = line.split_whitespace();
                if let (Some(offset), Some(_), Some(target)) = (cells.next(), cells.next(), cells.next())
                    && let Ok(offset) = u64::from_str_radix(offset, 16)
                {
                    self.relocations.entry(section.clone()).or_default().push((offset, target.to_owned()));
                }
            } else {
                self.symbols.extend(symbol(line));
            }
        }
    }

    /// Variables that seem to lie in each other lie in sections of one name.
    fn find_overlaps(&mut self) {
        let mut ends: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for symbol in self.symbols.iter().filter(|symbol| symbol.is_data && symbol.size > 0) {
            ends.entry(&symbol.section)
                .or_default()
                .push((symbol.value, symbol.value.saturating_add(symbol.size)));
        }
        for (section, mut places) in ends {
            places.sort_unstable();
            // Aliases stand at the same place.
            places.dedup();
            if places.windows(2).any(|pair| pair[1].0 < pair[0].1) {
                self.doubled.insert(section.to_owned());
            }
        }
    }

    fn read_code(&mut self, text: &str) {
        let mut current: Option<String> = None;
        let mut functions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            if let Some((_, name)) = line.strip_suffix(">:").and_then(|head| head.split_once(" <")) {
                current = Some(name.to_owned());
                functions.entry(name.to_owned()).or_default();
            } else if let (Some(name), Some((_, rest))) = (&current, line.split_once(":\t")) {
                let text = self.instruction(rest);
                functions.entry(name.clone()).or_default().push(text);
            }
        }
        for lines in functions.values_mut() {
            let is_padding = |line: &String| {
                ["nop", "int3", "xchg   %ax,%ax", "cs nop", "data16"].iter().any(|one| line.starts_with(one))
            };
            while lines.last().is_some_and(is_padding) {
                lines.pop();
            }
        }
        self.functions = functions;
    }

    /// An instruction without its own place, and with what it leads to in words.
    fn instruction(&self, line: &str) -> String {
        let mut cells = line.split('\t');
        let text = cells.next().unwrap_or_default();
        let text = text.split(" # ").next().unwrap_or(text).trim_end();
        let rest: Vec<&str> = cells.collect();
        if rest.is_empty() {
            // `jmp    1c <f+0x1c>`
            return match text.rsplit_once(' ') {
                Some((before, place)) if place.starts_with('<') => {
                    let before = before.trim_end_matches(|c: char| c.is_ascii_hexdigit());
                    format!("{before}{}", base(place))
                }
                _ => text.to_owned(),
            };
        }
        let text = match text.rsplit_once(' ') {
            Some((before, place)) if place.starts_with('<') => {
                before.trim_end_matches(|c: char| c.is_ascii_hexdigit())
            }
            _ => text,
        };
        let mut words = vec![text.to_owned()];
        for pair in rest.chunks(2) {
            let kind = pair[0].split_whitespace().last().unwrap_or_default();
            let target = pair.get(1).copied().unwrap_or_default();
            words.push(self.target(target, matches!(kind, "R_X86_64_PC32" | "R_X86_64_PLT32")));
        }
        words.join("\t")
    }

    /// What a relocation leads to: a text, a constant's bytes, or a name without numbers.
    fn target(&self, target: &str, is_relative: bool) -> String {
        let (name, addend) = split_target(target);
        let offset = addend + if is_relative { 4 } else { 0 };
        // Not every section has contents.
        let place = if self.symbols.iter().any(|symbol| symbol.section == name) {
            Some((name, 0))
        } else {
            let symbol = self.symbols.iter().find(|symbol| symbol.name == name && name.starts_with(".L"));
            symbol.map(|symbol| (symbol.section.as_str(), symbol.value))
        };
        if let Some((section, value)) = place {
            if self.doubled.contains(section) {
                return format!("{UNCLEAR}{section}");
            }
            let at = value.wrapping_add_signed(offset);
            if let Some(text) = self.constant(section, at) {
                return text;
            }
            if let Some(symbol) = self.symbol_at(section, at) {
                return format!("{}+{:#x}", base(&symbol.name), at - symbol.value);
            }
        }
        format!("{}{addend:+}", base(name))
    }

    /// The string or the constant of a section that may be merged.
    fn constant(&self, section: &str, at: u64) -> Option<String> {
        let rest = self.contents.get(section)?.get(usize::try_from(at).ok()?..)?;
        let number = |mark: &str| -> Option<usize> {
            let (_, end) = section.rsplit_once(mark)?;
            end.split('.').next()?.parse().ok()
        };
        if let Some(width) = number(".str") {
            let units = rest.chunks(width.max(1)).take_while(|unit| unit.iter().any(|&byte| byte != 0));
            return Some(format!("{:?}", units.flatten().map(|&byte| char::from(byte)).collect::<String>()));
        }
        let width = number(".cst")?;
        Some(format!("{:02x?}", rest.get(..width)?))
    }

    /// The variable or function that a place of a section is in.
    fn symbol_at(&self, section: &str, at: u64) -> Option<&Symbol> {
        let holds = |symbol: &&Symbol| {
            symbol.section == section
                && symbol.name != section
                && (symbol.value..symbol.value.saturating_add(symbol.size.max(1))).contains(&at)
        };
        self.symbols.iter().find(holds)
    }

    /// The functions by their names in the source: what belongs to one, in one text. `None` for a name of several.
    fn by_source_name(&self) -> BTreeMap<String, Option<String>> {
        let mut parts: BTreeMap<String, Vec<(&str, String)>> = BTreeMap::new();
        for (name, lines) in &self.functions {
            let source = name.split('.').next().unwrap_or(name).to_owned();
            parts.entry(source).or_default().push((name, lines.join("\n")));
        }
        let one = |parts: Vec<(&str, String)>| {
            let hot = parts.iter().filter(|(name, _)| !name.contains(".cold")).count();
            let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
            (hot == 1).then(|| texts.join("\n.cold\n"))
        };
        parts.into_iter().map(|(name, parts)| (name, one(parts))).collect()
    }

    /// The variables of which there is one of their name without numbers.
    fn variables(&self) -> BTreeMap<String, Variable> {
        let mut found = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for symbol in self.symbols.iter().filter(|symbol| symbol.is_data && !symbol.name.starts_with('.')) {
            let name = base(&symbol.name);
            if found.insert(name.clone(), self.variable(symbol)).is_some() {
                twice.insert(name);
            }
        }
        found.retain(|name, _| !twice.contains(name) && !is_made(name));
        found
    }

    fn variable(&self, symbol: &Symbol) -> Variable {
        let range = symbol.value..symbol.value.saturating_add(symbol.size);
        let is_clear = !self.doubled.contains(&symbol.section);
        let bytes = self.contents.get(&symbol.section).filter(|_| is_clear);
        let bytes = bytes.and_then(|bytes| bytes.get(range.start as usize..range.end as usize));
        let places = self.relocations.get(&symbol.section).into_iter().flatten();
        let leads_to = places
            .filter(|(offset, _)| is_clear && range.contains(offset))
            .map(|(offset, target)| (offset - range.start, self.target(target, false)));
        Variable {
            memory: Memory::of(&symbol.section),
            size: symbol.size,
            // What is all zero lies in .bss or not, as the compiler likes.
            bytes: bytes.filter(|bytes| bytes.iter().any(|&byte| byte != 0)).unwrap_or_default().to_vec(),
            leads_to: leads_to.collect(),
        }
    }

    /// Whether some allocated section holds these bytes.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        self.contents.values().any(|content| content.windows(bytes.len()).any(|window| window == bytes))
    }

    /// The names of the functions and variables that it defines, without numbers.
    pub(super) fn defined(&self) -> BTreeSet<String> {
        let variables =
            self.symbols.iter().filter(|symbol| symbol.is_data).map(|symbol| symbol.name.as_str());
        self.functions.keys().map(String::as_str).chain(variables).map(base).collect()
    }

    /// What differs between the two.
    pub(super) fn compare(&self, other: &Listing) -> Opinion {
        let mut opinion = Opinion::default();
        let (before, after) = (self.by_source_name(), other.by_source_name());
        for (name, one) in &before {
            let Some(two) = after.get(name) else { continue };
            let verdict = match (one, two) {
                (Some(one), Some(two)) if one == two => self.same(one),
                (Some(one), Some(two)) if is_unclear(one, two) => Verdict::Unknown,
                (Some(one), Some(two)) => {
                    opinion.firsts.insert(name.clone(), first_difference(one, two));
                    Verdict::Differs
                }
                _ => Verdict::Unknown,
            };
            opinion.functions.insert(name.clone(), verdict);
        }
        let (mine, theirs) = (self.variables(), other.variables());
        for (name, one) in &mine {
            let Some(two) = theirs.get(name) else { continue };
            let how = if one.memory != two.memory {
                "the kind of its memory"
            } else if one.size != two.size {
                "its size"
            } else if one != two {
                "its initial value"
            } else {
                continue;
            };
            opinion.variables.insert(name.clone(), how);
        }
        opinion.sizes = mine.iter().map(|(name, variable)| (name.clone(), variable.size)).collect();
        let constants = mine.iter().filter(|(_, variable)| variable.memory == Memory::ReadOnly);
        opinion.constants = constants.map(|(name, _)| name.clone()).collect();
        let names = |listing: &Listing| listing.defined();
        opinion.differs = before != after || mine != theirs || names(self) != names(other);
        opinion
    }

    /// Whether a function whose text is the same is certainly the same: it leads to nothing whose name without numbers is that of
    /// several.
    fn same(&self, text: &str) -> Verdict {
        if text.contains(UNCLEAR) {
            return Verdict::Unknown;
        }
        let numbered = |symbol: &&Symbol| base(&symbol.name) != symbol.name;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for symbol in self.symbols.iter().filter(numbered) {
            *counts.entry(base(&symbol.name)).or_default() += 1;
        }
        let is_unsure = counts.iter().any(|(name, count)| *count > 1 && text.contains(name.as_str()));
        if is_unsure { Verdict::Unknown } else { Verdict::Same }
    }
}

/// Whether two functions differ in nothing but in what they lead to, of which one is not clear.
fn is_unclear(one: &str, two: &str) -> bool {
    let instructions = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    };
    (one.contains(UNCLEAR) || two.contains(UNCLEAR)) && instructions(one) == instructions(two)
}

fn first_difference(one: &str, two: &str) -> String {
    let (mut before, mut after) = (one.lines(), two.lines());
    loop {
        match (before.next(), after.next()) {
            (None, None) => return String::new(),
            (one, two) if one == two => {}
            (one, two) => return format!("`{}`, `{}`", one.unwrap_or("the end"), two.unwrap_or("the end")),
        }
    }
}

/// The bytes in a line of a dump: ` 0010 70018935 00000000  p..5....`.
fn dumped(line: &str) -> Vec<u8> {
    let hex = line.get(1..).and_then(|rest| rest.split_once(' ')).map(|(_, rest)| rest).unwrap_or_default();
    let digits: Vec<u8> = hex.bytes().take(35).filter(u8::is_ascii_hexdigit).collect();
    let value =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits.chunks(2).filter_map(value).collect()
}

/// A line of the symbol table: value, seven flags, the section, a tab, the size, the visibility perhaps, and the name.
fn symbol(line: &str) -> Option<Symbol> {
    let (front, back) = line.split_once('\t')?;
    let value = u64::from_str_radix(front.get(..16)?, 16).ok()?;
    let flags = front.get(17..24)?;
    let section = front.get(25..)?.to_owned();
    let (size, name) = back.split_once(' ')?;
    let name = name.trim_start_matches(".hidden ").trim();
    if flags.contains('f') || section == "*UND*" || section == "*ABS*" {
        return None;
    }
    let size = u64::from_str_radix(size, 16).ok()?;
    Some(Symbol { name: name.to_owned(), section, value, size, is_data: flags.contains('O') })
}

/// Name and addend of `name+0x4`.
fn split_target(target: &str) -> (&str, i64) {
    let at = target.rfind("+0x").or_else(|| target.rfind("-0x"));
    let Some(at) = at else { return (target, 0) };
    let (name, number) = target.split_at(at);
    let value = u64::from_str_radix(number.get(3..).unwrap_or_default(), 16).unwrap_or(0) as i64;
    (name, if number.starts_with('-') { value.wrapping_neg() } else { value })
}

/// The name without the numbers that the compiler gives: `count.12` and `f.isra.0`, in whatever stands around it.
pub(super) fn base(name: &str) -> String {
    let mut result = String::new();
    let mut parts = name.split('.');
    result.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || part[digits..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
            result.push('.');
            result.push_str(part);
        } else {
            result.push_str(&part[digits..]);
        }
    }
    match result.split_once("__UNIQUE_ID_") {
        Some((before, after)) => {
            format!("{before}__UNIQUE_ID_{}", after.replace(|c: char| c.is_ascii_digit(), ""))
        }
        None => result,
    }
}

/// Whether it is made of something that has no name in the source.
fn is_made(name: &str) -> bool {
    let made = [
        "__func__",
        "__FUNCTION__",
        "__PRETTY_FUNCTION__",
        "CSWTCH",
        "__msg",
        "descriptor",
        "__already_done",
    ];
    made.iter().any(|one| name.starts_with(one))
        || name.contains("__UNIQUE_ID_")
        || name.starts_with("__BTF_ID__")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(source: &str) -> Listing {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("unit.c"), source).unwrap();
        let options =
            ["-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-mcmodel=kernel", "-w"];
        Command::new("gcc")
            .args(options)
            .args(["unit.c", "-o", "unit.o"])
            .folder(folder.path())
            .run()
            .unwrap();
        Listing::of(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
    }

    const SOURCE: &str =
        "int ext(const void *, long); static int total; static const int table[3] = { 1, 2, 3 };
        int f(int x) { static int calls; total += x; return ext(\"hello\", table[x & 1] + calls++); }
        int g(int x) { return ext(\"hello\", x); } int (*pointer)(int) = f;
        int table_of(int x) { return ext(table, x); } int at(void) { return ext(&total, 1); }";

    #[test]
    fn what_differs_is_named() {
        let before = compiled(SOURCE);
        let differs = |old: &str, new: &str| {
            let opinion = before.compare(&compiled(&SOURCE.replacen(old, new, 1)));
            let functions = opinion.functions.into_iter().filter(|(_, verdict)| *verdict == Verdict::Differs);
            let functions: Vec<String> = functions.map(|(name, _)| name).collect();
            (functions.join(" "), opinion.variables.into_iter().collect::<Vec<_>>(), opinion.differs)
        };
        let variable = |name: &str, how| vec![(name.to_owned(), how)];
        assert_eq!(differs("int f", "/* a comment */ int f"), (String::new(), vec![], false));
        assert_eq!(differs("\"hello\"", "\"HELLO\""), ("f".to_owned(), vec![], true));
        assert_eq!(differs("3 }", "4 }"), (String::new(), variable("table", "its initial value"), true));
        assert_eq!(differs("= f", "= g"), (String::new(), variable("pointer", "its initial value"), true));
        let attribute = "static __attribute__((section(\".data..percpu\"))) int total";
        assert_eq!(
            differs("static int total", attribute),
            (String::new(), variable("total", "the kind of its memory"), true)
        );
    }

    #[test]
    fn sections_of_one_name_are_not_told_apart() {
        let source = |first: &str| {
            format!(
                "asm(\".section .data..mostly,\\\"aw\\\",@progbits,unique,1\\n.type a,@object\\n.size a,4\\na: .long {first}\\n\"
                     \".section .data..mostly,\\\"aw\\\",@progbits,unique,2\\n.type b,@object\\n.size b,4\\nb: .long 2\\n.text\");
                 extern int b; int f(void) {{ return b; }}"
            )
        };
        let opinion = compiled(&source("1")).compare(&compiled(&source("3")));
        assert_eq!(opinion.functions["f"], Verdict::Unknown);
        assert!(opinion.variables.is_empty());
    }

    #[test]
    fn numbers_are_taken_off() {
        assert_eq!(base("f.isra.0"), "f.isra");
        assert_eq!(base("<f.part.12.cold+0x4>"), "<f.part.cold+0x4>");
        assert_eq!(base(".rodata.f.str1.8"), ".rodata.f.str1");
        assert_eq!(base("count"), "count");
    }

    #[test]
    fn targets_have_an_addend() {
        assert_eq!(split_target("a-0x0000000000000004"), ("a", -4));
        assert_eq!(split_target(".rodata.f.str1.1+0x4"), (".rodata.f.str1.1", 4));
        assert_eq!(split_target("b"), ("b", 0));
    }
}
