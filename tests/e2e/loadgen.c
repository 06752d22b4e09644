/*
 * loadgen.c: load on NBD volumes by one who remembers what every sector may hold, and checks it after the server died.
 *
 * usage: loadgen [--seed N] [--depth N] [--connections N] [--window-mib N] URI ...
 *
 * It is told what to do line by line on standard input, and answers each with one line on standard output:
 *
 *   load [OPS]   connects to all volumes and keeps them busy. Says "loading" when the first requests have completed.
 *   Ends
 *                with "lost N done, M unknown" when the server is gone, or with "done N" after OPS requests.
 *   verify       connects, reads everything back and compares. Says "verified N sectors, M writes settled", or "WRONG
 *   ..."
 *                and ends with status 1.
 *   (end)        ends with status 0.
 *
 * Invariants
 *  1. Every sector has an id: of the write that it was last told to hold, 0 for zeros. The content is made from volume,
 *     sector and id, so that a stale, torn, lost or misplaced sector is told from a right one.
 *  2. No two requests in flight overlap unless both read; requests for neighbouring sectors of one block do run at
 *     once.
 *  3. A completed write is known: its id is what the sectors hold (P1). One whose reply never came is unknown: old or
 *     new, and a write of up to 256 KiB inside one segment is one of the two as a whole (P5).
 *  4. verify settles every unknown write by what it finds, so that a later change of mind is found as well.
 *
 * Ids are held for windows of the volume only: its beginning, both sides of the first segment's end, and its last
 * bytes, which is where mistakes are; the rest of a volume stays a hole.
 */
#include <errno.h>
#include <getopt.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR              512u
#define BLOCK_SECTORS       8u
#define SEGMENT_SECTORS     (1u << 21) /* 1 GiB */
#define ATOMIC_SECTORS      512u       /* 256 KiB */
#define REQUEST_SECTORS_MAX 1024u      /* 512 KiB: some requests are no longer atomic */
#define WINDOWS_MAX         3u
#define VOLUMES_MAX         8u
#define CONNECTIONS_MAX     4u
#define DEPTH_MAX           64u
#define UNKNOWN_MAX         (VOLUMES_MAX * CONNECTIONS_MAX * DEPTH_MAX)
#define BUSY_WRITE          0xffffu
#define FIRST_DONE          64u /* requests completed before "loading" is said */

enum kind { READ, WRITE, WRITE_ZEROES, TRIM, FLUSH };
static const char *const kind_names[] = {"read", "write", "zero", "trim", "flush"};

struct sector {
	uint64_t id;
	uint16_t busy; /* readers, or BUSY_WRITE */
};

struct window {
	uint64_t first; /* sector of the volume */
	uint32_t n;
	struct sector *s;
};

struct volume {
	const char *uri;
	unsigned index;
	struct window windows[WINDOWS_MAX];
	unsigned n_windows;
};

/* A request in flight, or a write whose outcome is unknown. */
struct request {
	enum kind kind;
	struct window *w;
	uint32_t first, n; /* sectors of the window */
	uint64_t id;       /* of a write; 0 for zeros */
};

struct slot {
	struct request r;
	bool is_used;
	struct connection *c;
	uint8_t *data;
};

struct connection {
	struct nbd_handle *h;
	struct volume *v;
	struct load *load;
	struct slot slots[DEPTH_MAX];
	unsigned n_used;
	bool is_dead;
};

struct load {
	struct volume volumes[VOLUMES_MAX];
	unsigned n_volumes, n_connections, depth, window_mib;
	struct connection connections[VOLUMES_MAX * CONNECTIONS_MAX];
	struct request unknown[UNKNOWN_MAX];
	struct volume *unknown_of[UNKNOWN_MAX];
	unsigned n_unknown;
	uint64_t random, next_id, done, done_max;
	bool is_told, is_ending, is_wrong;
};

/* ---- dice and content ---- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t dice(struct load *l, uint64_t n)
{
	l->random = mix(l->random);
	return l->random % n;
}

static void sector_fill(const struct volume *v, uint64_t sector, uint64_t id, uint8_t out[static SECTOR])
{
	uint64_t words[SECTOR / 8], seed = mix(id ^ mix(sector << 8 | v->index));

	if (id == 0) {
		memset(out, 0, SECTOR);
		return;
	}
	words[0] = id;
	words[1] = sector;
	words[2] = v->index;
	for (unsigned i = 3; i < SECTOR / 8; i++)
		words[i] = seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	memcpy(out, words, SECTOR);
}

static bool sector_holds(const struct volume *v, uint64_t sector, uint64_t id, const uint8_t data[static SECTOR])
{
	uint8_t want[SECTOR];

	sector_fill(v, sector, id, want);
	return memcmp(want, data, SECTOR) == 0;
}

static void say_wrong(struct load *l, const struct volume *v, uint64_t sector, const char *what, const uint8_t *data,
		      uint64_t want)
{
	uint64_t words[3];

	memcpy(words, data, sizeof(words));
	printf("WRONG %s sector %llu (byte %llu): %s; it should hold write %llu and begins with %llu %llu %llu\n",
	       v->uri, (unsigned long long)sector, (unsigned long long)sector * SECTOR, what, (unsigned long long)want,
	       (unsigned long long)words[0], (unsigned long long)words[1], (unsigned long long)words[2]);
	l->is_wrong = true;
}

/* ---- choosing a request (invariant 2) ---- */

static bool range_is_free(const struct window *w, uint32_t first, uint32_t n, bool for_read)
{
	for (uint32_t i = first; i < first + n; i++) {
		if (w->s[i].busy == BUSY_WRITE || (!for_read && w->s[i].busy != 0))
			return false;
	}
	return true;
}

static void range_take(struct request *r)
{
	for (uint32_t i = r->first; i < r->first + r->n; i++)
		r->w->s[i].busy = r->kind == READ ? (uint16_t)(r->w->s[i].busy + 1) : (uint16_t)BUSY_WRITE;
}

static void range_release(struct request *r)
{
	for (uint32_t i = r->first; i < r->first + r->n; i++)
		r->w->s[i].busy = r->kind == READ ? (uint16_t)(r->w->s[i].busy - 1) : 0;
}

/* Mostly small, some odd, few large: the sizes that file systems and databases ask for. */
static uint32_t pick_sectors(struct load *l)
{
	uint64_t d = dice(l, 100);

	if (d < 25)
		return 1 + (uint32_t)dice(l, 15); /* parts of blocks */
	if (d < 65)
		return BLOCK_SECTORS;
	if (d < 85)
		return BLOCK_SECTORS * (1 + (uint32_t)dice(l, 16));
	if (d < 95)
		return 1 + (uint32_t)dice(l, ATOMIC_SECTORS);
	return ATOMIC_SECTORS + (uint32_t)dice(l, REQUEST_SECTORS_MAX - ATOMIC_SECTORS);
}

static enum kind pick_kind(struct load *l)
{
	uint64_t d = dice(l, 100);

	return d < 20 ? READ : d < 85 ? WRITE : d < 91 ? WRITE_ZEROES : d < 97 ? TRIM : FLUSH;
}

static bool request_pick(struct load *l, struct volume *v, struct request *r)
{
	r->kind = pick_kind(l);
	r->w = &v->windows[dice(l, v->n_windows)];
	r->n = pick_sectors(l);
	r->first = (uint32_t)dice(l, r->w->n - r->n);
	if (r->kind == FLUSH) {
		r->first = r->n = 0;
		return true;
	}
	/* a trim leaves parts of blocks as they are; most aligned writes are so in the volume too */
	if (r->kind == TRIM || (r->n % BLOCK_SECTORS == 0 && dice(l, 8) != 0)) {
		r->first -= (uint32_t)((r->w->first + r->first) % BLOCK_SECTORS);
		r->n = (r->n + BLOCK_SECTORS - 1) / BLOCK_SECTORS * BLOCK_SECTORS;
	}
	if (r->first + r->n > r->w->n)
		return false;
	/* zeros written as data become holes; the oracle calls both 0 */
	r->id = r->kind == WRITE && dice(l, 20) != 0 ? l->next_id++ : 0;
	return range_is_free(r->w, r->first, r->n, r->kind == READ);
}

/* ---- sending and completing ---- */

static int completed(void *context, int *error);

static void slot_fill(struct slot *s)
{
	for (uint32_t i = 0; i < s->r.n; i++)
		sector_fill(s->c->v, s->r.w->first + s->r.first + i, s->r.id, s->data + (size_t)i * SECTOR);
}

static int64_t slot_send(struct load *l, struct slot *s)
{
	nbd_completion_callback done = {.callback = completed, .user_data = s};
	uint64_t pos = (s->r.w ? s->r.w->first + s->r.first : 0) * SECTOR, len = (uint64_t)s->r.n * SECTOR;
	uint32_t flags = s->r.kind != READ && s->r.kind != FLUSH && dice(l, 10) == 0 ? LIBNBD_CMD_FLAG_FUA : 0;

	switch (s->r.kind) {
	case READ:
		return nbd_aio_pread(s->c->h, s->data, len, pos, done, 0);
	case WRITE:
		slot_fill(s);
		return nbd_aio_pwrite(s->c->h, s->data, len, pos, done, flags);
	case WRITE_ZEROES:
		return nbd_aio_zero(s->c->h, len, pos, done, flags | (dice(l, 4) == 0 ? LIBNBD_CMD_FLAG_NO_HOLE : 0));
	case TRIM:
		return nbd_aio_trim(s->c->h, len, pos, done, flags);
	case FLUSH:
		return nbd_aio_flush(s->c->h, done, 0);
	}
	return -1;
}

/* The range stays taken, so that no other connection writes there before it is settled. */
static void remember_unknown(struct load *l, struct slot *s)
{
	s->c->is_dead = true;
	if (s->r.kind == FLUSH)
		return;
	if (s->r.kind == READ) {
		range_release(&s->r);
		return;
	}
	l->unknown[l->n_unknown] = s->r;
	l->unknown_of[l->n_unknown++] = s->c->v;
}

static void slot_done(struct load *l, struct slot *s)
{
	for (uint32_t i = 0; i < s->r.n; i++) {
		struct sector *x = &s->r.w->s[s->r.first + i];
		const uint8_t *data = s->data + (size_t)i * SECTOR;

		if (s->r.kind != READ)
			x->id = s->r.id;
		else if (!l->is_wrong && !sector_holds(s->c->v, s->r.w->first + s->r.first + i, x->id, data))
			say_wrong(l, s->c->v, s->r.w->first + s->r.first + i, "read under load", data, x->id);
	}
	l->done++;
}

/* libnbd calls it for requests that a lost connection takes along as well, or else connections_close() does. */
static int completed(void *context, int *error)
{
	struct slot *s = context;
	struct load *l = s->c->load;

	if (s->is_used) {
		s->is_used = false;
		s->c->n_used--;
		if (*error == 0) {
			range_release(&s->r);
			slot_done(l, s);
		} else if (*error == ENOTCONN || *error == ESHUTDOWN || *error == ECONNRESET || *error == EPIPE) {
			remember_unknown(l, s);
		} else {
			printf("WRONG %s: a %s of %u sectors at %llu was answered with: %s\n", s->c->v->uri,
			       kind_names[s->r.kind], s->r.n,
			       (unsigned long long)(s->r.w ? s->r.w->first + s->r.first : 0), strerror(*error));
			l->is_wrong = true;
		}
	}
	return 1; /* libnbd forgets the request */
}

static void connection_feed(struct connection *c)
{
	struct load *l = c->load;

	for (unsigned i = 0; i < l->depth && !l->is_ending; i++) {
		struct slot *s = &c->slots[i];

		if (s->is_used || !request_pick(l, c->v, &s->r))
			continue;
		if (s->r.n > 0)
			range_take(&s->r);
		s->is_used = true;
		c->n_used++;
		if (slot_send(l, s) == -1) {
			int error = nbd_get_errno();

			/* libnbd refuses what it is asked after the connection has died as wrongly asked */
			if (error == 0 || nbd_aio_is_dead(c->h) == 1 || nbd_aio_is_closed(c->h) == 1)
				error = ENOTCONN;
			if (s->is_used) /* never sent, or not known to be */
				completed(s, &(int){error});
			if (error != ENOTCONN && error != EPIPE && error != ECONNRESET)
				printf("note: %s\n", nbd_get_error());
			c->is_dead = true;
			return;
		}
	}
}

/* ---- connections ---- */

static struct nbd_handle *dial(const struct volume *v)
{
	struct nbd_handle *h = nbd_create();

	if (!h || nbd_connect_uri(h, v->uri) == -1) {
		printf("WRONG %s: %s\n", v->uri, nbd_get_error());
		if (h)
			nbd_close(h);
		return NULL;
	}
	return h;
}

static bool connections_open(struct load *l)
{
	for (unsigned i = 0; i < l->n_volumes * l->n_connections; i++) {
		struct connection *c = &l->connections[i];

		c->v = &l->volumes[i / l->n_connections];
		c->load = l;
		c->n_used = 0;
		c->is_dead = false;
		c->h = dial(c->v);
		if (!c->h) {
			l->is_wrong = true;
			return false;
		}
		for (unsigned k = 0; k < l->depth; k++)
			c->slots[k].c = c;
	}
	return true;
}

static void connections_close(struct load *l)
{
	for (unsigned i = 0; i < l->n_volumes * l->n_connections; i++) {
		struct connection *c = &l->connections[i];

		if (c->h)
			nbd_close(c->h);
		c->h = NULL;
		for (unsigned k = 0; k < l->depth; k++) {
			if (c->slots[k].is_used)
				completed(&c->slots[k], &(int){ENOTCONN});
		}
	}
}

static void connection_turn(struct connection *c, short events)
{
	int res = 0;

	if (events & (POLLIN | POLLHUP | POLLERR))
		res = nbd_aio_notify_read(c->h);
	if (res == 0 && (events & POLLOUT) && (nbd_aio_get_direction(c->h) & LIBNBD_AIO_DIRECTION_WRITE))
		res = nbd_aio_notify_write(c->h);
	if (res == -1 || nbd_aio_is_dead(c->h) || nbd_aio_is_closed(c->h))
		c->is_dead = true;
}

/* One poll of all connections; false when none lives. */
static bool load_turn(struct load *l)
{
	struct pollfd fds[VOLUMES_MAX * CONNECTIONS_MAX];
	struct connection *of[VOLUMES_MAX * CONNECTIONS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < l->n_volumes * l->n_connections; i++) {
		struct connection *c = &l->connections[i];
		unsigned direction;

		if (!c->is_dead)
			connection_feed(c);
		if (c->is_dead)
			continue;
		direction = nbd_aio_get_direction(c->h);
		of[n] = c;
		fds[n++] = (struct pollfd){
		    .fd = nbd_aio_get_fd(c->h),
		    .events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				      (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)),
		};
	}
	if (n == 0)
		return false;
	if (poll(fds, n, 1000) < 0 && errno != EINTR)
		return false;
	for (unsigned i = 0; i < n; i++)
		connection_turn(of[i], fds[i].revents);
	return true;
}

static unsigned n_in_flight(const struct load *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->n_volumes * l->n_connections; i++)
		n += l->connections[i].is_dead ? 0 : l->connections[i].n_used;
	return n;
}

static void load_run(struct load *l, uint64_t done_max)
{
	l->done = 0;
	l->is_told = l->is_ending = false;
	if (l->n_unknown != 0) {
		printf("WRONG use: verify comes before the next load\n");
		l->is_wrong = true;
		return;
	}
	if (!connections_open(l)) {
		connections_close(l);
		return;
	}
	while (!l->is_wrong && load_turn(l)) {
		if (!l->is_told && l->done >= FIRST_DONE) {
			l->is_told = true;
			printf("loading\n");
		}
		l->is_ending = done_max != 0 && l->done >= done_max;
		if (l->is_ending && n_in_flight(l) == 0)
			break;
	}
	connections_close(l);
	if (l->is_wrong)
		return;
	if (l->is_ending && l->n_unknown == 0)
		printf("done %llu\n", (unsigned long long)l->done);
	else
		printf("lost %llu done, %u unknown\n", (unsigned long long)l->done, l->n_unknown);
}

/* ---- verifying ---- */

/* The pieces of a write that are whole or not at all: all of it, or else single blocks (invariant 3). */
static bool is_atomic(const struct request *r)
{
	uint64_t first = r->w->first + r->first;

	return r->kind == WRITE && r->n <= ATOMIC_SECTORS &&
	       first / SEGMENT_SECTORS == (first + r->n - 1) / SEGMENT_SECTORS;
}

/* Decides one unknown write by what the volume holds, and takes that as the truth. */
static void settle(struct load *l, const struct volume *v, struct request *r, const uint8_t *window_data)
{
	int whole = -1; /* -1: no sector told yet; 0: old; 1: new */

	range_release(r);
	for (uint32_t i = r->first; i < r->first + r->n && !l->is_wrong; i++) {
		struct sector *x = &r->w->s[i];
		const uint8_t *data = window_data + (size_t)i * SECTOR;
		uint64_t sector = r->w->first + i;
		bool is_new = sector_holds(v, sector, r->id, data), is_old = sector_holds(v, sector, x->id, data);

		if (!is_atomic(r) && sector % BLOCK_SECTORS == 0)
			whole = -1;
		if (!is_new && !is_old)
			say_wrong(l, v, sector, "neither the old nor the new content of a write in flight", data,
				  x->id);
		else if (is_new && !is_old && whole == 0)
			say_wrong(l, v, sector, "torn: new after old sectors of one write", data, x->id);
		else if (is_old && !is_new && whole == 1)
			say_wrong(l, v, sector, "torn: old after new sectors of one write", data, r->id);
		else if (is_new != is_old)
			whole = is_new;
		if (is_new && !l->is_wrong)
			x->id = r->id;
	}
}

static bool window_read(struct nbd_handle *h, const struct window *w, uint8_t *out)
{
	for (uint32_t at = 0; at < w->n; at += ATOMIC_SECTORS) {
		uint32_t n = w->n - at < ATOMIC_SECTORS ? w->n - at : ATOMIC_SECTORS;

		if (nbd_pread(h, out + (size_t)at * SECTOR, (size_t)n * SECTOR, (w->first + at) * SECTOR, 0) == -1) {
			printf("WRONG a read of %u sectors at %llu failed: %s\n", n,
			       (unsigned long long)(w->first + at), nbd_get_error());
			return false;
		}
	}
	return true;
}

static void window_verify(struct load *l, struct volume *v, struct nbd_handle *h, struct window *w)
{
	uint8_t *data = malloc((size_t)w->n * SECTOR);

	if (!data || !window_read(h, w, data)) {
		l->is_wrong = true;
		free(data);
		return;
	}
	for (unsigned i = 0; i < l->n_unknown && !l->is_wrong; i++) {
		if (l->unknown_of[i] == v && l->unknown[i].w == w)
			settle(l, v, &l->unknown[i], data);
	}
	for (uint32_t i = 0; i < w->n && !l->is_wrong; i++) {
		const uint8_t *sector = data + (size_t)i * SECTOR;

		if (!sector_holds(v, w->first + i, w->s[i].id, sector))
			say_wrong(l, v, w->first + i, "a completed write is lost", sector, w->s[i].id);
	}
	free(data);
}

static void verify_run(struct load *l)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < l->n_volumes && !l->is_wrong; i++) {
		struct nbd_handle *h = dial(&l->volumes[i]);

		if (!h) {
			l->is_wrong = true;
			return;
		}
		for (unsigned k = 0; k < l->volumes[i].n_windows && !l->is_wrong; k++) {
			window_verify(l, &l->volumes[i], h, &l->volumes[i].windows[k]);
			n += l->volumes[i].windows[k].n;
		}
		nbd_shutdown(h, 0);
		nbd_close(h);
	}
	if (!l->is_wrong)
		printf("verified %llu sectors, %u writes settled\n", (unsigned long long)n, l->n_unknown);
	l->n_unknown = 0;
}

/* ---- setting up ---- */

static bool window_add(struct volume *v, uint64_t first, uint64_t n)
{
	struct window *w = &v->windows[v->n_windows++];

	*w = (struct window){.first = first, .n = (uint32_t)n, .s = calloc(n, sizeof(struct sector))};
	return w->s != NULL;
}

static bool volume_begin(struct load *l, struct volume *v)
{
	struct nbd_handle *h = dial(v);
	int64_t size = h ? nbd_get_size(h) : -1;
	uint64_t n = (uint64_t)l->window_mib * 2048, sectors = (uint64_t)size / SECTOR;

	if (h)
		nbd_close(h);
	if (size < 0 || sectors < REQUEST_SECTORS_MAX * 2) {
		fprintf(stderr, "loadgen: %s is not there or smaller than 1 MiB\n", v->uri);
		return false;
	}
	if (sectors <= 3 * n)
		return window_add(v, 0, sectors);
	if (!window_add(v, 0, n) || !window_add(v, sectors - n, n))
		return false;
	if (sectors > SEGMENT_SECTORS + 2 * n)
		return window_add(v, SEGMENT_SECTORS - n / 2, n);
	return true;
}

static bool buffers_make(struct load *l)
{
	for (unsigned i = 0; i < l->n_volumes * l->n_connections; i++) {
		for (unsigned k = 0; k < l->depth; k++) {
			l->connections[i].slots[k].data = malloc((size_t)REQUEST_SECTORS_MAX * SECTOR);
			if (!l->connections[i].slots[k].data)
				return false;
		}
	}
	return true;
}

static unsigned number(const char *text, unsigned max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end != '\0' || n == 0 || n > max) {
		fprintf(stderr, "loadgen: \"%s\" is not a number from 1 to %u\n", text, max);
		exit(2);
	}
	return (unsigned)n;
}

static void options_read(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"depth", required_argument, NULL, 'd'},
						{"connections", required_argument, NULL, 'c'},
						{"window-mib", required_argument, NULL, 'w'},
						{NULL, 0, NULL, 0}};
	int o;

	*l = (struct load){.depth = 16, .n_connections = 2, .window_mib = 8, .random = 1, .next_id = 1};
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			l->random = number(optarg, 4000000000u);
			break;
		case 'd':
			l->depth = number(optarg, DEPTH_MAX);
			break;
		case 'c':
			l->n_connections = number(optarg, CONNECTIONS_MAX);
			break;
		case 'w':
			l->window_mib = number(optarg, 1024);
			break;
		default:
			exit(2);
		}
	}
	if (optind == argc || argc - optind > (int)VOLUMES_MAX) {
		fprintf(stderr,
			"usage: loadgen [--seed N] [--depth N] [--connections N] [--window-mib N] URI ... (up to %u)\n",
			VOLUMES_MAX);
		exit(2);
	}
	for (; optind < argc; optind++) {
		l->volumes[l->n_volumes] = (struct volume){.uri = argv[optind], .index = l->n_volumes};
		l->n_volumes++;
	}
}

static void load_free(struct load *l)
{
	for (unsigned i = 0; i < VOLUMES_MAX * CONNECTIONS_MAX; i++) {
		for (unsigned k = 0; k < DEPTH_MAX; k++)
			free(l->connections[i].slots[k].data);
	}
	for (unsigned i = 0; i < l->n_volumes; i++) {
		for (unsigned k = 0; k < l->volumes[i].n_windows; k++)
			free(l->volumes[i].windows[k].s);
	}
	free(l);
}

int main(int argc, char **argv)
{
	struct load *l = malloc(sizeof(*l));
	char line[64];
	bool is_right;

	if (!l)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	options_read(l, argc, argv);
	for (unsigned i = 0; i < l->n_volumes; i++) {
		if (!volume_begin(l, &l->volumes[i]))
			return 2;
	}
	if (!buffers_make(l))
		return 2;
	printf("ready\n");
	while (!l->is_wrong && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "verify") == 0)
			verify_run(l);
		else if (strncmp(line, "load", 4) == 0)
			load_run(l, strtoull(line + 4, NULL, 10));
		else
			fprintf(stderr, "loadgen: what is \"%s\"?\n", line);
	}
	is_right = !l->is_wrong;
	load_free(l);
	return is_right ? 0 : 1;
}
