//! Fetches a stock Debian kernel: as any user, with nothing installed.

mod apt;
mod download;
mod headers;
mod resolve;
mod unpack;

pub use apt::Tools;

use crate::cache::Cache;
use crate::disk;
use crate::error::StoreError;
use crate::facts;
use crate::files;
use crate::kernel::{Kernel, Origin};
use crate::progress::{Progress, Stage};
use apt::Lists;
use resolve::{IMAGE, Plan};
use std::path::Path;

/// A kernel source archive's size on disk when unpacked, in multiples of its compressed size. Measured:
/// 10.6 for Debian's 6.1, 10.5 for its 6.12, with the files' last blocks.
const TREE_RATIO: u64 = 11;

/// Fetches a kernel into the cache, or finds it there.
///
/// `spec` is `debian:FLAVOUR` for the newest of a flavour (`cloud-amd64`, `6.12-cloud-amd64`, `amd64`: the
/// part after `linux-image-` of the package that always depends on the newest), or `debian:RELEASE` for the
/// one that `uname -r` calls so. Image, headers, kbuild and source must be built from one version of one
/// source package.
///
/// Packages that are complete are kept until the kernel is published, so an interrupted fetch goes on where
/// it was. Of two fetches of one kernel the second waits and finds it.
pub fn fetch(cache: &Cache, spec: &str, progress: &mut dyn FnMut(Progress)) -> Result<Kernel, StoreError> {
    fetch_with(cache, &Tools::default(), spec, progress)
}

/// [`fetch`] with other programs.
pub fn fetch_with(
    cache: &Cache,
    tools: &Tools,
    spec: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, StoreError> {
    let wanted = resolve::wanted(spec)?;
    if let Ok(kernel) = cache.kernel(wanted)
        && kernel.origin != Origin::Imported
    {
        progress(Progress::begin(Stage::Done));
        return Ok(kernel);
    }
    let scratch = cache.scratch()?;
    let lists = Lists::new(tools, scratch.path());
    let plan = resolve(tools, &lists, spec, progress)?;
    match obtain(cache, tools, &plan, progress) {
        // The package lists are older than the archive: it no longer has the file that they name.
        Err(error) if outdated(&error) => {
            update(tools, &error.to_string(), progress)?;
            let plan = resolve(tools, &lists, spec, progress)?;
            obtain(cache, tools, &plan, progress)
        }
        result => result,
    }
}

/// Looks the packages up, and once more with new package lists if the present ones are empty.
fn resolve(
    tools: &Tools,
    lists: &Lists,
    spec: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Plan, StoreError> {
    progress(Progress::begin(Stage::Resolve));
    if let Some(plan) = resolve::resolve(lists, spec)? {
        return Ok(plan);
    }
    let mut known = lists.names(IMAGE)?;
    if known.is_empty() {
        update(tools, "the package lists of this machine hold no kernel", progress)?;
        progress(Progress::begin(Stage::Resolve));
        if let Some(plan) = resolve::resolve(lists, spec)? {
            return Ok(plan);
        }
        known = lists.names(IMAGE)?;
    }
    let wanted = resolve::wanted(spec)?;
    let known: Vec<&str> = known
        .iter()
        .filter_map(|name| name.strip_prefix(IMAGE))
        .filter(|name| !["-dbg", "-unsigned", "-template"].iter().any(|end| name.ends_with(end)))
        .collect();
    Err(StoreError::Fetch(format!(
        "the package lists have no {IMAGE}{wanted}; they have {}",
        if known.is_empty() { "no kernel at all".into() } else { known.join(", ") }
    )))
}

/// Whether a download failed because the archive has moved on.
fn outdated(error: &StoreError) -> bool {
    match error {
        StoreError::Process(kmend_process::ProcessError::Failed { line, tail, .. }) => {
            line.contains(" download ") && (tail.contains("404") || tail.contains("Unable to fetch"))
        }
        _ => false,
    }
}

/// Updates the package lists if this process may.
fn update(tools: &Tools, why: &str, progress: &mut dyn FnMut(Progress)) -> Result<(), StoreError> {
    if !rustix::process::geteuid().is_root() {
        return Err(StoreError::Fetch(format!("{why}; run `apt-get update` as root, then try again")));
    }
    progress(Progress::begin(Stage::Update));
    tools.update().map_err(|error| StoreError::Fetch(format!("{why}, and updating them failed: {error}")))
}

/// Brings the kernel of a plan into the cache, unless it is there.
fn obtain(
    cache: &Cache,
    tools: &Tools,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, StoreError> {
    if let Some(kernel) = present(cache, plan)? {
        progress(Progress::begin(Stage::Done));
        return Ok(kernel);
    }
    let _lock = if let Some(lock) = cache.try_lock(&plan.release)? {
        lock
    } else {
        progress(Progress::begin(Stage::Wait));
        cache.lock(&plan.release)?
    };
    if let Some(kernel) = present(cache, plan)? {
        progress(Progress::begin(Stage::Done));
        return Ok(kernel);
    }
    let needed = needed(cache, plan);
    let full = |free| StoreError::DiskFull { path: cache.root().to_owned(), needed, free };
    let free = disk::free(cache.root())?;
    if free < needed {
        return Err(full(free));
    }
    let kernel = build(cache, tools, plan, progress).map_err(|error| match disk::free(cache.root()) {
        Ok(free) if error.is_disk_full() => full(free),
        _ => error,
    })?;
    download::forget(cache, plan);
    progress(Progress::begin(Stage::Done));
    Ok(kernel)
}

/// The kernel of a plan if the cache has it, in that version.
fn present(cache: &Cache, plan: &Plan) -> Result<Option<Kernel>, StoreError> {
    match cache.kernel(&plan.release) {
        Ok(kernel) if kernel.origin == Origin::Imported => {
            Err(StoreError::Fetch(format!("{} is in the cache as an import; remove it first", plan.release)))
        }
        Ok(kernel) => Ok((kernel.version == plan.source.version).then_some(kernel)),
        // What is damaged is fetched anew and replaced.
        Err(StoreError::Unknown { .. } | StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes that a fetch writes, before any of them is.
fn needed(cache: &Cache, plan: &Plan) -> u64 {
    let missing: u64 = download::to_download(cache, plan).iter().map(|package| package.size).sum();
    let parts: u64 = plan.parts.iter().map(|package| package.installed.max(package.size)).sum();
    // The source package unpacks to an archive of its own size, and that to the tree.
    missing.saturating_add(parts).saturating_add(plan.tree.size.saturating_mul(TREE_RATIO + 1))
}

/// Downloads, unpacks and publishes under the release's lock.
fn build(
    cache: &Cache,
    tools: &Tools,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, StoreError> {
    let scratch = cache.scratch()?;
    let [debs, tree, work] = ["debs", "kernel", "work"].map(|name| scratch.path().join(name));
    for folder in [&debs, &tree, &work] {
        files::make_folder(folder)?;
    }
    download::obtain(cache, tools, plan, &debs, progress)?;
    let parts: Vec<_> = plan.parts.iter().map(|package| download::deb(&debs, package)).collect();
    unpack::unpack(tools, &parts, &download::deb(&debs, &plan.tree), &tree, &work, progress)?;
    let mut kernel = describe(plan, &tree)?;
    check(&mut kernel)?;
    kernel.save(&tree)?;
    cache.publish(&tree, &plan.release)
}

/// The record of the unpacked kernel.
fn describe(plan: &Plan, tree: &Path) -> Result<Kernel, StoreError> {
    let parts = headers::settle(tree, &plan.release)?;
    let compiler_text = facts::compiler_text(&parts.config)?.unwrap_or_default();
    Ok(Kernel {
        release: plan.release.clone(),
        version: plan.source.version.clone(),
        root: tree.to_owned(),
        source: tree.join("source"),
        compiler: facts::compiler(&parts.headers, &compiler_text)?,
        compiler_text,
        headers: parts.headers,
        kbuild: parts.kbuild,
        config: parts.config,
        image: parts.image,
        modules: parts.modules,
        symvers: parts.symvers,
        origin: Origin::Debian {
            source: plan.source.name.clone(),
            packages: plan
                .packages()
                .map(|package| format!("{}={}", package.name, package.version))
                .collect(),
        },
    })
}

/// Makes sure that the packages held what their names say.
fn check(kernel: &mut Kernel) -> Result<(), StoreError> {
    if let Some((what, path)) = kernel.missing() {
        let place = path.strip_prefix(&kernel.root).unwrap_or(&path).display();
        return Err(StoreError::Fetch(format!(
            "the packages of {} lack its {what}: {place}",
            kernel.release
        )));
    }
    for (what, release) in [
        ("image", facts::image_release(&kernel.image)?),
        ("headers", facts::headers_release(&kernel.headers)?),
    ] {
        if let Some(release) = release
            && release != kernel.release
        {
            return Err(StoreError::Fetch(format!(
                "the {what} of {} say they are of {release}",
                kernel.release
            )));
        }
    }
    Ok(())
}
