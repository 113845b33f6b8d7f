/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A patch that changes a number of the system's, and gives it back
 *
 * A patch that replaces it takes the change over: a shadow variable says what
 * the number was, and by which VERSION of the change it was made. One of an
 * older version declines.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#define MEMBERS .replace = true,

#include <linux/livepatch.h>
#include <linux/panic.h>

#include "kmend_test.h"

#define ID 1

struct change {
	int version;
	int before;
};

static int version = VERSION;
module_param(version, int, 0444);

static int pre_patch(struct kmend_object *object)
{
	struct change *change = klp_shadow_get(&panic_timeout, ID);

	if (change && change->version > version)
		return -EINVAL;
	pr_info("%s\n", change ? "take over" : "begin");
	change = klp_shadow_get_or_alloc(&panic_timeout, ID, sizeof(*change),
					 GFP_KERNEL, NULL, NULL);
	return change ? 0 : -ENOMEM;
}

static void post_patch(struct kmend_object *object)
{
	struct change *change = klp_shadow_get(&panic_timeout, ID);

	if (!change->version)
		change->before = panic_timeout;
	change->version = version;
	panic_timeout = 1000 + VERSION;
}

static void pre_unpatch(struct kmend_object *object)
{
	struct change *change = klp_shadow_get(&panic_timeout, ID);

	panic_timeout = change->before;
}

static void post_unpatch(struct kmend_object *object)
{
	pr_info("end\n");
	klp_shadow_free(&panic_timeout, ID, NULL);
}

static struct kmend_func none[] = { { } };

TEST_OBJECTS({
	.funcs = none,
	.pre_patch = pre_patch,
	.post_patch = post_patch,
	.pre_unpatch = pre_unpatch,
	.post_unpatch = post_unpatch,
});
