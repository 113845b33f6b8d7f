//! Functions in which tasks stay. A task takes to the new code when none of the changed functions is on its stack, so it is
//! the old code that is looked at.

use crate::Changed;
use crate::code::Code;
use kmend_object::{Object, SymbolId};
use kmend_refusal::{Advice, Sign};
use std::collections::BTreeSet;

/// What starts a kernel thread (include/linux/kthread.h); the thread's function is an argument.
const STARTS: &[&str] = &["kthread_create_on_node", "kthread_create_on_cpu", "kthread_create_worker"];

/// What the loop of a kernel thread asks (include/linux/kthread.h).
const ASKS: &[&str] = &[
    "kthread_should_stop",
    "kthread_should_stop_or_park",
    "kthread_should_park",
    "kthread_freezable_should_stop",
];

/// What does not return (tools/objtool/noreturns.h).
const ENDS: &[&str] =
    &["do_exit", "do_group_exit", "make_task_dead", "kthread_exit", "kthread_complete_and_exit"];

/// What sleeps until something happens.
const SLEEPS: &[&str] = &[
    "schedule",
    "schedule_timeout",
    "schedule_timeout_interruptible",
    "schedule_hrtimeout_range",
    "io_schedule",
    "wait_woken",
    "freezable_schedule",
];

/// Functions that are on the stacks of idle tasks of any system: those that wait for input, children, timers, locks of
/// user space, or work.
const ALWAYS: &[&str] = &[
    "core_sys_select",
    "do_epoll_wait",
    "do_futex",
    "do_nanosleep",
    "do_poll",
    "do_select",
    "do_sigtimedwait",
    "do_sys_poll",
    "do_syscall_64",
    "do_syslog",
    "do_wait",
    "ep_poll",
    "futex_wait",
    "futex_wait_queue",
    "futex_wait_queue_me",
    "hrtimer_nanosleep",
    "inet_csk_accept",
    "kernel_wait4",
    "ksys_read",
    "kthread",
    "kthreadd",
    "kswapd",
    "n_tty_read",
    "pipe_read",
    "poll_schedule_timeout",
    "rcu_gp_kthread",
    "rescuer_thread",
    "schedule",
    "schedule_hrtimeout_range_clock",
    "smpboot_thread_fn",
    "tty_read",
    "unix_accept",
    "unix_stream_read_generic",
    "vfs_read",
    "worker_thread",
];

/// The functions whose address goes to a call that starts a kernel thread.
pub(crate) fn threads(object: &Object) -> BTreeSet<String> {
    let functions: Vec<SymbolId> =
        object.symbol_ids().filter(|&id| object.symbol(id).is_function()).collect();
    let has_threads = object.symbols.iter().any(|symbol| STARTS.contains(&symbol.name.as_str()));
    if !has_threads {
        return BTreeSet::new();
    }
    let is_function = |name: &str| functions.iter().any(|&id| object.symbol(id).name == name);
    let codes = functions.iter().filter_map(|&id| Code::of(object, id));
    let starters = codes.filter(|code| code.calls_any(STARTS).is_some());
    let addresses = starters.flat_map(|code| code.addresses);
    addresses.filter(|name| is_function(name)).map(kmend_diff::source_function).collect()
}

pub(crate) fn advise(function: &Changed<'_>, threads: &BTreeSet<String>) -> Option<Advice> {
    let code = &function.before;
    let asks = code.calls_any(ASKS);
    let sleeps = code.calls.iter().find(|call| SLEEPS.contains(&call.name) && code.is_in_loop(call));
    let why = if threads.contains(&function.name) {
        "it is the function of a kernel thread, which stays in it".to_owned()
    } else if ALWAYS.contains(&function.name.as_str()) {
        "on any system idle tasks wait in it".to_owned()
    } else if let Some(call) = asks {
        format!("it calls {}(), as the loop of a kernel thread does", call.name)
    } else if let Some(call) = code.calls_any(ENDS) {
        format!("it calls {}(), which does not return", call.name)
    } else if let Some(call) = sleeps {
        format!("it calls {}() in a loop, so a task can stay in it for long", call.name)
    } else {
        return None;
    };
    let text =
        format!("{why}: the transition may not end while a task is there (`kmend load` shows who holds it)");
    Some(Advice { sign: Sign::Stay, subject: function.name.clone(), text })
}
