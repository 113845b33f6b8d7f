// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sends callers by a direct jump, once everyone has been switched
 *
 * Every transition is made by ftrace (by a breakpoint for functions that ftrace
 * does not know: untraced.c), because only that can send one caller here and
 * another there. When it is over, and the newest version of a site belongs to
 * a patch that asks for it, a jump of 5 bytes to that version is written right
 * behind the function's ftrace slot, and ftrace lets go of the slot. The slot
 * itself is never touched: tracers, kprobes at the entry and BPF go on as for
 * any function. What they return to is the place behind the slot, where the
 * jump begins. Before a transition that changes such a site, or may make its
 * callers differ, ftrace takes the slot again, and the bytes are put back.
 *
 * Why no stop of the machine is needed, on the way there: ftrace redirects
 * all entries, so the bytes can only be run by who was already among them, or
 * who comes by a branch. No instruction of the function branches there
 * (checked, the jump's first byte included), none of them calls but one that
 * returns to just behind, none may fault, so nobody sleeps there. Who was
 * interrupted or preempted there is waited for (wait_for_passers()). Those in
 * the rest of the old body, which a model may have left alone, stay there
 * unharmed. So the bytes belong to nobody when the jump is written. A BPF
 * program that slept on its way in comes to the jump, which is right.
 *
 * On the way back: once ftrace redirects all entries, nobody new comes to the
 * jump; who stands before it is waited for. While the bytes change, whoever
 * comes all the same is sent where the jump goes (the last argument of
 * text_poke_bp()). A caller that a sleepable BPF program holds at the entry
 * is waited for as the kernel waits when it frees what such programs return
 * to; where several are in a row at one function, one that sleeps in a later
 * one may still be between. It then runs the living function once, whose body
 * is whole.
 *
 * What else writes code: kprobes (whose mutex is held), and users of text_mutex,
 * none of which has a place among the bytes (checked). A kprobe that came
 * onto them nevertheless stops the jump from being written or taken back.
 *
 * The kernel's livepatch would find a slot free that ftrace has let go. It asks
 * for its functions when a livepatch's init runs. So while the init of any
 * such module runs, ftrace has all slots, and refuses; the jumps stay.
 *
 * Invariants, under kmend_mutex:
 * - site->hooked: entries are caught by ftrace or a breakpoint and sent to
 *   the right version. site->jumps: the jump is written. A site with a
 *   version in force is at least one of these; in a transition, hooked.
 * - site->saved holds the function's own bytes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpu.h>
#include <linux/memory.h>
#include <linux/rcupdate_trace.h>
#include <linux/slab.h>
#include <asm/text-patching.h>

#include "engine.h"

/* Livepatch modules whose init has not ended. */
struct starting {
	struct list_head node;
	const struct module *mod;
};

static LIST_HEAD(starting);

/* Code changes by nobody else, and nobody puts a kprobe into it. */
void kmend_text_lock(void)
{
	mutex_lock(&kprobe_mutex);
	cpus_read_lock();
	mutex_lock(&text_mutex);
}

void kmend_text_unlock(void)
{
	mutex_unlock(&text_mutex);
	cpus_read_unlock();
	mutex_unlock(&kprobe_mutex);
}

/*
 * Waits until nobody is between a function's entry and the end of the bytes
 * behind it who came there before: sleepable BPF programs, then who was
 * preempted, then interrupts and the idle tasks.
 */
static void wait_for_passers(void)
{
#ifdef CONFIG_TASKS_TRACE_RCU
	synchronize_rcu_tasks_trace();
#endif
	synchronize_rcu_tasks();
	kmend_synchronize();
}

static bool should_jump(struct kmend_site *site)
{
	const struct kmend_func *func = kmend_newest(site);

	/* A breakpoint says that an untraced function has been left. */
	return func && func->jump && func->new_func && !func->changing &&
	       (!site->untraced || site->hooked || site->jumps);
}

/* The bytes may be changed: they are what they were left as. */
static bool is_intact(const struct kmend_site *site, const u8 *bytes)
{
	lockdep_assert_held(&text_mutex);
	return !kmend_probe_among(site->slot, site->slot + JMP32_INSN_SIZE) &&
	       !memcmp((void *)site->slot, bytes, JMP32_INSN_SIZE);
}

static void plant(struct kmend_site *site)
{
	const struct kmend_func *func = kmend_newest(site);
	void *slot = (void *)site->slot;
	u8 now[JMP32_INSN_SIZE];

	__text_gen_insn(site->jump, JMP32_INSN_OPCODE, slot,
			(void *)kmend_entry_of(func->new_func), JMP32_INSN_SIZE);
	memcpy(now, site->saved, sizeof(now));
	if (site->untraced && site->hooked)
		now[0] = INT3_INSN_OPCODE;
	kmend_text_lock();
	if (is_intact(site, now)) {
		text_poke_bp(slot, site->jump, JMP32_INSN_SIZE, NULL);
		site->jumps = true;
	}
	kmend_text_unlock();
	if (!site->jumps)
		pr_warn("%s cannot jump: a kprobe is in the way\n", func->name);
}

static int take_back(struct kmend_site *site)
{
	int ret = -EBUSY;

	kmend_text_lock();
	if (is_intact(site, site->jump)) {
		if (site->untraced)
			kmend_untraced_park(site);
		else
			text_poke_bp((void *)site->slot, site->saved,
				     JMP32_INSN_SIZE, site->jump);
		site->jumps = false;
		ret = 0;
	}
	kmend_text_unlock();
	if (ret)
		pr_err("a kprobe is on the jump of %ps\n", site->old_func);
	return ret;
}

/*
 * Lets all sites jump that should. Not while functions differ or another may
 * claim them: who ends that calls this again.
 */
void kmend_jumps_take(void)
{
	struct kmend_site *site;
	bool any = false;

	if (kmend_change.patch || !list_empty(&starting))
		return;
	list_for_each_entry(site, &kmend_sites, node)
		any |= should_jump(site) && !site->jumps;
	if (any)
		wait_for_passers();
	list_for_each_entry(site, &kmend_sites, node) {
		if (should_jump(site) && !site->jumps)
			plant(site);
		if (site->jumps && site->hooked && !kmend_check_direct(site))
			kmend_unhook(site);
	}
}

static bool is_of(const struct kmend_site *site,
		  const struct kmend_patch *patch)
{
	const struct kmend_object *object;
	const struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (func->site == site)
				return true;
	return false;
}

static int hook_again(struct kmend_site *site)
{
	int ret = kmend_hook(site);

	if (ret)
		pr_err("ftrace does not take %ps back (%d)\n", site->old_func,
		       ret);
	return ret;
}

/*
 * Takes back the jumps of all sites that a patch is about to change, if they
 * can be changed now. What has been taken back on an error jumps again with
 * kmend_jumps_take().
 */
int kmend_jumps_leave(const struct kmend_patch *patch)
{
	bool all = patch->state == KMEND_DISABLED && patch->replace;
	struct kmend_site *site;
	bool any = false;
	int ret;

	list_for_each_entry(site, &kmend_sites, node) {
		if (!all && !is_of(site, patch))
			continue;
		ret = kmend_jump_check_model(patch, site) ?:
		      kmend_check_direct(site);
		if (!ret && site->jumps)
			ret = hook_again(site);
		if (ret)
			return ret;
		any |= site->jumps;
	}
	if (any)
		wait_for_passers();
	list_for_each_entry(site, &kmend_sites, node) {
		if (!site->jumps || !(all || is_of(site, patch)))
			continue;
		ret = take_back(site);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * The init of a livepatch module begins: ftrace is not to find sites free. To
 * be released also if this fails.
 */
int kmend_jumps_hold(const struct module *mod)
{
	struct starting *start;
	struct kmend_site *site;
	int ret = 0;

	start = kmalloc(sizeof(*start), GFP_KERNEL);
	if (!start)
		return -ENOMEM;
	start->mod = mod;
	list_add(&start->node, &starting);
	list_for_each_entry(site, &kmend_sites, node)
		if (!ret && site->jumps && !site->untraced)
			ret = hook_again(site);
	return ret;
}

/* It has ended, or the module goes. */
void kmend_jumps_release(const struct module *mod)
{
	struct starting *start;

	list_for_each_entry(start, &starting, node) {
		if (start->mod != mod)
			continue;
		list_del(&start->node);
		kfree(start);
		kmend_jumps_take();
		return;
	}
}
