/* SPDX-License-Identifier: GPL-2.0-only */
/* Callbacks and hooks that say when they are called, and may decline */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

static int load_hook(void);
static void unload_hook(void);

#define MEMBERS .load_hook = load_hook, .unload_hook = unload_hook,
#include "kmend_test.h"

/* What the next of these returns. */
static int decline;
module_param(decline, int, 0644);

static const char *state_of(const struct kmend_object *object)
{
	if (!object->name)
		return "there";
	switch (object->mod->state) {
	case MODULE_STATE_LIVE:
		return "live";
	case MODULE_STATE_COMING:
		return "coming";
	case MODULE_STATE_GOING:
		return "going";
	default:
		return "?";
	}
}

static void say(const char *what, const struct kmend_object *object)
{
	pr_info("%s %s %s\n", what, object->name ?: "vmlinux",
		state_of(object));
}

static int load_hook(void)
{
	pr_info("load\n");
	return decline;
}

static void unload_hook(void)
{
	pr_info("unload\n");
}

static int pre_patch(struct kmend_object *object)
{
	say("pre_patch", object);
	return decline;
}

static void post_patch(struct kmend_object *object)
{
	say("post_patch", object);
}

static void pre_unpatch(struct kmend_object *object)
{
	say("pre_unpatch", object);
}

static void post_unpatch(struct kmend_object *object)
{
	say("post_unpatch", object);
}

/* An object with all of them. */
#define CALLS(object_name, functions) {					\
		.name = object_name,					\
		.funcs = functions,					\
		.pre_patch = pre_patch,					\
		.post_patch = post_patch,				\
		.pre_unpatch = pre_unpatch,				\
		.post_unpatch = post_unpatch,				\
	}

static struct kmend_func none[] = { { } };
