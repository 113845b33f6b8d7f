//! A kernel of three units, with a build system that answers a dry run as kbuild does.

use kmend_compile::{PatchFile, Target};
use kmend_process::Command;
use std::fs;
use std::path::{Path, PathBuf};

/// The source of the unit that most tests patch.
pub const MAIN: &str = "#include \"fs/local.h\"\n#include <generated/autoconf.h>\n\nstatic int counter;\n\n\
    int line(void)\n{\n\treturn __LINE__;\n}\n\nint count(void)\n{\n\tcounter += STEP;\n\treturn counter;\n}\n";

/// What stands for a kernel, in a folder of its own.
pub struct Kernel {
    pub folder: tempfile::TempDir,
    pub target: Target,
}

impl Kernel {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        write(&source, "fs/main.c", MAIN);
        write(&source, "fs/local.h", "#define STEP 1\n");
        write(&source, "fs/outer.c", "#include \"inner.c\"\nint outer(void) { return inner(); }\n");
        write(&source, "fs/inner.c", "static int inner(void)\n{\n\treturn 1;\n}\n");
        write(&source, "fs/table.c", "#include \"table.h\"\nint table(void)\n{\n\treturn TABLE;\n}\n");
        write(&source, "fs/unbuilt.c", "int unbuilt;\n");
        write(&source, "fs/entry.S", "a\n");
        write(&source, "fs/words.txt", "a\n");
        write(&source, "fs/Makefile", "x: notes.awk\n");
        write(&source, "fs/notes.awk", "a\n");
        write(&source, "Documentation/a.rst", "a\n");
        write(&source, "samples/b/b.c", "a\n");
        write(&source, "samples/b/Makefile", "a\n");
        write(&source, "tools/Makefile", "all:\n");
        write(&source, "arch/x86/k.c", "");
        write(&source, "Makefile", &makefile());
        write(folder.path(), "config", "CONFIG_STEP=y\nCONFIG_NAME=\"a b\"\n");
        let version = Command::new("cc").arg("--version").run().unwrap().text();
        write(folder.path(), "Module.symvers", "0x1\texported_key\tvmlinux\tEXPORT_SYMBOL\t\n");
        let target = Target {
            release: "6.0.0-test".to_owned(),
            config: folder.path().join("config"),
            headers: None,
            symvers: folder.path().join("Module.symvers"),
            compiler: "cc".to_owned(),
            compiler_text: version.lines().next().unwrap_or_default().to_owned(),
            derived: folder.path().join("derived"),
            source,
        };
        Self { folder, target }
    }

    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }
}

/// A build system with the goals that this crate asks for.
fn makefile() -> String {
    let mut goals = String::from("scripts prepare0:\n\t@mkdir -p include/generated\n\nvmlinux:\n");
    for unit in ["main", "outer", "table"] {
        let command = format!(
            "$(CC) -Wp,-MMD,fs/.{unit}.o.d -I./include -I. -include ./include/generated/autoconf.h -D__KERNEL__ -O2 -g -fno-pic -c -o fs/{unit}.o fs/{unit}.c"
        );
        let dependencies =
            format!("scripts/basic/fixdep fs/.{unit}.o.d fs/{unit}.o '{command}' > fs/.{unit}.o.cmd");
        let versions = format!(
            "if nm fs/{unit}.o | grep -q ksymtab; then $(CC) -E -D__GENKSYMS__ fs/{unit}.c | scripts/genksyms/genksyms -r /dev/null >> x; fi"
        );
        for part in ["\t", &command, "; ", &versions, "; ", &dependencies, "\n"] {
            goals += part;
        }
    }
    let assembly = "$(CC) -D__KERNEL__ -D__ASSEMBLY__ -c -o fs/entry.o fs/entry.S";
    for part in ["\t", assembly, "; scripts/basic/fixdep d fs/entry.o '", assembly, "' > x\n"] {
        goals += part;
    }
    goals += "\tmake -f scripts/Makefile.build obj=fs\n\ttr a b < fs/words.txt > fs/made.h\n";
    goals += "modules:\n\nfs/table.o:\n\techo '#define TABLE 7' > fs/table.h\n\ttouch $@\n";
    goals + ".PHONY: scripts prepare0 vmlinux modules fs/table.o\n"
}

pub fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// A patch of one hunk.
pub fn patch(path: &str, hunk: &str) -> PatchFile {
    let text = format!("--- a/{path}\n+++ b/{path}\n{hunk}");
    PatchFile::new("test.patch".to_owned(), text.into_bytes())
}
