/*
 * lost.c: which bytes of a volume cannot be had from its backup, in whatever order it is found.
 */
#include "cli/backup/lost.h"

#include "cli/values.h"

#include <string.h>

void lost_fini(struct lost *l)
{
	free(l->ranges);
	*l = (struct lost){0};
}

static void lost_make_room(struct lost *l)
{
	if (l->n < l->room)
		return;
	l->room = l->room ? l->room * 2 : 16;
	l->ranges = reallocarray(l->ranges, l->room, sizeof(*l->ranges));
	if (!l->ranges)
		abort();
}

void lost_add(struct lost *l, uint64_t begin, uint64_t end)
{
	if (begin >= end)
		return;
	lost_make_room(l);
	uint32_t i = l->n, n = 0;
	while (i > 0 && l->ranges[i - 1].end >= begin) /* from the end: most are found in order */
		i--;
	struct lost_range whole = {begin, end}, *at = l->ranges + i;
	for (; i + n < l->n && at[n].begin <= end; n++) { /* they become one */
		whole.begin = at[n].begin < whole.begin ? at[n].begin : whole.begin;
		whole.end = at[n].end > whole.end ? at[n].end : whole.end;
		l->n_bytes -= at[n].end - at[n].begin;
	}
	memmove(at + 1, at + n, (l->n - i - n) * sizeof(*at));
	*at = whole;
	l->n = l->n - n + 1;
	l->n_bytes += whole.end - whole.begin;
}

void lost_add_fetch(struct lost *l, const struct fetch *f, uint64_t pos_bytes, uint64_t size_bytes)
{
	for (uint32_t i = 0; i < f->n_parts; i++) {
		const struct fetch_part *part = &f->parts[i];
		uint64_t begin = pos_bytes + (uint64_t)part->block * BLOCK_BYTES;
		uint64_t end = begin + (uint64_t)part->n_blocks * BLOCK_BYTES;
		if (part->error)
			lost_add(l, begin, end < size_bytes ? end : size_bytes);
	}
}

json_t *lost_json(const struct lost *l)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < l->n; i++)
		json_array_append_new(array,
				      json_pack("{sIsI}", "offset_bytes", (json_int_t)l->ranges[i].begin,
						"length_bytes", (json_int_t)(l->ranges[i].end - l->ranges[i].begin)));
	return array;
}

char *lost_text(const struct lost *l)
{
	json_auto_t *ranges = lost_json(l);
	return ranges_text(l->n_bytes, l->n, ranges);
}
