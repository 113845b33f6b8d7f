// SPDX-License-Identifier: GPL-2.0-only
/*
 * Functions that ftrace does not know
 *
 * Such a function can only be switched with the machine stopped, and with
 * nobody anywhere in it. It is redirected by a jump at its first byte (behind
 * ENDBR). While a transition may come, a breakpoint stands there instead:
 *
 *   living --stop--> breakpoint --plant()--> jump --park()--> breakpoint
 *   --stop--> living
 *
 * So in the stop one byte of each function is written, which no CPU can see
 * half. That matters for NMIs, which no stop holds: one that is past the first
 * byte goes on in bytes that have not changed. The other bytes change while
 * the breakpoint stands before them and nobody can be among them: all of the
 * function has been left when the breakpoint is set, and a jump has no inside.
 *
 * The byte is written through another mapping, made before the stop: the
 * usual way to write code may have to ask other CPUs, which cannot answer.
 *
 * What may not be patched so is what runs on the way to a breakpoint's handler.
 * The kernel keeps kprobes, which are breakpoints too, out of the same code
 * (.noinstr.text, .entry.text, .kprobes.text and NOKPROBE_SYMBOL, asked by
 * within_kprobe_blacklist()). Where the stop itself runs in the function, it
 * is found on a stack. All other code may meet the breakpoint at any time,
 * also in an NMI. That no other function branches behind the first byte is
 * not checked; assembly might, compiled code does not.
 *
 * Invariants:
 * - Where the breakpoint stands, site->to is where it sends. It is set before
 *   and stays: who comes late goes where he would have gone.
 * - A site stays in the list, and in memory, until nobody can be on the way
 *   from a breakpoint to its handler.
 * - An NMI in the stop may see untraced functions switched and others not.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/rculist.h>
#include <linux/vmalloc.h>
#include <asm/text-patching.h>

#include "engine.h"

static const u8 breakpoint = INT3_INSN_OPCODE;

static notrace int on_breakpoint(struct notifier_block *block,
				 unsigned long event, void *data)
{
	struct pt_regs *regs = ((struct die_args *)data)->regs;
	struct kmend_site *site;

	if (event != DIE_INT3 || user_mode(regs))
		return NOTIFY_DONE;
	list_for_each_entry_rcu(site, &kmend_sites, node, true) {
		if (site->untraced && READ_ONCE(site->to) &&
		    site->slot == regs->ip - INT3_INSN_SIZE) {
			regs->ip = (unsigned long)READ_ONCE(site->to);
			return NOTIFY_STOP;
		}
	}
	return NOTIFY_DONE;
}
NOKPROBE_SYMBOL(on_breakpoint);

static struct notifier_block notifier = {
	.notifier_call = on_breakpoint,
	.priority = INT_MAX,
};

static void set_breakpoint(struct kmend_site *site,
			   const struct kmend_func *func)
{
	/* Before anybody can meet the breakpoint. */
	smp_store_release(&site->to, func->new_func);
	text_poke((void *)site->slot, &breakpoint, INT3_INSN_SIZE);
	text_poke_sync();
	site->hooked = true;
}

/* Puts the function's own bytes behind a breakpoint; the text is locked. */
void kmend_untraced_park(struct kmend_site *site)
{
	set_breakpoint(site, kmend_newest(site));
	text_poke((void *)site->slot + INT3_INSN_SIZE,
		  site->saved + INT3_INSN_SIZE,
		  sizeof(site->saved) - INT3_INSN_SIZE);
	text_poke_sync();
}

/* The functions of a module that comes, before any of them runs. */
void kmend_untraced_arrive(struct kmend_object *object)
{
	bool side = !kmend_change.patch || !kmend_change.to;
	const struct kmend_func *version;
	struct kmend_func *func;

	kmend_for_each_func(object, func) {
		version = kmend_version_on(func->site, side);
		if (!func->site->untraced || func->site->hooked ||
		    !version || !version->new_func)
			continue;
		kmend_text_lock();
		set_breakpoint(func->site, version);
		kmend_text_unlock();
	}
}

/*
 * Prepares the stop, and excludes who else writes code until
 * kmend_untraced_done(). Fails if a kprobe is in the way, or for memory.
 */
int kmend_untraced_prepare(void)
{
	struct kmend_site *site;
	struct page *page;
	void *slot;

	kmend_text_lock();
	list_for_each_entry(site, &kmend_sites, node) {
		if (!site->untraced || site->jumps)
			continue;
		slot = (void *)site->slot;
		if (*(u8 *)slot != (site->hooked ? breakpoint : *site->saved)) {
			pr_warn_ratelimited("a kprobe is on %ps\n",
					    site->old_func);
			return -EBUSY;
		}
		page = is_vmalloc_or_module_addr(slot) ?
			vmalloc_to_page(slot) : virt_to_page(slot);
		site->alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
		if (!site->alias)
			return -ENOMEM;
	}
	return 0;
}

/* The machine is stopped, and everyone has left what he had to leave. */
void kmend_untraced_switch(bool side)
{
	const struct kmend_func *func;
	struct kmend_site *site;
	u8 byte;

	list_for_each_entry(site, &kmend_sites, node) {
		if (!site->untraced || site->jumps)
			continue;
		func = kmend_version_on(site, side);
		site->hooked = func && func->new_func;
		if (site->hooked) {
			/* Before anybody can meet the breakpoint. */
			smp_store_release(&site->to, func->new_func);
		}
		byte = site->hooked ? breakpoint : *site->saved;
		WRITE_ONCE(site->alias[offset_in_page(site->slot)], byte);
	}
}

void kmend_untraced_done(void)
{
	struct kmend_site *site;

	list_for_each_entry(site, &kmend_sites, node) {
		vunmap(site->alias);
		site->alias = NULL;
	}
	kmend_text_unlock();
}

int kmend_untraced_init(void)
{
	return register_die_notifier(&notifier);
}

void kmend_untraced_exit(void)
{
	unregister_die_notifier(&notifier);
}
