/*
 * lazy.c: fills a volume that is in use already with what its backup holds.
 *
 * The daemon serves a second export of such a volume, NAME@.fill: what is written there lands only where nobody wrote
 * before, and a READ of it says what clients wait for (docs/backup-format.md has the whole of it). The volume is brought unit
 * by unit (1 MiB), each by a lane:
 *
 *   FREE -> FETCH -> WRITE -> SETTLE -> FREE
 *            ^  v
 *            PAUSE
 *
 *   FETCH    a worker reads the unit's chunks and holds each against its name
 *   PAUSE    the repository could not be read, as one on a network at times: a while later it is tried again
 *   WRITE    the runs of blocks that the backup has
 *   SETTLE   ZERO: the unit is complete; or, if a chunk is hurt, TRIM of its blocks: they cannot be had. With
 *            --zero-damaged what is damaged or missing is zeros, and the unit complete
 *
 * 1. A unit is settled only after its writes were answered.
 * 2. Of a unit with a hurt chunk everything else is written, holes as zeros: only the hurt blocks are lost.
 * 3. What clients wait for goes first; LANES_BACKGROUND leaves lanes free for it.
 * 4. Nothing is remembered here: when the daemon or this process ends, the volume's record says from where to go on, and
 *    what is brought a second time changes nothing.
 * 5. Only the volume that was found first is filled: one that has taken its name meanwhile may have another source.
 * 6. What prune moves into other packs meanwhile is looked for there, before anything is given up.
 * 7. What could not be read TRIES_MAX times in a row is lost for now, but never made zeros. When that lasts, two do.
 * 8. While another process fills it, this one stands by, and takes over when that one has ended or does nothing any more.
 */
#include "cli/backup/lazy.h"

#include "cli/backup/lost.h"
#include "cli/call.h"
#include "cli/client.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/text.h"
#include "cli/values.h"
#include "cli/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define UNIT_BLOCKS      FETCH_BLOCKS_MAX
#define UNIT_BYTES       ((uint64_t)UNIT_BLOCKS * BLOCK_BYTES)
#define LEAF_UNITS       (LEAF_BYTES / UNIT_BYTES)
#define N_LANES          8u
#define LANES_BACKGROUND 6u
#define RUNS_MAX         (UNIT_BLOCKS / 2 + 1)
#define WANTED_BYTES     4096u /* of an answer: pairs of first byte and length */
#define WANTED_MAX       (WANTED_BYTES / 16)
#define WANTED_UNITS_MAX 8u /* of one range at a time, so that a long one does not keep others waiting */
#define HOLE_UNITS_MAX   1024u
#define RECORD_MS        5000u
#define PROGRESS_MS      200u
#define RETRY_MS         500
#define PATIENCE_MS      (10u * 60 * 1000) /* for a daemon that is away, or a volume that is detached */
#define SOURCE_BYTES_MAX 255u

/* What cannot be read is tried again after 0.5, 1, 2, 4 and 8 s, 15.5 in all: enough for a server that is started again or
 * a network that blinks. Not longer, since a client may wait for it, whose patience is not a backup's: a guest takes its
 * disk for lost after 30 s, and so does the daemon its filler, which says nothing to it in PAUSE. So once FAILING_MS_MAX
 * are over everything is given up at its second try: 15 + 8 s after the first failure, and what that try itself takes. */
#define TRIES_MAX      6u
#define TRY_MS         500
#define FAILING_MS_MAX 15000u

#define LANE_STAGES(X) X(FREE) X(FETCH) X(PAUSE) X(WRITE) X(SETTLE)
enum lane_stage {
#define LANE_STAGE(name) LANE_##name,
	LANE_STAGES(LANE_STAGE)
#undef LANE_STAGE
};

struct lane {
	struct fetch fetch; /* the first member */
	enum lane_stage stage;
	uint64_t unit, n_units; /* more than one: all hole */
	bool is_wanted;
	uint32_t n_tries;
	uint64_t again_ms;                /* the end of PAUSE */
	struct lost lost;                 /* what of it cannot be had */
	struct endpoint_op ops[RUNS_MAX]; /* of WRITE, then of SETTLE */
	uint32_t n_ops;
};

enum unit_state { UNIT_TODO, UNIT_IN_HAND, UNIT_DONE };

struct range {
	uint64_t unit, end;
};

struct lazy {
	struct cli *cli;
	struct repository *repository;
	const struct record *record;
	struct transfer *transfer;
	struct workers *workers;
	struct worker here;
	struct leaf *leaf; /* the one that was planned from last */
	uint64_t leaf_number;
	uint8_t *units;         /* enum unit_state of each */
	uint64_t n_units, next; /* next: the background's */
	struct range wanted[WANTED_MAX];
	uint32_t n_wanted, next_wanted;
	struct endpoint_op ask, flush;
	bool is_asking, is_recording;
	uint8_t answer[WANTED_BYTES];
	uint64_t settled_units, recorded_ms, shown_ms;
	struct lost hurt;   /* what clients have errors for, as far as this connection has come */
	struct lost zeroed; /* what was lost and is zeros now, since the start: what is recorded is not brought again */
	uint64_t progress_ms;  /* when it last got on, or stood by another that may */
	char *uuid;            /* of the volume; NULL: not looked at yet */
	bool is_broken;        /* the connection: an operation failed */
	bool is_standing_by;   /* another process fills it */
	bool is_damage_zeroed; /* --zero-damaged */
	bool has_moved;        /* a pack has gone: prune has put what was in it elsewhere, or */
	bool is_gone;          /* what is missing is nowhere */
	uint64_t failing_ms;   /* since when the repository cannot be read, which was told; 0: it can */
	int read_error;        /* what was given up cannot be read because of this */
	struct lane lanes[N_LANES];
	enum status status;
};

enum flow { FLOW_NEXT, FLOW_WAIT };

static bool lazy_is_ending(const struct lazy *z)
{
	return z->status != DONE || z->is_broken;
}

/* ---- which unit comes next ---- */

static uint32_t wanted_in_hand(const struct lazy *z)
{
	uint32_t n = 0;
	for (unsigned i = 0; i < N_LANES; i++)
		n += z->lanes[i].stage != LANE_FREE && z->lanes[i].is_wanted;
	return n;
}

static uint32_t lanes_busy(const struct lazy *z)
{
	uint32_t n = 0;
	for (unsigned i = 0; i < N_LANES; i++)
		n += z->lanes[i].stage != LANE_FREE;
	return n;
}

static bool wanted_take(struct lazy *z, struct lane *lane)
{
	for (; z->next_wanted < z->n_wanted; z->next_wanted++) {
		struct range *r = &z->wanted[z->next_wanted];
		while (r->unit < r->end) {
			lane->unit = r->unit++;
			if (z->units[lane->unit] == UNIT_TODO)
				return true;
		}
	}
	return false;
}

static bool unit_take(struct lazy *z, struct lane *lane)
{
	lane->n_units = 1;
	lane->is_wanted = wanted_take(z, lane);
	if (lane->is_wanted)
		return true;
	while (z->next < z->n_units && z->units[z->next] != UNIT_TODO)
		z->next++;
	if (z->next == z->n_units || lanes_busy(z) >= LANES_BACKGROUND)
		return false;
	lane->unit = z->next++;
	return true;
}

/* How far all is hole that no leaf has, as one step: it ends before the next unit that is not to be done. */
static void hole_take(struct lazy *z, struct lane *lane, uint64_t end)
{
	if (end > z->n_units)
		end = z->n_units;
	while (!lane->is_wanted && lane->unit + lane->n_units < end && lane->n_units < HOLE_UNITS_MAX &&
	       z->units[lane->unit + lane->n_units] == UNIT_TODO)
		lane->n_units++;
}

/* 0, or -errno: the leaf cannot be had. */
static int lane_plan(struct lazy *z, struct lane *lane)
{
	uint64_t number = lane->unit / LEAF_UNITS;
	uint32_t i = record_leaf_at(z->record, number);
	int error = 0;
	lane->fetch.n_parts = 0;
	lane->fetch.error = 0;
	if (i == z->record->n_leaves || z->record->leaves[i].number != number) {
		hole_take(z, lane, i == z->record->n_leaves ? z->n_units : z->record->leaves[i].number * LEAF_UNITS);
		return 0;
	}
	if (!z->leaf || z->leaf_number != number) {
		leaf_destroy(z->leaf);
		z->leaf = repository_leaf(z->repository, &z->here, &z->record->leaves[i].id, &error);
		z->leaf_number = number;
	}
	if (z->leaf)
		fetch_plan(&lane->fetch, z->leaf, (uint32_t)(lane->unit % LEAF_UNITS) * UNIT_BLOCKS);
	return z->leaf ? 0 : error;
}

/* ---- the lanes ---- */

static void lane_fetch(struct lazy *z, struct lane *lane)
{
	int error = lane_plan(z, lane);
	lane->n_tries++;
	lane->fetch.error = error;
	lane->fetch.is_done = error || lane->fetch.n_parts == 0;
	if (!lane->fetch.is_done)
		fetch_submit(&lane->fetch, z->workers);
}

static enum flow lane_begin(struct lazy *z, struct lane *lane)
{
	if (lazy_is_ending(z) || !unit_take(z, lane))
		return FLOW_WAIT;
	lane->n_tries = 0;
	lane_fetch(z, lane);
	memset(z->units + lane->unit, UNIT_IN_HAND, lane->n_units);
	return FLOW_NEXT;
}

/* FLOW_WAIT: it is to be tried again, after a while. */
static enum flow lane_judge(struct lazy *z, struct lane *lane)
{
	int error = fetch_passing_error(&lane->fetch);
	if (!error) {
		if (lane->n_tries > 1) /* it could not be read, and can now */
			z->failing_ms = 0;
		return FLOW_NEXT;
	}
	if (lazy_is_ending(z))
		return FLOW_NEXT;
	bool is_lasting = z->failing_ms && now_ms() - z->failing_ms >= FAILING_MS_MAX;
	if (lane->n_tries == TRIES_MAX || (is_lasting && lane->n_tries > 1)) {
		z->read_error = error;
		return FLOW_NEXT;
	}
	if (!z->failing_ms)
		fprintf(stderr, "quarry: warning: '%s' cannot be read: %s; trying again\n", z->transfer->fill,
			strerror(-error));
	z->failing_ms = z->failing_ms ? z->failing_ms : now_ms();
	lane->again_ms = now_ms() + (TRY_MS << (lane->n_tries - 1));
	return FLOW_WAIT;
}

/* Of those that pause, how long the first one still does; -1: none. */
static int lanes_pause_ms(const struct lazy *z)
{
	uint64_t first = UINT64_MAX, now = now_ms();
	for (unsigned i = 0; i < N_LANES; i++)
		if (z->lanes[i].stage == LANE_PAUSE && z->lanes[i].again_ms < first)
			first = z->lanes[i].again_ms;
	return first == UINT64_MAX ? -1 : first > now ? (int)(first - now) : 0;
}

static void lane_write_run(struct lazy *z, struct lane *lane, uint32_t block, uint32_t n_blocks)
{
	uint64_t pos_bytes = lane->unit * UNIT_BYTES + (uint64_t)block * BLOCK_BYTES;
	uint64_t size_bytes = z->transfer->volume.size_bytes, len_bytes = (uint64_t)n_blocks * BLOCK_BYTES;
	if (pos_bytes >= size_bytes)
		return;
	if (len_bytes > size_bytes - pos_bytes)
		len_bytes = size_bytes - pos_bytes;
	quarry_assert(lane->n_ops < RUNS_MAX);
	endpoint_write(&z->transfer->volume, &lane->ops[lane->n_ops++], lane->fetch.data + (size_t)block * BLOCK_BYTES,
		       len_bytes, pos_bytes);
}

/* All blocks but those that are hurt: where the backup has a hole, zeros. */
static void lane_write_around(struct lazy *z, struct lane *lane)
{
	bool is_data[UNIT_BLOCKS] = {0}, is_hurt[UNIT_BLOCKS] = {0};
	for (uint32_t i = 0; i < lane->fetch.n_parts; i++) {
		const struct fetch_part *part = &lane->fetch.parts[i];
		memset((part->error ? is_hurt : is_data) + part->block, true, part->n_blocks);
	}
	for (uint32_t i = 0; i < UNIT_BLOCKS; i++)
		if (!is_data[i])
			memset(lane->fetch.data + (size_t)i * BLOCK_BYTES, 0, BLOCK_BYTES);
	for (uint32_t begin = 0, end; begin < UNIT_BLOCKS; begin = end + 1) {
		for (end = begin; end < UNIT_BLOCKS && !is_hurt[end]; end++)
			;
		if (end > begin)
			lane_write_run(z, lane, begin, end - begin);
	}
}

/* What cannot be had of the unit is to be zeros. */
static bool lane_is_zeroed(const struct lazy *z, const struct lane *lane)
{
	bool is_zeroed = z->is_damage_zeroed && fetch_error_is_damage(lane->fetch.error);
	for (uint32_t i = 0; i < lane->fetch.n_parts; i++)
		is_zeroed &= !lane->fetch.parts[i].error || fetch_error_is_damage(lane->fetch.parts[i].error);
	return is_zeroed;
}

/* What of the unit cannot be had: parts of it, or all when the leaf that maps it is lost. */
static void lane_find_lost(struct lazy *z, struct lane *lane)
{
	uint64_t begin = lane->unit * UNIT_BYTES, end = begin + UNIT_BYTES, size_bytes = z->transfer->volume.size_bytes;
	lost_fini(&lane->lost);
	if (lane->fetch.n_parts > 0)
		lost_add_fetch(&lane->lost, &lane->fetch, begin, size_bytes);
	else if (lane->fetch.error)
		lost_add(&lane->lost, begin, end < size_bytes ? end : size_bytes);
}

static bool lane_has_moved(const struct lane *lane)
{
	bool has_moved = lane->fetch.error == -ESTALE;
	for (uint32_t i = 0; i < lane->fetch.n_parts; i++)
		has_moved |= lane->fetch.parts[i].error == -ESTALE;
	return has_moved;
}

static void lane_write(struct lazy *z, struct lane *lane)
{
	uint32_t i = 0, block, n_blocks;
	lane->n_ops = 0;
	if (!z->is_gone && lane_has_moved(lane))
		z->has_moved = z->is_broken = true; /* all over again, when no worker is at work */
	if (lazy_is_ending(z))
		return;
	lane_find_lost(z, lane);
	bool is_hurt = lane->lost.n > 0 && !lane_is_zeroed(z, lane);
	if (is_hurt && lane->fetch.n_parts > 0)
		lane_write_around(z, lane);
	while (!is_hurt && fetch_next_run(&lane->fetch, &i, &block, &n_blocks))
		lane_write_run(z, lane, block, n_blocks);
}

static void op_judge(struct lazy *z, const struct endpoint_op *op, const char *what)
{
	if (op->error == ENOSPC && z->status == DONE)
		z->status = cli_refuse(z->cli, "no-space",
				       "there is no room to fill volume '%s': add a disk, then repeat this command",
				       z->transfer->name);
	else if (op->error && !lazy_is_ending(z)) {
		(void)cli_refuse(z->cli, "io-error", "cannot %s volume '%s': %s", what, z->transfer->name,
				 strerror(op->error));
		z->is_broken = true;
	}
}

/* FLOW_NEXT: all that was asked has been answered. */
static enum flow lane_gather(struct lazy *z, struct lane *lane)
{
	for (uint32_t i = 0; i < lane->n_ops; i++)
		if (!lane->ops[i].is_done)
			return FLOW_WAIT;
	for (uint32_t i = 0; i < lane->n_ops; i++)
		op_judge(z, &lane->ops[i], "fill");
	return FLOW_NEXT;
}

static void lane_settle(struct lazy *z, struct lane *lane)
{
	struct endpoint *volume = &z->transfer->volume;
	uint64_t pos_bytes = lane->unit * UNIT_BYTES, len_bytes = lane->n_units * UNIT_BYTES;
	lane->n_ops = 0;
	if (lazy_is_ending(z))
		return;
	if (len_bytes > volume->size_bytes - pos_bytes)
		len_bytes = volume->size_bytes - pos_bytes;
	if (lane->lost.n == 0 || lane_is_zeroed(z, lane))
		endpoint_zero(volume, &lane->ops[lane->n_ops++], len_bytes, pos_bytes);
	else
		for (uint32_t i = 0; i < lane->lost.n; i++) {
			const struct lost_range *r = &lane->lost.ranges[i];
			quarry_assert(lane->n_ops < RUNS_MAX);
			endpoint_trim(volume, &lane->ops[lane->n_ops++], r->end - r->begin, r->begin);
		}
}

static void lane_end(struct lazy *z, struct lane *lane)
{
	if (lazy_is_ending(z))
		return;
	bool is_whole = lane->lost.n == 0 || lane_is_zeroed(z, lane);
	memset(z->units + lane->unit, UNIT_DONE, lane->n_units);
	z->settled_units += is_whole ? lane->n_units : 0;
	for (uint32_t i = 0; i < lane->lost.n; i++)
		lost_add(is_whole ? &z->zeroed : &z->hurt, lane->lost.ranges[i].begin, lane->lost.ranges[i].end);
}

static void lane_fini(struct lane *lane)
{
	fetch_fini(&lane->fetch);
	lost_fini(&lane->lost);
}

/* Every transition of a lane. */
static void lane_run(struct lazy *z, struct lane *lane)
{
	for (;;) {
		switch (lane->stage) {
		case LANE_FREE:
			if (lane_begin(z, lane) == FLOW_WAIT)
				return;
			lane->stage = LANE_FETCH;
			break;
		case LANE_FETCH:
			if (!lane->fetch.is_done)
				return;
			if (lane_judge(z, lane) == FLOW_WAIT) {
				lane->stage = LANE_PAUSE;
				break;
			}
			lane_write(z, lane);
			lane->stage = LANE_WRITE;
			break;
		case LANE_PAUSE:
			if (now_ms() < lane->again_ms && !lazy_is_ending(z))
				return;
			if (!lazy_is_ending(z))
				lane_fetch(z, lane);
			lane->stage = LANE_FETCH;
			break;
		case LANE_WRITE:
			if (lane_gather(z, lane) == FLOW_WAIT)
				return;
			lane_settle(z, lane);
			lane->stage = LANE_SETTLE;
			break;
		case LANE_SETTLE:
			if (lane_gather(z, lane) == FLOW_WAIT)
				return;
			lane_end(z, lane);
			lane->stage = LANE_FREE;
			break;
		}
	}
}

/* ---- what clients wait for ---- */

static void wanted_take_answer(struct lazy *z)
{
	z->n_wanted = z->next_wanted = 0;
	for (uint32_t i = 0; i < WANTED_MAX; i++) {
		uint64_t pos_bytes = get_le64(z->answer + (size_t)i * 16),
			 len_bytes = get_le64(z->answer + (size_t)i * 16 + 8);
		uint64_t unit = pos_bytes / UNIT_BYTES, n = (len_bytes + UNIT_BYTES - 1) / UNIT_BYTES;
		if (len_bytes == 0 || unit >= z->n_units)
			break;
		if (n > WANTED_UNITS_MAX)
			n = WANTED_UNITS_MAX;
		if (n > z->n_units - unit)
			n = z->n_units - unit;
		z->wanted[z->n_wanted++] = (struct range){.unit = unit, .end = unit + n};
	}
}

/* The daemon answers at once when somebody waits, else after a second. It is asked again when all that it told is there. */
static void wanted_run(struct lazy *z)
{
	if (z->is_asking && z->ask.is_done) {
		z->is_asking = false;
		op_judge(z, &z->ask, "ask about");
		if (!lazy_is_ending(z))
			wanted_take_answer(z);
	}
	bool is_through = z->next_wanted == z->n_wanted && wanted_in_hand(z) == 0;
	if (z->is_asking || !is_through || lazy_is_ending(z) || (z->next == z->n_units && lanes_busy(z) == 0))
		return;
	if (z->n_units == 1) /* nothing can go first; and a tiny volume has no room for the question */
		return;
	z->is_asking = true;
	endpoint_read(&z->transfer->volume, &z->ask, z->answer, sizeof(z->answer), 0);
}

/* ---- the loop over one connection ---- */

static void lazy_show(struct lazy *z)
{
	char done[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES];
	if (now_ms() - z->shown_ms < PROGRESS_MS)
		return;
	z->shown_ms = now_ms();
	size_to_text(z->settled_units * UNIT_BYTES, done);
	size_to_text(z->n_units * UNIT_BYTES, total);
	progress_show("%s of %s filled", done, total);
}

/* A FLUSH, by which the daemon records how far it is: now and then, beside all else. */
static void record_run(struct lazy *z)
{
	if (z->is_recording && z->flush.is_done) {
		z->is_recording = false;
		op_judge(z, &z->flush, "flush");
		z->recorded_ms = now_ms();
	}
	if (z->is_recording || now_ms() - z->recorded_ms < RECORD_MS || lazy_is_ending(z))
		return;
	z->is_recording = true;
	endpoint_flush_begin(&z->transfer->volume, &z->flush);
}

static void lazy_interrupt(struct lazy *z)
{
	struct signalfd_siginfo signal;
	if (read(z->transfer->interrupt.fd, &signal, sizeof(signal)) == sizeof(signal))
		z->status = cli_refuse(z->cli, "interrupted",
				       "interrupted; volume '%s' stays attached: the same command goes on filling it",
				       z->transfer->name);
}

static void lazy_wait(struct lazy *z)
{
	struct pollfd waits[] = {endpoint_pollfd(&z->transfer->volume),
				 {.fd = workers_fd(z->workers), .events = POLLIN},
				 {.fd = z->status == DONE ? z->transfer->interrupt.fd : -1, .events = POLLIN}};
	if (poll(waits, array_size(waits), lanes_pause_ms(z)) < 0 && errno != EINTR && z->status == DONE)
		z->status = cli_refuse(z->cli, "local", "cannot wait: %s", strerror(errno));
	endpoint_polled(&z->transfer->volume, waits[0].revents);
	for (struct job *job = workers_take(z->workers); job; job = workers_take(z->workers))
		((struct fetch *)job)->is_done = true;
	if (waits[2].revents)
		lazy_interrupt(z);
}

/* Brings all that is to be done, as long as the connection holds. */
static void lazy_fill(struct lazy *z)
{
	z->next = z->n_wanted = z->next_wanted = 0;
	z->is_asking = z->is_recording = z->is_broken = false;
	z->recorded_ms = now_ms();
	for (;;) {
		for (unsigned i = 0; i < N_LANES; i++)
			lane_run(z, &z->lanes[i]);
		wanted_run(z);
		record_run(z);
		lazy_show(z);
		if (lanes_busy(z) == 0 && !z->is_asking && !z->is_recording)
			break;
		lazy_wait(z);
	}
	if (!lazy_is_ending(z))
		op_judge(z, &(struct endpoint_op){.error = endpoint_flush(&z->transfer->volume)}, "flush");
}

/* ---- connecting, as often as it takes ---- */

/* The daemon forgets units behind what it has recorded when it ends: these are brought again. */
static void units_begin(struct lazy *z, const json_t *fill)
{
	uint64_t filled = number_at(fill, "recorded_bytes") / UNIT_BYTES;
	memset(z->units, UNIT_TODO, z->n_units);
	memset(z->units, UNIT_DONE, filled < z->n_units ? filled : z->n_units);
	z->settled_units = filled;
	z->read_error = 0;
	lost_fini(&z->hurt);
}

/* Another process has the export and uses it. */
static bool fill_is_busy(const json_t *fill)
{
	return number_at(fill, "clients") > 0 && bool_at(fill, "active");
}

static enum status lazy_stand_by(struct lazy *z, const json_t *fill)
{
	if (!z->is_standing_by)
		fprintf(stderr, "quarry: another process fills volume '%s'; this one stands by\n", z->transfer->name);
	z->is_standing_by = true;
	z->progress_ms = now_ms();
	z->settled_units = number_at(fill, "filled_bytes") / UNIT_BYTES;
	lazy_show(z);
	return cli_refuse(z->cli, "in-use", "volume '%s' is being filled by another process", z->transfer->name);
}

/* The volume as it is now, if it is still the one that is filled; else z->status says so, unless it may come back. */
static enum status lazy_look(struct lazy *z, json_t **volume)
{
	struct cli *c = z->cli;
	auto_free char *path = api_path("/v1/volumes/", z->transfer->name, "");
	enum status status = client_get(c, path, volume);
	if (status != DONE) {
		if (strcmp(c->failure.code, "not-found") == 0)
			z->status = status;
		return status;
	}
	const json_t *fill = json_object_get(*volume, "fill");
	const char *uuid = text_at(*volume, "uuid");
	if (!z->uuid)
		z->uuid = text_format("%s", uuid);
	bool is_other = json_is_object(fill) && strcmp(text_at(fill, "source"), z->transfer->fill) != 0;
	if (is_other || strcmp(uuid, z->uuid) != 0)
		z->status =
		    cli_refuse(c, "not-found", "volume '%s' is gone; what is called so now is not filled from '%s'",
			       z->transfer->name, z->transfer->fill);
	return z->status;
}

/* DONE and *is_over: the volume is whole, or nothing more can be done. REFUSED: try again, unless z->status says so. */
static enum status lazy_connect(struct lazy *z, bool *is_over)
{
	struct cli *c = z->cli;
	json_auto_t *volume = NULL, *again = NULL;
	enum status status = lazy_look(z, &volume);
	const json_t *fill = json_object_get(volume, "fill");
	if (status != DONE)
		return status;
	*is_over = !json_is_object(fill);
	if (*is_over)
		return DONE;
	if (json_array_size(json_object_get(volume, "attachments")) == 0)
		return cli_refuse(c, "in-use", "volume '%s' is detached; attach it, then repeat this command",
				  z->transfer->name);
	if (fill_is_busy(fill))
		return lazy_stand_by(z, fill);
	z->is_standing_by = false;
	status = endpoint_open_attachment(c, &z->transfer->volume, attachment_uri(c, fill), NULL);
	if (status == DONE) /* from now on the connection holds it: is it still the same? */
		status = lazy_look(z, &again);
	if (status != DONE)
		return status;
	fill = json_object_get(again, "fill");
	*is_over = !json_is_object(fill);
	units_begin(z, fill);
	return DONE;
}

/* Units from the start that need not be brought again; the later ones may, after the next break. */
static uint64_t units_through(const struct lazy *z)
{
	uint64_t n = 0;
	while (n < z->n_units && z->units[n] == UNIT_DONE)
		n++;
	return n;
}

static enum status lazy_end(struct lazy *z)
{
	auto_free char *title = record_title(z->record), *hurt = lost_text(&z->hurt), *zeroed = lost_text(&z->zeroed);
	if (z->zeroed.n > 0)
		fprintf(stderr,
			"quarry: warning: backup '%s' is hurt: what it has lost of volume '%s' is zeros now, %s\n",
			title, z->transfer->name, zeroed);
	if (z->hurt.n > 0 && z->status == DONE && z->read_error)
		return cli_refuse(z->cli, "io-error",
				  "backup '%s' cannot be read (%s): of volume '%s' cannot be had %s; when the "
				  "repository can be read again, repeat this command",
				  title, strerror(-z->read_error), z->transfer->name, hurt);
	if (z->hurt.n > 0 && z->status == DONE)
		return cli_refuse(z->cli, "damaged",
				  "backup '%s' is hurt: of volume '%s' cannot be had %s; when the repository is whole "
				  "again, repeat this command, or give them up with --wait --zero-damaged",
				  title, z->transfer->name, hurt);
	if (z->status == DONE && !z->cli->is_json)
		printf("volume '%s' is whole\n", z->transfer->name);
	return z->status;
}

static void lazy_pause(struct lazy *z)
{
	struct pollfd wait = {.fd = z->transfer->interrupt.fd, .events = POLLIN};
	if (poll(&wait, 1, RETRY_MS) > 0)
		lazy_interrupt(z);
}

static enum status lazy_run(struct lazy *z)
{
	bool is_over = false;
	z->progress_ms = now_ms();
	z->workers = workers_create();
	worker_begin(&z->here);
	for (unsigned i = 0; i < N_LANES; i++)
		fetch_init(&z->lanes[i].fetch, z->repository, UNIT_BLOCKS);
	while (z->status == DONE && !is_over) {
		enum status status = lazy_connect(z, &is_over);
		if (status == DONE && !is_over) {
			uint64_t before = units_through(z);
			lazy_fill(z);
			is_over = !z->is_broken;
			if (units_through(z) > before)
				z->progress_ms = now_ms();
		}
		endpoint_close(&z->transfer->volume);
		z->transfer->volume = (struct endpoint){.fd = -1};
		if (z->has_moved)
			z->is_gone = !repository_look_again(z->repository);
		z->has_moved = false;
		if (z->status == DONE && !is_over && now_ms() - z->progress_ms > PATIENCE_MS)
			z->status = REFUSED; /* with what failed last */
		if (z->status == DONE && !is_over)
			lazy_pause(z);
	}
	progress_end();
	for (unsigned i = 0; i < N_LANES; i++)
		lane_fini(&z->lanes[i]);
	workers_destroy(z->workers);
	worker_end(&z->here);
	leaf_destroy(z->leaf);
	free(z->uuid);
	enum status status = lazy_end(z);
	lost_fini(&z->hurt);
	lost_fini(&z->zeroed);
	return status;
}

/* ---- the command ---- */

/* "/the/repository/VOLUME@SNAP"; NULL: refused. */
static char *lazy_source(struct cli *c, const struct repository *r, const struct record *record)
{
	char path[PATH_MAX];
	auto_free char *title = record_title(record);
	if (!realpath(r->path, path)) {
		(void)cli_refuse(c, "local", "cannot resolve '%s': %s", r->path, strerror(errno));
		return NULL;
	}
	if (strlen(path) + 1 + strlen(title) > SOURCE_BYTES_MAX) {
		(void)cli_refuse(c, "invalid", "'%s' is too long a path for --lazy", path);
		return NULL;
	}
	return text_format("%s/%s", path, title);
}

static enum status lazy_print(struct cli *c, const struct transfer *t, const json_t *attachment)
{
	const char *uri = attachment_uri(c, attachment);
	json_auto_t *value = json_pack("{ssssss}", "volume", t->name, "source", t->fill, "uri", uri);
	if (cli_print_json(c, value))
		return DONE;
	printf("volume '%s' is attached and is filled from '%s': quarry volume show %s\n%s\n", t->name, t->fill,
	       t->name, uri);
	return fflush(stdout) == 0 ? DONE : cli_refuse(c, "local", "cannot write: %s", strerror(errno));
}

/* In a process of its own; the caller's ends. */
static enum status lazy_leave(struct lazy *z)
{
	pid_t pid = fork();
	if (pid < 0)
		return cli_refuse(z->cli, "local", "cannot begin to fill volume '%s': %s; repeat with --wait",
				  z->transfer->name, strerror(errno));
	if (pid > 0)
		return DONE;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	(void)setsid();
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		(void)dup2(null, fd);
	z->cli->client = NULL; /* its connection is the other's */
	_exit((int)lazy_run(z));
}

enum status lazy_restore(struct cli *c, struct repository *r, const struct record *record, struct transfer *t)
{
	json_auto_t *body = json_pack("{ss}", "frontend", "nbd"), *attachment = NULL;
	auto_free char *source = lazy_source(c, r, record);
	if (!source)
		return REFUSED;
	struct lazy *z = calloc(1, sizeof(*z));
	uint64_t size_bytes = record_number(record, RECORD_SIZE);
	if (!z)
		abort();
	*z = (struct lazy){.cli = c, .repository = r, .record = record, .transfer = t};
	z->is_damage_zeroed = call_has(c->call, "zero-damaged");
	z->n_units = (size_bytes + UNIT_BYTES - 1) / UNIT_BYTES;
	z->units = calloc(z->n_units + 1, 1);
	if (!z->units)
		abort();
	t->fill = source;
	enum status status = transfer_create(t, size_bytes);
	t->is_created = false; /* it stays, whatever happens: the command is repeated to go on */
	if (status == DONE)
		status = volume_attach_with(c, t->name, body, &attachment);
	if (status == DONE) /* who fills it has no terminal to complain on */
		status = endpoint_check_attachment(c, attachment_uri(c, attachment));
	if (status == DONE)
		status = lazy_print(c, t, attachment);
	if (status == DONE && call_has(c->call, "wait")) {
		status = interrupt_begin(c, &t->interrupt);
		if (status == DONE)
			status = lazy_run(z);
	} else if (status == DONE) {
		status = lazy_leave(z);
	}
	t->fill = NULL;
	free(z->units);
	free(z);
	return status;
}
