/*
 * main_loadgen.c: vhost-loadgen: load on vhost-user-blk volumes by one who remembers what every sector may hold, as a
 * VMM whose guest must not notice that the server was killed and started again.
 *
 * usage: vhost-loadgen [--seed N] [--depth N] [--queues N] [--packed] [--window-mib N] [--disturb]
 *                      [--no-discard] [--regions N] SOCKET ...
 *
 * It is told what to do line by line on standard input, and answers each with one line on standard output:
 *
 *   load      connects to all volumes and keeps them busy. Says "loading" when the first requests have completed.
 *             When the server is gone it says "lost N" (requests in flight), connects again with the region of requests
 *             in flight as soon as somebody listens, and says "resumed N" when all of those have completed well.
 *   stop      sends nothing new. Says "done N requests" when nothing is in flight.
 *   verify    reads everything back and compares. Says "verified N sectors".
 *   (end)     ends with status 0.
 *
 * Anything that a guest would notice is "WRONG ..." and status 1: an error, a completion of something not in flight,
 * other content than the oracle's (load_oracle.h), no completion for half a minute.
 *
 * --disturb stops and starts queues while requests are in flight, gives the memory table again, takes a region away and
 * brings it back, whatever lies in it, turns the log of dirty pages on and off, and reads the configuration, at random
 * moments.
 * --no-discard is for servers whose discarded sectors need not read as zeros.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/e2e/load_oracle.h"
#include "tests/vhost/vhost_slot.h"

#define DEPTH_MAX      64u
#define FIRST_DONE     64u
#define SEGMENTS_MAX   4u
#define TURN_MS        10
#define DIAL_LIMIT_S   60u
#define SILENCE_S      30u
#define DISTURB_ONE_IN 100u /* turns */
#define NS_PER_S       1000000000ull

/* One volume and its VMM. */
struct vm {
	struct volume *v;
	struct vhost_client c;
	struct request *requests; /* of each slot of each queue */
	bool *owed;               /* in flight when the server was lost */
	bool is_connected;
	unsigned n_owed;
	uint64_t lost_ns;
	uint64_t moved_ns;                   /* memory went and came last */
	uint64_t heard_ns[VHOST_QUEUES_MAX]; /* of each queue: something was completed, or nothing was in flight */
};

struct load {
	struct oracle o;
	struct vhost_options options;
	struct vm vms[VOLUMES_MAX];
	bool is_told, is_stopping, is_disturbing, is_without_discard, is_lost;
	unsigned n_lost;
	uint64_t n_done;
	uint8_t data[REQUEST_SECTORS_MAX * SECTOR];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void wrong(struct load *l, const struct vm *m, const char *what)
{
	printf("WRONG %s: %s%s%s\n", m->v->name, what, m->c.why[0] ? ": " : "", m->c.why);
	l->o.is_wrong = true;
}

static unsigned slot_index(const struct vm *m, const struct vhost_slot *s)
{
	return s->queue->index * m->c.o.n_slots + (unsigned)(s - s->queue->slots);
}

/* ---- sending ---- */

static struct vhost_shape pick_shape(struct load *l)
{
	struct vhost_shape shape = {.dice = &l->o.random};

	shape.layout = (enum vhost_layout)oracle_dice(&l->o, 3);
	shape.table = l->options.without_indirect ? VHOST_TABLE_DIRECT : (enum vhost_table)oracle_dice(&l->o, 2);
	return shape;
}

/* The range of a discard or write-zeroes in one to several segments; the bytes of them. */
static uint32_t segments_fill(struct load *l, const struct vm *m, const struct request *r,
			      struct virtio_blk_discard_write_zeroes out[static SEGMENTS_MAX])
{
	uint32_t most = r->kind == TRIM ? m->c.config.max_discard_seg : m->c.config.max_write_zeroes_seg, n = 0;
	uint32_t at = 0, flags = r->kind == TRIM ? 0 : (uint32_t)oracle_dice(&l->o, 2);

	most = most > SEGMENTS_MAX ? SEGMENTS_MAX : most ? most : 1;
	while (at < r->n) {
		uint32_t rest = r->n - at, len = rest;

		if (n + 1 < most && rest > BLOCK_SECTORS)
			len = BLOCK_SECTORS * (1 + (uint32_t)oracle_dice(&l->o, rest / BLOCK_SECTORS));
		len = len > rest ? rest : len;
		out[n++] = (struct virtio_blk_discard_write_zeroes){
		    .sector = request_sector(r) + at, .num_sectors = len, .flags = flags};
		at += len;
	}
	return n * (uint32_t)sizeof(*out);
}

static bool slot_send(struct load *l, struct vm *m, struct vhost_slot *s, struct request *r)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
					 VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH};
	struct virtio_blk_discard_write_zeroes segments[SEGMENTS_MAX];
	bool is_range = r->kind == TRIM || r->kind == WRITE_ZEROES;
	uint32_t len = is_range ? segments_fill(l, m, r, segments) : r->n * SECTOR;

	vhost_slot_prepare(s, types[r->kind], is_range ? 0 : request_sector(r), len, pick_shape(l));
	if (is_range) {
		vhost_slot_write(s, segments, len);
	} else if (r->kind == WRITE) {
		oracle_fill(m->v, r, l->data);
		vhost_slot_write(s, l->data, len);
	}
	return vhost_slot_submit(s);
}

static void queue_feed(struct load *l, struct vm *m, struct vhost_queue *q)
{
	struct vhost_slot *s;

	/* a guest goes on sending while its VMM connects again */
	while (!l->is_stopping && (s = vhost_slot_get(q))) {
		struct request *r = &m->requests[slot_index(m, s)];

		bool is_picked = oracle_pick(&l->o, m->v, r);

		if (r->kind == TRIM && l->is_without_discard)
			r->kind = WRITE_ZEROES;
		if (!is_picked || !slot_send(l, m, s, r)) {
			vhost_slot_put(s);
			break;
		}
		oracle_take(r);
	}
	vhost_queue_push(q);
}

/* ---- completing ---- */

static void slot_done(struct load *l, struct vm *m, struct vhost_slot *s, uint32_t len)
{
	unsigned i = slot_index(m, s);
	struct request *r = &m->requests[i];
	uint8_t status = vhost_slot_status(s);

	if (status != VIRTIO_BLK_S_OK || len != 1 + (r->kind == READ ? s->data_len : 0)) {
		printf("WRONG %s: a %s of %u sectors at %llu ended with status %#x, %u bytes written%s\n", m->v->name,
		       kind_name(r->kind), r->n, (unsigned long long)request_sector(r), status, len,
		       m->owed[i] ? " (it was in flight when the server was lost)" : "");
		l->o.is_wrong = true;
		return;
	}
	if (r->kind == READ)
		vhost_slot_read(s, l->data, s->data_len);
	oracle_done(&l->o, m->v, r, l->data);
	m->n_owed -= m->owed[i];
	m->owed[i] = false;
	vhost_slot_put(s);
	l->n_done++;
	m->heard_ns[s->queue->index] = now_ns();
}

static void queue_turn(struct load *l, struct vm *m, struct vhost_queue *q)
{
	struct vhost_slot *s;
	uint32_t len;

	while (!l->o.is_wrong && (s = vhost_queue_take(q, &len)))
		slot_done(l, m, s, len);
	if (q->ring.why && !l->o.is_wrong) {
		snprintf(m->c.why, sizeof(m->c.why), "id %u, queue %u", q->ring.why_id, q->index);
		wrong(l, m, q->ring.why);
	}
}

/* From now on its queues are waited for. */
static void vm_listen(struct vm *m)
{
	for (unsigned i = 0; i < m->c.o.n_queues; i++)
		m->heard_ns[i] = now_ns();
}

static unsigned n_in_flight(const struct vm *m)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->c.o.n_queues; i++)
		n += m->c.queues[i].ring.n_in_flight;
	return n;
}

/* ---- losing the server, and coming back ---- */

static void vm_lost(struct load *l, struct vm *m)
{
	vhost_client_drop(&m->c);
	m->is_connected = false;
	m->lost_ns = now_ns();
	/* what it has completed before it died is completed */
	for (unsigned i = 0; i < m->c.o.n_queues; i++)
		queue_turn(l, m, &m->c.queues[i]);
	m->n_owed = 0;
	for (unsigned i = 0; i < m->c.o.n_queues * m->c.o.n_slots; i++) {
		m->owed[i] = m->c.queues[i / m->c.o.n_slots].slots[i % m->c.o.n_slots].is_used;
		m->n_owed += m->owed[i];
	}
	l->n_lost += m->n_owed;
}

static void vm_dial(struct load *l, struct vm *m)
{
	int res = vhost_client_connect(&m->c);

	if (res == 0)
		res = vhost_client_start(&m->c);
	if (res == 0) {
		m->is_connected = true;
		vm_listen(m);
		return;
	}
	vhost_client_drop(&m->c);
	/* nobody there yet, or it died once more; a server that refuses is another matter */
	if (res != -ENOENT && res != -ECONNREFUSED && res != -ENOTCONN && res != -EPIPE && res != -ECONNRESET)
		wrong(l, m, "connecting");
	else if (now_ns() - m->lost_ns > DIAL_LIMIT_S * NS_PER_S)
		wrong(l, m, "the server did not come back");
}

static bool is_gone(int res)
{
	return res == -ENOTCONN || res == -EPIPE || res == -ECONNRESET;
}

/* ---- what happens to a running guest ---- */

static void disturb(struct load *l, struct vm *m)
{
	struct vhost_queue *q = &m->c.queues[oracle_dice(&l->o, m->c.o.n_queues)];
	unsigned region = (unsigned)oracle_dice(&l->o, m->c.memory.n);
	int res = 0;

	switch (oracle_dice(&l->o, 6)) {
	case 0:
	case 1: /* not one that has to go on by itself */
		if (q->ring.n_in_flight > 0 && m->heard_ns[q->index] < m->moved_ns)
			break;
		res = vhost_queue_stop(q);
		if (res == 0)
			res = vhost_queue_start(q);
		break;
	case 2:
		res = vhost_client_read_config(&m->c);
		break;
	case 3:
		res = vhost_client_memory_table(&m->c);
		break;
	case 4:
		if (!(m->c.protocol & VU_BIT(VU_P_CONFIGURE_MEM_SLOTS)))
			break;
		res = vhost_client_region_remove(&m->c, region);
		if (res == 0)
			res = vhost_client_region_add(&m->c, region);
		m->moved_ns = now_ns();
		break;
	case 5:
		if (!(m->c.features_offered & VU_F_LOG_ALL))
			break;
		res = vhost_client_log(&m->c, true);
		if (res == 0)
			res = vhost_client_log(&m->c, false);
		break;
	}
	if (is_gone(res))
		vm_lost(l, m);
	else if (res < 0)
		wrong(l, m, "a disturbance");
}

static void vm_turn(struct load *l, struct vm *m, int timeout_ms)
{
	bool is_there = false;
	int res;

	if (!m->is_connected) {
		/* whether somebody listens again can only be tried: poll, with a limit (vm_dial) */
		poll(NULL, 0, 1);
		vm_dial(l, m);
		return;
	}
	for (unsigned i = 0; i < m->c.o.n_queues; i++) {
		queue_turn(l, m, &m->c.queues[i]);
		queue_feed(l, m, &m->c.queues[i]);
		is_there |= vhost_ring_want_call(&m->c.queues[i].ring);
	}
	res = vhost_client_wait(&m->c, is_there ? 0 : timeout_ms);
	if (is_gone(res))
		vm_lost(l, m);
	for (unsigned i = 0; i < m->c.o.n_queues && m->is_connected; i++) {
		if (m->c.queues[i].ring.n_in_flight == 0)
			m->heard_ns[i] = now_ns();
		else if (now_ns() - m->heard_ns[i] > SILENCE_S * NS_PER_S)
			wrong(l, m, "a queue has completed nothing for half a minute");
	}
	if (m->is_connected && l->is_disturbing && !l->o.is_wrong && oracle_dice(&l->o, DISTURB_ONE_IN) == 0)
		disturb(l, m);
}

/* ---- commands ---- */

static void tell_changes(struct load *l)
{
	unsigned n_owed = 0, n_away = 0;

	for (unsigned i = 0; i < l->o.n_volumes; i++) {
		n_owed += l->vms[i].n_owed;
		n_away += !l->vms[i].is_connected;
	}
	if (n_away > 0 && !l->is_lost) {
		l->is_lost = true;
		printf("lost %u\n", n_owed);
	} else if (l->is_lost && n_away == 0 && n_owed == 0) {
		l->is_lost = false;
		printf("resumed %u\n", l->n_lost);
		l->n_lost = 0;
	}
	if (!l->is_told && l->n_done >= FIRST_DONE) {
		l->is_told = true;
		printf("loading\n");
	}
}

static bool is_idle(const struct load *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->o.n_volumes; i++)
		n += n_in_flight(&l->vms[i]) + !l->vms[i].is_connected;
	return n == 0 && !l->is_lost;
}

static bool has_command(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	return poll(&in, 1, 0) > 0;
}

/* A line of standard input; unbuffered, since poll() is asked whether there is one. */
static bool command_read(char *line, unsigned size)
{
	unsigned n = 0;

	while (n + 1 < size && read(0, line + n, 1) == 1) {
		if (line[n] == '\n') {
			line[n] = '\0';
			return true;
		}
		n++;
	}
	return false;
}

static void load_run(struct load *l)
{
	char line[64];

	l->is_told = l->is_stopping = false;
	l->n_done = 0;
	for (unsigned i = 0; i < l->o.n_volumes; i++)
		vm_listen(&l->vms[i]);
	while (!l->o.is_wrong && !(l->is_stopping && is_idle(l))) {
		/* several volumes take turns */
		for (unsigned i = 0; i < l->o.n_volumes && !l->o.is_wrong; i++)
			vm_turn(l, &l->vms[i], l->o.n_volumes > 1 ? 1 : TURN_MS);
		tell_changes(l);
		if (!l->is_stopping && has_command()) {
			if (!command_read(line, sizeof(line)) || strcmp(line, "stop") != 0)
				return;
			l->is_stopping = true;
		}
	}
	if (!l->o.is_wrong)
		printf("done %llu requests\n", (unsigned long long)l->n_done);
}

static bool read_back(void *context, struct volume *v, uint64_t first, uint32_t n, uint8_t *out)
{
	struct vm *m = context;
	int res = vhost_queue_do(&m->c.queues[0], VIRTIO_BLK_T_IN, first, out, n * SECTOR,
				 (struct vhost_shape){.layout = VHOST_LAYOUT_PLAIN});

	if (res != VIRTIO_BLK_S_OK)
		printf("WRONG %s: a read of %u sectors at %llu failed: %d %s\n", v->name, n, (unsigned long long)first,
		       res, m->c.why);
	return res == VIRTIO_BLK_S_OK;
}

static void verify_run(struct load *l)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < l->o.n_volumes && !l->o.is_wrong; i++)
		n += oracle_verify(&l->o, l->vms[i].v, read_back, &l->vms[i]);
	if (!l->o.is_wrong)
		printf("verified %llu sectors\n", (unsigned long long)n);
}

/* ---- setting up ---- */

static bool vm_begin(struct load *l, struct vm *m, struct volume *v)
{
	struct vhost_options o = l->options;
	unsigned n;

	m->v = v;
	o.path = v->name;
	if (vhost_client_init(&m->c, &o) < 0 || vhost_client_connect(&m->c) < 0 || vhost_client_start(&m->c) < 0) {
		fprintf(stderr, "vhost-loadgen: %s: %s\n", v->name, m->c.why);
		return false;
	}
	m->is_connected = true;
	n = m->c.o.n_queues * m->c.o.n_slots;
	m->requests = calloc(n, sizeof(*m->requests));
	m->owed = calloc(n, sizeof(*m->owed));
	if (!m->requests || !m->owed || !oracle_volume_begin(&l->o, v, m->c.config.capacity)) {
		fprintf(stderr, "vhost-loadgen: %s is smaller than 1 MiB, or there is no memory\n", v->name);
		return false;
	}
	return true;
}

static void options_read(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"depth", required_argument, NULL, 'd'},
						{"queues", required_argument, NULL, 'q'},
						{"packed", no_argument, NULL, 'p'},
						{"window-mib", required_argument, NULL, 'w'},
						{"disturb", no_argument, NULL, 'x'},
						{"regions", required_argument, NULL, 'r'},
						{"no-discard", no_argument, NULL, 'n'},
						{NULL, 0, NULL, 0}};
	int o;

	l->o = (struct oracle){.window_mib = 8, .random = 1, .next_id = 1};
	l->options = (struct vhost_options){
	    .queue_size = 256, .n_slots = 16, .n_regions = 4, .data_max = REQUEST_SECTORS_MAX * SECTOR};
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			l->o.random = load_number(optarg, 4000000000u);
			break;
		case 'd':
			l->options.n_slots = load_number(optarg, DEPTH_MAX);
			break;
		case 'q':
			l->options.n_queues = load_number(optarg, VHOST_QUEUES_MAX);
			break;
		case 'p':
			l->options.is_packed = true;
			break;
		case 'w':
			l->o.window_mib = load_number(optarg, 1024);
			break;
		case 'r':
			l->options.n_regions = load_number(optarg, VHOST_REGIONS_MAX);
			break;
		case 'n':
			l->is_without_discard = true;
			break;
		case 'x':
			l->is_disturbing = true;
			break;
		default:
			exit(2);
		}
	}
	if (!oracle_name_volumes(&l->o, argv + optind, argc - optind)) {
		fprintf(stderr,
			"usage: vhost-loadgen [--seed N] [--depth N] [--queues N] [--packed] [--window-mib N]\n"
			"       [--disturb] [--no-discard] [--regions N] SOCKET ... (up to %u)\n",
			VOLUMES_MAX);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct load *l = calloc(1, sizeof(*l));
	char line[64];
	bool is_right;

	if (!l)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	options_read(l, argc, argv);
	for (unsigned i = 0; i < l->o.n_volumes; i++) {
		if (!vm_begin(l, &l->vms[i], &l->o.volumes[i]))
			return 2;
	}
	printf("ready\n");
	while (!l->o.is_wrong && command_read(line, sizeof(line))) {
		if (strcmp(line, "verify") == 0)
			verify_run(l);
		else if (strcmp(line, "load") == 0)
			load_run(l);
		else
			fprintf(stderr, "vhost-loadgen: what is \"%s\"?\n", line);
	}
	is_right = !l->o.is_wrong;
	for (unsigned i = 0; i < l->o.n_volumes; i++) {
		vhost_client_fini(&l->vms[i].c);
		free(l->vms[i].requests);
		free(l->vms[i].owed);
	}
	oracle_free(&l->o);
	free(l);
	return is_right ? 0 : 1;
}
