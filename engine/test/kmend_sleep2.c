// SPDX-License-Identifier: GPL-2.0-only
/* A function in which tasks sleep, and a leaf */
#include "kmend_test.h"

KMEND_LIVING(old_sleep, kmend_target, kt_sleep);
KMEND_LIVING(old_leaf, kmend_target, kt_leaf);

static lone int new_sleep(void)
{
	return 2;
}

static lone int new_leaf(void)
{
	return 2;
}

TEST_PATCH("kmend_target", { "kt_sleep", old_sleep, new_sleep },
	   { "kt_leaf", old_leaf, new_leaf });
