// SPDX-License-Identifier: GPL-2.0-only
/* Functions of two modules, of which one can go while a task is in the other */
#include "kmend_test.h"

KMEND_LIVING(old_cold, kmend_shapes, ks_cold);
KMEND_LIVING(old_leaf, kmend_target, kt_leaf);

static lone int new_cold(void)
{
	return 2;
}

static lone int new_leaf(void)
{
	return 2;
}

static struct kmend_func shapes[] = { { "ks_cold", old_cold, new_cold }, { } };
static struct kmend_func target[] = { { "kt_leaf", old_leaf, new_leaf }, { } };

TEST_OBJECTS({ .name = "kmend_shapes", .funcs = shapes },
	     { .name = "kmend_target", .funcs = target });
