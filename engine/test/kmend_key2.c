// SPDX-License-Identifier: GPL-2.0-only
/* A function in which there is no room for a jump */
#include "kmend_test.h"

KMEND_LIVING(old_key, kmend_shapes, ks_key);

static lone int new_key(void)
{
	return 2;
}

TEST_PATCH("kmend_shapes", { "ks_key", old_key, new_key });
