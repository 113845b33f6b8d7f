// SPDX-License-Identifier: GPL-2.0-only
/* A function with a part that is moved away */
#include "kmend_test.h"

CONSTANT(kmend_shapes, ks_cold, 2)

TEST_PATCH("kmend_shapes", FUNC(ks_cold));
