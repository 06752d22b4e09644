/*
 * verify.c: `quarry backup verify`: reads every file of a repository and says which backups are hurt.
 *
 * 1. Each chunk of each pack is opened, unpacked and held against its name, by the workers, a pack each. What no pack
 *    has whole is marked in the index.
 * 2. Then each backup is walked over: what it needs must be there and not be marked.
 * 3. A prune may take packs away meanwhile. What it was that they had and backups lack is in no pack that was read, or in
 *    none at all: whoever wants to know asks again. It is not called damage.
 * 4. Nothing is changed. Sound means: every file is whole, and every backup can be restored.
 */
#include "cli/backup/files.h"
#include "cli/backup/survey.h"
#include "cli/call.h"
#include "cli/handlers.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

#include <errno.h>
#include <stdio.h>

#define PACKS_AHEAD 16u

struct verify_pack {
	struct job job;
	struct repository *repository;
	uint32_t pack;
	uint32_t n_bad; /* chunks */
	int error;      /* its table cannot be read any more */
	bool is_in_work;
};

struct verify {
	struct cli *cli;
	struct repository repository;
	struct workers *workers;
	struct worker here;
	struct verify_pack jobs[PACKS_AHEAD];
	uint64_t read_bytes, total_bytes;
	uint32_t n_hurt;
	bool is_pack_missing; /* what backups need is in none of the packs */
	json_t *backups;      /* what was found, for --json */
};

/* ---- packs ---- */

/* A worker's. */
static void pack_verify(struct job *job, struct worker *w)
{
	struct verify_pack *v = (struct verify_pack *)job;
	struct repository *r = v->repository;
	struct pack_table table;
	uint8_t *out = malloc(LEAF_PLAIN_MAX);
	v->error = out ? repository_table(r, v->pack, &table) : -ENOMEM;
	v->n_bad = 0;
	for (uint32_t i = 0; !v->error && i < table.n_entries; i++) {
		const struct pack_entry *entry = &table.entries[i];
		struct index_place place = {v->pack, entry->offset, entry->n_bytes};
		if (repository_chunk_check(r, w, &entry->id, &place, out) == 0)
			continue;
		v->n_bad++;
		if (!repository_find_whole(r, w, &entry->id, out, &place))
			index_mark(r->index, &entry->id, MARK_BAD);
	}
	if (!v->error)
		pack_table_free(&table);
	free(out);
}

static void pack_end(struct verify *x, struct verify_pack *v)
{
	const struct repository_pack *pack = &x->repository.packs[v->pack];
	char done[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES];
	auto_free char *text = text_format("is damaged: %u of its chunks", v->n_bad);
	v->is_in_work = false;
	x->read_bytes += pack->n_bytes;
	bool is_gone = file_is_gone(x->repository.packs_fd, pack->name);
	if (v->error && !is_gone)
		repository_note(&x->repository, true, "packs", pack->name, "has become unreadable");
	else if (v->n_bad && !is_gone)
		repository_note(&x->repository, true, "packs", pack->name, text);
	size_to_text(x->read_bytes, done);
	size_to_text(x->total_bytes, total);
	progress_show("%s of %s verified", done, total);
}

static struct verify_pack *pack_job_free(struct verify *x)
{
	for (unsigned i = 0; i < PACKS_AHEAD; i++) {
		if (!x->jobs[i].is_in_work)
			return &x->jobs[i];
	}
	return NULL;
}

static void packs_verify(struct verify *x)
{
	struct repository *r = &x->repository;
	uint32_t n_in_work = 0;
	for (uint32_t pack = 0; pack < r->n_packs; pack++)
		x->total_bytes += r->packs[pack].n_bytes;
	for (uint32_t pack = 0; pack < r->n_packs; pack++) {
		if (r->packs[pack].is_damaged)
			continue;
		struct verify_pack *v = pack_job_free(x);
		if (!v) {
			v = (struct verify_pack *)workers_wait(x->workers);
			pack_end(x, v);
			n_in_work--;
		}
		*v = (struct verify_pack){.job.work = pack_verify, .repository = r, .pack = pack, .is_in_work = true};
		workers_submit(x->workers, &v->job);
		n_in_work++;
	}
	for (; n_in_work > 0; n_in_work--)
		pack_end(x, (struct verify_pack *)workers_wait(x->workers));
	progress_end();
}

/* ---- backups ---- */

static void backups_verify(struct verify *x)
{
	for (uint32_t i = 0; i < x->repository.n_records; i++) {
		const struct record *record = x->repository.records[i];
		struct loss loss;
		survey_loss(&x->repository, &x->here, record, &loss);
		x->n_hurt += loss.lost.n > 0;
		x->is_pack_missing |= loss.n_missing > 0;
		json_array_append_new(x->backups,
				      json_pack("{sssssssIso}", "volume", record_text(record, RECORD_VOLUME),
						"snapshot", record_text(record, RECORD_SNAPSHOT), "state",
						loss.lost.n > 0 ? "hurt" : "whole", "lost_bytes",
						(json_int_t)loss.data_bytes, "lost", lost_json(&loss.lost)));
		lost_fini(&loss.lost);
	}
	for (uint32_t i = 0; i < x->repository.n_packs; i++) /* what is in none may be in one whose table is lost */
		x->is_pack_missing &= !x->repository.packs[i].is_damaged;
}

static void verify_print(const struct verify *x)
{
	static const char *const headers[] = {"BACKUP", "STATE", ">LOST"};
	const struct repository *r = &x->repository;
	for (uint32_t i = 0; i < r->n_problems; i++)
		printf("'%s' %s\n", r->problems[i].file, r->problems[i].text);
	auto_table struct table *table = table_create(headers, array_size(headers));
	for (uint32_t i = 0; i < r->n_records; i++) {
		const json_t *found = json_array_get(x->backups, i);
		auto_free char *title = record_title(r->records[i]);
		table_text(table, title);
		table_text(table, json_string_value(json_object_get(found, "state")));
		table_size(table, json_object_get(found, "lost_bytes"));
	}
	table_print(table, stdout);
	for (uint32_t i = 0; i < r->n_records; i++) {
		const json_t *found = json_array_get(x->backups, i), *lost = json_object_get(found, "lost");
		auto_free char *title = record_title(r->records[i]);
		uint64_t data_bytes = number_at(found, "lost_bytes"), n_bytes = 0;
		for (size_t k = 0; k < json_array_size(lost); k++)
			n_bytes += number_at(json_array_get(lost, k), "length_bytes");
		auto_free char *text = ranges_text(n_bytes, json_array_size(lost), lost);
		if (n_bytes > data_bytes) /* the map is lost, too */
			printf("backup '%s' has lost %llu bytes of data, somewhere in %s\n", title,
			       (unsigned long long)data_bytes, text);
		else if (n_bytes > 0)
			printf("backup '%s' has lost %s\n", title, text);
	}
	if (x->is_pack_missing)
		printf("a pack is missing, or several: what is lost is in none of those that are there\n");
}

static const char *verify_advice(const struct repository *r, uint32_t n_hurt, uint32_t n)
{
	bool is_lost = false;
	for (uint32_t i = 0; i < r->n_problems; i++)
		is_lost |= r->problems[i].is_lost;
	if (n_hurt == 0)
		return is_lost ? "no backup is hurt: 'backup prune --force' clears away what is damaged"
			       : "no backup is hurt: the next backup or prune mends a second copy";
	if (n_hurt < n)
		return "the others can be restored; 'backup prune --force' lets the next backup store again what is "
		       "damaged";
	return "'backup restore --lazy --wait --zero-damaged' saves what is left of one";
}

/* The files that are there and not as they should be, and those that are not there. */
static char *verify_files(const struct verify *x)
{
	uint32_t n = x->repository.n_problems;
	if (n == 0 && x->is_pack_missing)
		return text_format("a pack is missing");
	return text_format("%u file%s%s", n, n == 1 ? "" : "s", x->is_pack_missing ? " and a missing pack" : "");
}

static bool packs_are_gone(const struct repository *r)
{
	for (uint32_t i = 0; i < r->n_packs; i++) {
		if (file_is_gone(r->packs_fd, r->packs[i].name))
			return true;
	}
	return false;
}

static enum status verify_result(struct verify *x)
{
	struct repository *r = &x->repository;
	auto_free char *path = text_printable(r->path); /* JSON takes no path that is not UTF-8 */
	json_auto_t *files = json_array();
	for (uint32_t i = 0; i < r->n_problems; i++)
		json_array_append_new(files,
				      json_pack("{ssss}", "file", r->problems[i].file, "problem", r->problems[i].text));
	bool is_sound = r->n_problems == 0 && x->n_hurt == 0;
	if (!is_sound && packs_are_gone(r))
		return cli_refuse(
		    x->cli, "in-use",
		    "packs of repository '%s' were taken away while it was verified, as a prune does; verify it again",
		    r->path);
	json_auto_t *value = json_pack("{sssbsIsbsOsO}", "repository", path, "sound", is_sound, "verified_bytes",
				       (json_int_t)x->read_bytes, "pack_missing", x->is_pack_missing, "files", files,
				       "backups", x->backups);
	if (!cli_print_json(x->cli, value))
		verify_print(x);
	if (is_sound)
		return DONE;
	uint32_t n_hurt = x->n_hurt + r->n_unreadable, n = r->n_records + r->n_unreadable;
	auto_free char *wrong = verify_files(x);
	return cli_refuse(x->cli, "damaged", "repository '%s' is damaged: %s, %u of %u backups hurt; %s", r->path,
			  wrong, n_hurt, n, verify_advice(r, n_hurt, n));
}

enum status backup_verify(struct cli *c)
{
	struct verify *x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->cli = c;
	x->backups = json_array();
	worker_begin(&x->here);
	enum status status = repository_open(c, &x->repository, call_text(c->call, "REPOSITORY"), REPOSITORY_READ);
	if (status == DONE) {
		x->workers = workers_create();
		packs_verify(x);
		backups_verify(x);
		status = verify_result(x);
	}
	workers_destroy(x->workers);
	worker_end(&x->here);
	repository_close(&x->repository);
	json_decref(x->backups);
	free(x);
	return status;
}
