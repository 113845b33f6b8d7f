//! A fetch killed at any of its steps: nothing half done is seen, and the next fetch works.
//!
//! The fetch runs in a process of its own (this program, started again), because it dies by SIGKILL, sent by
//! the program that it has just called. That program goes on for a moment, as a real one would.

mod archive;

use archive::{Archive, RELEASE, SPEC, is_clean};
use kmend_process::Command;
use kmend_store::{Cache, fetch_with};
use libtest_mimic::{Arguments, Failed, Trial};
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

const CHILD: &str = "--fetch-and-be-killed";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, flag, archive, cache] = arguments.as_slice()
        && flag == CHILD
    {
        return child(Path::new(archive), Path::new(cache));
    }
    let steps = [("apt-cache", 1..=4), ("apt-get", 1..=5), ("dpkg-deb", 1..=5)];
    let trials = steps.into_iter().flat_map(|(program, calls)| {
        calls.map(move |call| {
            Trial::test(format!("killed_in_call_{call}_of_{program}"), move || killed_in(program, call))
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn child(archive: &Path, cache: &Path) -> ExitCode {
    let fetched = Cache::at(cache)
        .and_then(|cache| fetch_with(&cache, &Archive::open(archive).tools(), SPEC, &mut |_| {}));
    if fetched.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn killed_in(program: &str, call: u32) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let [at, root] = ["archive", "cache"].map(|name| folder.path().join(name));
    let archive = Archive::new(&at);
    archive.set(&format!("kill-{program}-{call}"));
    let status = Command::new(std::env::current_exe()?)
        .args([OsStr::new(CHILD), at.as_os_str(), root.as_os_str()])
        .output()?
        .status;
    ensure(status.contains("signal: 9"), &format!("the fetch was not killed: {status}"))?;

    let cache = Cache::at(&root)?;
    ensure(cache.kernels()?.is_empty() && cache.damaged()?.is_empty(), "a killed fetch has published")?;
    let kernel = fetch_with(&cache, &archive.tools(), SPEC, &mut |_| {})?;
    ensure(kernel == cache.kernel(RELEASE)?, "the next fetch gives the kernel")?;
    // What the orphan still writes, it writes into a folder that is no longer there.
    ensure(is_clean(&root), "something is left of the killed fetch")
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
