//! The symbols that are read from an image are those of the kernel that boots from it.

use super::Bench;
use anyhow::{Context, Result, anyhow, ensure};
use kmend_kernel::{Image, Listing, Symbols};
use kmend_store::Kernel;
use kmend_vm::{Machine, Scenario, Step};
use std::collections::BTreeSet;

/// Differences that are shown.
const SHOWN: usize = 10;
/// A kernel with less code than this has not been read.
const FEWEST: usize = 10_000;

/// Name, address, type, position, and the number of symbols of the name.
type Row<'a> = (&'a str, u64, u8, u32, u32);

/// Boots the kernel where it was linked, and compares every text symbol and its position.
pub(crate) fn run(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let image = Image::open(&kernel.image)?;
    let text = String::from_utf8(fetch_listing(bench, kernel)?)?;
    let listing = Listing::parse(&text).context("the guest's /proc/kallsyms cannot be read")?;
    let vmlinux = listing.symbols("vmlinux").context("the listing has no symbols of the kernel proper")?;
    let (here, there) = (rows(image.symbols()), rows(vmlinux));
    ensure!(here.len() >= FEWEST, "the image has only {} text symbols", here.len());
    let differences: Vec<String> = here
        .symmetric_difference(&there)
        .map(|row| {
            let side = if here.contains(row) { "image" } else { "guest" };
            format!("  only in the {side}: {row:x?}")
        })
        .collect();
    ensure!(
        differences.is_empty(),
        "{} of {} text symbols differ:\n{}",
        differences.len(),
        here.len(),
        differences[..differences.len().min(SHOWN)].join("\n")
    );
    Ok(())
}

fn fetch_listing(bench: &Bench, kernel: &Kernel) -> Result<Vec<u8>> {
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine = Machine {
        accelerator: bench.accelerator,
        options: "nokaslr".into(),
        timeout: super::GUEST_TIMEOUT,
        ..Machine::new(&kernel.image)
    };
    let command = "echo 0 > /proc/sys/kernel/kptr_restrict".to_owned();
    scenario.steps = vec![
        Step::Run { name: "show addresses".into(), command },
        Step::Fetch { name: "kallsyms".into(), path: "/proc/kallsyms".into() },
    ];
    let mut transcript = scenario.run()?;
    let last = transcript.steps.pop().ok_or_else(|| anyhow!("the guest ran no step"))?;
    Ok(last.output)
}

fn rows(symbols: &Symbols) -> BTreeSet<Row<'_>> {
    let text = symbols.all().iter().filter(|symbol| symbol.is_text());
    let row = |symbol| {
        let position = symbols.position(symbol);
        (&*symbol.name, symbol.address, symbol.kind, position.position, position.count)
    };
    text.map(row).collect()
}
