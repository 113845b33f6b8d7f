// SPDX-License-Identifier: GPL-2.0-only
/*
 * Switches threads one by one, or brings them to one place
 *
 * A round visits every CPU. The visit runs in a worker thread there, so that
 * no interrupt is being served on that CPU: it turns the CPU's flag for
 * interrupts, and tries every pending task whose CPU this is. So a kernel
 * thread that keeps its CPU busy is met while it does not run, and so is the
 * idle task. A task that sleeps or waits for a CPU is switched if it has left
 * what it must leave, under the lock of its runqueue (task_call_func()).
 *
 * A user task that could not be switched is given task work, which it runs on
 * its way to user space; later it is nudged as if by a signal. Task work
 * cannot be taken back. So each piece keeps its table and the engine until it
 * has run, and the engine's exit waits for the last instruction of the last
 * one (synchronize_rcu_tasks()).
 *
 * Where nobody is switched alone, the same rounds only find out whether each
 * task has been outside. For the model that waits until all have left the
 * kernel, task work does not end at the kernel's edge: it parks the task
 * there, killable, holding no lock of the kernel, until all user tasks are
 * parked and the whole kernel is switched (stop.c), or the transition is given
 * up. Sleepers are nudged from the first round on, because all of user space
 * stands still meanwhile.
 *
 * - The task that wrote to sysfs parks like all others, when its write has
 *   returned; the rounds go on in a worker.
 * - A task that is stopped by a signal sleeps at the edge already; it is left
 *   alone, and looked at again in the stop. One that is frozen, or waits in
 *   the kernel for another user task, never comes: then everyone goes on at
 *   the timeout.
 * - The parent of vfork() waits in the kernel for its child, which is
 *   therefore not parked before it has its own memory.
 * - A fatal signal ends the parking. The task counts as inside again before it
 *   goes on to die, and is outside when it is a zombie.
 * - Threads of io_uring and vhost are looked at as kernel threads are.
 *
 * Invariants:
 * - A visit and task work may be late, by whole transitions. They look at the
 *   table that is in force under RCU, and do nothing if it is frozen. Who
 *   freezes a table calls synchronize_rcu() before he relies on it.
 * - A round waits for visits for a second at most: a CPU that does not come
 *   to them holds up the transition, not the engine.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "engine.h"

/* User tasks that never see user space, as threads of io_uring and vhost. */
#ifdef PF_USER_WORKER
#define NEVER_IN_USER (PF_KTHREAD | PF_USER_WORKER)
#else
#define NEVER_IN_USER (PF_KTHREAD | PF_IO_WORKER)
#endif

/* Rounds until tasks are nudged, and between nudges. */
#define NUDGE 10

static DECLARE_WAIT_QUEUE_HEAD(parking);

static DEFINE_PER_CPU(struct work_struct, visits);
static atomic_t visiting;
static DECLARE_WAIT_QUEUE_HEAD(visited);

static void settle(struct kmend_entry *entry)
{
	WRITE_ONCE(entry->pending, false);
	atomic_dec(&entry->sides->pending);
}

/* Whether the task can only be switched by itself, at the kernel's edge. */
static bool leaves_by_itself(const struct kmend_entry *entry,
			     const struct task_struct *task)
{
	return entry->sides->leave == LEAVE_KERNEL &&
	       !(task->flags & NEVER_IN_USER) &&
	       !READ_ONCE(task->exit_state);
}

struct attempt {
	struct kmend_entry *entry;
	const char *why;
};

/* With preemption off; `task` is current or cannot start to run. */
static int try_task(struct task_struct *task, void *arg)
{
	struct attempt *attempt = arg;
	struct kmend_entry *entry = attempt->entry;
	bool alone;
	int ret;

	if (!entry->pending)
		return 0;
	attempt->why = "(running)";
	if (READ_ONCE(entry->sides->frozen))
		return -EAGAIN;
	if (task != current && task_curr(task))
		return -EBUSY;
	attempt->why = "(has not left the kernel)";
	alone = leaves_by_itself(entry, task);
	if (alone && !(entry->sides->parks && task_is_stopped(task)))
		return -EBUSY;
	ret = kmend_stack_check(task, &attempt->why);
	/* A stopped task may go on: the stop looks at it again. */
	if (!ret && !alone)
		settle(entry);
	return ret;
}

static int try_entry(struct kmend_entry *entry, const char **why)
{
	struct attempt attempt = { .entry = entry };
	int ret;

	if (entry->task == current) {
		preempt_disable();
		ret = try_task(current, &attempt);
		preempt_enable();
	} else {
		ret = task_call_func(entry->task, try_task, &attempt);
	}
	*why = attempt.why;
	return ret;
}

static void visit_cpu(struct kmend_sides *sides, unsigned int cpu)
{
	struct kmend_entry *entry = sides->entries;
	struct kmend_entry *end = entry + (1UL << sides->bits);
	unsigned long flags;
	const char *why;

	if (!sides->parks) {
		local_irq_save(flags);
		this_cpu_write(kmend_irq_side, sides->to);
		local_irq_restore(flags);
	}
	for (; entry < end; entry++) {
		if (entry->task && READ_ONCE(entry->pending) &&
		    task_cpu(entry->task) == cpu)
			try_entry(entry, &why);
	}
}

static void visit(struct work_struct *work)
{
	struct kmend_sides *sides;

	rcu_read_lock();
	sides = rcu_dereference(kmend_sides);
	/* A worker of an unplugged CPU may be anywhere. */
	migrate_disable();
	/* The table is whole: see kmend_begin(). */
	if (sides && !smp_load_acquire(&sides->frozen))
		visit_cpu(sides, smp_processor_id());
	migrate_enable();
	rcu_read_unlock();
	if (atomic_dec_and_test(&visiting))
		wake_up(&visited);
}

/* Nothing runs on a CPU that is not there. */
static void settle_offline(struct kmend_sides *sides, unsigned int cpu)
{
	struct kmend_entry *entry = kmend_sides_find(sides, idle_task(cpu));

	if (!sides->parks)
		per_cpu(kmend_irq_side, cpu) = sides->to;
	if (entry && entry->pending)
		settle(entry);
}

static void visit_all(struct kmend_sides *sides)
{
	unsigned int cpu;

	cpus_read_lock();
	for_each_possible_cpu(cpu) {
		if (!cpu_online(cpu)) {
			settle_offline(sides, cpu);
			continue;
		}
		atomic_inc(&visiting);
		if (!queue_work_on(cpu, system_wq, per_cpu_ptr(&visits, cpu)))
			atomic_dec(&visiting);
	}
	cpus_read_unlock();
	wait_event_timeout(visited, !atomic_read(&visiting), HZ);
}

/* Keeps current where it is, at the kernel's edge, until all are there. */
static void park(struct kmend_entry *entry)
{
	struct kmend_sides *sides = entry->sides;

	if (!wait_event_state(parking, READ_ONCE(sides->open),
			      (TASK_KILLABLE | TASK_FREEZABLE)))
		return;
	WRITE_ONCE(entry->pending, true);
	atomic_inc(&sides->pending);
}

/* Who is parked in this table goes on, and nobody parks any more. */
void kmend_unpark(struct kmend_sides *sides)
{
	WRITE_ONCE(sides->open, true);
	wake_up_all(&parking);
}

/* Run by a task on its way to user space, or somewhere deep in the kernel. */
static void leaving(struct callback_head *work)
{
	struct kmend_entry *entry = container_of(work, struct kmend_entry, work);
	struct kmend_sides *sides = entry->sides;
	bool left = false, frozen;
	const char *why;

	rcu_read_lock();
	preempt_disable();
	/* As in visit(). */
	frozen = smp_load_acquire(&sides->frozen);
	if (rcu_access_pointer(kmend_sides) == sides && !frozen &&
	    entry->pending) {
		if (sides->leave == LEAVE_KERNEL)
			left = kmend_at_edge() &&
			       !(sides->parks && current->vfork_done);
		else
			left = !kmend_stack_check(current, &why);
		if (left)
			settle(entry);
		if (left && !atomic_read(&sides->pending))
			kmend_change_soon();
	}
	preempt_enable();
	rcu_read_unlock();
	if (left && sides->parks)
		park(entry);
	/* The work is not touched any more: see ask(). */
	smp_store_release(&entry->queued, false);
	kmend_sides_put(sides);
	module_put(THIS_MODULE);
}

/* `queued` is set already. */
static bool queue(struct kmend_entry *entry)
{
	kref_get(&entry->sides->kref);
	__module_get(THIS_MODULE);
	init_task_work(&entry->work, leaving);
	if (!task_work_add(entry->task, &entry->work, TWA_RESUME))
		return true;
	/* It is past its last task work, and soon dead. */
	entry->queued = false;
	kmend_sides_put(entry->sides);
	module_put(THIS_MODULE);
	return false;
}

/* Before the task first runs. */
void kmend_ask_newborn(struct kmend_entry *entry)
{
	if (entry->task->flags & NEVER_IN_USER)
		/* Now rounds may ask it: see ask(). */
		smp_store_release(&entry->queued, false);
	else
		queue(entry);
}

static void ask(struct kmend_entry *entry, bool nudge)
{
	struct task_struct *task = entry->task;

	if (task->flags & PF_KTHREAD) {
		if (nudge)
			wake_up_state(task, TASK_INTERRUPTIBLE);
		return;
	}
	/* Not before leaving() has done with it. */
	if (!smp_load_acquire(&entry->queued)) {
		entry->queued = true;
		if (!queue(entry))
			return;
	}
	if (nudge)
		set_notify_signal(task);
}

static bool interrupts_switched(const struct kmend_sides *sides)
{
	unsigned int cpu;

	/* They are by the stop. */
	if (sides->parks)
		return true;
	for_each_possible_cpu(cpu) {
		if (per_cpu(kmend_irq_side, cpu) != sides->to)
			return false;
	}
	return true;
}

/*
 * In the stop: whether a user task is not where it has left the kernel, which
 * only who is parked, stopped or dead has.
 */
bool kmend_is_inside(struct kmend_sides *sides, struct task_struct *task)
{
	struct kmend_entry *entry = kmend_sides_find(sides, task);

	if (task->flags & NEVER_IN_USER || READ_ONCE(task->exit_state) ||
	    task_is_stopped(task))
		return false;
	return !entry || entry->pending;
}

/*
 * Tries to switch all that are pending. Returns whether nobody is left; who is
 * left has been asked to come along.
 */
bool kmend_tasks_round(struct kmend_sides *sides, unsigned int round)
{
	struct kmend_entry *entry = sides->entries;
	struct kmend_entry *end = entry + (1UL << sides->bits);
	bool nudge = sides->parks || (round && !(round % NUDGE));
	unsigned int left = 0;
	const char *why;

	kmend_blockers_clear();
	visit_all(sides);
	for (; atomic_read(&sides->pending) && entry < end; entry++) {
		/* With the rest of the entry: see kmend_sides_find(). */
		if (!smp_load_acquire(&entry->task) ||
		    !READ_ONCE(entry->pending))
			continue;
		if (!try_entry(entry, &why))
			continue;
		left++;
		kmend_blocked_by(entry->task, why);
		ask(entry, nudge);
	}
	return !left && interrupts_switched(sides);
}

static void nothing(struct work_struct *work)
{
}

/*
 * Waits until every CPU has switched tasks, so that no handler runs that began
 * before. Unlike synchronize_rcu() it waits for handlers where RCU does not
 * look, too: at the kernel's edge and in the idle loop.
 */
void kmend_synchronize(void)
{
	schedule_on_each_cpu(nothing);
}

void kmend_tasks_init(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		INIT_WORK(per_cpu_ptr(&visits, cpu), visit);
}

/* No task work is queued any more: each piece has a reference to the engine. */
void kmend_tasks_exit(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		flush_work(per_cpu_ptr(&visits, cpu));
	synchronize_rcu_tasks();
}
