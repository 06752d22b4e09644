/*
 * log.c: one line per thing that happened, and the ring of events.
 *
 *   <3>2031-05-07T03:00:12.345Z disk d1: error: write failed at block 77: Input/output error [disk-failed]
 *   |  |                        |        |      |                                            the code of an event
 *   |  time of the line, UTC    |        level  text
 *   systemd's priority          area or object
 *
 * Invariants
 *  1. A line is one write() of at most LINE_BYTES, so lines of several threads do not mix.
 *  2. No byte of the text can end a line or move a terminal's cursor, and the text is valid UTF-8: what came from a
 *     client, a peer or a path is shown as \xNN where it is anything else.
 *  3. ring[(sequence - 1) % RING_EVENTS] holds event `sequence`; the last RING_EVENTS events are there.
 *  4. A flood does not push others out: of events with one text for one object a few become events of their own in a
 *     while, and of those with one code for one object a few more (struct kind); the rest is counted in the last of them
 *     that is still in the ring.
 *
 * Owner: any thread; the lock guards the ring, the sequence, the clock and who hears, and is never held over a write().
 */
#include "daemon/core/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RING_EVENTS 1024u
#define TEXT_BYTES  1024u             /* of a text with its escapes */
#define RAW_BYTES   (TEXT_BYTES + 8u) /* before: longer, so that escaping sees when it was cut */
#define LINE_BYTES  (TEXT_BYTES + 256u)

/* Bursts of one kind, and how long each event beyond waits: a device that fails every read fills a tenth of the ring, and
 * all of it in a week. */
#define SAME_MAX  16u  /* code, object and text */
#define ALIKE_MAX 128u /* code and object; a scrub names so many damaged blocks */
#define REFILL_NS (600 * NS_PER_S)
#define KINDS     128u /* that are remembered */

struct kind {
	uint64_t hash;
	uint64_t seen;      /* the log's n_told then: the one longest not seen makes room */
	uint64_t sequence;  /* of its last event */
	uint64_t filled_ns; /* what its room was reckoned at */
	uint32_t room;      /* events that it may make now */
};

struct log {
	pthread_mutex_t lock;
	int output_fd;        /* immutable */
	enum log_level level; /* immutable */
	uint64_t (*wall_ns)(void *context);
	void *clock_context;
	void (*heard)(void *context); /* NULL: nobody waits for events */
	void *heard_context;
	uint64_t sequence; /* of the newest event; 0: none yet */
	struct log_event_view ring[RING_EVENTS];
	uint64_t n_told;
	struct kind kinds[KINDS];
};

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
};

/* systemd's priorities are syslog's: 3 is an error, 7 is debugging. */
static int level_priority(enum log_level level)
{
	return (int)level + 3;
}

const char *log_level_name(enum log_level level)
{
	quarry_assert((size_t)level < array_size(level_names));
	return level_names[level];
}

int log_level_from_text(const char *text, enum log_level *out)
{
	for (size_t i = 0; i < array_size(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* ---- life ---- */

static uint64_t system_wall_ns(void *context)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int log_create(int output_fd, enum log_level level, struct log **out)
{
	quarry_assert((size_t)level < array_size(level_names));
	struct log *l = calloc(1, sizeof *l);

	if (l == NULL)
		return -ENOMEM;
	l->output_fd = output_fd;
	l->level = level;
	l->wall_ns = system_wall_ns;
	pthread_mutex_init(&l->lock, NULL);
	*out = l;
	return 0;
}

void log_destroy(struct log *l)
{
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void log_set_clock(struct log *l, uint64_t (*wall_ns)(void *context), void *context)
{
	pthread_mutex_lock(&l->lock);
	l->wall_ns = wall_ns != NULL ? wall_ns : system_wall_ns;
	l->clock_context = context;
	pthread_mutex_unlock(&l->lock);
}

/* ---- text that is safe to show ---- */

/* Length of the well-formed UTF-8 sequence that begins here and stands for a character that is safe to print; else
 * 0. */
static size_t character_bytes(const unsigned char *at)
{
	if (at[0] >= 0x20 && at[0] < 0x7f)
		return 1;
	if (at[0] < 0xc2 || at[0] > 0xf4)
		return 0;
	size_t n = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	uint32_t code = at[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) { /* a final zero ends this early */
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	static const uint32_t smallest[] = {[2] = 0xa0 /* below are control characters */, [3] = 0x800, [4] = 0x10000};
	bool is_surrogate = code >= 0xd800 && code < 0xe000;
	bool is_line_end = code == 0x2028 || code == 0x2029;
	return code >= smallest[n] && code <= 0x10ffff && !is_surrogate && !is_line_end ? n : 0;
}

/* Copies what fits, escaped; the dots say that something did not. */
static void text_escape(char *out, size_t out_bytes, const char *text)
{
	static const char dots[] = "...";
	const unsigned char *at = (const unsigned char *)text;
	size_t len = 0, len_before_dots = 0;

	quarry_assert(out_bytes > sizeof dots);
	while (*at != '\0') {
		size_t n = character_bytes(at);
		size_t n_out = n > 0 ? n : 4;
		if (len + n_out >= out_bytes) {
			memcpy(out + len_before_dots, dots, sizeof dots);
			return;
		}
		if (n > 0)
			memcpy(out + len, at, n);
		else
			snprintf(out + len, out_bytes - len, "\\x%02x", *at);
		len += n_out;
		if (len + sizeof dots <= out_bytes)
			len_before_dots = len;
		at += n > 0 ? n : 1;
	}
	out[len] = '\0';
}

/* ---- lines ---- */

static uint64_t log_now_ns(struct log *l)
{
	pthread_mutex_lock(&l->lock);
	uint64_t now_ns = l->wall_ns(l->clock_context);
	pthread_mutex_unlock(&l->lock);
	return now_ns;
}

bool log_writes(const struct log *l, enum log_level level)
{
	return l->output_fd >= 0 && level <= l->level;
}

/* text and area are safe by now. A line that cannot be written is lost: there is nobody left to tell. */
static void line_write(struct log *l, uint64_t wall_ns, enum log_level level, const char *area, const char *text)
{
	char line[LINE_BYTES], when[32];
	struct tm utc;
	time_t seconds = (time_t)(wall_ns / NS_PER_S);

	if (!log_writes(l, level))
		return;
	gmtime_r(&seconds, &utc);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
	int len = snprintf(line, sizeof line, "<%d>%s.%03uZ %s: %s: %s\n", level_priority(level), when,
			   (unsigned)(wall_ns / NS_PER_MS % 1000), area, log_level_name(level), text);
	quarry_assert(len > 0 && (size_t)len < sizeof line);
	while (write(l->output_fd, line, (size_t)len) < 0 && errno == EINTR)
		;
}

void log_line(struct log *l, enum log_level level, const char *area, const char *format, ...)
{
	char text[RAW_BYTES], safe[TEXT_BYTES];
	va_list args;

	if (l->output_fd < 0 || level > l->level)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	text_escape(safe, sizeof safe, text);
	line_write(l, log_now_ns(l), level, area, safe);
}

/* ---- events ---- */

static uint64_t hash_add(uint64_t hash, const char *text)
{
	do
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3; /* FNV-1a, the final zero too */
	while (*text++ != '\0');
	return hash;
}

static struct kind *kind_of_locked(struct log *l, uint64_t hash, uint64_t now_ns, uint32_t room)
{
	struct kind *k = &l->kinds[0];

	for (uint32_t i = 0; i < KINDS; i++) {
		if (l->kinds[i].seen > 0 && l->kinds[i].hash == hash) {
			k = &l->kinds[i];
			break;
		}
		if (l->kinds[i].seen < k->seen)
			k = &l->kinds[i];
	}
	if (k->seen == 0 || k->hash != hash)
		*k = (struct kind){.hash = hash, .filled_ns = now_ns, .room = room};
	k->seen = ++l->n_told;
	uint64_t n = now_ns > k->filled_ns ? (now_ns - k->filled_ns) / REFILL_NS : 0;
	k->room = (uint32_t)min_u64(room, k->room + n);
	k->filled_ns = now_ns > k->filled_ns ? k->filled_ns + n * REFILL_NS : now_ns; /* it may have been set back */
	return k;
}

/* Counts one more in this event, if it is still in the ring. */
static bool event_count_locked(struct log *l, uint64_t sequence, uint64_t now_ns)
{
	struct log_event_view *e = &l->ring[(sequence - 1) % RING_EVENTS];

	if (sequence == 0 || e->sequence != sequence)
		return false;
	e->n_more++;
	e->last_wall_ns = now_ns;
	return true;
}

/* Gives the event its sequence number and puts it into the ring, or counts it there. false: nothing new was said. */
static bool event_append(struct log *l, struct log_event_view *e)
{
	pthread_mutex_lock(&l->lock);
	uint64_t now_ns = e->wall_ns = e->last_wall_ns = l->wall_ns(l->clock_context);
	uint64_t hash = hash_add(hash_add(0xcbf29ce484222325, e->code), e->object);
	struct kind *alike = kind_of_locked(l, hash, now_ns, ALIKE_MAX);
	struct kind *same = kind_of_locked(l, hash_add(hash, e->text), now_ns, SAME_MAX);
	bool is_old = same->room == 0 && event_count_locked(l, same->sequence, now_ns);
	if (!is_old && (alike->room > 0 || !event_count_locked(l, alike->sequence, now_ns))) {
		same->room -= same->room > 0;
		alike->room -= alike->room > 0;
		e->sequence = same->sequence = alike->sequence = ++l->sequence;
		l->ring[(e->sequence - 1) % RING_EVENTS] = *e;
		if (l->heard)
			l->heard(l->heard_context);
	}
	pthread_mutex_unlock(&l->lock);
	return !is_old;
}

void log_on_event(struct log *l, void (*heard)(void *context), void *context)
{
	pthread_mutex_lock(&l->lock);
	l->heard = heard;
	l->heard_context = context;
	pthread_mutex_unlock(&l->lock);
}

void log_event(struct log *l, enum log_level level, const char *code, const char *object, const char *format, ...)
{
	struct log_event_view e = {.level = level};
	char text[RAW_BYTES];
	va_list args;

	quarry_assert(strlen(code) < sizeof e.code);
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	text_escape(e.code, sizeof e.code, code);
	text_escape(e.object, sizeof e.object, object);
	text_escape(e.text, sizeof e.text, text);
	if (!event_append(l, &e))
		return;
	snprintf(text, sizeof text, "%s [%s]", e.text, e.code);
	line_write(l, e.wall_ns, level, e.object, text);
}

size_t log_events(struct log *l, uint64_t after, struct log_event_view *out, size_t n_max)
{
	size_t n = 0;

	pthread_mutex_lock(&l->lock);
	uint64_t oldest = l->sequence > RING_EVENTS ? l->sequence - RING_EVENTS + 1 : 1;
	uint64_t first = max_u64(oldest, after == UINT64_MAX ? after : after + 1);
	for (uint64_t sequence = first; sequence <= l->sequence && n < n_max; sequence++) {
		out[n] = l->ring[(sequence - 1) % RING_EVENTS];
		quarry_assert(out[n].sequence == sequence);
		n++;
	}
	pthread_mutex_unlock(&l->lock);
	return n;
}
