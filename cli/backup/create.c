/*
 * create.c: `quarry backup create`: reads a snapshot over NBD into a repository.
 *
 * The volume is gone through leaf by leaf (64 MiB), several open at a time. A leaf begins as that of the base, the backup
 * that this one is incremental to, or as all holes; blocks that have changed are read, piece by piece (128 KiB), or become
 * holes. A piece is carried by a slot:
 *
 *   FREE -> READ -> ENCODE -> PUT -> FREE
 *
 *   READ     its changed runs of blocks are read, each by a request of its own
 *   ENCODE   a worker leaves out zeros, names what remains, and compresses it unless the repository has it
 *   PUT      it waits for room in the store, then the leaf learns where its blocks are
 *
 * 1. Only blocks that are data and have changed are read.
 * 2. A leaf is finished when all its pieces are; one that is as it was in the base keeps its chunk.
 * 3. The base is used only when every chunk that it needs is there, as far as the maps and the packs' tables say.
 *    Otherwise all is read, and what the repository has is not stored again. Chunks of data are not read for it: that is
 *    verify's, and `prune --force` leaves out what is damaged, so that it is stored again.
 * 4. The backup is recorded when all of its chunks are durable. Whatever ends the command before leaves chunks that the
 *    next one finds.
 * 5. After the first failure nothing more is begun; what is under way is waited for, since its buffers belong to libnbd
 *    or to a worker.
 */

#include "cli/backup/rate.h"
#include "cli/backup/source.h"
#include "cli/backup/store.h"
#include "cli/backup/survey.h"
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/text.h"
#include "cli/transfer.h"
#include "cli/values.h"
#include "cli/volume.h"

#include <errno.h>
#include <libnbd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define N_SLOTS        32u
#define LEAVES_OPEN    4u
#define RUNS_MAX       (PIECE_BLOCKS / 2)
#define PROGRESS_MS    200u
#define LOCK_CHECK_MS  30000u
#define RATE_BYTES_MIN (64ull << 10) /* what is less is a unit left out: 200 for 200M */
#define NICE           10            /* of the scale that nice(1) has */
#define CONTEXT_PREFIX "qemu:dirty-bitmap:"

#define SLOT_STAGES(X) X(FREE) X(READ) X(ENCODE) X(PUT)
enum slot_stage {
#define SLOT_STAGE(name) SLOT_##name,
	SLOT_STAGES(SLOT_STAGE)
#undef SLOT_STAGE
};

struct open_leaf {
	struct leaf *leaf;                 /* NULL: free */
	uint32_t number, next_piece, owed; /* owed: slots that carry a piece of it */
	uint32_t n_before;                 /* data blocks that it had in the base */
	struct source_masks masks;
};

/* One piece. Owner: the command's thread; in ENCODE: a worker. */
struct slot {
	struct job job;
	enum slot_stage stage;
	struct create *create;
	struct open_leaf *leaf;
	uint32_t piece, mask; /* within the leaf; its blocks that are read */
	uint32_t n_runs;
	struct endpoint_op reads[RUNS_MAX];
	/* set by ENCODE */
	uint32_t nonzero; /* of the mask, the blocks that the chunk holds */
	struct chunk_id id;
	size_t sealed_bytes; /* 0: the repository has it */
	bool is_encoded;     /* set when the job is taken */
	uint8_t *data, *packed, *sealed;
};

struct create {
	struct cli *cli;
	struct repository repository;
	struct transfer transfer;
	struct source source;
	struct workers *workers;
	struct worker here; /* what the command's own thread reads and packs with */
	struct store store;
	const char *title; /* "VOLUME@SNAPSHOT" */
	char *volume, *snapshot;
	json_t *volume_facts, *snapshots;
	const json_t *snapshot_facts;
	const struct record *base; /* NULL: none */
	char *context;
	uint64_t same_bytes; /* behind this the base says nothing: one of the two volumes ends here */
	struct open_leaf leaves[LEAVES_OPEN];
	struct slot slots[N_SLOTS];
	uint32_t next_leaf, n_leaves, n_done;
	struct record_leaf *done; /* of the backup, in any order */
	uint32_t done_room;
	uint64_t read_bytes, data_blocks;
	struct rate rate;
	uint64_t started_ms, shown_ms, locked_ms;
	bool is_there;      /* the repository has this very backup: nothing is to be done */
	enum status status; /* of the first failure */
};

enum flow { FLOW_NEXT, FLOW_WAIT };

/* ---- leaves ---- */

static void create_done_add(struct create *x, uint32_t number, const struct chunk_id *id)
{
	if (x->n_done == x->done_room) {
		x->done_room = x->done_room ? x->done_room * 2 : 256;
		x->done = reallocarray(x->done, x->done_room, sizeof(*x->done));
		if (!x->done)
			abort();
	}
	x->done[x->n_done++] = (struct record_leaf){.number = number, .id = *id};
}

static bool masks_are_empty(const uint32_t *mask)
{
	for (uint32_t i = 0; i < LEAF_PIECES; i++) {
		if (mask[i])
			return false;
	}
	return true;
}

/* What the base does not cover has changed. */
static void masks_widen(const struct create *x, uint32_t number, struct source_masks *masks)
{
	uint64_t from = number * LEAF_BYTES, to = from + LEAF_BYTES;
	if (x->same_bytes / BLOCK_BYTES * BLOCK_BYTES > from)
		from = x->same_bytes / BLOCK_BYTES * BLOCK_BYTES;
	if (x->base && from < to)
		masks_set(masks->changed, number * LEAF_BYTES, from, to);
}

static void create_fail(struct create *x, const char *what, uint64_t pos_bytes, int error)
{
	if (x->status == DONE)
		x->status = cli_refuse(x->cli, "io-error", "cannot %s '%s' at byte %llu: %s", what, x->title,
				       (unsigned long long)pos_bytes, strerror(error));
}

/* Begins the next leaf in a free place; a leaf without changes is done at once. */
static void leaf_begin(struct create *x, struct open_leaf *open)
{
	uint32_t number = x->next_leaf++;
	const struct chunk_id *before = x->base ? record_leaf_id(x->base, number) : NULL;
	int error = source_look(&x->source, number, &open->masks);
	if (error) {
		create_fail(x, "learn about changes in", number * LEAF_BYTES, error);
		return;
	}
	masks_widen(x, number, &open->masks);
	if (masks_are_empty(open->masks.changed)) {
		if (before)
			create_done_add(x, number, before);
		return;
	}
	open->leaf = before ? repository_leaf(&x->repository, &x->here, before, &error) : leaf_create();
	if (!open->leaf) {
		x->status = repository_refuse(&x->repository, "read the map of the backup before", error);
		return;
	}
	open->number = number;
	open->next_piece = open->owed = 0;
	open->n_before = leaf_n_data(open->leaf);
}

static void leaf_finish(struct create *x, struct open_leaf *open)
{
	size_t n_bytes = 0;
	uint32_t n_data = leaf_n_data(open->leaf);
	uint8_t *plain = leaf_encode(open->leaf, &n_bytes);
	struct chunk_id id = vault_name(&x->repository.vault, KIND_LEAF, plain, n_bytes);
	x->data_blocks += n_data;
	x->data_blocks -= open->n_before;
	if (n_data > 0) {
		store_put_plain(&x->store, x->here.packer, KIND_LEAF, &id, plain, n_bytes);
		create_done_add(x, open->number, &id);
	}
	free(plain);
	leaf_destroy(open->leaf);
	open->leaf = NULL;
}

static void leaves_run(struct create *x)
{
	for (unsigned i = 0; i < LEAVES_OPEN; i++) {
		struct open_leaf *open = &x->leaves[i];
		if (open->leaf && open->owed == 0 && open->next_piece == LEAF_PIECES && x->status == DONE &&
		    store_has_room(&x->store))
			leaf_finish(x, open);
	}
}

/* ---- one piece ---- */

/* Takes the next piece of an open leaf that must be read; holes are set in passing. */
static bool piece_take(struct open_leaf *open, struct slot *slot)
{
	while (open->leaf && open->next_piece < LEAF_PIECES) {
		uint32_t piece = open->next_piece++;
		uint32_t changed = open->masks.changed[piece], read = changed & open->masks.data[piece];
		for (uint32_t block = 0; block < PIECE_BLOCKS; block++) {
			if (changed >> block & 1)
				leaf_set_hole(open->leaf, piece * PIECE_BLOCKS + block);
		}
		if (read == 0)
			continue;
		slot->leaf = open;
		slot->piece = piece;
		slot->mask = read;
		open->owed++;
		return true;
	}
	return false;
}

/* Finds the slot a piece; FLOW_WAIT: there is none, or not now. */
static enum flow slot_plan(struct create *x, struct slot *slot)
{
	while (x->status == DONE && rate_wait_ms(&x->rate, now_ms()) == 0) {
		struct open_leaf *unused = NULL;
		for (unsigned i = 0; i < LEAVES_OPEN; i++) {
			if (piece_take(&x->leaves[i], slot))
				return FLOW_NEXT;
			if (!x->leaves[i].leaf)
				unused = &x->leaves[i];
		}
		if (!unused || x->next_leaf == x->n_leaves)
			break;
		leaf_begin(x, unused);
	}
	return FLOW_WAIT;
}

static uint64_t piece_bytes(const struct slot *slot)
{
	return slot->leaf->number * LEAF_BYTES + (uint64_t)slot->piece * PIECE_BYTES;
}

/* One request for each run of its blocks; the last block of a volume may be a part of one. */
static void slot_read(struct create *x, struct slot *slot)
{
	uint64_t size_bytes = x->transfer.volume.size_bytes;
	slot->n_runs = 0;
	for (uint32_t block = 0, end; block < PIECE_BLOCKS; block = end) {
		end = block + 1;
		if (!(slot->mask >> block & 1))
			continue;
		while (end < PIECE_BLOCKS && slot->mask >> end & 1)
			end++;
		uint64_t pos_bytes = piece_bytes(slot) + (uint64_t)block * BLOCK_BYTES;
		size_t len_bytes = (size_t)(end - block) * BLOCK_BYTES;
		quarry_assert(pos_bytes < size_bytes && slot->n_runs < RUNS_MAX);
		if (len_bytes > size_bytes - pos_bytes) {
			len_bytes = (size_t)(size_bytes - pos_bytes);
			memset(slot->data + (size_t)(end - 1) * BLOCK_BYTES, 0, BLOCK_BYTES);
		}
		x->read_bytes += len_bytes;
		rate_count(&x->rate, len_bytes, now_ms());
		endpoint_read(&x->transfer.volume, &slot->reads[slot->n_runs++],
			      slot->data + (size_t)block * BLOCK_BYTES, len_bytes, pos_bytes);
	}
}

static bool slot_is_read(const struct slot *slot)
{
	for (uint32_t i = 0; i < slot->n_runs; i++) {
		if (!slot->reads[i].is_done)
			return false;
	}
	return true;
}

static bool block_is_zero(const uint8_t *block)
{
	return block[0] == 0 && memcmp(block, block + 1, BLOCK_BYTES - 1) == 0;
}

/* Runs in a worker. */
static void slot_encode(struct job *job, struct worker *w)
{
	struct slot *slot = (struct slot *)job;
	const struct vault *vault = &slot->create->repository.vault;
	struct index_place place;
	size_t n_bytes = 0;
	slot->nonzero = 0;
	slot->sealed_bytes = 0;
	for (uint32_t block = 0; block < PIECE_BLOCKS; block++) {
		const uint8_t *data = slot->data + (size_t)block * BLOCK_BYTES;
		if (!(slot->mask >> block & 1) || block_is_zero(data))
			continue;
		memcpy(slot->packed + n_bytes, data, BLOCK_BYTES);
		n_bytes += BLOCK_BYTES;
		slot->nonzero |= 1u << block;
	}
	if (n_bytes == 0)
		return;
	slot->id = vault_name(vault, KIND_DATA, slot->packed, n_bytes);
	if (!index_find(slot->create->repository.index, &slot->id, &place))
		slot->sealed_bytes =
		    chunk_encode(w->packer, vault, KIND_DATA, &slot->id, slot->packed, n_bytes, slot->sealed);
}

static enum slot_stage slot_after_read(struct create *x, struct slot *slot)
{
	for (uint32_t i = 0; i < slot->n_runs; i++) {
		if (slot->reads[i].error)
			create_fail(x, "read", piece_bytes(slot), slot->reads[i].error);
	}
	if (x->status != DONE) {
		slot->leaf->owed--;
		return SLOT_FREE;
	}
	slot->job.work = slot_encode;
	slot->is_encoded = false;
	workers_submit(x->workers, &slot->job);
	return SLOT_ENCODE;
}

static void slot_put(struct create *x, struct slot *slot)
{
	if (slot->sealed_bytes > 0)
		store_put(&x->store, &slot->id, slot->sealed, slot->sealed_bytes);
	if (slot->nonzero) {
		uint32_t chunk = leaf_add(slot->leaf->leaf, &slot->id), at = 0;
		for (uint32_t block = 0; block < PIECE_BLOCKS; block++) {
			if (slot->nonzero >> block & 1)
				leaf_set(slot->leaf->leaf, slot->piece * PIECE_BLOCKS + block, chunk, at++);
		}
	}
	slot->leaf->owed--;
}

/* Every transition of a slot. */
static void slot_run(struct create *x, struct slot *slot)
{
	for (;;) {
		switch (slot->stage) {
		case SLOT_FREE:
			if (slot_plan(x, slot) == FLOW_WAIT)
				return;
			slot_read(x, slot);
			slot->stage = SLOT_READ;
			break;
		case SLOT_READ:
			if (!slot_is_read(slot))
				return;
			slot->stage = slot_after_read(x, slot);
			break;
		case SLOT_ENCODE:
			if (!slot->is_encoded)
				return;
			slot->stage = SLOT_PUT;
			break;
		case SLOT_PUT:
			if (!store_has_room(&x->store))
				return;
			slot_put(x, slot);
			slot->stage = SLOT_FREE;
			break;
		}
	}
}

/* ---- the loop ---- */

static void create_show(struct create *x)
{
	char at[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES], read[SIZE_TEXT_BYTES], stored[SIZE_TEXT_BYTES];
	char speed[SIZE_TEXT_BYTES];
	uint64_t now = now_ms();
	if (now - x->shown_ms < PROGRESS_MS)
		return;
	x->shown_ms = now;
	size_to_text(x->next_leaf * LEAF_BYTES, at);
	size_to_text(x->transfer.volume.size_bytes, total);
	size_to_text(x->read_bytes, read);
	size_to_text(x->store.stored_bytes, stored);
	size_to_text(x->read_bytes * 1000 / (now - x->started_ms + 1), speed);
	progress_show("at %s of %s: %s read, %s stored, %s a second", at, total, read, stored, speed);
}

/* Runs everything as far as it goes; false: nothing is under way and nothing is left. */
static bool create_turn(struct create *x)
{
	bool is_busy = false;
	for (unsigned i = 0; i < N_SLOTS; i++) {
		slot_run(x, &x->slots[i]);
		is_busy |= x->slots[i].stage != SLOT_FREE;
	}
	leaves_run(x);
	if (x->store.error && x->status == DONE)
		x->status = repository_refuse(&x->repository, "write a pack", x->store.error);
	if (now_ms() - x->locked_ms > LOCK_CHECK_MS && x->status == DONE) {
		x->locked_ms = now_ms();
		x->status = lock_check(x->cli, &x->repository.lock, x->repository.path);
	}
	for (unsigned i = 0; i < LEAVES_OPEN; i++)
		is_busy |= x->leaves[i].leaf && x->status == DONE;
	create_show(x);
	return is_busy || (x->next_leaf < x->n_leaves && x->status == DONE);
}

static void jobs_take(struct create *x)
{
	for (struct job *job = workers_take(x->workers); job; job = workers_take(x->workers)) {
		if (!store_took(&x->store, job))
			((struct slot *)job)->is_encoded = true;
	}
}

/* Something may go on without an event: a leaf was finished and its place is free. */
static bool create_is_ready(const struct create *x)
{
	bool has_free_slot = false, has_work = false;
	for (unsigned i = 0; i < N_SLOTS; i++)
		has_free_slot |= x->slots[i].stage == SLOT_FREE;
	for (unsigned i = 0; i < LEAVES_OPEN; i++) {
		const struct open_leaf *open = &x->leaves[i];
		has_work |= open->leaf ? open->next_piece < LEAF_PIECES : x->next_leaf < x->n_leaves;
		has_work |= open->leaf && open->owed == 0 && store_has_room(&x->store);
	}
	return x->status == DONE && has_free_slot && has_work;
}

static void create_wait(struct create *x)
{
	struct signalfd_siginfo signal;
	struct pollfd waits[] = {endpoint_pollfd(&x->transfer.volume),
				 {.fd = workers_fd(x->workers), .events = POLLIN},
				 {.fd = x->status == DONE ? x->transfer.interrupt.fd : -1, .events = POLLIN}};
	uint64_t rate_ms = rate_wait_ms(&x->rate, now_ms());
	int timeout = !create_is_ready(x) ? -1 : rate_ms > 0 ? (int)(rate_ms < 1000 ? rate_ms : 1000) : 0;
	if (poll(waits, array_size(waits), timeout) < 0 && errno != EINTR)
		create_fail(x, "wait for", 0, errno);
	endpoint_polled(&x->transfer.volume, waits[0].revents);
	jobs_take(x);
	if (waits[2].revents && read(x->transfer.interrupt.fd, &signal, sizeof(signal)) == sizeof(signal))
		x->status =
		    cli_refuse(x->cli, "interrupted",
			       "interrupted; what was read so far is in the repository and is not stored again");
}

static void slots_begin(struct create *x)
{
	for (unsigned i = 0; i < N_SLOTS; i++) {
		x->slots[i].create = x;
		x->slots[i].data = malloc(PIECE_BYTES);
		x->slots[i].packed = malloc(PIECE_BYTES);
		x->slots[i].sealed = malloc(chunk_room(PIECE_BYTES));
		if (!x->slots[i].data || !x->slots[i].packed || !x->slots[i].sealed)
			abort();
	}
}

static void slots_end(struct create *x)
{
	for (unsigned i = 0; i < N_SLOTS; i++) {
		free(x->slots[i].data);
		free(x->slots[i].packed);
		free(x->slots[i].sealed);
	}
	for (unsigned i = 0; i < LEAVES_OPEN; i++)
		leaf_destroy(x->leaves[i].leaf);
}

static void create_copy(struct create *x)
{
	x->n_leaves = (uint32_t)leaves_of(x->transfer.volume.size_bytes);
	x->started_ms = x->locked_ms = now_ms();
	source_begin(&x->source, &x->transfer.volume, x->base ? x->context : NULL);
	slots_begin(x);
	while (create_turn(x))
		create_wait(x);
	progress_end();
	int error = store_end(&x->store);
	if (error && x->status == DONE)
		x->status = repository_refuse(&x->repository, "write a pack", error);
	slots_end(x);
	source_end(&x->source);
}

/* ---- what is backed up, and since when ---- */

/* What tells this snapshot from an earlier one of the same name; to be freed. */
static char *snapshot_id_text(const json_t *facts)
{
	const json_t *id = json_object_get(facts, "id");
	if (json_is_integer(id))
		return text_format("%lld", (long long)json_integer_value(id));
	if (json_is_string(id))
		return text_format("%s", json_string_value(id));
	return text_format("%s %llu", text_at(facts, "created_at"), (unsigned long long)number_at(facts, "epoch"));
}

/* One that is being deleted is as good as gone. */
static bool snapshot_is(const json_t *facts, const char *name)
{
	return strcmp(text_at(facts, "name"), name) == 0 && strcmp(text_at(facts, "state"), "deleting") != 0;
}

static enum status snapshot_look(struct create *x)
{
	size_t i;
	json_t *facts;
	auto_free char *path = api_path("/v1/volumes/", x->volume, "");
	auto_free char *list = api_path("/v1/volumes/", x->volume, "/snapshots");
	json_decref(x->volume_facts);
	json_decref(x->snapshots);
	x->volume_facts = x->snapshots = NULL;
	x->snapshot_facts = NULL;
	enum status status = client_get(x->cli, path, &x->volume_facts);
	if (status == DONE)
		status = client_get(x->cli, list, &x->snapshots);
	if (status != DONE)
		return status;
	json_array_foreach(json_object_get(x->snapshots, "snapshots"), i, facts)
	{
		if (snapshot_is(facts, x->snapshot))
			x->snapshot_facts = facts;
	}
	if (x->snapshot_facts)
		return DONE;
	return cli_refuse(x->cli, "not-found", "there is no snapshot '%s'; see 'quarry snapshot list %s'", x->title,
			  x->volume);
}

static enum status snapshot_find(struct create *x)
{
	const char *at = strchr(x->title, '@');
	if (!at)
		return cli_misuse(x->cli, "'%s' names no snapshot; a backup is made of one: NAME@SNAP", x->title);
	x->volume = text_format("%.*s", (int)(at - x->title), x->title);
	x->snapshot = text_format("%s", at + 1);
	return snapshot_look(x);
}

/* Is the very snapshot that this backup was made of still there, under its name? */
static bool base_is_there(const struct create *x, const struct record *record)
{
	size_t i;
	json_t *facts;
	if (strcmp(record_text(record, RECORD_VOLUME_UUID), text_at(x->volume_facts, "uuid")) != 0)
		return false;
	json_array_foreach(json_object_get(x->snapshots, "snapshots"), i, facts)
	{
		auto_free char *id = snapshot_id_text(facts);
		if (snapshot_is(facts, record_text(record, RECORD_SNAPSHOT)) &&
		    strcmp(id, record_text(record, RECORD_SNAPSHOT_ID)) == 0)
			return true;
	}
	return false;
}

/* The newest backup of this volume whose snapshot is still there. */
static const struct record *base_find(const struct create *x)
{
	for (uint32_t n = x->repository.n_records; n > 0; n--) {
		const struct record *record = x->repository.records[n - 1];
		if (base_is_there(x, record))
			return record;
	}
	return NULL;
}

/* The connection was made by names, and holds what they stand for: is that what was looked up, long ago perhaps? A base
 * that was taken anew meanwhile would tell only what has changed since then. */
static enum status snapshot_confirm(struct create *x)
{
	auto_free char *uuid = text_format("%s", text_at(x->volume_facts, "uuid"));
	auto_free char *id = snapshot_id_text(x->snapshot_facts);
	enum status status = snapshot_look(x);
	if (status != DONE)
		return status;
	auto_free char *id_now = snapshot_id_text(x->snapshot_facts);
	if (strcmp(uuid, text_at(x->volume_facts, "uuid")) != 0 || strcmp(id, id_now) != 0)
		return cli_refuse(x->cli, "in-use", "'%s' is another snapshot now than a moment ago; try again",
				  x->title);
	if (x->base && !base_is_there(x, x->base))
		x->base = NULL;
	return DONE;
}

/* An incremental backup needs a server that tells what changed, and a base of which nothing is missing. */
static void base_check(struct create *x)
{
	uint64_t n_data = 0;
	if (!x->base)
		return;
	if (nbd_can_meta_context(x->transfer.volume.nbd, x->context) != 1 ||
	    survey_record(&x->repository, &x->here, x->base, &n_data) != SURVEY_WHOLE) {
		x->base = NULL;
		return;
	}
	x->data_blocks = n_data;
	x->same_bytes = record_number(x->base, RECORD_SIZE);
	if (x->same_bytes == x->transfer.volume.size_bytes)
		x->same_bytes = UINT64_MAX;
	else if (x->same_bytes > x->transfer.volume.size_bytes)
		x->same_bytes = x->transfer.volume.size_bytes;
}

/* A base that is longer has leaves that do not count any more. */
static void base_cut(struct create *x)
{
	for (uint32_t i = 0; x->base && i < x->base->n_leaves; i++) {
		int error = 0;
		if (x->base->leaves[i].number < leaves_of(x->transfer.volume.size_bytes))
			continue;
		struct leaf *leaf = repository_leaf(&x->repository, &x->here, &x->base->leaves[i].id, &error);
		x->data_blocks -= leaf ? leaf_n_data(leaf) : 0;
		leaf_destroy(leaf);
	}
}

/* ---- the record ---- */

static int done_compare(const void *a, const void *b)
{
	uint32_t x = ((const struct record_leaf *)a)->number, y = ((const struct record_leaf *)b)->number;
	return x < y ? -1 : x > y;
}

static struct record *record_make(struct create *x)
{
	char now[32];
	struct record *record = record_create();
	const struct repository *r = &x->repository;
	uint64_t last = r->n_records ? record_number(r->records[r->n_records - 1], RECORD_SEQUENCE) : 0;
	uint64_t sequence = last < SEQUENCE_MAX ? last + 1 : last; /* more could not be read again */
	auto_free char *id = snapshot_id_text(x->snapshot_facts);
	time_now_text(now);
	record->description =
	    json_pack("{sssssssssssssssIsIsIsIsI}", RECORD_VOLUME, x->volume, RECORD_VOLUME_UUID,
		      text_at(x->volume_facts, "uuid"), RECORD_SNAPSHOT, x->snapshot, RECORD_SNAPSHOT_ID, id,
		      "snapshot_created_at", text_at(x->snapshot_facts, "created_at"), RECORD_CREATED_AT, now, "base",
		      x->base ? record_text(x->base, RECORD_SNAPSHOT) : "", RECORD_SIZE,
		      (json_int_t)x->transfer.volume.size_bytes, RECORD_DATA,
		      (json_int_t)(x->data_blocks * BLOCK_BYTES), "read_bytes", (json_int_t)x->read_bytes,
		      "stored_bytes", (json_int_t)x->store.stored_bytes, RECORD_SEQUENCE, (json_int_t)sequence);
	if (!record->description)
		abort();
	record_file_name(&r->vault, x->title, record->name);
	if (x->n_done > 0)
		qsort(x->done, x->n_done, sizeof(*x->done), done_compare);
	for (uint32_t i = 0; i < x->n_done; i++)
		record_add_leaf(record, x->done[i].number, &x->done[i].id);
	return record;
}

static void create_print(struct create *x, const struct record *record)
{
	char data[SIZE_TEXT_BYTES], read[SIZE_TEXT_BYTES], stored[SIZE_TEXT_BYTES], elapsed[SIZE_TEXT_BYTES];
	uint64_t elapsed_ms = now_ms() - x->started_ms;
	json_auto_t *value = json_copy(record->description);
	json_object_set_new(value, "elapsed_ms", json_integer((json_int_t)elapsed_ms));
	if (cli_print_json(x->cli, value))
		return;
	size_to_text(x->data_blocks * BLOCK_BYTES, data);
	size_to_text(x->read_bytes, read);
	size_to_text(x->store.stored_bytes, stored);
	duration_to_text(elapsed_ms / 1000, elapsed);
	printf("backed up '%s', %s of data: %s%s read, %s stored, in %s\n", x->title, data,
	       x->base ? "incremental, " : "", read, stored, elapsed);
}

/* There is a backup of that name. Of this very snapshot: whoever repeats the command has what was asked for. */
static enum status create_again(struct create *x, const struct record *record)
{
	if (!base_is_there(x, record))
		return cli_refuse(
		    x->cli, "exists",
		    "repository '%s' has a backup '%s' already, of another snapshot of that name; choose another name",
		    x->repository.path, x->title);
	x->is_there = true;
	repository_warn(&x->repository);
	json_auto_t *value = json_copy(record->description);
	json_object_set_new(value, "elapsed_ms", json_integer(0));
	json_object_set_new(value, "unchanged", json_true());
	if (!cli_print_json(x->cli, value))
		printf("backup '%s' is in '%s' already; nothing changed\n", x->title, x->repository.path);
	return DONE;
}

/* ---- the whole ---- */

static enum status create_open(struct create *x)
{
	enum status status = snapshot_find(x);
	if (status == DONE)
		status =
		    repository_open(x->cli, &x->repository, call_text(x->cli->call, "REPOSITORY"), REPOSITORY_CREATE);
	if (status != DONE)
		return status;
	const struct record *record = repository_find(&x->repository, x->title);
	if (record)
		return create_again(x, record);
	x->base = base_find(x);
	if (x->base)
		x->context = text_format(CONTEXT_PREFIX "%s", record_text(x->base, RECORD_SNAPSHOT));
	x->transfer.context = x->context;
	status = interrupt_begin(x->cli, &x->transfer.interrupt);
	if (status == DONE)
		status = transfer_connect(&x->transfer, attachment_over_nbd(x->snapshot_facts), true);
	return status == DONE ? snapshot_confirm(x) : status;
}

/* The daemon and its clients come first, if they run on this machine: naming and compressing takes all that is left. */
static void create_be_nice(void)
{
	if (getpriority(PRIO_PROCESS, 0) < NICE)
		(void)setpriority(PRIO_PROCESS, 0, NICE); /* lower is always allowed */
}

static enum status create_run(struct create *x)
{
	enum status status = create_open(x);
	if (x->is_there)
		return status;
	if (status == DONE && (x->transfer.volume.size_bytes == 0 || x->transfer.volume.size_bytes > VOLUME_BYTES_MAX ||
			       x->transfer.volume.size_bytes % 512 != 0))
		status = cli_refuse(x->cli, "invalid", "'%s' has %llu bytes; that cannot be backed up", x->title,
				    (unsigned long long)x->transfer.volume.size_bytes);
	if (status != DONE)
		return status;
	base_check(x);
	base_cut(x);
	create_be_nice(); /* and so are the workers */
	x->workers = workers_create();
	store_begin(&x->store, &x->repository, x->workers);
	create_copy(x);
	if (x->status != DONE)
		return x->status;
	struct record *record = record_make(x);
	status = repository_record(&x->repository, record);
	if (status == DONE) {
		repository_warn(&x->repository);
		create_print(x, record);
	}
	record_destroy(record);
	return status;
}

enum status backup_create(struct cli *c)
{
	uint64_t rate_bytes = call_number(c->call, "rate-limit");
	if (rate_bytes > 0 && rate_bytes < RATE_BYTES_MIN)
		return cli_misuse(c, "--rate-limit '%s' is %llu bytes a second; give at least 64K, as in 200M",
				  call_text(c->call, "rate-limit"), (unsigned long long)rate_bytes);
	struct create *x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->cli = c;
	x->title = call_text(c->call, "NAME@SNAP");
	x->rate.bytes_per_s = rate_bytes;
	transfer_begin(&x->transfer, c, x->title);
	worker_begin(&x->here);
	x->repository = (struct repository){.dir_fd = -1, .packs_fd = -1, .backups_fd = -1};
	enum status status = transfer_end(&x->transfer, create_run(x));
	workers_destroy(x->workers);
	worker_end(&x->here);
	store_free(&x->store);
	repository_close(&x->repository);
	json_decref(x->volume_facts);
	json_decref(x->snapshots);
	free(x->volume);
	free(x->snapshot);
	free(x->context);
	free(x->done);
	free(x);
	return status;
}
