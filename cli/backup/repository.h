/*
 * repository.h: an open repository: its keys, its backups, where its chunks are.
 */
#pragma once

#include "cli/backup/identity.h"
#include "cli/backup/index.h"
#include "cli/backup/leaf.h"
#include "cli/backup/lock.h"
#include "cli/backup/pack.h"
#include "cli/backup/record.h"
#include "cli/backup/workers.h"

struct repository_pack {
	char name[FILE_NAME_BYTES];
	uint64_t n_bytes;
	bool is_damaged; /* its table cannot be read */
};

/* A file that is not as it should be. */
struct problem {
	char *file, *text; /* file: its name as it may be shown, since anybody may have put it there */
	bool is_lost;      /* something that backups may need is gone; else a second copy still serves */
};

/* Owner: the command; the packs and the index may be read by its workers. */
struct repository {
	struct cli *cli;
	char *path;
	int dir_fd, packs_fd, backups_fd;
	struct vault vault;
	struct identity identity;
	struct lock lock;
	struct index *index;
	struct repository_pack *packs;
	uint32_t n_packs, packs_room;
	struct record **records; /* in the order of their sequence */
	uint32_t n_records;
	struct problem *problems;
	uint32_t n_problems;
	uint32_t n_unreadable; /* backups of which no copy can be read */
};

enum repository_use {
	REPOSITORY_READ,
	REPOSITORY_WRITE,  /* takes the lock */
	REPOSITORY_CREATE, /* and makes it, if there is none */
};

/* Opens and reads everything but chunks. The key file is that of --key-file. repository_close() in any case. */
must_check enum status repository_open(struct cli *c, struct repository *r, const char *path, enum repository_use use);
void repository_close(struct repository *r);
/* A reason that names the repository and fits to the errno. */
enum status repository_refuse(struct repository *r, const char *what, int error);
void repository_note(struct repository *r, bool is_lost, const char *folder, const char *name, const char *text);
/* Prints the problems as warnings. */
void repository_warn(const struct repository *r);

/* By "VOLUME@SNAPSHOT"; NULL: there is none. */
struct record *repository_find(const struct repository *r, const char *title);
/* Adds a written pack to the list; returns its number. */
uint32_t repository_add_pack(struct repository *r, const char *name, uint64_t n_bytes);

/* The table of a pack; 0 or -errno as pack_table_read(). To be freed. */
must_check int repository_table(const struct repository *r, uint32_t pack, struct pack_table *table);
/* After -ESTALE: readers take no lock, and prune may have put chunks into other packs since. Takes in the packs that are
 * new; false: there is none. No worker is at work meanwhile. */
bool repository_look_again(struct repository *r);
/* Removes what writers that were killed have left. */
must_check enum status repository_tidy(struct repository *r, uint64_t *n_removed);
/* Reads one chunk, from whichever pack has it whole. 0; -ENOENT: no pack has it; -ESTALE: its pack has gone since;
 * -EBADMSG: damaged; another -errno. Any thread, with a worker of its own.
 * *sealed_bytes, if wanted: how much there is in w->room, as it stands in the pack. */
must_check int repository_chunk(const struct repository *r, struct worker *w, enum kind kind, const struct chunk_id *id,
				void *out, size_t room_bytes, size_t *n_bytes, size_t *sealed_bytes);
/* Is a chunk, of data or a leaf, whole at this place? 0 or as above. `out` has LEAF_PLAIN_MAX bytes. */
must_check int repository_chunk_check(const struct repository *r, struct worker *w, const struct chunk_id *id,
				      const struct index_place *place, uint8_t *out);
/* The first place where it is. */
bool repository_find_whole(const struct repository *r, struct worker *w, const struct chunk_id *id, uint8_t *out,
			   struct index_place *place);
/* A new leaf from its chunk, or NULL with *error as above. */
struct leaf *repository_leaf(const struct repository *r, struct worker *w, const struct chunk_id *id, int *error);

/* Both copies of a backup's file; then the backup is there. */
must_check enum status repository_record(struct repository *r, const struct record *record);
/* Both are removed; the backup is gone for good with the return. */
must_check enum status repository_forget(struct repository *r, const char *name);
