// SPDX-License-Identifier: GPL-2.0-only
/* A function of the kernel proper */
#include <linux/seq_file.h>

#include "kmend_test.h"

KMEND_LIVING(old_show, vmlinux, cmdline_proc_show);

static lone int new_show(struct seq_file *file, void *unused)
{
	seq_puts(file, "patched by the engine\n");
	return 0;
}

TEST_PATCH(NULL, { "cmdline_proc_show", old_show, new_show });
