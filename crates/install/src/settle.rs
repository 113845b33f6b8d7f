//! The clean minute after a load, and the shutdown in order.

use crate::crash::{CLEAN, Crash};
use crate::error::InstallError;
use crate::store::Store;
use kmend_live::System;
use std::time::Duration;

/// Between two looks at who wants the wait ended.
const LOOK: Duration = Duration::from_millis(200);
/// Looks between two at the crash memory.
const LOOKS: u32 = 10;

/// How the wait for the clean minutes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settled {
    /// The machine has run for a minute since every load.
    Clean,
    /// The machine is shut down in order.
    ShutDown,
}

impl Store {
    /// Waits until the machine has run for a minute since every load, and forgets each when its minute is over and its
    /// transition as well. When `shut_down` says so, all that is left is forgotten: the machine did not die.
    pub fn settle(
        &self,
        system: &System,
        mut shut_down: impl FnMut() -> bool,
    ) -> Result<Settled, InstallError> {
        loop {
            let in_transition = system.in_transition().ok().flatten().map(|patch| patch.name);
            let over = |name: &str, age: Duration| {
                age >= CLEAN && in_transition.as_ref().is_none_or(|other| other != name)
            };
            if self.folder()?.is_none() || Crash::forget(&self.lock_judged(system)?, over, system)? == 0 {
                return Ok(Settled::Clean);
            }
            for _ in 0..LOOKS {
                if shut_down() {
                    Crash::forget(&self.lock_judged(system)?, |_, _| true, system)?;
                    return Ok(Settled::ShutDown);
                }
                std::thread::sleep(LOOK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Event;
    use kmend_live::Candidate;
    use kmend_live::fake::{Fake, RELEASE, module};

    fn loaded(fake: &Fake) -> Store {
        let store = Store::of(&fake.system());
        let candidate = Candidate::open(&fake.file("x.ko", &module("x", RELEASE, true))).unwrap();
        fake.write("proc/uptime", "10.00 1.00\n");
        Crash::begin(&store.lock().unwrap(), &fake.system(), &candidate).unwrap();
        store
    }

    #[test]
    fn a_minute_without_a_transition_is_clean() {
        let fake = Fake::new();
        let store = loaded(&fake);
        fake.write("proc/uptime", "70.00 1.00\n");
        assert_eq!(store.settle(&fake.system(), || true).unwrap(), Settled::Clean);
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
    }

    #[test]
    fn a_transition_is_awaited_and_an_orderly_shutdown_forgets() {
        let fake = Fake::new();
        let store = loaded(&fake);
        fake.write("proc/uptime", "70.00 1.00\n");
        fake.patch("x", true, true);
        assert_eq!(store.settle(&fake.system(), || true).unwrap(), Settled::ShutDown);
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
        assert!(store.history().unwrap().records.iter().all(|record| record.event != Event::Hold));
    }

    #[test]
    fn where_nothing_was_loaded_nothing_is_made() {
        let fake = Fake::new();
        let store = Store::of(&fake.system());
        assert_eq!(store.settle(&fake.system(), || false).unwrap(), Settled::Clean);
        assert!(!fake.path("var").exists());
    }
}
