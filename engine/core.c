// SPDX-License-Identifier: GPL-2.0-only
/*
 * Patches are registered, enabled, disabled and unregistered
 *
 * A module registers its patch when it is loaded and unregisters it when it
 * goes; between, the patch can be enabled and disabled as often as one likes.
 * Versions of one function stack up in the order in which they are enabled.
 * The newest is in force, and only the newest can be disabled.
 *
 * Invariants:
 * - kmend_patches is in the order of enabling, as far as patches are in force,
 *   so that the versions of a module that comes are stacked in that order.
 * - A patch that is in force has a reference to its module, so that only a
 *   patch that is disabled is ever unregistered.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "engine.h"
#include "made_for.h"

/* All but what engine.h lists. */
DEFINE_MUTEX(kmend_mutex);
LIST_HEAD(kmend_patches);

/*
 * What is shown to who looks on: the list of patches, which changes only under
 * both, and the blockers. Held for a moment only.
 */
DEFINE_MUTEX(kmend_shown_mutex);

static int call_pre_patch(struct kmend_patch *patch)
{
	struct kmend_object *object;
	int ret;

	kmend_for_each_object(patch, object) {
		if (!object->active)
			continue;
		ret = object->pre_patch ? object->pre_patch(object) : 0;
		if (ret)
			return ret;
		object->called = true;
	}
	return 0;
}

/* Takes back what was done for a patch that does not come into force. */
static void undo(struct kmend_patch *patch)
{
	struct kmend_object *object;

	kmend_for_each_object(patch, object) {
		if (object->called && object->post_unpatch)
			object->post_unpatch(object);
		object->called = false;
		if (object->active)
			kmend_sites_put(object);
	}
}

static int prepare(struct kmend_patch *patch)
{
	struct kmend_object *object;
	int ret;

	ret = kmend_objects_find(patch);
	if (ret)
		return ret;
	kmend_for_each_object(patch, object) {
		if (object->name && !object->mod)
			continue;
		ret = kmend_check_probes(object);
		if (!ret)
			ret = kmend_sites_get(patch, object);
		if (!ret)
			ret = kmend_jump_check(patch, object);
		if (ret)
			return ret;
	}
	ret = kmend_jumps_leave(patch);
	return ret ?: call_pre_patch(patch);
}

/*
 * Whether the model does for the patch. What post_patch() does is for when
 * nothing runs the old functions, and a model that switches functions while
 * they run does not know when that is.
 */
static bool suits(const struct kmend_patch *patch)
{
	const struct kmend_object *object;

	if (patch->model->leave != LEAVE_FUNCTION)
		return true;
	kmend_for_each_object(patch, object) {
		if (object->post_patch) {
			pr_err("'%s': has post_patch(), and %s does not wait for old code\n",
			       patch->mod->name, patch->model->name);
			return false;
		}
	}
	return true;
}

int kmend_enable(struct kmend_patch *patch)
{
	int ret;

	lockdep_assert_held(&kmend_mutex);
	if (kmend_change.patch)
		return -EBUSY;
	if (patch->state != KMEND_DISABLED || !suits(patch))
		return -EINVAL;
	if (!try_module_get(patch->mod))
		return -ENODEV;
	ret = prepare(patch);
	if (!ret) {
		mutex_lock(&kmend_shown_mutex);
		list_move_tail(&patch->node, &kmend_patches);
		mutex_unlock(&kmend_shown_mutex);
		ret = kmend_change_start(patch, true);
	}
	if (ret) {
		undo(patch);
		kmend_jumps_take();
		module_put(patch->mod);
	}
	return ret;
}

int kmend_disable(struct kmend_patch *patch)
{
	struct kmend_object *object;
	struct kmend_func *func;
	int ret;

	lockdep_assert_held(&kmend_mutex);
	if (kmend_change.patch)
		return -EBUSY;
	if (patch->state != KMEND_ENABLED || !suits(patch))
		return -EINVAL;
	kmend_for_each_object(patch, object) {
		kmend_for_each_func(object, func) {
			if (func->inserted && kmend_newest(func->site) != func) {
				pr_err("'%s': %s has a newer version\n",
				       patch->mod->name, func->name);
				return -EBUSY;
			}
		}
	}
	ret = kmend_jumps_leave(patch);
	if (ret)
		goto out;
	kmend_for_each_object(patch, object)
		if (object->active && object->pre_unpatch)
			object->pre_unpatch(object);
	ret = kmend_change_start(patch, false);
out:
	if (ret)
		kmend_jumps_take();
	return ret;
}

static int check(const struct kmend_patch *patch)
{
	const struct kmend_object *object;
	const struct kmend_func *func;

	if (!patch->mod || !patch->objects || !patch->objects->funcs ||
	    patch->registered)
		return -EINVAL;
	if (!is_livepatch_module(patch->mod)) {
		pr_err("module %s is not marked as a livepatch module\n",
		       patch->mod->name);
		return -EINVAL;
	}
	kmend_for_each_object(patch, object) {
		kmend_for_each_func(object, func) {
			if (!object->name && !func->old_func) {
				pr_err("'%s': nobody said where %s is\n",
				       patch->mod->name, func->name);
				return -EINVAL;
			}
		}
	}
	return 0;
}

/**
 * kmend_register() - makes a patch known, disabled
 * @patch: stays the caller's, and where it is until kmend_unregister()
 *
 * To be called from the module's init. Return: 0 or an error.
 */
int kmend_register(struct kmend_patch *patch)
{
	int ret;

	ret = check(patch);
	if (ret)
		return ret;
	patch->model = patch->wanted_model ?
		       kmend_model_named(patch->wanted_model) : &kmend_models[0];
	if (!patch->model) {
		pr_err("'%s': wants a model that is not known\n",
		       patch->mod->name);
		return -EINVAL;
	}
	if (patch->load_hook) {
		ret = patch->load_hook();
		if (ret)
			return ret;
	}
	patch->state = KMEND_DISABLED;
	mutex_lock(&kmend_mutex);
	mutex_lock(&kmend_shown_mutex);
	list_add_tail(&patch->node, &kmend_patches);
	mutex_unlock(&kmend_shown_mutex);
	patch->registered = true;
	mutex_unlock(&kmend_mutex);
	ret = kmend_show_add(patch);
	if (ret)
		kmend_unregister(patch);
	return ret;
}
EXPORT_SYMBOL_GPL(kmend_register);

/**
 * kmend_unregister() - forgets a patch
 * @patch: is disabled: the module of one in force cannot be unloaded
 *
 * To be called from the module's exit.
 */
void kmend_unregister(struct kmend_patch *patch)
{
	mutex_lock(&kmend_mutex);
	WARN_ON(kmend_in_force(patch));
	patch->registered = false;
	mutex_lock(&kmend_shown_mutex);
	list_del(&patch->node);
	mutex_unlock(&kmend_shown_mutex);
	kmend_blockers_forget(patch);
	mutex_unlock(&kmend_mutex);
	/* Without the mutex: this waits for who is in a file of the patch. */
	kmend_show_remove(patch);
	if (patch->unload_hook)
		patch->unload_hook();
}
EXPORT_SYMBOL_GPL(kmend_unregister);

static int __init engine_init(void)
{
	int ret;

	ret = kmend_stacks_init();
	if (ret)
		return ret;
	kmend_tasks_init();
	ret = kmend_objects_init();
	if (ret)
		return ret;
	ret = kmend_untraced_init();
	if (ret)
		goto objects;
	ret = kmend_show_init();
	if (!ret)
		return 0;
	kmend_untraced_exit();
objects:
	kmend_objects_exit();
	return ret;
}

/* Modules with patches use the engine's symbols, so none is registered. */
static void __exit engine_exit(void)
{
	kmend_show_exit();
	kmend_untraced_exit();
	kmend_objects_exit();
	kmend_change_exit();
	kmend_tasks_exit();
}

module_init(engine_init);
module_exit(engine_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("kmend's consistency engine");
MODULE_VERSION(KMEND_INTERFACE);
MODULE_INFO(livepatch, "Y");
MODULE_INFO(kmend_build_id, KMEND_BUILD_ID);
