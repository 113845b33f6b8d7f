// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counts who is inside the functions that change
 *
 * While functions change, each call of one of them that runs the side which
 * is left is counted from its entry until it has returned, in one number. To
 * enter is to make a number that is not zero greater by one, and zero is for
 * good: so the number's last decrement is at once the proof that nobody is
 * inside and the switch of the whole kernel, for tasks, interrupts and idle
 * CPUs alike. No CPU is held.
 *
 * The number begins at one. Who was inside before there was a count is not in
 * it; so this one is taken away only when every task has been seen outside,
 * and every CPU without an interrupt, since functions were marked as changing
 * (tasks.c). A handler that began before that is not missed: the task that
 * runs it has the way back from ftrace on its stack, which is in every set
 * (stacks.c), and an interrupt ends before its CPU is visited.
 *
 * The handler that sends a call to its side also hooks its return, with the
 * kernel's rethook, which kretprobes use. There is one decision and one place
 * for it: two probes on one function could disagree. The hook is put where
 * the function's caller is returned to, so that what the function tail-calls
 * is inside as well. A return cannot be hooked if the kernel has no node left,
 * in an NMI (the pool of nodes may be half changed below it) and where RCU does
 * not look. Then the count is lost: the call has been counted and is never
 * taken away, so zero is never reached, which is what has to be. More nodes are
 * made and everything begins anew (change.c), or the transition is reversed.
 *
 * Invariants:
 * - The number goes up only from what is not zero. Who wants zero not to be
 *   reached counts himself and stays (kmend_count_spoil()); this cannot fail
 *   except when zero has been reached.
 * - There is a count from before the first mark until nobody looks at marks.
 * - A hooked return needs none of the engine's text once rethook_free() was
 *   called and RCU has been waited for: the kernel's own trampoline then finds
 *   no handler and frees the node. So tasks may stay inside as long as they
 *   like, after the transition, the patch and the engine are gone.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/rethook.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "engine.h"

/* The registers at the function's entry, of which rethook wants the stack. */
#ifdef arch_ftrace_regs
#define regs_of(fregs) (&arch_ftrace_regs(fregs)->regs)
#else
#define regs_of(fregs) (&(fregs)->regs)
#endif

/*
 * @inside:	who is inside, and one while there may be others
 * @lost:	zero will not be reached
 */
struct kmend_counter {
	atomic_t inside;
	bool to;
	bool lost;
	struct rethook *returns;
};

struct kmend_counter __rcu *kmend_counter;

/* The count in force; kmend_mutex is held. */
static struct kmend_counter *counter_now(void)
{
	return rcu_dereference_protected(kmend_counter,
					 lockdep_is_held(&kmend_mutex));
}

static notrace void leave(void *data)
{
	struct kmend_counter *counter = data;

	atomic_dec(&counter->inside);
}

/* Linux 6.7 gave each pool its nodes when it is made (4bbd93455659). */
#ifdef _LINUX_OBJPOOL_H
static notrace void on_return(struct rethook_node *node, void *data,
			      unsigned long to, struct pt_regs *regs)
{
	leave(data);
}
NOKPROBE_SYMBOL(on_return);

static struct rethook *hooks(struct kmend_counter *counter, unsigned int calls)
{
	return rethook_alloc(counter, on_return, sizeof(struct rethook_node),
			     calls);
}
#else
static notrace void on_return(struct rethook_node *node, void *data,
			      struct pt_regs *regs)
{
	leave(data);
}
NOKPROBE_SYMBOL(on_return);

static struct rethook *hooks(struct kmend_counter *counter, unsigned int calls)
{
	struct rethook *returns = rethook_alloc(counter, on_return);
	struct rethook_node *node;

	for (; returns && calls; calls--) {
		node = kzalloc(sizeof(*node), GFP_KERNEL);
		if (!node) {
			rethook_free(returns);
			return NULL;
		}
		rethook_add_node(returns, node);
	}
	return returns;
}
#endif

/*
 * For the ftrace handler at the entry of a function that changes: the side of
 * this call, which is counted if it is the one that is left. To be asked once
 * for each call.
 */
notrace bool kmend_count_call(struct kmend_counter *counter,
			      struct ftrace_regs *fregs)
{
	struct rethook_node *node = NULL;

	/* Somebody stays in the count, so nobody else need be in it. */
	if (READ_ONCE(counter->lost))
		return !counter->to;
	if (!atomic_inc_not_zero(&counter->inside))
		return counter->to;
	if (!in_nmi() && rcu_is_watching())
		node = rethook_try_get(counter->returns);
	if (node)
		rethook_hook(node, regs_of(fregs), true);
	else
		WRITE_ONCE(counter->lost, true);
	return !counter->to;
}

/* Whether returns of these functions can be hooked: as for a kretprobe. */
int kmend_count_check(const struct kmend_object *object)
{
	const struct kmend_func *func;
	bool never;
	int i;

	kmend_for_each_func(object, func) {
		never = within_kprobe_blacklist((unsigned long)func->old_func);
		for (i = 0; i < kretprobe_blacklist_size; i++)
			never |= kretprobe_blacklist[i].addr == func->old_func;
		if (never) {
			pr_err("returns of %s cannot be counted\n", func->name);
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

/* Begins to count, with room for more calls at once at each further attempt. */
int kmend_count_begin(void)
{
	unsigned int calls = kmend_count_tasks() + 16 * num_possible_cpus();
	struct kmend_counter *counter;

	counter = kzalloc(sizeof(*counter), GFP_KERNEL);
	if (!counter)
		return -ENOMEM;
	atomic_set(&counter->inside, 1);
	counter->to = kmend_change.to;
	counter->returns = hooks(counter, calls << kmend_change.attempts);
	if (IS_ERR_OR_NULL(counter->returns)) {
		kfree(counter);
		return -ENOMEM;
	}
	rcu_assign_pointer(kmend_counter, counter);
	return 0;
}

/* No version is marked any more, so no handler counts. */
void kmend_count_end(void)
{
	struct kmend_counter *counter = counter_now();

	if (!counter)
		return;
	RCU_INIT_POINTER(kmend_counter, NULL);
	rethook_free(counter->returns);
	/* Who is in on_return() has preemption off. */
	synchronize_rcu();
	kfree(counter);
}

/* All who were inside before have left: those who are counted are all. */
void kmend_count_all(void)
{
	atomic_dec(&counter_now()->inside);
}

/* Whether nobody is inside, which is when everyone has been switched. */
bool kmend_count_is_zero(void)
{
	return !atomic_read(&counter_now()->inside);
}

bool kmend_count_is_lost(void)
{
	return READ_ONCE(counter_now()->lost);
}

/* Zero shall not be reached. Returns false if it has been. */
bool kmend_count_spoil(void)
{
	struct kmend_counter *counter = counter_now();

	if (!atomic_inc_not_zero(&counter->inside))
		return false;
	WRITE_ONCE(counter->lost, true);
	return true;
}

static int look(struct task_struct *task, void *why)
{
	if (task != current && task_curr(task))
		return -EBUSY;
	return kmend_stack_check(task, why);
}

/* Notes who is inside, as far as it can be seen. */
void kmend_count_blockers(void)
{
	struct task_struct *process, *task;
	const char *why;
	bool any = false;

	kmend_blockers_clear();
	rcu_read_lock();
	for_each_process_thread(process, task) {
		if (task_call_func(task, look, &why) != -EADDRINUSE)
			continue;
		kmend_blocked_by(task, why);
		any = true;
	}
	rcu_read_unlock();
	if (!any)
		kmend_blocked_by(NULL, "(a call that has not returned)");
}
