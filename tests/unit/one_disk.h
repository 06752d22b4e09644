/*
 * one_disk.h: one disk on a simulated machine, one request at a time: for tests of volumes/disk that look at what its
 * parts do.
 */
#pragma once

#include "tests/sim/sim.h"
#include "volumes/disk/disk_internal.h"

#include "daemon/core/checksum.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ONE_STEPS_MAX 3000000u

struct one_disk {
	struct sim *sim;
	struct sim_machine *machine;
	struct sim_file *medium;
	struct log *log;
	struct disk *disk;
	struct disk_io io;
	struct uuid volume;
	uint64_t cache_bytes, scrub_every_ns, session, epoch;
	bool is_done;
	int res;
	uint8_t *memory; /* DISK_IO_BLOCKS_MAX blocks */
	uint32_t crcs[DISK_IO_BLOCKS_MAX];
	struct iovec iov;
};

static inline bool one_is_done(void *context)
{
	return ((struct one_disk *)context)->is_done;
}

static inline void one_wait(struct one_disk *o)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(o->sim, one_is_done, o, ONE_STEPS_MAX), SIM_DONE);
	o->is_done = false;
}

static inline void one_opened(struct disk *d, int res, void *context)
{
	struct one_disk *o = context;
	o->is_done = true;
	o->res = res;
}

static inline void one_closed(struct disk *d, void *context)
{
	((struct one_disk *)context)->is_done = true;
}

static inline void one_io_done(struct disk_io *io, int res)
{
	struct one_disk *o = container_of(io, struct one_disk, io);
	o->is_done = true;
	o->res = res;
}

/* One request of the volume; its answer. */
static inline int one_call(struct one_disk *o, struct disk_io io)
{
	o->io = io;
	o->io.done = one_io_done;
	o->io.volume = o->volume;
	o->io.session = o->session;
	disk_submit(o->disk, &o->io);
	one_wait(o);
	return o->res;
}

/* Another volume is the one that requests go to, with a session of its own. */
static inline void one_volume(struct one_disk *o, uint64_t number)
{
	o->volume = uuid_make(2, number);
	CU_ASSERT_EQUAL_FATAL(one_call(o, (struct disk_io){.op = DISK_FENCE, .generation = 1, .size_blocks = 1 << 20}),
			      0);
	o->session = o->io.new_session;
}

static inline void one_open_disk(struct one_disk *o)
{
	struct disk_options options = {.reactor = sim_reactor(o->machine),
				       .log = o->log,
				       .path = "d1",
				       .cache_bytes = o->cache_bytes,
				       .scrub_every_ns = o->scrub_every_ns,
				       .opened = one_opened,
				       .context = o};
	char why[WHY_BYTES];
	CU_ASSERT_EQUAL_FATAL(disk_open(&options, &o->disk, why), 0);
	one_wait(o);
	CU_ASSERT_EQUAL_FATAL(o->res, 0);
	one_volume(o, 1);
}

static inline void one_open(struct one_disk *o, uint64_t disk_bytes, uint64_t cache_bytes)
{
	struct disk_format_options options = {
	    .disk = uuid_make(1, 1), .pool = uuid_make(1, 2), .cluster = uuid_make(1, 3), .label = "d1"};
	char why[WHY_BYTES];
	*o = (struct one_disk){.epoch = 1, .cache_bytes = cache_bytes};
	o->memory = aligned_alloc(BLOCK_BYTES, DISK_IO_BLOCKS_MAX * BLOCK_BYTES);
	o->sim = sim_create(1);
	o->machine = sim_machine_create(o->sim, "n1");
	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_ERROR, &o->log), 0);
	o->medium = sim_file_create(o->machine, "d1", disk_bytes);
	CU_ASSERT_EQUAL_FATAL(disk_format(sim_reactor(o->machine), "d1", &options, why), 0);
	one_open_disk(o);
}

static inline void one_close_disk(struct one_disk *o)
{
	disk_close(o->disk, one_closed, o);
	one_wait(o);
	o->disk = NULL;
}

static inline void one_close(struct one_disk *o)
{
	if (o->disk)
		one_close_disk(o);
	sim_destroy(o->sim);
	log_destroy(o->log);
	free(o->memory);
}

static inline struct disk_tree *one_tree(struct one_disk *o, uint64_t id)
{
	return disk_tree_find(o->disk, &o->volume, id);
}

static inline struct disk_tree *one_create(struct one_disk *o, uint64_t id)
{
	CU_ASSERT_EQUAL_FATAL(one_call(o, (struct disk_io){.op = DISK_CREATE, .tree_id = id, .epoch = o->epoch}), 0);
	return one_tree(o, id);
}

/* Writes blocks that all hold the stamp; 0 makes zeros, which are told to be such. */
static inline int one_write(struct one_disk *o, struct disk_tree *t, uint64_t first, uint32_t n, uint8_t stamp)
{
	uint64_t all = n == 64 ? UINT64_MAX : (1ull << n) - 1;
	memset(o->memory, stamp, (size_t)n * BLOCK_BYTES);
	o->iov = (struct iovec){o->memory, (size_t)n * BLOCK_BYTES};
	for (uint32_t i = 0; i < n; i++)
		o->crcs[i] = block_crc(KIND_DATA, o->memory);
	return one_call(o, (struct disk_io){.op = DISK_WRITE,
					    .tree = t,
					    .first = first,
					    .n_blocks = n,
					    .epoch = ++o->epoch,
					    .iov = &o->iov,
					    .n_iov = 1,
					    .crcs = o->crcs,
					    .zero_blocks = stamp ? 0 : all});
}

static inline int one_trim(struct one_disk *o, struct disk_tree *t, uint64_t first, uint64_t n)
{
	return one_call(
	    o, (struct disk_io){.op = DISK_TRIM, .tree = t, .first = first, .n_blocks = n, .epoch = ++o->epoch});
}

static inline struct disk_stats one_stats(struct one_disk *o)
{
	struct disk_stats stats;
	disk_stats(o->disk, &stats);
	return stats;
}

static inline void one_let_pass(struct one_disk *o, uint64_t duration_ns)
{
	CU_ASSERT_EQUAL_FATAL(sim_run_for(o->sim, duration_ns), SIM_DONE);
}

static inline uint32_t one_events(struct one_disk *o, const char *code)
{
	static struct log_event_view events[256];
	size_t n = log_events(o->log, 0, events, array_size(events));
	uint32_t found = 0;
	for (size_t i = 0; i < n; i++)
		found += strcmp(events[i].code, code) == 0;
	return found;
}
