//! The CRCs of exported symbols, made as the kernel's build makes them: the source is preprocessed with `__GENKSYMS__`, and the
//! kernel's own genksyms reads it (scripts/Makefile.build, `cmd_gensymtypes_c`).
//!
//! A CRC stands for a symbol's declaration and all the types that it leads to, and the kernel loads no module that was built with
//! another one. On 600 units of two kernels all 5212 CRCs made here are those of `Module.symvers`. So the patched
//! source is held against that first, and the original is only looked at where it differs.

use crate::author;
use crate::database::Unit;
use crate::error::{CompileError, io_error};
use crate::prepare::Prepared;
use crate::session::{Note, Outcome};
use crate::target::Target;
use kmend_process::{Command, Output};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the headers have the program; they come with it where modules need it to be built.
const PROGRAM: &str = "scripts/genksyms/genksyms";

/// An exported symbol whose CRC changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportChange {
    /// The symbol.
    pub symbol: String,
    /// Its CRC in the original; `None` where genksyms finds no declaration of it.
    pub before: Option<u32>,
    /// Its CRC in the patched source, likewise.
    pub after: Option<u32>,
    /// What of it changes, in genksyms' words: `struct foo`, `enum constant BAR`, the symbol's own name;
    /// ` (became defined)` follows the name of a structure that was declared only.
    pub causes: BTreeSet<String>,
}

/// What the CRCs of a unit's exported symbols say.
#[derive(Debug, Default)]
pub struct Exports {
    /// The symbols whose CRC changes.
    pub changed: Vec<ExportChange>,
    /// Why some could not be compared.
    pub notes: Vec<Note>,
}

impl Outcome {
    /// Compares the CRCs of the symbols that a unit exports before and after the patch. `shipped` has these symbols, with
    /// their CRCs in `Module.symvers`. Where the kernel's build runs no genksyms there is nothing to compare, and where the
    /// patches leave all declarations as they are there is no need to.
    pub fn compare_exports(
        &self,
        target: &Target,
        prepared: &Prepared,
        unit: &Unit,
        shipped: &BTreeMap<String, Option<u32>>,
    ) -> Result<Exports, CompileError> {
        let Some(arguments) = prepared.database.genksyms.as_deref() else { return Ok(Exports::default()) };
        if shipped.is_empty() || self.keeps_declarations {
            return Ok(Exports::default());
        }
        let program = target.headers.as_deref().map(|headers| headers.join(PROGRAM));
        let Some(program) = program.filter(|program| program.is_file()) else {
            let text = format!("CRCs of exported symbols are not compared: the headers have no {PROGRAM}");
            return Ok(Exports {
                changed: Vec::new(),
                notes: vec![Note { file: Some(unit.source.clone()), text }],
            });
        };
        let work = tempfile::tempdir_in(self.work.path()).map_err(io_error("create", self.work.path()))?;
        let genksyms = Genksyms { compiler: &target.compiler, program, arguments, unit };
        self.compare_with(&genksyms, &prepared.tree, &work.path().join("types"), shipped)
    }

    /// `types` is a file for the types of the original.
    fn compare_with(
        &self,
        genksyms: &Genksyms<'_>,
        tree: &Path,
        types: &Path,
        shipped: &BTreeMap<String, Option<u32>>,
    ) -> Result<Exports, CompileError> {
        // The compile made real what the unit reads; it reads no more for genksyms.
        let shadow = self.shadow.read();
        let patched = |options: &[&Path]| genksyms.run(shadow.root(), &[author::OPTION], options);
        let after = crcs(&patched(&[])?.stdout);
        let differs = |(symbol, crc): &(&String, &Option<u32>)| after.get(*symbol) != crc.as_ref();
        let suspects: Vec<(&String, &Option<u32>)> = shipped.iter().filter(differs).collect();
        if suspects.is_empty() {
            return Ok(Exports::default());
        }
        let before = crcs(&genksyms.run(tree, &[], &["-T".as_ref(), types])?.stdout);
        let mut causes = causes(&patched(&["-r".as_ref(), types])?.error_text());
        let mut exports = Exports::default();
        for (symbol, crc) in suspects {
            let (before, after) = (before.get(symbol).copied(), after.get(symbol).copied());
            if before != after {
                let causes = causes.remove(symbol).unwrap_or_default();
                exports.changed.push(ExportChange { symbol: symbol.clone(), before, after, causes });
            }
            if before != *crc {
                let text = format!(
                    "the CRC of {symbol} is {} in the source and {} in Module.symvers",
                    shown(before),
                    shown(*crc)
                );
                exports.notes.push(Note { file: Some(genksyms.unit.source.clone()), text });
            }
        }
        Ok(exports)
    }
}

fn shown(crc: Option<u32>) -> String {
    crc.map_or("missing".to_owned(), |crc| format!("{crc:#010x}"))
}

/// A unit, as genksyms is run on it.
struct Genksyms<'a> {
    compiler: &'a str,
    program: PathBuf,
    arguments: &'a [String],
    unit: &'a Unit,
}

impl Genksyms<'_> {
    /// Runs it on the unit in the tree at `root`. The text keeps its line markers, because to genksyms a structure that a
    /// source defines itself is unknown.
    fn run(&self, root: &Path, options: &[&str], more: &[&Path]) -> Result<Output, CompileError> {
        let preprocess = Command::new(self.compiler)
            .args(["-E", "-D__GENKSYMS__"])
            .args(&self.unit.arguments)
            .args(options)
            .arg(&self.unit.named)
            .folder(root);
        Ok(preprocess.pipe(&Command::new(&self.program).args(self.arguments).args(more))?)
    }
}

/// The CRCs that genksyms prints: `#SYMVER NAME 0xCRC` (scripts/genksyms/genksyms.c, `export_symbol`; since 7b4537199a4a,
/// 5.19). Symbols whose declaration it does not find or does not understand are not among them.
fn crcs(output: &[u8]) -> BTreeMap<String, u32> {
    let line = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let (symbol, crc) = line.strip_prefix("#SYMVER ")?.split_once(" 0x")?;
        Some((symbol.to_owned(), u32::from_str_radix(crc, 16).ok()?))
    };
    output.split(|&byte| byte == b'\n').filter_map(line).collect()
}

/// What genksyms says against the types of the original, by symbol:
/// `PLACE: warning: NAME: modversion changed because of changes in CAUSE, CAUSE`.
fn causes(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let line = |line: &str| {
        let (place, causes) = line.split_once(": modversion changed because of changes in ")?;
        let symbol = place.rsplit(' ').next()?;
        Some((symbol.to_owned(), causes.split(", ").map(str::to_owned).collect()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRCS: &[u8] = b"#SYMVER vfs_read 0x00c0ffee\n#SYMVER jiffies 0x15ba50a6\n";

    #[test]
    fn symbols_and_their_crcs_are_read() {
        let expect =
            BTreeMap::from([("jiffies".to_owned(), 0x15ba_50a6), ("vfs_read".to_owned(), 0x00c0_ffee)]);
        assert_eq!(crcs(CRCS), expect);
    }

    #[test]
    fn what_is_no_crc_is_left_out() {
        for line in ["", "#SYMVER", "#SYMVER x", "#SYMVER x 0x", "#SYMVER x 0x123456789", "__crc_x = 0x1;"] {
            assert_eq!(crcs(line.as_bytes()), BTreeMap::new(), "{line}");
        }
        assert_eq!(crcs(b"\xff\xfe\n#SYMVER a 0x1\n\0#SYMVER b 0x2").into_keys().collect::<Vec<_>>(), ["a"]);
        for end in 0..CRCS.len() {
            for byte in [0, b' ', b'\n', 0xff] {
                let mut damaged = CRCS.to_vec();
                damaged[end] = byte;
                assert!(crcs(&damaged).len() <= 3);
                assert!(crcs(&CRCS[..end]).len() <= 2);
            }
        }
    }

    #[test]
    fn causes_are_read_by_symbol() {
        let text = "fs/x.c:7: warning: f: modversion changed because of changes in struct s, enum constant E, \
                    struct t (became defined)\n<stdin>:9: g modversion is unchanged\n: modversion changed because of changes in \n";
        let found = causes(text);
        let of_f: Vec<&str> = found["f"].iter().map(String::as_str).collect();
        assert_eq!(of_f, ["enum constant E", "struct s", "struct t (became defined)"]);
        assert!(!found.contains_key("g"));
        for (end, _) in text.char_indices() {
            assert!(causes(&text[..end]).len() <= 2);
        }
    }
}
