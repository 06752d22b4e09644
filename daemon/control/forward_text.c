/*
 * forward_text.c: requests of the control API, to a text and back.
 *
 * Invariants
 *  1. What is read was written from the same method, path, queries and body: no part of one becomes part of another,
 *     since HTTP's have no line end, and a body ends where the text does.
 *  2. Queries beyond ORDER_QUERIES_MAX are counted and left out, as libmicrohttpd's are.
 *
 * Pure functions; nothing is owned.
 */
#include "daemon/control/forward_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METHOD_BYTES_MAX 16u

/* Room for what is put together, or none yet; what does not fit is counted as well. */
struct line {
	char *at;
	size_t n, max;
};

static void line_add(struct line *l, const char *text)
{
	size_t len = strlen(text);
	if (l->at && l->n + len <= l->max)
		memcpy(l->at + l->n, text, len);
	l->n += len;
}

static void line_fill(struct line *l, const struct order_text *t)
{
	line_add(l, t->method);
	line_add(l, "\n");
	line_add(l, t->path);
	for (uint32_t i = 0; i < t->n_queries; i++) {
		const struct order_query *q = &t->queries[i];
		line_add(l, i == 0 ? "?" : "&");
		line_add(l, q->name);
		if (q->value) {
			line_add(l, "=");
			line_add(l, q->value);
		}
	}
	line_add(l, "\n");
}

static bool has_line_end(const struct order_text *t)
{
	bool has = strchr(t->method, '\n') || strchr(t->path, '\n');
	for (uint32_t i = 0; i < t->n_queries; i++)
		has |= strchr(t->queries[i].name, '\n') || (t->queries[i].value && strchr(t->queries[i].value, '\n'));
	return has;
}

int forward_text_write(const struct order_text *t, char **out, uint32_t *out_bytes)
{
	struct line l = {0};
	if (t->n_queries > ORDER_QUERIES_MAX || t->body_bytes > ORDER_BODY_BYTES_MAX || has_line_end(t))
		return -E2BIG;
	line_fill(&l, t);
	if (l.n > FORWARD_TARGET_BYTES_MAX)
		return -E2BIG;
	size_t bytes = l.n + t->body_bytes;
	l.at = calloc(1, (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);
	if (!l.at)
		return -ENOMEM;
	l.max = l.n;
	l.n = 0;
	line_fill(&l, t);
	quarry_assert(l.n == l.max);
	if (t->body_bytes > 0)
		memcpy(l.at + l.n, t->body, t->body_bytes);
	*out = l.at;
	*out_bytes = (uint32_t)bytes;
	return 0;
}

static void queries_split(char *rest, struct order_text *out)
{
	while (rest && out->n_queries <= ORDER_QUERIES_MAX) {
		char *name = strsep(&rest, "&"), *value = strchr(name, '=');
		if (value)
			*value++ = '\0';
		if (out->n_queries < ORDER_QUERIES_MAX)
			out->queries[out->n_queries] = (struct order_query){name, value};
		out->n_queries++;
	}
}

int forward_text_read(char *text, size_t text_bytes, struct order_text *out)
{
	char *end = text + text_bytes;
	char *method_end = memchr(text, '\n', text_bytes);
	char *target = method_end ? method_end + 1 : end;
	char *target_end = memchr(target, '\n', (size_t)(end - target));
	quarry_assert(*end == '\0');
	if (!target_end || (size_t)(method_end - text) > METHOD_BYTES_MAX ||
	    (size_t)(target_end - text) >= FORWARD_TARGET_BYTES_MAX || memchr(text, 0, (size_t)(target_end - text)))
		return -EBADMSG;
	*method_end = *target_end = '\0';
	*out = (struct order_text){.method = text, .path = target, .body = target_end + 1};
	out->body_bytes = (size_t)(end - out->body);
	if (out->body_bytes > ORDER_BODY_BYTES_MAX)
		return -EBADMSG;
	char *queries = strchr(target, '?');
	if (queries)
		*queries++ = '\0';
	queries_split(queries, out);
	return 0;
}
