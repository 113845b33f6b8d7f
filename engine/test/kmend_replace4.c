// SPDX-License-Identifier: GPL-2.0-only
/* A version of a leaf that replaces all other patches */
#define MEMBERS .replace = true,
#include "kmend_test.h"

CONSTANT(kmend_target, kt_leaf, 4)

TEST_PATCH("kmend_target", FUNC(kt_leaf));
