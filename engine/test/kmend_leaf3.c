// SPDX-License-Identifier: GPL-2.0-only
/* A third version of a leaf function */
#include "kmend_test.h"

CONSTANT(kmend_target, kt_leaf, 3)

TEST_PATCH("kmend_target", FUNC(kt_leaf));
