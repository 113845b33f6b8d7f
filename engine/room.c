// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether a function has room for a jump
 *
 * The jump's place is behind the function's ftrace slot, or where it would be.
 * What is asked here are the facts that jump.c and untraced.c rely on. They are
 * of the function as it was built, and hold for as long as it is there, but
 * for kprobes, which come and go. So they are asked once for each site, before
 * the first version is in force.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/extable.h>
#include <linux/jump_label.h>
#include <linux/kprobes.h>
#include <linux/memory.h>
#include <linux/static_call.h>
#include <asm/alternative.h>
#include <asm/ibt.h>
#include <asm/insn.h>
#include <asm/text-patching.h>

#include "engine.h"

/* A function's first byte that is neither for branches nor for ftrace. */
static unsigned long behind_entry(const void *function)
{
	unsigned long entry = ftrace_location((unsigned long)function);

	if (entry)
		return entry + MCOUNT_INSN_SIZE;
	entry = (unsigned long)function;
	return is_endbr(*(u32 *)entry) ? entry + ENDBR_INSN_SIZE : entry;
}

/* Where a version is entered without anything that only callers need. */
unsigned long kmend_entry_of(const void *function)
{
	return ftrace_location((unsigned long)function) ?:
	       behind_entry(function);
}

/* What a site is to know before it may jump, or be hooked by a breakpoint. */
void kmend_jump_init(struct kmend_site *site)
{
	site->slot = behind_entry(site->old_func);
	memcpy(site->saved, (void *)site->slot, sizeof(site->saved));
}

/* The first place with a kprobe, or 0. */
unsigned long kmend_probe_among(unsigned long start, unsigned long end)
{
	unsigned long at;
	bool probed;

	for (at = start; at < end; at++) {
		preempt_disable();
		probed = get_kprobe((void *)at);
		preempt_enable();
		if (probed)
			return at;
	}
	return 0;
}

/* Whether others write these bytes, or an instruction there may fault. */
static const char *claimed(unsigned long slot)
{
	void *first = (void *)slot, *last = first + JMP32_INSN_SIZE - 1;
	unsigned long at;

	if (jump_label_text_reserved(first, last))
		return "a static branch is";
	if (static_call_text_reserved(first, last))
		return "a static call is";
	/* This one excludes the end. */
	if (alternatives_text_reserved(first, last + 1))
		return "a lock prefix is";
	if (ftrace_text_reserved(first, last))
		return "a place of ftrace is";
	for (at = slot; at < slot + JMP32_INSN_SIZE; at++)
		if (search_exception_tables(at))
			return "an instruction that may fault is";
	return NULL;
}

/* Whether a task may sleep below the bytes and return among them. */
static const char *calls(const struct kmend_code *code, unsigned long slot)
{
	unsigned long at, end = slot + JMP32_INSN_SIZE;
	struct insn insn;

	for (at = slot; at < end; at += insn.length) {
		if (kmend_decode(&insn, at, code->end))
			return "an unknown instruction is";
		if (kmend_is_call(&insn) && at + insn.length < end)
			return "a call is";
	}
	return NULL;
}

/* Why the bytes cannot be those of a jump; null if they can. */
static const char *cannot_hold(const struct kmend_site *site)
{
	unsigned long slot = site->slot, end = slot + JMP32_INSN_SIZE;
	const char *why;

	if (end > site->code.end)
		return "the function's end is";
	if (site->untraced && within_kprobe_blacklist(slot))
		return "code that breakpoints rely on is";
	why = claimed(slot) ?: calls(&site->code, slot);
	if (why)
		return why;
	/* Who has left all of the function does not come by its branches. */
	if (kmend_branches_to(&site->code, slot + site->untraced, end))
		return "where the function branches to is";
	return NULL;
}

/* Whether there is room in the living function, which is as it was built. */
static int check_room(const struct kmend_patch *patch, const char *name,
		      struct kmend_site *site)
{
	const char *why;

	mutex_lock(&text_mutex);
	why = cannot_hold(site);
	mutex_unlock(&text_mutex);
	if (why) {
		pr_err("'%s': no room for a jump in %s: %s within %d bytes of +%#lx\n",
		       patch->mod->name, name, why, JMP32_INSN_SIZE,
		       site->slot - site->code.start);
		return -EOPNOTSUPP;
	}
	if (kmend_probe_among(site->slot, site->slot + JMP32_INSN_SIZE)) {
		pr_err("'%s': a kprobe is where %s would get a jump\n",
		       patch->mod->name, name);
		return -EBUSY;
	}
	site->fits = true;
	return 0;
}

static int check_func(const struct kmend_patch *patch,
		      const struct kmend_func *func)
{
	struct kmend_site *site = func->site;
	long distance;

	if (site->untraced && !patch->jump) {
		pr_err("'%s': only a jump can redirect %s, which ftrace does not know\n",
		       patch->mod->name, func->name);
		return -EOPNOTSUPP;
	}
	if (!patch->jump || !func->new_func)
		return 0;
	distance = kmend_entry_of(func->new_func) - (site->slot + JMP32_INSN_SIZE);
	if (distance != (s32)distance) {
		pr_err("'%s': the new %s is too far for a jump\n",
		       patch->mod->name, func->name);
		return -EOPNOTSUPP;
	}
	return site->fits ? 0 : check_room(patch, func->name, site);
}

/*
 * Whether functions without ftrace are only switched with the machine stopped.
 */
int kmend_jump_check_model(const struct kmend_patch *patch,
			   const struct kmend_site *site)
{
	if (!site->untraced || patch->model->stops)
		return 0;
	pr_err("'%s': %ps can only be switched with the machine stopped\n",
	       patch->mod->name, site->old_func);
	return -EOPNOTSUPP;
}

/*
 * Whether the functions of an object, which have their sites, can be redirected
 * as the patch asks, and in the transition that there may be.
 */
int kmend_jump_check(const struct kmend_patch *patch,
		     const struct kmend_object *object)
{
	bool moves = kmend_change.patch == patch || kmend_is_replaced(patch);
	const struct kmend_func *func;
	int ret;

	kmend_for_each_func(object, func) {
		ret = check_func(patch, func);
		if (!ret && moves)
			ret = kmend_jump_check_model(kmend_change.patch,
						     func->site);
		if (ret)
			return ret;
	}
	return 0;
}
