/*
 * transaction.c: a request to the metadata store that owns its texts.
 *
 * Invariant: every key of the request points into keys[], every value into values[]; both stay where they are from
 * transaction_submit() to done(), so a transaction is never moved in between.
 */
#include "volumes/head/transaction.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct transaction *transaction_of(struct metadata_request *q)
{
	return container_of(q, struct transaction, request);
}

void transaction_begin(struct transaction *t, void (*done)(struct metadata_request *q, int res))
{
	t->request = (struct metadata_request){.op = METADATA_TRANSACT, .done = done};
	list_init(&t->request.link);
	t->n_keys = 0;
	t->is_out_of_memory = false;
}

static const char *transaction_key(struct transaction *t, const char *format, va_list args)
{
	quarry_assert(t->n_keys < array_size(t->keys));
	int len = vsnprintf(t->keys[t->n_keys], KEY_BYTES, format, args);
	quarry_assert(len > 0 && len < KEY_BYTES);
	return t->keys[t->n_keys++];
}

void transaction_condition(struct transaction *t, uint64_t revision, const char *format, ...)
{
	va_list args;
	quarry_assert(t->request.n_conditions < METADATA_CONDITIONS_MAX);
	va_start(args, format);
	t->request.conditions[t->request.n_conditions++] =
	    (struct metadata_condition){.key = transaction_key(t, format, args), .revision = revision};
	va_end(args);
}

void transaction_put(struct transaction *t, char *value, const char *format, ...)
{
	va_list args;
	quarry_assert(t->request.n_changes < METADATA_CHANGES_MAX);
	if (!value) {
		t->is_out_of_memory = true;
		return;
	}
	va_start(args, format);
	t->values[t->request.n_changes] = value;
	t->request.changes[t->request.n_changes++] =
	    (struct metadata_change){.key = transaction_key(t, format, args), .value = value};
	va_end(args);
}

void transaction_delete(struct transaction *t, const char *format, ...)
{
	va_list args;
	quarry_assert(t->request.n_changes < METADATA_CHANGES_MAX);
	va_start(args, format);
	t->values[t->request.n_changes] = NULL;
	t->request.changes[t->request.n_changes++] =
	    (struct metadata_change){.key = transaction_key(t, format, args), .value = NULL};
	va_end(args);
}

uint32_t transaction_room(const struct transaction *t)
{
	uint32_t changes = METADATA_CHANGES_MAX - t->request.n_changes;
	uint32_t conditions = METADATA_CONDITIONS_MAX - t->request.n_conditions;
	return changes < conditions ? changes : conditions;
}

int transaction_submit(struct transaction *t, struct metadata *m)
{
	if (t->is_out_of_memory)
		return -ENOMEM;
	metadata_submit(m, &t->request);
	return 0;
}

void transaction_clear(struct transaction *t)
{
	for (uint32_t i = 0; i < t->request.n_changes; i++)
		free(t->values[i]);
	t->request.n_changes = 0;
	metadata_request_clear(&t->request);
}
