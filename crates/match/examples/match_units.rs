//! Matches compiled units against a kernel and prints what does not match: for trying a kernel out by hand.
//!
//!     match_units IMAGE OBJECT[=MODULE.ko]...

use kmend_kernel::{Image, Module};
use kmend_match::{Against, Outcome, match_unit};
use kmend_object::Object;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let image =
        Image::open(Path::new(&arguments.next().ok_or("usage: match_units IMAGE OBJECT[=MODULE]...")?))?;
    for argument in arguments {
        if let Err(error) = show(&image, &argument) {
            println!("{argument}: {error}");
        }
    }
    Ok(())
}

fn show(image: &Image, argument: &str) -> Result<(), Box<dyn Error>> {
    let (object, module) =
        argument.split_once('=').map_or((argument, None), |(object, module)| (object, Some(module)));
    let plain = Object::parse(&std::fs::read(object)?)?;
    let module = module.map(|path| Module::open(Path::new(path))).transpose()?;
    let against = match &module {
        Some(module) => Against::Module { module, image },
        None => Against::Image(image),
    };
    let start = Instant::now();
    let matched = match_unit(&plain, &against)?;
    let took = start.elapsed();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for function in &matched.functions {
        *counts.entry(kind(&function.outcome)).or_default() += 1;
    }
    let unnamed = matched.symbols.values().filter(|located| located.kernel.is_none()).count();
    let unplaced: Vec<_> = matched
        .sections
        .iter()
        .filter(|section| section.address.is_none())
        .map(|section| section.name.as_str())
        .collect();
    let compared = matched.sections.iter().filter(|section| section.differs.is_some()).count();
    let file = Path::new(object).file_name().unwrap_or_default().to_string_lossy();
    println!(
        "{file}: {counts:?}, {} symbols ({unnamed} without a name), {compared} of {} sections compared, \
         not found {unplaced:?}, {took:.1?}",
        matched.symbols.len(),
        matched.sections.len()
    );
    for (name, located) in matched.symbols.iter().filter(|(_, located)| located.kernel.is_none()) {
        println!("    no name: {name} {} {:#x}", located.section.as_deref().unwrap_or("-"), located.address);
    }
    for refusal in matched.refusals(&file) {
        println!("    {refusal}");
        for line in &refusal.details {
            println!("        {line}");
        }
    }
    Ok(())
}

fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Equal => "equal",
        Outcome::Overridden => "overridden",
        Outcome::Dropped => "dropped",
        Outcome::Absent => "absent",
        Outcome::Ambiguous { .. } => "ambiguous",
        Outcome::Differs(_) => "differ",
    }
}
