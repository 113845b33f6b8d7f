// SPDX-License-Identifier: GPL-2.0-only
/* A second version of a leaf function */
#include "kmend_test.h"

CONSTANT(kmend_target, kt_leaf, 2)

TEST_PATCH("kmend_target", FUNC(kt_leaf));
