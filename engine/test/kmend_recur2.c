// SPDX-License-Identifier: GPL-2.0-only
/* A function that calls itself */
#include <linux/delay.h>

#include "kmend_test.h"

KMEND_LIVING(old_recur, kmend_shapes, ks_recur);

static lone int new_recur(int depth)
{
	msleep(20);
	return (depth ? new_recur(depth - 1) : 0) + 10;
}

TEST_PATCH("kmend_shapes", { "ks_recur", old_recur, new_recur });
