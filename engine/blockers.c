// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who holds a transition up, and in which function
 *
 * The first few of the last round, for people. They are noted under kmend_mutex
 * (a stopped machine does so while its initiator holds that), and shown when
 * the round is over.
 *
 * Invariants, under kmend_shown_mutex:
 * - What is shown is of one whole round.
 * - A reason lies in the module of a patch that is in the transition. That of
 *   the last transition begins anew with the next, and is forgotten when its
 *   patch goes; so no reason is shown that is not there any more.
 */
#include <linux/string.h>
#include <linux/sysfs.h>

#include "engine.h"

struct blocker {
	pid_t pid;
	char comm[TASK_COMM_LEN];
	const char *why;
};

struct round {
	unsigned int count;
	struct blocker blockers[8];
};

static struct round now, shown;
static const struct kmend_patch *whose;

void kmend_blockers_clear(void)
{
	now.count = 0;
}

/* Without a task if it is not known. */
void kmend_blocked_by(const struct task_struct *task, const char *why)
{
	struct blocker *blocker;

	if (now.count == ARRAY_SIZE(now.blockers))
		return;
	blocker = &now.blockers[now.count++];
	blocker->pid = task ? task->pid : 0;
	strscpy(blocker->comm, task ? task->comm : "-", sizeof(blocker->comm));
	blocker->why = why;
}

/* A round of this patch's transition is over. */
void kmend_blockers_publish(const struct kmend_patch *patch)
{
	mutex_lock(&kmend_shown_mutex);
	shown = now;
	whose = patch;
	mutex_unlock(&kmend_shown_mutex);
}

/* The patch goes. */
void kmend_blockers_forget(const struct kmend_patch *patch)
{
	mutex_lock(&kmend_shown_mutex);
	if (whose == patch)
		whose = NULL;
	mutex_unlock(&kmend_shown_mutex);
}

ssize_t kmend_blockers_show(const struct kmend_patch *patch, char *buf)
{
	struct blocker *blocker = shown.blockers;
	ssize_t length = 0;

	mutex_lock(&kmend_shown_mutex);
	for (; whose == patch && blocker < shown.blockers + shown.count; blocker++)
		length += sysfs_emit_at(buf, length, "%d %s %s\n", blocker->pid,
					blocker->comm, blocker->why);
	mutex_unlock(&kmend_shown_mutex);
	return length;
}
