// SPDX-License-Identifier: GPL-2.0-only
/* Functions for the test patches to replace */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/timer.h>

#include "kmend_files.h"

static struct proc_dir_entry *root;
static struct task_struct *thread;
static int last_step, last_tick;

/* Returns a constant. */
static lone int kt_leaf(void)
{
	return 1;
}

/* Takes centimetres; a patch makes it take millimetres, as its caller does. */
static lone int kt_b(int length)
{
	return length;
}

/* 100 twice, if caller and callee agree each time. */
static lone int kt_a(void)
{
	int first = kt_b(100);

	msleep(30);
	return first * 1000 + kt_b(100);
}

static lone int kt_get(void)
{
	return 7;
}

static lone int kt_use(int value)
{
	return value == 7;
}

/* Is not patched, and carries a value from one to the other. */
static lone int carry(void)
{
	int value = kt_get();

	msleep(30);
	return kt_use(value);
}

/* Is not patched either, and keeps what it got for as long as it loops. */
static lone int keep(void)
{
	int value = kt_get(), right = 1, i;

	for (i = 0; i < 3; i++) {
		msleep(20);
		right &= kt_use(value);
	}
	return right;
}

/* What a kernel thread does for who asks: `job` is 0 when it has. */
static int job, answer;
static atomic_t kt_level;
static int kt_message;

/* To be greater by what kt_down() makes it smaller. */
static lone void kt_up(atomic_t *level)
{
	atomic_inc(level);
}

static lone void kt_down(atomic_t *level)
{
	atomic_dec(level);
}

/* Both in one thread. */
static lone int kt_alone(void)
{
	atomic_t level = ATOMIC_INIT(0);

	kt_up(&level);
	msleep(20);
	kt_down(&level);
	return !atomic_read(&level);
}

/* Has a kernel thread do it, and waits. */
static lone int kt_ask(int what)
{
	/* What the job is about is written. */
	smp_store_release(&job, what);
	/* And its answer, when it is done. */
	return wait_event_timeout(queue, !smp_load_acquire(&job), HZ) ?
		       READ_ONCE(answer) : -ETIME;
}

/* One in this thread, the other in the kernel thread. */
static lone int kt_lend(void)
{
	atomic_set(&kt_level, 0);
	kt_up(&kt_level);
	msleep(20);
	kt_ask(1);
	return !atomic_read(&kt_level);
}

/* Producer and consumer. */
static lone int kt_put(void)
{
	kt_message = 5;
	msleep(20);
	return kt_ask(2) == 5;
}

static lone int kt_take(void)
{
	return kt_message;
}

static void work(void)
{
	/* What it is about is read after it. */
	int what = smp_load_acquire(&job);

	if (!what)
		return;
	if (what == 1)
		kt_down(&kt_level);
	else
		WRITE_ONCE(answer, kt_take());
	/* After the answer. */
	smp_store_release(&job, 0);
	wake_up_all(&queue);
}

static DEFINE_MUTEX(asking);
static DEFINE_MUTEX(kt_first);
static DEFINE_MUTEX(kt_second);

static int one_at_a_time(int (*call)(void))
{
	int ret;

	mutex_lock(&asking);
	ret = call();
	mutex_unlock(&asking);
	return ret;
}

static int lend(void)
{
	return one_at_a_time(kt_lend);
}

static int put(void)
{
	return one_at_a_time(kt_put);
}

/* Returns 0 if it waits so long for the other that it must be a deadlock. */
static lone int kt_both(struct mutex *one, struct mutex *other)
{
	int tries = 20;

	mutex_lock(one);
	msleep(20);
	while (!mutex_trylock(other) && --tries)
		msleep(20);
	if (tries)
		mutex_unlock(other);
	mutex_unlock(one);
	return tries > 0;
}

/* A patch changes the order. */
static lone int kt_order(void)
{
	return kt_both(&kt_first, &kt_second);
}

/* Sleeps until somebody reads `wake`; a nudge does not wake it. */
static lone int kt_sleep(void)
{
	return wait_event_killable(queue, READ_ONCE(awake)) ? -EINTR : 1;
}

/* The same, but a nudge wakes it, and it begins again. */
static lone int kt_nap(void)
{
	return wait_event_interruptible(queue, READ_ONCE(awake)) ? -EINTR : 1;
}

/* Called again and again by a kernel thread. */
static lone int kt_step(void)
{
	return 1;
}

static int step(void)
{
	return READ_ONCE(last_step);
}

/* Called in soft interrupts. */
static lone int kt_tick(void)
{
	return 1;
}

static int tick(void)
{
	return READ_ONCE(last_tick);
}

static void on_timer(struct timer_list *timer)
{
	WRITE_ONCE(last_tick, kt_tick());
	mod_timer(timer, jiffies + 1);
}

static DEFINE_TIMER(timer, on_timer);

static int loop(void *unused)
{
	while (!kthread_should_stop()) {
		WRITE_ONCE(last_step, kt_step());
		work();
		cond_resched();
		schedule_timeout_interruptible(1);
	}
	return 0;
}

/* What a call costs, in cycles; with QEMU's -icount in instructions. */
static int cost(void)
{
	unsigned long flags;
	cycles_t start;
	int i;

	local_irq_save(flags);
	start = get_cycles();
	for (i = 0; i < 10000; i++)
		kt_leaf();
	start = get_cycles() - start;
	local_irq_restore(flags);
	return (int)start / 10000;
}

static const struct file_of files[] = {
	{ "leaf", kt_leaf },
	{ "pair", kt_a },
	{ "carry", carry },
	{ "keep", keep },
	{ "alone", kt_alone },
	{ "lend", lend },
	{ "put", put },
	{ "order", kt_order },
	{ "sleep", kt_sleep },
	{ "nap", kt_nap },
	{ "wake", wake },
	{ "tire", tire },
	{ "step", step },
	{ "tick", tick },
	{ "cost", cost },
	{ }
};

static int __init target_init(void)
{
	thread = kthread_run(loop, NULL, "kmend_target");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	root = make_files("kmend_target", files);
	if (!root) {
		kthread_stop(thread);
		return -ENOMEM;
	}
	mod_timer(&timer, jiffies + 1);
	return 0;
}

static void __exit target_exit(void)
{
	proc_remove(root);
	kthread_stop(thread);
	del_timer_sync(&timer);
}

module_init(target_init);
module_exit(target_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("target of the tests of kmend's consistency engine");
