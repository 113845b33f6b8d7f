/* SPDX-License-Identifier: GPL-2.0-only */
/* The names that patches for kpatch use, for what kmend does in their place. */
#ifndef KMEND_KPATCH_MACROS_H
#define KMEND_KPATCH_MACROS_H

#include <linux/printk.h>
#include "kmend.h"

typedef struct klp_object patch_object;

#define KPATCH_PRE_PATCH_CALLBACK(fn)	KMEND_PRE_PATCH(fn);
#define KPATCH_POST_PATCH_CALLBACK(fn)	KMEND_POST_PATCH(fn);
#define KPATCH_PRE_UNPATCH_CALLBACK(fn)	KMEND_PRE_UNPATCH(fn);
#define KPATCH_POST_UNPATCH_CALLBACK(fn)	KMEND_POST_UNPATCH(fn);

#define KPATCH_IGNORE_FUNCTION(fn)	KMEND_IGNORE_FUNCTION(fn);
#define KPATCH_IGNORE_SECTION(name)	KMEND_IGNORE_SECTION(name);

/* The kernel's livepatch core decides by each task's stack and knows no exception for a function. */
#define KPATCH_FORCE_UNSAFE(fn)

/* Plain forms need no help. */
#define KPATCH_PRINTK(fmt, ...)		printk(fmt, ##__VA_ARGS__)
#define KPATCH_PRINTK_DEFERRED(fmt, ...)	printk_deferred(fmt, ##__VA_ARGS__)

#define KPATCH_STATIC_CALL(name)	KMEND_STATIC_CALL(name)

#endif /* KMEND_KPATCH_MACROS_H */
