// SPDX-License-Identifier: GPL-2.0-only
/* A second version of a leaf function */
#include "kmend_test.h"

KMEND_LIVING(old_leaf, kmend_target, kt_leaf);

static lone int new_leaf(void)
{
	return 2;
}

TEST_PATCH("kmend_target", { "kt_leaf", old_leaf, new_leaf });
