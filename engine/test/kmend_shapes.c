// SPDX-License-Identifier: GPL-2.0-only
/*
 * Functions of shapes that are hard to redirect, or to know when left
 *
 * Reading /proc/kmend_shapes/NAME calls a function in the reader's context and
 * shows what it returned.
 */
#include <linux/delay.h>
#include <linux/jump_label.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

#define lone __attribute__((noipa))

static DECLARE_WAIT_QUEUE_HEAD(queue);
static DEFINE_STATIC_KEY_FALSE(key);
static bool awake, busy, wanted = true;
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

static int wake(void)
{
	WRITE_ONCE(awake, true);
	wake_up_all(&queue);
	return 1;
}

static int tire(void)
{
	WRITE_ONCE(awake, false);
	return 1;
}

struct file_of {
	const char *name;
	int (*call)(void);
};

static const struct file_of files[] = {
	{ "plain", ks_plain },
	{ "recur", run_recur },
	{ "tail", ks_tail },
	{ "cold", ks_cold },
	{ "loop", ks_loop },
	{ "key", ks_key },
	{ "wake", wake },
	{ "tire", tire },
};

static int show(struct seq_file *file, void *unused)
{
	const struct file_of *of = file->private;

	seq_printf(file, "%d\n", of->call());
	return 0;
}

static int __init shapes_init(void)
{
	int i;

	root = proc_mkdir("kmend_shapes", NULL);
	if (!root)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(files); i++)
		proc_create_single_data(files[i].name, 0444, root, show,
					(void *)&files[i]);
	return 0;
}

static void __exit shapes_exit(void)
{
	proc_remove(root);
}

module_init(shapes_init);
module_exit(shapes_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("target of the tests of kmend's consistency engine");
