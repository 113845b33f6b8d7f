// SPDX-License-Identifier: GPL-2.0-only
/*
 * Begins the sides of a transition, turns them round, and ends them
 *
 * What there is for the time of a transition: who is on which side (sides.c),
 * what must be left (stacks.c), and the count of who is inside, if the model
 * counts (refcount.c).
 *
 * Invariants:
 * - Versions are marked as changing after all of these are published, and
 *   unmarked before they end.
 * - A table with all tasks is not frozen only from when it is whole until it
 *   ends.
 */
#include <linux/slab.h>

#include "engine.h"

/* The table in force; kmend_mutex is held. */
struct kmend_sides *kmend_sides_now(void)
{
	return rcu_dereference_protected(kmend_sides,
					 lockdep_is_held(&kmend_mutex));
}

/*
 * At the beginning, and when a module of the patch came or went meanwhile. On
 * an error the set is as before: it may have too much in it, for a module that
 * went.
 */
int kmend_change_set_update(void)
{
	struct kmend_set *set;

	set = kmend_set_make(kmend_change.patch, kmend_change.to);
	if (IS_ERR(set))
		return PTR_ERR(set);
	kmend_set_publish(set);
	return 0;
}

/* The sides end: no version is marked, so no handler looks any more. */
void kmend_end(void)
{
	struct kmend_sides *sides = kmend_sides_now();

	kmend_count_end();
	kmend_sides_seal();
	kmend_set_publish(NULL);
	if (!sides)
		return;
	WRITE_ONCE(sides->frozen, true);
	kmend_sides_publish(NULL);
	synchronize_rcu();
	kmend_sides_retire(sides);
}

/* A table of all tasks but those that are pending in `except`. */
static struct kmend_sides *full_sides(bool to, struct kmend_sides *except)
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
		sides->parks = kmend_parks();
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

static int begin_count(void)
{
	struct kmend_patch *other;
	int ret;

	ret = check_count(kmend_change.patch);
	list_for_each_entry(other, &kmend_patches, node)
		if (!ret && kmend_is_replaced(other))
			ret = check_count(other);
	return ret ?: kmend_count_begin();
}

/* Publishes who is on which side, and marks the versions that change. */
int kmend_begin(void)
{
	struct kmend_patch *patch = kmend_change.patch;
	struct kmend_sides *sides;
	bool to = kmend_change.to;
	unsigned int cpu;
	int ret;

	for_each_possible_cpu(cpu)
		per_cpu(kmend_irq_side, cpu) = !to;
	sides = kmend_by_thread() ? full_sides(to, NULL) : kmend_sides_alloc(to, 0);
	if (!sides)
		return -ENOMEM;
	if (IS_ERR(sides))
		return PTR_ERR(sides);
	kmend_sides_publish(sides);
	ret = kmend_counts() ? begin_count() : 0;
	if (!ret && !kmend_change.drain)
		kmend_part(patch, to);
	if (!ret)
		ret = kmend_change_set_update();
	/* Too many were born meanwhile: nobody has been switched yet. */
	if (!ret && READ_ONCE(sides->full))
		ret = -EAGAIN;
	if (ret) {
		if (!kmend_change.drain)
			kmend_unite(patch, !to);
		kmend_end();
		return ret;
	}
	if (kmend_by_thread()) {
		if (!sides->parks) {
			WRITE_ONCE(sides->others, to);
			kmend_sides_seal();
		}
		/* From now on visits and task work see all of the table. */
		smp_store_release(&sides->frozen, false);
	}
	return 0;
}

/* Threads that have been switched have to go back. */
int kmend_turn(void)
{
	struct kmend_sides *old = kmend_sides_now();
	struct kmend_sides *new;
	struct kmend_set *set;

	set = kmend_set_make(kmend_change.patch, !old->to);
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
		/* As before: see kmend_begin(). */
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
	/* See kmend_begin(). */
	smp_store_release(&new->frozen, false);
	return 0;
}
