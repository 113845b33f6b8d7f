//! Audits a module with the objects of a folder: `audit IMAGE MODULES FOLDER…`; each folder holds `fix.ko`, `units` (lines of
//! number, object and source), `N.plain.o`, `N.patched.o`, and maybe `N.tested.o` and `table.o`.

use kmend_audit::{Input, UnitObjects, audit};
use kmend_kernel::{Image, ModuleTree};
use std::path::Path;
use std::time::Instant;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [image, modules, folders @ ..] = &arguments[..] else { return Err("IMAGE MODULES FOLDER…".into()) };
    let image = Image::open(Path::new(image))?;
    let modules = ModuleTree::open(Path::new(modules))?;
    for folder in folders {
        let folder = Path::new(folder);
        let list = fs::read_to_string(folder.join("units"))?;
        let mut units = Vec::new();
        for line in list.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let read = |side: &str| fs::read(folder.join(format!("{}.{side}.o", words[0]))).ok();
            if let (Some(plain), Some(patched)) = (read("plain"), read("patched")) {
                units.push((words[2].to_owned(), words[1].to_owned(), plain, patched, read("tested")));
            }
        }
        let units: Vec<UnitObjects<'_>> = units
            .iter()
            .map(|(source, owner, plain, patched, tested)| UnitObjects {
                source,
                owner,
                plain,
                patched,
                tested: tested.as_deref(),
            })
            .collect();
        let module = fs::read(folder.join("fix.ko"))?;
        let table = fs::read(folder.join("table.o")).ok();
        let start = Instant::now();
        let input = Input {
            module: &module,
            image: &image,
            modules: Some(&modules),
            units: &units,
            table: table.as_deref(),
        };
        let result = audit(&input)?;
        let time = start.elapsed();
        println!(
            "{} {}: {} functions, {} references, {} exchanged, {:.3} s, {} refusals",
            if result.refusals.is_empty() { "ok" } else { "REFUSED" },
            folder.display(),
            result.functions,
            result.references,
            result.exchanged,
            time.as_secs_f64(),
            result.refusals.len()
        );
        for refusal in result.refusals.iter().take(12) {
            println!("    {refusal}");
        }
        for note in &result.notes {
            println!("    note {note}");
        }
    }
    Ok(())
}
