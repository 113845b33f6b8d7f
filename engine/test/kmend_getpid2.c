// SPDX-License-Identifier: GPL-2.0-only
/* A system call */
#include <linux/sched.h>

#include "kmend_test.h"

KMEND_LIVING(old_getpid, vmlinux, __x64_sys_getpid);

static lone long new_getpid(const struct pt_regs *regs)
{
	return task_tgid_vnr(current) + 1000000;
}

TEST_PATCH(NULL, { "__x64_sys_getpid", old_getpid, new_getpid });
