// SPDX-License-Identifier: GPL-2.0-only
/*
 * Has BPF programs count the calls of a function of the kernel proper
 *
 *	tracer FUNCTION KIND...
 *
 * A KIND is fentry, fexit, modify_return (which lets the function run) or
 * sleepable (an fentry program that might sleep). It says `attached`, or why
 * it cannot be. For each line of its input it then says how often each of the
 * programs has run. A line `call` has the kernel call its functions for tests
 * of BPF before, and it is said first whether they returned what the kernel
 * wants of them. The programs are detached when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define MOST 8

struct kind {
	const char *name;
	__u32 attach_type;
	__u32 flags;
};

static const struct kind kinds[] = {
	{ "fentry", BPF_TRACE_FENTRY, 0 },
	{ "fexit", BPF_TRACE_FEXIT, 0 },
	{ "modify_return", BPF_MODIFY_RETURN, 0 },
	{ "sleepable", BPF_TRACE_FENTRY, BPF_F_SLEEPABLE },
};

static int bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

/* What follows a record of BTF (Documentation/bpf/btf.rst), in bytes. */
static size_t extra(const struct btf_type *type)
{
	size_t count = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
		return sizeof(__u32);
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return count * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return count * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return count * sizeof(struct btf_enum64);
	case BTF_KIND_FUNC_PROTO:
		return count * sizeof(struct btf_param);
	case BTF_KIND_VAR:
		return sizeof(struct btf_var);
	case BTF_KIND_DATASEC:
		return count * sizeof(struct btf_var_secinfo);
	case BTF_KIND_DECL_TAG:
		return sizeof(struct btf_decl_tag);
	default:
		return 0;
	}
}

/* The number by which the kernel knows the function; 0 if there is none. */
static __u32 id_of(const char *function, const char *data)
{
	const struct btf_header *header = (const void *)data;
	const char *types = data + header->hdr_len + header->type_off;
	const char *names = data + header->hdr_len + header->str_off;
	const char *end = types + header->type_len;
	const struct btf_type *type;
	__u32 id;

	for (id = 1; types < end; id++) {
		type = (const void *)types;
		if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC &&
		    !strcmp(names + type->name_off, function))
			return id;
		types += sizeof(*type) + extra(type);
	}
	return 0;
}

/* The kernel's BTF, or null. */
static char *read_types(void)
{
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY);
	ssize_t got = 1, size = 0;
	struct stat about;
	char *data;

	if (fd < 0 || fstat(fd, &about))
		return NULL;
	data = malloc(about.st_size);
	while (data && got > 0 && size < about.st_size) {
		got = read(fd, data + size, about.st_size - size);
		size += got;
	}
	close(fd);
	return got > 0 ? data : NULL;
}

static int make_map(__u32 counters)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = sizeof(__u32),
		.value_size = sizeof(__u64),
		.max_entries = counters,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

/* A program that adds one to a counter and returns 0. */
static int load(const struct kind *kind, __u32 id, int map, int counter)
{
	const struct bpf_insn insns[] = {
		{ BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, counter },
		{ BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0 },
		{ BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4 },
		{ BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0,
		  map },
		{ 0, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem },
		{ BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0 },
		{ BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1 },
		{ BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0,
		  BPF_ADD },
		{ BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_TRACING,
		.expected_attach_type = kind->attach_type,
		.prog_flags = kind->flags,
		.attach_btf_id = id,
		.insns = (unsigned long)insns,
		.insn_cnt = ARRAY_SIZE(insns),
		.license = (unsigned long)"GPL",
	};

	return bpf(BPF_PROG_LOAD, &attr);
}

static int attach(int program)
{
	union bpf_attr attr = { .raw_tracepoint.prog_fd = program };

	return bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
}

/* Whether the functions for tests of BPF return what the kernel wants. */
static int call(int program)
{
	union bpf_attr attr = { .test.prog_fd = program };

	return !bpf(BPF_PROG_TEST_RUN, &attr);
}

static unsigned long long count_of(int map, __u32 counter)
{
	__u64 count = 0;
	union bpf_attr attr = {
		.map_fd = map,
		.key = (unsigned long)&counter,
		.value = (unsigned long)&count,
	};

	return bpf(BPF_MAP_LOOKUP_ELEM, &attr) ? 0 : count;
}

static const struct kind *kind_of(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

int main(int argc, char **argv)
{
	int count = argc - 2, programs[MOST], map, i;
	const struct kind *kind;
	char *types, line[16];
	__u32 id;

	setbuf(stdout, NULL);
	if (count < 1 || count > MOST)
		return 2;
	types = read_types();
	if (!types)
		return fail("BTF");
	id = id_of(argv[1], types);
	free(types);
	map = make_map(count);
	if (map < 0)
		return fail("map");
	for (i = 0; i < count; i++) {
		kind = kind_of(argv[2 + i]);
		if (!kind)
			return 2;
		programs[i] = load(kind, id, map, i);
		if (programs[i] < 0 || attach(programs[i]) < 0)
			return fail(kind->name);
	}
	puts("attached");
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "call\n"))
			printf("%s ", call(programs[0]) ? "same" : "other");
		for (i = 0; i < count; i++)
			printf("%llu%c", count_of(map, i),
			       i + 1 < count ? ' ' : '\n');
	}
	return 0;
}
