// SPDX-License-Identifier: GPL-2.0-only
/* Two locks are taken in the other order */
#include "kmend_test.h"

KMEND_LIVING(old_order, kmend_target, kt_order);

static lone int new_order(void)
{
	return kt_both(&kt_second, &kt_first);
}

TEST_PATCH("kmend_target", { "kt_order", old_order, new_order });
