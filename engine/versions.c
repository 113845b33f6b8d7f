// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which versions each side has, before, while and after functions change
 *
 * Invariants:
 * - While versions are being marked or unmarked everyone is on the side where
 *   nothing changes by it, so it does not matter that this takes time.
 * - Nobody looks at the sides any more when kmend_unite() is over.
 */
#include "engine.h"

void kmend_insert_all(struct kmend_patch *patch, bool changing)
{
	struct kmend_object *object;
	struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (object->active && !func->inserted)
				kmend_insert(func, changing, true);
}

/* Some may still be on their way to the versions. */
void kmend_remove_all(struct kmend_patch *patch)
{
	struct kmend_object *object;
	struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (func->inserted)
				kmend_remove(func);
}

static void mark_all(struct kmend_patch *patch, bool changing, bool side)
{
	struct kmend_object *object;
	struct kmend_func *func;

	kmend_for_each_object(patch, object)
		kmend_for_each_func(object, func)
			if (func->inserted)
				kmend_mark(func, changing, side);
}

/* The functions of the transition begin to differ between the sides. */
void kmend_part(struct kmend_patch *patch, bool to)
{
	struct kmend_patch *other;

	if (to)
		kmend_insert_all(patch, true);
	else
		mark_all(patch, true, true);
	list_for_each_entry(other, &kmend_patches, node)
		if (kmend_is_replaced(other))
			mark_all(other, true, false);
}

/*
 * The functions are the same on both sides, as they are on the patched side or
 * on the other. When this is over no handler looks at the sides.
 */
void kmend_unite(struct kmend_patch *patch, bool patched)
{
	struct kmend_patch *other;

	if (patched)
		mark_all(patch, false, true);
	else
		kmend_remove_all(patch);
	list_for_each_entry(other, &kmend_patches, node) {
		if (!kmend_is_replaced(other))
			continue;
		if (patched)
			kmend_remove_all(other);
		else
			mark_all(other, false, false);
	}
	kmend_synchronize();
}
