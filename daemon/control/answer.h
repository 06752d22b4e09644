/*
 * answer.h: what the API says: JSON texts and metrics made of a snapshot.
 *
 * Plain functions, callable on any thread.
 */
#pragma once

#include "daemon/config.h"
#include "daemon/control/order.h"
#include "daemon/control/snapshot.h"

/* What does not change while the daemon runs. */
struct answer_context {
	const struct config *config;
	struct log *log;
	uint64_t started_wall_ns;
	uint64_t (*wall_ns)(void); /* now */
	/* For clients of another node: addresses that can be reached from there come first. */
	bool is_from_afar;
};

/* The parts that an order shows. */
unsigned answer_parts(const struct order *o);
/* The body of a success as a new text; NULL with the refusal filled: there is no such object, or no memory. */
char *answer_make(const struct answer_context *c, const struct order *o, const struct snapshot *s, struct refusal *why);
/* The body of a refusal; NULL: no memory. */
char *answer_refusal(const struct refusal *why);
/* answer_put.c: "2031-05-07T03:00:12.345Z" */
#define ANSWER_TIME_BYTES 32
void answer_time(uint64_t wall_ns, char text[static ANSWER_TIME_BYTES]);

/* metrics_text.c: Prometheus' text format; NULL: no memory. */
char *metrics_text(const struct answer_context *c, const struct snapshot *s);

/* health.c: what is wrong, one call each, the gravest first. */
struct problem {
	const char *code;
	char object[SET_TEXT_MAX + 16];
	char message[SET_WHY_BYTES];
};
void health_each(const struct snapshot *s, void (*each)(const struct problem *p, void *context), void *context);
