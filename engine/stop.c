// SPDX-License-Identifier: GPL-2.0-only
/*
 * Switches the whole kernel at one instant
 *
 * All CPUs are stopped with interrupts off. One of them walks the stack of
 * every task; the others wait for its verdict. If every task has left the
 * patched set, and every user task the kernel if the model asks for that, the
 * walker turns the side of all tasks by one store, and each
 * CPU turns its own flag for interrupts, so that an NMI is either before or
 * after the switch.
 *
 * The list of tasks is stable: who changes it has interrupts off, who reads it
 * preemption. Tasks that run elsewhere are the stoppers of the other CPUs,
 * which cannot be walked. What is on their stacks is on the walker's too, down
 * to the function that spins for its turn; what that calls as it spins is not
 * checked. (A CPU that has gone offline runs nothing.)
 *
 * The same stop sets and takes away the breakpoints of functions that ftrace
 * does not know (untraced.c). Each CPU synchronizes itself with the changed code.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/stop_machine.h>
#include <linux/timekeeping.h>
#include <asm/sync_core.h>

#include "engine.h"

struct stop {
	struct kmend_sides *sides;
	atomic_t walkers;
	bool walked;
	int verdict;
	u64 pause_ns;
};

static int check_task(struct kmend_sides *sides, struct task_struct *task)
{
	const char *why = "(has not left the kernel)";
	int ret = -EBUSY;

	if (task != current && task_curr(task))
		return 0;
	if (!sides->parks || !kmend_is_inside(sides, task))
		ret = kmend_stack_check(task, &why);
	if (ret)
		kmend_blocked_by(task, why);
	return ret;
}

static int check_all(struct kmend_sides *sides)
{
	struct task_struct *process, *task;
	unsigned int cpu;
	int ret;

	for_each_process_thread(process, task) {
		ret = check_task(sides, task);
		if (ret)
			return ret;
	}
	for_each_possible_cpu(cpu) {
		ret = check_task(sides, idle_task(cpu));
		if (ret)
			return ret;
	}
	return 0;
}

static void walk(struct stop *stop)
{
	struct kmend_sides *sides = stop->sides;
	unsigned int cpu;

	stop->verdict = check_all(sides);
	if (stop->verdict)
		return;
	for_each_possible_cpu(cpu) {
		if (!cpu_online(cpu))
			per_cpu(kmend_irq_side, cpu) = sides->to;
	}
	kmend_untraced_switch(sides->to);
	WRITE_ONCE(sides->others, sides->to);
}

static int stopped(void *arg)
{
	struct stop *stop = arg;
	u64 start;

	if (atomic_inc_return(&stop->walkers) == 1) {
		start = ktime_get_mono_fast_ns();
		walk(stop);
		stop->pause_ns = ktime_get_mono_fast_ns() - start;
		/* The verdict is there. */
		smp_store_release(&stop->walked, true);
	} else {
		/* Waits for the verdict. */
		while (!smp_load_acquire(&stop->walked))
			cpu_relax();
	}
	if (!stop->verdict) {
		sync_core();
		this_cpu_write(kmend_irq_side, stop->sides->to);
	}
	return stop->verdict;
}

/*
 * Returns 0 if everyone has been switched, else why not, with the blockers
 * noted. The time for which the machine was held is of the last try.
 */
int kmend_stop_and_switch(struct kmend_sides *sides, u64 *pause_ns)
{
	struct stop stop = { .sides = sides };
	int ret;

	kmend_blockers_clear();
	ret = kmend_untraced_prepare();
	if (!ret)
		ret = stop_machine_cpuslocked(stopped, &stop, cpu_online_mask);
	kmend_untraced_done();
	*pause_ns = stop.pause_ns;
	return ret;
}
