//! What the consistency engine costs: a call of a patched function, and the stop of the machine.
//!
//! Both are counted in instructions of an emulated guest whose clock goes on by a nanosecond with each, so that no machine's speed matters.

use super::{Row, row};
use crate::{kernels, narrate, trial};
use anyhow::{Context, Result, bail};
use kmend_store::{Cache, Kernel};
use kmend_vm::{Accelerator, Machine, Scenario, Step};
use std::time::Duration;

/// How many tasks there are besides those of the guest.
const CROWDS: [u32; 3] = [50, 500, 5000];

/// Each prints one number.
const CALLS: [(&str, &str); 4] = [
    ("a call of a function that is not patched", "cat $T/cost"),
    (
        "  patched by the kernel's livepatch",
        "L=/sys/kernel/livepatch/kmend_mainline; insmod /m/kmend_mainline.ko; while [ $(cat $L/transition) = 1 ]; do sleep 0.1; done; cat $T/cost
         echo 0 > $L/enabled; while [ -e $L ]; do sleep 0.1; done; while ! rmmod kmend_mainline 2>/tmp/no; do sleep 0.1; done",
    ),
    (
        "  patched by the engine, ftrace",
        "turn kmend_leaf2 hybrid 1; cat $T/cost; turn kmend_leaf2 hybrid 0",
    ),
    (
        "  patched by the engine, jump",
        "jump kmend_leaf2; turn kmend_leaf2 hybrid 1; cat $T/cost; turn kmend_leaf2 hybrid 0",
    ),
];

/// A jump may add so many instructions to a call.
const AIM: u64 = 2;

/// Measures on both stock kernels.
pub(super) fn run(cache: &Cache) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for spec in kernels::ALL {
        let kernel = kernels::obtain(cache, spec)?;
        rows.push(row(&kernel.release, "", "", ""));
        rows.extend(of_kernel(&kernel)?);
    }
    Ok(rows)
}

fn of_kernel(kernel: &Kernel) -> Result<Vec<Row>> {
    narrate::say(&format!("counting on {}", kernel.release));
    let folder = tempfile::tempdir()?;
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine = Machine {
        accelerator: Accelerator::Tcg,
        counted: true,
        processors: 1,
        memory: 1024,
        timeout: Duration::from_secs(900),
        ..Machine::new(&kernel.image)
    };
    scenario.files = trial::engine::modules(kernel, folder.path())?;
    let crowds = CROWDS.map(|tasks| {
        let commands = format!(
            "insmod /m/kmend_crowd.ko tasks={tasks}; turn kmend_leaf2 stop-machine 1; cat $S/kmend_leaf2/pause_ns; turn kmend_leaf2 stop-machine 0; rmmod kmend_crowd"
        );
        (format!("all processors held, {tasks} more tasks"), commands)
    });
    let calls = CALLS.iter().map(|(name, commands)| ((*name).to_owned(), (*commands).to_owned()));
    let all: Vec<(String, String)> = calls.chain(crowds).collect();
    scenario.steps.push(Step::Run {
        name: "load".into(),
        command: "cd /m; insmod ./kmend_engine.ko; insmod ./kmend_target.ko; insmod ./kmend_leaf2.ko".into(),
    });
    scenario.steps.extend(all.iter().map(|(name, commands)| Step::Run {
        name: name.clone(),
        command: format!("{}\n{commands}\n", trial::engine::PRELUDE),
    }));
    let transcript = scenario.run()?;
    let counts = transcript.steps.iter().skip(1).map(|step| number(&step.text()));
    let counts = counts.collect::<Result<Vec<_>>>()?;
    rows(&all, &counts)
}

fn number(text: &str) -> Result<u64> {
    match text.lines().collect::<Vec<_>>().as_slice() {
        [one] => one.trim().parse().with_context(|| format!("the guest printed {one:?}")),
        _ => bail!("the guest printed {text:?} instead of a number"),
    }
}

fn rows(all: &[(String, String)], counts: &[u64]) -> Result<Vec<Row>> {
    let unpatched = *counts.first().context("nothing was counted")?;
    let mut rows = Vec::new();
    for (at, ((name, _), count)) in all.iter().zip(counts).enumerate() {
        if at < CALLS.len() {
            let added = count.saturating_sub(unpatched);
            let aim = if at + 1 == CALLS.len() { format!("+{AIM}") } else { String::new() };
            rows.push(row(name, &format!("{count} instructions"), &format!("+{added}"), &aim));
        } else {
            rows.push(row(name, &format!("{} µs", count / 1000), "", ""));
        }
    }
    if let [.., few, _, many] = counts {
        let (first, last) = (CROWDS[0], CROWDS[CROWDS.len() - 1]);
        let each = many.saturating_sub(*few) / u64::from(last - first);
        rows.push(row("  of which for each task", &format!("{each} instructions"), "", ""));
    }
    Ok(rows)
}
