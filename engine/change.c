// SPDX-License-Identifier: GPL-2.0-only
/*
 * The models, and a transition from its start to its end
 *
 * A model is what execution must have left and what is switched together;
 * everything below follows from these two and not from a model's name.
 *
 *   function: each function by itself, at once. When a patch is disabled so,
 *             tasks may still run its code; the transition is then over when
 *             nobody does (it drains), because only then the module may go.
 *   thread:   a table of all tasks (sides.c), and rounds (tasks.c) until it
 *             holds nobody who is pending.
 *   kernel:   a table of nobody, and stops of the machine (stop.c) until one
 *             finds that everyone has left. Or, where calls are counted, a
 *             table of all tasks until each has been seen outside, and then
 *             the count's zero (refcount.c), which says nothing of what the
 *             patch's functions handed to others: so when such a patch is
 *             disabled, it drains as well. Or, where the kernel must be left,
 *             a table of all tasks until all are parked at its edge (tasks.c),
 *             and then a stop.
 *
 * One transition at a time. It ends by itself, is reversed by who asks for the
 * opposite, or reverses at its timeout.
 *
 * Invariants:
 * - Versions are marked as changing after the sides are published, and
 *   unmarked before the sides end, with a kmend_synchronize() on each way
 *   out. So a handler that sees a mark finds the sides.
 * - While versions are being marked everyone is on the side that they leave,
 *   so it does not matter that this takes time.
 * - The module of the patch is kept from before the start until nobody can be
 *   in its code.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/workqueue.h>

#include "engine.h"

/* The rows end with one without a name. */
const struct kmend_model kmend_models[] = {
	{ "hybrid", LEAVE_PATCHED_SET, SWITCH_THREAD },
	{ "immediate", LEAVE_FUNCTION, SWITCH_FUNCTION },
	{ "lazy", LEAVE_KERNEL, SWITCH_THREAD },
	{ "quiesce", LEAVE_KERNEL, SWITCH_KERNEL, .stops = true },
	{ "refcount", LEAVE_PATCHED_SET, SWITCH_KERNEL, .counts = true },
	{ "stop-machine", LEAVE_PATCHED_SET, SWITCH_KERNEL, .stops = true },
	{ }
};

/* For how long user space stands still at most, unless the patch says. */
#define PARKED_MS 5000

/* How often a count may be lost. Each time there is room for twice as much. */
#define ATTEMPTS 3

struct kmend_change kmend_change;

/* Whose it is for who looks on. */
static const struct kmend_patch *shown;

static void work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(change_work, work_fn);

const struct kmend_model *kmend_model_named(const char *name)
{
	const struct kmend_model *model;

	for (model = kmend_models; model->name; model++) {
		if (sysfs_streq(model->name, name))
			return model;
	}
	return NULL;
}

/*
 * Who has begun a transition or may have ended it calls this when all that came
 * of it is done: who sees that it is over sees the rest as well.
 */
void kmend_change_show(void)
{
	/* For kmend_change_shown(). */
	smp_store_release(&shown, kmend_change.patch);
}

/* Without any lock: whether the patch is being switched. */
bool kmend_change_shown(const struct kmend_patch *patch)
{
	/* Before what came of it is read. */
	return smp_load_acquire(&shown) == patch;
}

/* Whether the transition takes this patch out of force as well. */
bool kmend_is_replaced(const struct kmend_patch *patch)
{
	return kmend_change.patch && kmend_change.replaces &&
	       patch != kmend_change.patch && patch->state == KMEND_ENABLED;
}

/*
 * Switches every function by itself. Tasks may still run what they ran, which
 * is waited for if its module may go.
 */
static int switch_functions(struct kmend_patch *patch, bool to)
{
	if (to)
		kmend_insert_all(patch, false);
	kmend_unite(patch, to);
	/* Before a jump, nobody may come back to where it begins. */
	if (to && !kmend_change.replaces && !patch->jump)
		return 0;
	kmend_change.drain = true;
	return kmend_begin();
}

/* The same back, for those that were replaced, too: the oldest first. */
static void switch_functions_back(struct kmend_patch *patch, bool to)
{
	struct kmend_patch *other;

	if (to)
		kmend_remove_all(patch);
	list_for_each_entry(other, &kmend_patches, node)
		if (kmend_is_replaced(other))
			kmend_insert_all(other, false);
	if (!to)
		kmend_insert_all(patch, false);
	kmend_synchronize();
}

static void call_back(struct kmend_patch *patch, bool patched)
{
	struct kmend_object *object;

	kmend_for_each_object(patch, object) {
		if (!object->called)
			continue;
		if (patched && object->post_patch)
			object->post_patch(object);
		if (!patched && object->post_unpatch)
			object->post_unpatch(object);
	}
}

/*
 * A patch is out of force: nobody runs its code. Callbacks of one that was
 * replaced are not called, as in the kernel's livepatch: what it set up is now
 * the other's.
 */
static void retire(struct kmend_patch *patch)
{
	struct kmend_object *object;

	kmend_for_each_object(patch, object) {
		if (object->active)
			kmend_sites_put(object);
		object->called = false;
	}
	patch->state = KMEND_DISABLED;
	pr_notice("'%s': disabled\n", patch->mod->name);
	module_put(patch->mod);
}

/* User space goes on. */
static void unpark(struct kmend_patch *patch)
{
	struct kmend_sides *sides = kmend_sides_now();

	if (!sides || !sides->parks)
		return;
	kmend_unpark(sides);
	patch->pause_ns = ktime_get_mono_fast_ns() - kmend_change.start_ns;
}

/* Everyone is where the transition goes. */
static void complete_change(void)
{
	struct kmend_patch *patch = kmend_change.patch;
	bool to = kmend_change.to;
	struct kmend_patch *other;

	unpark(patch);
	if (!kmend_change.drain)
		kmend_unite(patch, to);
	kmend_end();
	list_for_each_entry(other, &kmend_patches, node)
		if (to && kmend_is_replaced(other))
			retire(other);
	patch->switch_ns = ktime_get_mono_fast_ns() - kmend_change.start_ns;
	kmend_change.patch = NULL;
	call_back(patch, to);
	if (to) {
		patch->state = KMEND_ENABLED;
		pr_notice("'%s': enabled\n", patch->mod->name);
	} else {
		retire(patch);
	}
	kmend_jumps_take();
}

/*
 * The count was lost, so everyone is where he was. All begins anew, with room
 * for more calls at once, or ends there.
 */
static void count_again(void)
{
	struct kmend_patch *patch = kmend_change.patch;
	bool to = kmend_change.to;

	kmend_unite(patch, !to);
	kmend_end();
	kmend_change.counted = false;
	kmend_change.rounds = 0;
	if (++kmend_change.attempts < ATTEMPTS && !kmend_begin())
		return;
	pr_notice("'%s': too many calls at once, or in an NMI, reversing\n",
		  patch->mod->name);
	kmend_change.to = !to;
	complete_change();
	patch->error = -ENOBUFS;
}

/*
 * One try with a count: first those are looked at who may have been inside
 * when it began, then there is nothing to do but to wait for zero.
 */
static bool advance_count(unsigned int round)
{
	struct kmend_patch *patch = kmend_change.patch;

	if (!kmend_change.counted) {
		if (!kmend_tasks_round(kmend_sides_now(), round))
			return false;
		kmend_count_all();
		kmend_change.counted = true;
		kmend_change.rounds = 0;
	}
	if (!kmend_count_is_zero()) {
		kmend_count_blockers();
		return false;
	}
	if (kmend_change.to && !kmend_change.replaces)
		return true;
	kmend_unite(patch, kmend_change.to);
	kmend_end();
	kmend_change.drain = true;
	return false;
}

/* One try to come to the end; returns whether it did. */
static bool advance(void)
{
	struct kmend_patch *patch = kmend_change.patch;
	unsigned int round = kmend_change.rounds++;
	bool done;

	/* To drain may have to be begun again: see advance_count(). */
	if (!kmend_sides_now() && kmend_begin())
		return false;
	if (kmend_counts() && kmend_count_is_lost()) {
		count_again();
		return !kmend_change.patch;
	}
	if (kmend_counts())
		done = advance_count(round);
	else
		done = !kmend_by_thread() ||
		       kmend_tasks_round(kmend_sides_now(), round);
	if (done && kmend_at_once() && !kmend_counts())
		done = !kmend_stop_and_switch(kmend_sides_now(),
					      &patch->pause_ns);
	if (done)
		kmend_blockers_clear();
	kmend_blockers_publish(patch);
	if (done)
		complete_change();
	return done;
}

/* Each round costs something, and the longer it has taken, the less it helps. */
static void again(void)
{
	unsigned int rounds = kmend_change.rounds;
	unsigned int ms = rounds < 10 ? 20 : rounds < 30 ? 200 : 1000;

	mod_delayed_work(system_wq, &change_work, msecs_to_jiffies(ms));
}

/* Wakes the transition up, from any context but an NMI. */
void kmend_change_soon(void)
{
	mod_delayed_work(system_wq, &change_work, 0);
}

static void work_fn(struct work_struct *work)
{
	struct kmend_patch *patch;

	mutex_lock(&kmend_mutex);
	patch = kmend_change.patch;
	if (!patch || advance())
		goto out;
	if (kmend_change.deadline &&
	    time_after(jiffies, kmend_change.deadline)) {
		pr_notice("'%s': not over in %u ms, reversing\n",
			  patch->mod->name, kmend_change.timeout_ms);
		if (!kmend_change_reverse())
			patch->error = -ETIMEDOUT;
	}
	if (kmend_change.patch)
		again();
out:
	kmend_change_show();
	mutex_unlock(&kmend_mutex);
}

/*
 * Starts to enable or disable a patch whose sites are there, and tries once.
 * An error leaves the patch as it was.
 */
int kmend_change_start(struct kmend_patch *patch, bool to)
{
	enum kmend_state before = patch->state;
	int ret = 0;

	kmend_change = (struct kmend_change) {
		.patch = patch,
		.model = patch->model,
		.to = to,
		.replaces = to && patch->replace,
		.start_ns = ktime_get_mono_fast_ns(),
	};
	kmend_blockers_clear();
	kmend_blockers_publish(patch);
	kmend_change_show();
	patch->state = to ? KMEND_ENABLING : KMEND_DISABLING;
	patch->error = 0;
	patch->pause_ns = 0;
	kmend_change.timeout_ms = patch->timeout_ms;
	if (!patch->timeout_ms && kmend_parks())
		kmend_change.timeout_ms = PARKED_MS;
	if (kmend_change.timeout_ms)
		kmend_change.deadline =
			jiffies + msecs_to_jiffies(kmend_change.timeout_ms);
	if (patch->model->scope != SWITCH_FUNCTION)
		ret = kmend_begin();
	else
		ret = switch_functions(patch, to);
	if (ret) {
		if (kmend_change.drain)
			switch_functions_back(patch, to);
		patch->state = before;
		kmend_change.patch = NULL;
		/* pre_unpatch() has been called, and is taken back. */
		if (!to)
			call_back(patch, true);
		return ret;
	}
	if (patch->model->scope == SWITCH_FUNCTION && !kmend_change.drain)
		complete_change();
	else if (!advance())
		again();
	return 0;
}

/* Turns the transition round, for good as far as its timeout goes. */
int kmend_change_reverse(void)
{
	struct kmend_patch *patch = kmend_change.patch;
	int ret;

	kmend_change.deadline = 0;
	if (kmend_change.drain) {
		/* The functions have been switched; what is left is to wait. */
		if (kmend_change.to ||
		    kmend_change.model->scope != SWITCH_FUNCTION)
			return -EBUSY;
		switch_functions_back(patch, false);
		kmend_change.to = true;
		complete_change();
		return 0;
	}
	if (kmend_at_once()) {
		/* Unless zero was reached just now, nobody has been switched. */
		if (kmend_counts() && !kmend_count_spoil())
			return -EBUSY;
		kmend_change.to = !kmend_change.to;
		complete_change();
		return 0;
	}
	ret = kmend_turn();
	if (ret)
		return ret;
	patch->state = kmend_change.to ? KMEND_ENABLING : KMEND_DISABLING;
	kmend_change_soon();
	return 0;
}

void kmend_change_exit(void)
{
	cancel_delayed_work_sync(&change_work);
}
