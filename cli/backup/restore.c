/*
 * restore.c: `quarry backup restore`: makes a new volume of a backup.
 *
 * The backup is gone through leaf by leaf, piece by piece (128 KiB); a piece that has data is carried by a slot:
 *
 *   FREE -> FETCH -> WRITE -> FREE
 *
 *   FETCH    a worker reads the piece's chunks, holds each against its name, and puts the blocks together
 *   WRITE    the runs of blocks are written, each by a request of its own
 *
 * 1. What no chunk has is a hole and is never written: the new volume takes space where the old one had data.
 * 2. A chunk that is not what its name says ends the restore, and the volume is deleted again.
 * 3. The repository is only read: it may be on a read-only file system and no lock is taken.
 */
#include "cli/backup/repository.h"
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/text.h"
#include "cli/transfer.h"
#include "cli/values.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define N_SLOTS     32u
#define RUNS_MAX    (PIECE_BLOCKS / 2)
#define PROGRESS_MS 200u

#define SLOT_STAGES(X) X(FREE) X(FETCH) X(WRITE)
enum slot_stage {
#define SLOT_STAGE(name) SLOT_##name,
	SLOT_STAGES(SLOT_STAGE)
#undef SLOT_STAGE
};

/* Consecutive blocks of the piece that come from one chunk. */
struct part {
	struct chunk_id id;
	uint32_t block, n_blocks, at; /* within the piece; first block within the chunk */
};

struct slot {
	struct job job;
	enum slot_stage stage;
	struct restore *restore;
	uint64_t pos_bytes; /* of the piece */
	struct part parts[PIECE_BLOCKS];
	uint32_t n_parts, n_writes;
	struct endpoint_op writes[RUNS_MAX];
	int error; /* set by FETCH, as is is_fetched when the job is taken */
	bool is_fetched;
	uint8_t *data, *chunk;
};

struct restore {
	struct cli *cli;
	struct repository repository;
	struct transfer transfer;
	struct workers *workers;
	struct worker here;
	char *path, *title; /* of the repository; "VOLUME@SNAPSHOT" or NULL */
	const struct record *record;
	uint64_t size_bytes;
	uint32_t next_leaf; /* of the record's */
	struct leaf *leaf;  /* the one that pieces are planned from; NULL: none yet */
	uint32_t leaf_number, next_piece;
	uint64_t written_bytes, started_ms, shown_ms;
	struct slot slots[N_SLOTS];
	enum status status;
};

enum flow { FLOW_NEXT, FLOW_WAIT };

static uint64_t now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- one piece ---- */

static void chunk_fail(struct restore *x, int error)
{
	auto_free char *title = record_title(x->record);
	if (x->status != DONE)
		return;
	if (error == -ESTALE) {
		x->status =
		    cli_refuse(x->cli, "in-use",
			       "a pack of repository '%s' has gone meanwhile; when 'quarry backup prune' has ended, "
			       "try again",
			       x->repository.path);
		return;
	}
	x->status = cli_refuse(x->cli, "damaged",
			       "backup '%s' in '%s' is hurt (%s); 'quarry backup verify' tells which can be restored",
			       title, x->repository.path,
			       error == -ENOENT    ? "a chunk is missing"
			       : error == -EBADMSG ? "a chunk is damaged"
						   : strerror(-error));
}

/* Makes x->leaf the next one; false: there is none. */
static bool leaf_next(struct restore *x)
{
	int error = 0;
	leaf_destroy(x->leaf);
	x->leaf = NULL;
	if (x->next_leaf == x->record->n_leaves || x->status != DONE)
		return false;
	const struct record_leaf *next = &x->record->leaves[x->next_leaf++];
	x->leaf = repository_leaf(&x->repository, &x->here, &next->id, &error);
	x->leaf_number = next->number;
	x->next_piece = 0;
	if (!x->leaf)
		chunk_fail(x, error);
	return x->leaf != NULL;
}

static void parts_take(const struct restore *x, uint32_t piece, struct slot *slot)
{
	struct leaf_run run;
	uint32_t first = piece * PIECE_BLOCKS;
	slot->n_parts = 0;
	for (uint32_t block = first; leaf_next_run(x->leaf, &block, first + PIECE_BLOCKS, &run);)
		slot->parts[slot->n_parts++] = (struct part){
		    .id = x->leaf->ids[run.chunk], .block = run.block - first, .n_blocks = run.n_blocks, .at = run.at};
	slot->pos_bytes = x->leaf_number * LEAF_BYTES + (uint64_t)piece * PIECE_BYTES;
}

static enum flow slot_plan(struct restore *x, struct slot *slot)
{
	while (x->status == DONE && (x->leaf || leaf_next(x))) {
		while (x->next_piece < LEAF_PIECES) {
			parts_take(x, x->next_piece++, slot);
			if (slot->n_parts > 0)
				return FLOW_NEXT;
		}
		if (!leaf_next(x))
			break;
	}
	return FLOW_WAIT;
}

/* Runs in a worker. */
static void slot_fetch(struct job *job, struct worker *w)
{
	struct slot *slot = (struct slot *)job;
	size_t n_bytes = 0;
	slot->error = 0;
	for (uint32_t i = 0; i < slot->n_parts && !slot->error; i++) {
		const struct part *part = &slot->parts[i];
		if (i == 0 || !id_is_equal(&part->id, &part[-1].id))
			slot->error = repository_chunk(&slot->restore->repository, w, KIND_DATA, &part->id, slot->chunk,
						       PIECE_BYTES, &n_bytes, NULL);
		if (!slot->error && (size_t)(part->at + part->n_blocks) * BLOCK_BYTES > n_bytes)
			slot->error = -EBADMSG;
		if (!slot->error)
			memcpy(slot->data + (size_t)part->block * BLOCK_BYTES,
			       slot->chunk + (size_t)part->at * BLOCK_BYTES, (size_t)part->n_blocks * BLOCK_BYTES);
	}
}

static void slot_begin(struct restore *x, struct slot *slot)
{
	slot->job.work = slot_fetch;
	slot->is_fetched = false;
	workers_submit(x->workers, &slot->job);
}

/* Parts that touch each other are one write. */
static enum slot_stage slot_write(struct restore *x, struct slot *slot)
{
	if (slot->error)
		chunk_fail(x, slot->error);
	if (x->status != DONE)
		return SLOT_FREE;
	slot->n_writes = 0;
	for (uint32_t i = 0, next; i < slot->n_parts; i = next) {
		uint32_t block = slot->parts[i].block, end = block + slot->parts[i].n_blocks;
		for (next = i + 1; next < slot->n_parts && slot->parts[next].block == end; next++)
			end += slot->parts[next].n_blocks;
		uint64_t pos_bytes = slot->pos_bytes + (uint64_t)block * BLOCK_BYTES;
		uint64_t len_bytes = (uint64_t)(end - block) * BLOCK_BYTES;
		if (pos_bytes >= x->size_bytes)
			break;
		if (len_bytes > x->size_bytes - pos_bytes)
			len_bytes = x->size_bytes - pos_bytes;
		quarry_assert(slot->n_writes < RUNS_MAX);
		x->written_bytes += len_bytes;
		endpoint_write(&x->transfer.volume, &slot->writes[slot->n_writes++],
			       slot->data + (size_t)block * BLOCK_BYTES, len_bytes, pos_bytes);
	}
	return SLOT_WRITE;
}

/* FLOW_WAIT: a write is under way. */
static enum flow slot_end(struct restore *x, struct slot *slot)
{
	for (uint32_t i = 0; i < slot->n_writes; i++) {
		if (!slot->writes[i].is_done)
			return FLOW_WAIT;
	}
	for (uint32_t i = 0; i < slot->n_writes; i++) {
		int error = slot->writes[i].error;
		if (error && x->status == DONE)
			x->status = cli_refuse(x->cli, error == ENOSPC ? "no-space" : "io-error",
					       "cannot write volume '%s' at byte %llu: %s", x->transfer.name,
					       (unsigned long long)slot->pos_bytes, strerror(error));
	}
	return FLOW_NEXT;
}

/* Every transition of a slot. */
static void slot_run(struct restore *x, struct slot *slot)
{
	for (;;) {
		switch (slot->stage) {
		case SLOT_FREE:
			if (slot_plan(x, slot) == FLOW_WAIT)
				return;
			slot_begin(x, slot);
			slot->stage = SLOT_FETCH;
			break;
		case SLOT_FETCH:
			if (!slot->is_fetched)
				return;
			slot->stage = slot_write(x, slot);
			break;
		case SLOT_WRITE:
			if (slot_end(x, slot) == FLOW_WAIT)
				return;
			slot->stage = SLOT_FREE;
			break;
		}
	}
}

/* ---- the loop ---- */

static void restore_show(struct restore *x)
{
	char done[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES], speed[SIZE_TEXT_BYTES];
	uint64_t now = now_ms();
	if (now - x->shown_ms < PROGRESS_MS)
		return;
	x->shown_ms = now;
	size_to_text(x->written_bytes, done);
	size_to_text(record_number(x->record, RECORD_DATA), total);
	size_to_text(x->written_bytes * 1000 / (now - x->started_ms + 1), speed);
	progress_show("%s of %s restored, %s a second", done, total, speed);
}

static bool restore_turn(struct restore *x)
{
	bool is_busy = false;
	for (unsigned i = 0; i < N_SLOTS; i++) {
		slot_run(x, &x->slots[i]);
		is_busy |= x->slots[i].stage != SLOT_FREE;
	}
	restore_show(x);
	return is_busy;
}

static void restore_wait(struct restore *x)
{
	struct signalfd_siginfo signal;
	struct pollfd waits[] = {endpoint_pollfd(&x->transfer.volume),
				 {.fd = workers_fd(x->workers), .events = POLLIN},
				 {.fd = x->status == DONE ? x->transfer.interrupt.fd : -1, .events = POLLIN}};
	if (poll(waits, array_size(waits), -1) < 0 && errno != EINTR && x->status == DONE)
		x->status = cli_refuse(x->cli, "local", "cannot wait: %s", strerror(errno));
	endpoint_polled(&x->transfer.volume, waits[0].revents);
	for (struct job *job = workers_take(x->workers); job; job = workers_take(x->workers))
		((struct slot *)job)->is_fetched = true;
	if (waits[2].revents && read(x->transfer.interrupt.fd, &signal, sizeof(signal)) == sizeof(signal))
		x->status = cli_refuse(x->cli, "interrupted", "interrupted");
}

static enum status restore_copy(struct restore *x)
{
	x->started_ms = now_ms();
	x->workers = workers_create();
	for (unsigned i = 0; i < N_SLOTS; i++) {
		x->slots[i].restore = x;
		x->slots[i].data = malloc(PIECE_BYTES);
		x->slots[i].chunk = malloc(PIECE_BYTES);
		if (!x->slots[i].data || !x->slots[i].chunk)
			abort();
	}
	while (restore_turn(x))
		restore_wait(x);
	progress_end();
	int error = x->status == DONE ? endpoint_flush(&x->transfer.volume) : 0;
	if (error)
		x->status =
		    cli_refuse(x->cli, "io-error", "cannot flush volume '%s': %s", x->transfer.name, strerror(error));
	for (unsigned i = 0; i < N_SLOTS; i++) {
		free(x->slots[i].data);
		free(x->slots[i].chunk);
	}
	return x->status;
}

/* ---- which backup ---- */

/* REPOSITORY, or REPOSITORY/NAME@SNAP: a last part with '@' names a backup, unless it is a directory. */
static void target_parse(struct restore *x, const char *text)
{
	const char *slash = strrchr(text, '/');
	if (slash && slash > text && strchr(slash, '@') && access(text, F_OK) < 0) {
		x->path = text_format("%.*s", (int)(slash - text), text);
		x->title = text_format("%s", slash + 1);
	} else {
		x->path = text_format("%s", text);
	}
}

static enum status record_choose(struct restore *x)
{
	struct repository *r = &x->repository;
	if (x->title)
		x->record = repository_find(r, x->title);
	if (x->title && !x->record)
		return cli_refuse(x->cli, "not-found", "there is no backup '%s' in '%s'; see 'quarry backup list %s'",
				  x->title, r->path, r->path);
	for (uint32_t i = 0; !x->record && i + 1 < r->n_records; i++) {
		if (strcmp(record_text(r->records[i], RECORD_VOLUME), record_text(r->records[i + 1], RECORD_VOLUME)) !=
		    0)
			return cli_refuse(x->cli, "invalid",
					  "'%s' has backups of several volumes; name one: %s/NAME@SNAP", r->path,
					  r->path);
	}
	if (!x->record && r->n_records == 0)
		return cli_refuse(x->cli, "not-found", "there is no backup in '%s' that can be read", r->path);
	if (!x->record)
		x->record = r->records[r->n_records - 1];
	x->size_bytes = record_number(x->record, RECORD_SIZE);
	return DONE;
}

static enum status restore_run(struct restore *x)
{
	enum status status = repository_open(x->cli, &x->repository, x->path, REPOSITORY_READ);
	if (status == DONE)
		status = record_choose(x);
	if (status == DONE)
		status = interrupt_begin(x->cli, &x->transfer.interrupt);
	if (status == DONE)
		status = transfer_create(&x->transfer, x->size_bytes);
	if (status == DONE)
		status = transfer_connect(&x->transfer, NULL, false);
	if (status == DONE && x->transfer.volume.size_bytes < x->size_bytes)
		status = cli_refuse(x->cli, "internal", "volume '%s' is smaller than it was made", x->transfer.name);
	return status == DONE ? restore_copy(x) : status;
}

static enum status restore_print(struct restore *x)
{
	struct cli *c = x->cli;
	char size[SIZE_TEXT_BYTES], written[SIZE_TEXT_BYTES];
	auto_free char *title = record_title(x->record);
	json_auto_t *value =
	    json_pack("{sssssssIsI}", "backup", title, "repository", x->repository.path, "volume", x->transfer.name,
		      "size_bytes", (json_int_t)x->size_bytes, "written_bytes", (json_int_t)x->written_bytes);
	if (cli_print_json(c, value))
		return DONE;
	size_to_text(x->size_bytes, size);
	size_to_text(x->written_bytes, written);
	printf("restored '%s' as volume '%s' of %s, %s of it data\n", title, x->transfer.name, size, written);
	return DONE;
}

enum status backup_restore(struct cli *c)
{
	struct restore *x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->cli = c;
	transfer_begin(&x->transfer, c, call_text(c->call, "NEW"));
	worker_begin(&x->here);
	x->repository = (struct repository){.dir_fd = -1, .packs_fd = -1, .backups_fd = -1};
	target_parse(x, call_text(c->call, "REPOSITORY[/NAME@SNAP]"));
	enum status status = transfer_end(&x->transfer, restore_run(x));
	if (status == DONE) {
		repository_warn(&x->repository);
		status = restore_print(x);
	}
	workers_destroy(x->workers);
	worker_end(&x->here);
	leaf_destroy(x->leaf);
	repository_close(&x->repository);
	free(x->path);
	free(x->title);
	free(x);
	return status;
}
