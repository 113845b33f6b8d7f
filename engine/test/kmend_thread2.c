// SPDX-License-Identifier: GPL-2.0-only
/* What a kernel thread and a soft interrupt call */
#include "kmend_test.h"

CONSTANT(kmend_target, kt_step, 2)
CONSTANT(kmend_target, kt_tick, 2)

TEST_PATCH("kmend_target", FUNC(kt_step), FUNC(kt_tick));
