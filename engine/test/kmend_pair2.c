// SPDX-License-Identifier: GPL-2.0-only
/* Caller and callee change the meaning of an argument */
#include <linux/delay.h>

#include "kmend_test.h"

KMEND_LIVING(old_a, kmend_target, kt_a);
KMEND_LIVING(old_b, kmend_target, kt_b);

static lone int new_b(int length)
{
	return length / 10;
}

static lone int new_a(void)
{
	int first = new_b(1000);

	msleep(30);
	return first * 1000 + new_b(1000);
}

TEST_PATCH("kmend_target", { "kt_a", old_a, new_a }, { "kt_b", old_b, new_b });
