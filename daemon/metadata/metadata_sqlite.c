/*
 * metadata_sqlite.c: the embedded metadata store: one SQLite file, worked on by one thread.
 *
 *   reactor: submit --queue--> thread: BEGIN, conditions, changes, COMMIT --message--> reactor: watches, done()
 *
 * Invariants
 *  1. A transaction is answered with 0 only after its commit is durable: write-ahead log with synchronous=FULL, and the
 *     directory flushed when the file was made.
 *  2. Conditions are checked inside the transaction that makes the changes.
 *  3. The revision counter grows by one with every transaction that has changes, in the same transaction; no item has a
 *     higher one.
 *  4. Every row carries a CRC-32C of its key, value and revision, verified whenever it is read: SQLite's pages carry
 *     none, and a flipped bit in a placement would send a read to the wrong blocks.
 *  5. One process at a time: PATH-lock is locked from open to close, and the database is held in exclusive mode.
 *  6. Leases live in the thread's memory; the table `leased` says which keys are bound to one. Whoever opens the file
 *     begins by deleting these: the leases of a process that is gone are over. A quarryd that knows no leases finds
 *     a table that it does not look at.
 *  7. After an error whose effect on the file is not known the store is broken: nothing more is answered with success
 *     until the daemon starts again and SQLite has recovered the file.
 *
 * Ownership: the queue belongs to the mutex; the database and its statements to the thread, while that runs; the
 * rest is set at open.
 */
#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "daemon/metadata/metadata_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define STORE_APPLICATION_ID 0x51525259 /* "QRRY" */
#define STORE_SCHEMA         1          /* PRAGMA user_version; a higher one is refused */

enum statement { GET, LIST, PUT, DELETE, BIND, UNBIND, LEASED, SET_REVISION, BEGIN, COMMIT, ROLLBACK, N_STATEMENTS };

#define COLUMNS                                                                                                        \
	"key, value, revision, crc, coalesce((SELECT lease FROM leased WHERE leased.key = item.key), 0) FROM item "

static const char *const statement_texts[N_STATEMENTS] = {
    [GET] = "SELECT " COLUMNS "WHERE key = ?1",
    [LIST] = "SELECT " COLUMNS "WHERE key >= ?1 ORDER BY key",
    [PUT] = ("INSERT INTO item (key, value, revision, crc) VALUES (?1, ?2, ?3, ?4) "
	     "ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3, crc = ?4"),
    [DELETE] = "DELETE FROM item WHERE key = ?1",
    [BIND] = "INSERT OR REPLACE INTO leased (key, lease) VALUES (?1, ?2)",
    [UNBIND] = "DELETE FROM leased WHERE key = ?1",
    [LEASED] = "SELECT key FROM leased WHERE lease = ?1 OR ?1 = 0 ORDER BY key LIMIT 1",
    [SET_REVISION] = "UPDATE state SET revision = ?1",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
};

static const char schema_text[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE item (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL, crc INTEGER NOT NULL)"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE state (revision INTEGER NOT NULL) STRICT;"
    "INSERT INTO state (revision) VALUES (0);"
    "PRAGMA application_id = 1364349529;"
    "PRAGMA user_version = 1;"
    "COMMIT;";
_Static_assert(STORE_APPLICATION_ID == 1364349529 && STORE_SCHEMA == 1, "the schema's text says the same");

static const char leased_text[] = "CREATE TABLE IF NOT EXISTS leased (key TEXT PRIMARY KEY, lease INTEGER NOT NULL)"
				  " STRICT, WITHOUT ROWID;";

struct sqlite_store {
	struct metadata base;
	struct log *log;
	char *path;
	int lock_fd;
	sqlite3 *db;
	sqlite3_stmt *statements[N_STATEMENTS];
	uint64_t revision;         /* the thread's copy of state.revision */
	struct lease_table leases; /* the thread's */
	bool has_thread;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	struct list queue; /* the mutex's */
	bool is_stopping;  /* the mutex's */
};

static struct sqlite_store *store_of(struct metadata *m)
{
	return container_of(m, struct sqlite_store, base);
}

/* ---- errors ---- */

static int errno_of_sqlite(int code)
{
	quarry_assert(code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE);
	switch (code & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EACCES;
	default:
		return -EIO;
	}
}

/* Writes why and returns the error: for everything that can go wrong at open. */
static int printf_like(3, 4) store_refuse(char why[static METADATA_WHY_BYTES], int res, const char *format, ...)
{
	va_list args;
	quarry_assert(res < 0);
	va_start(args, format);
	vsnprintf(why, METADATA_WHY_BYTES, format, args);
	va_end(args);
	return res;
}

static int store_refuse_sqlite(struct sqlite_store *s, char why[static METADATA_WHY_BYTES], const char *what)
{
	int res = errno_of_sqlite(sqlite3_extended_errcode(s->db));
	if (res == -EUCLEAN)
		return store_refuse(why, res, "%s is damaged or not a metadata store: %s; restore it from a backup",
				    s->path, sqlite3_errmsg(s->db));
	return store_refuse(why, res, "%s: cannot %s: %s", s->path, what, sqlite3_errmsg(s->db));
}

/* ---- rows ---- */

static uint32_t row_crc(const char *key, const char *value, uint64_t revision)
{
	uint8_t number[8];
	put_le64(number, revision);
	uint32_t crc = crc32c(0, key, strlen(key) + 1);
	crc = crc32c(crc, value, strlen(value) + 1);
	return crc32c(crc, number, sizeof(number));
}

struct row {
	const char *key, *value;
	uint64_t revision, lease;
};

/* The row a statement stands on; its texts live until the next step. 0 or -EUCLEAN. */
static int row_read(sqlite3_stmt *st, struct row *out)
{
	out->key = (const char *)sqlite3_column_text(st, 0);
	out->value = (const char *)sqlite3_column_text(st, 1);
	out->revision = (uint64_t)sqlite3_column_int64(st, 2);
	out->lease = (uint64_t)sqlite3_column_int64(st, 4);
	if (!out->key || !out->value || out->revision == 0)
		return -EUCLEAN;
	bool is_whole = row_crc(out->key, out->value, out->revision) == (uint32_t)sqlite3_column_int64(st, 3);
	return is_whole ? 0 : -EUCLEAN;
}

static void store_damaged(struct sqlite_store *s, const char *key)
{
	log_event(s->log, LOG_ERROR, "metadata-damaged", s->path,
		  "the entry %s of the metadata store does not match its checksum; restore %s from a backup", key,
		  s->path);
}

/* ---- carrying out, on the thread ---- */

/* The error of a statement that failed. After it the file is as it was, else the store is broken. */
static int store_error(struct sqlite_store *s, const char *what)
{
	int code = sqlite3_extended_errcode(s->db);
	int res = errno_of_sqlite(code);
	log_event(s->log, LOG_ERROR, "metadata-failed", s->path, "cannot %s: %s (SQLite error %d)", what,
		  sqlite3_errmsg(s->db), code);
	if (res != -ENOSPC && res != -ENOMEM)
		s->base.is_broken = true;
	return res;
}

static sqlite3_stmt *store_statement(struct sqlite_store *s, enum statement which, const char *key)
{
	sqlite3_stmt *st = s->statements[which];
	quarry_assert(st);
	quarry_assert(!sqlite3_stmt_busy(st));
	if (key)
		sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	return st;
}

/* Runs a statement without result rows. 0 or -errno. */
static int store_run(struct sqlite_store *s, sqlite3_stmt *st, const char *what)
{
	int code = sqlite3_step(st);
	int res = code == SQLITE_DONE ? 0 : store_error(s, what);
	sqlite3_reset(st);
	return res;
}

/* The key's revision, 0 when it does not exist; or -errno. */
static int store_revision_of(struct sqlite_store *s, const char *key, uint64_t *out)
{
	sqlite3_stmt *st = store_statement(s, GET, key);
	struct row row = {0};
	int code = sqlite3_step(st), res = 0;
	if (code == SQLITE_ROW) {
		res = row_read(st, &row);
		if (res < 0)
			store_damaged(s, key);
	} else if (code != SQLITE_DONE) {
		res = store_error(s, "read");
	}
	sqlite3_reset(st);
	*out = row.revision;
	return res;
}

/* GET and LIST: rows from the key on, while they have it as a prefix. */
static int store_read(struct sqlite_store *s, struct metadata_request *q)
{
	bool is_list = q->op == METADATA_LIST;
	sqlite3_stmt *st = store_statement(s, is_list ? LIST : GET, q->key);
	size_t prefix_len = strlen(q->key);
	struct row row;
	int code, res = 0;
	q->revision = s->revision;
	while (res == 0 && (code = sqlite3_step(st)) == SQLITE_ROW) {
		res = row_read(st, &row);
		if (res == 0 && strncmp(row.key, q->key, prefix_len) != 0)
			break;
		if (res < 0)
			store_damaged(s, row.key ? row.key : q->key);
		else
			res = metadata_request_add(q, &(struct metadata_item){.key = (char *)row.key,
									      .value = (char *)row.value,
									      .revision = row.revision,
									      .lease = row.lease});
	}
	if (res == 0 && code != SQLITE_ROW && code != SQLITE_DONE)
		res = store_error(s, "read");
	sqlite3_reset(st);
	return res == 0 && !is_list && q->n_items == 0 ? -ENOENT : res;
}

/* What the key is bound to from now on. */
static int store_bind(struct sqlite_store *s, const char *key, uint64_t lease)
{
	if (lease == 0)
		return store_run(s, store_statement(s, UNBIND, key), "write");
	sqlite3_stmt *st = store_statement(s, BIND, key);
	sqlite3_bind_int64(st, 2, (sqlite3_int64)lease);
	return store_run(s, st, "write");
}

static int store_change(struct sqlite_store *s, const struct metadata_change *change, bool *has_changed)
{
	int bound = store_bind(s, change->key, change->lease);
	if (bound < 0)
		return bound;
	if (!change->value) {
		int res = store_run(s, store_statement(s, DELETE, change->key), "delete");
		*has_changed = res == 0 && sqlite3_changes(s->db) > 0;
		return res;
	}
	uint64_t revision = s->revision + 1;
	sqlite3_stmt *st = store_statement(s, PUT, change->key);
	sqlite3_bind_text(st, 2, change->value, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 3, (sqlite3_int64)revision);
	sqlite3_bind_int64(st, 4, row_crc(change->key, change->value, revision));
	*has_changed = true;
	return store_run(s, st, "write");
}

/* Between BEGIN and COMMIT. 0, -EAGAIN or another -errno: roll back. */
static int store_transact_inside(struct sqlite_store *s, struct metadata_request *q)
{
	int res = 0;
	for (uint32_t i = 0; i < q->n_conditions && res == 0; i++) {
		uint64_t revision;
		res = store_revision_of(s, q->conditions[i].key, &revision);
		if (res == 0 && revision != q->conditions[i].revision)
			res = -EAGAIN;
	}
	for (uint32_t i = 0; i < q->n_changes && res == 0; i++) {
		if (q->changes[i].lease != 0 && !lease_find(&s->leases, q->changes[i].lease))
			res = -ENOENT;
	}
	for (uint32_t i = 0; i < q->n_changes && res == 0; i++) {
		bool has_changed = false;
		res = store_change(s, &q->changes[i], &has_changed);
		q->changed |= (uint32_t)has_changed << i;
	}
	if (res < 0 || q->n_changes == 0)
		return res;
	sqlite3_stmt *st = store_statement(s, SET_REVISION, NULL);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)(s->revision + 1));
	return store_run(s, st, "write");
}

static int store_commit(struct sqlite_store *s)
{
	int res = store_run(s, store_statement(s, COMMIT, NULL), "commit");
	if (res < 0 && s->base.is_broken)
		return -ETIMEDOUT; /* the log may hold the commit, or not: a restart will tell */
	return res;
}

static int store_transact(struct sqlite_store *s, struct metadata_request *q)
{
	int res = store_run(s, store_statement(s, BEGIN, NULL), "begin");
	if (res < 0)
		return res;
	res = store_transact_inside(s, q);
	if (res == 0)
		res = store_commit(s);
	if (res == 0) {
		s->revision += q->n_changes > 0;
		q->revision = s->revision;
		quarry_assert(sqlite3_get_autocommit(s->db));
		return 0;
	}
	q->changed = 0;
	/* SQLite has already rolled back after some errors. */
	if (!sqlite3_get_autocommit(s->db) && store_run(s, store_statement(s, ROLLBACK, NULL), "roll back") < 0)
		s->base.is_broken = true;
	return res;
}

/* ---- leases, on the thread ---- */

static uint64_t store_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* The next key that is bound to the lease (0: to any); NULL: there is none, or no memory. The caller frees it. */
static char *store_leased_key(struct sqlite_store *s, uint64_t lease)
{
	sqlite3_stmt *st = store_statement(s, LEASED, NULL);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)lease);
	char *key = sqlite3_step(st) == SQLITE_ROW ? strdup((const char *)sqlite3_column_text(st, 0)) : NULL;
	sqlite3_reset(st);
	return key;
}

/* Deletes the keys of a lease (0: of all), each in a transaction of its own: nobody has a promise that they go at once,
 * and a crash between goes on with the next start. */
static int store_delete_leased(struct sqlite_store *s, uint64_t lease)
{
	char *key;
	int res = 0;
	while (res == 0 && (key = store_leased_key(s, lease)) != NULL) {
		struct metadata_request q = {.op = METADATA_TRANSACT, .n_changes = 1, .changes = {{.key = key}}};
		res = store_transact(s, &q);
		if (res == 0 && q.changed)
			metadata_inbox_changed(&s->base, &(struct metadata_item){.key = key, .revision = q.revision},
					       1);
		free(key);
	}
	return res;
}

static int store_end_lease(struct sqlite_store *s, struct lease *lease)
{
	uint64_t id = lease->id;
	lease_end(lease);
	return store_delete_leased(s, id);
}

/* Ends what has run out. An error leaves the keys where they are; it has been logged, and the next start deletes them. */
static void store_end_leases(struct sqlite_store *s)
{
	struct lease *first;
	while ((first = lease_next(&s->leases)) && first->ends_ns <= store_now_ns() && !s->base.is_broken)
		(void)!store_end_lease(s, first);
}

static int store_lease(struct sqlite_store *s, struct metadata_request *q)
{
	struct lease *lease = q->op == METADATA_GRANT ? NULL : lease_find(&s->leases, q->lease);
	if (q->op == METADATA_GRANT) {
		do {
			if (getrandom(&q->lease, sizeof(q->lease), 0) != sizeof(q->lease))
				return -EIO;
			q->lease >>= 1;
		} while (q->lease == 0 || lease_find(&s->leases, q->lease));
		lease = lease_grant(&s->leases, q->lease, q->ttl_ns, store_now_ns());
		if (!lease)
			return -ENOMEM;
	}
	if (!lease)
		return -ENOENT;
	if (q->op == METADATA_REVOKE)
		return store_end_lease(s, lease);
	q->ttl_ns = lease->ttl_ns;
	lease->ends_ns = store_now_ns() + lease->ttl_ns;
	return 0;
}

static int store_carry_out(struct sqlite_store *s, struct metadata_request *q)
{
	store_end_leases(s);
	if (s->base.is_broken)
		return -EIO;
	switch (q->op) {
	case METADATA_GET:
	case METADATA_LIST:
		return store_read(s, q);
	case METADATA_TRANSACT:
		return store_transact(s, q);
	case METADATA_GRANT:
	case METADATA_KEEP:
	case METADATA_REVOKE:
		return store_lease(s, q);
	}
	return -EINVAL;
}

static void store_deliver(struct message *message)
{
	struct metadata_request *q = container_of(message, struct metadata_request, message);
	metadata_answer(q->store, q, q->res);
}

/* Waits for a request, for the end of the first lease, or for the end of all. */
static void store_wait_locked(struct sqlite_store *s)
{
	struct lease *first = s->base.is_broken ? NULL : lease_next(&s->leases);
	if (!first) {
		pthread_cond_wait(&s->wake, &s->mutex);
		return;
	}
	struct timespec until = {.tv_sec = (time_t)(first->ends_ns / NS_PER_S),
				 .tv_nsec = (long)(first->ends_ns % NS_PER_S)};
	if (pthread_cond_timedwait(&s->wake, &s->mutex, &until) != ETIMEDOUT)
		return;
	pthread_mutex_unlock(&s->mutex);
	store_end_leases(s);
	pthread_mutex_lock(&s->mutex);
}

/* The next request, or NULL when the store is being closed. */
static struct metadata_request *store_next(struct sqlite_store *s)
{
	pthread_mutex_lock(&s->mutex);
	while (list_is_empty(&s->queue) && !s->is_stopping)
		store_wait_locked(s);
	struct list *node = list_pop(&s->queue);
	pthread_mutex_unlock(&s->mutex);
	return node ? container_of(node, struct metadata_request, link) : NULL;
}

static void *store_thread(void *context)
{
	struct sqlite_store *s = context;
	struct metadata_request *q;
	while ((q = store_next(s)) != NULL) {
		q->res = store_carry_out(s, q);
		q->message.deliver = store_deliver;
		reactor_post(s->base.reactor, &q->message);
	}
	return NULL;
}

/* ---- the store's calls, on the reactor ---- */

static void store_submit(struct metadata *m, struct metadata_request *q)
{
	struct sqlite_store *s = store_of(m);
	pthread_mutex_lock(&s->mutex);
	quarry_assert(!s->is_stopping);
	list_append(&s->queue, &q->link);
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
}

static void store_destroy(struct sqlite_store *s)
{
	for (unsigned i = 0; i < N_STATEMENTS; i++)
		sqlite3_finalize(s->statements[i]);
	int code = sqlite3_close(s->db);
	quarry_assert(code == SQLITE_OK);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->mutex);
	lease_table_fini(&s->leases);
	metadata_fini(&s->base);
	free(s->path);
	free(s);
}

static void store_close(struct metadata *m)
{
	struct sqlite_store *s = store_of(m);
	pthread_mutex_lock(&s->mutex);
	quarry_assert(list_is_empty(&s->queue));
	s->is_stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
	if (s->has_thread)
		pthread_join(s->thread, NULL);
	store_destroy(s);
}

static const struct metadata_ops store_ops = {.submit = store_submit, .close = store_close};

/* ---- open ---- */

/* PATH-lock names the process that holds it, for the message to the one who comes second. */
static int store_lock(struct sqlite_store *s, char why[static METADATA_WHY_BYTES])
{
	char path[4096], owner[24] = "";
	if (snprintf(path, sizeof(path), "%s-lock", s->path) >= (int)sizeof(path))
		return store_refuse(why, -ENAMETOOLONG, "the path of the metadata store is too long");
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return store_refuse(why, -errno, "%s: %s", path, strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		ssize_t n = pread(s->lock_fd, owner, sizeof(owner) - 1, 0);
		owner[n > 0 ? strcspn(owner, "\n") : 0] = '\0';
		return store_refuse(why, -EBUSY,
				    "%s is in use by another quarryd (process %s): give each its own data_dir", s->path,
				    owner[0] ? owner : "unknown");
	}
	int n = snprintf(owner, sizeof(owner), "%ld\n", (long)getpid());
	if (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, owner, (size_t)n, 0) != n)
		return store_refuse(why, -errno, "%s: cannot write: %s", path, strerror(errno));
	return 0;
}

/* Makes the file if it is not there, and its name durable: SQLite flushes the directory only for its log. */
static int store_make_file(struct sqlite_store *s, char why[static METADATA_WHY_BYTES])
{
	char *end = strrchr(s->path, '/');
	int fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? 0 : store_refuse(why, -errno, "%s: %s", s->path, strerror(errno));
	close(fd);
	char *folder = end ? strndup(s->path, (size_t)(end - s->path) + 1) : strdup(".");
	if (!folder)
		return -ENOMEM;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int res =
	    fd < 0 || fsync(fd) < 0 ? store_refuse(why, -errno, "%s: cannot flush: %s", folder, strerror(errno)) : 0;
	if (fd >= 0)
		close(fd);
	free(folder);
	return res;
}

/* One number from one statement. */
static int store_number(struct sqlite_store *s, const char *text, int64_t *out)
{
	sqlite3_stmt *st = NULL;
	int code = sqlite3_prepare_v2(s->db, text, -1, &st, NULL);
	if (code == SQLITE_OK && (code = sqlite3_step(st)) == SQLITE_ROW)
		*out = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return code == SQLITE_ROW ? 0 : -EIO;
}

/* Is it ours, of a schema we know; made anew when it is empty. */
static int store_identify(struct sqlite_store *s, char why[static METADATA_WHY_BYTES])
{
	int64_t application_id = 0, schema = 0, n_tables = 0;
	if (store_number(s, "PRAGMA application_id", &application_id) < 0 ||
	    store_number(s, "PRAGMA user_version", &schema) < 0 ||
	    store_number(s, "SELECT count(*) FROM sqlite_schema", &n_tables) < 0)
		return store_refuse_sqlite(s, why, "read");
	bool is_new = application_id == 0 && schema == 0 && n_tables == 0;
	if (is_new && sqlite3_exec(s->db, schema_text, NULL, NULL, NULL) != SQLITE_OK)
		return store_refuse_sqlite(s, why, "write");
	if (!is_new && application_id != STORE_APPLICATION_ID)
		return store_refuse(why, -ENOTSUP, "%s is a SQLite database of another program", s->path);
	if (!is_new && schema != STORE_SCHEMA)
		return store_refuse(why, -ENOTSUP, "%s has schema %lld, this quarryd knows %d: start a newer quarryd",
				    s->path, (long long)schema, STORE_SCHEMA);
	if (sqlite3_exec(s->db, leased_text, NULL, NULL, NULL) != SQLITE_OK)
		return store_refuse_sqlite(s, why, "write");
	return 0;
}

/* SQLite's own check, every row's checksum, and the revision counter against the rows'. */
static int store_verify(struct sqlite_store *s, char why[static METADATA_WHY_BYTES])
{
	int64_t revision = 0, n_sound = 0, n_states = 0;
	struct row row;
	int code;
	if (store_number(s, "SELECT count(*) FROM pragma_integrity_check(1) WHERE integrity_check = 'ok'", &n_sound) <
		0 ||
	    store_number(s, "SELECT count(*) FROM state", &n_states) < 0)
		return store_refuse_sqlite(s, why, "verify");
	if (n_sound != 1 || n_states != 1)
		return store_refuse(why, -EUCLEAN, "%s is damaged: restore it from a backup", s->path);
	if (store_number(s, "SELECT revision FROM state", &revision) < 0)
		return store_refuse_sqlite(s, why, "verify");
	sqlite3_stmt *st = store_statement(s, LIST, "");
	int res = 0;
	while (res == 0 && (code = sqlite3_step(st)) == SQLITE_ROW) {
		if (row_read(st, &row) < 0 || row.revision > (uint64_t)revision)
			res = store_refuse(why, -EUCLEAN, "%s is damaged (entry %.60s): restore it from a backup",
					   s->path, row.key ? row.key : "?");
	}
	if (res == 0 && code != SQLITE_DONE)
		res = store_refuse_sqlite(s, why, "verify");
	sqlite3_reset(st);
	s->revision = (uint64_t)revision;
	return res;
}

static int store_open_database(struct sqlite_store *s, char why[static METADATA_WHY_BYTES])
{
	static const char modes[] =
	    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
	    "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;";
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_NOFOLLOW;
	int64_t synchronous = 0;
	if (sqlite3_open_v2(s->path, &s->db, flags, NULL) != SQLITE_OK)
		return s->db ? store_refuse_sqlite(s, why, "open") : store_refuse(why, -ENOMEM, "no memory for SQLite");
	if (sqlite3_exec(s->db, modes, NULL, NULL, NULL) != SQLITE_OK)
		return store_refuse_sqlite(s, why, "open");
	if (store_number(s, "PRAGMA synchronous", &synchronous) < 0 || synchronous < 2)
		return store_refuse(why, -EIO, "%s: SQLite refuses to write durably", s->path);
	int res = store_identify(s, why);
	for (unsigned i = 0; i < N_STATEMENTS && res == 0; i++) {
		if (sqlite3_prepare_v3(s->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i],
				       NULL) != SQLITE_OK)
			res = store_refuse_sqlite(s, why, "prepare");
	}
	if (res == 0)
		res = store_verify(s, why);
	if (res == 0 && store_delete_leased(s, 0) < 0)
		res = store_refuse_sqlite(s, why, "write");
	return res;
}

int metadata_open_embedded(struct reactor *r, struct log *log, const char *path, char why[static METADATA_WHY_BYTES],
			   struct metadata **out)
{
	struct sqlite_store *s = calloc(1, sizeof(*s));
	if (!s || !(s->path = strdup(path))) {
		free(s);
		return store_refuse(why, -ENOMEM, "no memory for the metadata store");
	}
	if (metadata_init(&s->base, &store_ops, r) < 0) {
		free(s->path);
		free(s);
		return store_refuse(why, -ENOMEM, "no memory for the metadata store");
	}
	s->log = log;
	s->lock_fd = -1;
	list_init(&s->queue);
	lease_table_init(&s->leases);
	pthread_condattr_t clock;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->wake, &clock);
	pthread_condattr_destroy(&clock);
	int res = store_lock(s, why);
	if (res == 0)
		res = store_make_file(s, why);
	if (res == 0)
		res = store_open_database(s, why);
	if (res == 0) {
		res = -pthread_create(&s->thread, NULL, store_thread, s);
		s->has_thread = res == 0;
	}
	if (res < 0) {
		store_destroy(s);
		return res;
	}
	*out = &s->base;
	return 0;
}
