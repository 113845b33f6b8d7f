// SPDX-License-Identifier: GPL-2.0-only
/* A function that ends with a jump, here to a helper that sleeps */
#include <linux/delay.h>

#include "kmend_test.h"

KMEND_LIVING(old_tail, kmend_shapes, ks_tail);

static lone int helper(int result)
{
	msleep(4000);
	return result;
}

static lone int new_tail(void)
{
	return helper(2);
}

TEST_PATCH("kmend_shapes", { "ks_tail", old_tail, new_tail });
