//! New files: the units that a patch adds to the kernel by a Makefile line.
//!
//! A new unit becomes a part of something that is there, a composite module or the image, and is compiled as the other
//! units of that are in its folder.

use crate::database::{Owner, Unit, from_root};
use crate::edits::{Edited, Edits};
use crate::makefile::{Entry, difference, listed};
use crate::prepare::Prepared;
use crate::scan::folder_of;
use crate::session::{Note, is_source};
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;
use std::fs;

/// Takes the Makefiles out of the edits, and gives the units that they add.
pub fn new_units(edits: &mut Edits, prepared: &Prepared) -> Vec<Unit> {
    let (makefiles, files): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut edits.files).into_iter().partition(|(path, _)| is_makefile(path));
    edits.files = files;
    let mut units = Vec::new();
    for (path, file) in makefiles {
        let found = entries(&path, &file, edits).and_then(|(entries, lists)| {
            entries.iter().map(|entry| new_unit(&path, entry, &lists, edits, prepared)).collect()
        });
        match found {
            Ok(found) => units.extend(Vec::<Option<Unit>>::into_iter(found).flatten()),
            Err(refusal) => edits.refusals.push(refusal),
        }
    }
    for (path, file) in &edits.files {
        let is_new = file.original.is_none() && is_source(path);
        if is_new && !units.iter().any(|unit| unit.source == *path) {
            let text = "no line of a Makefile in the patch makes it a part of this kernel".to_owned();
            edits.notes.push(Note { file: Some(path.clone()), text });
        }
    }
    units
}

/// Takes renamed files for what they are to the build.
///
/// The source of a unit stays in its place: it is compiled under its old name, which `__FILE__` and the names of messages
/// keep, so that the new name alone changes no code. Any other file goes, and comes as a new one.
pub fn settle_renamed(edits: &mut Edits, prepared: &Prepared) {
    for (old, new) in edits.renamed.clone() {
        let is_unit = !prepared.database.units_of(&old).is_empty();
        if is_unit && folder_of(&old) == folder_of(&new) {
            let text = format!("becomes {new}; it is compiled under its old name, which messages keep");
            edits.notes.push(Note { file: Some(old), text });
        } else if is_unit {
            let why = format!("it moves to {new}, where its includes and its place in the kernel are others");
            edits.refusals.push(Refusal::new(Code::RemovedUnit, &old, why).at(&old, None));
        } else if let Some(file) = edits.files.get_mut(&old) {
            let lines = file.lines.take();
            edits.files.insert(new, Edited { original: None, lines });
        }
    }
}

/// Whether a file is one of kbuild's lists of objects.
pub fn is_makefile(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("Makefile" | "Kbuild"))
}

/// The objects that a Makefile newly lists, if that is all that it does; and all that it lists then.
fn entries(path: &str, file: &Edited, edits: &Edits) -> Result<(Vec<Entry>, Vec<Entry>), Refusal> {
    let refuse = |why: String| Err(Refusal::new(Code::BuildFile, path, why).at(path, None));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let original = text(file.original.as_deref().unwrap_or_default());
    let patched: Vec<u8> = file.lines.iter().flatten().flat_map(|line| line.bytes.iter().copied()).collect();
    let patched = text(&patched);
    let found = difference(&original, &patched);
    if let Some(line) = found.other {
        return refuse(format!("`{line}` is no list of objects"));
    }
    for entry in &found.removed {
        let source = source_of(path, &entry.object);
        let is_renamed = edits.renamed.contains_key(&source);
        if !is_renamed && edits.files.get(&source).is_none_or(|file| file.lines.is_some()) {
            return refuse(format!("{}.o is taken out of the kernel, but its source stays", entry.object));
        }
    }
    let mut added = found.added;
    added.retain(|entry| !edits.renamed.values().any(|new| *new == source_of(path, &entry.object)));
    let is_new = |entry: &&Entry| {
        edits.files.get(&source_of(path, &entry.object)).is_some_and(|file| file.original.is_none())
    };
    match added.iter().find(|entry| !is_new(entry)) {
        Some(entry) => refuse(format!(
            "{}.o is made a part of the kernel, but the patch adds no source of it",
            entry.object
        )),
        None => Ok((added, listed(&patched))),
    }
}

/// The source of an object that the Makefile at `path` names.
fn source_of(path: &str, object: &str) -> String {
    from_root(folder_of(path), &format!("{object}.c"))
}

/// The unit of a new object; `None` if the configuration leaves it out. `lists` is all that its Makefile lists.
fn new_unit(
    path: &str,
    entry: &Entry,
    lists: &[Entry],
    edits: &mut Edits,
    prepared: &Prepared,
) -> Result<Option<Unit>, Refusal> {
    let source = source_of(path, &entry.object);
    let refuse = |why: String| Err(Refusal::new(Code::NewUnit, &source, why).at(path, None));
    if let Some(option) = unset_option(entry, lists, prepared) {
        let text = format!("{option} is not set in this kernel's configuration, so it is left out");
        edits.notes.push(Note { file: Some(source), text });
        return Ok(None);
    }
    let folder = folder_of(&source);
    let is_whole = matches!(entry.list.as_str(), "obj" | "lib");
    if is_whole && value_of(entry, prepared) == "m" {
        return refuse("it is a module of its own, which is built and loaded like any other".to_owned());
    }
    let owner_file = from_root(folder, &entry.list);
    let is_sibling = |unit: &&Unit| {
        let in_folder = folder_of(&unit.source) == folder;
        let belongs = match &unit.owner {
            Owner::Module { file, .. } => !is_whole && *file == owner_file,
            Owner::Vmlinux => is_whole || module_name(unit) == Some(&entry.list.replace('-', "_")),
        };
        in_folder && belongs
    };
    let Some(sibling) = most_common(prepared.database.units().iter().filter(is_sibling)) else {
        return refuse(format!(
            "no unit of this kernel belongs to {} in its folder, whose compile command it could take",
            entry.list
        ));
    };
    Ok(Some(compiled_like(sibling, &source, is_whole)))
}

/// The option that leaves an object out of this kernel: its own, or that of the composite object that it is a part of.
fn unset_option<'a>(entry: &'a Entry, lists: &'a [Entry], prepared: &Prepared) -> Option<&'a str> {
    let is_unset = |entry: &&Entry| value_of(entry, prepared).is_empty();
    let mut wholes = lists.iter().filter(|whole| whole.object == entry.list);
    let whole = wholes.next().filter(|first| is_unset(first) && wholes.all(|other| is_unset(&other)));
    [entry].into_iter().filter(is_unset).chain(whole).map(|entry| entry.condition.as_str()).next()
}

/// `y`, `m`, or nothing where the configuration leaves an object out.
fn value_of(entry: &Entry, prepared: &Prepared) -> String {
    match entry.condition.as_str() {
        "y" | "objs" => "y".to_owned(),
        "m" => "m".to_owned(),
        option => configured(prepared, option),
    }
}

/// An option's value in the configuration, empty if it is not set.
fn configured(prepared: &Prepared, option: &str) -> String {
    let text = fs::read_to_string(prepared.tree.join("include/config/auto.conf")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix('='));
    value.unwrap_or_default().to_owned()
}

const NAMES: &[&str] =
    &["-DKBUILD_BASENAME=", "-DKBUILD_MODNAME=", "-D__KBUILD_MODNAME=", "-DKBUILD_MODFILE="];

fn module_name(unit: &Unit) -> Option<&str> {
    let name = unit.arguments.iter().find_map(|argument| argument.strip_prefix("-DKBUILD_MODNAME="))?;
    Some(name.trim_matches('"'))
}

/// The unit whose arguments most of the others have too: a Makefile may give some units flags of their own.
fn most_common<'a>(units: impl Iterator<Item = &'a Unit>) -> Option<&'a Unit> {
    let mut groups: BTreeMap<Vec<&str>, Vec<&Unit>> = BTreeMap::new();
    for unit in units {
        let is_common = |argument: &&str| !NAMES.iter().any(|name| argument.starts_with(name));
        let common = unit.arguments.iter().map(String::as_str).filter(is_common).collect();
        groups.entry(common).or_default().push(unit);
    }
    groups.into_values().max_by_key(Vec::len).and_then(|units| units.first().copied())
}

/// The unit of `source`, with the command of `sibling`.
fn compiled_like(sibling: &Unit, source: &str, is_whole: bool) -> Unit {
    let stem = source.strip_suffix(".c").unwrap_or(source);
    let name = stem.rsplit('/').next().unwrap_or(stem).replace(['-', ','], "_");
    let renamed = |argument: &String| match NAMES.iter().position(|prefix| argument.starts_with(prefix)) {
        Some(0) => format!("-DKBUILD_BASENAME=\"{name}\""),
        Some(1) if is_whole => format!("-DKBUILD_MODNAME=\"{name}\""),
        Some(2) if is_whole => format!("-D__KBUILD_MODNAME=kmod_{name}"),
        Some(3) if is_whole => format!("-DKBUILD_MODFILE=\"{stem}\""),
        _ => argument.clone(),
    };
    Unit {
        source: source.to_owned(),
        named: source.to_owned(),
        object: format!("{stem}.o"),
        arguments: sibling.arguments.iter().map(renamed).collect(),
        owner: sibling.owner.clone(),
        shared_by: sibling.shared_by.clone(),
        objtool: sibling.objtool.clone(),
    }
}
