// SPDX-License-Identifier: GPL-2.0-only
/* A function in which tasks sleep until they are nudged */
#include "kmend_test.h"

KMEND_LIVING(old_nap, kmend_target, kt_nap);

static lone int new_nap(void)
{
	return 2;
}

TEST_PATCH("kmend_target", { "kt_nap", old_nap, new_nap });
