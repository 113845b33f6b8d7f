/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the engine's files know of each other
 *
 * kmend_mutex is held for as long as it takes, which on a busy machine is many
 * seconds where ftrace lets go of a function (synchronize_rcu_tasks()). So who
 * only looks on does without it (show.c).
 *
 * Lock order: kmend_mutex, then the lock of CPU hotplug, then tasklist_lock,
 * then the lock of a table of tasks. kmend_mutex is also taken before
 * kprobe_mutex, which is taken before the lock of CPU hotplug, and before ftrace's
 * and text_mutex. It guards everything but what these do, which are
 * described where they are: the ftrace handler (sides.c, redirect.c), task
 * work and the visits to CPUs (tasks.c), the stopped machine (stop.c) and the
 * probe at births (sides.c).
 */
#ifndef KMEND_INTERNAL_H
#define KMEND_INTERNAL_H

#include <linux/ftrace.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/task_work.h>

#include "kmend_engine.h"

struct insn;

/* What execution must have left before it is switched. */
enum kmend_leave {
	LEAVE_FUNCTION,
	LEAVE_PATCHED_SET,
	LEAVE_KERNEL,
};

/* What is switched together. */
enum kmend_scope {
	SWITCH_FUNCTION,
	SWITCH_THREAD,
	SWITCH_KERNEL,
};

/*
 * @stops:	the switch is made with the machine stopped, and all stacks looked at
 *		in that stop
 * @counts:	entries and returns are counted
 */
struct kmend_model {
	const char *name;
	enum kmend_leave leave;
	enum kmend_scope scope;
	bool stops;
	bool counts;
};

/* Where a function is; the cold part may be empty. */
struct kmend_code {
	unsigned long start;
	unsigned long end;
	unsigned long cold_start;
	unsigned long cold_end;
};

/*
 * A function that is redirected.
 * @versions:	the newest first
 * @code:	of the living function
 * @hooked:	entries are caught by ftrace, or by a breakpoint
 * @slot:	where a jump goes
 * @saved:	the living function's bytes there
 * @jump:	the jump's bytes
 * @jumps:	they are there
 * @fits:	they may be there
 * @untraced:	ftrace does not know the function: see untraced.c for
 * @to:		where its breakpoint sends, and
 * @alias:	another mapping of its page
 */
struct kmend_site {
	struct ftrace_ops ops;
	void *old_func;
	struct list_head versions;
	struct list_head node;
	struct rcu_head rcu;
	unsigned int users;
	struct kmend_code code;
	bool hooked;
	unsigned long slot;
	u8 saved[5];
	u8 jump[5];
	bool jumps;
	bool fits;
	bool untraced;
	void *to;
	u8 *alias;
};

/* One task that has not been switched yet. */
struct kmend_entry {
	struct task_struct *task;
	struct kmend_sides *sides;
	struct callback_head work;
	bool pending;
	bool queued;
};

/*
 * Who is on which side while functions change. True is the patched side.
 * @to:		where everyone goes
 * @others:	where tasks are that are not pending here
 * @leave:	what a task must have left before it is switched
 * @parks:	nobody is switched alone; who reaches the edge waits there
 * @open:	who waits there may go on
 * @frozen:	no thread may be switched, not yet or not any more
 * @full:	a task could not be added
 */
struct kmend_sides {
	bool to;
	bool others;
	enum kmend_leave leave;
	bool parks;
	bool open;
	bool frozen;
	bool full;
	unsigned int bits;
	unsigned int used;
	atomic_t pending;
	spinlock_t lock;	/* for those who add */
	struct kref kref;
	struct kmend_entry entries[];
};

/* Addresses that no stack may hold when its task is switched. */
struct kmend_range {
	unsigned long start;
	unsigned long end;
	const struct module *mod;
	const char *name;
};

struct kmend_set {
	struct rcu_head rcu;
	unsigned int count;
	struct kmend_range ranges[];
};

struct kmend_counter;

/*
 * The one transition at a time.
 * @patch:	null if there is none
 * @to:		true when the patch is being enabled
 * @replaces:	all other patches in force are being replaced by it
 * @drain:	the functions have been switched, and the code is still left
 * @counted:	those who are counted are all who are inside (refcount.c)
 * @attempts:	how often a count was lost
 */
struct kmend_change {
	struct kmend_patch *patch;
	const struct kmend_model *model;
	bool to;
	bool replaces;
	bool drain;
	bool counted;
	unsigned int attempts;
	unsigned int rounds;
	unsigned int timeout_ms;
	unsigned long deadline;
	u64 start_ns;
};

extern struct mutex kmend_mutex;
extern struct mutex kmend_shown_mutex;
extern struct list_head kmend_patches;
extern struct list_head kmend_sites;
extern struct kmend_change kmend_change;
extern const struct kmend_model kmend_models[];
extern struct kmend_sides __rcu *kmend_sides;
extern struct kmend_set __rcu *kmend_set;
extern struct kmend_counter __rcu *kmend_counter;
DECLARE_PER_CPU(bool, kmend_irq_side);

/* core.c */
int kmend_enable(struct kmend_patch *patch);
int kmend_disable(struct kmend_patch *patch);

/* change.c */
int kmend_change_start(struct kmend_patch *patch, bool to);
int kmend_change_reverse(void);
bool kmend_is_replaced(const struct kmend_patch *patch);
const struct kmend_model *kmend_model_named(const char *name);
bool kmend_change_shown(const struct kmend_patch *patch);
void kmend_change_show(void);
void kmend_change_soon(void);
void kmend_change_exit(void);

/* versions.c */
void kmend_insert_all(struct kmend_patch *patch, bool changing);
void kmend_remove_all(struct kmend_patch *patch);
void kmend_part(struct kmend_patch *patch, bool to);
void kmend_unite(struct kmend_patch *patch, bool patched);

/* begin.c */
int kmend_begin(void);
int kmend_turn(void);
void kmend_end(void);
int kmend_change_set_update(void);
struct kmend_sides *kmend_sides_now(void);

/* redirect.c */
int kmend_sites_get(struct kmend_patch *patch, struct kmend_object *object);
void kmend_sites_put(struct kmend_object *object);
int kmend_check_direct(const struct kmend_site *site);
int kmend_hook(struct kmend_site *site);
void kmend_unhook(struct kmend_site *site);
void kmend_insert(struct kmend_func *func, bool changing, bool side);
void kmend_mark(struct kmend_func *func, bool changing, bool side);
void kmend_remove(struct kmend_func *func);
struct kmend_func *kmend_newest(struct kmend_site *site);
struct kmend_func *kmend_version_below(struct kmend_func *func);
struct kmend_func *kmend_version_on(const struct kmend_site *site, bool side);

/* room.c */
void kmend_jump_init(struct kmend_site *site);
int kmend_jump_check(const struct kmend_patch *patch,
		     const struct kmend_object *object);
int kmend_jump_check_model(const struct kmend_patch *patch,
			   const struct kmend_site *site);
unsigned long kmend_entry_of(const void *function);
unsigned long kmend_probe_among(unsigned long start, unsigned long end);

/* jump.c */
void kmend_jumps_take(void);
int kmend_jumps_leave(const struct kmend_patch *patch);
int kmend_jumps_hold(const struct module *mod);
void kmend_jumps_release(const struct module *mod);
void kmend_text_lock(void);
void kmend_text_unlock(void);

/* untraced.c */
void kmend_untraced_park(struct kmend_site *site);
void kmend_untraced_arrive(struct kmend_object *object);
int kmend_untraced_prepare(void);
void kmend_untraced_switch(bool side);
void kmend_untraced_done(void);
int kmend_untraced_init(void);
void kmend_untraced_exit(void);

/* decode.c */
int kmend_decode(struct insn *insn, unsigned long at, unsigned long end);
bool kmend_is_call(const struct insn *insn);
int kmend_end_find(const void *function, unsigned long *end);
int kmend_code_find(struct kmend_code *code, const void *function);
int kmend_branches_to(const struct kmend_code *code, unsigned long start,
		      unsigned long end);

/* Of the kernel, without a header for others. */
extern struct mutex kprobe_mutex;
unsigned long recover_probed_instruction(u8 *buffer, unsigned long addr);

/* sides.c */
bool kmend_on_patched_side(void);
struct kmend_sides *kmend_sides_alloc(bool to, unsigned int tasks);
int kmend_sides_fill(struct kmend_sides *sides, struct kmend_sides *except);
void kmend_sides_seal(void);
void kmend_sides_publish(struct kmend_sides *sides);
void kmend_sides_retire(struct kmend_sides *sides);
void kmend_sides_put(struct kmend_sides *sides);
struct kmend_entry *kmend_sides_find(struct kmend_sides *sides,
				     const struct task_struct *task);
unsigned int kmend_count_tasks(void);

/* stacks.c */
int kmend_stack_check(struct task_struct *task, const char **why);
bool kmend_at_edge(void);
int kmend_stacks_init(void);
struct kmend_set *kmend_set_make(struct kmend_patch *patch, bool to);
void kmend_set_publish(struct kmend_set *set);

/* tasks.c */
bool kmend_tasks_round(struct kmend_sides *sides, unsigned int round);
void kmend_ask_newborn(struct kmend_entry *entry);
bool kmend_is_inside(struct kmend_sides *sides, struct task_struct *task);
void kmend_unpark(struct kmend_sides *sides);
void kmend_synchronize(void);
void kmend_tasks_init(void);
void kmend_tasks_exit(void);

/* stop.c */
int kmend_stop_and_switch(struct kmend_sides *sides, u64 *pause_ns);

/* refcount.c */
bool kmend_count_call(struct kmend_counter *counter,
		      struct ftrace_regs *fregs);
int kmend_count_check(const struct kmend_object *object);
int kmend_count_begin(void);
void kmend_count_end(void);
void kmend_count_all(void);
bool kmend_count_is_zero(void);
bool kmend_count_is_lost(void);
bool kmend_count_spoil(void);
void kmend_count_blockers(void);

/* blockers.c */
void kmend_blockers_clear(void);
void kmend_blocked_by(const struct task_struct *task, const char *why);
void kmend_blockers_publish(const struct kmend_patch *patch);
void kmend_blockers_forget(const struct kmend_patch *patch);
ssize_t kmend_blockers_show(const struct kmend_patch *patch, char *buf);

/* objects.c */
int kmend_objects_find(struct kmend_patch *patch);
int kmend_check_probes(const struct kmend_object *object);
int kmend_objects_init(void);
void kmend_objects_exit(void);

/* show.c */
int kmend_show_init(void);
void kmend_show_exit(void);
int kmend_show_add(struct kmend_patch *patch);
void kmend_show_remove(struct kmend_patch *patch);

static inline bool kmend_in_force(const struct kmend_patch *patch)
{
	return patch->state != KMEND_DISABLED;
}

/* What the model asks for, unless all that is left is to drain: to count, */
static inline bool kmend_counts(void)
{
	return kmend_change.model->counts && !kmend_change.drain;
}

/* that nobody is switched before the others, */
static inline bool kmend_at_once(void)
{
	return kmend_change.model->scope == SWITCH_KERNEL &&
	       !kmend_change.drain;
}

/* that tasks wait at the kernel's edge until all are there, */
static inline bool kmend_parks(void)
{
	return kmend_at_once() && kmend_change.model->leave == LEAVE_KERNEL;
}

/* that tasks are switched, or looked at, one by one. */
static inline bool kmend_by_thread(void)
{
	return !kmend_at_once() || kmend_counts() || kmend_parks();
}

#endif
