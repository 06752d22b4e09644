/*
 * repository.c: opens a repository, reads it, and keeps its two-fold files.
 *
 * 1. The file `repository` and each backup's file are kept twice; either serves when the other is damaged or gone. A
 *    writer makes the missing one again.
 * 2. A backup's file is written after all packs that it needs are durable, and removed before any of them is.
 * 3. A pack whose table cannot be read is as good as not there: what needs it is found by what it lacks.
 * 4. A chunk that several packs have is read from the first of them that has it whole.
 * 5. A directory with anything in it but a repository is never made one.
 * 6. Who only reads takes no lock, and may read beside a writer: what comes or goes under its eyes is not damage.
 * 7. The folders that a backup's files are in are as durable as these, before any of them is written.
 */
#include "cli/backup/repository.h"

#include "cli/backup/files.h"
#include "cli/call.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY               ".copy"
#define FOLDER_PACKS       "packs"
#define FOLDER_BACKUPS     "backups"
#define LOOKS_MAX          8u
#define KEY_FILE_BYTES_MIN 32u
#define KEY_FILE_BYTES_MAX (64u << 10)

/* ---- what is wrong ---- */

enum status repository_refuse(struct repository *r, const char *what, int error)
{
	if (error == -ENOSPC || error == -EDQUOT)
		return cli_refuse(
		    r->cli, "no-space",
		    "repository '%s' is full (%s); free space there or 'quarry backup prune' it, then try again",
		    r->path, what);
	if (error == -EROFS || error == -EACCES || error == -EPERM)
		return cli_refuse(r->cli, "local", "no permission to %s in repository '%s': %s", what, r->path,
				  strerror(-error));
	if (error == -EBADMSG)
		return cli_refuse(r->cli, "damaged",
				  "repository '%s' is damaged (%s); 'quarry backup verify' tells what can be restored",
				  r->path, what);
	return cli_refuse(r->cli, "local", "cannot %s in repository '%s': %s", what, r->path, strerror(-error));
}

void repository_note(struct repository *r, bool is_lost, const char *folder, const char *name, const char *text)
{
	auto_free char *printable = text_printable(name);
	r->problems = reallocarray(r->problems, r->n_problems + 1, sizeof(*r->problems));
	if (!r->problems)
		abort();
	r->problems[r->n_problems++] =
	    (struct problem){.file = text_format("%s%s%s", folder, *folder ? "/" : "", printable),
			     .text = text_format("%s", text),
			     .is_lost = is_lost};
}

void repository_warn(const struct repository *r)
{
	for (uint32_t i = 0; i < r->n_problems; i++)
		fprintf(stderr, "quarry: warning: repository '%s': '%s' %s\n", r->path, r->problems[i].file,
			r->problems[i].text);
}

/* What to say about a file that could not be read. */
static const char *reading_text(int error)
{
	if (error == -ENOENT)
		return "is missing";
	if (error == -EBADMSG || error == -EFBIG || error == -EISDIR)
		return "is damaged";
	return strerror(-error);
}

/* ---- the key file ---- */

/* Who can read the key file can read the backups, wherever they are. */
static void key_file_warn(const char *path)
{
	struct stat stat;
	if (path && fstatat(AT_FDCWD, path, &stat, 0) == 0 && stat.st_mode & (S_IRWXG | S_IRWXO))
		fprintf(
		    stderr,
		    "quarry: note: others than its owner may use the key file '%s' (its mode is %04o): chmod 600 it\n",
		    path, stat.st_mode & 07777u);
}

static enum status key_file_read(struct cli *c, const char *path, uint8_t **data, size_t *n_bytes)
{
	int error = file_read(AT_FDCWD, path, KEY_FILE_BYTES_MAX, data, n_bytes);
	if (error == -EFBIG)
		return cli_refuse(c, "local", "the key file '%s' is larger than %u bytes", path, KEY_FILE_BYTES_MAX);
	if (error == -EISDIR)
		return cli_refuse(c, "local", "the key file '%s' is not a regular file", path);
	if (error)
		return cli_refuse(c, "local", "cannot read the key file '%s': %s", path, strerror(-error));
	if (*n_bytes >= KEY_FILE_BYTES_MIN)
		return DONE;
	free(*data);
	*data = NULL;
	return cli_refuse(c, "local",
			  "the key file '%s' has fewer than %u bytes; make one with 'head -c 32 /dev/urandom > FILE'",
			  path, KEY_FILE_BYTES_MIN);
}

/* That of a repository that is to be made: nothing of it is made for a key that cannot be had. */
static enum status key_file_check(struct cli *c)
{
	const char *path = call_text(c->call, "key-file");
	uint8_t *key = NULL;
	size_t n_key = 0;
	enum status status = path ? key_file_read(c, path, &key, &n_key) : DONE;
	free(key);
	return status;
}

static enum status repository_unlock(struct repository *r)
{
	const char *path = call_text(r->cli->call, "key-file");
	uint8_t *key = NULL;
	size_t n_key = 0;
	if (r->identity.is_encrypted && !path)
		return cli_refuse(r->cli, "key", "repository '%s' is encrypted; give its key with --key-file", r->path);
	if (!r->identity.is_encrypted && path)
		return cli_refuse(
		    r->cli, "key",
		    "repository '%s' is not encrypted; leave --key-file away, or choose another directory", r->path);
	enum status status = path ? key_file_read(r->cli, path, &key, &n_key) : DONE;
	if (status == DONE && identity_unlock(&r->identity, &r->vault, key, n_key) < 0)
		status = cli_refuse(r->cli, "key", "'%s' is not the key file of repository '%s'", path, r->path);
	free(key);
	return status;
}

/* ---- the file `repository` ---- */

/* One of the two copies: 0 or why not. */
static int identity_read(struct repository *r, const char *name, struct identity *identity,
			 char why[static IDENTITY_WHY_BYTES])
{
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	int error = file_read(r->dir_fd, name, IDENTITY_BYTES_MAX, &data, &n_bytes);
	if (!error)
		error = identity_parse(identity, data, n_bytes, why);
	free(data);
	return error;
}

static enum status identity_write(struct repository *r)
{
	auto_free char *text = identity_encode(&r->identity);
	int error = file_write(r->dir_fd, IDENTITY_FILE COPY, text, strlen(text));
	if (!error)
		error = file_write(r->dir_fd, IDENTITY_FILE, text, strlen(text));
	return error ? repository_refuse(r, "write '" IDENTITY_FILE "'", error) : DONE;
}

/* Does the directory hold nothing but what the making of a repository, ended by a crash, leaves? */
static bool dir_is_blank(int dir_fd)
{
	struct names names;
	bool is_blank = names_read(dir_fd, &names) == 0;
	for (size_t i = 0; i < names.n; i++) {
		const char *name = names.list[i];
		struct names inner = {0};
		if (strcmp(name, FOLDER_PACKS) == 0 || strcmp(name, FOLDER_BACKUPS) == 0) {
			int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			is_blank &= fd >= 0 && names_read(fd, &inner) == 0 && inner.n == 0;
			names_free(&inner);
			if (fd >= 0)
				close(fd);
		} else {
			is_blank &= strcmp(name, "lock") == 0 || strcmp(name, "lost+found") == 0 ||
				    strncmp(name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) == 0;
		}
	}
	names_free(&names);
	return is_blank;
}

static enum status identity_create(struct repository *r)
{
	const char *path = call_text(r->cli->call, "key-file");
	uint8_t *key = NULL;
	size_t n_key = 0;
	enum status status = path ? key_file_read(r->cli, path, &key, &n_key) : DONE;
	if (status != DONE)
		return status;
	identity_make(&r->identity, &r->vault, key, n_key);
	free(key);
	return identity_write(r);
}

/* Neither copy says what the directory is. */
static enum status identity_missing(struct repository *r, enum repository_use use, int error, int copy_error,
				    const char *why)
{
	if (error == -ENOTSUP || copy_error == -ENOTSUP)
		return cli_refuse(r->cli, "not-supported", "repository '%s' %s; use the release that made it", r->path,
				  why);
	if (error != -ENOENT || copy_error != -ENOENT)
		return cli_refuse(r->cli, "damaged",
				  "'%s/" IDENTITY_FILE "' %s and '" IDENTITY_FILE COPY
				  "' %s; without either, nothing in it can be read: take one from a copy of the "
				  "repository, if there is one",
				  r->path, reading_text(error), reading_text(copy_error));
	if (!dir_is_blank(r->dir_fd))
		return cli_refuse(r->cli, "not-a-repository",
				  "'%s' is not a backup repository: it has no file '" IDENTITY_FILE "'%s", r->path,
				  use == REPOSITORY_CREATE ? "; name a new or an empty directory" : "");
	if (r->lock.is_held && use == REPOSITORY_CREATE)
		return identity_create(r);
	return cli_refuse(r->cli, "not-a-repository", "'%s' is empty; 'quarry backup create' makes a repository of it",
			  r->path);
}

/* Both copies can be read: they say the same, or one of them is another repository's, and nothing here tells which. */
static enum status identity_compare(struct repository *r, const struct identity *copy)
{
	auto_free char *text = identity_encode(&r->identity), *copy_text = identity_encode(copy);
	if (strcmp(text, copy_text) == 0)
		return DONE;
	return cli_refuse(r->cli, "damaged",
			  "'%s/" IDENTITY_FILE "' and '" IDENTITY_FILE COPY
			  "' are of two repositories; take away the one that was put there by mistake",
			  r->path);
}

static enum status identity_find(struct repository *r, enum repository_use use)
{
	struct identity copy;
	char why[IDENTITY_WHY_BYTES] = "", copy_why[IDENTITY_WHY_BYTES] = "";
	int error = identity_read(r, IDENTITY_FILE, &r->identity, why);
	int copy_error = identity_read(r, IDENTITY_FILE COPY, &copy, copy_why);
	if (error && copy_error)
		return identity_missing(r, use, error, copy_error, error == -ENOTSUP ? why : copy_why);
	if (!error && !copy_error && identity_compare(r, &copy) != DONE)
		return REFUSED;
	if (error)
		r->identity = copy;
	if (error || copy_error) {
		repository_note(r, false, "", error ? IDENTITY_FILE : IDENTITY_FILE COPY,
				reading_text(error ? error : copy_error));
		if (r->lock.is_held && identity_write(r) != DONE)
			return REFUSED;
	}
	return repository_unlock(r);
}

/* ---- packs ---- */

uint32_t repository_add_pack(struct repository *r, const char *name, uint64_t n_bytes)
{
	if (r->n_packs == r->packs_room) {
		r->packs_room = r->packs_room ? r->packs_room * 2 : 64;
		r->packs = reallocarray(r->packs, r->packs_room, sizeof(*r->packs));
		if (!r->packs)
			abort();
	}
	r->packs[r->n_packs] = (struct repository_pack){.n_bytes = n_bytes};
	snprintf(r->packs[r->n_packs].name, FILE_NAME_BYTES, "%s", name);
	return r->n_packs++;
}

/* Is it a name that files of the repository have? */
static bool is_file_name(const char *name)
{
	uint8_t bytes[(FILE_NAME_BYTES - 1) / 2];
	return hex_read(bytes, sizeof(bytes), name);
}

static bool is_temporary(const char *name)
{
	return strncmp(name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) == 0;
}

int repository_table(const struct repository *r, uint32_t pack, struct pack_table *table)
{
	const char *name = r->packs[pack].name;
	int fd = file_open(r->packs_fd, name);
	if (fd < 0)
		return fd;
	int error = pack_table_read(&r->vault, fd, name, table);
	close(fd);
	return error;
}

static int pack_look(struct repository *r, const char *name, bool is_again)
{
	struct stat stat;
	struct pack_table table = {0};
	if (fstatat(r->packs_fd, name, &stat, 0) < 0)
		return -errno;
	uint32_t number = repository_add_pack(r, name, (uint64_t)stat.st_size);
	int error = repository_table(r, number, &table);
	r->packs[number].is_damaged = error != 0;
	for (uint32_t i = 0; i < table.n_entries; i++) {
		const struct pack_entry *entry = &table.entries[i];
		struct index_place place = {number, entry->offset, entry->n_bytes};
		if (!index_add(r->index, &entry->id, place) && is_again) /* the new pack is the one that stays */
			index_move(r->index, &entry->id, place);
	}
	pack_table_free(&table);
	return error;
}

static enum status packs_look(struct repository *r)
{
	struct names names;
	int error = names_read(r->packs_fd, &names);
	for (size_t i = 0; !error && i < names.n; i++) {
		const char *name = names.list[i];
		int bad = is_temporary(name) ? 0 : is_file_name(name) ? pack_look(r, name, false) : -EBADMSG;
		if (bad && !(bad == -ENOENT && file_is_gone(r->packs_fd, name)))
			repository_note(r, true, FOLDER_PACKS, name, reading_text(bad));
	}
	names_free(&names);
	return error ? repository_refuse(r, "list '" FOLDER_PACKS "'", error) : DONE;
}

static int pack_compare(const void *a, const void *b)
{
	return strcmp(((const struct repository_pack *)a)->name, ((const struct repository_pack *)b)->name);
}

/* -EAGAIN: one was taken away under our eyes, and what it had is perhaps in another one, which came after the list. */
static int packs_look_again(struct repository *r, bool *has_found)
{
	struct names names;
	bool is_moving = false;
	size_t n_known = r->n_packs;
	struct repository_pack *known = calloc(n_known + 1, sizeof(*known));
	if (!known)
		abort();
	if (n_known > 0)
		memcpy(known, r->packs, n_known * sizeof(*known));
	qsort(known, n_known, sizeof(*known), pack_compare);
	int error = names_read(r->packs_fd, &names);
	for (size_t i = 0; !error && i < names.n; i++) {
		struct repository_pack wanted = {0};
		if (!is_file_name(names.list[i]))
			continue;
		snprintf(wanted.name, sizeof(wanted.name), "%s", names.list[i]);
		if (bsearch(&wanted, known, n_known, sizeof(*known), pack_compare))
			continue;
		int bad = pack_look(r, names.list[i], true);
		*has_found |= bad == 0;
		is_moving |= bad == -ENOENT;
	}
	names_free(&names);
	free(known);
	return is_moving ? -EAGAIN : error;
}

bool repository_look_again(struct repository *r)
{
	bool has_found = false;
	for (unsigned i = 0; i < LOOKS_MAX && packs_look_again(r, &has_found) == -EAGAIN; i++)
		;
	return has_found;
}

/* ---- backups ---- */

static int record_read(struct repository *r, const char *name, const char *suffix, struct record **record)
{
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	auto_free char *file = text_format("%s%s", name, suffix);
	*record = record_create();
	int error =
	    file_read(r->backups_fd, file, BACKUP_HEADER_BYTES + SEAL_BYTES_MAX + BACKUP_PLAIN_MAX, &data, &n_bytes);
	if (!error)
		error = record_decode(&r->vault, *record, name, data, n_bytes);
	free(data);
	if (error) {
		record_destroy(*record);
		*record = NULL;
	}
	return error;
}

static int record_write(struct repository *r, const struct record *record, const char *suffix)
{
	size_t n_bytes = 0;
	uint8_t *data = record_encode(&r->vault, record, &n_bytes);
	auto_free char *file = text_format("%s%s", record->name, suffix);
	int error = file_write(r->backups_fd, file, data, n_bytes);
	free(data);
	return error;
}

/* Its two copies come and go one after the other. One that is missing while somebody writes is no damage, nor is one
 * that has come meanwhile. */
static int record_read_late(struct repository *r, const char *name, const char *suffix, struct record **record)
{
	if (lock_is_taken(r->dir_fd))
		return 0;
	return record_read(r, name, suffix, record);
}

static enum status record_look(struct repository *r, const char *name, enum repository_use use)
{
	struct record *first = NULL, *second = NULL;
	auto_free char *copy_name = text_format("%s" COPY, name);
	int error = record_read(r, name, "", &first), copy_error = record_read(r, name, COPY, &second);
	if (use == REPOSITORY_READ && error == -ENOENT && second)
		error = record_read_late(r, name, "", &first);
	else if (use == REPOSITORY_READ && copy_error == -ENOENT && first)
		copy_error = record_read_late(r, name, COPY, &second);
	if (file_is_gone(r->backups_fd, name) && file_is_gone(r->backups_fd, copy_name)) { /* a prune took it away */
		record_destroy(first);
		record_destroy(second);
		return DONE;
	}
	if (error && copy_error) {
		repository_note(r, true, FOLDER_BACKUPS, error == -ENOENT ? copy_name : name,
				"is damaged: which backup it was is not known");
		r->n_unreadable++;
		return DONE;
	}
	if (error)
		repository_note(r, false, FOLDER_BACKUPS, name, reading_text(error));
	if (copy_error)
		repository_note(r, false, FOLDER_BACKUPS, copy_name, reading_text(copy_error));
	struct record *record = first ? first : second;
	r->records = reallocarray(r->records, r->n_records + 1, sizeof(struct record *));
	if (!r->records)
		abort();
	r->records[r->n_records++] = record;
	int healing = 0;
	if (use != REPOSITORY_READ && (error || copy_error))
		healing = record_write(r, record, error ? "" : COPY);
	if (record != second)
		record_destroy(second);
	return healing ? repository_refuse(r, "write a backup's file", healing) : DONE;
}

static int record_compare(const void *a, const void *b)
{
	uint64_t x = record_number(*(struct record *const *)a, RECORD_SEQUENCE);
	uint64_t y = record_number(*(struct record *const *)b, RECORD_SEQUENCE);
	return x < y ? -1 : x > y;
}

static enum status records_look(struct repository *r, enum repository_use use)
{
	struct names names;
	char last[FILE_NAME_BYTES] = "";
	int error = names_read(r->backups_fd, &names);
	enum status status = error ? repository_refuse(r, "list '" FOLDER_BACKUPS "'", error) : DONE;
	for (size_t i = 0; status == DONE && i < names.n; i++) {
		auto_free char *name = text_format("%s", names.list[i]);
		char *suffix = strstr(name, COPY);
		if (is_temporary(name))
			continue;
		if (suffix && suffix[strlen(COPY)] == '\0')
			*suffix = '\0';
		if (!is_file_name(name)) {
			repository_note(r, true, FOLDER_BACKUPS, names.list[i], "is no file of a repository");
		} else if (strcmp(name, last) != 0) { /* both copies at once */
			snprintf(last, sizeof(last), "%s", name);
			status = record_look(r, name, use);
		}
	}
	names_free(&names);
	if (r->n_records > 0)
		qsort(r->records, r->n_records, sizeof(struct record *), record_compare);
	return status;
}

struct record *repository_find(const struct repository *r, const char *title)
{
	for (uint32_t i = 0; i < r->n_records; i++) {
		auto_free char *other = record_title(r->records[i]);
		if (strcmp(title, other) == 0)
			return r->records[i];
	}
	return NULL;
}

enum status repository_record(struct repository *r, const struct record *record)
{
	enum status status = lock_check(r->cli, &r->lock, r->path);
	if (status != DONE)
		return status;
	int error = record_write(r, record, COPY);
	if (!error)
		error = record_write(r, record, "");
	return error ? repository_refuse(r, "write a backup's file", error) : DONE;
}

enum status repository_forget(struct repository *r, const char *name)
{
	auto_free char *copy = text_format("%s" COPY, name);
	enum status status = lock_check(r->cli, &r->lock, r->path);
	if (status != DONE)
		return status;
	int error = file_remove(r->backups_fd, name);
	if (!error)
		error = file_remove(r->backups_fd, copy);
	if (!error)
		error = dir_sync(r->backups_fd);
	return error ? repository_refuse(r, "remove a backup's file", error) : DONE;
}

enum status repository_tidy(struct repository *r, uint64_t *n_removed)
{
	const int fds[] = {r->dir_fd, r->packs_fd, r->backups_fd};
	int error = 0;
	*n_removed = 0;
	for (size_t i = 0; i < array_size(fds) && !error; i++) {
		struct names names;
		error = names_read(fds[i], &names);
		for (size_t n = 0; n < names.n && !error; n++) {
			if (!is_temporary(names.list[n]))
				continue;
			error = file_remove(fds[i], names.list[n]);
			*n_removed += error == 0;
			if (error == -EISDIR) /* no writer makes one */
				error = 0;
		}
		names_free(&names);
	}
	return error ? repository_refuse(r, "remove files of writers that were killed", error) : DONE;
}

/* ---- open and close ---- */

static void problems_forget(struct repository *r)
{
	for (uint32_t i = 0; i < r->n_problems; i++) {
		free(r->problems[i].file);
		free(r->problems[i].text);
	}
	r->n_problems = 0;
}

static int folder_open(struct repository *r, const char *name, bool may_make)
{
	if (may_make && mkdirat(r->dir_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = openat(r->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Also what a writer has made that was killed before it did this. A folder above that gives no right to read cannot be
 * opened, and so not be made durable from here. */
static int folders_sync(const struct repository *r)
{
	int above = openat(r->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = dir_sync(r->dir_fd);
	if (above < 0)
		return error;
	if (!error)
		error = dir_sync(above);
	close(above);
	return error;
}

static enum status dir_open(struct repository *r, enum repository_use use)
{
	if (use == REPOSITORY_CREATE && mkdir(r->path, 0700) < 0 && errno != EEXIST)
		return cli_refuse(r->cli, "local", "cannot make the directory '%s': %s%s", r->path, strerror(errno),
				  errno == ENOENT ? "; make the folder above it first, or mount what belongs there"
						  : "");
	r->dir_fd = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->dir_fd < 0 && errno == ENOENT)
		return cli_refuse(r->cli, "not-found", "there is no repository '%s'; 'quarry backup create' makes one",
				  r->path);
	if (r->dir_fd < 0)
		return cli_refuse(r->cli, "local", "cannot open the repository '%s': %s", r->path, strerror(errno));
	return DONE;
}

static enum status folders_open(struct repository *r, bool may_make)
{
	r->packs_fd = folder_open(r, FOLDER_PACKS, may_make);
	r->backups_fd = folder_open(r, FOLDER_BACKUPS, may_make);
	bool is_packs = r->packs_fd < 0;
	if (is_packs || r->backups_fd < 0)
		return repository_refuse(r, is_packs ? "open '" FOLDER_PACKS "'" : "open '" FOLDER_BACKUPS "'",
					 is_packs ? r->packs_fd : r->backups_fd);
	int error = may_make ? folders_sync(r) : 0;
	return error ? repository_refuse(r, "make the folders durable", error) : DONE;
}

enum status repository_open(struct cli *c, struct repository *r, const char *path, enum repository_use use)
{
	*r = (struct repository){.cli = c, .dir_fd = -1, .packs_fd = -1, .backups_fd = -1};
	r->path = text_format("%s", path);
	r->index = index_create();
	vault_library_begin();
	enum status status = use == REPOSITORY_CREATE ? key_file_check(c) : DONE;
	key_file_warn(call_text(c->call, "key-file"));
	if (status == DONE)
		status = dir_open(r, use);
	/* not to put a lock into a directory that is something else */
	if (status == DONE && (use == REPOSITORY_WRITE || (use == REPOSITORY_CREATE && !dir_is_blank(r->dir_fd))))
		status = identity_find(r, use);
	problems_forget(r);
	if (status == DONE && use != REPOSITORY_READ)
		status = lock_take(c, &r->lock, r->dir_fd, r->path);
	if (status == DONE)
		status = identity_find(r, use);
	if (status == DONE)
		status = folders_open(r, use == REPOSITORY_CREATE);
	if (status == DONE)
		status = packs_look(r);
	if (status == DONE)
		status = records_look(r, use);
	if (status == DONE && use == REPOSITORY_READ)
		repository_look_again(r); /* for the packs of backups that have come meanwhile */
	return status;
}

void repository_close(struct repository *r)
{
	lock_release(&r->lock);
	for (uint32_t i = 0; i < r->n_records; i++)
		record_destroy(r->records[i]);
	problems_forget(r);
	free(r->problems);
	free(r->records);
	free(r->packs);
	index_destroy(r->index);
	const int fds[] = {r->dir_fd, r->packs_fd, r->backups_fd};
	for (size_t i = 0; i < array_size(fds); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	free(r->path);
	explicit_bzero(&r->vault, sizeof(r->vault));
}

/* ---- chunks ---- */

static void worker_close(struct worker *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

static int worker_open(const struct repository *r, struct worker *w, uint32_t pack)
{
	if (w->fd >= 0 && w->pack == pack)
		return 0;
	worker_close(w);
	w->pack = pack;
	w->fd = file_open(r->packs_fd, r->packs[pack].name);
	/* it was there when the repository was opened */
	return w->fd >= 0 ? 0 : w->fd == -ENOENT ? -ESTALE : w->fd;
}

/* Into w->room, as it stands in the pack. */
static int chunk_read(const struct repository *r, struct worker *w, const struct index_place *place)
{
	if (place->pack == PACK_IN_WORK)
		return -ENOENT;
	quarry_assert(place->pack < r->n_packs && place->n_bytes <= PACK_BYTES_MAX);
	int error = worker_open(r, w, place->pack);
	uint8_t *sealed = worker_room(w, place->n_bytes);
	if (!error)
		error = file_read_at(w->fd, sealed, place->n_bytes, place->offset);
	if (error) /* whoever tries again opens it anew: on a network that may be what helps */
		worker_close(w);
	return error;
}

/* Of two places that failed, the reason that leaves more hope. */
static int chunk_error(int a, int b)
{
	static const int hopeless[] = {-ENOENT, -EBADMSG};
	for (size_t i = 0; i < array_size(hopeless); i++) {
		if (a == hopeless[i])
			return b;
		if (b == hopeless[i])
			return a;
	}
	return a;
}

int repository_chunk(const struct repository *r, struct worker *w, enum kind kind, const struct chunk_id *id, void *out,
		     size_t room_bytes, size_t *n_bytes, size_t *sealed_bytes)
{
	struct index_place place;
	int reason = -ENOENT;
	for (uint32_t i = 0; index_find_other(r->index, id, i, &place); i++) {
		int error = chunk_read(r, w, &place);
		if (!error)
			error = chunk_decode(w->packer, &r->vault, kind, id, w->room, place.n_bytes, out, room_bytes,
					     n_bytes);
		if (sealed_bytes)
			*sealed_bytes = place.n_bytes;
		if (!error)
			return 0;
		reason = chunk_error(reason, error);
	}
	return reason;
}

int repository_chunk_check(const struct repository *r, struct worker *w, const struct chunk_id *id,
			   const struct index_place *place, uint8_t *out)
{
	size_t n_bytes = 0;
	int error = chunk_read(r, w, place);
	if (!error)
		error = chunk_decode(w->packer, &r->vault, KIND_DATA, id, w->room, place->n_bytes, out, LEAF_PLAIN_MAX,
				     &n_bytes);
	if (error == -EBADMSG)
		error = chunk_decode(w->packer, &r->vault, KIND_LEAF, id, w->room, place->n_bytes, out, LEAF_PLAIN_MAX,
				     &n_bytes);
	return error;
}

bool repository_find_whole(const struct repository *r, struct worker *w, const struct chunk_id *id, uint8_t *out,
			   struct index_place *place)
{
	uint32_t i = 0;
	while (index_find_other(r->index, id, i, place) && repository_chunk_check(r, w, id, place, out) != 0)
		i++;
	return index_find_other(r->index, id, i, place);
}

struct leaf *repository_leaf(const struct repository *r, struct worker *w, const struct chunk_id *id, int *error)
{
	size_t n_bytes = 0;
	uint8_t *plain = malloc(LEAF_PLAIN_MAX);
	struct leaf *leaf = leaf_create();
	*error = plain ? repository_chunk(r, w, KIND_LEAF, id, plain, LEAF_PLAIN_MAX, &n_bytes, NULL) : -ENOMEM;
	if (!*error)
		*error = leaf_decode(leaf, plain, n_bytes);
	free(plain);
	if (*error) {
		leaf_destroy(leaf);
		return NULL;
	}
	return leaf;
}
