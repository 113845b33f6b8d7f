// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exchanges words of the running kernel's data. Part of a livepatch that updates variables.
 *
 * Every word is checked before anything is patched, and exchanged only from the value that was checked for, so that
 * what someone else changed stays theirs. Read-only data is written through another mapping of its page, as the
 * kernel writes its own code. The pages of all words are mapped, and all words looked at once more, before the first is
 * exchanged: all are, or none is.
 */
#include <linux/mm.h>
#include <linux/slab.h>
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

/* The pages of the words, one after the other in another mapping; NULL if one of them cannot be mapped. */
static void *kmend_map(struct klp_object *object, const struct kmend_word *words, size_t count)
{
	struct page **pages;
	void *at = NULL;
	size_t n;

	pages = kmalloc_array(count, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return NULL;
	for (n = 0; n < count; n++) {
		pages[n] = object->name ? vmalloc_to_page(words[n].place) : virt_to_page(lm_alias(words[n].place));
		if (!pages[n])
			goto out;
	}
	at = vmap(pages, count, VM_MAP, PAGE_KERNEL);
out:
	kfree(pages);
	return at;
}

/* Puts the value there that the word does not hold, if it still holds what was found or put there. */
static void kmend_write(void *map, size_t n, const struct kmend_word *word, u64 from, u64 to)
{
	void *at = map + n * PAGE_SIZE + offset_in_page(word->place);
	u64 found = kmend_exchange(at, word->width, from, to);

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

static int kmend_check_words(struct klp_object *object, struct kmend_word *words, size_t count)
{
	struct kmend_word *word;
	void *map;
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
	/* What cannot be written is found while the livepatch can still be declined. */
	map = kmend_map(object, words, count);
	if (!map) {
		pr_err("data cannot be updated: its pages cannot be mapped\n");
		return -ENOMEM;
	}
	vunmap(map);
	return 0;
}

static void kmend_put_words(struct klp_object *object, struct kmend_word *words, size_t count, bool pin)
{
	void *map = kmend_map(object, words, count);
	u64 value;
	size_t n;

	if (!map) {
		pr_err("no data is updated: its pages cannot be mapped\n");
		return;
	}
	for (n = 0; n < count; n++) {
		value = kmend_word(&words[n]);
		if (value != words[n].found && value != words[n].new) {
			pr_err("no data is updated: %pS holds %#llx by now, not %#llx\n", words[n].place, value,
			       words[n].found);
			goto out;
		}
	}
	/* A pointer into this module is written: who followed it may still be here when it is taken back. */
	if (pin)
		kmend_stay();
	for (n = 0; n < count; n++)
		kmend_write(map, n, &words[n], words[n].found, words[n].new);
out:
	vunmap(map);
}

/* What someone else changed meanwhile stays theirs; the others go back all the same. */
static void kmend_take_words_back(struct klp_object *object, struct kmend_word *words, size_t count)
{
	void *map = kmend_map(object, words, count);
	size_t n;

	if (!map) {
		pr_err("no data is taken back: its pages cannot be mapped\n");
		return;
	}
	for (n = 0; n < count; n++)
		kmend_write(map, n, &words[n], words[n].new, words[n].found);
	vunmap(map);
}
