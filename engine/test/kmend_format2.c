// SPDX-License-Identifier: GPL-2.0-only
/* Producer and consumer change the format of what they hand over */
#include <linux/delay.h>

#include "kmend_test.h"

KMEND_LIVING(old_put, kmend_target, kt_put);
KMEND_LIVING(old_take, kmend_target, kt_take);

static lone int new_put(void)
{
	kt_message = 50;
	msleep(20);
	return kt_ask(2) == 5;
}

static lone int new_take(void)
{
	return kt_message / 10;
}

TEST_PATCH("kmend_target", { "kt_put", old_put, new_put },
	   { "kt_take", old_take, new_take });
