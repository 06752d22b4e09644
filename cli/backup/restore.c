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
#include "cli/backup/lazy.h"
#include "cli/backup/lost.h"
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
#include <string.h>
#include <sys/signalfd.h>
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

struct slot {
	struct fetch fetch; /* the first member */
	enum slot_stage stage;
	uint64_t pos_bytes; /* of the piece */
	uint32_t n_writes;
	struct endpoint_op writes[RUNS_MAX];
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
	struct lost lost; /* of the first piece that is hurt */
	struct slot slots[N_SLOTS];
	enum status status;
};

enum flow { FLOW_NEXT, FLOW_WAIT };

/* ---- one piece ---- */

/* What is lost has been added, unless it is just out of reach now. */
static void chunk_fail(struct restore *x, int error)
{
	auto_free char *title = record_title(x->record), *lost = lost_text(&x->lost);
	if (x->status != DONE)
		return;
	if (error == -ESTALE)
		x->status =
		    cli_refuse(x->cli, "in-use",
			       "a pack of repository '%s' has gone meanwhile; when 'quarry backup prune' has ended, "
			       "try again",
			       x->repository.path);
	else if (fetch_error_is_damage(error))
		x->status = cli_refuse(
		    x->cli, "damaged",
		    "backup '%s' in '%s' is hurt (a chunk is %s); it has lost at least %s; 'quarry backup "
		    "verify %s' tells all, and 'quarry backup restore --lazy --wait --zero-damaged' saves "
		    "what is left",
		    title, x->repository.path, error == -ENOENT ? "missing" : "damaged", lost, x->repository.path);
	else
		x->status = cli_refuse(x->cli, "io-error", "backup '%s' in '%s' cannot be read: %s", title,
				       x->repository.path, strerror(-error));
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
	if (!x->leaf) {
		uint64_t begin = next->number * LEAF_BYTES, end = begin + LEAF_BYTES;
		lost_add(&x->lost, begin, end < x->size_bytes ? end : x->size_bytes);
		chunk_fail(x, error);
	}
	return x->leaf != NULL;
}

static enum flow slot_plan(struct restore *x, struct slot *slot)
{
	while (x->status == DONE && (x->leaf || leaf_next(x))) {
		while (x->next_piece < LEAF_PIECES) {
			uint32_t piece = x->next_piece++;
			fetch_plan(&slot->fetch, x->leaf, piece * PIECE_BLOCKS);
			slot->pos_bytes = x->leaf_number * LEAF_BYTES + (uint64_t)piece * PIECE_BYTES;
			if (slot->fetch.n_parts > 0)
				return FLOW_NEXT;
		}
		if (!leaf_next(x))
			break;
	}
	return FLOW_WAIT;
}

/* Parts that touch each other are one write. */
static enum slot_stage slot_write(struct restore *x, struct slot *slot)
{
	uint32_t i = 0, block, n_blocks;
	if (slot->fetch.error) {
		lost_add_fetch(&x->lost, &slot->fetch, slot->pos_bytes, x->size_bytes);
		chunk_fail(x, slot->fetch.error);
	}
	if (x->status != DONE)
		return SLOT_FREE;
	slot->n_writes = 0;
	while (fetch_next_run(&slot->fetch, &i, &block, &n_blocks)) {
		uint64_t pos_bytes = slot->pos_bytes + (uint64_t)block * BLOCK_BYTES;
		uint64_t len_bytes = (uint64_t)n_blocks * BLOCK_BYTES;
		if (pos_bytes >= x->size_bytes)
			break;
		if (len_bytes > x->size_bytes - pos_bytes)
			len_bytes = x->size_bytes - pos_bytes;
		quarry_assert(slot->n_writes < RUNS_MAX);
		x->written_bytes += len_bytes;
		endpoint_write(&x->transfer.volume, &slot->writes[slot->n_writes++],
			       slot->fetch.data + (size_t)block * BLOCK_BYTES, len_bytes, pos_bytes);
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
					       "cannot write volume '%s' at byte %llu: %s%s", x->transfer.name,
					       (unsigned long long)slot->pos_bytes, strerror(error),
					       error == ENOSPC ? ": add a disk to its pool, or free space there" : "");
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
			fetch_submit(&slot->fetch, x->workers);
			slot->stage = SLOT_FETCH;
			break;
		case SLOT_FETCH:
			if (!slot->fetch.is_done)
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
		((struct fetch *)job)->is_done = true;
	if (waits[2].revents && read(x->transfer.interrupt.fd, &signal, sizeof(signal)) == sizeof(signal))
		x->status = cli_refuse(x->cli, "interrupted", "interrupted");
}

static enum status restore_copy(struct restore *x)
{
	x->started_ms = now_ms();
	x->workers = workers_create();
	for (unsigned i = 0; i < N_SLOTS; i++)
		fetch_init(&x->slots[i].fetch, &x->repository, PIECE_BLOCKS);
	while (restore_turn(x))
		restore_wait(x);
	progress_end();
	int error = x->status == DONE ? endpoint_flush(&x->transfer.volume) : 0;
	if (error)
		x->status =
		    cli_refuse(x->cli, "io-error", "cannot flush volume '%s': %s", x->transfer.name, strerror(error));
	for (unsigned i = 0; i < N_SLOTS; i++)
		fetch_fini(&x->slots[i].fetch);
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
	if (!x->title && access(x->path, F_OK) < 0 && errno == ENOENT)
		return cli_refuse(x->cli, "not-found",
				  "there is no repository '%s'; one backup in a repository is REPOSITORY/NAME@SNAP",
				  x->path);
	enum status status = repository_open(x->cli, &x->repository, x->path, REPOSITORY_READ);
	if (status == DONE)
		status = record_choose(x);
	if (status == DONE && call_has(x->cli->call, "lazy"))
		return lazy_restore(x->cli, &x->repository, x->record, &x->transfer);
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
	auto_free char *title = record_title(x->record), *path = text_printable(x->repository.path);
	json_auto_t *value = /* takes no path that is not UTF-8 */
	    json_pack("{sssssssIsI}", "backup", title, "repository", path, "volume", x->transfer.name, "size_bytes",
		      (json_int_t)x->size_bytes, "written_bytes", (json_int_t)x->written_bytes);
	if (cli_print_json(c, value))
		return DONE;
	size_to_text(x->size_bytes, size);
	size_to_text(x->written_bytes, written);
	printf("restored '%s' as volume '%s' of %s, %s of it data\n", title, x->transfer.name, size, written);
	return DONE;
}

enum status backup_restore(struct cli *c)
{
	bool is_lazy = call_has(c->call, "lazy");
	if (!is_lazy && call_has(c->call, "wait"))
		return cli_misuse(c, "--wait is for --lazy; without it the command ends when all is restored");
	if (!is_lazy && call_has(c->call, "zero-damaged"))
		return cli_misuse(c, "--zero-damaged is for --lazy: a restore without it is of all or nothing");
	if (call_has(c->call, "zero-damaged") && !call_has(c->call, "wait"))
		return cli_misuse(c, "--zero-damaged needs --wait: what becomes zeros is told at the end");
	struct restore *x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->cli = c;
	transfer_begin(&x->transfer, c, call_text(c->call, "NEW"));
	worker_begin(&x->here);
	x->repository = (struct repository){.dir_fd = -1, .packs_fd = -1, .backups_fd = -1};
	target_parse(x, call_text(c->call, "REPOSITORY[/NAME@SNAP]"));
	enum status status = transfer_end(&x->transfer, restore_run(x));
	if (status == DONE && !is_lazy) {
		repository_warn(&x->repository);
		status = restore_print(x);
	}
	workers_destroy(x->workers);
	worker_end(&x->here);
	leaf_destroy(x->leaf);
	lost_fini(&x->lost);
	repository_close(&x->repository);
	free(x->path);
	free(x->title);
	free(x);
	return status;
}
