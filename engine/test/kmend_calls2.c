// SPDX-License-Identifier: GPL-2.0-only
/* Callbacks for the kernel proper, a module that comes and goes, and a busy one */
#include "kmend_calls.h"

CONSTANT(kmend_target, kt_leaf, 2)
CONSTANT(kmend_shapes, ks_cold, 2)
CONSTANT(kmend_shapes, ks_calm, 2)

static struct kmend_func target[] = { FUNC(kt_leaf), { } };
static struct kmend_func shapes[] = { FUNC(ks_cold), FUNC(ks_calm), { } };

TEST_OBJECTS(CALLS(NULL, none), CALLS("kmend_target", target),
	     CALLS("kmend_shapes", shapes));
