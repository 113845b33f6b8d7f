//! The engine's C, as it travels with kmend, and what can be read in it.

macro_rules! source {
    ($name:literal) => {
        ($name, include_str!(concat!("../engine/", $name)))
    };
}

/// What modules that use the engine include.
pub(crate) const INTERFACE: (&str, &str) = source!("kmend_engine.h");

/// What the engine's files know of each other.
const INTERNAL: (&str, &str) = source!("engine.h");
/// Where the table of the models is.
const CHANGE: (&str, &str) = source!("change.c");

/// Where the ways of redirection are named.
const SHOW: (&str, &str) = source!("show.c");

/// All files of the engine but the one that is written for each kernel.
pub(crate) const SOURCES: &[(&str, &str)] = &[
    source!("Kbuild"),
    source!("begin.c"),
    source!("blockers.c"),
    CHANGE,
    source!("core.c"),
    source!("decode.c"),
    INTERNAL,
    INTERFACE,
    source!("jump.c"),
    source!("objects.c"),
    source!("redirect.c"),
    source!("refcount.c"),
    source!("room.c"),
    SHOW,
    source!("sides.c"),
    source!("stacks.c"),
    source!("stop.c"),
    source!("tasks.c"),
    source!("untraced.c"),
    source!("versions.c"),
];

/// Hexadecimal digits of an id: enough that no two engines of a machine share one.
const DIGITS: usize = 16;

/// The text of the header that patches for the engine include.
pub fn interface_header() -> (&'static str, &'static str) {
    INTERFACE
}

/// An id of what patches and the engine must agree on. The kernel compares the CRCs of the engine's exported functions, which
/// follow from the structures in these two headers, and tells less when they differ.
pub fn interface_id() -> String {
    id(&[INTERFACE, INTERNAL])
}

/// An id of the engine's whole source, and of the kmend that builds it.
pub(crate) fn engine_id() -> String {
    id(&[SOURCES, &[("kmend", env!("CARGO_PKG_VERSION"))]].concat())
}

fn id(files: &[(&str, &str)]) -> String {
    let mut hash = blake3::Hasher::new();
    for (name, text) in files {
        for part in [name, text] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().to_hex().chars().take(DIGITS).collect()
}

/// The names of the consistency models that this engine has, the default first.
pub fn models() -> Vec<&'static str> {
    rows().filter_map(name).collect()
}

/// Those of them that switch with the machine stopped: a function that ftrace does not know can be switched by no other.
pub fn stopping_models() -> Vec<&'static str> {
    rows().filter(|row| row.contains(".stops = true")).filter_map(name).collect()
}

/// The rows of the table of models.
fn rows() -> impl Iterator<Item = &'static str> {
    let rows = CHANGE.1.split_once("kmend_models[] = {\n").map_or("", |(_, rest)| rest);
    rows.split_once("\n};").map_or("", |(rows, _)| rows).lines()
}

fn name(row: &'static str) -> Option<&'static str> {
    row.split('"').nth(1)
}

/// The names of the ways in which this engine redirects callers, the default first.
pub fn redirects() -> Vec<&'static str> {
    let lines = SHOW.1.split_once("redirects[] = \"").map_or("", |(_, rest)| rest);
    let lines = lines.split_once('"').map_or("", |(lines, _)| lines);
    lines.split("\\n").filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_are_those_of_the_engines_table() {
        let models = models();
        assert_eq!((models.first(), redirects().first()), (Some(&"hybrid"), Some(&"ftrace")));
        for known in ["immediate", "lazy", "stop-machine"] {
            assert!(models.contains(&known), "{models:?}");
        }
        assert_eq!(stopping_models(), ["quiesce", "stop-machine"]);
    }

    #[test]
    fn every_source_of_the_engine_is_carried() {
        let kbuild = SOURCES.iter().find(|(name, _)| *name == "Kbuild").unwrap().1;
        let words = kbuild.split_whitespace().filter_map(|word| word.strip_suffix(".o"));
        for stem in words.filter(|stem| *stem != "kmend_engine") {
            assert!(SOURCES.iter().any(|(name, _)| *name == format!("{stem}.c")), "{stem}.c is missing");
        }
        assert_eq!(interface_id().len(), DIGITS);
        assert_ne!(interface_id(), engine_id());
    }
}
