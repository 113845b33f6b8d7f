//! Prints the facts of a kernel image; with a listing, compares the symbols with it.
//!
//!     cargo run --release -p kmend-kernel --example kernel_facts -- IMAGE [LISTING]
//!
//! LISTING is what /proc/kallsyms prints on that kernel, as root and booted with `nokaslr`. Every text
//! symbol must be there at the same address with the same position, and no other; else the exit code is 1.

use kmend_kernel::{Image, Listing, Symbols};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("usage: kernel_facts IMAGE [LISTING]")?;
    let start = Instant::now();
    let image = Image::open(Path::new(&path))?;
    println!("{} (read in {:.2?})", image.banner(), start.elapsed());
    println!("sections {:>9}", image.sections().len());
    println!("symbols  {:>9}", image.symbols().all().len());
    println!("exports  {:>9}", image.exports().len());
    println!("types    {:>9}", image.btf().map_or(0, kmend_kernel::Btf::type_count));
    let Some(listing) = arguments.next() else { return Ok(ExitCode::SUCCESS) };
    let listing = Listing::parse(&std::fs::read_to_string(listing)?).ok_or("not a listing of symbols")?;
    let vmlinux = listing.symbols("vmlinux").ok_or("no symbols of the kernel proper in the listing")?;
    Ok(compare(image.symbols(), vmlinux))
}

/// Compares all text symbols with their addresses and positions, both ways.
fn compare(image: &Symbols, listing: &Symbols) -> ExitCode {
    let (here, there) = (rows(image), rows(listing));
    println!("text     {:>9} here, {} in the listing", here.len(), there.len());
    for row in here.difference(&there) {
        println!("only here: {row:x?}");
    }
    for row in there.difference(&here) {
        println!("only in the listing: {row:x?}");
    }
    println!("all kinds {:>8}", if image.all() == listing.all() { "equal" } else { "differ" });
    if here == there { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Row<'a> = (&'a str, u64, u8, u32, u32);

fn rows(symbols: &Symbols) -> BTreeSet<Row<'_>> {
    let text = symbols.all().iter().filter(|symbol| symbol.is_text());
    text.map(|symbol| {
        let position = symbols.position(symbol);
        (&*symbol.name, symbol.address, symbol.kind, position.position, position.count)
    })
    .collect()
}
