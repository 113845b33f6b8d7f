// SPDX-License-Identifier: GPL-2.0-only
/* Who makes a level higher and who makes it lower do so by twice as much */
#include <linux/delay.h>

#include "kmend_test.h"

KMEND_LIVING(old_up, kmend_target, kt_up);
KMEND_LIVING(old_down, kmend_target, kt_down);
KMEND_LIVING(old_alone, kmend_target, kt_alone);
KMEND_LIVING(old_lend, kmend_target, kt_lend);

static lone void new_up(atomic_t *level)
{
	atomic_add(2, level);
}

static lone void new_down(atomic_t *level)
{
	atomic_sub(2, level);
}

static lone int new_alone(void)
{
	atomic_t level = ATOMIC_INIT(0);

	new_up(&level);
	msleep(20);
	new_down(&level);
	return !atomic_read(&level);
}

static lone int new_lend(void)
{
	atomic_set(&kt_level, 0);
	new_up(&kt_level);
	msleep(20);
	kt_ask(1);
	return !atomic_read(&kt_level);
}

TEST_PATCH("kmend_target", { "kt_up", old_up, new_up },
	   { "kt_down", old_down, new_down },
	   { "kt_alone", old_alone, new_alone },
	   { "kt_lend", old_lend, new_lend });
