/*
 * fuzz_control.c: any bytes as a request of the control API. Whatever they are, they become a refusal with a status, or
 * an order whose texts end and whose numbers are in range.
 *
 * Input: METHOD, a line end, the path with queries, a line end, the body.
 */
#include "daemon/control/order.h"
#include "daemon/control/order_body.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool text_ends(const char *text, size_t bytes)
{
	return memchr(text, 0, bytes) != NULL;
}

static void check_order(const struct order *o)
{
	const struct set_command *c = &o->command;
	quarry_assert(o->status >= 200 && o->status < 300);
	quarry_assert(text_ends(o->object, sizeof(o->object)) && text_ends(c->object, sizeof(c->object)));
	quarry_assert(text_ends(c->other, sizeof(c->other)) && text_ends(c->path, sizeof(c->path)));
	quarry_assert(text_ends(c->pool, sizeof(c->pool)));
	quarry_assert(o->limit <= ORDER_EVENTS_MAX && o->wait_s <= ORDER_WAIT_S_MAX);
	quarry_assert(c->size_bytes <= VOLUME_BYTES_MAX && c->size_bytes % SECTOR_BYTES == 0);
	quarry_assert(c->replicas <= 16 && c->min_replicas <= 16 && c->failure_domain <= DOMAIN_ZONE);
	quarry_assert(c->pool[0] == '\0' || order_name_is_valid(c->pool));
	if (o->is_command && c->kind == SET_VOLUME_CREATE)
		quarry_assert(order_name_is_valid(c->object) && c->size_bytes > 0);
	if (o->is_command && c->kind == SET_VOLUME_RENAME)
		quarry_assert(order_name_is_valid(c->other));
}

static void check_refusal(const struct refusal *why)
{
	quarry_assert(why->status >= 400 && why->status < 600);
	quarry_assert(why->code[0] != '\0' && text_ends(why->code, sizeof(why->code)));
	quarry_assert(why->message[0] != '\0' && text_ends(why->message, sizeof(why->message)));
	quarry_assert(!strchr(why->message, '\n'));
}

static void split_queries(char *path, struct order_text *text)
{
	char *rest = strchr(path, '?');
	if (rest)
		*rest++ = '\0';
	while (rest && text->n_queries <= ORDER_QUERIES_MAX) {
		char *one = strsep(&rest, "&");
		char *value = strchr(one, '=');
		if (value)
			*value++ = '\0';
		if (text->n_queries < ORDER_QUERIES_MAX)
			text->queries[text->n_queries] = (struct order_query){one, value};
		text->n_queries++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct order order;
	struct refusal why = {0};
	if (size > 2 * ORDER_BODY_BYTES_MAX)
		return 0;
	char *copy = calloc(1, size + 1);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	char *rest = copy, *method = strsep(&rest, "\n"), *path = rest ? strsep(&rest, "\n") : NULL;
	if (path) {
		struct order_text text = {.method = method, .path = path, .body = rest};
		text.body_bytes = rest ? size - (size_t)(rest - copy) : 0;
		split_queries(path, &text);
		if (order_read(&text, &order, &why) == 0)
			check_order(&order);
		else
			check_refusal(&why);
	}
	free(copy);
	return 0;
}
