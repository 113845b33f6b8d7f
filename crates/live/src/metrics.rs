//! The status as metrics.
//!
//! The format is Prometheus's text exposition format, version 0.0.4: `# HELP` and `# TYPE` once a metric, then its samples. In
//! a label's value `\`, `"` and newlines are escaped. node_exporter's textfile collector takes samples without timestamps only, and
//! knows the file's age by itself (`node_textfile_mtime_seconds`).

use crate::error::LiveError;
use crate::status::{PatchStatus, Status};
use crate::system::System;
use kmend_sign::write_whole;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

impl System {
    /// The status as metrics.
    pub fn metrics(&self) -> Result<String, LiveError> {
        let status = self.status()?;
        let mut blocking = BTreeMap::new();
        for patch in &status.livepatches {
            let name = &patch.patch.name;
            if !patch.patch.transition {
                blocking.insert(name.as_str(), 0);
            } else if let Ok(tasks) = self.blocking(name) {
                // Without root it is not known, and then there is no sample.
                blocking.insert(name.as_str(), tasks.len());
            }
        }
        Ok(text(&status, &blocking))
    }

    /// Writes the metrics to a file in one step: whoever reads it finds all of the old or all of the new ones.
    pub fn write_metrics(&self, file: &Path) -> Result<(), LiveError> {
        let text = self.metrics()?;
        // The exporter is another user, and passes over what does not end in `.prom`, as a file that is being written.
        write_whole(file, text.as_bytes()).map_err(|error| LiveError::at(file, error))
    }
}

/// Samples under construction.
#[derive(Default)]
struct Metrics {
    text: String,
}

impl Metrics {
    /// Begins a metric.
    fn begin(&mut self, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    /// A metric with one sample and no labels, if its value is known.
    fn single(&mut self, name: &str, help: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.begin(name, help);
            self.sample(name, &[], value);
        }
    }
}

fn text(status: &Status, blocking: &BTreeMap<&str, usize>) -> String {
    let mut metrics = Metrics::default();
    add_kernel(&mut metrics, status);
    add_livepatches(&mut metrics, status, blocking);
    metrics.text
}

fn add_kernel(metrics: &mut Metrics, status: &Status) {
    let kernel = &status.kernel;
    let name = "kmend_kernel_info";
    metrics.begin(name, "The kernel that runs.");
    let labels = [
        ("release", Some(&kernel.release)),
        ("version", kernel.version.as_ref()),
        ("build_id", kernel.build_id.as_ref()),
        ("lockdown", kernel.lockdown.as_ref()),
    ];
    let known: Vec<(&str, &str)> =
        labels.iter().filter_map(|(label, value)| Some((*label, value.as_ref()?.as_str()))).collect();
    metrics.sample(name, &known, 1);
    metrics.single(
        "kmend_kernel_livepatch_supported",
        "Whether the kernel has livepatches at all.",
        Some(kernel.livepatch.into()),
    );
    let ftrace = kernel.ftrace_enabled.map(u64::from);
    metrics.single("kmend_kernel_ftrace_enabled", "Whether kernel.ftrace_enabled is on.", ftrace);
    let signatures = kernel.signatures_enforced.map(u64::from);
    metrics.single("kmend_kernel_signatures_enforced", "Whether only signed modules are taken.", signatures);
    let Some(taint) = &kernel.taint else { return };
    metrics.single("kmend_kernel_tainted", "What taints the kernel, as a bit mask.", Some(taint.value));
    let name = "kmend_kernel_taint_flag";
    metrics.begin(name, "A flag of what taints the kernel.");
    for flag in &taint.flags {
        metrics.sample(name, &[("bit", &flag.bit.to_string()), ("letter", &flag.letter.to_string())], 1);
    }
}

fn add_livepatches(metrics: &mut Metrics, status: &Status, blocking: &BTreeMap<&str, usize>) {
    let name = "kmend_livepatch_info";
    metrics.begin(name, "A livepatch that is loaded, and what it fixes.");
    for patch in &status.livepatches {
        let (fixes, subject) = (patch.fixes.join(","), patch.subject.clone().unwrap_or_default());
        metrics.sample(name, &[("name", &patch.patch.name), ("fixes", &fixes), ("subject", &subject)], 1);
    }
    let name = "kmend_livepatch_enabled";
    metrics.begin(name, "Whether tasks run the livepatch, or are being moved to it.");
    for patch in &status.livepatches {
        metrics.sample(name, &[("name", &patch.patch.name)], patch.patch.enabled.into());
    }
    let name = "kmend_livepatch_pinned";
    metrics.begin(name, "Whether the livepatch stays in memory when it is disabled.");
    for patch in &status.livepatches {
        metrics.sample(name, &[("name", &patch.patch.name)], patch.pinned.into());
    }
    let name = "kmend_livepatch_transition";
    metrics.begin(name, "Whether tasks are still being moved, to the livepatch or away from it.");
    for patch in &status.livepatches {
        metrics.sample(name, &[("name", &patch.patch.name)], patch.patch.transition.into());
    }
    let name = "kmend_livepatch_blocking_tasks";
    metrics.begin(name, "Tasks that hold the transition of the livepatch.");
    for (patch, tasks) in blocking {
        metrics.sample(name, &[("name", patch)], *tasks as u64);
    }
    add_switches(metrics, status);
    let effective = status.effective();
    let name = "kmend_livepatch_in_force";
    metrics.begin(name, "Whether every task runs all of the livepatch, and no other overrides any of it.");
    for patch in &status.livepatches {
        let in_force = effective.livepatches.contains(&patch.patch.name);
        metrics.sample(name, &[("name", &patch.patch.name)], in_force.into());
    }
    let name = "kmend_fix_in_force";
    metrics.begin(name, "A fix that a livepatch has brought into force.");
    for fix in &effective.fixes {
        metrics.sample(name, &[("fix", fix)], 1);
    }
    metrics.single(
        "kmend_livepatch_rests",
        "Modules of disabled livepatches that are still in memory.",
        Some(status.rests.len() as u64),
    );
}

/// What only kmend's consistency engine tells.
fn add_switches(metrics: &mut Metrics, status: &Status) {
    let switched = || {
        let switching =
            |status: &PatchStatus| status.patch.engine.clone().map(|it| (status.patch.name.clone(), it));
        status.livepatches.iter().filter_map(switching)
    };
    if switched().next().is_none() {
        return;
    }
    let name = "kmend_livepatch_engine_info";
    metrics.begin(name, "A livepatch that kmend's consistency engine switches, and how.");
    for (patch, engine) in switched() {
        metrics.sample(
            name,
            &[("name", &patch), ("model", &engine.model), ("redirect", &engine.redirect)],
            1,
        );
    }
    let name = "kmend_livepatch_pause_nanoseconds";
    metrics.begin(name, "For how long the last transition held all CPUs.");
    for (patch, engine) in switched() {
        metrics.sample(name, &[("name", &patch)], engine.pause_ns);
    }
    let name = "kmend_livepatch_switch_nanoseconds";
    metrics.begin(name, "How long the last transition took.");
    for (patch, engine) in switched() {
        metrics.sample(name, &[("name", &patch)], engine.switch_ns);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests;
