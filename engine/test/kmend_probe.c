// SPDX-License-Identifier: GPL-2.0-only
/* A kprobe at a function's entry, with a handler for afterwards if asked for */
#include <linux/kprobes.h>
#include <linux/module.h>

static bool after;
module_param(after, bool, 0444);

static unsigned int hits;
module_param(hits, uint, 0444);

static int before_it(struct kprobe *probe, struct pt_regs *regs)
{
	hits++;
	return 0;
}

static void after_it(struct kprobe *probe, struct pt_regs *regs,
		     unsigned long flags)
{
}

static struct kprobe probe = {
	.symbol_name = "cmdline_proc_show",
	.pre_handler = before_it,
};

static int __init probe_init(void)
{
	if (after)
		probe.post_handler = after_it;
	return register_kprobe(&probe);
}

static void __exit probe_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(probe_init);
module_exit(probe_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kprobe for the tests of kmend's consistency engine");
