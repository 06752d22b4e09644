/*
 * prune.c: `quarry backup prune`: forgets backups that no rule keeps, and gives back the space that nothing needs.
 *
 *   DECIDE -> MARK -> FORGET -> REWRITE -> DELETE
 *
 * 1. What the kept backups need is marked before anything is changed. When that cannot be known, because a backup's file
 *    or a map is lost, nothing is changed, unless the user insists.
 * 2. A backup's file is removed, durably, before any chunk that only it needs.
 * 3. A pack of which less than half is needed is rewritten: its needed chunks are durable in another pack before it is
 *    removed.
 * 4. A pack's name says which chunks it has: one that was just written may have the name of an older one, which it has
 *    replaced. No name that was written is removed.
 * 5. So a crash at any point leaves every kept backup whole; what it leaves over, the next prune removes.
 * 6. Of a chunk that several packs have, after a prune that was killed, the one that can be read counts; where none can,
 *    all stay.
 * 7. With --force all packs are read, and what is damaged in them is left out of them: as long as its name is in a pack's
 *    table, no backup stores it again, and each that has these bytes is hurt, too.
 */
#include "cli/backup/files.h"
#include "cli/backup/policy.h"
#include "cli/backup/store.h"
#include "cli/backup/survey.h"
#include "cli/call.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/text.h"

#include <errno.h>
#include <stdio.h>

struct prune {
	struct cli *cli;
	struct repository repository;
	struct workers *workers;
	struct worker here;
	struct store store;
	bool *is_kept;     /* for each record */
	bool *is_unneeded; /* for each pack: to be removed */
	uint64_t n_forgotten, removed_bytes, n_removed, n_temporary, n_given_up;
	bool is_trial, is_forced;
};

/* ---- decide ---- */

/* The point in time that a backup is of: its snapshot's. */
static const char *record_time(const struct record *record)
{
	const char *text = record_text(record, "snapshot_created_at");
	return *text ? text : record_text(record, RECORD_CREATED_AT);
}

static bool is_same_volume(const struct record *a, const struct record *b)
{
	return strcmp(record_text(a, RECORD_VOLUME_UUID), record_text(b, RECORD_VOLUME_UUID)) == 0 &&
	       strcmp(record_text(a, RECORD_VOLUME), record_text(b, RECORD_VOLUME)) == 0;
}

/* The backups of the volume of the first one that was not yet decided on, oldest first. The one that was made last is kept
 * whatever its time: where a clock was set back it may count as the oldest, and nobody wants to lose what he has just made.
 */
static void volume_decide(struct prune *x, uint32_t first, const struct policy *policy, bool *is_decided)
{
	const struct repository *r = &x->repository;
	uint32_t *order = calloc(r->n_records, sizeof(*order)), n = 0, made_last = first;
	struct policy_item *items = calloc(r->n_records, sizeof(*items));
	if (!order || !items)
		abort();
	for (uint32_t i = first; i < r->n_records; i++) {
		if (!is_same_volume(r->records[first], r->records[i]))
			continue;
		uint32_t at = n++;
		for (; at > 0 && strcmp(record_time(r->records[order[at - 1]]), record_time(r->records[i])) > 0; at--)
			order[at] = order[at - 1];
		order[at] = i;
		is_decided[i] = true;
		made_last = i;
	}
	for (uint32_t i = 0; i < n; i++) {
		if (!day_parse(record_time(r->records[order[i]]), &items[i].day))
			items[i].day = 0;
	}
	policy_apply(policy, items, n);
	for (uint32_t i = 0; i < n; i++)
		x->is_kept[order[i]] = items[i].is_kept || order[i] == made_last;
	free(order);
	free(items);
}

static void prune_decide(struct prune *x)
{
	const struct call *call = x->cli->call;
	struct policy policy = {(uint32_t)call_number(call, "keep-last"), (uint32_t)call_number(call, "keep-daily"),
				(uint32_t)call_number(call, "keep-weekly")};
	bool *is_decided = calloc(x->repository.n_records + 1, sizeof(*is_decided));
	x->is_kept = calloc(x->repository.n_records + 1, sizeof(*x->is_kept));
	if (!is_decided || !x->is_kept)
		abort();
	for (uint32_t i = 0; i < x->repository.n_records; i++) {
		if (!is_decided[i])
			volume_decide(x, i, &policy, is_decided);
	}
	free(is_decided);
}

/* ---- mark ---- */

static enum status prune_mark(struct prune *x)
{
	const struct repository *r = &x->repository;
	if (r->n_unreadable && !x->is_forced)
		return cli_refuse(
		    x->cli, "damaged",
		    "%u backups in '%s' cannot be read, so what they need is not known; see 'quarry backup "
		    "verify'; with --force they are given up",
		    r->n_unreadable, r->path);
	for (uint32_t i = 0; i < r->n_records; i++) {
		auto_free char *title = record_title(r->records[i]);
		if (x->is_kept[i] && survey_use(r, &x->here, r->records[i]) != SURVEY_WHOLE && !x->is_forced)
			return cli_refuse(
			    x->cli, "damaged",
			    "backup '%s' in '%s' is hurt, so what it needs is not known; see 'quarry backup "
			    "verify'; with --force only what is known is kept of it",
			    title, r->path);
	}
	return DONE;
}

/* ---- forget ---- */

static enum status prune_forget(struct prune *x)
{
	enum status status = DONE;
	for (uint32_t i = 0; status == DONE && i < x->repository.n_records; i++) {
		if (x->is_kept[i])
			continue;
		if (!x->is_trial)
			status = repository_forget(&x->repository, x->repository.records[i]->name);
		x->n_forgotten += status == DONE;
	}
	return status;
}

/* "backups/NAME" or "backups/NAME.copy" and nothing else: what somebody laid beside them ("NAME.old") may begin like a
 * backup that is whole. */
static bool unreadable_name(const char *file, char name[static FILE_NAME_BYTES])
{
	static const char folder[] = "backups/";
	uint8_t bytes[(FILE_NAME_BYTES - 1) / 2];
	if (strncmp(file, folder, strlen(folder)) != 0)
		return false;
	file += strlen(folder);
	size_t n = strcspn(file, ".");
	if (n >= FILE_NAME_BYTES || (file[n] && strcmp(file + n, ".copy") != 0))
		return false;
	snprintf(name, FILE_NAME_BYTES, "%.*s", (int)n, file);
	return hex_read(bytes, sizeof(bytes), name);
}

/* With --force: the files of backups that cannot be read. */
static enum status unreadable_forget(struct prune *x)
{
	struct repository *r = &x->repository;
	enum status status = DONE;
	for (uint32_t i = 0; status == DONE && i < r->n_problems && x->is_forced && !x->is_trial; i++) {
		char name[FILE_NAME_BYTES];
		if (r->problems[i].is_lost && unreadable_name(r->problems[i].file, name))
			status = repository_forget(r, name);
	}
	return status;
}

/* ---- packs ---- */

/* Of a chunk that is needed and lies in several packs, the one that is whole is to stay. */
static void shared_choose(struct prune *x, uint8_t *out)
{
	struct index *index = x->repository.index;
	struct index_place place;
	struct chunk_id id;
	for (uint64_t at = 0; index_next_shared(index, &at, &id);) {
		if (index_marked(index, &id) != MARK_USED)
			continue;
		if (repository_find_whole(&x->repository, &x->here, &id, out, &place))
			index_move(index, &id, place);
		else
			index_mark(index, &id, MARK_BAD);
	}
}

/* What is in no pack as it should be is kept wherever it is. */
static bool is_needed_here(const struct prune *x, uint32_t pack, const struct chunk_id *id)
{
	struct index_place place;
	uint8_t mark = index_marked(x->repository.index, id);
	return mark == MARK_BAD ||
	       (mark == MARK_USED && index_find(x->repository.index, id, &place) && place.pack == pack);
}

/* Bytes of a pack's chunks that are needed from here, and of all. */
static uint64_t pack_needed(const struct prune *x, uint32_t pack, const struct pack_table *table, uint64_t *all_bytes)
{
	uint64_t n_bytes = 0;
	*all_bytes = 0;
	for (uint32_t i = 0; i < table->n_entries; i++) {
		*all_bytes += table->entries[i].n_bytes;
		if (is_needed_here(x, pack, &table->entries[i].id))
			n_bytes += table->entries[i].n_bytes;
	}
	return n_bytes;
}

static void wait_for_room(struct prune *x)
{
	while (!store_has_room(&x->store)) {
		bool was_ours = store_took(&x->store, workers_wait(x->workers));
		quarry_assert(was_ours);
	}
}

/* Whichever it is, data or a leaf. */
static int chunk_read(struct prune *x, const struct chunk_id *id, uint8_t *out, size_t *n_sealed)
{
	const struct repository *r = &x->repository;
	size_t n_bytes = 0;
	if (repository_chunk(r, &x->here, KIND_DATA, id, out, LEAF_PLAIN_MAX, &n_bytes, n_sealed) == 0)
		return 0;
	return repository_chunk(r, &x->here, KIND_LEAF, id, out, LEAF_PLAIN_MAX, &n_bytes, n_sealed);
}

/* Also where another pack has it whole. */
static bool pack_is_hurt(struct prune *x, uint32_t pack, const struct pack_table *table, uint8_t *out)
{
	bool is_hurt = false;
	for (uint32_t i = 0; i < table->n_entries && !is_hurt; i++) {
		const struct pack_entry *entry = &table->entries[i];
		struct index_place place = {pack, entry->offset, entry->n_bytes};
		is_hurt = repository_chunk_check(&x->repository, &x->here, &entry->id, &place, out) == -EBADMSG;
	}
	return is_hurt;
}

/* Puts what is needed of a pack into another; a chunk that cannot be read keeps the pack as it is, unless it is to be
 * given up. */
static bool pack_rewrite(struct prune *x, uint32_t pack, const struct pack_table *table, uint8_t *out)
{
	size_t n_sealed = 0;
	for (uint32_t i = 0; i < table->n_entries; i++) {
		const struct chunk_id *id = &table->entries[i].id;
		if (!is_needed_here(x, pack, id))
			continue;
		int error = chunk_read(x, id, out, &n_sealed);
		x->n_given_up += error == -EBADMSG && x->is_forced;
		if (error == -EBADMSG && x->is_forced)
			continue;
		if (error)
			return false;
		wait_for_room(x);
		store_move(&x->store, id, x->here.room, n_sealed);
	}
	return true;
}

static enum status pack_look_at(struct prune *x, uint32_t pack, uint8_t *out)
{
	struct repository *r = &x->repository;
	struct pack_table table = {0};
	if (r->packs[pack].is_damaged) {
		/* not one that is just out of reach */
		x->is_unneeded[pack] = x->is_forced && repository_table(r, pack, &table) == -EBADMSG;
		pack_table_free(&table);
		return DONE;
	}
	int error = repository_table(r, pack, &table);
	if (error)
		return repository_refuse(r, "read a pack", error);
	uint64_t all_bytes = 0, needed_bytes = pack_needed(x, pack, &table, &all_bytes);
	if (needed_bytes == 0)
		x->is_unneeded[pack] = true;
	else if (!x->is_trial && (needed_bytes < all_bytes / 2 || (x->is_forced && pack_is_hurt(x, pack, &table, out))))
		x->is_unneeded[pack] = pack_rewrite(x, pack, &table, out);
	pack_table_free(&table);
	return DONE;
}

static enum status prune_rewrite(struct prune *x)
{
	struct repository *r = &x->repository;
	enum status status = DONE;
	uint8_t *out = malloc(LEAF_PLAIN_MAX);
	x->is_unneeded = calloc(r->n_packs + 1, sizeof(*x->is_unneeded));
	if (!out || !x->is_unneeded)
		abort();
	shared_choose(x, out);
	for (uint32_t pack = 0; status == DONE && pack < r->n_packs; pack++) {
		status = x->is_trial ? DONE : lock_check(x->cli, &r->lock, r->path);
		if (status == DONE)
			status = pack_look_at(x, pack, out);
	}
	int error = store_end(&x->store);
	free(out);
	return status == DONE && error ? repository_refuse(r, "write a pack", error) : status;
}

static enum status prune_delete(struct prune *x)
{
	struct repository *r = &x->repository;
	enum status status = x->is_trial ? DONE : lock_check(x->cli, &r->lock, r->path);
	int error = 0;
	for (uint32_t pack = 0; status == DONE && !error && pack < r->n_packs; pack++) {
		if (!x->is_unneeded[pack] || store_has_written(&x->store, r->packs[pack].name))
			continue;
		error = x->is_trial ? 0 : file_remove(r->packs_fd, r->packs[pack].name);
		x->removed_bytes += r->packs[pack].n_bytes;
		x->n_removed++;
	}
	if (!error && status == DONE && !x->is_trial)
		error = dir_sync(r->packs_fd);
	if (error)
		return repository_refuse(r, "remove a pack", error);
	return status == DONE && !x->is_trial ? repository_tidy(r, &x->n_temporary) : status;
}

/* ---- the whole ---- */

static void prune_print(struct prune *x)
{
	char freed[SIZE_TEXT_BYTES];
	const struct repository *r = &x->repository;
	uint64_t freed_bytes = x->removed_bytes > x->store.stored_bytes ? x->removed_bytes - x->store.stored_bytes : 0;
	auto_free char *path = text_printable(r->path); /* JSON takes no path that is not UTF-8 */
	json_auto_t *kept = json_array(), *forgotten = json_array();
	for (uint32_t i = 0; i < r->n_records; i++) {
		auto_free char *title = record_title(r->records[i]);
		json_array_append_new(x->is_kept[i] ? kept : forgotten, json_string(title));
	}
	json_auto_t *value = json_pack("{sssbsOsOsIsIsI}", "repository", path, "dry_run", x->is_trial, "kept", kept,
				       "forgotten", forgotten, "removed_packs", (json_int_t)x->n_removed, "freed_bytes",
				       (json_int_t)freed_bytes, "given_up_chunks", (json_int_t)x->n_given_up);
	if (cli_print_json(x->cli, value))
		return;
	size_to_text(freed_bytes, freed);
	for (uint32_t i = 0; i < r->n_records; i++) {
		auto_free char *title = record_title(r->records[i]);
		printf("%s '%s'\n", x->is_kept[i] ? "kept" : x->is_trial ? "would forget" : "forgot", title);
	}
	printf("%s %s\n", x->is_trial ? "would free at least" : "freed", freed);
	if (x->n_given_up > 0)
		printf("gave up %llu damaged pieces: the next backup reads all, and stores those again that its volume "
		       "has\n",
		       (unsigned long long)x->n_given_up);
}

static enum status prune_run(struct prune *x)
{
	struct repository *r = &x->repository;
	enum status status = repository_open(x->cli, r, call_text(x->cli->call, "REPOSITORY"),
					     x->is_trial ? REPOSITORY_READ : REPOSITORY_WRITE);
	if (status != DONE)
		return status;
	x->workers = workers_create();
	store_begin(&x->store, r, x->workers);
	prune_decide(x);
	status = prune_mark(x);
	if (status == DONE)
		status = prune_forget(x);
	if (status == DONE)
		status = unreadable_forget(x);
	if (status == DONE)
		status = prune_rewrite(x);
	if (status == DONE)
		status = prune_delete(x);
	if (status == DONE)
		prune_print(x);
	return status;
}

enum status backup_prune(struct cli *c)
{
	if (!call_has(c->call, "keep-last") && !call_has(c->call, "keep-daily") && !call_has(c->call, "keep-weekly"))
		return cli_misuse(c, "say what to keep: --keep-last, --keep-daily, --keep-weekly");
	struct prune *x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->cli = c;
	x->is_trial = call_has(c->call, "dry-run");
	x->is_forced = call_has(c->call, "force");
	worker_begin(&x->here);
	enum status status = prune_run(x);
	workers_destroy(x->workers);
	worker_end(&x->here);
	store_free(&x->store);
	repository_close(&x->repository);
	free(x->is_kept);
	free(x->is_unneeded);
	free(x);
	return status;
}
