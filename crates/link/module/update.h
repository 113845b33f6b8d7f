// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exchanges words of the running kernel's data. Part of a livepatch that updates variables.
 *
 * Every word is checked before anything is patched, and exchanged only from the value that was checked for, so that
 * what someone else changed stays theirs. Read-only data is written through another mapping of its page, as the
 * kernel writes its own code.
 */
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

struct kmend_word {
	void *place;
	u32 width;
	u32 flags;
	u64 old;
	u64 new;
	/* What the word held: of a pointer to a text, the place of the text. */
	u64 found;
};

#define KMEND_CONSTANT	1
#define KMEND_TEXT	2

static u64 kmend_word(const struct kmend_word *word)
{
	switch (word->width) {
	case 1:
		return READ_ONCE(*(u8 *)word->place);
	case 2:
		return READ_ONCE(*(u16 *)word->place);
	case 4:
		return READ_ONCE(*(u32 *)word->place);
	default:
		return READ_ONCE(*(u64 *)word->place);
	}
}

static u64 kmend_exchange(void *at, u32 width, u64 from, u64 to)
{
	switch (width) {
	case 1:
		return cmpxchg((u8 *)at, (u8)from, (u8)to);
	case 2:
		return cmpxchg((u16 *)at, (u16)from, (u16)to);
	case 4:
		return cmpxchg((u32 *)at, (u32)from, (u32)to);
	default:
		return cmpxchg((u64 *)at, from, to);
	}
}

static void kmend_write(struct klp_object *object, struct kmend_word *word, u64 from, u64 to)
{
	struct page *page;
	u64 found;
	void *page_at;

	page = object->name ? vmalloc_to_page(word->place) : virt_to_page(lm_alias(word->place));
	page_at = page ? vmap(&page, 1, VM_MAP, PAGE_KERNEL) : NULL;
	if (!page_at) {
		pr_err("%pS is not updated: its page cannot be mapped\n", word->place);
		return;
	}
	found = kmend_exchange(page_at + offset_in_page(word->place), word->width, from, to);
	vunmap(page_at);
	if (found != from && found != to)
		pr_warn("%pS is not updated: it holds %#llx, not %#llx\n", word->place, found, from);
}

static bool kmend_same_text(u64 at, u64 text)
{
	return !strcmp((const char *)at, (const char *)text);
}

/* A pointer to a text in data that nothing else writes; a livepatch that was replaced leaves one to the new text. */
static int kmend_check_text(struct kmend_word *word, u64 value)
{
	if (!value || !(kmend_same_text(value, word->old) || kmend_same_text(value, word->new))) {
		pr_err("%pS does not lead to \"%s\", with which it was compiled\n", word->place,
		       (const char *)word->old);
		return -EINVAL;
	}
	word->found = value;
	return 0;
}

static int kmend_check_words(struct kmend_word *words, size_t count)
{
	struct kmend_word *word;
	u64 value;
	int error;

	for (word = words; word < words + count; word++) {
		value = kmend_word(word);
		if (word->flags & KMEND_TEXT) {
			error = kmend_check_text(word, value);
			if (error)
				return error;
			continue;
		}
		word->found = word->old;
		/* A livepatch that was replaced leaves the new value: its callbacks do not run. */
		if (value != word->old && !(word->flags & KMEND_CONSTANT && value == word->new)) {
			pr_err("%pS holds %#llx, not the %#llx that it was compiled with\n", word->place, value,
			       word->old);
			return -EINVAL;
		}
	}
	return 0;
}

static void kmend_put_words(struct klp_object *object, struct kmend_word *words, size_t count, bool pin)
{
	struct kmend_word *word;

	/* A pointer into this module is written: who followed it may still be here when it is taken back. */
	if (pin)
		kmend_stay();
	for (word = words; word < words + count; word++)
		kmend_write(object, word, word->found, word->new);
}

static void kmend_take_words_back(struct klp_object *object, struct kmend_word *words, size_t count)
{
	struct kmend_word *word;

	for (word = words; word < words + count; word++)
		kmend_write(object, word, word->new, word->found);
}
