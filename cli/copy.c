/*
 * copy.c: copies one endpoint into another, many pieces at a time, holes as holes.
 *
 * A slot carries one piece:
 *
 *   FREE -> READ -> WRITE -> FREE
 *     |      |        ^  |
 *     |      +--------|--+            reading back: there is nothing to write
 *     +---------------+  |            a hole, and the target cannot zero: zeros are written
 *     +---> ZERO --------+            a hole, where the target may hold old data
 *
 * 1. Pieces are planned from the beginning of the source to its end, each byte once; they end where data or hole does,
 *    at the end of a block: a block with both is data.
 * 2. After the first error nothing more is planned; what is under way is waited for, since its buffers belong to libnbd
 *    until then.
 * 3. A hole is skipped where the target reads as zeros anyway.
 * 4. The copy is done when the target has flushed.
 * 5. What is verified is what was read, once: the source may be one that others write to. A second pass reads the
 *    target and holds it against the tally of the first, holes too.
 */
#include "cli/copy.h"

#include "cli/progress.h"
#include "cli/size.h"
#include "cli/tally.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define N_SLOTS        16u
#define PIECE_BYTES    (256u << 10) /* every server takes requests of this size */
#define ZERO_BYTES_MAX (1ull << 30)
#define SECTOR_BYTES   512u
#define PROGRESS_MS    200

#define SLOT_STAGES(X) X(FREE) X(READ) X(WRITE) X(ZERO)
enum slot_stage {
#define SLOT_STAGE(name) SLOT_##name,
	SLOT_STAGES(SLOT_STAGE)
#undef SLOT_STAGE
};

struct slot {
	enum slot_stage stage;
	struct endpoint_op op;
	bool is_hole;
	uint64_t pos_bytes, len_bytes; /* of the source */
	char *data;                    /* PIECE_BYTES */
};

struct copy {
	struct cli *cli;
	struct endpoint *source;
	struct endpoint *target; /* NULL: reading back, into nothing */
	struct tally *tally;     /* of what is read; NULL: nobody asks */
	uint64_t len_bytes;      /* of the source, what is wanted of it */
	uint64_t next_bytes;     /* where the next piece begins */
	uint64_t passed_bytes;   /* read, written or skipped */
	uint64_t copied_bytes;   /* data written, or read back */
	struct extent extent;    /* where next_bytes lies, while it is before its end */
	enum status status;      /* of the first failure */
	uint64_t started_ms, shown_ms;
	struct slot slots[N_SLOTS];
};

enum flow { FLOW_NEXT, FLOW_WAIT };

/* ---- interrupts ---- */

static void interrupt_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

enum status interrupt_begin(struct cli *c, struct interrupt *i)
{
	sigset_t set;
	interrupt_signals(&set);
	i->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (i->fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return cli_refuse(c, "local", "cannot wait for signals: %s", strerror(errno));
	return DONE;
}

/* A signal that came meanwhile is dropped: the command is at its end and says how it went. */
void interrupt_end(struct interrupt *i)
{
	if (i->fd >= 0)
		close(i->fd);
	i->fd = -1;
}

/* ---- one piece ---- */

static void copy_fail(struct copy *copy, const char *what, const struct endpoint *e, uint64_t pos_bytes, int error)
{
	if (copy->status != DONE)
		return;
	copy->status = cli_refuse(copy->cli, error == ENOSPC ? "no-space" : "io-error",
				  "cannot %s '%s' at byte %llu: %s%s", what, e->name, (unsigned long long)pos_bytes,
				  strerror(error), error == ENOSPC ? ": free space there, then try again" : "");
}

/* Lets an extent end with a block, or where all ends. */
static void extent_align(struct copy *copy)
{
	struct extent *extent = &copy->extent;
	uint64_t rest_bytes = extent->end_bytes % TALLY_BLOCK_BYTES;
	if (rest_bytes && extent->end_bytes < copy->len_bytes) {
		extent->end_bytes -= rest_bytes;
		if (!extent->is_hole || extent->end_bytes == copy->next_bytes)
			*extent = (struct extent){.end_bytes = extent->end_bytes + TALLY_BLOCK_BYTES};
	}
	if (extent->end_bytes > copy->len_bytes)
		extent->end_bytes = copy->len_bytes;
	quarry_assert(extent->end_bytes > copy->next_bytes);
}

/* Makes copy->extent hold next_bytes. */
static bool extent_find(struct copy *copy)
{
	if (copy->next_bytes < copy->extent.end_bytes)
		return true;
	int error = endpoint_extent(copy->source, copy->next_bytes, &copy->extent);
	if (error)
		copy_fail(copy, "learn about holes in", copy->source, copy->next_bytes, error);
	else
		extent_align(copy);
	return error == 0;
}

/* Finds the slot a piece, FLOW_WAIT: there is none any more. */
static enum flow slot_plan(struct copy *copy, struct slot *slot)
{
	bool is_skipped = !copy->target || copy->target->is_fresh; /* a hole */
	while (copy->status == DONE && copy->next_bytes < copy->len_bytes && extent_find(copy)) {
		uint64_t len_bytes = copy->extent.end_bytes - copy->next_bytes;
		bool is_large = copy->extent.is_hole && (is_skipped || copy->target->can_zero);
		uint64_t most = is_large ? ZERO_BYTES_MAX : PIECE_BYTES;
		slot->is_hole = copy->extent.is_hole;
		slot->pos_bytes = copy->next_bytes;
		slot->len_bytes = len_bytes < most ? len_bytes : most;
		copy->next_bytes += slot->len_bytes;
		quarry_assert(copy->next_bytes <= copy->len_bytes);
		if (!copy->extent.is_hole || !is_skipped)
			return FLOW_NEXT;
		copy->passed_bytes += slot->len_bytes;
	}
	return FLOW_WAIT;
}

/* The piece with its last sector filled up. */
static uint64_t slot_target_bytes(const struct slot *slot)
{
	return (slot->len_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
}

/* Begins what the piece needs first. */
static enum slot_stage slot_begin(struct copy *copy, struct slot *slot)
{
	if (!slot->is_hole) {
		/* Back come whole sectors: a volume gives nothing less, while a source may end anywhere. */
		uint64_t len_bytes = copy->target ? slot->len_bytes : slot_target_bytes(slot);
		endpoint_read(copy->source, &slot->op, slot->data, len_bytes, slot->pos_bytes);
		return SLOT_READ;
	}
	if (copy->target->can_zero) {
		endpoint_zero(copy->target, &slot->op, slot_target_bytes(slot), slot->pos_bytes);
		return SLOT_ZERO;
	}
	memset(slot->data, 0, slot_target_bytes(slot));
	endpoint_write(copy->target, &slot->op, slot->data, slot_target_bytes(slot), slot->pos_bytes);
	return SLOT_WRITE;
}

static enum slot_stage slot_write(struct copy *copy, struct slot *slot)
{
	uint64_t len_bytes = slot_target_bytes(slot);
	quarry_assert(len_bytes <= PIECE_BYTES);
	memset(slot->data + slot->len_bytes, 0, len_bytes - slot->len_bytes);
	endpoint_write(copy->target, &slot->op, slot->data, len_bytes, slot->pos_bytes);
	return SLOT_WRITE;
}

static enum slot_stage slot_take(struct copy *copy, struct slot *slot)
{
	if (slot->op.error)
		copy_fail(copy, "read", copy->source, slot->pos_bytes, slot->op.error);
	if (copy->status != DONE)
		return SLOT_FREE;
	if (copy->target) {
		if (copy->tally)
			tally_put(copy->tally, slot->data, slot->len_bytes, slot->pos_bytes);
		return slot_write(copy, slot);
	}
	tally_take(copy->tally, slot->data, slot->len_bytes, slot->pos_bytes);
	copy->passed_bytes += slot->len_bytes;
	copy->copied_bytes += slot->len_bytes;
	return SLOT_FREE;
}

static enum slot_stage slot_end(struct copy *copy, struct slot *slot)
{
	if (slot->op.error)
		copy_fail(copy, "write", copy->target, slot->pos_bytes, slot->op.error);
	copy->passed_bytes += slot->len_bytes;
	copy->copied_bytes += slot->is_hole ? 0 : slot->len_bytes;
	return SLOT_FREE;
}

/* Every transition of a slot. */
static void slot_run(struct copy *copy, struct slot *slot)
{
	for (;;) {
		switch (slot->stage) {
		case SLOT_FREE:
			if (slot_plan(copy, slot) == FLOW_WAIT)
				return;
			slot->stage = slot_begin(copy, slot);
			break;
		case SLOT_READ:
			if (!slot->op.is_done)
				return;
			slot->stage = slot_take(copy, slot);
			break;
		case SLOT_WRITE:
		case SLOT_ZERO:
			if (!slot->op.is_done)
				return;
			slot->stage = slot_end(copy, slot);
			break;
		}
	}
}

/* ---- the whole ---- */

static void copy_show(struct copy *copy)
{
	char passed[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES], speed[SIZE_TEXT_BYTES];
	uint64_t now = now_ms();
	if (now - copy->shown_ms < PROGRESS_MS)
		return;
	copy->shown_ms = now;
	size_to_text(copy->passed_bytes, passed);
	size_to_text(copy->len_bytes, total);
	size_to_text(copy->copied_bytes * 1000 / (now - copy->started_ms + 1), speed);
	progress_show("%s%s of %s, %s of data a second", copy->target ? "" : "verified ", passed, total, speed);
}

/* Runs every slot as far as it goes; false: all are free and nothing is left. */
static bool copy_turn(struct copy *copy)
{
	bool is_busy = false;
	for (unsigned i = 0; i < N_SLOTS; i++) {
		slot_run(copy, &copy->slots[i]);
		is_busy |= copy->slots[i].stage != SLOT_FREE;
	}
	copy_show(copy);
	return is_busy;
}

/* Waits until a connection or a signal has something to say. */
static void copy_wait(struct copy *copy, const struct interrupt *interrupt)
{
	struct signalfd_siginfo signal;
	struct pollfd waits[] = {endpoint_pollfd(copy->source),
				 copy->target ? endpoint_pollfd(copy->target) : (struct pollfd){.fd = -1},
				 {.fd = copy->status == DONE ? interrupt->fd : -1, .events = POLLIN}};
	if (poll(waits, array_size(waits), -1) < 0 && errno != EINTR)
		copy_fail(copy, "wait for", copy->source, copy->next_bytes, errno);
	endpoint_polled(copy->source, waits[0].revents);
	if (copy->target)
		endpoint_polled(copy->target, waits[1].revents);
	if (waits[2].revents && read(interrupt->fd, &signal, sizeof(signal)) == sizeof(signal))
		copy->status = cli_refuse(copy->cli, "interrupted", "interrupted at byte %llu of '%s'",
					  (unsigned long long)copy->next_bytes, copy->source->name);
}

/* One pass: from the source to the target, or back from what was one. */
static enum status copy_pass(struct cli *c, const struct copy_job *job, struct tally *tally, bool is_back,
			     uint64_t *copied_bytes)
{
	struct copy *copy = calloc(1, sizeof(*copy));
	char *memory = calloc(N_SLOTS, PIECE_BYTES);
	if (!copy || !memory)
		abort();
	*copy = (struct copy){.cli = c, .tally = tally, .len_bytes = job->source->size_bytes, .started_ms = now_ms()};
	copy->source = is_back ? job->target : job->source;
	copy->target = is_back ? NULL : job->target;
	for (unsigned n = 0; n < N_SLOTS; n++)
		copy->slots[n].data = memory + (size_t)n * PIECE_BYTES;
	while (copy_turn(copy))
		copy_wait(copy, job->interrupt);
	progress_end();
	int error = copy->status == DONE && copy->target ? endpoint_flush(copy->target) : 0;
	if (error)
		copy_fail(copy, "flush", copy->target, copy->len_bytes, error);
	quarry_assert(copy->status != DONE || copy->passed_bytes == copy->len_bytes);
	enum status status = copy->status;
	*copied_bytes = copy->copied_bytes;
	free(memory);
	free(copy);
	return status;
}

/* The second pass. */
static enum status copy_verify(struct cli *c, const struct copy_job *job, struct tally *tally)
{
	uint64_t read_bytes = 0, pos_bytes = 0, end_bytes = 0;
	endpoint_forget(job->target);
	enum status status = copy_pass(c, job, tally, true, &read_bytes);
	if (status != DONE || tally_is_even(tally, &pos_bytes, &end_bytes))
		return status;
	return cli_refuse(c, "damaged",
			  "'%s' does not give back what was written to it, somewhere in bytes %llu to %llu: do not "
			  "use it, and look at what stores it",
			  job->target->name, (unsigned long long)pos_bytes, (unsigned long long)end_bytes);
}

enum status copy_run(struct cli *c, const struct copy_job *job, uint64_t *copied_bytes)
{
	struct tally tally = {.sums = NULL};
	quarry_assert(job->source->size_bytes > 0 && job->target->size_bytes >= job->source->size_bytes);
	if (job->is_verified)
		tally_begin(&tally, job->source->size_bytes);
	enum status status = copy_pass(c, job, job->is_verified ? &tally : NULL, false, copied_bytes);
	if (status == DONE && job->is_verified)
		status = copy_verify(c, job, &tally);
	tally_end(&tally);
	return status;
}
