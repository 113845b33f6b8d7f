//! The headers with which a patch's author speaks to kmend: `kmend.h`, and the names of kpatch for the same.
//!
//! They lie in a folder of the shadow tree, which only the compiler of patched sources searches. An original
//! never sees them, so that it stays what the kernel's build made.

use crate::error::{CompileError, io_error};
use std::fs;
use std::path::Path;

/// The folder in the shadow tree.
const FOLDER: &str = ".kmend";

/// The compiler's option that makes it search the folder, after all others; commands run in the tree's root.
pub const OPTION: &str = "-idirafter.kmend";

const HEADERS: &[(&str, &str)] = &[
    ("kmend.h", include_str!("../headers/kmend.h")),
    ("kpatch-macros.h", include_str!("../headers/kpatch-macros.h")),
    ("kpatch-syscall.h", include_str!("../headers/kpatch-syscall.h")),
];

/// Writes the headers into the tree at `root`.
pub fn write_headers(root: &Path) -> Result<(), CompileError> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    HEADERS.iter().try_for_each(|(name, text)| {
        let file = folder.join(name);
        fs::write(&file, text).map_err(io_error("write", &file))
    })
}
