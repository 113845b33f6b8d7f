// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sends the callers of a function to the version in force
 *
 * Each patched function has one site with an ftrace_ops of its own and a stack
 * of versions, newest first. ftrace lets only one IPMODIFY user onto a
 * function, so that what the kernel's livepatch has patched is refused here
 * and the other way round; PERMANENT keeps ftrace on while a site is there.
 *
 * Invariants:
 * - A site is registered with ftrace before its first version is inserted and
 *   until after its last is removed: with an empty stack the living function
 *   runs. So inserting and removing versions is fast and cannot fail. Only
 *   between transitions a jump may stand in for ftrace (jump.c). Functions
 *   without a place for ftrace have untraced.c instead.
 * - The handler runs with preemption off, and calls only what is notrace.
 *   Who removes a version calls kmend_synchronize() before it is touched
 *   again or its module may go.
 * - Stacks are changed under kmend_mutex, or with the machine stopped. Who
 *   only looks on (show.c) does so under RCU, for which a site is kept.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/trace_recursion.h>
#include <asm/cpufeature.h>

#include "engine.h"

/* Linux 6.12 gave the macro its second name (e4cf33ca4812). */
#ifdef ftrace_regs_set_instruction_pointer
#define set_ip(fregs, ip) ftrace_regs_set_instruction_pointer(fregs, ip)
#else
#define set_ip(fregs, ip) ftrace_instruction_pointer_set(fregs, ip)
#endif

/* A BPF program is attached within some grace periods: tenths of a second. */
#define HOOK_TRIES 500

LIST_HEAD(kmend_sites);

/* Whether the call, of a function that changes, is on the patched side. */
static notrace bool side_of_call(struct ftrace_regs *fregs)
{
	struct kmend_counter *counter = rcu_dereference_raw(kmend_counter);

	return counter ? kmend_count_call(counter, fregs) :
			 kmend_on_patched_side();
}

/*
 * The version that this context runs; null for the living function. One that
 * is changing exists on one side only: on the patched side if its patch is
 * enabled or disabled, on the other if another patch replaces it.
 */
static notrace struct kmend_func *pick(struct kmend_site *site,
				       struct ftrace_regs *fregs)
{
	struct kmend_func *func;
	bool known = false, side = false;

	list_for_each_entry_rcu(func, &site->versions, stack, true) {
		/*
		 * A version is marked after the sides are published (see
		 * kmend_mark()), and read here in the other order.
		 */
		if (likely(!smp_load_acquire(&func->changing)))
			return func;
		/* Where calls are counted, to ask is to enter. */
		if (!known)
			side = side_of_call(fregs);
		known = true;
		if (func->side == side)
			return func;
	}
	return NULL;
}

static notrace void redirect(unsigned long ip, unsigned long parent_ip,
			     struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct kmend_site *site = container_of(ops, struct kmend_site, ops);
	struct kmend_func *func;
	int bit;

	/* This turns preemption off. */
	bit = ftrace_test_recursion_trylock(ip, parent_ip);
	if (WARN_ON_ONCE(bit < 0))
		return;
	func = pick(site, fregs);
	if (func && func->new_func)
		set_ip(fregs, (unsigned long)func->new_func);
	ftrace_test_recursion_unlock(bit);
}

static struct kmend_site *site_of(const void *old_func)
{
	struct kmend_site *site;

	list_for_each_entry(site, &kmend_sites, node) {
		if (site->old_func == old_func)
			return site;
	}
	return NULL;
}

/*
 * While ftrace redirects a function, a BPF trampoline that calls the rest of
 * it (fexit, modify_return) does so by an indirect call to where ftrace says,
 * which for the living function is behind its slot; and for a moment after
 * ftrace has let go. A processor that wants ENDBR there (IBT) takes this for an
 * attack, and the kernel dies of it. So ftrace is not to come or go then.
 */
int kmend_check_direct(const struct kmend_site *site)
{
	unsigned long entry = ftrace_location((unsigned long)site->old_func);
	bool direct;

	if (!cpu_feature_enabled(X86_FEATURE_IBT) || !entry)
		return 0;
	/* Its hash may change, and is freed after a grace period. */
	preempt_disable();
	direct = ftrace_find_rec_direct(entry);
	preempt_enable();
	if (!direct)
		return 0;
	pr_err("a BPF program is attached to %ps, and this processor has IBT\n",
	       site->old_func);
	return -EBUSY;
}

/*
 * Who attaches or detaches a BPF program right now has the lock of the
 * function's trampoline: the kernel sleeps for a millisecond then, and says
 * EAGAIN.
 */
static int register_site(struct kmend_site *site)
{
	unsigned int tries = HOOK_TRIES;
	int ret = kmend_check_direct(site);

	if (ret)
		return ret;
	do {
		ret = register_ftrace_function(&site->ops);
	} while (ret == -EAGAIN && --tries);
	return ret;
}

/* Catches all entries; a breakpoint is set when there is need for it. */
int kmend_hook(struct kmend_site *site)
{
	int ret = 0;

	if (!site->hooked && !site->untraced)
		ret = register_site(site);
	site->hooked = !ret;
	return ret;
}

/* Waits for every handler, wherever RCU looks or not. */
void kmend_unhook(struct kmend_site *site)
{
	if (!site->untraced)
		WARN_ON(unregister_ftrace_function(&site->ops));
	site->hooked = false;
}

static int set_filter(struct kmend_site *site)
{
	int ret;

	site->ops.func = redirect;
	site->ops.flags = FTRACE_OPS_FL_DYNAMIC | FTRACE_OPS_FL_IPMODIFY |
			  FTRACE_OPS_FL_PERMANENT;
#ifndef CONFIG_HAVE_DYNAMIC_FTRACE_WITH_ARGS
	site->ops.flags |= FTRACE_OPS_FL_SAVE_REGS;
#endif
	ret = ftrace_set_filter_ip(&site->ops, (unsigned long)site->old_func,
				   0, 0);
	return ret ?: kmend_hook(site);
}

static struct kmend_site *new_site(void *old_func)
{
	struct kmend_site *site;
	int ret;

	site = kzalloc(sizeof(*site), GFP_KERNEL);
	if (!site)
		return ERR_PTR(-ENOMEM);
	site->old_func = old_func;
	site->untraced = !ftrace_location((unsigned long)old_func);
	INIT_LIST_HEAD(&site->versions);
	ret = kmend_code_find(&site->code, old_func);
	if (!ret && !site->untraced)
		ret = set_filter(site);
	if (ret) {
		ftrace_free_filter(&site->ops);
		kfree(site);
		return ERR_PTR(ret);
	}
	kmend_jump_init(site);
	list_add_rcu(&site->node, &kmend_sites);
	return site;
}

static void put_site(struct kmend_site *site)
{
	if (--site->users)
		return;
	WARN_ON(!list_empty(&site->versions));
	if (site->hooked)
		kmend_unhook(site);
	ftrace_free_filter(&site->ops);
	list_del_rcu(&site->node);
	/* A breakpoint's handler may look at it. */
	kfree_rcu(site, rcu);
}

/* Lets go of the sites of an object, whose versions have been removed. */
void kmend_sites_put(struct kmend_object *object)
{
	struct kmend_func *func;
	struct kmend_site *site;

	kmend_for_each_func(object, func) {
		site = func->site;
		/* Who looks on under RCU finds it no more. */
		WRITE_ONCE(func->site, NULL);
		if (site)
			put_site(site);
	}
	object->active = false;
}

/* Prepares all functions of an object that is there to be redirected. */
int kmend_sites_get(struct kmend_patch *patch, struct kmend_object *object)
{
	struct kmend_func *func;
	struct kmend_site *site;

	kmend_for_each_func(object, func) {
		site = site_of(func->old_func);
		if (!site)
			site = new_site(func->old_func);
		if (IS_ERR(site)) {
			pr_err("%s: cannot redirect %s (%ld)\n",
			       patch->mod->name, func->name, PTR_ERR(site));
			kmend_sites_put(object);
			return PTR_ERR(site);
		}
		site->users++;
		/* It is whole, for who looks on. */
		smp_store_release(&func->site, site);
		func->jump = patch->jump;
	}
	object->active = true;
	return 0;
}

/* Puts a version on top. If it is changing, it exists on that side only. */
void kmend_insert(struct kmend_func *func, bool changing, bool side)
{
	func->side = side;
	func->changing = changing;
	func->inserted = true;
	/* Publishes these and all that was published before. */
	list_add_rcu(&func->stack, &func->site->versions);
}

/* Says that a version exists on that side only, or on both again. */
void kmend_mark(struct kmend_func *func, bool changing, bool side)
{
	if (changing)
		func->side = side;
	/* pick() sees the side, and the sides that were published before. */
	smp_store_release(&func->changing, changing);
}

/* Takes a version away; some may still be on their way to it. */
void kmend_remove(struct kmend_func *func)
{
	list_del_rcu(&func->stack);
	func->inserted = false;
}

/* The newest version; null if there is none. */
struct kmend_func *kmend_newest(struct kmend_site *site)
{
	return list_first_entry_or_null(&site->versions, struct kmend_func,
					stack);
}

/* The version that runs on a side; null for the living function. */
struct kmend_func *kmend_version_on(const struct kmend_site *site, bool side)
{
	struct kmend_func *func;

	list_for_each_entry(func, &site->versions, stack) {
		if (!func->changing || func->side == side)
			return func;
	}
	return NULL;
}

/* The version that runs where this one does not; null for the living one. */
struct kmend_func *kmend_version_below(struct kmend_func *func)
{
	if (list_is_last(&func->stack, &func->site->versions))
		return NULL;
	return list_next_entry(func, stack);
}
