// SPDX-License-Identifier: GPL-2.0-only
/* What a kernel thread and a soft interrupt call */
#include "kmend_test.h"

KMEND_LIVING(old_step, kmend_target, kt_step);
KMEND_LIVING(old_tick, kmend_target, kt_tick);

static lone int new_step(void)
{
	return 2;
}

static lone int new_tick(void)
{
	return 2;
}

TEST_PATCH("kmend_target", { "kt_step", old_step, new_step },
	   { "kt_tick", old_tick, new_tick });
