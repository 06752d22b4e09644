/*
 * loadgen.c: load on NBD volumes by one who remembers what every sector may hold, and checks it after the server died.
 *
 * usage: loadgen [--seed N] [--depth N] [--connections N] [--window-mib N] [--may-fail] URI ...
 *
 * It is told what to do line by line on standard input, and answers each with one line on standard output:
 *
 *   load [OPS]   connects to all volumes and keeps them busy. Says "loading" when the first requests have completed.
 *                Ends with "lost N done, M unknown" when the server is gone (with --may-fail also when it answers an
 *                I/O error on every connection), or with "done N" after OPS requests.
 *   verify       connects, reads everything back and compares. Says "verified N sectors, M writes settled", or "WRONG ..."
 *                and ends with status 1.
 *   (end)        ends with status 0.
 *
 * What a sector may hold is load_oracle.c's business; here is NBD: connections, requests in flight, lost replies.
 */
#include <errno.h>
#include <getopt.h>
#include <libnbd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/e2e/load_oracle.h"

#define CONNECTIONS_MAX 4u
#define DEPTH_MAX       64u
#define FIRST_DONE      64u /* requests completed before "loading" is said */

_Static_assert(VOLUMES_MAX *CONNECTIONS_MAX *DEPTH_MAX <= LOST_MAX, "all that is in flight may be lost");

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
	struct oracle o;
	unsigned n_connections, depth;
	struct connection connections[VOLUMES_MAX * CONNECTIONS_MAX];
	uint64_t done, done_max;
	bool is_told, is_ending, may_fail;
};

/* ---- sending and completing ---- */

static int completed(void *context, int *error);

static int64_t slot_send(struct load *l, struct slot *s)
{
	nbd_completion_callback done = {.callback = completed, .user_data = s};
	uint64_t pos = request_sector(&s->r) * SECTOR, len = (uint64_t)s->r.n * SECTOR;
	uint32_t flags =
	    s->r.kind != READ && s->r.kind != FLUSH && oracle_dice(&l->o, 10) == 0 ? LIBNBD_CMD_FLAG_FUA : 0;

	switch (s->r.kind) {
	case READ:
		return nbd_aio_pread(s->c->h, s->data, len, pos, done, 0);
	case WRITE:
		oracle_fill(s->c->v, &s->r, s->data);
		return nbd_aio_pwrite(s->c->h, s->data, len, pos, done, flags);
	case WRITE_ZEROES:
		return nbd_aio_zero(s->c->h, len, pos, done,
				    flags | (oracle_dice(&l->o, 4) == 0 ? LIBNBD_CMD_FLAG_NO_HOLE : 0));
	case TRIM:
		return nbd_aio_trim(s->c->h, len, pos, done, flags);
	case FLUSH:
		return nbd_aio_flush(s->c->h, done, 0);
	}
	return -1;
}

/* Nothing more comes of this connection; what became of the request is not known. */
static bool is_loss(const struct load *l, int error)
{
	return error == ENOTCONN || error == ESHUTDOWN || error == ECONNRESET || error == EPIPE ||
	       (l->may_fail && error == EIO);
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
			oracle_done(&l->o, s->c->v, &s->r, s->data);
			l->done++;
		} else if (is_loss(l, *error)) {
			s->c->is_dead = true;
			oracle_lost(&l->o, s->c->v, &s->r);
		} else {
			printf("WRONG %s: a %s of %u sectors at %llu was answered with: %s\n", s->c->v->name,
			       kind_name(s->r.kind), s->r.n, (unsigned long long)request_sector(&s->r),
			       strerror(*error));
			l->o.is_wrong = true;
		}
	}
	return 1; /* libnbd forgets the request */
}

static void connection_feed(struct connection *c)
{
	struct load *l = c->load;

	for (unsigned i = 0; i < l->depth && !l->is_ending; i++) {
		struct slot *s = &c->slots[i];

		if (s->is_used || !oracle_pick(&l->o, c->v, &s->r))
			continue;
		oracle_take(&s->r);
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

	if (!h || nbd_connect_uri(h, v->name) == -1) {
		printf("WRONG %s: %s\n", v->name, nbd_get_error());
		if (h)
			nbd_close(h);
		return NULL;
	}
	return h;
}

static bool connections_open(struct load *l)
{
	for (unsigned i = 0; i < l->o.n_volumes * l->n_connections; i++) {
		struct connection *c = &l->connections[i];

		c->v = &l->o.volumes[i / l->n_connections];
		c->load = l;
		c->n_used = 0;
		c->is_dead = false;
		c->h = dial(c->v);
		if (!c->h) {
			l->o.is_wrong = true;
			return false;
		}
		for (unsigned k = 0; k < l->depth; k++)
			c->slots[k].c = c;
	}
	return true;
}

static void connections_close(struct load *l)
{
	for (unsigned i = 0; i < l->o.n_volumes * l->n_connections; i++) {
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

	for (unsigned i = 0; i < l->o.n_volumes * l->n_connections; i++) {
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

	for (unsigned i = 0; i < l->o.n_volumes * l->n_connections; i++)
		n += l->connections[i].is_dead ? 0 : l->connections[i].n_used;
	return n;
}

static void load_run(struct load *l, uint64_t done_max)
{
	l->done = 0;
	l->is_told = l->is_ending = false;
	if (l->o.n_lost != 0) {
		printf("WRONG use: verify comes before the next load\n");
		l->o.is_wrong = true;
		return;
	}
	if (!connections_open(l)) {
		connections_close(l);
		return;
	}
	while (!l->o.is_wrong && load_turn(l)) {
		if (!l->is_told && l->done >= FIRST_DONE) {
			l->is_told = true;
			printf("loading\n");
		}
		l->is_ending = done_max != 0 && l->done >= done_max;
		if (l->is_ending && n_in_flight(l) == 0)
			break;
	}
	connections_close(l);
	if (l->o.is_wrong)
		return;
	if (l->is_ending && l->o.n_lost == 0)
		printf("done %llu\n", (unsigned long long)l->done);
	else
		printf("lost %llu done, %u unknown\n", (unsigned long long)l->done, l->o.n_lost);
}

/* ---- verifying ---- */

static bool read_back(void *context, struct volume *v, uint64_t first, uint32_t n, uint8_t *out)
{
	if (nbd_pread(context, out, (size_t)n * SECTOR, first * SECTOR, 0) == 0)
		return true;
	printf("WRONG %s: a read of %u sectors at %llu failed: %s\n", v->name, n, (unsigned long long)first,
	       nbd_get_error());
	return false;
}

static void verify_run(struct load *l)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < l->o.n_volumes && !l->o.is_wrong; i++) {
		struct nbd_handle *h = dial(&l->o.volumes[i]);

		if (!h) {
			l->o.is_wrong = true;
			return;
		}
		n += oracle_verify(&l->o, &l->o.volumes[i], read_back, h);
		nbd_shutdown(h, 0);
		nbd_close(h);
	}
	if (!l->o.is_wrong)
		printf("verified %llu sectors, %u writes settled\n", (unsigned long long)n, l->o.n_lost);
	l->o.n_lost = 0;
}

/* ---- setting up ---- */

static bool volume_begin(struct load *l, struct volume *v)
{
	struct nbd_handle *h = dial(v);
	int64_t size = h ? nbd_get_size(h) : -1;

	if (h)
		nbd_close(h);
	if (size < 0 || !oracle_volume_begin(&l->o, v, (uint64_t)size / SECTOR)) {
		fprintf(stderr, "loadgen: %s is not there or smaller than 1 MiB\n", v->name);
		return false;
	}
	return true;
}

static bool buffers_make(struct load *l)
{
	for (unsigned i = 0; i < l->o.n_volumes * l->n_connections; i++) {
		for (unsigned k = 0; k < l->depth; k++) {
			l->connections[i].slots[k].data = malloc((size_t)REQUEST_SECTORS_MAX * SECTOR);
			if (!l->connections[i].slots[k].data)
				return false;
		}
	}
	return true;
}

static void options_read(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {
	    {"seed", required_argument, NULL, 's'},        {"depth", required_argument, NULL, 'd'},
	    {"connections", required_argument, NULL, 'c'}, {"window-mib", required_argument, NULL, 'w'},
	    {"may-fail", no_argument, NULL, 'f'},          {NULL, 0, NULL, 0}};
	int o;

	*l = (struct load){.depth = 16, .n_connections = 2, .o = {.window_mib = 8, .random = 1, .next_id = 1}};
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			l->o.random = load_number(optarg, 4000000000u);
			break;
		case 'd':
			l->depth = load_number(optarg, DEPTH_MAX);
			break;
		case 'c':
			l->n_connections = load_number(optarg, CONNECTIONS_MAX);
			break;
		case 'w':
			l->o.window_mib = load_number(optarg, 1024);
			break;
		case 'f':
			l->may_fail = true;
			break;
		default:
			exit(2);
		}
	}
	if (!oracle_name_volumes(&l->o, argv + optind, argc - optind)) {
		fprintf(stderr,
			"usage: loadgen [--seed N] [--depth N] [--connections N] [--window-mib N] [--may-fail] URI ... "
			"(up to %u)\n",
			VOLUMES_MAX);
		exit(2);
	}
}

static void load_free(struct load *l)
{
	for (unsigned i = 0; i < VOLUMES_MAX * CONNECTIONS_MAX; i++) {
		for (unsigned k = 0; k < DEPTH_MAX; k++)
			free(l->connections[i].slots[k].data);
	}
	oracle_free(&l->o);
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
	for (unsigned i = 0; i < l->o.n_volumes; i++) {
		if (!volume_begin(l, &l->o.volumes[i]))
			return 2;
	}
	if (!buffers_make(l))
		return 2;
	printf("ready\n");
	while (!l->o.is_wrong && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "verify") == 0)
			verify_run(l);
		else if (strncmp(line, "load", 4) == 0)
			load_run(l, strtoull(line + 4, NULL, 10));
		else
			fprintf(stderr, "loadgen: what is \"%s\"?\n", line);
	}
	is_right = !l->o.is_wrong;
	load_free(l);
	return is_right ? 0 : 1;
}
