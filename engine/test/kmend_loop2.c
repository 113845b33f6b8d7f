// SPDX-License-Identifier: GPL-2.0-only
/* A function in which there is no room for a jump */
#include "kmend_test.h"

KMEND_LIVING(old_loop, kmend_shapes, ks_loop);

static lone int new_loop(void)
{
	return 2;
}

TEST_PATCH("kmend_shapes", { "ks_loop", old_loop, new_loop });
