//! `kmend kernel list`

use crate::failure::{End, Failure};
use crate::output::{Output, say};
use crate::style::{BOLD, YELLOW, paint, size};
use clap::Args;
use comfy_table::{Table, presets};
use kmend_kernel::{Image, ModuleTree};
use kmend_store::{Cache, Kernel};
use serde::Serialize;
use std::fmt::Write;

/// List the kernels in the cache
///
/// Shows each kernel's release, the version of its packages, its compiler, and the disk space that it takes with all
/// that was derived from it.
///
/// With --verbose every image is unpacked and read, which takes a second or two each, and what was found in it is
/// shown: that is all that kmend goes by.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// Read the images and show what they hold
    #[arg(long, short)]
    verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend kernel list
  kmend kernel list --verbose --json | jq '.kernels[].facts.build_id'";

/// What the cache holds.
#[derive(Serialize)]
struct Kernels {
    kernels: Vec<Entry>,
    damaged: Vec<Damaged>,
}

/// A kernel that is not complete.
#[derive(Serialize)]
struct Damaged {
    release: String,
    why: String,
}

/// One kernel of the list.
#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    kernel: Kernel,
    /// On disk, in bytes.
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Facts>,
}

/// What the image and the modules of a kernel say.
#[derive(Serialize)]
struct Facts {
    /// In hexadecimal.
    build_id: Option<String>,
    banner: String,
    symbols: usize,
    text_symbols: usize,
    exports: usize,
    /// How many types BTF describes; `None` where the image has none.
    types: Option<usize>,
    /// `None` where the kernel's modules are not there.
    modules: Option<usize>,
    livepatch: bool,
}

impl List {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let cache = Cache::open()?;
        let kernels =
            cache.kernels()?.into_iter().map(|kernel| self.entry(kernel)).collect::<Result<_, _>>()?;
        let damaged = cache.damaged()?.into_iter();
        let damaged = damaged.map(|(release, error)| Damaged { release, why: error.to_string() }).collect();
        let kernels = Kernels { kernels, damaged };
        for Damaged { release, why } in kernels.damaged.iter().filter(|_| !output.is_json()) {
            say(&format!("{}: {release} is not complete: {why}\n", paint(YELLOW, "warning")));
        }
        output.document(&kernels, |all| self.text(&all.kernels))?;
        Ok(End::Done)
    }

    fn entry(&self, kernel: Kernel) -> Result<Entry, Failure> {
        let facts = if self.verbose { Some(Facts::of(&kernel)?) } else { None };
        Ok(Entry { size: kmend_store::sizes(&kernel), kernel, facts })
    }

    fn text(&self, entries: &[Entry]) -> String {
        if entries.is_empty() {
            return "no kernels; `kmend kernel fetch debian:cloud-amd64` gets one\n".into();
        }
        if self.verbose {
            return entries.iter().map(verbose).collect::<Vec<_>>().join("\n");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["RELEASE", "VERSION", "COMPILER", "SIZE"]);
        for Entry { kernel, size: bytes, .. } in entries {
            table.add_row([&kernel.release, &kernel.version, &kernel.compiler, &size(*bytes)]);
        }
        table.trim_fmt() + "\n"
    }
}

impl Facts {
    fn of(kernel: &Kernel) -> Result<Facts, Failure> {
        let image = Image::open(&kernel.image)?;
        let symbols = image.symbols();
        let modules = ModuleTree::open(&kernel.modules).map(|tree| tree.names().count());
        Ok(Facts {
            build_id: image.build_id().map(hex::encode),
            banner: image.banner().trim_end().to_owned(),
            symbols: symbols.all().len(),
            text_symbols: symbols.all().iter().filter(|symbol| symbol.is_text()).count(),
            exports: image.exports().len(),
            types: image.btf().map(kmend_kernel::Btf::type_count),
            modules: modules.ok(),
            // The one function that every livepatch calls (kernel/livepatch/core.c).
            livepatch: symbols.named("klp_enable_patch").len() > 0,
        })
    }
}

fn verbose(entry: &Entry) -> String {
    let kernel = &entry.kernel;
    let mut rows = vec![
        ("version", kernel.version.clone()),
        ("compiler", format!("{} ({})", kernel.compiler, kernel.compiler_text)),
        ("size", size(entry.size)),
        ("image", kernel.image.display().to_string()),
        ("source", kernel.source.display().to_string()),
    ];
    if let Some(facts) = &entry.facts {
        let count = |number: Option<usize>| number.map_or("none".into(), |number| number.to_string());
        rows.extend([
            ("banner", facts.banner.clone()),
            ("build id", facts.build_id.clone().unwrap_or_else(|| "none".into())),
            ("symbols", format!("{}, {} of them code", facts.symbols, facts.text_symbols)),
            ("exports", facts.exports.to_string()),
            ("types", count(facts.types)),
            ("modules", count(facts.modules)),
            ("livepatch", if facts.livepatch { "yes" } else { "no" }.into()),
        ]);
    }
    rows.iter().fold(format!("{}\n", paint(BOLD, &kernel.release)), |mut text, (name, value)| {
        let _ = writeln!(text, "  {name:<9}  {value}");
        text
    })
}
