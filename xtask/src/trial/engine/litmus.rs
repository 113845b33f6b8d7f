//! The litmus tests that tell the models apart by what other threads see, each under every model.

use super::checks::{Check, check};
use std::borrow::Cow;

/// The models, in the order of [`Row::holds`].
const MODELS: [&str; 6] = ["immediate", "hybrid", "lazy", "stop-machine", "refcount", "quiesce"];

/// A scenario: a file of the target whose readers see 1 as long as the versions agree, and the patch that changes the functions.
struct Row {
    name: &'static str,
    file: &'static str,
    patch: &'static str,
    /// Under which model no reader may see 0. Under the others one must.
    holds: [bool; MODELS.len()],
    /// Whether readers are in the patched set all the time. Two, with pauses, leave it now and then, which some models need.
    always_inside: bool,
}

/// The scenarios, by the numbers of docs/consistency.md.
const ROWS: [Row; 5] = [
    Row {
        name: "4, a value kept in a loop",
        file: "keep",
        patch: "kmend_carry2",
        holds: [false, false, true, false, false, true],
        always_inside: false,
    },
    Row {
        name: "5, a level raised and lowered by one thread",
        file: "alone",
        patch: "kmend_level2",
        holds: [false, true, true, true, true, true],
        always_inside: true,
    },
    Row {
        name: "5, a level raised and lowered by two threads",
        file: "lend",
        patch: "kmend_level2",
        holds: [false, false, false, true, true, true],
        always_inside: true,
    },
    Row {
        name: "6, a producer and a consumer",
        file: "put",
        patch: "kmend_format2",
        holds: [false, false, false, true, true, true],
        always_inside: true,
    },
    Row {
        name: "7, the order of two locks",
        file: "order",
        patch: "kmend_order2",
        holds: [false, false, false, true, true, true],
        always_inside: true,
    },
];

/// All steps in their order.
pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![check(
        "load",
        "insmod /m/kmend_engine.ko; for m in target carry2 level2 format2 order2; do insmod /m/kmend_$m.ko; done; call keep alone lend put order",
        "1 1 1 1 1",
    )];
    for row in &ROWS {
        for (model, holds) in MODELS.into_iter().zip(row.holds) {
            checks.push(row.check(model, holds));
        }
    }
    checks
}

impl Row {
    fn check(&self, model: &str, holds: bool) -> Check {
        let waits = self.always_inside && ["stop-machine", "refcount"].contains(&model);
        let (readers, pause) = if waits { (2, "0.2") } else { (4, "0") };
        let (verdict, wanted) = if holds { ("holds", "") } else { ("breaks", " 0") };
        Check {
            name: Cow::Owned(format!("{}: {model} {verdict}", self.name)),
            commands: Cow::Owned(format!(
                "busy {} {readers} {} {model} {pause}{wanted}; enabled {}",
                self.file, self.patch, self.patch
            )),
            prints: Cow::Owned(format!("{}\n{} 0 0 0", if holds { "1" } else { "0 1" }, self.patch)),
        }
    }
}
