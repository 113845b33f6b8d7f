/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a patch can say to kmend. The compiler finds this header for patched sources only, as "kmend.h" and
 * as <kmend.h>; docs/authoring.md tells when to use what, with examples.
 *
 * Every macro leaves a note in a section of the patched object, which kmend reads and takes out.
 */
#ifndef KMEND_H
#define KMEND_H

#include <linux/compiler.h>
#include <linux/livepatch.h>
#include <linux/static_call.h>

/*
 * Callbacks of the object (vmlinux or a module) that the source belongs to. fn is a new function of this source.
 * They run in process context and may sleep:
 *
 *	int  pre_patch(struct klp_object *)	before any function is redirected; an error stops the load
 *	void post_patch(struct klp_object *)	all tasks run the new code
 *	void pre_unpatch(struct klp_object *)	all tasks still run the new code
 *	void post_unpatch(struct klp_object *)	all tasks run the old code again; also if a later pre_patch fails
 */
#define KMEND_PRE_PATCH(fn)	KMEND_CALLBACK(int, pre_patch, fn)
#define KMEND_POST_PATCH(fn)	KMEND_CALLBACK(void, post_patch, fn)
#define KMEND_PRE_UNPATCH(fn)	KMEND_CALLBACK(void, pre_unpatch, fn)
#define KMEND_POST_UNPATCH(fn)	KMEND_CALLBACK(void, post_unpatch, fn)

#define KMEND_CALLBACK(type, kind, fn)						\
	static type (*const kmend_##kind##_##fn)(struct klp_object *)		\
		__used __section(".kmend.callbacks." #kind) = fn

/* Takes a function for unchanged: the running one stays, and patched code calls that. */
#define KMEND_IGNORE_FUNCTION(fn)						\
	_Static_assert(sizeof(&(fn)), #fn);					\
	KMEND_NOTE(".kmend.ignore.functions", #fn)

/* Takes everything in a section for unchanged. */
#define KMEND_IGNORE_SECTION(name)	KMEND_NOTE(".kmend.ignore.sections", name)

/*
 * Lets the livepatch write a variable's new initial value over the old one, where the running kernel could have
 * written to it, too. If the living value is not the old one, the livepatch declines to be loaded.
 */
#define KMEND_UPDATE_DATA(variable)						\
	_Static_assert(sizeof(variable), #variable);				\
	KMEND_NOTE(".kmend.update", #variable)

/*
 * Says that a post_unpatch callback of this source ends every use of a new function or variable whose address the
 * patched code gives away, as a timer, a work item or the like. Without it the livepatch stays in memory.
 */
#define KMEND_ENDS(name)							\
	_Static_assert(sizeof(&(name)), #name);					\
	KMEND_NOTE(".kmend.ends", #name)

/*
 * Says of a static variable (at file level, or where it is declared in its function) what became of one of its type that
 * goes: it is the same, under another name, and keeps its living value; or it has nothing to do with that, and begins anew.
 */
#define KMEND_RENAMED(old, variable)						\
	_Static_assert(sizeof(variable), #variable);				\
	KMEND_NOTE(".kmend.renamed", #old " " #variable)
#define KMEND_BEGINS_ANEW(variable)						\
	_Static_assert(sizeof(variable), #variable);				\
	KMEND_NOTE(".kmend.anew", #variable)

/* Takes a change of this type ("struct foo") for harmless. */
#define KMEND_ACCEPT_TYPE(name)		KMEND_NOTE(".kmend.accept", "type:" name)

#define KMEND_NOTE(section, text)						\
	static const char __UNIQUE_ID(kmend_note)[]				\
		__used __aligned(1) __section(section) = text

/* Makes a static call whose key belongs to a module, through the key's pointer. */
#define KMEND_STATIC_CALL(name)	((typeof(&STATIC_CALL_TRAMP(name)))static_call_query(name))

/* System calls are patched as they are; these names are there for patches that have others in their stead. */
#define KMEND_SYSCALL_DEFINE1	SYSCALL_DEFINE1
#define KMEND_SYSCALL_DEFINE2	SYSCALL_DEFINE2
#define KMEND_SYSCALL_DEFINE3	SYSCALL_DEFINE3
#define KMEND_SYSCALL_DEFINE4	SYSCALL_DEFINE4
#define KMEND_SYSCALL_DEFINE5	SYSCALL_DEFINE5
#define KMEND_SYSCALL_DEFINE6	SYSCALL_DEFINE6

#endif /* KMEND_H */
