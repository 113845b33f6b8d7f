// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program that runs update.h: the words lie in memory that this program cannot write, and vmap() maps the same memory
 * once more. What fails says so with its line, and is the exit status.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;

struct klp_object { const char *name; };
struct page { int unused; };

#define PAGE_SIZE 4096UL
#define PAGES 3
#define VM_MAP 0
#define PAGE_KERNEL 0
#define GFP_KERNEL 0
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define cmpxchg(at, from, to) __sync_val_compare_and_swap(at, from, to)
#define offset_in_page(at) ((uintptr_t)(at) & (PAGE_SIZE - 1))
#define lm_alias(at) (at)
#define kmalloc_array(count, size, flags) calloc(count, size)
#define kfree free
#define pr_err(...) ((void)0)
#define pr_warn(...) ((void)0)

static int memory;
static char *base, *writable;
static bool may_map = true;
static int missing = -1, mapped, stays;

static void kmend_stay(void)
{
	stays++;
}

static struct page *virt_to_page(void *at)
{
	static struct page pages[PAGES];
	int number = ((char *)at - base) / PAGE_SIZE;

	return number == missing ? NULL : &pages[number];
}

#define vmalloc_to_page virt_to_page

static void *vmap(struct page **pages, unsigned int count, int flags, int protection)
{
	char *at;
	unsigned int n;
	long number;

	if (!may_map)
		return NULL;
	at = mmap(NULL, PAGES * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (n = 0; n < count; n++) {
		number = pages[n] - virt_to_page(base);
		mmap(at + n * PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory,
		     number * PAGE_SIZE);
	}
	mapped++;
	return at;
}

static void vunmap(void *at)
{
	munmap(at, PAGES * PAGE_SIZE);
	mapped--;
}

#include "update.h"

#define NEEDED(what) do { if (!(what)) { fprintf(stderr, "%d: " #what "\n", __LINE__); exit(1); } } while (0)

static char old_text[] = "two", new_text[] = "zwei", living_text[] = "two", replaced_text[] = "zwei";
static struct klp_object object;
static struct kmend_word words[3];

#define BYTE (*(u8 *)(base + 5))
#define WIDE (*(u64 *)(base + PAGE_SIZE + 8))
#define TEXT (*(char **)(base + 2 * PAGE_SIZE + 4088))
#define OTHER(field) (*(typeof(field) *)(writable + ((char *)&(field) - base)))

static void begin(void)
{
	OTHER(BYTE) = 1;
	OTHER(WIDE) = 1ULL << 40;
	OTHER(TEXT) = living_text;
	words[0] = (struct kmend_word){ &BYTE, 1, KMEND_CONSTANT, 1, 2 };
	words[1] = (struct kmend_word){ &WIDE, 8, 0, 1ULL << 40, 7 };
	words[2] = (struct kmend_word){ &TEXT, 8, KMEND_CONSTANT | KMEND_TEXT, (uintptr_t)old_text,
					(uintptr_t)new_text };
	may_map = true;
	missing = -1;
	stays = 0;
}

static int check(void)
{
	return kmend_check_words(&object, words, 3);
}

static void put(void)
{
	kmend_put_words(&object, words, 3, true);
}

static void take_back(void)
{
	kmend_take_words_back(&object, words, 3);
}

static bool is_old(void)
{
	return BYTE == 1 && WIDE == 1ULL << 40 && TEXT == living_text;
}

static bool is_new(void)
{
	return BYTE == 2 && WIDE == 7 && TEXT == new_text;
}

int main(void)
{
	memory = memfd_create("words", 0);
	if (memory < 0 || ftruncate(memory, PAGES * PAGE_SIZE))
		return 2;
	base = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ, MAP_SHARED, memory, 0);
	writable = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);

	begin();
	NEEDED(!check() && is_old());
	put();
	NEEDED(is_new() && stays == 1);
	/* The kernel calls post_patch again when it reverses a transition. */
	put();
	NEEDED(is_new());
	take_back();
	NEEDED(is_old());

	/* A page that cannot be mapped declines the livepatch, and leaves all words as they are. */
	for (missing = 0; missing < PAGES; missing++) {
		int page = missing;

		begin();
		missing = page;
		NEEDED(check() == -ENOMEM);
		put();
		NEEDED(is_old() && !stays);
	}
	begin();
	NEEDED(!check());
	may_map = false;
	put();
	NEEDED(is_old() && !stays);
	may_map = true;
	put();
	may_map = false;
	take_back();
	NEEDED(is_new());

	/* What someone else changed between the check and the exchange. */
	begin();
	NEEDED(!check());
	OTHER(WIDE) = 5;
	put();
	NEEDED(BYTE == 1 && WIDE == 5 && TEXT == living_text && !stays);

	/* What someone else changed later stays theirs, and the others go back. */
	begin();
	NEEDED(!check());
	put();
	OTHER(WIDE) = 5;
	take_back();
	NEEDED(BYTE == 1 && WIDE == 5 && TEXT == living_text);

	/* Another value than the one that it was compiled with. */
	begin();
	OTHER(WIDE) = 7;
	NEEDED(check() == -EINVAL);
	begin();
	OTHER(TEXT) = "three";
	NEEDED(check() == -EINVAL);
	begin();
	OTHER(TEXT) = NULL;
	NEEDED(check() == -EINVAL);

	/* What a replaced livepatch left in constant data. */
	begin();
	OTHER(BYTE) = 2;
	OTHER(TEXT) = replaced_text;
	NEEDED(!check());
	put();
	NEEDED(is_new());
	take_back();
	NEEDED(BYTE == 1 && TEXT == replaced_text);

	NEEDED(mapped == 0);
	return 0;
}
