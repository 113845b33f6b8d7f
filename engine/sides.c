// SPDX-License-Identifier: GPL-2.0-only
/*
 * On which side of a transition each context is
 *
 * While functions change, every context is on one of two sides, patched or
 * not, and this file answers which. Interrupts of any kind (hard, soft, NMI)
 * have one flag for each CPU; whoever they interrupted does not matter. A task
 * has an entry in a table while it is pending: then it is on the side that
 * everyone leaves. All other tasks are on the side `others`.
 *
 * Why no task is missed when a table begins: the table is published with
 * `others` where everyone is now, so nothing changes. Then a probe is put on
 * task_newtask, which the kernel passes when a child is in the list of tasks
 * and before it first runs (copy_process(), threads of io_uring and vhost
 * too). Then the list is walked under tasklist_lock. A child that passed the
 * tracepoint before there was a probe is in the list; all others meet the
 * probe. Idle tasks, which are in no list, are added one by one. Only now
 * `others` is turned to the side where everyone goes. A child that is born
 * later starts there: its kernel stack is fresh, so it has left everything
 * that it could have to leave. The one kind of task that turns with `others`
 * without being asked is one that has left the list of tasks (release_task())
 * and has not run its last instruction; the kernel's livepatch does not see
 * these either.
 *
 * Where tasks are parked at the kernel's edge until all are there, nobody is
 * switched alone: `others` is where all tasks are, and `pending` says who is
 * not parked. The probe stays until the end, and a child is given its task
 * work before it first runs, so that it parks before it sees user space. A
 * child that finds no room in the table goes free, and holds the switch up.
 *
 * Invariants:
 * - An entry holds a reference to its task, so that no other task can have
 *   its address while the table lives.
 * - Entries are never taken out; `task` is written last. So a lookup needs no
 *   lock, and finds what was there when it began.
 * - `pending` goes from true to false once, by the task itself or while the
 *   task cannot run, with preemption off; never when the table is frozen. Only
 *   a parked task that is killed turns it back, before it goes on.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <trace/events/task.h>

#include "engine.h"

struct kmend_sides __rcu *kmend_sides;
DEFINE_PER_CPU(bool, kmend_irq_side);

/* The table that the probe fills. */
static struct kmend_sides *filling;

static __always_inline struct kmend_entry *
find(struct kmend_sides *sides, const struct task_struct *task)
{
	unsigned int mask = (1U << sides->bits) - 1;
	unsigned int slot = hash_ptr((void *)task, sides->bits);
	const struct task_struct *there;

	/* At most three quarters of the slots are used: see add(). */
	for (;; slot = (slot + 1) & mask) {
		/* With the rest of the entry: see add(). */
		there = smp_load_acquire(&sides->entries[slot].task);
		if (!there || there == task)
			return &sides->entries[slot];
	}
}

/* For the ftrace handler: preemption is off, and nothing here is traced. */
notrace bool kmend_on_patched_side(void)
{
	struct kmend_sides *sides;
	struct kmend_entry *entry;

	if (interrupt_context_level())
		return this_cpu_read(kmend_irq_side);
	sides = rcu_dereference_raw(kmend_sides);
	if (WARN_ON_ONCE(!sides))
		return true;
	entry = find(sides, current);
	if (!sides->parks && entry->task && READ_ONCE(entry->pending))
		return !sides->to;
	return READ_ONCE(sides->others);
}

/* The task's entry, or null. */
struct kmend_entry *kmend_sides_find(struct kmend_sides *sides,
				     const struct task_struct *task)
{
	struct kmend_entry *entry = find(sides, task);

	return entry->task ? entry : NULL;
}

/* How many tasks there are now. */
unsigned int kmend_count_tasks(void)
{
	struct task_struct *process, *task;
	unsigned int count = num_possible_cpus();

	rcu_read_lock();
	for_each_process_thread(process, task)
		count++;
	rcu_read_unlock();
	return count;
}

/* A table with room for this many tasks and some more. */
struct kmend_sides *kmend_sides_alloc(bool to, unsigned int tasks)
{
	struct kmend_sides *sides;
	unsigned int bits = 1;

	if (tasks)
		bits = ilog2(tasks + tasks / 2 + 256) + 1;
	sides = kvzalloc(struct_size(sides, entries, 1UL << bits), GFP_KERNEL);
	if (!sides)
		return NULL;
	sides->to = to;
	sides->others = !to;
	sides->frozen = true;
	sides->bits = bits;
	spin_lock_init(&sides->lock);
	kref_init(&sides->kref);
	return sides;
}

/* Returns the entry if it is new. Nobody else asks a newborn that is asked. */
static struct kmend_entry *add(struct kmend_sides *sides,
			       struct task_struct *task, bool asked)
{
	struct kmend_entry *entry;

	spin_lock(&sides->lock);
	entry = find(sides, task);
	if (entry->task) {
		entry = NULL;
		goto out;
	}
	if (sides->used >= (3U << sides->bits) / 4) {
		sides->full = true;
		entry = NULL;
		goto out;
	}
	sides->used++;
	entry->sides = sides;
	entry->pending = true;
	entry->queued = asked;
	atomic_inc(&sides->pending);
	get_task_struct(task);
	/* Now find() may find it. */
	smp_store_release(&entry->task, task);
out:
	spin_unlock(&sides->lock);
	return entry;
}

static void on_birth(void *unused, struct task_struct *task,
		     unsigned long clone_flags)
{
	struct kmend_sides *sides = READ_ONCE(filling);
	struct kmend_entry *entry;

	if (!sides)
		return;
	entry = add(sides, task, sides->parks);
	if (entry && sides->parks)
		kmend_ask_newborn(entry);
}

/* Unless the task is pending in `except`, which may be null. */
static void add_unless(struct kmend_sides *sides, struct kmend_sides *except,
		       struct task_struct *task)
{
	struct kmend_entry *entry;

	entry = except ? kmend_sides_find(except, task) : NULL;
	if (!entry || !entry->pending)
		add(sides, task, false);
}

/*
 * Adds every task but those that are pending in `except`, and until
 * kmend_sides_seal() also those that are born.
 */
int kmend_sides_fill(struct kmend_sides *sides, struct kmend_sides *except)
{
	struct task_struct *process, *task;
	unsigned int cpu;
	int ret;

	WRITE_ONCE(filling, sides);
	ret = register_trace_task_newtask(on_birth, NULL);
	if (ret) {
		WRITE_ONCE(filling, NULL);
		return ret;
	}
	read_lock(&tasklist_lock);
	for_each_process_thread(process, task)
		add_unless(sides, except, task);
	read_unlock(&tasklist_lock);
	for_each_possible_cpu(cpu)
		add_unless(sides, except, idle_task(cpu));
	return 0;
}

/* No task is added from now on. */
void kmend_sides_seal(void)
{
	if (!filling)
		return;
	unregister_trace_task_newtask(on_birth, NULL);
	tracepoint_synchronize_unregister();
	WRITE_ONCE(filling, NULL);
}

void kmend_sides_publish(struct kmend_sides *sides)
{
	rcu_assign_pointer(kmend_sides, sides);
}

static void release(struct kref *kref)
{
	kvfree(container_of(kref, struct kmend_sides, kref));
}

void kmend_sides_put(struct kmend_sides *sides)
{
	kref_put(&sides->kref, release);
}

/*
 * Ends a table that nobody looks into any more but its own task work, which
 * keeps the memory and asks nothing of the tasks in it.
 */
void kmend_sides_retire(struct kmend_sides *sides)
{
	unsigned int slot;

	for (slot = 0; slot < 1U << sides->bits; slot++) {
		if (sides->entries[slot].task)
			put_task_struct(sides->entries[slot].task);
	}
	kmend_sides_put(sides);
}
