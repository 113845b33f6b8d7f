// SPDX-License-Identifier: GPL-2.0-only
/* Callbacks alone; may replace all other patches */
#include "kmend_calls.h"

TEST_OBJECTS(CALLS(NULL, none));

module_param_named(replace, patch.replace, bool, 0444);
