//! How the kernel and its livepatches stand.

use crate::error::LiveError;
use crate::kernel_log;
use crate::patches::{LoadedPatch, PatchedFunction, State};
use crate::system::{System, folders_in, read, read_if_there};
use crate::taint::Taint;
use kmend_inspect::ENGINE;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Both axes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The kernel that runs.
    pub kernel: KernelStatus,
    /// kmend's consistency engine; `None` if it is not loaded.
    pub engine: Option<EngineStatus>,
    /// The livepatches: in the order of the kernel's stack, lowest first, where it is known, else by name. Behind them those of
    /// kmend's consistency engine, in the order in which they were enabled.
    pub livepatches: Vec<PatchStatus>,
    /// The functions that are patched now, by object and name.
    pub functions: Vec<FunctionStatus>,
    /// Modules of livepatches that are disabled and still in memory.
    pub rests: Vec<RestStatus>,
    /// How many certificates this machine trusts: if any, a livepatch must be signed by one. `None` if they cannot be read.
    pub trusted_certificates: Option<usize>,
}

/// Facts about the kernel. What cannot be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelStatus {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: Option<String>,
    /// Its build id in hexadecimal.
    pub build_id: Option<String>,
    /// What taints it.
    pub taint: Option<Taint>,
    /// Whether it has livepatches at all (`CONFIG_LIVEPATCH`): /sys/kernel/livepatch is there.
    pub livepatch: bool,
    /// `kernel.ftrace_enabled`.
    pub ftrace_enabled: Option<bool>,
    /// `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Whether `module.sig_enforce` demands signed modules.
    pub signatures_enforced: Option<bool>,
}

/// kmend's consistency engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineStatus {
    /// The id of what it and its patches must agree on.
    pub interface: Option<String>,
    /// The consistency models that it has, the default first.
    pub models: Vec<String>,
    /// The ways in which it redirects callers, the default first.
    pub redirects: Vec<String>,
}

/// A livepatch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PatchStatus {
    /// As sysfs shows it.
    #[serde(flatten)]
    pub patch: LoadedPatch,
    /// What `enabled` and `transition` mean together.
    pub state: State,
    /// Its place in the kernel's stack, counted from 1; `None` before Linux 6.14. Of the consistency engine, its place in that's.
    pub stack_order: Option<u32>,
    /// Since when it is enabled.
    pub since: Option<Since>,
    /// What it fixes, as whoever built it said.
    pub fixes: Vec<String>,
    /// The subjects of its patches.
    pub subject: Option<String>,
    /// Whether its module says that it has to stay in memory.
    pub pinned: bool,
    /// What of it may still be in use then, as far as it says.
    pub pinned_by: Option<String>,
}

/// Since when a livepatch is enabled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "source")]
pub enum Since {
    /// The kernel's log still has the line: that long ago.
    KernelLog {
        /// Seconds.
        seconds_ago: f64,
    },
    /// At least that long ago: sysfs has known its module since then, but a folder of sysfs gets its time when it is first
    /// looked at (Linux, fs/kernfs/inode.c, `kernfs_init_inode`).
    Sysfs {
        /// Seconds.
        at_least_seconds_ago: f64,
    },
}

/// A function that is patched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionStatus {
    /// `vmlinux` or a module's name.
    pub object: String,
    /// The function.
    pub name: String,
    /// Which of the symbols of that name in its object, counted from 1.
    pub position: u64,
    /// The livepatches that patch it.
    pub livepatches: Vec<String>,
    /// The one whose code runs; `None` if there are several and their order is not known.
    pub owner: Option<String>,
}

/// A module of a livepatch that is disabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestStatus {
    /// Its name.
    pub name: String,
    /// How many hold it: a livepatch whose transition was forced is held for ever.
    pub references: Option<u64>,
    /// Whether it says itself that it has to stay.
    pub pinned: bool,
    /// What of it may still be in use, as far as it says.
    pub pinned_by: Option<String>,
}

/// What is in force: the kernel and the fixes on top of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// `uname -r`, which no livepatch changes.
    pub release: String,
    /// `uname -v`.
    pub version: Option<String>,
    /// The livepatches that every task runs, and no other livepatch overrides in part.
    pub livepatches: Vec<String>,
    /// What they fix.
    pub fixes: BTreeSet<String>,
    /// The other livepatches, and why each does not count.
    pub not_in_force: Vec<NotInForce>,
}

/// A livepatch that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotInForce {
    /// The livepatch.
    pub name: String,
    /// Why.
    pub why: String,
}

impl System {
    /// How the kernel and its livepatches stand. A kernel without livepatches has a status, too.
    pub fn status(&self) -> Result<Status, LiveError> {
        let kernel = self.kernel_status()?;
        let patches = if kernel.livepatch { self.patches()? } else { Vec::new() };
        let rests = self.rests(&patches)?;
        let enabled = kernel_log::enabled_at(&self.path("dev/kmsg"));
        let uptime = self.uptime().map(|uptime| uptime.as_secs_f64());
        let mut livepatches = Vec::new();
        for patch in patches {
            let logged = enabled.get(&patch.name).zip(uptime).map(|(at, uptime)| uptime - at);
            livepatches.push(self.patch_status(patch, logged)?);
        }
        let functions = functions(&livepatches);
        let (of_engine, of_kernel) =
            livepatches.into_iter().partition(|status| status.patch.engine.is_some());
        let livepatches = [in_order(of_kernel), in_order(of_engine)].concat();
        let trusted_certificates = self.trusted_certificates();
        let engine = self.engine()?.map(|engine| EngineStatus {
            interface: engine.interface,
            models: engine.models,
            redirects: engine.redirects,
        });
        Ok(Status { kernel, engine, livepatches, functions, rests, trusted_certificates })
    }

    /// The kernel alone.
    pub fn kernel_status(&self) -> Result<KernelStatus, LiveError> {
        let taint = read(&self.path("proc/sys/kernel/tainted")).ok().and_then(|text| text.parse().ok());
        Ok(KernelStatus {
            release: self.release()?,
            version: read(&self.path("proc/sys/kernel/version")).ok(),
            build_id: self.build_id(),
            taint: taint.map(Taint::of),
            livepatch: self.livepatches().is_dir(),
            ftrace_enabled: self.ftrace_enabled(),
            lockdown: self.lockdown(),
            signatures_enforced: self.signatures_enforced(),
        })
    }

    fn patch_status(&self, patch: LoadedPatch, logged: Option<f64>) -> Result<PatchStatus, LiveError> {
        let order = match &patch.engine {
            None => read_if_there(&self.livepatch(&patch.name).join("stack_order"))?,
            Some(_) => self.engine_order().get(&patch.name).map(ToString::to_string),
        };
        let module = self.module(&patch.name);
        let parameter = |name: &str| {
            let text = read_if_there(&module.join("parameters").join(name)).ok().flatten();
            // A parameter without a value reads `(null)`.
            text.filter(|text| !text.is_empty() && text != "(null)")
        };
        let age = fs::metadata(&module).and_then(|folder| folder.modified()).ok();
        let age = age.and_then(|time| time.elapsed().ok()).map(|age| age.as_secs_f64());
        let fixes = parameter("fixes").unwrap_or_default();
        let since = match logged {
            Some(seconds_ago) => Some(Since::KernelLog { seconds_ago }),
            None => age.map(|at_least_seconds_ago| Since::Sysfs { at_least_seconds_ago }),
        };
        Ok(PatchStatus {
            state: patch.state(),
            stack_order: order.and_then(|order| order.parse().ok()),
            since: since.filter(|_| patch.enabled),
            fixes: fixes.split(',').filter(|fix| !fix.is_empty()).map(str::to_owned).collect(),
            subject: parameter("subject"),
            pinned: self.is_pinned(&patch.name)?,
            pinned_by: self.pinned_by(&patch.name),
            patch,
        })
    }

    /// Modules with the livepatches' taint that are no livepatches any more.
    fn rests(&self, patches: &[LoadedPatch]) -> Result<Vec<RestStatus>, LiveError> {
        let mut rests = Vec::new();
        for name in folders_in(&self.path("sys/module"))? {
            let there = name == ENGINE || patches.iter().any(|patch| patch.name == name);
            if !there && self.has_livepatch_taint(&name)? {
                let (references, pinned) = (self.references(&name)?, self.keeps_itself(&name)?);
                let pinned_by = self.pinned_by(&name);
                rests.push(RestStatus { name, references, pinned, pinned_by });
            }
        }
        Ok(rests)
    }
}

impl PatchStatus {
    /// A number that is greater for a livepatch above another; `None` if neither the kernel tells the order nor its log
    /// when this one was enabled.
    fn order(&self) -> Option<f64> {
        match (self.stack_order, self.since) {
            (Some(order), _) => Some(f64::from(order)),
            (None, Some(Since::KernelLog { seconds_ago })) => Some(-seconds_ago),
            _ => None,
        }
    }
}

/// Livepatches in their order, where that is known.
fn in_order(livepatches: Vec<PatchStatus>) -> Vec<PatchStatus> {
    let Some(orders) = livepatches.iter().map(PatchStatus::order).collect::<Option<Vec<_>>>() else {
        return livepatches;
    };
    let mut ordered: Vec<_> = orders.into_iter().zip(livepatches).collect();
    ordered.sort_by(|left, right| left.0.total_cmp(&right.0));
    ordered.into_iter().map(|(_, patch)| patch).collect()
}

/// The patched functions, with whose code runs: that of the uppermost livepatch which is enabled.
fn functions(livepatches: &[PatchStatus]) -> Vec<FunctionStatus> {
    let mut patchers: BTreeMap<(&str, &str, u64), Vec<&PatchStatus>> = BTreeMap::new();
    for status in livepatches.iter().filter(|status| status.state != State::Disabled) {
        for object in status.patch.objects.iter().filter(|object| object.patched != Some(false)) {
            let is_patched =
                |function: &&PatchedFunction| !matches!(function.state.as_deref(), Some("absent" | "living"));
            for function in object.functions.iter().filter(is_patched) {
                let target = (object.name.as_str(), function.name.as_str(), function.position);
                patchers.entry(target).or_default().push(status);
            }
        }
    }
    let name = |status: &&PatchStatus| status.patch.name.clone();
    let function = |((object, function, position), by): ((&str, &str, u64), Vec<&PatchStatus>)| {
        let orders: Option<Vec<f64>> = by.iter().map(|status| status.order()).collect();
        let owner = match (by.as_slice(), orders) {
            ([only], _) => Some(only),
            (_, Some(orders)) => {
                let uppermost = by.iter().zip(orders).max_by(|left, right| left.1.total_cmp(&right.1));
                uppermost.map(|(status, _)| status)
            }
            _ => None,
        };
        FunctionStatus {
            object: object.to_owned(),
            name: function.to_owned(),
            position,
            owner: owner.map(name),
            livepatches: by.iter().map(name).collect(),
        }
    };
    patchers.into_iter().map(function).collect()
}

impl Status {
    /// What is in force.
    pub fn effective(&self) -> Effective {
        let mut effective = Effective {
            release: self.kernel.release.clone(),
            version: self.kernel.version.clone(),
            livepatches: Vec::new(),
            fixes: BTreeSet::new(),
            not_in_force: Vec::new(),
        };
        for status in &self.livepatches {
            let name = status.patch.name.clone();
            if let Some(why) = self.why_not(status) {
                effective.not_in_force.push(NotInForce { name, why });
            } else {
                effective.fixes.extend(status.fixes.iter().cloned());
                effective.livepatches.push(name);
            }
        }
        effective
    }

    /// Why a livepatch cannot be said to be in force.
    fn why_not(&self, status: &PatchStatus) -> Option<String> {
        if status.state != State::Enabled {
            return Some(format!("it is {}", status.state.name()));
        }
        let name = &status.patch.name;
        let lost = self
            .functions
            .iter()
            .find(|function| function.livepatches.contains(name) && function.owner.as_ref() != Some(name))?;
        Some(match &lost.owner {
            Some(owner) => format!("{owner} overrides its {}", lost.name),
            None => {
                format!("another livepatch patches {} as well, and which is above is not known", lost.name)
            }
        })
    }
}

#[cfg(test)]
mod tests;
