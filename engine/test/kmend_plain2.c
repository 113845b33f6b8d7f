// SPDX-License-Identifier: GPL-2.0-only
/* A function that ftrace does not know */
#include "kmend_test.h"

CONSTANT(kmend_shapes, ks_plain, 2)

TEST_PATCH("kmend_shapes", FUNC(ks_plain));
