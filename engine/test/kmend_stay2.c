// SPDX-License-Identifier: GPL-2.0-only
/* Functions of two modules, of which one can go while a task is in the other */
#include "kmend_test.h"

CONSTANT(kmend_shapes, ks_cold, 2)
CONSTANT(kmend_target, kt_leaf, 2)

static struct kmend_func shapes[] = { FUNC(ks_cold), { } };
static struct kmend_func target[] = { FUNC(kt_leaf), { } };

TEST_OBJECTS({ .name = "kmend_shapes", .funcs = shapes },
	     { .name = "kmend_target", .funcs = target });
