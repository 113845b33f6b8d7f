//! How functions are declared, with the names of their parameters.

use crate::TypesError;
use crate::dwarf::{Contents, Entries};
use gimli::constants as dw;
use kmend_object::Object;
use std::collections::{BTreeMap, BTreeSet};

/// The declarations of the functions of these names that an object defines, as C writes them. A name without one is not in the
/// result.
///
/// # Errors
/// Debug information that cannot be read.
pub fn prototypes(object: &Object, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>, TypesError> {
    let contents = Contents::of(object)?;
    let entries = Entries::read(&contents)?;
    let mut found = BTreeMap::new();
    for (index, entry) in entries.list.iter().enumerate() {
        let is_function = entry.tag == dw::DW_TAG_subprogram && !entry.is_declaration;
        let Some(name) = entry.name.filter(|name| is_function && names.contains(*name)) else { continue };
        let parameters = entries.children(index).filter_map(|(child, parameter)| match parameter.tag {
            dw::DW_TAG_formal_parameter => {
                let name = entries.name(child).unwrap_or_default();
                Some(format!("{} {name}", entries.show(entries.target(child))))
            }
            dw::DW_TAG_unspecified_parameters => Some("...".to_owned()),
            _ => None,
        });
        let parameters: Vec<String> = parameters.collect();
        let shown = format!("{} {name}({})", entries.show(entries.target(index)), parameters.join(", "));
        found.entry(name.to_owned()).or_insert(shown);
    }
    Ok(found)
}

/// The names of functions that return nothing (`void`): of all definitions of the name that an object has.
///
/// # Errors
/// Debug information that cannot be read.
pub fn without_result(object: &Object) -> Result<BTreeSet<String>, TypesError> {
    let contents = Contents::of(object)?;
    let entries = Entries::read(&contents)?;
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    for (index, entry) in entries.list.iter().enumerate() {
        let Some(name) = entry.name.filter(|_| entry.tag == dw::DW_TAG_subprogram) else { continue };
        let known = if entries.target(index).is_some() { &mut with } else { &mut without };
        known.insert(name.to_owned());
    }
    Ok(&without - &with)
}
