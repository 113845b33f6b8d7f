/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the test patches have in common: each registers one patch when it is
 * loaded
 */
#ifndef KMEND_TEST_H
#define KMEND_TEST_H

#include <linux/atomic.h>
#include <linux/module.h>
#include <linux/mutex.h>

#include "kmend_engine.h"

/* Further members of the patch. */
#ifndef MEMBERS
#define MEMBERS
#endif

/* The compiler must not make another function of it, or of its callers. */
#define lone __attribute__((noipa))

/* What is the target's and is not patched. */
extern atomic_t kt_level __asm__("kmend_klp.kmend_target.kt_level");
extern int kt_message __asm__("kmend_klp.kmend_target.kt_message");
extern struct mutex kt_first __asm__("kmend_klp.kmend_target.kt_first");
extern struct mutex kt_second __asm__("kmend_klp.kmend_target.kt_second");
int kt_ask(int what) __asm__("kmend_klp.kmend_target.kt_ask");
int kt_both(struct mutex *one, struct mutex *other)
	__asm__("kmend_klp.kmend_target.kt_both");

/* Another version of a function, which returns a constant. */
#define CONSTANT(object, function, value)				\
	KMEND_LIVING(old_##function, object, function);			\
	static lone int new_##function(void)				\
	{								\
		return value;						\
	}

/* What CONSTANT() made. */
#define FUNC(function) { #function, old_##function, new_##function }

#define TEST_PATCH(object_name, ...)					\
	static struct kmend_func funcs[] = { __VA_ARGS__, { } };	\
	TEST_OBJECTS({ .name = object_name, .funcs = funcs })

#define TEST_OBJECTS(...)						\
	static struct kmend_object objects[] = { __VA_ARGS__, { } };	\
	static struct kmend_patch patch = {				\
		.mod = THIS_MODULE,					\
		.objects = objects,					\
		MEMBERS							\
	};								\
	static int __init patch_init(void)				\
	{								\
		return kmend_register(&patch);				\
	}								\
	static void __exit patch_exit(void)				\
	{								\
		kmend_unregister(&patch);				\
	}								\
	module_init(patch_init);					\
	module_exit(patch_exit);					\
	MODULE_LICENSE("GPL");						\
	MODULE_DESCRIPTION("test patch for kmend's consistency engine"); \
	MODULE_INFO(livepatch, "Y")

#endif
