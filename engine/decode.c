// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the instructions of a function say
 *
 * Two questions are answered from the code itself, as it is in memory: where
 * the part of a function is that the compiler moved away (NAME.cold), and
 * whether the function branches into some of its own bytes. Branches are the
 * relative jumps in the code and those that a static branch may become (its
 * table holds them while it is off). Indirect jumps to places within a function
 * come from jump tables only, which the compiler is told not to make where
 * there are retpolines. Without them a jump by a register or memory makes the
 * second question one that has no answer.
 *
 * A cold part is jumped to, never called, and neither name nor order of
 * symbols would tell whose it is, where two functions have one name. So it is
 * found by a jump that leaves the function, to a symbol of that name.
 *
 * Invariant: text_mutex is held while code is read, so that no instruction is
 * half written; kprobes are seen through.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jump_label.h>
#include <linux/kallsyms.h>
#include <linux/memory.h>
#include <linux/module.h>
#include <asm/insn.h>

#include "engine.h"

#if defined(CONFIG_RETPOLINE) || defined(CONFIG_MITIGATION_RETPOLINE)
#define JUMP_TABLES false
#else
#define JUMP_TABLES true
#endif

/* Returns true to see no more. */
typedef bool (*see_branch)(unsigned long target, void *arg);

/* Bytes of one kind up to the end, behind the last function of a section. */
static bool is_padding(unsigned long at, unsigned long end)
{
	u8 first = *(u8 *)at;

	return (!first || first == 0x90 || first == 0xcc) &&
	       !memchr_inv((void *)at, first, end - at);
}

static bool is_relative_jump(const struct insn *insn)
{
	u8 opcode = insn->opcode.bytes[0];

	/* Vector instructions have opcodes of their own. */
	if (insn_is_avx((struct insn *)insn))
		return false;
	if (opcode == 0x0f)
		return (insn->opcode.bytes[1] & 0xf0) == 0x80;
	return opcode == 0xe9 || opcode == 0xeb ||
	       (opcode & 0xf0) == 0x70 || (opcode & 0xfc) == 0xe0;
}

/* FF with 4 or 5 in the middle of its second byte. */
static bool is_indirect_jump(const struct insn *insn)
{
	return insn->opcode.bytes[0] == 0xff &&
	       (X86_MODRM_REG(insn->modrm.value) & 6) == 4;
}

bool kmend_is_call(const struct insn *insn)
{
	return insn->opcode.bytes[0] == 0xe8 ||
	       (insn->opcode.bytes[0] == 0xff &&
		(X86_MODRM_REG(insn->modrm.value) & 6) == 2);
}

/* The instruction there, as it is without kprobes. */
int kmend_decode(struct insn *insn, unsigned long at, unsigned long end)
{
	int most = min_t(unsigned long, end - at, MAX_INSN_SIZE);
	u8 buffer[MAX_INSN_SIZE];
	unsigned long from;

	preempt_disable();
	from = recover_probed_instruction(buffer, at);
	preempt_enable();
	if (!from || insn_decode(insn, (void *)from, most, INSN_MODE_KERN) < 0)
		return -EILSEQ;
	return 0;
}

static bool see_jumps(unsigned long start, unsigned long end,
		      struct jump_entry *entry, struct jump_entry *last,
		      see_branch see, void *arg)
{
	for (; entry < last; entry++) {
		if (jump_entry_code(entry) >= start &&
		    jump_entry_code(entry) < end &&
		    see(jump_entry_target(entry), arg))
			return true;
	}
	return false;
}

/* 1 if it was seen enough, 0 if not, or why it cannot be known. */
static int see_all(unsigned long start, unsigned long end, see_branch see,
		   void *arg)
{
	struct module *mod;
	struct insn insn;
	unsigned long at;

	lockdep_assert_held(&text_mutex);
	for (at = start; at < end && !is_padding(at, end); at += insn.length) {
		if (kmend_decode(&insn, at, end) ||
		    (JUMP_TABLES && is_indirect_jump(&insn))) {
			pr_err("nobody knows where %pS leads\n", (void *)at);
			return -EOPNOTSUPP;
		}
		if (is_relative_jump(&insn) &&
		    see(at + insn.length + insn.immediate.value, arg))
			return 1;
	}
	if (see_jumps(start, end, __start___jump_table, __stop___jump_table,
		      see, arg))
		return 1;
	preempt_disable();
	mod = __module_text_address(start);
	preempt_enable();
	/* It stays: the engine would be told before it goes. */
	return mod && see_jumps(start, end, mod->jump_entries,
				mod->jump_entries + mod->num_jump_entries,
				see, arg);
}

static bool is_cold_part(unsigned long target, void *arg)
{
	static char own[KSYM_NAME_LEN], other[KSYM_NAME_LEN];
	struct kmend_code *code = arg;
	unsigned long size, offset;
	size_t length;

	lockdep_assert_held(&kmend_mutex);
	if (target >= code->start && target < code->end)
		return false;
	if (lookup_symbol_name(code->start, own) ||
	    lookup_symbol_name(target, other))
		return false;
	length = strlen(own);
	if (strncmp(own, other, length) ||
	    !strstarts(other + length, ".cold") ||
	    !kallsyms_lookup_size_offset(target, &size, &offset))
		return false;
	code->cold_start = target - offset;
	code->cold_end = code->cold_start + size;
	return true;
}

/* Where a function ends, without a part that the compiler moved away. */
int kmend_end_find(const void *function, unsigned long *end)
{
	unsigned long size, offset, start = (unsigned long)function;

	if (!kallsyms_lookup_size_offset(start, &size, &offset) || offset) {
		pr_err("%pS has no size\n", function);
		return -EOPNOTSUPP;
	}
	*end = start + size;
	return 0;
}

/* Where a function is. */
int kmend_code_find(struct kmend_code *code, const void *function)
{
	int ret;

	*code = (struct kmend_code) { .start = (unsigned long)function };
	ret = kmend_end_find(function, &code->end);
	if (ret)
		return ret;
	mutex_lock(&text_mutex);
	ret = see_all(code->start, code->end, is_cold_part, code);
	mutex_unlock(&text_mutex);
	return min(ret, 0);
}

struct bytes {
	unsigned long start;
	unsigned long end;
};

static bool is_among(unsigned long target, void *arg)
{
	const struct bytes *bytes = arg;

	return target >= bytes->start && target < bytes->end;
}

/* 1 if the function branches there, 0 if not, or an error. */
int kmend_branches_to(const struct kmend_code *code, unsigned long start,
		      unsigned long end)
{
	struct bytes bytes = { start, end };
	int ret;

	ret = see_all(code->start, code->end, is_among, &bytes);
	return ret ?: see_all(code->cold_start, code->cold_end, is_among,
			      &bytes);
}
