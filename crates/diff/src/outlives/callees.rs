//! What functions of the kernel do with an address that they are given.
//!
//! Three tables, each with the kernel's file as reason (Linux 6.1 and 6.12). What is in none keeps the addresses of functions
//! and variables, and does not keep a string.

/// What a function does with the addresses in its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// When it returns, nobody has them.
    During,
    /// The same, but it may return one of them, or a place in what they lead to.
    Returned,
    /// What they lead to is copied somewhere else.
    Copied,
}

/// The first row that fits decides; `*` at the end stands for anything.
#[rustfmt::skip]
const USES: &[(&str, Use)] = &[
    // lib/vsprintf.c, kernel/printk/printk.c: made into text before they return.
    ("_printk", Use::During),
    ("_printk_deferred", Use::During),
    ("__warn_printk", Use::During),               // kernel/panic.c
    ("_dev_*", Use::During),                      // drivers/base/core.c
    ("__dynamic_*", Use::During),                 // lib/dynamic_debug.c
    ("sprintf", Use::During),
    ("snprintf", Use::During),
    ("scnprintf", Use::During),
    ("seq_printf", Use::During),                  // fs/seq_file.c
    ("seq_puts", Use::During),
    ("seq_write", Use::During),
    ("sysfs_emit*", Use::During),                 // fs/sysfs/file.c
    // Bytes that are compared or measured: lib/string.c.
    ("memcmp", Use::During),
    ("bcmp", Use::During),
    ("strcmp", Use::During),
    ("strncmp", Use::During),
    ("strcasecmp", Use::During),
    ("strncasecmp", Use::During),
    ("strlen", Use::During),
    ("strnlen", Use::During),
    ("memset", Use::Returned),
    ("memchr", Use::Returned),
    ("strchr", Use::Returned),
    ("strrchr", Use::Returned),
    ("strstr", Use::Returned),
    // Bytes that are copied: lib/string.c, mm/util.c, lib/usercopy.c.
    ("memcpy", Use::Copied),
    ("__memcpy", Use::Copied),
    ("memmove", Use::Copied),
    ("__memmove", Use::Copied),
    ("kmemdup", Use::Copied),
    ("_copy_to_user", Use::Copied),
    ("_copy_from_user", Use::Copied),
    // Called until they return: lib/sort.c, lib/list_sort.c, lib/bsearch.c.
    ("sort", Use::During),
    ("sort_r", Use::During),
    ("list_sort", Use::During),
    ("bsearch", Use::Returned),
    // drivers/base/bus.c, core.c, driver.c, class.c; lib/radix-tree.c; fs/file.c: called for each, until they return.
    ("bus_for_each_dev", Use::During),
    ("device_for_each_child", Use::During),
    ("driver_for_each_device", Use::During),
    ("class_for_each_device", Use::During),
    ("idr_for_each", Use::During),
    ("iterate_fd", Use::During),
    ("stop_machine", Use::During),                // kernel/stop_machine.c: waits for all processors
    // kernel/livepatch/shadow.c: constructors and destructors are called at once.
    ("klp_shadow_alloc", Use::During),
    ("klp_shadow_get_or_alloc", Use::During),
    ("klp_shadow_free", Use::During),
    ("klp_shadow_free_all", Use::During),
    // Who waits for a lock of the livepatch, or holds it, does so in the livepatch's own code, and is waited for:
    // kernel/locking. Their classes (of no size without lockdep) are no thing.
    ("mutex_lock*", Use::During),
    ("mutex_trylock", Use::During),
    ("mutex_unlock", Use::During),
    ("mutex_is_locked", Use::During),
    ("_raw_spin_*", Use::During),
    ("_raw_read_*", Use::During),
    ("_raw_write_*", Use::During),
    ("down_read*", Use::During),
    ("down_write*", Use::During),
    ("up_read", Use::During),
    ("up_write", Use::During),
    ("__mutex_init", Use::During),
    ("__init_rwsem", Use::During),
    ("__init_waitqueue_head", Use::During),       // kernel/sched/wait.c
    ("__wake_up*", Use::During),
    ("___ratelimit", Use::During),                // lib/ratelimit.c: counts in it
    ("refcount_warn_saturate", Use::During),      // lib/refcount.c
    ("refcount_dec_*", Use::During),
    ("__list_add_valid*", Use::During),           // lib/list_debug.c: looks at three entries; who called it stores them
    ("__list_del_entry_valid*", Use::During),
    // kernel/jump_label.c: the key's entries are the module's, and forgotten with it (`jump_label_del_module`).
    ("static_key_enable*", Use::During),
    ("static_key_disable*", Use::During),
    ("static_key_slow_*", Use::During),
    ("static_key_count", Use::During),
    // What ends an earlier use: kernel/workqueue.c, kernel/time, kernel/softirq.c.
    ("cancel_work_sync", Use::During),
    ("cancel_work", Use::During),
    ("cancel_delayed_work*", Use::During),
    ("flush_work", Use::During),
    ("flush_delayed_work", Use::During),
    ("del_timer*", Use::During),
    ("timer_delete*", Use::During),
    ("timer_shutdown*", Use::During),
    ("hrtimer_cancel", Use::During),
    ("hrtimer_try_to_cancel", Use::During),
    ("tasklet_kill", Use::During),
];

/// Functions that keep the pointer to a name that they are given. Most make a copy: `kstrdup_const()` too, because a module's
/// strings are not the kernel's (mm/util.c, `is_kernel_rodata`).
#[rustfmt::skip]
const KEEP_TEXT: &[&str] = &[
    "request_threaded_irq",         // kernel/irq/manage.c: action->name
    "request_any_context_irq",
    "request_nmi",
    "request_percpu_nmi",
    "__request_percpu_irq",
    "devm_request_threaded_irq",    // kernel/irq/devres.c, which calls these
    "devm_request_any_context_irq",
    "__irq_set_handler",            // kernel/irq/chip.c: desc->name
    "irq_set_chip_and_handler_name",
    "__request_region",             // kernel/resource.c: res->name
    "__devm_request_region",
    "__class_create",               // drivers/base/class.c: cls->name
    "class_create",
    "__cpuhp_setup_state",          // kernel/cpu.c: sp->name
    "__cpuhp_setup_state_cpuslocked",
    "perf_pmu_register",            // kernel/events/core.c: pmu->name
    "usb_register_driver",          // drivers/usb/core/driver.c: driver.mod_name
    "__pci_register_driver",        // drivers/pci/pci-driver.c: driver.mod_name
];

/// Assembly and thunks that save the registers that a C function may destroy, so that what these hold is not gone after
/// the call.
const PRESERVING: &[&str] = &[
    "__fentry__",        // arch/x86/kernel/ftrace_64.S
    "__get_user_*",      // arch/x86/lib/getuser.S
    "__put_user_*",      // arch/x86/lib/putuser.S
    "__sw_hweight*",     // arch/x86/lib/hweight.S
    "preempt_schedule*", // arch/x86/entry/thunk_64.S
    "__SCT__preempt_schedule*",
    "copy_user_*",  // arch/x86/lib/copy_user_64.S
    "clear_user_*", // arch/x86/lib/clear_page_64.S
    "rep_movs_alternative",
    "rep_stos_alternative",
    "this_cpu_cmpxchg16b_emu", // arch/x86/lib/cmpxchg16b_emu.S
    "cmpxchg8b_emu",
    "__raw_callee_save_*", // arch/x86/include/asm/paravirt.h
    "entry_untrain_ret",   // arch/x86/lib/retpoline.S
];

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

/// What it does with addresses, if that is known to be harmless.
pub(super) fn harmless(name: &str) -> Option<Use> {
    USES.iter().find(|(pattern, _)| fits(pattern, name)).map(|(_, uses)| *uses)
}

/// Whether it keeps the address of a string.
pub(super) fn keeps_text(name: &str) -> bool {
    KEEP_TEXT.contains(&name)
}

/// Whether registers hold after a call of it what they held before.
pub(super) fn preserves(name: &str) -> bool {
    PRESERVING.iter().any(|pattern| fits(pattern, name))
}
