/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the targets have in common: reading /proc/TARGET/NAME calls a function
 * in the reader's context and shows what it returned
 */
#ifndef KMEND_FILES_H
#define KMEND_FILES_H

#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

/* The compiler must not make another function of it, or of its callers. */
#define lone __attribute__((noipa))

struct file_of {
	const char *name;
	int (*call)(void);
};

static int show(struct seq_file *file, void *unused)
{
	const struct file_of *of = file->private;

	seq_printf(file, "%d\n", of->call());
	return 0;
}

/* The files end with one without a name. Null if there is no memory. */
static struct proc_dir_entry *make_files(const char *target,
					 const struct file_of *of)
{
	struct proc_dir_entry *root = proc_mkdir(target, NULL);

	for (; root && of->name; of++)
		proc_create_single_data(of->name, 0444, root, show, (void *)of);
	return root;
}

/* Tasks sleep until somebody reads `wake`. */
static DECLARE_WAIT_QUEUE_HEAD(queue);
static bool awake;

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

#endif
