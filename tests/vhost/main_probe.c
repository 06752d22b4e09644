/*
 * main_probe.c: vhost-probe: every request that a guest may send, in every layout, and what the device says of itself.
 *
 * usage: vhost-probe [--packed] [--queues N] [--regions N] [--seed N] [--no-mixed] SOCKET TEST [ARGUMENT]
 *
 * --no-mixed is for servers that take no indirect table at the end of a chain of direct descriptors.
 *
 *   requests        OVERWRITES the first MiB: all requests over all queues in all layouts, and wrong ones
 *   config          the configuration and the features, one "name value" a line
 *   read-only       reads work; whatever would change the volume fails and changes nothing
 *   same FILE       the device holds what FILE holds, from beginning to end
 *   reread FILE     says "ready" and reads anywhere, many at a time, what must be as in FILE, until it is told a line;
 *                   when the server goes away it connects again, its requests in flight, and says "resumed"
 *   notice SECTORS  says "ready", waits for notices until the volume has so many sectors
 *   firmware        a split ring, then a reset and the other kind of ring over the same connection
 *   hold            says "ready" and keeps requests in flight until it is killed
 *
 * Exit status 0 and "N checks" when all held.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/vhost/vhost_slot.h"

#define SECTOR       512u
#define AREA_SECTORS 2048u
#define DATA_MAX     (256u << 10)
#define NOTICE_MS    30000
#define DIAL_S       60
#define WAIT_MS      100

struct probe {
	struct vhost_client c;
	struct vhost_options o;
	uint64_t random;
	unsigned n_checks;
	bool is_without_mixed;
	uint8_t wanted[AREA_SECTORS * SECTOR], data[DATA_MAX];
};

static __attribute__((noreturn, format(printf, 2, 3))) void die(struct probe *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fflush(stdout);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "%s%s\n", p->c.why[0] ? ": " : "", p->c.why);
	exit(1);
}

static void is(struct probe *p, const char *what, int got, int wanted)
{
	p->n_checks++;
	if (got != wanted)
		die(p, "%s: %d instead of %d", what, got, wanted);
}

static void begin(struct probe *p)
{
	if (vhost_client_connect(&p->c) < 0 || vhost_client_start(&p->c) < 0)
		die(p, "%s", p->o.path);
}

static const struct vhost_shape plain = {.layout = VHOST_LAYOUT_PLAIN, .table = VHOST_TABLE_DIRECT};

/* ---- requests ---- */

static struct vhost_shape any_shape(struct probe *p)
{
	/* a chain of direct descriptors that ends in a table is for split rings */
	unsigned n_tables = p->c.features & VU_BIT(VIRTIO_RING_F_INDIRECT_DESC) ? 3 : 1;

	n_tables -= n_tables == 3 && (p->o.is_packed || p->is_without_mixed);
	return (struct vhost_shape){.layout = (enum vhost_layout)vhost_dice(&p->random, 3),
				    .table = (enum vhost_table)vhost_dice(&p->random, n_tables),
				    .dice = &p->random};
}

static struct vhost_queue *any_queue(struct probe *p)
{
	return &p->c.queues[vhost_dice(&p->random, p->c.o.n_queues)];
}

static void write_some(struct probe *p, uint64_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n * SECTOR; i++)
		p->data[i] = (uint8_t)vhost_dice(&p->random, 256);
	is(p, "a write", vhost_queue_do(any_queue(p), VIRTIO_BLK_T_OUT, first, p->data, n * SECTOR, any_shape(p)), 0);
	memcpy(p->wanted + first * SECTOR, p->data, (size_t)n * SECTOR);
}

static void clear_some(struct probe *p, uint32_t type, uint64_t first, uint32_t n)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = first, .num_sectors = n};

	if (type == VIRTIO_BLK_T_DISCARD) { /* whole blocks, so that zeros are what comes back */
		range.sector -= range.sector % 8;
		range.num_sectors = (n + 15) / 8 * 8;
		if (range.sector + range.num_sectors > AREA_SECTORS)
			return;
	}
	is(p, "clearing", vhost_queue_do(any_queue(p), type, 0, &range, sizeof(range), any_shape(p)), 0);
	memset(p->wanted + range.sector * SECTOR, 0, (size_t)range.num_sectors * SECTOR);
}

static void compare(struct probe *p, uint64_t first, uint32_t n)
{
	memset(p->data, 0x5a, sizeof(p->data));
	is(p, "a read", vhost_queue_do(any_queue(p), VIRTIO_BLK_T_IN, first, p->data, n * SECTOR, any_shape(p)), 0);
	p->n_checks++;
	if (memcmp(p->data, p->wanted + first * SECTOR, (size_t)n * SECTOR) != 0)
		die(p, "sectors %llu to %llu hold something else", (unsigned long long)first,
		    (unsigned long long)first + n - 1);
}

static void print_id(struct probe *p)
{
	char id[VIRTIO_BLK_ID_BYTES + 1] = {0};

	is(p, "the id", vhost_queue_do(any_queue(p), VIRTIO_BLK_T_GET_ID, 0, id, VIRTIO_BLK_ID_BYTES, any_shape(p)), 0);
	printf("id %s\n", id);
}

static void good_requests(struct probe *p)
{
	for (uint32_t at = 0; at < AREA_SECTORS; at += DATA_MAX / SECTOR)
		write_some(p, at, DATA_MAX / SECTOR);
	for (unsigned i = 0; i < 1500; i++) {
		uint32_t n =
		    1 + (uint32_t)vhost_dice(&p->random, vhost_dice(&p->random, 5) == 0 ? DATA_MAX / SECTOR : 24);
		uint64_t first = vhost_dice(&p->random, AREA_SECTORS - n + 1), d = vhost_dice(&p->random, 20);

		if (d < 8)
			write_some(p, first, n);
		else if (d < 10)
			clear_some(p, d == 8 ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD, first, n);
		else if (d < 11)
			is(p, "a flush", vhost_queue_do(any_queue(p), VIRTIO_BLK_T_FLUSH, 0, NULL, 0, any_shape(p)), 0);
		else
			compare(p, first, n);
	}
	for (uint32_t at = 0; at < AREA_SECTORS; at += DATA_MAX / SECTOR)
		compare(p, at, DATA_MAX / SECTOR);
	print_id(p);
}

/* Requests that a device must answer with an error, and then go on. */
static void wrong_requests(struct probe *p)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8};
	uint64_t end = p->c.config.capacity;
	struct vhost_queue *q = &p->c.queues[0];

	is(p, "a read past the end", vhost_queue_do(q, VIRTIO_BLK_T_IN, end - 1, p->data, 1024, plain),
	   VIRTIO_BLK_S_IOERR);
	is(p, "a read far past it", vhost_queue_do(q, VIRTIO_BLK_T_IN, ~0ull, p->data, 512, plain), VIRTIO_BLK_S_IOERR);
	is(p, "a write past the end", vhost_queue_do(q, VIRTIO_BLK_T_OUT, end, p->data, 512, plain),
	   VIRTIO_BLK_S_IOERR);
	is(p, "half a sector", vhost_queue_do(q, VIRTIO_BLK_T_IN, 0, p->data, 256, plain), VIRTIO_BLK_S_IOERR);
	is(p, "an unknown type", vhost_queue_do(q, 77, 0, NULL, 0, plain), VIRTIO_BLK_S_UNSUPP);
	range.flags = 0x80;
	is(p, "an unknown flag", vhost_queue_do(q, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, plain),
	   VIRTIO_BLK_S_UNSUPP);
	range.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	is(p, "unmap in a discard", vhost_queue_do(q, VIRTIO_BLK_T_DISCARD, 0, &range, 16, plain), VIRTIO_BLK_S_UNSUPP);
	range = (struct virtio_blk_discard_write_zeroes){.sector = end - 4, .num_sectors = 8};
	is(p, "zeroes past the end", vhost_queue_do(q, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, plain),
	   VIRTIO_BLK_S_IOERR);
	range.num_sectors = 4;
	is(p, "half a segment", vhost_queue_do(q, VIRTIO_BLK_T_DISCARD, 0, &range, 8, plain), VIRTIO_BLK_S_IOERR);
	for (uint32_t at = 0; at < AREA_SECTORS; at += DATA_MAX / SECTOR)
		compare(p, at, DATA_MAX / SECTOR);
}

static void test_requests(struct probe *p)
{
	begin(p);
	good_requests(p);
	wrong_requests(p);
}

/* ---- the device ---- */

static void test_config(struct probe *p)
{
	const struct virtio_blk_config *f = &p->c.config;

	begin(p);
	printf("features %#llx\nprotocol_features %#llx\nqueues %llu\nmemory_slots %llu\n",
	       (unsigned long long)p->c.features_offered, (unsigned long long)p->c.protocol_offered,
	       (unsigned long long)p->c.n_queues_offered, (unsigned long long)p->c.mem_slots_offered);
	printf("capacity %llu\nsize_max %u\nseg_max %u\nblk_size %u\nphysical_block_exp %u\nmin_io_size "
	       "%u\nopt_io_size %u\n"
	       "wce %u\nnum_queues %u\nmax_discard_sectors %u\nmax_discard_seg %u\ndiscard_sector_alignment %u\n"
	       "max_write_zeroes_sectors %u\nmax_write_zeroes_seg %u\nwrite_zeroes_may_unmap %u\n",
	       (unsigned long long)f->capacity, f->size_max, f->seg_max, f->blk_size, f->physical_block_exp,
	       f->min_io_size, f->opt_io_size, f->wce, f->num_queues, f->max_discard_sectors, f->max_discard_seg,
	       f->discard_sector_alignment, f->max_write_zeroes_sectors, f->max_write_zeroes_seg,
	       f->write_zeroes_may_unmap);
	print_id(p);
}

static void test_read_only(struct probe *p)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8};
	struct vhost_queue *q = &p->c.queues[0];
	static uint8_t before[4096];

	begin(p);
	is(p, "F_RO", (p->c.features_offered & VU_BIT(VIRTIO_BLK_F_RO)) != 0, 1);
	is(p, "a read", vhost_queue_do(q, VIRTIO_BLK_T_IN, 0, before, sizeof(before), plain), 0);
	memset(p->data, 0xa5, 4096);
	is(p, "a write", vhost_queue_do(q, VIRTIO_BLK_T_OUT, 0, p->data, 4096, plain), VIRTIO_BLK_S_IOERR);
	is(p, "a discard", vhost_queue_do(q, VIRTIO_BLK_T_DISCARD, 0, &range, 16, plain), VIRTIO_BLK_S_IOERR);
	is(p, "zeroes", vhost_queue_do(q, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, plain), VIRTIO_BLK_S_IOERR);
	is(p, "a read after it", vhost_queue_do(q, VIRTIO_BLK_T_IN, 0, p->data, 4096, plain), 0);
	is(p, "the content", memcmp(before, p->data, 4096), 0);
}

static void test_notice(struct probe *p, uint64_t sectors)
{
	begin(p);
	printf("ready\n");
	fflush(stdout);
	while (p->c.config.capacity != sectors) {
		is(p, "the notice", vhost_client_notice(&p->c, NOTICE_MS), VU_BACKEND_CONFIG_CHANGE);
		if (vhost_client_read_config(&p->c) < 0)
			die(p, "the configuration");
	}
	is(p, "a read at the new end",
	   vhost_queue_do(&p->c.queues[0], VIRTIO_BLK_T_IN, sectors - 1, p->data, 512, plain), 0);
}

/* Firmware drives a split ring, the operating system resets the device and takes what it likes. */
static void test_firmware(struct probe *p)
{
	bool is_packed = p->o.is_packed;

	p->c.o.is_packed = false;
	begin(p);
	write_some(p, 0, 8);
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned k = 0; k < p->c.o.n_queues; k++)
			is(p, "a stop", vhost_queue_stop(&p->c.queues[k]), 0);
		if (i % 2 == 0)
			is(p, "a reset", vhost_client_reset(&p->c), 0);
		p->o.is_packed = i % 2 == 0 && is_packed;
		vhost_client_forget(&p->c, p->o.is_packed);
		is(p, "a new start", vhost_client_start(&p->c), 0);
		compare(p, 0, 8);
		write_some(p, 0, 8);
		compare(p, 0, 8);
	}
}

/* ---- what is known to be there ---- */

/* The file, which must be as large as the device. */
static const uint8_t *image_map(struct probe *p, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat s;

	if (fd < 0 || fstat(fd, &s) < 0)
		die(p, "%s: %s", path, strerror(errno));
	p->n_checks++;
	if ((uint64_t)s.st_size != p->c.config.capacity * SECTOR)
		die(p, "%s has not the size of the device", path);
	uint8_t *image = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (image == MAP_FAILED)
		die(p, "%s: %s", path, strerror(errno));
	close(fd);
	return image;
}

static void test_same(struct probe *p, const char *path)
{
	uint64_t capacity;

	begin(p);
	capacity = p->c.config.capacity;
	const uint8_t *image = image_map(p, path);
	for (uint64_t at = 0, n; at < capacity; at += n) {
		n = capacity - at < DATA_MAX / SECTOR ? capacity - at : DATA_MAX / SECTOR;
		is(p, "a read",
		   vhost_queue_do(any_queue(p), VIRTIO_BLK_T_IN, at, p->data, (uint32_t)n * SECTOR, any_shape(p)), 0);
		is(p, "the content", memcmp(p->data, image + at * SECTOR, n * SECTOR), 0);
	}
}

static void reread_take(struct probe *p, const uint8_t *image)
{
	for (unsigned i = 0; i < p->c.o.n_queues; i++) {
		struct vhost_slot *s;

		while ((s = vhost_queue_take(&p->c.queues[i], NULL))) {
			is(p, "a read", vhost_slot_status(s), VIRTIO_BLK_S_OK);
			vhost_slot_read(s, p->data, s->data_len);
			is(p, "the content", memcmp(p->data, image + s->sector * SECTOR, s->data_len), 0);
			vhost_slot_put(s);
		}
	}
}

static void reread_feed(struct probe *p)
{
	for (unsigned i = 0; i < p->c.o.n_queues; i++) {
		struct vhost_slot *s;

		while ((s = vhost_slot_get(&p->c.queues[i]))) {
			uint32_t n = 1 + (uint32_t)vhost_dice(&p->random, 128);

			vhost_slot_prepare(s, VIRTIO_BLK_T_IN, vhost_dice(&p->random, p->c.config.capacity - n),
					   n * SECTOR, any_shape(p));
			if (!vhost_slot_submit(s)) {
				vhost_slot_put(s);
				break;
			}
		}
		vhost_queue_push(&p->c.queues[i]);
	}
}

static unsigned reread_in_flight(const struct probe *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->c.o.n_queues; i++)
		n += p->c.queues[i].ring.n_in_flight;
	return n;
}

/* Nobody may be there yet, or he died once more: whether somebody listens again can only be tried. */
static void dial(struct probe *p)
{
	time_t began = time(NULL);
	int res;

	do {
		vhost_client_drop(&p->c);
		if (time(NULL) - began > DIAL_S)
			die(p, "the server did not come back");
		poll(NULL, 0, 1);
		res = vhost_client_connect(&p->c);
		if (res == 0)
			res = vhost_client_start(&p->c);
	} while (res == -ENOENT || res == -ECONNREFUSED || res == -ENOTCONN || res == -EPIPE || res == -ECONNRESET);
	if (res < 0)
		die(p, "connecting again");
}

static void test_reread(struct probe *p, const char *path)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	bool has_ended = false;

	begin(p);
	const uint8_t *image = image_map(p, path);
	printf("ready\n");
	while (!has_ended || reread_in_flight(p) > 0) {
		bool is_there = false;

		fflush(stdout);
		has_ended |= poll(&in, 1, 0) > 0;
		if (!has_ended)
			reread_feed(p);
		reread_take(p, image);
		for (unsigned i = 0; i < p->c.o.n_queues; i++)
			is_there |= vhost_ring_want_call(&p->c.queues[i].ring);
		if (vhost_client_wait(&p->c, is_there ? 0 : WAIT_MS) < 0) {
			reread_take(p, image); /* what it has completed before it died is completed */
			dial(p);
			printf("resumed\n");
		}
	}
}

static void test_hold(struct probe *p)
{
	begin(p);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		for (unsigned i = 0; i < p->c.o.n_queues; i++) {
			struct vhost_queue *q = &p->c.queues[i];
			struct vhost_slot *s;

			while ((s = vhost_slot_get(q))) {
				uint32_t type = vhost_dice(&p->random, 2) ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;

				vhost_slot_prepare(s, type, vhost_dice(&p->random, AREA_SECTORS / 2), 65536,
						   any_shape(p));
				if (!vhost_slot_submit(s)) {
					vhost_slot_put(s);
					break;
				}
			}
			vhost_queue_push(q);
			while ((s = vhost_queue_take(q, NULL)))
				vhost_slot_put(s);
			vhost_ring_want_call(&q->ring);
		}
		if (vhost_client_wait(&p->c, 100) < 0)
			die(p, "the server went away");
	}
}

static void options_read(struct probe *p, int argc, char **argv)
{
	static const struct option options[] = {
	    {"packed", no_argument, NULL, 'p'},        {"queues", required_argument, NULL, 'q'},
	    {"regions", required_argument, NULL, 'r'}, {"seed", required_argument, NULL, 's'},
	    {"no-mixed", no_argument, NULL, 'm'},      {NULL, 0, NULL, 0}};
	int o;

	p->random = 1;
	p->o = (struct vhost_options){.queue_size = 128, .n_slots = 8, .data_max = DATA_MAX};
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'p')
			p->o.is_packed = true;
		else if (o == 'q')
			p->o.n_queues = (unsigned)strtoul(optarg, NULL, 10);
		else if (o == 'r')
			p->o.n_regions = (unsigned)strtoul(optarg, NULL, 10);
		else if (o == 'm')
			p->is_without_mixed = true;
		else if (o == 's')
			p->random = strtoull(optarg, NULL, 10);
		else
			exit(2);
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: vhost-probe [--packed] [--queues N] [--regions N] [--seed N] [--no-mixed] "
				"SOCKET TEST [ARGUMENT]\n");
		exit(2);
	}
	p->o.path = argv[optind];
}

int main(int argc, char **argv)
{
	struct probe *p = calloc(1, sizeof(*p));
	const char *test;

	if (!p)
		return 2;
	options_read(p, argc, argv);
	test = argv[optind + 1];
	if (vhost_client_init(&p->c, &p->o) < 0)
		die(p, "%s", p->o.path);
	if (strcmp(test, "requests") == 0)
		test_requests(p);
	else if (strcmp(test, "config") == 0)
		test_config(p);
	else if (strcmp(test, "read-only") == 0)
		test_read_only(p);
	else if (strcmp(test, "firmware") == 0)
		test_firmware(p);
	else if (strcmp(test, "hold") == 0)
		test_hold(p);
	else if (strcmp(test, "same") == 0 && optind + 2 < argc)
		test_same(p, argv[optind + 2]);
	else if (strcmp(test, "reread") == 0 && optind + 2 < argc)
		test_reread(p, argv[optind + 2]);
	else if (strcmp(test, "notice") == 0 && optind + 2 < argc)
		test_notice(p, strtoull(argv[optind + 2], NULL, 10));
	else
		die(p, "there is no test \"%s\"", test);
	printf("%u checks\n", p->n_checks);
	vhost_client_fini(&p->c);
	free(p);
	return 0;
}
