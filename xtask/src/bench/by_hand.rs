//! What a person would type: compile the unit, compile it patched, and make a module with kbuild.

use anyhow::{Context, Result};
use kmend_build::target;
use kmend_process::Command;
use kmend_store::{Cache, Kernel, Scratch};
use std::fs;

/// The smallest module.
const MODULE: &str = "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\n";

/// The commands, ready to run.
pub(super) struct ByHand {
    commands: Vec<Command>,
    /// Holds what they write.
    _scratch: Scratch,
}

impl ByHand {
    /// The commands for a unit. The patched source differs from the original in nothing: that does not make
    /// the compiler faster.
    pub(super) fn new(cache: &Cache, kernel: &Kernel, source: &str) -> Result<Self> {
        let prepared = kmend_compile::prepare(&target(kernel), &|_| {})?;
        let unit = prepared.database.units_of(source).first().context("the kernel has no such unit")?;
        let scratch = cache.scratch()?;
        let compile = |output: &str| {
            Command::new(&kernel.compiler)
                .args(&unit.arguments)
                .args(["-ffunction-sections", "-fdata-sections", "-c", "-o"])
                .arg(scratch.path().join(output))
                .arg(source)
                .folder(&prepared.tree)
        };
        let module = scratch.path().join("module");
        fs::create_dir(&module)?;
        fs::write(module.join("Kbuild"), "obj-m := hand.o\n")?;
        fs::write(module.join("hand.c"), MODULE)?;
        // Made anew each time: kbuild would find it done.
        let clean =
            Command::new("sh").args(["-c", "rm -f hand.* .hand.* && printf '%s' \"$0\" > hand.c", MODULE]);
        let make = Command::new("make")
            .arg("-C")
            .arg(&kernel.headers)
            .arg(format!("M={}", module.display()))
            .arg(format!("CC={}", kernel.compiler))
            .args(["--no-print-directory", "-s", "modules"])
            .env("MAKEFLAGS", "");
        let commands = vec![compile("original.o"), compile("patched.o"), clean.folder(&module), make];
        Ok(Self { commands, _scratch: scratch })
    }

    /// Runs them one after the other.
    pub(super) fn run(&self) -> Result<()> {
        for command in &self.commands {
            command.run()?;
        }
        Ok(())
    }
}
