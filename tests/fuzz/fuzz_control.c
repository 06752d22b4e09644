/*
 * fuzz_control.c: any bytes as a request of the control API. Whatever they are, they become a refusal with a status, or
 * an order whose texts end and whose numbers are in range; and they can be sent on to another node.
 *
 * Input: the text of such a request, forward_text.h.
 */
#include "daemon/control/forward_text.h"
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

/* What was read is written as a text that is read as the same: sent on, it is the same request. */
static void check_forwarded(const struct order_text *text)
{
	struct order_text again;
	char *copy;
	uint32_t bytes;
	if (forward_text_write(text, &copy, &bytes) != 0)
		return;
	char *end = realloc(copy, bytes + 1);
	quarry_assert(end);
	end[bytes] = '\0';
	quarry_assert(forward_text_read(end, bytes, &again) == 0);
	quarry_assert(strcmp(again.method, text->method) == 0 && strcmp(again.path, text->path) == 0);
	quarry_assert(again.n_queries == text->n_queries && again.body_bytes == text->body_bytes);
	for (uint32_t i = 0; i < again.n_queries; i++) {
		const struct order_query *a = &again.queries[i], *b = &text->queries[i];
		quarry_assert(strcmp(a->name, b->name) == 0 && !a->value == !b->value);
		quarry_assert(!a->value || strcmp(a->value, b->value) == 0);
	}
	quarry_assert(memcmp(again.body, text->body, text->body_bytes) == 0);
	free(end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct order order;
	struct order_text text;
	struct refusal why = {0};
	if (size > 2 * ORDER_BODY_BYTES_MAX)
		return 0;
	char *copy = calloc(1, size + 1);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (forward_text_read(copy, size, &text) == 0) {
		check_forwarded(&text);
		if (order_read(&text, &order, &why) == 0)
			check_order(&order);
		else
			check_refusal(&why);
	}
	free(copy);
	return 0;
}
