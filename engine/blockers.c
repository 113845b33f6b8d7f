// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who holds a transition up, and in which function
 *
 * The first few of the last round, for people. Written and read under
 * kmend_mutex; a stopped machine writes while its initiator holds that.
 */
#include <linux/string.h>
#include <linux/sysfs.h>

#include "engine.h"

struct blocker {
	pid_t pid;
	char comm[TASK_COMM_LEN];
	const char *why;
};

static struct blocker blockers[8];
static unsigned int count;

void kmend_blockers_clear(void)
{
	count = 0;
}

/* Without a task if it is not known. */
void kmend_blocked_by(const struct task_struct *task, const char *why)
{
	struct blocker *blocker;

	if (count == ARRAY_SIZE(blockers))
		return;
	blocker = &blockers[count++];
	blocker->pid = task ? task->pid : 0;
	strscpy(blocker->comm, task ? task->comm : "-", sizeof(blocker->comm));
	blocker->why = why;
}

ssize_t kmend_blockers_show(char *buf)
{
	ssize_t length = 0;
	unsigned int i;

	for (i = 0; i < count; i++)
		length += sysfs_emit_at(buf, length, "%d %s %s\n",
					blockers[i].pid, blockers[i].comm,
					blockers[i].why);
	return length;
}
