// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space sees and asks for
 *
 * /sys/kernel/kmend/PATCH/ holds
 *   enabled     1 or 0; write to enable or disable, or to turn round
 *   transition  1 while the patch is being switched
 *   model       how it switches; write while it is not in transition
 *   redirect    how callers are redirected between transitions, ftrace or
 *               jump; write while the patch is disabled
 *   replace     1 if it replaces all other patches
 *   timeout_ms  after which a transition reverses; 0 for never
 *   functions   a line for each: OBJECT FUNCTION, how it stands, and `jump` if
 *               it has one
 *   pause_ns    for how long the last transition held all CPUs, or user space
 *   switch_ns   how long it took
 *   error       why the last one was reversed: 0 or a negative errno
 *   blocking    a line for each of the first tasks that hold it up, or held
 *               it up when it was given up: PID COMMAND FUNCTION
 *
 * /sys/kernel/kmend/models and redirects have a line for each name that can be
 * written there. /proc/kmend/state has a line for each patch, in the order of enabling.
 *
 * Invariants:
 * - Who reads waits for nothing that takes long: not for kmend_mutex, which is
 *   held while ftrace lets go of functions, but for kmend_shown_mutex at most.
 *   `transition` is 1 until all is done, so it is read first.
 * - Who writes waits for kmend_mutex, and can be killed meanwhile.
 * - Nobody waits under kmend_mutex for who uses these files.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>

#include "engine.h"

/* A line for each way to redirect callers, the default first. */
static const char redirects[] = "ftrace\njump";

static struct kobject *root;
static struct proc_dir_entry *proc_root;

static struct kmend_patch *patch_of(struct kobject *kobj)
{
	return container_of(kobj, struct kmend_patch, kobj);
}

static const char *state_name(const struct kmend_patch *patch)
{
	switch (READ_ONCE(patch->state)) {
	case KMEND_DISABLED:
		return "disabled";
	case KMEND_ENABLING:
		return "enabling";
	case KMEND_ENABLED:
		return "enabled";
	case KMEND_DISABLING:
		return "disabling";
	}
	return "?";
}

static bool is_going_to(const struct kmend_patch *patch)
{
	enum kmend_state state = READ_ONCE(patch->state);

	return state == KMEND_ENABLED || state == KMEND_ENABLING;
}

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%d\n", is_going_to(patch_of(kobj)));
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	struct kmend_patch *patch = patch_of(kobj);
	bool enable;
	int ret;

	ret = kstrtobool(buf, &enable);
	if (ret)
		return ret;
	if (mutex_lock_killable(&kmend_mutex))
		return -EINTR;
	if (!patch->registered)
		ret = -ENODEV;
	else if (enable == is_going_to(patch))
		ret = -EINVAL;
	else if (kmend_change.patch == patch)
		ret = kmend_change_reverse();
	else if (enable)
		ret = kmend_enable(patch);
	else
		ret = kmend_disable(patch);
	kmend_change_show();
	mutex_unlock(&kmend_mutex);
	return ret ? ret : count;
}

static ssize_t transition_show(struct kobject *kobj,
			       struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", kmend_change_shown(patch_of(kobj)));
}

static ssize_t model_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	return sysfs_emit(buf, "%s\n", READ_ONCE(patch_of(kobj)->model)->name);
}

static ssize_t model_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	const struct kmend_model *model = kmend_model_named(buf);
	struct kmend_patch *patch = patch_of(kobj);
	int ret = 0;

	if (!model)
		return -EINVAL;
	if (mutex_lock_killable(&kmend_mutex))
		return -EINTR;
	if (kmend_change.patch == patch)
		ret = -EBUSY;
	else
		patch->model = model;
	mutex_unlock(&kmend_mutex);
	return ret ? ret : count;
}

static const char *redirect_name(const struct kmend_patch *patch)
{
	return READ_ONCE(patch->jump) ? "jump" : "ftrace";
}

static ssize_t redirect_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%s\n", redirect_name(patch_of(kobj)));
}

static ssize_t redirect_store(struct kobject *kobj, struct kobj_attribute *attr,
			      const char *buf, size_t count)
{
	struct kmend_patch *patch = patch_of(kobj);
	bool jump = sysfs_streq(buf, "jump");
	int ret = 0;

	if (!jump && !sysfs_streq(buf, "ftrace"))
		return -EINVAL;
	if (mutex_lock_killable(&kmend_mutex))
		return -EINTR;
	if (kmend_in_force(patch))
		ret = -EBUSY;
	else
		patch->jump = jump;
	mutex_unlock(&kmend_mutex);
	return ret ? ret : count;
}

static ssize_t replace_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%d\n", patch_of(kobj)->replace);
}

static ssize_t timeout_ms_show(struct kobject *kobj,
			       struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", patch_of(kobj)->timeout_ms);
}

static ssize_t timeout_ms_store(struct kobject *kobj,
				struct kobj_attribute *attr, const char *buf,
				size_t count)
{
	unsigned int timeout;
	int ret;

	ret = kstrtouint(buf, 0, &timeout);
	if (ret)
		return ret;
	WRITE_ONCE(patch_of(kobj)->timeout_ms, timeout);
	return count;
}

/* Under RCU. */
static const char *standing(const struct kmend_func *func)
{
	struct kmend_site *site = READ_ONCE(func->site);

	if (!READ_ONCE(func->old_func))
		return "absent";
	if (!site || !READ_ONCE(func->inserted))
		return "living";
	if (READ_ONCE(func->changing))
		return "changing";
	if (kmend_newest(site) != func)
		return "covered";
	return READ_ONCE(site->jumps) ? "patched jump" : "patched";
}

static ssize_t functions_show(struct kobject *kobj,
			      struct kobj_attribute *attr, char *buf)
{
	const struct kmend_object *object;
	const struct kmend_func *func;
	ssize_t length = 0;

	rcu_read_lock();
	kmend_for_each_object(patch_of(kobj), object)
		kmend_for_each_func(object, func)
			length += sysfs_emit_at(buf, length, "%s %s %s\n",
						object->name ?: "vmlinux",
						func->name, standing(func));
	rcu_read_unlock();
	return length;
}

static ssize_t pause_ns_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(patch_of(kobj)->pause_ns));
}

static ssize_t switch_ns_show(struct kobject *kobj, struct kobj_attribute *attr,
			      char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(patch_of(kobj)->switch_ns));
}

static ssize_t error_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	return sysfs_emit(buf, "%d\n", READ_ONCE(patch_of(kobj)->error));
}

static ssize_t blocking_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return kmend_blockers_show(patch_of(kobj), buf);
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);
static struct kobj_attribute transition_attr = __ATTR_RO(transition);
static struct kobj_attribute model_attr = __ATTR_RW(model);
static struct kobj_attribute redirect_attr = __ATTR_RW(redirect);
static struct kobj_attribute replace_attr = __ATTR_RO(replace);
static struct kobj_attribute timeout_ms_attr = __ATTR_RW(timeout_ms);
static struct kobj_attribute functions_attr = __ATTR_RO(functions);
static struct kobj_attribute pause_ns_attr = __ATTR_RO(pause_ns);
static struct kobj_attribute switch_ns_attr = __ATTR_RO(switch_ns);
static struct kobj_attribute error_attr = __ATTR_RO(error);
static struct kobj_attribute blocking_attr = __ATTR_RO(blocking);

static struct attribute *patch_attrs[] = {
	&enabled_attr.attr,
	&transition_attr.attr,
	&model_attr.attr,
	&redirect_attr.attr,
	&replace_attr.attr,
	&timeout_ms_attr.attr,
	&functions_attr.attr,
	&pause_ns_attr.attr,
	&switch_ns_attr.attr,
	&error_attr.attr,
	&blocking_attr.attr,
	NULL
};
ATTRIBUTE_GROUPS(patch);

static void patch_release(struct kobject *kobj)
{
	complete(&patch_of(kobj)->gone);
}

static const struct kobj_type patch_type = {
	.release = patch_release,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = patch_groups,
};

int kmend_show_add(struct kmend_patch *patch)
{
	init_completion(&patch->gone);
	return kobject_init_and_add(&patch->kobj, &patch_type, root, "%s",
				    patch->mod->name);
}

void kmend_show_remove(struct kmend_patch *patch)
{
	kobject_put(&patch->kobj);
	wait_for_completion(&patch->gone);
}

static ssize_t models_show(struct kobject *kobj, struct kobj_attribute *attr,
			   char *buf)
{
	const struct kmend_model *model;
	ssize_t length = 0;

	for (model = kmend_models; model->name; model++)
		length += sysfs_emit_at(buf, length, "%s\n", model->name);
	return length;
}

static ssize_t redirects_show(struct kobject *kobj, struct kobj_attribute *attr,
			      char *buf)
{
	return sysfs_emit(buf, "%s\n", redirects);
}

static struct kobj_attribute models_attr = __ATTR_RO(models);
static struct kobj_attribute redirects_attr = __ATTR_RO(redirects);

static const struct attribute *root_attrs[] = {
	&models_attr.attr,
	&redirects_attr.attr,
	NULL
};

static int state_show(struct seq_file *file, void *unused)
{
	const struct kmend_patch *patch;
	unsigned int index = 0;

	seq_printf(file, "%-6s%-32s%-11s%-14s%s\n", "Index", "Patch", "State",
		   "Model", "Redirect");
	mutex_lock(&kmend_shown_mutex);
	list_for_each_entry(patch, &kmend_patches, node)
		seq_printf(file, "%-6u%-32s%-11s%-14s%s\n", ++index,
			   patch->mod->name, state_name(patch),
			   READ_ONCE(patch->model)->name,
			   redirect_name(patch));
	mutex_unlock(&kmend_shown_mutex);
	return 0;
}

int kmend_show_init(void)
{
	root = kobject_create_and_add("kmend", kernel_kobj);
	if (!root)
		return -ENOMEM;
	proc_root = proc_mkdir("kmend", NULL);
	if (sysfs_create_files(root, root_attrs) || !proc_root ||
	    !proc_create_single("state", 0444, proc_root, state_show)) {
		kmend_show_exit();
		return -ENOMEM;
	}
	return 0;
}

void kmend_show_exit(void)
{
	proc_remove(proc_root);
	kobject_put(root);
}
