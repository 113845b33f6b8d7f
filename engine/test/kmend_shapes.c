// SPDX-License-Identifier: GPL-2.0-only
/* Functions of shapes that are hard to redirect, or to know when left */
#include <linux/delay.h>
#include <linux/jump_label.h>
#include <linux/kprobes.h>
#include <linux/module.h>

#include "kmend_files.h"

static DEFINE_STATIC_KEY_FALSE(key);
static bool busy, wanted = true;
static struct proc_dir_entry *root;

static int ks_recur(int depth);
static int (*recur)(int depth) = ks_recur;

/* No place for ftrace. */
static lone notrace int ks_plain(void)
{
	return 1;
}

/* Calls itself by a pointer, so that no loop is made of it. */
static lone int ks_recur(int depth)
{
	msleep(20);
	return (depth ? READ_ONCE(recur)(depth - 1) : 0) + 1;
}

/* Whether all calls were of one version. */
static int run_recur(void)
{
	int sum = ks_recur(3);

	return sum == 4 || sum == 40;
}

/* Its last act is to jump to another function. */
static lone int slumber(int result)
{
	return wait_event_killable(queue, READ_ONCE(awake)) ? -EINTR : result;
}

static lone int ks_tail(void)
{
	return slumber(1);
}

/* What is cold is moved away from the function. */
static noinline __cold int cold_slumber(void)
{
	return wait_event_killable(queue, READ_ONCE(awake));
}

static lone int ks_cold(void)
{
	if (READ_ONCE(wanted))
		return cold_slumber() ? -EINTR : 1;
	msleep(20);
	return 0;
}

/* Branches back to its first instruction. */
static lone int ks_loop(void)
{
	do {
		cpu_relax();
	} while (READ_ONCE(busy));
	return 1;
}

/* Its first instruction is one that the kernel rewrites. */
static lone int ks_key(void)
{
	if (static_branch_unlikely(&key))
		return -EINVAL;
	return 1;
}

/* The kernel puts no kprobe into it. */
static lone int ks_calm(void)
{
	return 1;
}
NOKPROBE_SYMBOL(ks_calm);

static const struct file_of files[] = {
	{ "plain", ks_plain },
	{ "recur", run_recur },
	{ "tail", ks_tail },
	{ "cold", ks_cold },
	{ "loop", ks_loop },
	{ "key", ks_key },
	{ "calm", ks_calm },
	{ "wake", wake },
	{ "tire", tire },
	{ }
};

static int __init shapes_init(void)
{
	root = make_files("kmend_shapes", files);
	return root ? 0 : -ENOMEM;
}

static void __exit shapes_exit(void)
{
	proc_remove(root);
}

module_init(shapes_init);
module_exit(shapes_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("target of the tests of kmend's consistency engine");
