use super::*;
use crate::fake::Fake;

fn two() -> Fake {
    let fake = Fake::new();
    for name in ["livepatch_a", "livepatch_b"] {
        fake.patch(name, true, false);
        fake.module(name, 1);
        fake.folder(&format!("sys/kernel/livepatch/{name}/vmlinux/both,1"));
    }
    fake.folder("sys/kernel/livepatch/livepatch_b/vmlinux/own,1");
    fake.write("sys/module/livepatch_a/parameters/fixes", "CVE-2026-1,CVE-2026-2\n");
    fake.write("sys/module/livepatch_b/parameters/fixes", "CVE-2026-3\n");
    fake.write("sys/module/livepatch_b/parameters/subject", "mend it\n");
    fake
}

fn owner(status: &Status, name: &str) -> Option<String> {
    status.functions.iter().find(|function| function.name == name).unwrap().owner.clone()
}

#[test]
fn the_kernel_is_described_by_facts() {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/tainted", "45056\n");
    fake.write("proc/sys/kernel/ftrace_enabled", "1\n");
    fake.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    let kernel = fake.system().status().unwrap().kernel;
    assert_eq!(kernel.taint.unwrap().flags.len(), 3);
    assert_eq!((kernel.ftrace_enabled, kernel.lockdown.as_deref()), (Some(true), Some("integrity")));
    assert_eq!((kernel.build_id, kernel.signatures_enforced), (None, None));
    assert!(kernel.livepatch);
    std::fs::remove_dir(fake.path("sys/kernel/livepatch")).unwrap();
    assert!(!fake.system().status().unwrap().kernel.livepatch);
}

#[test]
fn the_order_is_the_kernels_or_unknown() {
    let fake = two();
    let status = fake.system().status().unwrap();
    assert_eq!((owner(&status, "both"), owner(&status, "own")), (None, Some("livepatch_b".into())));
    assert_eq!(status.livepatches[1].subject.as_deref(), Some("mend it"));
    assert!(matches!(status.livepatches[0].since, Some(Since::Sysfs { .. })));
    assert!(status.effective().fixes.is_empty());

    fake.write("sys/kernel/livepatch/livepatch_a/stack_order", "2\n");
    fake.write("sys/kernel/livepatch/livepatch_b/stack_order", "1\n");
    let status = fake.system().status().unwrap();
    assert_eq!(owner(&status, "both").as_deref(), Some("livepatch_a"));
    assert_eq!(status.livepatches[0].patch.name, "livepatch_b");
}

#[test]
fn what_is_overridden_or_in_transition_is_not_in_force() {
    let fake = two();
    fake.write("sys/kernel/livepatch/livepatch_a/stack_order", "2\n");
    fake.write("sys/kernel/livepatch/livepatch_b/stack_order", "1\n");
    let effective = fake.system().status().unwrap().effective();
    assert_eq!(effective.livepatches, ["livepatch_a"]);
    assert_eq!(effective.fixes.into_iter().collect::<Vec<_>>(), ["CVE-2026-1", "CVE-2026-2"]);
    assert_eq!(effective.not_in_force[0].why, "livepatch_a overrides its both");
    fake.patch("livepatch_a", true, true);
    let effective = fake.system().status().unwrap().effective();
    assert!(effective.livepatches.is_empty());
    assert!(effective.not_in_force.iter().any(|patch| patch.why == "it is enabling"));
}

#[test]
fn what_a_disabled_livepatch_leaves_is_told() {
    let fake = Fake::new();
    fake.module("old", 3);
    fake.write("sys/module/old/taint", "OEK\n");
    fake.module("ext4", 1);
    fake.write("sys/module/ext4/taint", "\n");
    let rest = RestStatus { name: "old".into(), references: Some(3), pinned: false, pinned_by: None };
    assert_eq!(fake.system().status().unwrap().rests, [rest]);
}

#[test]
fn patches_of_the_engine_stand_behind_those_of_the_kernel() {
    let fake = two();
    for (name, state) in [("engine_b", "covered"), ("engine_a", "patched")] {
        fake.engine_patch(name, true, false);
        fake.module(name, 1);
        fake.write(&format!("sys/kernel/kmend/{name}/functions"), &format!("vmlinux both_too {state}\n"));
    }
    fake.write("sys/module/kmend_engine/taint", "OEK\n");
    let header = "Index Patch State Model Redirect\n";
    fake.write(
        "proc/kmend/state",
        &format!("{header}1 engine_b enabled hybrid ftrace\n2 engine_a enabled hybrid ftrace\n"),
    );
    let status = fake.system().status().unwrap();
    let names: Vec<_> = status.livepatches.iter().map(|status| status.patch.name.as_str()).collect();
    assert_eq!(names, ["livepatch_a", "livepatch_b", "engine_b", "engine_a"]);
    assert_eq!(status.livepatches[3].stack_order, Some(2));
    assert_eq!(owner(&status, "both_too").as_deref(), Some("engine_a"));
    assert_eq!(status.engine.as_ref().unwrap().models, ["hybrid", "immediate"]);
    assert!(status.rests.is_empty(), "the engine is no disabled livepatch");
    let effective = status.effective();
    assert_eq!(effective.livepatches, ["engine_a"]);
    assert!(effective.not_in_force.iter().any(|patch| patch.why == "engine_a overrides its both_too"));
}
