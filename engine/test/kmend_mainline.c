// SPDX-License-Identifier: GPL-2.0-only
/* A livepatch of the kernel's own kind */
#include <linux/livepatch.h>
#include <linux/module.h>

static __attribute__((noipa)) int new_leaf(void)
{
	return 9;
}

static struct klp_func funcs[] = {
	{ .old_name = "kt_leaf", .new_func = new_leaf },
	{ }
};

static struct klp_object objects[] = {
	{ .name = "kmend_target", .funcs = funcs },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("livepatch for the tests of kmend's consistency engine");
MODULE_INFO(livepatch, "Y");
