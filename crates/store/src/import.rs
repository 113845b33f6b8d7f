//! A kernel of one's own: source, configuration and image stay where they are.

use crate::cache::Cache;
use crate::error::StoreError;
use crate::facts;
use crate::files;
use crate::kernel::{Kernel, Origin};
use crate::progress::{Progress, Stage};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What makes one kernel. None of it is ever written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// The source tree the kernel was built from.
    pub source: PathBuf,
    /// The configuration it was built with.
    pub config: PathBuf,
    /// The bootable image, or vmlinux.
    pub image: PathBuf,
    /// Where modules for it are built; the source tree if it was built in.
    pub headers: Option<PathBuf>,
    /// The folder of its modules, `…/lib/modules/RELEASE`. Looked for in the headers if the kernel
    /// was built there, then in the system that the image or the headers lie in, then in this one.
    pub modules: Option<PathBuf>,
    /// Its release, where the caller read it from the image. The headers' release is used otherwise, and
    /// must be the same.
    pub release: Option<String>,
}

/// What an import is known by, beside its paths; kept next to its record.
const STAMP: &str = "import.stamp";

/// Takes a kernel of one's own into the cache, in the stead of an import of the same release. If that was of
/// the same files, which did not change since, it is kept with all that was derived from it.
///
/// Refused if a part is missing or cannot be read, or if parts say that they are of different releases. An
/// image that is no bzImage is not asked here: give its release in [`Import::release`].
pub fn import(
    cache: &Cache,
    import: &Import,
    progress: &mut dyn FnMut(Progress),
) -> Result<Kernel, StoreError> {
    let source = folder(&import.source, "source tree", "Makefile")?;
    let config = file(&import.config, "configuration")?;
    let image = file(&import.image, "image")?;
    let headers = match &import.headers {
        Some(headers) => folder(headers, "headers", "Makefile")?,
        None => source.clone(),
    };
    let symvers = exports(&headers)?;
    let release = release(import, &headers, &image)?;
    let compiler_text = facts::compiler_text(&config)?.ok_or_else(|| {
        StoreError::Import(format!(
            "{} has no CONFIG_CC_VERSION_TEXT: it is no kernel configuration",
            config.display()
        ))
    })?;

    let _lock = if let Some(lock) = cache.try_lock(&release)? {
        lock
    } else {
        progress(Progress::begin(Stage::Wait));
        cache.lock(&release)?
    };
    let present = cache.kernel(&release).ok();
    if present.as_ref().is_some_and(|present| present.origin != Origin::Imported) {
        return Err(StoreError::Import(format!(
            "{release} is in the cache as a fetched kernel; remove it first"
        )));
    }
    let scratch = cache.scratch()?;
    let root = scratch.path().join("kernel");
    let mut kernel = Kernel {
        version: "imported".into(),
        modules: modules(import, &headers, &image, &release)?,
        compiler: facts::compiler(&headers, &compiler_text)?,
        compiler_text,
        kbuild: headers.clone(),
        release: release.clone(),
        origin: Origin::Imported,
        root: root.clone(),
        source,
        headers,
        config,
        image,
        symvers,
    };
    let stamp = stamp([&kernel.config, &kernel.image, &kernel.symvers])?;
    if let Some(present) = present {
        kernel.root.clone_from(&present.root);
        if kernel == present && files::read_text(&present.root.join(STAMP)).is_ok_and(|old| old == stamp) {
            progress(Progress::begin(Stage::Done));
            return Ok(present);
        }
        kernel.root.clone_from(&root);
    }
    files::make_folder(&root)?;
    files::write(&root.join(STAMP), stamp.as_bytes())?;
    kernel.save(&root)?;
    let kernel = cache.publish(&root, &release)?;
    progress(Progress::begin(Stage::Done));
    Ok(kernel)
}

/// Sizes and times of files: what says that a kernel was built anew in the same place.
fn stamp(paths: [&Path; 3]) -> Result<String, StoreError> {
    let line = |path: &Path| {
        let found = path.metadata().map_err(StoreError::io("read", path))?;
        Ok(format!("{} {}.{:09}\n", found.len(), found.mtime(), found.mtime_nsec()))
    };
    paths.into_iter().map(line).collect()
}

/// The list of exports, which says that modules can be built there.
fn exports(headers: &Path) -> Result<PathBuf, StoreError> {
    let path = headers.join("Module.symvers");
    if path.exists() {
        return file(&path, "list of exports");
    }
    Err(StoreError::Import(format!(
        "{} has no Module.symvers, so no module can be built there; --headers names the folder of the kernel's \
         headers if it was built elsewhere",
        headers.display()
    )))
}

/// The one release that all the parts which name one agree on.
fn release(import: &Import, headers: &Path, image: &Path) -> Result<String, StoreError> {
    let named = [
        ("the caller", import.release.clone()),
        ("the headers", facts::headers_release(headers)?),
        ("the image", facts::image_release(image)?),
    ];
    let mut named = named.into_iter().filter_map(|(who, release)| Some((who, release?)));
    let Some((first, release)) = named.next() else {
        return Err(StoreError::Import(format!(
            "{} has no include/generated/utsrelease.h: the kernel's release cannot be told",
            headers.display()
        )));
    };
    for (who, other) in named {
        if other != release {
            return Err(StoreError::Import(format!("{first} say {release}, but {who} says {other}")));
        }
    }
    facts::check_release(&release).map_err(|error| StoreError::Import(error.to_string()))?;
    Ok(release)
}

/// The folder of the modules. One that is not there is no error: a kernel may have none.
fn modules(import: &Import, headers: &Path, image: &Path, release: &str) -> Result<PathBuf, StoreError> {
    if let Some(given) = &import.modules {
        return folder(given, "modules", "kernel");
    }
    // A tree that was built in has its modules' list at the top.
    if headers.join("modules.order").exists() {
        return Ok(headers.to_owned());
    }
    // A system's root above boot/vmlinuz or usr/src/linux-headers, such as an unpacked package's.
    let installed = |root: &Path| root.join("lib/modules").join(release);
    let mut roots = image.ancestors().skip(1).take(2).chain(headers.ancestors().skip(1).take(3));
    let found = roots.find(|root| installed(root).is_dir()).map(installed);
    Ok(found.unwrap_or_else(|| installed(Path::new("/"))))
}

/// A folder that holds at least `entry`, absolute.
fn folder(path: &Path, what: &str, entry: &str) -> Result<PathBuf, StoreError> {
    let path = absolute(path, what)?;
    if path.join(entry).exists() {
        Ok(path)
    } else {
        Err(StoreError::Import(format!("{} is not the {what}: it has no {entry}", path.display())))
    }
}

/// A file that can be read and has something in it, absolute.
fn file(path: &Path, what: &str) -> Result<PathBuf, StoreError> {
    let path = absolute(path, what)?;
    let unreadable =
        |error: std::io::Error| StoreError::Import(format!("the {what} {}: {error}", path.display()));
    if !path.is_file() {
        return Err(StoreError::Import(format!("the {what} {} is no file", path.display())));
    }
    let mut first = [0];
    match File::open(&path).and_then(|mut file| file.read(&mut first)).map_err(unreadable)? {
        0 => Err(StoreError::Import(format!("the {what} {} is empty", path.display()))),
        _ => Ok(path),
    }
}

fn absolute(path: &Path, what: &str) -> Result<PathBuf, StoreError> {
    let refuse = |why: &str| StoreError::Import(format!("the {what} {}: {why}", path.display()));
    let path = path.canonicalize().map_err(|error| refuse(&error.to_string()))?;
    // The record of a kernel is JSON.
    if path.to_str().is_some() { Ok(path) } else { Err(refuse("its path is not UTF-8")) }
}
