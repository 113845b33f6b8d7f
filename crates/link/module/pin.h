/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keeps the module of a livepatch in memory. Part of a livepatch of which something may be in use when it is disabled.
 *
 * Callbacks run one at a time, so that nothing here is raced for. They do not run for a livepatch that is replaced:
 * what its post_unpatch callback would have ended goes on, and keeps it.
 */

/* Set for good when something of this module is given away that nobody takes back. */
static bool kmend_pinned;
module_param_named(pinned, kmend_pinned, bool, 0444);

/* Set while something of this module is in use that its callbacks end. */
static bool kmend_held;
module_param_named(held, kmend_held, bool, 0444);

static unsigned int kmend_holds;

static void __maybe_unused kmend_stay(void)
{
	if (kmend_pinned)
		return;
	__module_get(THIS_MODULE);
	kmend_pinned = true;
}

static void __maybe_unused kmend_hold(void)
{
	__module_get(THIS_MODULE);
	kmend_held = ++kmend_holds;
}

/* The livepatch itself still has a reference, so that the code that returns from here is there. */
static void __maybe_unused kmend_let_go(void)
{
	kmend_held = --kmend_holds;
	module_put(THIS_MODULE);
}
