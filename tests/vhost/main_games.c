/*
 * main_games.c: vhost-games: a client that lies, in messages, rings and requests; each lie over a connection of its own.
 *
 * usage: vhost-games [--packed] [--seed N] [--rounds N] SOCKET
 *
 * After every lie the server must be there, take an honest client, and hold what that client wrote last. What it does to
 * the liar is its own affair: fail the request, stop the queue, or close the connection. OVERWRITES the first 64 KiB.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/vhost/vhost_slot.h"

#define SECTOR     512u
#define LEN        65536u
#define LIAR_MS    20
#define QUEUE_SIZE 64u

struct games {
	struct vhost_options o;
	struct vhost_client c;
	uint64_t random;
	uint8_t wanted[LEN], got[LEN];
};

static const struct vhost_shape plain = {.layout = VHOST_LAYOUT_PLAIN, .table = VHOST_TABLE_DIRECT};

/* ---- lies in rings ---- */

/* A read of a block as three pieces, of which a lie changes one thing. */
static struct vhost_slot *honest(struct games *g)
{
	struct vhost_slot *s = vhost_slot_get(&g->c.queues[0]);

	vhost_slot_prepare(s, VIRTIO_BLK_T_IN, 0, 4096, plain);
	return s;
}

static void send_it(struct games *g, struct vhost_slot *s)
{
	vhost_slot_submit(s);
	vhost_queue_kick(&g->c.queues[0]);
}

static void lie_address_outside(struct games *g)
{
	struct vhost_slot *s = honest(g);

	s->pieces[vhost_dice(&g->random, 3)].addr = g->c.memory.span + vhost_dice(&g->random, 1u << 20);
	send_it(g, s);
}

static void lie_address_wraps(struct games *g)
{
	struct vhost_slot *s = honest(g);

	s->pieces[vhost_dice(&g->random, 3)].addr = 0ull - 1 - vhost_dice(&g->random, 8192);
	send_it(g, s);
}

static void lie_into_gap(struct games *g)
{
	struct vhost_slot *s = honest(g);
	const struct vhost_region *r = &g->c.memory.regions[1];

	s->pieces[1].addr = r->gpa + r->size - 100; /* and 3,996 bytes more, which nobody has */
	send_it(g, s);
}

static void lie_length(struct games *g)
{
	static const uint32_t lengths[] = {0, 1, 0xffffffff, 0x80000000, 511, 4097};
	struct vhost_slot *s = honest(g);

	s->pieces[vhost_dice(&g->random, 3)].len = lengths[vhost_dice(&g->random, 6)];
	send_it(g, s);
}

static void lie_order(struct games *g)
{
	struct vhost_slot *s = honest(g);
	struct vhost_piece first = s->pieces[0];

	s->pieces[0] = s->pieces[2];
	s->pieces[2] = first;
	send_it(g, s);
}

static void lie_direction(struct games *g)
{
	struct vhost_slot *s = honest(g);
	unsigned i = (unsigned)vhost_dice(&g->random, 3);

	s->pieces[i].is_writable = !s->pieces[i].is_writable;
	send_it(g, s);
}

static void lie_too_few(struct games *g)
{
	struct vhost_slot *s = honest(g);

	s->n_pieces = 1 + (unsigned)vhost_dice(&g->random, 2);
	s->n_direct = s->n_pieces;
	if (s->n_pieces == 1 && vhost_dice(&g->random, 2))
		s->pieces[0] = s->pieces[2]; /* a status and nothing else */
	send_it(g, s);
}

/* The 16 bytes of a descriptor in either kind of ring begin alike: address, length. */
static void lie_table(struct games *g)
{
	struct vhost_slot *s = honest(g);
	struct vring_desc *d;
	unsigned what = (unsigned)vhost_dice(&g->random, 5);

	s->n_direct = 0;
	vhost_slot_submit(s);
	d = g->c.queues[0].ring.desc;
	if (what == 0)
		d->len = 47; /* no whole number of descriptors */
	else if (what == 1)
		d->len = 0;
	else if (what == 2)
		d->addr = g->c.memory.span - 16;
	else if (what == 3)
		d->len = 0xfffffff0;
	else /* a table in the table */
		((struct vring_desc *)vhost_memory_at(&g->c.memory, s->area))[1].flags |= VRING_DESC_F_INDIRECT;
	vhost_queue_kick(&g->c.queues[0]);
}

static void lie_loop(struct games *g)
{
	struct vhost_slot *s = honest(g);
	struct vhost_ring *r = &g->c.queues[0].ring;

	vhost_slot_submit(s);
	if (r->is_packed) { /* NEXT all around the ring */
		for (unsigned i = 0; i < QUEUE_SIZE; i++)
			((struct vring_packed_desc *)r->desc)[i].flags =
			    VRING_DESC_F_NEXT | 1u << VRING_PACKED_DESC_F_AVAIL;
	} else {
		((struct vring_desc *)r->desc)[2].flags |= VRING_DESC_F_NEXT;
		((struct vring_desc *)r->desc)[2].next = (uint16_t)vhost_dice(&g->random, 3);
	}
	vhost_queue_kick(&g->c.queues[0]);
}

static void lie_index(struct games *g)
{
	struct vhost_slot *s = honest(g);
	struct vhost_ring *r = &g->c.queues[0].ring;

	vhost_slot_submit(s);
	if (r->is_packed)
		((struct vring_packed_desc *)r->desc)[2].id = (uint16_t)(QUEUE_SIZE + vhost_dice(&g->random, 60000));
	else if (vhost_dice(&g->random, 2))
		((struct vring_avail *)r->driver)->ring[0] = (uint16_t)(QUEUE_SIZE + vhost_dice(&g->random, 60000));
	else
		((struct vring_desc *)r->desc)[0].next = (uint16_t)(QUEUE_SIZE + vhost_dice(&g->random, 60000));
	vhost_queue_kick(&g->c.queues[0]);
}

/* More available than the ring has; the same request many times; bytes of chance everywhere. */
static void lie_garbage(struct games *g)
{
	struct vhost_ring *r = &g->c.queues[0].ring;
	uint8_t *desc = r->desc, *driver = r->driver;
	uint32_t sizes[3];

	vhost_ring_sizes(r->is_packed, QUEUE_SIZE, sizes);
	vhost_slot_submit(honest(g));
	for (unsigned i = 0; i < 200; i++) {
		if (vhost_dice(&g->random, 2))
			desc[vhost_dice(&g->random, sizes[0])] = (uint8_t)vhost_dice(&g->random, 256);
		else
			driver[vhost_dice(&g->random, sizes[1])] = (uint8_t)vhost_dice(&g->random, 256);
		if (i % 20 == 0)
			vhost_queue_kick(&g->c.queues[0]);
	}
}

static void lie_used(struct games *g)
{
	struct vhost_ring *r = &g->c.queues[0].ring;
	uint32_t sizes[3];

	vhost_ring_sizes(r->is_packed, QUEUE_SIZE, sizes);
	send_it(g, honest(g));
	for (unsigned i = 0; i < sizes[2]; i++) /* what is the device's to write */
		((uint8_t *)r->device)[i] = (uint8_t)vhost_dice(&g->random, 256);
	send_it(g, honest(g));
}

/* ---- lies in messages ---- */

static void say(struct games *g, struct vu_message *m, const int *fds, unsigned n_fds)
{
	m->flags |= VU_VERSION;
	vhost_client_send(&g->c, m, fds, n_fds);
}

static void lie_region(struct games *g)
{
	struct vu_message m = {.request = VU_SET_MEM_TABLE, .size = 8 + 32};
	unsigned what = (unsigned)vhost_dice(&g->random, 6);

	m.memory.n = 1;
	m.memory.regions[0] = (struct vu_region){.guest_addr = 4096, .size = 1u << 20, .user_addr = 1u << 20};
	if (what == 0)
		m.memory.n = 4000000000u;
	else if (what == 1)
		m.memory.regions[0].size = ~0ull - 4096;
	else if (what == 2)
		m.memory.regions[0].mmap_offset = ~0ull - 100;
	else if (what == 3)
		m.memory.regions[0].guest_addr = ~0ull - 4096;
	else if (what == 4)
		m.memory.regions[0].size = 0;
	else /* longer than its file: touching it would be a bus error */
		m.memory.regions[0].size = 1ull << 40;
	say(g, &m, &g->c.memory.regions[0].fd, what == 0 ? 0 : 1);
	send_it(g, honest(g));
}

static void lie_two_regions(struct games *g)
{
	struct vu_message m = {.request = VU_SET_MEM_TABLE, .size = 8 + 64};
	int fds[2] = {g->c.memory.regions[0].fd, g->c.memory.regions[0].fd};

	m.memory.n = 2; /* the same addresses twice */
	m.memory.regions[0] = m.memory.regions[1] =
	    (struct vu_region){.guest_addr = 4096, .size = 8192, .user_addr = 1u << 20};
	say(g, &m, fds, 2);
}

static void lie_ring_setup(struct games *g)
{
	static const uint32_t numbers[] = {0, 3, 65536, 0xffffffff, 32769};
	struct vu_message m = {.request = VU_SET_VRING_NUM, .size = 8};
	unsigned what = (unsigned)vhost_dice(&g->random, 4);

	m.state.num = numbers[vhost_dice(&g->random, 5)];
	if (what == 1)
		m.state.index = 255 + (uint32_t)vhost_dice(&g->random, 100000);
	if (what == 2)
		m.request = VU_SET_VRING_BASE;
	if (what == 3) {
		m.request = VU_SET_VRING_ADDR;
		m.size = sizeof(m.addr);
		m.addr.desc = vhost_dice(&g->random, 2) ? 0 : ~0ull - 64;
		m.addr.avail = m.addr.used = 12345;
	}
	say(g, &m, NULL, 0);
	send_it(g, honest(g));
}

static void lie_fds(struct games *g)
{
	static const uint32_t requests[] = {VU_SET_VRING_KICK,     VU_SET_VRING_CALL, VU_SET_VRING_ERR,
					    VU_SET_LOG_BASE,       VU_SET_MEM_TABLE,  VU_SET_INFLIGHT_FD,
					    VU_SET_BACKEND_REQ_FD, VU_GET_FEATURES};
	struct vu_message m = {.request = requests[vhost_dice(&g->random, 8)], .size = 24};
	int fds[VU_FDS_MAX];

	for (unsigned i = 0; i < VU_FDS_MAX; i++)
		fds[i] = i % 2 ? g->c.queues[0].kick : g->c.memory.regions[0].fd;
	say(g, &m, fds, (unsigned)vhost_dice(&g->random, VU_FDS_MAX + 1));
}

static void lie_inflight(struct games *g)
{
	struct vu_message m = {.request = VU_SET_INFLIGHT_FD, .size = sizeof(m.inflight)};
	int fd = memfd_create("inflight", MFD_CLOEXEC);
	unsigned what = (unsigned)vhost_dice(&g->random, 3);
	uint64_t bytes[512];

	for (unsigned i = 0; i < 512; i++)
		bytes[i] = vhost_dice(&g->random, ~0ull);
	if (write(fd, bytes, sizeof(bytes)) < 0)
		exit(2);
	m.inflight =
	    (struct vu_inflight){.mmap_size = what == 0 ? 1ull << 40 : 4096, .n_queues = 1, .queue_size = QUEUE_SIZE};
	if (what == 1)
		m.inflight.n_queues = m.inflight.queue_size = 0xffff;
	say(g, &m, &fd, 1);
	close(fd);
	for (unsigned i = 0; i < g->c.o.n_queues; i++)
		vhost_queue_start(&g->c.queues[i]);
	send_it(g, honest(g));
}

/* A question whose answer repeats it, longer than any answer may be. */
static void lie_inflight_question(struct games *g)
{
	struct vu_message m = {.request = VU_GET_INFLIGHT_FD, .size = 500};

	m.inflight = (struct vu_inflight){.n_queues = 1, .queue_size = QUEUE_SIZE};
	say(g, &m, NULL, 0);
}

static void lie_log(struct games *g)
{
	struct vu_message m = {.request = VU_SET_LOG_BASE, .size = sizeof(m.log)};
	int fd = memfd_create("log", MFD_CLOEXEC);

	if (ftruncate(fd, 1) < 0)
		exit(2);
	m.log.mmap_size =
	    vhost_dice(&g->random, 2) ? 1 : 1ull << 40; /* too short for the guest; longer than its file */
	say(g, &m, &fd, 1);
	close(fd);
	m = (struct vu_message){.request = VU_SET_FEATURES, .size = 8, .number = g->c.features | VU_F_LOG_ALL};
	say(g, &m, NULL, 0);
	send_it(g, honest(g));
}

static void lie_frame(struct games *g)
{
	struct vu_message m = {.request = VU_GET_FEATURES};
	unsigned what = (unsigned)vhost_dice(&g->random, 5);

	if (what == 0)
		m.request = 99 + (uint32_t)vhost_dice(&g->random, 4000000000u);
	else if (what == 1)
		m.size = 0x7fffffff;
	else if (what == 2)
		m.flags = 2;
	else if (what == 3)
		m = (struct vu_message){.request = VU_SET_FEATURES, .size = 8, .number = ~0ull};
	else { /* half a message, and the end */
		if (write(g->c.fd, &m, 5) < 0)
			return;
		vhost_client_drop(&g->c);
		return;
	}
	say(g, &m, NULL, 0);
}

static void lie_config(struct games *g)
{
	struct vu_message m = {.request = vhost_dice(&g->random, 2) ? VU_GET_CONFIG : VU_SET_CONFIG, .size = 12 + 60};

	m.config.offset = vhost_dice(&g->random, 2) ? 50 : 0xfffffff0u;
	m.config.size = vhost_dice(&g->random, 2) ? 60 : 0xffffffffu;
	say(g, &m, NULL, 0);
}

static void lie_again(struct games *g) /* everything twice, while it runs */
{
	struct vu_message m = {.request = VU_SET_OWNER};

	send_it(g, honest(g));
	say(g, &m, NULL, 0);
	m = (struct vu_message){.request = VU_SET_PROTOCOL_FEATURES, .size = 8};
	say(g, &m, NULL, 0);
	m = (struct vu_message){.request = VU_RESET_DEVICE};
	say(g, &m, NULL, 0);
	send_it(g, honest(g));
}

static void lie_random(struct games *g)
{
	struct vu_message m = {.request = (uint32_t)vhost_dice(&g->random, 42),
			       .size = (uint32_t)vhost_dice(&g->random, 300)};

	for (unsigned i = 0; i < m.size; i++)
		m.bytes[i] = (uint8_t)(vhost_dice(&g->random, 3) ? 0 : vhost_dice(&g->random, 256));
	say(g, &m, &g->c.memory.regions[0].fd, (unsigned)vhost_dice(&g->random, 2));
}

#define LIES(X)                                                                                                        \
	X(address_outside)                                                                                             \
	X(address_wraps)                                                                                               \
	X(into_gap)                                                                                                    \
	X(length)                                                                                                      \
	X(order)                                                                                                       \
	X(direction)                                                                                                   \
	X(too_few)                                                                                                     \
	X(table)                                                                                                       \
	X(loop)                                                                                                        \
	X(index)                                                                                                       \
	X(garbage)                                                                                                     \
	X(used)                                                                                                        \
	X(region)                                                                                                      \
	X(two_regions)                                                                                                 \
	X(ring_setup)                                                                                                  \
	X(fds) X(inflight) X(inflight_question) X(log) X(frame) X(config) X(again) X(random)

static const struct {
	const char *name;
	void (*tell)(struct games *g);
} lies[] = {
#define LIE(name) {#name, lie_##name},
    LIES(LIE)};
#define N_LIES (sizeof(lies) / sizeof(*lies))

/* ---- rounds ---- */

static int connect_and_start(struct games *g)
{
	int res = vhost_client_init(&g->c, &g->o);

	if (res == 0)
		res = vhost_client_connect(&g->c);
	return res == 0 ? vhost_client_start(&g->c) : res;
}

static bool liar(struct games *g, unsigned lie)
{
	g->o.without_reply_ack = vhost_dice(&g->random, 2);
	if (connect_and_start(g) < 0) {
		printf("before lie \"%s\": %s\n", lies[lie].name, g->c.why);
		return false;
	}
	lies[lie].tell(g);
	/* not all lies are answered: a moment for the server to believe it, and the liar is gone */
	for (unsigned i = 0; i < 2 && g->c.fd >= 0 && vhost_client_wait(&g->c, LIAR_MS) >= 0; i++)
		;
	vhost_client_fini(&g->c);
	return true;
}

static bool honest_client(struct games *g, const char *after)
{
	int res;

	g->o.without_reply_ack = false;
	res = connect_and_start(g);
	if (res == 0)
		res = vhost_queue_do(&g->c.queues[0], VIRTIO_BLK_T_IN, 0, g->got, LEN, plain);
	if (res != 0) {
		printf("an honest client after \"%s\": %d %s\n", after, res, g->c.why);
		return false;
	}
	/* lies may have written: they come as requests that are right by chance only when they are garbage */
	if (strcmp(after, "garbage") != 0 && strcmp(after, "random") != 0 && strcmp(after, "") != 0 &&
	    memcmp(g->got, g->wanted, LEN) != 0) {
		printf("after \"%s\" the volume holds something else\n", after);
		return false;
	}
	for (unsigned i = 0; i < LEN; i++)
		g->wanted[i] = (uint8_t)vhost_dice(&g->random, 256);
	res = vhost_queue_do(&g->c.queues[0], VIRTIO_BLK_T_OUT, 0, g->wanted, LEN, plain);
	if (res != 0)
		printf("an honest write after \"%s\": %d %s\n", after, res, g->c.why);
	vhost_client_fini(&g->c);
	return res == 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"packed", no_argument, NULL, 'p'},
						{"seed", required_argument, NULL, 's'},
						{"rounds", required_argument, NULL, 'r'},
						{NULL, 0, NULL, 0}};
	struct games *g = calloc(1, sizeof(*g));
	unsigned n_rounds = 3, n = 0;
	bool is_right;
	int o;

	if (!g)
		return 2;
	g->random = 1;
	g->o = (struct vhost_options){
	    .queue_size = QUEUE_SIZE, .n_slots = 4, .data_max = LEN, .n_regions = 4, .seconds_max = 20};
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'p')
			g->o.is_packed = true;
		else if (o == 's')
			g->random = strtoull(optarg, NULL, 10);
		else if (o == 'r')
			n_rounds = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "usage: vhost-games [--packed] [--seed N] [--rounds N] SOCKET\n");
		return 2;
	}
	g->o.path = argv[optind];
	is_right = honest_client(g, "");
	for (unsigned i = 0; i < n_rounds * N_LIES && is_right; i++, n++)
		is_right = liar(g, i % N_LIES) && honest_client(g, lies[i % N_LIES].name);
	if (is_right)
		printf("%u lies\n", n);
	free(g);
	return is_right ? 0 : 1;
}
