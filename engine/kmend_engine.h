/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a module of patches says to the engine
 *
 * A module fills in a struct kmend_patch, calls kmend_register() when it is
 * loaded and kmend_unregister() when it goes. Everything between is asked for
 * in /sys/kernel/kmend/PATCH. The members below each "engine's own" line must
 * be zero at registration and are not the module's to touch.
 *
 * The address of a living function is never looked up by name at run time: it
 * is a livepatch relocation (Documentation/livepatch/module-elf-format.rst)
 * in the table itself. Those against vmlinux are written when the module is
 * loaded, those against another module when that module is there, and they
 * are zeroed when it goes. So a null old_func means "not there now".
 */
#ifndef KMEND_ENGINE_H
#define KMEND_ENGINE_H

#include <linux/build_bug.h>
#include <linux/completion.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/stddef.h>
#include <linux/stringify.h>
#include <linux/types.h>

/*
 * Declares `symbol` as the living FUNCTION of OBJECT ("vmlinux" or a module)
 * in source that is written by hand; `kmend engine build` makes a livepatch
 * symbol of it.
 */
#define KMEND_LIVING(symbol, object, function)				\
	extern void symbol(void)					\
	__asm__("kmend_klp." __stringify(object) "." __stringify(function))

struct kmend_site;
struct kmend_patch;
struct kmend_object;

/**
 * struct kmend_func - one version of one function
 * @name:	the living function's name
 * @old_func:	the living function, null while its module is not there
 * @new_func:	what runs instead; null means the living function itself
 */
struct kmend_func {
	const char *name;
	void *old_func;
	void *new_func;
	/* engine's own */
	struct kmend_site *site;
	struct list_head stack;
	bool jump;
	bool changing;
	bool side;
	bool inserted;
};

/**
 * struct kmend_object - the functions of vmlinux or of one module
 * @name:		null for vmlinux
 * @funcs:		ends with a member without a name
 * @pre_patch:		before the first function is redirected; may decline
 * @post_patch:		when nothing runs the old functions
 * @pre_unpatch:	before the first redirection is taken back
 * @post_unpatch:	when nothing runs the new functions
 *
 * The callbacks are run in process context, for an object that is there.
 */
struct kmend_object {
	const char *name;
	struct kmend_func *funcs;
	int (*pre_patch)(struct kmend_object *object);
	void (*post_patch)(struct kmend_object *object);
	void (*pre_unpatch)(struct kmend_object *object);
	void (*post_unpatch)(struct kmend_object *object);
	/* engine's own */
	struct module *mod;
	bool active;
	bool called;
};

enum kmend_state {
	KMEND_DISABLED,
	KMEND_ENABLING,
	KMEND_ENABLED,
	KMEND_DISABLING,
};

/**
 * struct kmend_patch - functions that change together
 * @mod:	the module that holds this; it is kept while the patch is in force
 * @objects:	ends with a member without functions
 * @replace:	whether all other patches in force end when this one is enabled
 * @jump:	whether callers jump, without ftrace, once all have been switched;
 *		can be changed while the patch is disabled
 * @load_hook:	when it is registered; may decline
 * @unload_hook: when it is unregistered
 * @wanted_model: the model to begin with; null for the engine's first
 */
struct kmend_patch {
	struct module *mod;
	struct kmend_object *objects;
	bool replace;
	bool jump;
	int (*load_hook)(void);
	void (*unload_hook)(void);
	const char *wanted_model;
	/* engine's own */
	const struct kmend_model *model;
	enum kmend_state state;
	struct kobject kobj;
	struct list_head node;
	struct completion gone;
	unsigned int timeout_ms;
	u64 pause_ns;
	u64 switch_ns;
	int error;
	bool registered;
};

/* What reads a patch's module without this header counts on these. */
static_assert(offsetof(struct kmend_func, name) == 0);
static_assert(offsetof(struct kmend_func, old_func) == 8);
static_assert(offsetof(struct kmend_func, new_func) == 16);
static_assert(sizeof(struct kmend_func) == 56);
static_assert(offsetof(struct kmend_object, name) == 0);
static_assert(offsetof(struct kmend_object, funcs) == 8);
static_assert(sizeof(struct kmend_object) == 64);
static_assert(offsetof(struct kmend_patch, objects) == 8);

#define kmend_for_each_object(patch, object)				\
	for (object = (patch)->objects; object->funcs; object++)

#define kmend_for_each_func(object, func)				\
	for (func = (object)->funcs; func->name; func++)

int kmend_register(struct kmend_patch *patch);
void kmend_unregister(struct kmend_patch *patch);

#endif
