// SPDX-License-Identifier: GPL-2.0-only
/* A function with a part that is moved away */
#include "kmend_test.h"

KMEND_LIVING(old_cold, kmend_shapes, ks_cold);

static lone int new_cold(void)
{
	return 2;
}

TEST_PATCH("kmend_shapes", { "ks_cold", old_cold, new_cold });
