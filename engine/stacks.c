// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether a task has left what it must leave
 *
 * A task has left the patched set if its stack can be walked reliably and no
 * address on it is in the set. When a patch is enabled, the set is the
 * versions that are in force now; when it is disabled, it is all code of its
 * module, so that a helper or the target of a tail call counts as well as the
 * function that is redirected.
 *
 * An end of a range counts as inside: it is where a call that does not return
 * would return to, and functions have padding behind them. A part of a
 * function that the compiler moved away (.cold) belongs to it.
 *
 * A task that was preempted between the handler's choice and the jump to what
 * it chose has neither on its stack, but the place behind the living
 * function's call of ftrace. Nothing else leaves that there, so it belongs to
 * every set.
 *
 * Where a return is hooked, by a kretprobe, by the function graph tracer or by
 * refcount.c, the kernel's unwinder finds the way behind in the task's own
 * lists. Two things it cannot be asked. Linux 6.1 does not read the list of a
 * task that waits for a CPU, and warns if one asks (rethook_find_ret_addr();
 * 6.12 just says that the stack is not reliable). And if the tracer's hook was
 * put in below another, 6.1 takes the tracer's for the end of the stack. So
 * the one is not asked, and the other is not believed.
 *
 * Invariants:
 * - A set is replaced as a whole under kmend_mutex and read under RCU.
 * - Who asks has preemption off, and the task cannot run meanwhile: it is
 *   current, or its runqueue is locked (task_call_func()), or all CPUs are
 *   stopped.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/entry-common.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>

#include "engine.h"

/* As many as the kernel's livepatch takes; a deeper stack is not reliable. */
#define DEEPEST 100

static DEFINE_PER_CPU(unsigned long[DEEPEST], traces);
struct kmend_set __rcu *kmend_set;

/* The last functions of the kernel on the ways to user space. */
static struct kmend_range ways_out[2];

/* The function graph tracer's hook. */
static struct kmend_range tracer;

static bool is_in(const struct kmend_range *range, unsigned long address)
{
	return range->mod ? within_module_core(address, range->mod) :
	       address >= range->start && address <= range->end;
}

static const char *held_by(const struct kmend_set *set, unsigned long address)
{
	const struct kmend_range *range = set->ranges;
	const struct kmend_range *end = range + set->count;

	for (; range < end; range++) {
		if (is_in(range, address))
			return range->name;
	}
	return NULL;
}

/* Whether the task is outside of the set; if not, `why` says what holds it. */
int kmend_stack_check(struct task_struct *task, const char **why)
{
	unsigned long *trace = this_cpu_ptr(traces);
	const struct kmend_set *set;
	int depth, i;

	*why = "(unreliable stack)";
	if (task != current && task_is_running(task) &&
	    READ_ONCE(task->rethooks.first))
		return -EINVAL;
	depth = stack_trace_save_tsk_reliable(task, trace, DEEPEST);
	if (depth < 0)
		return -EINVAL;
	/* The last is where the walk ended. */
	if (depth && is_in(&tracer, trace[depth - 1]))
		return -EINVAL;
	set = rcu_dereference_sched(kmend_set);
	if (!set)
		return 0;
	for (i = 0; i < depth; i++) {
		*why = held_by(set, trace[i]);
		if (*why)
			return -EADDRINUSE;
	}
	return 0;
}

/*
 * Whether current is on its way to user space with nothing of a system call
 * left above: task work is also run deep in the kernel, by io_uring and KVM,
 * and when a task ends.
 */
bool kmend_at_edge(void)
{
	unsigned long *trace = this_cpu_ptr(traces);
	int depth, i;

	if (current->flags & PF_EXITING)
		return false;
	depth = stack_trace_save_tsk_reliable(current, trace, DEEPEST);
	for (i = 0; i < depth; i++) {
		if (is_in(&ways_out[0], trace[i]) ||
		    is_in(&ways_out[1], trace[i]))
			return true;
	}
	return false;
}

static int find(struct kmend_range *range, const void *function)
{
	range->start = (unsigned long)function;
	return kmend_end_find(function, &range->end);
}

static void add(struct kmend_set *set, unsigned long start, unsigned long end,
		const char *name)
{
	struct kmend_range *range = &set->ranges[set->count++];

	range->start = start;
	range->end = end;
	range->name = name;
}

static void add_code(struct kmend_set *set, const struct kmend_code *code,
		     const char *name)
{
	add(set, code->start, code->end, name);
	if (code->cold_end)
		add(set, code->cold_start, code->cold_end, name);
}

/*
 * Where ftrace would return to in the living function. Who is before a jump is
 * there, too, if ftrace has no place in it, or was not asked.
 */
static void add_entry(struct kmend_set *set, const struct kmend_func *func)
{
	const struct kmend_site *site = func->site;

	if (site->untraced)
		add_code(set, &site->code, func->name);
	else
		add(set, site->slot, site->slot, func->name);
}

/* What the version takes the place of. */
static int add_below(struct kmend_set *set, struct kmend_func *func)
{
	struct kmend_func *below = kmend_version_below(func);
	struct kmend_code code;
	int ret;

	if (!below || !below->new_func) {
		add_code(set, &func->site->code, func->name);
		return 0;
	}
	ret = kmend_code_find(&code, below->new_func);
	if (!ret)
		add_code(set, &code, func->name);
	return ret;
}

/* All code of a module. */
static void add_module(struct kmend_set *set, const struct module *mod)
{
	struct kmend_range *range = &set->ranges[set->count++];

	range->mod = mod;
	range->name = mod->name;
}

/*
 * What a patch adds to the set: what its versions take the place of (`below`),
 * else the living functions, unless neither runs on the side that is left.
 */
static int add_patch(struct kmend_set *set, struct kmend_patch *patch,
		     bool running, bool below)
{
	struct kmend_object *object;
	struct kmend_func *func;
	int ret;

	kmend_for_each_object(patch, object) {
		kmend_for_each_func(object, func) {
			if (!object->active)
				continue;
			add_entry(set, func);
			if (running && !below)
				add_code(set, &func->site->code, func->name);
			ret = running && below ? add_below(set, func) : 0;
			if (ret)
				return ret;
		}
	}
	return 0;
}

static unsigned int count_ranges(struct kmend_patch *patch)
{
	struct kmend_object *object;
	struct kmend_func *func;
	unsigned int count = 1;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			count += 4;
	return count;
}

/*
 * The set for a patch that is enabled (`to`) or disabled. Patches that are
 * replaced by it leave with what it takes the place of; on the way back it is
 * the living functions that ran instead of theirs that are left.
 */
struct kmend_set *kmend_set_make(struct kmend_patch *patch, bool to)
{
	struct kmend_patch *other;
	unsigned int count = count_ranges(patch);
	struct kmend_set *set;
	int ret;

	list_for_each_entry(other, &kmend_patches, node)
		if (kmend_is_replaced(other))
			count += count_ranges(other);
	set = kzalloc(struct_size(set, ranges, count), GFP_KERNEL);
	if (!set)
		return ERR_PTR(-ENOMEM);
	if (!to)
		add_module(set, patch->mod);
	ret = add_patch(set, patch, to && !kmend_change.drain, true);
	list_for_each_entry(other, &kmend_patches, node) {
		if (ret || !kmend_is_replaced(other))
			continue;
		if (to)
			add_module(set, other->mod);
		ret = add_patch(set, other, !to, false);
	}
	if (ret) {
		kfree(set);
		return ERR_PTR(ret);
	}
	return set;
}

void kmend_set_publish(struct kmend_set *set)
{
	struct kmend_set *old;

	old = rcu_replace_pointer(kmend_set, set,
				  lockdep_is_held(&kmend_mutex));
	if (old)
		kfree_rcu(old, rcu);
}

int kmend_stacks_init(void)
{
	int ret;

	ret = find(&ways_out[0], syscall_exit_to_user_mode);
	if (!ret)
		ret = find(&ways_out[1], irqentry_exit_to_user_mode);
	return ret ?: find(&tracer, return_to_handler);
}
