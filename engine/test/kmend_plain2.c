// SPDX-License-Identifier: GPL-2.0-only
/* A function that ftrace does not know */
#include "kmend_test.h"

KMEND_LIVING(old_plain, kmend_shapes, ks_plain);

static lone int new_plain(void)
{
	return 2;
}

TEST_PATCH("kmend_shapes", { "ks_plain", old_plain, new_plain });
