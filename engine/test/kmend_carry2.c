// SPDX-License-Identifier: GPL-2.0-only
/* Two functions change what their caller carries over */
#include "kmend_test.h"

KMEND_LIVING(old_get, kmend_target, kt_get);
KMEND_LIVING(old_use, kmend_target, kt_use);

static lone int new_get(void)
{
	return 8;
}

static lone int new_use(int value)
{
	return value == 8;
}

TEST_PATCH("kmend_target", { "kt_get", old_get, new_get },
	   { "kt_use", old_use, new_use });
