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
 *             disabled, it drains as well.
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

#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "engine.h"

/* The rows end with one without a name. */
const struct kmend_model kmend_models[] = {
	{ "hybrid", LEAVE_PATCHED_SET, SWITCH_THREAD },
	{ "immediate", LEAVE_FUNCTION, SWITCH_FUNCTION },
	{ "lazy", LEAVE_KERNEL, SWITCH_THREAD },
	{ "refcount", LEAVE_PATCHED_SET, SWITCH_KERNEL, .counts = true },
	{ "stop-machine", LEAVE_PATCHED_SET, SWITCH_KERNEL, .stops = true },
	{ }
};

/* How often a count may be lost. Each time there is room for twice as much. */
#define ATTEMPTS 3

struct kmend_change kmend_change;

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

/* The table in force; kmend_mutex is held. */
static struct kmend_sides *sides_now(void)
{
	return rcu_dereference_protected(kmend_sides,
					 lockdep_is_held(&kmend_mutex));
}

static bool counts(void)
{
	return kmend_change.model->counts && !kmend_change.drain;
}

/* Nobody is switched before the others. */
static bool at_once(void)
{
	return kmend_change.model->scope == SWITCH_KERNEL &&
	       !kmend_change.drain;
}

/* Threads are switched one by one, or looked at one by one. */
static bool by_thread(void)
{
	return !at_once() || counts();
}

/* Whether the transition takes this patch out of force as well. */
bool kmend_is_replaced(const struct kmend_patch *patch)
{
	return kmend_change.patch && kmend_change.replaces &&
	       patch != kmend_change.patch && patch->state == KMEND_ENABLED;
}

static void insert_all(struct kmend_patch *patch, bool changing)
{
	struct kmend_object *object;
	struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (object->active && !func->inserted)
				kmend_insert(func, changing, true);
}

/* Some may still be on their way to the versions. */
static void remove_all(struct kmend_patch *patch)
{
	struct kmend_object *object;
	struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (func->inserted)
				kmend_remove(func);
}

static void mark_all(struct kmend_patch *patch, bool changing, bool side)
{
	struct kmend_object *object;
	struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (func->inserted)
				kmend_mark(func, changing, side);
}

/* The functions of the transition begin to differ between the sides. */
static void part(struct kmend_patch *patch, bool to)
{
	struct kmend_patch *other;

	if (to)
		insert_all(patch, true);
	else
		mark_all(patch, true, true);
	list_for_each_entry(other, &kmend_patches, node)
		if (kmend_is_replaced(other))
			mark_all(other, true, false);
}

/*
 * The functions are the same on both sides, as they are on the patched side or
 * on the other. When this is over no handler looks at the sides.
 */
static void unite(struct kmend_patch *patch, bool patched)
{
	struct kmend_patch *other;

	if (patched)
		mark_all(patch, false, true);
	else
		remove_all(patch);
	list_for_each_entry(other, &kmend_patches, node) {
		if (!kmend_is_replaced(other))
			continue;
		if (patched)
			remove_all(other);
		else
			mark_all(other, false, false);
	}
	kmend_synchronize();
}

static int new_set(bool to)
{
	struct kmend_set *set = kmend_set_make(kmend_change.patch, to);

	if (IS_ERR(set))
		return PTR_ERR(set);
	kmend_set_publish(set);
	return 0;
}

/*
 * A module of the patch came or went while it is in transition. On an error
 * the set is as before: it may have too much in it, for a module that went.
 */
int kmend_change_set_update(void)
{
	return new_set(kmend_change.to);
}

/* The sides end: no version is marked, so no handler looks any more. */
static void end_sides(void)
{
	struct kmend_sides *sides = sides_now();

	kmend_count_end();
	kmend_set_publish(NULL);
	if (!sides)
		return;
	WRITE_ONCE(sides->frozen, true);
	kmend_sides_publish(NULL);
	synchronize_rcu();
	kmend_sides_retire(sides);
}

/* A table of all tasks but those that are pending in `except`. */
static struct kmend_sides *full_sides(bool to, const struct kmend_sides *except)
{
	unsigned int tasks = kmend_count_tasks();
	struct kmend_sides *sides;
	int ret;

	for (;; tasks *= 2) {
		sides = kmend_sides_alloc(to, tasks);
		if (!sides)
			return ERR_PTR(-ENOMEM);
		sides->leave = kmend_change.drain ? LEAVE_PATCHED_SET :
						    kmend_change.model->leave;
		ret = kmend_sides_fill(sides, except);
		if (!ret && !READ_ONCE(sides->full))
			return sides;
		kmend_sides_seal();
		kmend_sides_retire(sides);
		if (ret)
			return ERR_PTR(ret);
	}
}

static int check_count(struct kmend_patch *patch)
{
	struct kmend_object *object;
	int ret = 0;

	kmend_for_each_object(patch, object)
		if (!ret && object->active)
			ret = kmend_count_check(object);
	return ret;
}

static int begin_count(struct kmend_patch *patch, bool to)
{
	struct kmend_patch *other;
	int ret;

	ret = check_count(patch);
	list_for_each_entry(other, &kmend_patches, node)
		if (!ret && kmend_is_replaced(other))
			ret = check_count(other);
	return ret ?: kmend_count_begin(to, kmend_change.attempts);
}

/* Publishes who is on which side, and marks the versions that change. */
static int begin_sides(struct kmend_patch *patch, bool to)
{
	struct kmend_sides *sides;
	unsigned int cpu;
	int ret;

	for_each_possible_cpu(cpu)
		per_cpu(kmend_irq_side, cpu) = !to;
	sides = by_thread() ? full_sides(to, NULL) : kmend_sides_alloc(to, 0);
	if (!sides)
		return -ENOMEM;
	if (IS_ERR(sides))
		return PTR_ERR(sides);
	kmend_sides_publish(sides);
	ret = counts() ? begin_count(patch, to) : 0;
	if (!ret && !kmend_change.drain)
		part(patch, to);
	if (!ret)
		ret = new_set(to);
	/* Too many were born meanwhile: nobody has been switched yet. */
	if (!ret && READ_ONCE(sides->full))
		ret = -EAGAIN;
	if (ret) {
		if (!kmend_change.drain)
			unite(patch, !to);
		kmend_sides_seal();
		end_sides();
		return ret;
	}
	if (by_thread()) {
		WRITE_ONCE(sides->others, to);
		kmend_sides_seal();
		/* From now on visits and task work see all of the table. */
		smp_store_release(&sides->frozen, false);
	}
	return 0;
}

/*
 * Switches every function by itself. Tasks may still run what they ran, which
 * is waited for if its module may go.
 */
static int switch_functions(struct kmend_patch *patch, bool to)
{
	if (to)
		insert_all(patch, false);
	unite(patch, to);
	/* Before a jump, nobody may come back to where it begins. */
	if (to && !kmend_change.replaces && !patch->jump)
		return 0;
	kmend_change.drain = true;
	return begin_sides(patch, to);
}

/* The same back, for those that were replaced, too: the oldest first. */
static void switch_functions_back(struct kmend_patch *patch, bool to)
{
	struct kmend_patch *other;

	if (to)
		remove_all(patch);
	list_for_each_entry(other, &kmend_patches, node)
		if (kmend_is_replaced(other))
			insert_all(other, false);
	if (!to)
		insert_all(patch, false);
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

/* Everyone is where the transition goes. */
static void complete_change(void)
{
	struct kmend_patch *patch = kmend_change.patch;
	bool to = kmend_change.to;
	struct kmend_patch *other;

	if (!kmend_change.drain)
		unite(patch, to);
	end_sides();
	list_for_each_entry(other, &kmend_patches, node)
		if (to && kmend_is_replaced(other))
			retire(other);
	patch->switch_ns = ktime_get_mono_fast_ns() - kmend_change.start_ns;
	kmend_blockers_clear();
	kmend_change.patch = NULL;
	if (to) {
		call_back(patch, true);
		patch->state = KMEND_ENABLED;
		pr_notice("'%s': enabled\n", patch->mod->name);
	} else {
		call_back(patch, false);
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

	unite(patch, !to);
	end_sides();
	kmend_change.counted = false;
	kmend_change.rounds = 0;
	if (++kmend_change.attempts < ATTEMPTS && !begin_sides(patch, to))
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
		if (!kmend_tasks_round(sides_now(), round))
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
	unite(patch, kmend_change.to);
	end_sides();
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
	if (!sides_now() && begin_sides(patch, kmend_change.to))
		return false;
	if (counts() && kmend_count_is_lost()) {
		count_again();
		return !kmend_change.patch;
	}
	if (counts())
		done = advance_count(round);
	else if (by_thread())
		done = kmend_tasks_round(sides_now(), round);
	else
		done = !kmend_stop_and_switch(sides_now(), &patch->pause_ns);
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
			  patch->mod->name, patch->timeout_ms);
		if (!kmend_change_reverse())
			patch->error = -ETIMEDOUT;
	}
	if (kmend_change.patch)
		again();
out:
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
	patch->state = to ? KMEND_ENABLING : KMEND_DISABLING;
	patch->error = 0;
	patch->pause_ns = 0;
	if (patch->timeout_ms)
		kmend_change.deadline =
			jiffies + msecs_to_jiffies(patch->timeout_ms);
	if (patch->model->scope != SWITCH_FUNCTION)
		ret = begin_sides(patch, to);
	else
		ret = switch_functions(patch, to);
	if (ret) {
		if (kmend_change.drain)
			switch_functions_back(patch, to);
		patch->state = before;
		kmend_change.patch = NULL;
		return ret;
	}
	if (patch->model->scope == SWITCH_FUNCTION && !kmend_change.drain)
		complete_change();
	else if (!advance())
		again();
	return 0;
}

/* Threads that have been switched have to go back. */
static int reverse_threads(struct kmend_patch *patch)
{
	struct kmend_sides *old = sides_now();
	struct kmend_sides *new;
	struct kmend_set *set;

	set = kmend_set_make(patch, !old->to);
	if (IS_ERR(set))
		return PTR_ERR(set);
	WRITE_ONCE(old->frozen, true);
	synchronize_rcu();
	/*
	 * Who is pending stays where he is, which is where all go now; who is
	 * not is pending from now on. One store exchanges the tables, and
	 * nobody changes sides by it. Births are caught until after it.
	 */
	new = full_sides(!old->to, old);
	if (IS_ERR(new)) {
		kfree(set);
		/* As before: see begin_sides(). */
		smp_store_release(&old->frozen, false);
		return PTR_ERR(new);
	}
	new->others = new->to;
	kmend_sides_publish(new);
	kmend_set_publish(set);
	kmend_sides_seal();
	kmend_synchronize();
	synchronize_rcu();
	kmend_sides_retire(old);
	kmend_change.to = new->to;
	kmend_change.rounds = 0;
	/* See begin_sides(). */
	smp_store_release(&new->frozen, false);
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
	if (at_once()) {
		/* Unless zero was reached just now, nobody has been switched. */
		if (counts() && !kmend_count_spoil())
			return -EBUSY;
		kmend_change.to = !kmend_change.to;
		complete_change();
		return 0;
	}
	ret = reverse_threads(patch);
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
