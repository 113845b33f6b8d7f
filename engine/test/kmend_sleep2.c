// SPDX-License-Identifier: GPL-2.0-only
/* A function in which tasks sleep, and a leaf */
#include "kmend_test.h"

CONSTANT(kmend_target, kt_sleep, 2)
CONSTANT(kmend_target, kt_leaf, 2)

TEST_PATCH("kmend_target", FUNC(kt_sleep), FUNC(kt_leaf));
