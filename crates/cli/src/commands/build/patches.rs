//! The patches that a build is given: files, folders, series of quilt, and standard input.

use crate::failure::Failure;
use clap::Args;
use kmend_compile::{MOST_FUZZ, PatchFile};
use kmend_kernel::Packing;
use kmend_refusal::Code;
use std::fs;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

/// The largest patch that is read, in bytes: that of a whole release of the kernel is smaller.
const LARGEST_PATCH: u64 = 256 << 20;
/// The name of quilt's list in a folder.
const SERIES: &str = "series";
/// The ends of the names of patches in a folder without such a list.
const PATCH_ENDINGS: &[&str] = &["patch", "diff", "mbox", "eml"];
/// The ends that packing adds to names.
const PACKED_ENDINGS: &[&str] = &["gz", "xz", "zst", "bz2", "lz4", "lzma"];
/// More folders than a name has.
const DEEPEST: u8 = 64;

/// What is built.
#[derive(Debug, Args)]
pub(super) struct Patches {
    /// Unified diffs, as `git diff` or `diff -u` writes them, or mails with such, plain or packed (gzip, xz, zstd); a
    /// `series` of quilt, a folder of patches, or `-` for standard input
    #[arg(value_name = "FIX.patch", required = true)]
    files: Vec<PathBuf>,
    /// Undo the patches instead of applying them, the last one first
    #[arg(short = 'R', long)]
    reverse: bool,
    /// Leave out so many folders of the names in the patches [default: 1, or none where only that fits]
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=i64::from(DEEPEST)))]
    strip: Option<u8>,
    /// Let so many lines of context differ at each end of a hunk, as `patch -F` does; each such line is told
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=MOST_FUZZ as i64))]
    fuzz: u8,
}

/// A patch that is yet to be turned round, if it shall be.
struct Given {
    patch: PatchFile,
    is_reversed: bool,
}

impl Patches {
    /// These files, to be applied or undone.
    pub(super) fn given_as(files: &[PathBuf], reverse: bool) -> Patches {
        Patches { files: files.to_vec(), reverse, strip: None, fuzz: 0 }
    }

    /// Reads all of them, in the order in which they are to be applied.
    pub(super) fn read(&self) -> Result<Vec<PatchFile>, Failure> {
        let mut given = Vec::new();
        for path in &self.files {
            given.extend(self.argument(path)?);
        }
        if given.is_empty() {
            let names: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
            return Err(Failure::new(Code::PatchFormat, names.join(", "), "it names no patch"));
        }
        if self.reverse {
            given.reverse();
        }
        let turned = |Given { patch, is_reversed }: Given| {
            if is_reversed == self.reverse {
                return Ok(patch);
            }
            kmend_compile::reversed(&patch).map_err(|refusal| Failure::refused(vec![refusal]))
        };
        given.into_iter().map(turned).collect()
    }

    fn argument(&self, path: &Path) -> Result<Vec<Given>, Failure> {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            let read = stdin().take(LARGEST_PATCH + 1).read_to_end(&mut bytes);
            read.map_err(|error| Failure::io(Path::new("standard input"), &error))?;
            return Ok(vec![self.given("stdin.patch", bytes)?]);
        }
        if path.is_dir() {
            let list = path.join(SERIES);
            return if list.exists() { self.series(&list, &text(&list)?) } else { self.folder(path) };
        }
        let bytes = read(path)?;
        match series_lines(path, &bytes) {
            Some(list) => self.series(path, &list),
            None => Ok(vec![self.given(&name_of(path), bytes)?]),
        }
    }

    /// The patches of a folder, in the order of their names.
    fn folder(&self, folder: &Path) -> Result<Vec<Given>, Failure> {
        let failed = |error: std::io::Error| Failure::io(folder, &error);
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if is_patch_name(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            let why = "the folder holds neither a `series` nor a file whose name ends in .patch or .diff";
            return Err(Failure::new(Code::PatchFormat, folder.display().to_string(), why));
        }
        paths.sort();
        paths.iter().map(|path| self.given(&name_of(path), read(path)?)).collect()
    }

    /// The patches that quilt's list names, one a line, each with options of its own: `NAME [-pN] [-R]` (quilt(1)).
    fn series(&self, list: &Path, text: &str) -> Result<Vec<Given>, Failure> {
        let folder = list.parent().unwrap_or(Path::new(""));
        let mut all = Vec::new();
        for line in named_lines(text) {
            let mut words = line.split_whitespace();
            let path = folder.join(words.next().unwrap_or_default());
            let mut given = self.given(&name_of(&path), read(&path)?)?;
            for option in words.take_while(|word| !word.starts_with('#')) {
                let depth = option.strip_prefix("-p").and_then(|depth| depth.parse::<u8>().ok());
                match depth {
                    // `-pab` says how quilt writes the names, with one folder in front.
                    _ if option == "-pab" => {}
                    Some(depth) => given.patch.depth = self.depth().or(Some(usize::from(depth.min(DEEPEST)))),
                    None if option == "-R" => given.is_reversed = true,
                    None => {
                        let why = format!("`{option}` behind {} is no option of a series", given.patch.name);
                        return Err(Failure::new(Code::PatchFormat, list.display().to_string(), why));
                    }
                }
            }
            all.push(given);
        }
        Ok(all)
    }

    fn given(&self, name: &str, bytes: Vec<u8>) -> Result<Given, Failure> {
        let bytes = match Packing::detect(&bytes) {
            Some(packing) => {
                packing.unpack_whole(&bytes).map_err(|why| Failure::new(Code::PatchFormat, name, why))?
            }
            None => bytes,
        };
        if bytes.len() as u64 > LARGEST_PATCH {
            return Err(Failure::new(
                Code::PatchFormat,
                name,
                format!("it has more than {LARGEST_PATCH} bytes"),
            ));
        }
        let patch =
            PatchFile { depth: self.depth(), fuzz: usize::from(self.fuzz), ..PatchFile::new(name, bytes) };
        Ok(Given { patch, is_reversed: false })
    }

    fn depth(&self) -> Option<usize> {
        self.strip.map(usize::from)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    kmend_kernel::read_file(path, LARGEST_PATCH).map_err(|error| Failure::io(path, &error))
}

fn text(path: &Path) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

/// A patch's name: its file's, without what packing added.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let plain =
        name.rsplit_once('.').filter(|(stem, ending)| !stem.is_empty() && PACKED_ENDINGS.contains(ending));
    plain.map_or(name.as_ref(), |(stem, _)| stem).to_owned()
}

fn is_patch_name(path: &Path) -> bool {
    let name = name_of(path);
    let ending = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, ending)| ending);
    ending.is_some_and(|ending| PATCH_ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
        && !path.is_dir()
}

/// The text of a file that is no patch but a list of some: that is what its lines are if they name files beside it, or what its
/// name says.
fn series_lines(path: &Path, bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let is_file = |line: &str| line.split_whitespace().next().is_some_and(|name| folder.join(name).is_file());
    let mut lines = named_lines(text).peekable();
    lines.peek()?;
    let is_diff = text.lines().any(|line| line.starts_with("--- ") || line.starts_with("diff "));
    let is_list = !is_diff && (path.ends_with(SERIES) || lines.all(is_file));
    is_list.then(|| text.to_owned())
}

/// The lines of a list that name something.
fn named_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_packing_added() {
        assert_eq!(name_of(Path::new("x/fix.patch.gz")), "fix.patch");
        assert_eq!(name_of(Path::new("fix.zst")), "fix");
        assert_eq!(name_of(Path::new(".xz")), ".xz");
        assert_eq!(name_of(Path::new("fix.patch")), "fix.patch");
        assert!(is_patch_name(Path::new("0001-x.patch.xz")) && !is_patch_name(Path::new("README")));
    }

    const DIFF: &str = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n";
    /// [`DIFF`], packed.
    #[rustfmt::skip]
    const PACKED: &[(&str, &str)] = &[
        ("gz", "1f8b0800000000000003d3d5d55548d44fe3d2d6d6564802d20e0e0aba860ada860a0e0e5cba895cda495c004e487b0222000000"),
        ("xz", "fd377a585a000004e6d6b4460200210116000000742fe5a30100212d2d2d20612f660a2b2b2b20622f660a4040202d31202b312040400a2d610a2b620a000000507c6f268a6b302600013a22b62a4fd01fb6f37d010000000004595a"),
        ("zst", "28b52ffd04581101002d2d2d20612f660a2b2b2b20622f660a4040202d31202b312040400a2d610a2b620a04fe9682"),
    ];

    fn patches(files: &[PathBuf]) -> Patches {
        Patches { files: files.to_vec(), reverse: false, strip: None, fuzz: 0 }
    }

    fn names(read: &[PatchFile]) -> Vec<&str> {
        read.iter().map(|patch| patch.name.as_str()).collect()
    }

    #[test]
    fn packed_patches_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        for (ending, packed) in PACKED {
            let path = folder.path().join(format!("x.patch.{ending}"));
            fs::write(&path, hex::decode(packed).unwrap()).unwrap();
            let read = patches(std::slice::from_ref(&path)).read().unwrap();
            assert_eq!(read, [PatchFile::new("x.patch", DIFF)], "{ending}");
            let cut = hex::decode(packed).unwrap();
            fs::write(&path, &cut[..cut.len() / 2]).unwrap();
            assert_eq!(patches(&[path]).read().unwrap_err().reasons()[0].code(), Code::PatchFormat);
        }
    }

    #[test]
    fn a_folder_gives_its_series_or_its_patches_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("0002-b.patch", DIFF);
        write("0001-a.diff", DIFF);
        write("README", "words");
        let all = patches(&[folder.path().to_owned()]);
        assert_eq!(names(&all.read().unwrap()), ["0001-a.diff", "0002-b.patch"]);
        let back = Patches { reverse: true, ..patches(&[folder.path().to_owned()]) };
        assert_eq!(names(&back.read().unwrap()), ["0002-b.patch (reversed)", "0001-a.diff (reversed)"]);
        write("series", "# all\n0002-b.patch -p0 -R # why\n\n0001-a.diff\n");
        let read = all.read().unwrap();
        assert_eq!(names(&read), ["0002-b.patch (reversed)", "0001-a.diff"]);
        assert_eq!((read[0].depth, read[1].depth), (Some(0), None));
        write("list", "0001-a.diff\n");
        assert_eq!(names(&patches(&[folder.path().join("list")]).read().unwrap()), ["0001-a.diff"]);
        for bad in ["gone.patch\n", "0001-a.diff --frob\n"] {
            write("series", bad);
            assert!(all.read().is_err(), "{bad}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            patches(&[empty.path().to_owned()]).read().unwrap_err().reasons()[0].code(),
            Code::PatchFormat
        );
    }
}
