/*
 * main_bench.c: quarry-vhost-bench: load on a vhost-user-blk socket without a guest, and what it measured, as JSON.
 *
 *   quarry-vhost-bench --socket PATH --rw read|write|randread|randwrite|rw70|syncwrite [--bs 4k] [--iodepth 1]
 *                      [--queues 1] [--packed] [--runtime 5] [--size BYTES] [--once]
 *
 * syncwrite is a random write and a flush, one after the other; both are counted as one, and the flush also by itself.
 * --once ends after the volume (or --size) was gone through once: to fill it. One thread; it sleeps while it waits.
 *
 * Latencies are kept in buckets of 1/32 of their power of two: a percentile is right to 3 %.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/vhost/vhost_slot.h"

#define SECTOR      512u
#define BUCKET_BITS 5u
#define BUCKETS     (64u << BUCKET_BITS)
#define WAIT_MS     30000
#define NS_PER_S    1000000000ull

#define LOADS "read, write, randread, randwrite, rw70 and syncwrite"

static const char usage[] =
    "usage: quarry-vhost-bench --socket PATH --rw LOAD [--bs 4k] [--iodepth 1] [--queues 1]\n"
    "       [--packed] [--runtime 5] [--size BYTES] [--once]\n"
    "\n"
    "Puts a load on a vhost-user-blk socket, without a guest, and prints what it measured, as JSON. The\n"
    "loads are " LOADS ".\n"
    "All but read and randread overwrite what is there. --size: the first BYTES alone, 256M for example;\n"
    "--once: once through it; --runtime: seconds.\n";

enum rw { READ, WRITE, RANDREAD, RANDWRITE, RW70, SYNCWRITE };
static const char *const rw_names[] = {"read", "write", "randread", "randwrite", "rw70", "syncwrite"};

struct bench {
	struct vhost_client client;
	enum rw rw;
	uint64_t bs, size, runtime_ns, random, next, n_blocks;
	unsigned depth;
	bool is_once, is_ending;
	uint64_t started_ns, n_done, n_flushes, sum_ns, max_ns, flush_ns, n_kicks, n_waits;
	uint32_t buckets[BUCKETS];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static __attribute__((noreturn)) void die(struct bench *b, const char *what)
{
	fprintf(stderr, "quarry-vhost-bench: %s: %s\n", what, b->client.why);
	exit(1);
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned top = ns < (1u << BUCKET_BITS) ? 0 : 63u - (unsigned)__builtin_clzll(ns) - BUCKET_BITS + 1;

	return top == 0 ? (unsigned)ns
			: (top << BUCKET_BITS) + (unsigned)((ns >> (top - 1)) & ((1u << BUCKET_BITS) - 1));
}

static uint64_t bucket_ns(unsigned bucket)
{
	unsigned top = bucket >> BUCKET_BITS, low = bucket & ((1u << BUCKET_BITS) - 1);

	return top == 0 ? low : ((uint64_t)(low | 1u << BUCKET_BITS) << (top - 1));
}

static uint64_t percentile_ns(const struct bench *b, double share)
{
	uint64_t wanted = (uint64_t)((double)b->n_done * share), n = 0;

	for (unsigned i = 0; i < BUCKETS; i++) {
		n += b->buckets[i];
		if (n > wanted)
			return bucket_ns(i);
	}
	return b->max_ns;
}

/* ---- the load ---- */

static void send(struct bench *b, struct vhost_slot *s, uint32_t type, uint64_t pos, uint32_t len)
{
	/* what Linux does: a table for every request where the server takes one */
	enum vhost_table table =
	    b->client.features & VU_BIT(VIRTIO_RING_F_INDIRECT_DESC) ? VHOST_TABLE_INDIRECT : VHOST_TABLE_DIRECT;

	vhost_slot_prepare(s, type, pos / SECTOR, len,
			   (struct vhost_shape){.layout = VHOST_LAYOUT_PLAIN, .table = table});
	if (!vhost_slot_submit(s))
		die(b, "the ring is full");
}

static void next_request(struct bench *b, struct vhost_slot *s, uint64_t now)
{
	bool is_random = b->rw >= RANDREAD;
	uint64_t block = is_random ? vhost_dice(&b->random, b->n_blocks) : b->next++ % b->n_blocks;
	bool is_read = b->rw == READ || b->rw == RANDREAD || (b->rw == RW70 && vhost_dice(&b->random, 100) < 70);

	s->started_ns = now;
	if (!is_read) /* eight bytes that differ: neither zeros nor what stands there */
		*(uint64_t *)vhost_memory_at(&b->client.memory, s->area + 4096) = b->random ^ b->next;
	send(b, s, is_read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, block * b->bs, (uint32_t)b->bs);
	b->is_ending = b->is_ending || (b->is_once && b->next >= b->n_blocks);
}

/* True when the slot is free for a new request. */
static bool complete(struct bench *b, struct vhost_slot *s, uint64_t now)
{
	uint64_t ns = now - s->started_ns;

	if (vhost_slot_status(s) != VIRTIO_BLK_S_OK) {
		snprintf(b->client.why, sizeof(b->client.why), "status %u at sector %llu", vhost_slot_status(s),
			 (unsigned long long)s->sector);
		die(b, "a request failed");
	}
	if (b->rw == SYNCWRITE && s->type == VIRTIO_BLK_T_OUT) {
		b->flush_ns -= now;
		send(b, s, VIRTIO_BLK_T_FLUSH, 0, 0);
		return false;
	}
	if (b->rw == SYNCWRITE) {
		b->flush_ns += now;
		b->n_flushes++;
	}
	b->n_done++;
	b->sum_ns += ns;
	b->max_ns = ns > b->max_ns ? ns : b->max_ns;
	b->buckets[bucket_of(ns)]++;
	return true;
}

/* Takes what is complete and puts new requests in their place; the number of completions. */
static unsigned turn(struct bench *b, struct vhost_queue *q)
{
	struct vhost_slot *s = vhost_queue_take(q, NULL);
	uint64_t now;
	unsigned n = 0;

	if (!s)
		return 0;
	now = now_ns();
	b->is_ending = b->is_ending || now - b->started_ns >= b->runtime_ns;
	for (; s; s = vhost_queue_take(q, NULL), n++) {
		if (!complete(b, s, now))
			continue;
		if (b->is_ending)
			vhost_slot_put(s);
		else
			next_request(b, s, now);
	}
	if (vhost_ring_needs_kick(&q->ring)) {
		vhost_queue_kick(q);
		b->n_kicks++;
	}
	return n;
}

static bool is_busy(const struct bench *b)
{
	for (unsigned i = 0; i < b->client.o.n_queues; i++) {
		if (b->client.queues[i].ring.n_in_flight > 0)
			return true;
	}
	return false;
}

static void run(struct bench *b)
{
	struct vhost_client *c = &b->client;

	b->started_ns = now_ns();
	for (unsigned i = 0; i < b->depth * c->o.n_queues && !b->is_ending; i++)
		next_request(b, vhost_slot_get(&c->queues[i % c->o.n_queues]), b->started_ns);
	for (unsigned i = 0; i < c->o.n_queues; i++)
		vhost_queue_push(&c->queues[i]);
	while (is_busy(b)) {
		unsigned n = 0;

		for (unsigned i = 0; i < c->o.n_queues; i++) {
			n += turn(b, &c->queues[i]);
			if (c->queues[i].ring.why)
				die(b, c->queues[i].ring.why);
		}
		for (unsigned i = 0; i < c->o.n_queues && n == 0; i++)
			n += vhost_ring_want_call(&c->queues[i].ring);
		if (n == 0) {
			b->n_waits++;
			if (vhost_client_wait(c, WAIT_MS) <= 0)
				die(b, "no completion");
		}
		/* no calls while there is work: they would interrupt it */
		for (unsigned i = 0; i < c->o.n_queues; i++)
			vhost_ring_unwant_call(&c->queues[i].ring);
	}
}

/* ---- options and report ---- */

static uint64_t size_of(const char *text)
{
	static const char units[] = "kmgt";
	char *end;
	uint64_t n = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end | 0x20) : NULL;

	if (end == text || (*end && (!unit || end[1]))) {
		fprintf(stderr, "quarry-vhost-bench: \"%s\" is not a size\n", text);
		exit(2);
	}
	return unit ? n << (10 * (unit - units + 1)) : n;
}

static enum rw rw_of(const char *text)
{
	for (unsigned i = 0; i < sizeof(rw_names) / sizeof(*rw_names); i++) {
		if (strcmp(text, rw_names[i]) == 0)
			return (enum rw)i;
	}
	fprintf(stderr, "quarry-vhost-bench: there is no load '%s'; there are " LOADS "\n", text);
	exit(2);
}

static void options_check(const struct bench *b, const struct vhost_options *v)
{
	_Static_assert(VHOST_RING_SIZE_MAX / 2 == 512 && VHOST_QUEUES_MAX == 16, "as the messages say");
	const char *wrong = NULL;

	if (b->bs % SECTOR != 0 || b->bs == 0 || b->bs > 16u << 20)
		wrong = "--bs must be a multiple of 512, at most 16M";
	else if (b->depth == 0 || b->depth > VHOST_RING_SIZE_MAX / 2)
		wrong = "--iodepth must be 1 to 512";
	else if (v->n_queues == 0 || v->n_queues > VHOST_QUEUES_MAX)
		wrong = "--queues must be 1 to 16";
	if (!wrong)
		return;
	fprintf(stderr, "quarry-vhost-bench: %s\n", wrong);
	exit(2);
}

static void options_read(struct bench *b, struct vhost_options *v, int argc, char **argv)
{
	static const struct option options[] = {{"socket", required_argument, NULL, 's'},
						{"rw", required_argument, NULL, 'r'},
						{"bs", required_argument, NULL, 'b'},
						{"iodepth", required_argument, NULL, 'd'},
						{"queues", required_argument, NULL, 'q'},
						{"packed", no_argument, NULL, 'p'},
						{"runtime", required_argument, NULL, 't'},
						{"size", required_argument, NULL, 'z'},
						{"once", no_argument, NULL, 'o'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int o;

	*b = (struct bench){.bs = 4096, .depth = 1, .runtime_ns = 5 * NS_PER_S, .random = 1};
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			v->path = optarg;
			break;
		case 'r':
			b->rw = rw_of(optarg);
			break;
		case 'b':
			b->bs = size_of(optarg);
			break;
		case 'd':
			b->depth = (unsigned)size_of(optarg);
			break;
		case 'q':
			v->n_queues = (unsigned)size_of(optarg);
			break;
		case 'p':
			v->is_packed = true;
			break;
		case 't':
			b->runtime_ns = (uint64_t)(strtod(optarg, NULL) * (double)NS_PER_S);
			break;
		case 'z':
			b->size = size_of(optarg);
			break;
		case 'o':
			b->is_once = true;
			b->runtime_ns = ~0ull;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (!v->path || optind != argc) {
		fputs(usage, stderr);
		exit(2);
	}
	options_check(b, v);
}

static void report(const struct bench *b)
{
	double seconds = (double)(now_ns() - b->started_ns) / (double)NS_PER_S;
	struct rusage u;
	double cpu;

	getrusage(RUSAGE_SELF, &u);
	cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	printf("{\"rw\": \"%s\", \"bs\": %llu, \"iodepth\": %u, \"queues\": %u, \"packed\": %s, \"ios\": %llu, "
	       "\"seconds\": %.3f, \"iops\": %.1f, \"bytes_per_s\": %.0f, \"mean_us\": %.2f, \"p50_us\": %.2f, "
	       "\"p99_us\": %.2f, \"max_us\": %.2f, \"flush_mean_us\": %.2f, \"cpu_s\": %.3f, \"kicks\": %llu, "
	       "\"waits\": %llu}\n",
	       rw_names[b->rw], (unsigned long long)b->bs, b->depth, b->client.o.n_queues,
	       b->client.o.is_packed ? "true" : "false", (unsigned long long)b->n_done, seconds,
	       (double)b->n_done / seconds, (double)b->n_done * (double)b->bs / seconds,
	       b->n_done ? (double)b->sum_ns / (double)b->n_done / 1e3 : 0, (double)percentile_ns(b, 0.5) / 1e3,
	       (double)percentile_ns(b, 0.99) / 1e3, (double)b->max_ns / 1e3,
	       b->n_flushes ? (double)b->flush_ns / (double)b->n_flushes / 1e3 : 0, cpu, (unsigned long long)b->n_kicks,
	       (unsigned long long)b->n_waits);
}

/* Data of the requests: random once, so that neither a compressor nor a search for zeros has it easy. */
static void fill(struct bench *b)
{
	struct vhost_client *c = &b->client;

	for (unsigned i = 0; i < c->o.n_queues; i++) {
		for (unsigned k = 0; k < c->queues[i].n_slots; k++) {
			uint64_t *words = vhost_memory_at(&c->memory, c->queues[i].slots[k].area + 4096);

			for (uint64_t w = 0; w < b->bs / 8; w++)
				words[w] = vhost_dice(&b->random, ~0ull);
		}
	}
}

int main(int argc, char **argv)
{
	struct bench *b = malloc(sizeof(*b));
	struct vhost_options v = {.n_queues = 1, .queue_size = 128, .n_regions = 1};

	if (!b)
		return 1;
	options_read(b, &v, argc, argv);
	while (v.queue_size < 4 * b->depth && v.queue_size < VHOST_RING_SIZE_MAX)
		v.queue_size = (uint16_t)(v.queue_size * 2);
	v.n_slots = b->depth;
	v.data_max = (uint32_t)b->bs;
	if (vhost_client_init(&b->client, &v) < 0 || vhost_client_connect(&b->client) < 0 ||
	    vhost_client_start(&b->client) < 0)
		die(b, "cannot be used as a disk");
	b->size =
	    b->size && b->size < b->client.config.capacity * SECTOR ? b->size : b->client.config.capacity * SECTOR;
	b->n_blocks = b->size / b->bs;
	if (b->n_blocks == 0) {
		fprintf(stderr, "quarry-vhost-bench: the volume is smaller than one request\n");
		return 1;
	}
	fill(b);
	run(b);
	report(b);
	vhost_client_fini(&b->client);
	free(b);
	return 0;
}
