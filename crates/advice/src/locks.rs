//! Locks that a changed function takes.

use crate::Changed;
use crate::code::Code;
use kmend_refusal::{Advice, Sign};
use std::collections::BTreeSet;

/// Functions that take a lock: beginnings of their names (kernel/locking, include/linux/{spinlock,rwsem,rwlock}_api*.h).
/// RCU is not among them: who reads under it keeps nobody out.
const TAKES: &[&str] = &[
    "mutex_lock",
    "ww_mutex_lock",
    "rt_mutex_lock",
    "_raw_spin_lock",
    "_raw_read_lock",
    "_raw_write_lock",
    "queued_read_lock_slowpath",
    "down_read",
    "down_write",
    "down_interruptible",
    "down_killable",
    "lock_sock_nested",
    "rtnl_lock",
    "lock_device_hotplug",
    "percpu_down_write",
];

/// A lock: the function that takes it, and the variable that it is, if it has a name. That is without the compiler's number,
/// which another compilation gives to something else.
type Lock<'a> = (&'a str, Option<String>);

/// The locks that code takes, each once, in the order of its instructions.
fn taken<'a>(code: &Code<'a>) -> Vec<Lock<'a>> {
    let mut locks = Vec::new();
    take(code, code, &mut BTreeSet::new(), &mut locks);
    locks
}

/// Adds those that a piece of the code takes. What the compiler splits off is taken where it is called.
fn take<'a>(code: &Code<'a>, piece: &Code<'a>, entered: &mut BTreeSet<&'a str>, locks: &mut Vec<Lock<'a>>) {
    for call in &piece.calls {
        let is_taken = TAKES.iter().any(|beginning| call.name.starts_with(beginning));
        let lock = (call.name, call.argument.map(kmend_diff::base_name));
        if is_taken && !locks.contains(&lock) {
            locks.push(lock);
        }
        if let Some(part) = code.parts.get(call.name)
            && entered.insert(call.name)
        {
            take(code, part, entered, locks);
        }
    }
}

pub(crate) fn advise(function: &Changed<'_>) -> Option<Advice> {
    let (before, after) = (taken(&function.before), taken(&function.after));
    let missing = |from: &[Lock<'_>], locks: &[Lock<'_>]| -> Vec<String> {
        from.iter().filter(|lock| !locks.contains(lock)).map(show).collect()
    };
    let (new, gone) = (missing(&after, &before), missing(&before, &after));
    let list = |locks: &[Lock<'_>]| locks.iter().map(show).collect::<Vec<_>>().join(", ");
    let what = match (new.is_empty(), gone.is_empty()) {
        (true, true) if before == after => return None,
        (true, true) => {
            format!("it takes locks in another order: {}, before {}", list(&after), list(&before))
        }
        (false, true) => format!("it now takes {}", new.join(", ")),
        (true, false) => format!("it no longer takes {}", gone.join(", ")),
        (false, false) => format!("it now takes {} and no longer {}", new.join(", "), gone.join(", ")),
    };
    let text = format!(
        "{what}; until every task has taken to the new code, some hold to the old rule: what the locks protect, and the order \
         in which others take them, must allow both"
    );
    Some(Advice { sign: Sign::Locks, subject: function.name.clone(), text })
}

fn show(lock: &Lock<'_>) -> String {
    format!("{}({})", lock.0, lock.1.as_deref().unwrap_or_default())
}
