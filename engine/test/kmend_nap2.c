// SPDX-License-Identifier: GPL-2.0-only
/* A function in which tasks sleep until they are nudged */
#include "kmend_test.h"

CONSTANT(kmend_target, kt_nap, 2)

TEST_PATCH("kmend_target", FUNC(kt_nap));
