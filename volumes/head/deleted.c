/*
 * deleted.c: what was deleted last, so that deleting it once more is recognised (P6).
 *
 * Whoever lost the answer to a delete asks again, and finds nothing to delete: that is success when it is this which was
 * deleted. The last DELETED_MAX deletions are in one key of the store, written in the transaction that deletes; what was
 * deleted before these is simply not there.
 *
 * Invariants
 *  1. The copy holds what the store holds: commands that delete are carried out one at a time, and add to the copy when
 *     the store has confirmed.
 *  2. It is looked at only for what is not there: something new of the same name is deleted like any other.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <string.h>

struct deleted deleted_make(const char *kind, const char *name)
{
	struct deleted d = {0};
	text_print(d.kind, sizeof(d.kind), "%s", kind);
	text_print(d.names[0], sizeof(d.names[0]), "%s", name);
	return d;
}

bool deleted_has(const struct volume_set *s, const char *kind, const char *name)
{
	for (uint32_t i = 0; i < s->deleted.n; i++) {
		const struct deleted *d = &s->deleted.all[i];
		for (uint32_t k = 0; k < DELETED_NAMES && name[0]; k++)
			if (strcmp(d->kind, kind) == 0 && strcmp(d->names[k], name) == 0)
				return true;
	}
	return false;
}

/* The oldest goes when there is no room. */
static void list_add(struct deleted_list *l, const struct deleted *d)
{
	quarry_assert(l->n <= DELETED_MAX);
	if (l->n == DELETED_MAX)
		memmove(&l->all[0], &l->all[1], --l->n * sizeof(l->all[0]));
	l->all[l->n++] = *d;
}

void deleted_add(struct volume_set *s, const struct deleted *d)
{
	list_add(&s->deleted, d);
}

/* ---- JSON: {"deleted": [["KIND", "NAME", ...], ...]}, the oldest first ---- */

static char *list_to_json(const struct deleted_list *l)
{
	json_t *all = json_array();
	for (uint32_t i = 0; i < l->n; i++) {
		json_t *one = json_pack("[s]", l->all[i].kind);
		for (uint32_t k = 0; k < DELETED_NAMES; k++)
			if (l->all[i].names[k][0])
				json_array_append_new(one, json_string(l->all[i].names[k]));
		json_array_append_new(all, one);
	}
	json_t *root = json_pack("{s:o}", "deleted", all);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}

void deleted_put(const struct volume_set *s, struct transaction *t, const struct deleted *d)
{
	struct deleted_list l = s->deleted;
	list_add(&l, d);
	transaction_put(t, list_to_json(&l), DELETED_KEY);
}

static bool text_read(json_t *value, char *text, size_t room)
{
	const char *from = json_string_value(value);
	if (!from || strlen(from) >= room)
		return false;
	text_print(text, room, "%s", from);
	return true;
}

static bool deleted_read(json_t *value, struct deleted *out)
{
	size_t n = json_array_size(value);
	*out = (struct deleted){0};
	if (n < 2 || n > 1 + DELETED_NAMES || !text_read(json_array_get(value, 0), out->kind, sizeof(out->kind)))
		return false;
	for (size_t k = 1; k < n; k++)
		if (!text_read(json_array_get(value, k), out->names[k - 1], sizeof(out->names[0])))
			return false;
	return true;
}

int deleted_from_json(const char *text, struct deleted_list *out, char why[static WHY_BYTES])
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *all = json_object_get(root, "deleted"), *one;
	int err = json_is_array(all) ? 0 : -EINVAL;
	size_t i;
	out->n = 0;
	json_array_foreach(all, i, one)
	{
		struct deleted d;
		if (deleted_read(one, &d))
			list_add(out, &d);
		else
			err = -EINVAL;
	}
	json_decref(root);
	if (err != 0)
		text_print(why, WHY_BYTES, "it is not a list of what was deleted");
	return err;
}
