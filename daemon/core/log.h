/*
 * log.h: structured log lines and the ring of events that `quarry events` shows.
 *
 * A line goes to standard error in systemd's style ("<3>disk: ... key=value"); an event also goes into a bounded
 * ring with a sequence number. One log belongs to one node; its calls may come from any thread (one short lock,
 * never on the data path: lines are for what is rare).
 */
#pragma once

#include "daemon/core/base.h"

struct log;

enum log_level { LOG_ERROR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG };

/* `output_fd` < 0: keep the events only (tests). `now_wall_ns` gives the time of a line; NULL: the system's clock. */
must_check int log_create(int output_fd, enum log_level level, struct log **out);
void log_destroy(struct log *l);
void log_set_clock(struct log *l, uint64_t (*wall_ns)(void *context), void *context);
must_check int log_level_from_text(const char *text, enum log_level *out); /* "error" ... "debug"; -EINVAL */

/* One line. `area` is the module ("disk", "nbd"); the text says what happened, to what, and what to do. */
void log_line(struct log *l, enum log_level level, const char *area, const char *format, ...) printf_like(4, 5);

/* Is a line of this level written? For whoever has to work for its text. */
bool log_writes(const struct log *l, enum log_level level);

/* Something a person should be able to find later. Of a flood only the first become events, and the others are counted;
 * what differs is a line each all the same. `object`: "disk d1", "volume vm7"; `code`: a stable word for
 * scripts ("disk-failed", "damage"). Also written as a line. */
void log_event(struct log *l, enum log_level level, const char *code, const char *object, const char *format, ...)
    printf_like(5, 6);

struct log_event_view {
	uint64_t sequence; /* 1, 2, 3 ... */
	uint64_t wall_ns;
	enum log_level level;
	uint64_t n_more;       /* alike, that were only counted */
	uint64_t last_wall_ns; /* the last of them; without any, wall_ns */
	char code[32];
	char object[96];
	char text[384];
};
/* Copies up to n_max events with a sequence above `after`, oldest first; returns how many. */
size_t log_events(struct log *l, uint64_t after, struct log_event_view *out, size_t n_max);
/* Calls heard() after every event, on the thread that logged it and under the log's lock: it posts a message and does
 * no more. NULL: no longer, and no call is under way on return. */
void log_on_event(struct log *l, void (*heard)(void *context), void *context);
const char *log_level_name(enum log_level level);
