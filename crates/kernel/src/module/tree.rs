//! The tree that modules are installed in: /lib/modules/RELEASE.

use super::{Module, plain_name};
use crate::error::KernelError;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How deep folders are searched; the kernel's own tree has 8 levels.
const DEPTH: u32 = 24;

/// The modules of one kernel, by name.
///
/// Packages install no `modules.dep` (depmod makes it afterwards), so dependencies are read from the modules
/// themselves, which is where depmod has them from.
#[derive(Debug, Clone)]
pub struct ModuleTree {
    root: PathBuf,
    paths: BTreeMap<String, PathBuf>,
}

impl ModuleTree {
    /// Lists the modules below a folder. Links to folders, such as `build` and `source`, are not followed. Of
    /// two modules of one name the one below `updates` is taken, as depmod.d(5) has it by default.
    pub fn open(root: &Path) -> Result<ModuleTree, KernelError> {
        let mut paths = BTreeMap::new();
        collect(root, DEPTH, &mut paths)?;
        let updates = root.join("updates");
        if updates.is_dir() {
            collect(&updates, DEPTH, &mut paths)?;
        }
        Ok(ModuleTree { root: root.into(), paths })
    }

    /// The names of all modules, with `_`, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    /// The file of a module; `-` and `_` are one.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        self.paths.get(&plain_name(name)).map(PathBuf::as_path)
    }

    /// Reads a module by its name.
    pub fn module(&self, name: &str) -> Result<Module, KernelError> {
        let name = plain_name(name);
        match self.path_of(&name) {
            Some(path) => Module::open(path),
            None => Err(KernelError::ModuleMissing { name, tree: self.root.clone() }),
        }
    }

    /// The files to load, in order, for a module to load: those it depends on, directly or not, and itself
    /// last. Soft dependencies are among them where they name a module of the tree, or an alias that begins the
    /// name of a module that has it: libcrc32c wants `crc32c`, and `crc32c_generic` is one.
    pub fn load_order(&self, name: &str) -> Result<Vec<PathBuf>, KernelError> {
        let mut order = Vec::new();
        let mut met = BTreeSet::new();
        // The names still to do, each with whether what it depends on is done: depth first, without
        // recursion, so that a chain of any length or a circle ends.
        let mut pending = vec![(plain_name(name), false)];
        while let Some((name, ready)) = pending.pop() {
            if ready {
                order.extend(self.path_of(&name).map(Path::to_owned));
                continue;
            }
            if !met.insert(name.clone()) {
                continue;
            }
            let module = self.module(&name)?;
            pending.push((name, true));
            pending.extend(module.depends().map(|needed| (needed, false)));
            let wanted = module.soft_depends().filter_map(|wanted| self.provider(wanted));
            pending.extend(wanted.map(|wanted| (wanted, false)));
        }
        Ok(order)
    }

    /// The module of this name, or the first that is named after this alias and has it.
    fn provider(&self, wanted: String) -> Option<String> {
        if self.paths.contains_key(&wanted) {
            return Some(wanted);
        }
        let start = format!("{wanted}_");
        let candidates = self.paths.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
        let has_alias = |path: &Path| {
            Module::open(path)
                .is_ok_and(|module| module.modinfo("alias").any(|alias| plain_name(alias) == wanted))
        };
        candidates.into_iter().find(|(_, path)| has_alias(path)).map(|(name, _)| name.clone())
    }

    /// The files to load, in order and each once, for several modules to load: see [`ModuleTree::load_order`].
    pub fn load_order_of(&self, names: &[String]) -> Result<Vec<PathBuf>, KernelError> {
        let mut order: Vec<PathBuf> = Vec::new();
        for name in names {
            for path in self.load_order(name)? {
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        Ok(order)
    }
}

fn collect(folder: &Path, depth: u32, paths: &mut BTreeMap<String, PathBuf>) -> Result<(), KernelError> {
    let failed = |source: io::Error| KernelError::Io { path: folder.into(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            if let Some(depth) = depth.checked_sub(1) {
                collect(&path, depth, paths)?;
            }
        } else if let Some(name) = entry.file_name().to_str().and_then(module_name) {
            paths.insert(name, path);
        }
    }
    Ok(())
}

/// The name of the module in a file, if the file's name is a module's.
fn module_name(file: &str) -> Option<String> {
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|end| file.strip_suffix(end))?;
    Some(plain_name(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_object::{Object, Section};

    /// Writes a module that depends on others.
    fn write(tree: &Path, path: &str, depends: &str) {
        let path = tree.join(path);
        let name = module_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let alias = name.split('_').next().unwrap();
        let softdep = "pre: nowhere soft sum";
        let data = format!("name={name}\0depends={depends}\0softdep={softdep}\0alias={alias}\0").into_bytes();
        let mut object = Object::new();
        object.add_section(Section::allocated(".modinfo", 0, 1, data));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, object.write().unwrap()).unwrap();
    }

    fn tree() -> (tempfile::TempDir, ModuleTree) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "kernel/net/top-one.ko", "left,right");
        write(folder.path(), "kernel/net/left.ko.xz", "base");
        write(folder.path(), "kernel/net/right.ko", "base,left");
        write(folder.path(), "kernel/lib/base.ko", "");
        write(folder.path(), "kernel/lib/soft.ko", "");
        write(folder.path(), "kernel/lib/sum-generic.ko", "");
        write(folder.path(), "kernel/lib/round.ko", "round");
        write(folder.path(), "kernel/lib/broken.ko", "absent");
        write(folder.path(), "updates/dkms/base.ko", "");
        let tree = ModuleTree::open(folder.path()).unwrap();
        (folder, tree)
    }

    fn files(order: Vec<PathBuf>) -> Vec<String> {
        order.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let (_folder, tree) = tree();
        let order = files(tree.load_order("top-one").unwrap());
        assert_eq!(order.last().map(String::as_str), Some("top-one.ko"));
        assert_eq!(order.len(), 6, "{order:?}");
        let at = |name: &str| order.iter().position(|file| file == name).unwrap();
        assert!(at("base.ko") < at("left.ko.xz") && at("left.ko.xz") < at("right.ko"), "{order:?}");
        assert!(at("soft.ko") < at("base.ko") && at("sum-generic.ko") < at("base.ko"), "{order:?}");
        let both = tree.load_order_of(&["left".into(), "top-one".into()]).unwrap();
        assert_eq!(
            files(both),
            ["soft.ko", "sum-generic.ko", "base.ko", "left.ko.xz", "right.ko", "top-one.ko"]
        );
    }

    #[test]
    fn a_circle_ends_and_an_absent_module_is_named() {
        let (_folder, tree) = tree();
        assert_eq!(files(tree.load_order("round").unwrap()), ["soft.ko", "sum-generic.ko", "round.ko"]);
        let error = tree.load_order("broken").unwrap_err();
        assert!(error.to_string().contains("`absent`"), "{error}");
    }

    #[test]
    fn names_have_underscores_and_updates_win() {
        let (_folder, tree) = tree();
        let expected = ["base", "broken", "left", "right", "round", "soft", "sum_generic", "top_one"];
        assert_eq!(tree.names().collect::<Vec<_>>(), expected);
        assert_eq!(tree.path_of("top-one"), tree.path_of("top_one"));
        assert!(tree.path_of("base").unwrap().to_str().unwrap().contains("updates"));
        assert!(tree.path_of("none").is_none());
    }
}
