// SPDX-License-Identifier: GPL-2.0-only
/* A function in which there is no room for a jump */
#include "kmend_test.h"

CONSTANT(kmend_shapes, ks_loop, 2)

TEST_PATCH("kmend_shapes", FUNC(ks_loop));
