// SPDX-License-Identifier: GPL-2.0-only
/* Many tasks that sleep */
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>

static unsigned int tasks = 50;
module_param(tasks, uint, 0444);

static struct task_struct **crowd;

static int sleep_on(void *unused)
{
	set_current_state(TASK_IDLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_IDLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static void disperse(unsigned int count)
{
	while (count--)
		kthread_stop(crowd[count]);
	kvfree(crowd);
}

static int __init crowd_init(void)
{
	unsigned int i;

	crowd = kvcalloc(tasks, sizeof(*crowd), GFP_KERNEL);
	if (!crowd)
		return -ENOMEM;
	for (i = 0; i < tasks; i++) {
		crowd[i] = kthread_run(sleep_on, NULL, "kmend_crowd/%u", i);
		if (IS_ERR(crowd[i])) {
			disperse(i);
			return -ENOMEM;
		}
	}
	return 0;
}

static void __exit crowd_exit(void)
{
	disperse(tasks);
}

module_init(crowd_init);
module_exit(crowd_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a crowd for the measures of kmend's consistency engine");
