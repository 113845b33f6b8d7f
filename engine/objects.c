// SPDX-License-Identifier: GPL-2.0-only
/*
 * Modules that are patched come and go
 *
 * A patch may name functions of modules that are not there. Its references to
 * such a module are written when the module is there and the patch is in
 * force or about to be, and are zeroed when the module goes. The kernel's own
 * function writes them (klp_apply_section_relocs()); it wants zeroes there,
 * and not every kernel zeroes them again, so this file does, in the way in
 * which they are written.
 *
 * The notifier is the last that is asked when a module comes: all others have
 * done their part, and the module has not run yet. It may refuse the module.
 *
 * Invariants:
 * - object->mod is set exactly while the references are written, and then the
 *   module cannot vanish without the notifier.
 * - A module that is on its way in or out cannot be told from one for which
 *   the notifier has run or has still to run. Enabling declines then (EAGAIN).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/livepatch.h>
#include <linux/memory.h>
#include <linux/module.h>
#include <linux/moduleloader.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>
#include <asm/text-patching.h>

#include "engine.h"

/* Whether a section holds the references to an object (.klp.rela.OBJECT.). */
static bool is_for(const char *section, const char *object)
{
	static const char prefix[] = ".klp.rela.";
	size_t length = strlen(object);

	if (strncmp(section, prefix, sizeof(prefix) - 1))
		return false;
	section += sizeof(prefix) - 1;
	return !strncmp(section, object, length) && section[length] == '.';
}

static size_t width(unsigned int kind)
{
	switch (kind) {
	case R_X86_64_64:
	case R_X86_64_PC64:
		return 8;
	case R_X86_64_32:
	case R_X86_64_32S:
	case R_X86_64_PC32:
	case R_X86_64_PLT32:
		return 4;
	default:
		return 0;
	}
}

static void clear_section(const Elf_Shdr *sections, const Elf_Shdr *section)
{
	const Elf_Rela *rela = (void *)section->sh_addr;
	const Elf_Rela *end = rela + section->sh_size / sizeof(*rela);
	unsigned long base = sections[section->sh_info].sh_addr;
	static const u64 zero;
	size_t size;

	mutex_lock(&text_mutex);
	for (; rela < end; rela++) {
		size = width(ELF64_R_TYPE(rela->r_info));
		if (size)
			text_poke((void *)(base + rela->r_offset), &zero, size);
	}
	text_poke_sync();
	mutex_unlock(&text_mutex);
}

static void clear_references(struct kmend_patch *patch,
			     struct kmend_object *object)
{
	const struct klp_modinfo *info = patch->mod->klp_info;
	const Elf_Shdr *section;
	unsigned int i;

	for (i = 1; i < info->hdr.e_shnum; i++) {
		section = &info->sechdrs[i];
		if (section->sh_flags & SHF_RELA_LIVEPATCH &&
		    is_for(info->secstrings + section->sh_name, object->name))
			clear_section(info->sechdrs, section);
	}
	object->mod = NULL;
}

static int write_references(struct kmend_patch *patch,
			    struct kmend_object *object, struct module *mod)
{
	struct klp_modinfo *info = patch->mod->klp_info;
	const Elf_Shdr *section;
	struct kmend_func *func;
	unsigned int i;
	int ret = 0;

	for (i = 1; !ret && i < info->hdr.e_shnum; i++) {
		section = &info->sechdrs[i];
		if (section->sh_flags & SHF_RELA_LIVEPATCH &&
		    is_for(info->secstrings + section->sh_name, object->name))
			ret = klp_apply_section_relocs(patch->mod,
				info->sechdrs, info->secstrings,
				patch->mod->core_kallsyms.strtab,
				info->symndx, i, object->name);
	}
	kmend_for_each_func(object, func)
		if (!ret && !func->old_func)
			ret = -ENOENT;
	if (ret) {
		pr_err("'%s': cannot refer to module %s (%d)\n",
		       patch->mod->name, object->name, ret);
		clear_references(patch, object);
		return ret;
	}
	object->mod = mod;
	return 0;
}

static int find_object(struct kmend_patch *patch, struct kmend_object *object)
{
	struct module *mod;
	int ret = 0;

	rcu_read_lock_sched();
	mod = find_module(object->name);
	if (mod && (mod->state != MODULE_STATE_LIVE || !try_module_get(mod)))
		ret = -EAGAIN;
	rcu_read_unlock_sched();
	if (!mod || ret)
		return ret;
	ret = write_references(patch, object, mod);
	module_put(mod);
	return ret;
}

/* Finds the modules that are there. */
int kmend_objects_find(struct kmend_patch *patch)
{
	struct kmend_object *object;
	int ret;

	kmend_for_each_object(patch, object) {
		if (!object->name || object->mod)
			continue;
		ret = find_object(patch, object);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * A kprobe within a function never fires once the function is replaced. One at
 * its entry does, by ftrace.
 */
int kmend_check_probes(const struct kmend_object *object)
{
	const struct kmend_func *func;
	unsigned long start, end, at;
	int ret;

	kmend_for_each_func(object, func) {
		start = (unsigned long)func->old_func;
		ret = kmend_end_find(func->old_func, &end);
		if (ret)
			return ret;
		at = kmend_probe_among((ftrace_location(start) ?: start) + 1,
				       end);
		if (at) {
			pr_err("%s has a kprobe at +%#lx\n", func->name,
			       at - start);
			return -EBUSY;
		}
	}
	return 0;
}

/* The module comes while or after the patch comes into force. */
static int arrive(struct kmend_patch *patch, struct kmend_object *object,
		  struct module *mod)
{
	bool moves = kmend_change.patch == patch;
	bool changing = (moves && !kmend_change.drain) ||
			kmend_is_replaced(patch);
	struct kmend_func *func;
	int ret;

	ret = write_references(patch, object, mod);
	if (ret)
		return ret;
	ret = kmend_check_probes(object);
	if (!ret && changing && kmend_change.model->counts)
		ret = kmend_count_check(object);
	if (!ret)
		ret = kmend_sites_get(patch, object);
	if (ret)
		goto clear;
	ret = kmend_jump_check(patch, object);
	if (ret)
		goto put;
	ret = object->pre_patch ? object->pre_patch(object) : 0;
	if (ret)
		goto put;
	object->called = true;
	kmend_for_each_func(object, func)
		kmend_insert(func, changing, moves);
	ret = changing ? kmend_change_set_update() : 0;
	if (ret)
		goto remove;
	kmend_untraced_arrive(object);
	if (!moves && object->post_patch)
		object->post_patch(object);
	return 0;
remove:
	kmend_for_each_func(object, func)
		kmend_remove(func);
	kmend_synchronize();
	if (object->post_unpatch)
		object->post_unpatch(object);
	object->called = false;
put:
	kmend_sites_put(object);
clear:
	clear_references(patch, object);
	return ret;
}

static void depart(struct kmend_patch *patch, struct kmend_object *object)
{
	struct kmend_func *func;

	if (object->active) {
		if (object->pre_unpatch && kmend_change.patch != patch)
			object->pre_unpatch(object);
		kmend_for_each_func(object, func)
			if (func->inserted)
				kmend_remove(func);
		kmend_synchronize();
		kmend_sites_put(object);
		if (kmend_change.patch == patch || kmend_is_replaced(patch))
			kmend_change_set_update();
		if (object->called && object->post_unpatch)
			object->post_unpatch(object);
		object->called = false;
	}
	clear_references(patch, object);
}

static struct kmend_object *object_named(struct kmend_patch *patch,
					 const char *name)
{
	struct kmend_object *object;

	kmend_for_each_object(patch, object) {
		if (object->name && !strcmp(object->name, name))
			return object;
	}
	return NULL;
}

/* Takes a module out of all patches, the newest first. */
static void all_depart(struct module *mod)
{
	struct kmend_object *object;
	struct kmend_patch *patch;

	list_for_each_entry_reverse(patch, &kmend_patches, node) {
		object = object_named(patch, mod->name);
		if (object && object->mod == mod)
			depart(patch, object);
	}
}

/* Whether its functions have been switched off, and only its code is waited for. */
static bool is_draining(const struct kmend_patch *patch)
{
	if (!kmend_change.patch || !kmend_change.drain)
		return false;
	return kmend_is_replaced(patch) ||
	       (kmend_change.patch == patch && !kmend_change.to);
}

static int all_arrive(struct module *mod)
{
	struct kmend_object *object;
	struct kmend_patch *patch;
	bool any = false;
	int ret;

	list_for_each_entry(patch, &kmend_patches, node) {
		object = object_named(patch, mod->name);
		if (!object || !kmend_in_force(patch) || is_draining(patch))
			continue;
		ret = arrive(patch, object, mod);
		if (ret) {
			pr_err("'%s' cannot patch module %s (%d), which is refused\n",
			       patch->mod->name, mod->name, ret);
			all_depart(mod);
			return ret;
		}
		any = true;
	}
	if (any)
		kmend_jumps_take();
	return 0;
}

static int notify(struct notifier_block *block, unsigned long event, void *data)
{
	int ret = 0;

	mutex_lock(&kmend_mutex);
	switch (event) {
	case MODULE_STATE_COMING:
		if (is_livepatch_module(data))
			ret = kmend_jumps_hold(data);
		if (!ret)
			ret = all_arrive(data);
		if (ret)
			kmend_jumps_release(data);
		break;
	case MODULE_STATE_GOING:
		all_depart(data);
		fallthrough;
	case MODULE_STATE_LIVE:
		kmend_jumps_release(data);
		break;
	}
	mutex_unlock(&kmend_mutex);
	return notifier_from_errno(ret);
}

static struct notifier_block notifier = {
	.notifier_call = notify,
	.priority = INT_MIN,
};

int kmend_objects_init(void)
{
	return register_module_notifier(&notifier);
}

void kmend_objects_exit(void)
{
	unregister_module_notifier(&notifier);
}
