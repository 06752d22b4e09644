/*
 * import_embedded.c: moves a node from the store it had alone into the cluster's.
 *
 *   LOCK -> READ both -> COMPARE -> WRITE, a few keys at a time -> RENAME the file
 *             ^                        | another node changed something meanwhile, or an answer was lost
 *             +------------------------+
 *
 * What it takes over
 *   cluster            ours becomes the store's if it has none; else each disk's record says of which cluster it is
 *   pools              those that the cluster lacks. One of the same name and properties is the same
 *   disks              as they are; a name that another disk has refuses all
 *   volumes            with placements, snapshots and names; a name that another volume has refuses all
 *   deleted            not: nobody repeats a command that was given to another store
 *
 * Invariants
 *  1. All clashes are found, and said, before anything is written.
 *  2. Every key is written on the condition that it is not there, what names others after what is named: placements and
 *     snapshots before their volume. So it can end anywhere, and be begun again.
 *  3. The file is renamed last: until then no daemon starts there with the store in etcd.
 */
#include "daemon/import_embedded.h"

#include "daemon/node_store.h"
#include "daemon/place.h"
#include "volumes/head/facts.h"
#include "volumes/head/transaction.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_MAX 8u /* a cluster that changes under each of these is at work: let it rest */

/* All keys of a store, and the reactor that waits for its answer. */
struct asked {
	struct metadata_request q;
	struct reactor *reactor;
	int res;
};

struct import {
	const struct config *config;
	struct reactor *reactor;
	struct log *log;
	struct place place;
	struct metadata *from, *to;
	struct asked ours, theirs;
	struct uuid cluster;   /* that our disks name */
	bool is_other_cluster; /* than the store's */
	uint32_t n_clashes, n_volumes, n_disks, n_written;
	char path[CONFIG_TEXT_MAX + 16];
	struct transaction transaction;
	int res;
};

static void say_list(const char *format, va_list args)
{
	fputs("quarryd: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

static void printf_like(1, 2) say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	say_list(format, args);
	va_end(args);
}

static void printf_like(2, 3) clash(struct import *i, const char *format, ...)
{
	va_list args;
	i->n_clashes++;
	va_start(args, format);
	say_list(format, args);
	va_end(args);
}

/* ---- asking and waiting ---- */

static void asked_done(struct metadata_request *q, int res)
{
	struct asked *a = container_of(q, struct asked, q);
	a->res = res;
	reactor_stop(a->reactor);
}

/* Every key of a store. 0 or -errno. */
static int list_all(struct import *i, struct metadata *store, struct asked *a)
{
	quarry_assert(store && i->reactor);
	metadata_request_clear(&a->q);
	a->q = (struct metadata_request){.op = METADATA_LIST, .key = "", .done = asked_done};
	a->reactor = i->reactor;
	metadata_submit(store, &a->q);
	reactor_run(i->reactor);
	return a->res;
}

static void transacted(struct metadata_request *q, int res)
{
	struct import *i = container_of(transaction_of(q), struct import, transaction);
	i->res = res;
	reactor_stop(i->reactor);
}

/* What was added goes to the store. 0; -EAGAIN: look again; or -errno. */
static int write_begun(struct import *i)
{
	uint32_t n = i->transaction.request.n_changes;
	i->res = n > 0 ? transaction_submit(&i->transaction, i->to) : 0;
	if (n > 0 && i->res == 0)
		reactor_run(i->reactor);
	if (i->res == 0)
		i->n_written += n;
	transaction_clear(&i->transaction);
	transaction_begin(&i->transaction, transacted);
	return i->res == -ETIMEDOUT ? -EAGAIN : i->res;
}

/* ---- looking ---- */

static int item_compare(const void *key, const void *item)
{
	return strcmp(key, ((const struct metadata_item *)item)->key);
}

/* What the cluster's store has under a key; NULL: nothing. */
static const char *theirs(const struct import *i, const char *key)
{
	const struct metadata_request *q = &i->theirs.q;
	const struct metadata_item *item =
	    q->n_items ? bsearch(key, q->items, q->n_items, sizeof(q->items[0]), item_compare) : NULL;
	return item ? item->value : NULL;
}

static const char *after_prefix(const char *key, const char *prefix)
{
	size_t len = strlen(prefix);
	return strncmp(key, prefix, len) == 0 ? key + len : NULL;
}

static void compare_cluster(struct import *i, const struct metadata_item *item)
{
	char why[WHY_BYTES];
	struct uuid other;
	const char *there = theirs(i, CLUSTER_KEY);
	if (cluster_from_json(item->value, &i->cluster, why) != 0)
		clash(i, "%s does not say which cluster its disks are of: %s", i->path, why);
	else if (there && cluster_from_json(there, &other, why) != 0)
		clash(i, "the store in etcd does not say which cluster it is: %s", why);
	else
		i->is_other_cluster = there && !uuid_equal(&i->cluster, &other);
}

/* The pool that every store has from its start puts copies on disks of one node, or of several, as there are. */
static bool pools_differ(const struct pool_facts *ours, const struct pool_facts *other)
{
	bool is_default = strcmp(ours->name, "default") == 0 && ours->failure_domain == DOMAIN_DISK &&
			  other->failure_domain == DOMAIN_NODE;
	return other->replicas != ours->replicas || other->min_replicas != ours->min_replicas ||
	       (other->failure_domain != ours->failure_domain && !is_default);
}

static void compare_pool(struct import *i, const char *name, const struct metadata_item *item)
{
	struct pool_facts ours, other;
	char why[WHY_BYTES];
	const char *there = theirs(i, item->key);
	if (pool_from_json(name, item->value, &ours, why) != 0)
		clash(i, "pool %s cannot be read: %s", name, why);
	else if (there && (pool_from_json(name, there, &other, why) != 0 || pools_differ(&ours, &other)))
		clash(i,
		      "pool %s: the cluster has one of that name with other properties: make them alike (quarry pool "
		      "set %s)",
		      name, name);
}

static void compare_disk(struct import *i, const char *uuid, const struct metadata_item *item)
{
	struct disk_facts ours, other;
	char why[WHY_BYTES];
	i->n_disks++;
	if (disk_from_json(uuid, item->value, &ours, why) != 0)
		return clash(i, "disk %s cannot be read: %s", uuid, why);
	if (strcmp(ours.node, i->config->node.name) != 0)
		return clash(i, "disk %s is one of node \"%s\", and node.name is \"%s\": write the former", ours.name,
			     ours.node, i->config->node.name);
	if (theirs(i, item->key))
		return; /* an earlier try has brought it */
	for (uint32_t k = 0; k < i->theirs.q.n_items; k++) {
		const char *name = after_prefix(i->theirs.q.items[k].key, "disks/");
		if (name && disk_from_json(name, i->theirs.q.items[k].value, &other, why) == 0 &&
		    strcmp(other.name, ours.name) == 0)
			clash(i, "disk %s: the cluster has one of that name, on node %s: give this node another name",
			      ours.name, other.node);
	}
}

static void compare_name(struct import *i, const char *name, const struct metadata_item *item)
{
	const char *there = theirs(i, item->key);
	i->n_volumes++;
	if (there && strcmp(there, item->value) != 0)
		clash(i,
		      "volume %s: the cluster has one of that name: rename one of the two, with the daemon as it was "
		      "before "
		      "(quarry volume rename %s NEW)",
		      name, name);
}

/* Says all that stands against it. */
static void compare(struct import *i)
{
	i->n_clashes = i->n_volumes = i->n_disks = 0;
	for (uint32_t k = 0; k < i->ours.q.n_items; k++) {
		const struct metadata_item *item = &i->ours.q.items[k];
		const char *name;
		if (strcmp(item->key, CLUSTER_KEY) == 0)
			compare_cluster(i, item);
		else if ((name = after_prefix(item->key, "pools/")) != NULL)
			compare_pool(i, name, item);
		else if ((name = after_prefix(item->key, "disks/")) != NULL)
			compare_disk(i, name, item);
		else if ((name = after_prefix(item->key, "volume-names/")) != NULL)
			compare_name(i, name, item);
	}
}

/* ---- writing ---- */

/* A disk of another cluster than the store's says so in its record: its superblock does. */
static char *disk_wanted(const struct import *i, const char *uuid, const char *text)
{
	struct disk_facts facts;
	char why[WHY_BYTES];
	if (disk_from_json(uuid, text, &facts, why) != 0)
		return NULL;
	if (i->is_other_cluster)
		facts.cluster = i->cluster;
	return disk_to_json(&facts);
}

/* One that is being deleted is this node's to free. */
static char *volume_wanted(const struct import *i, const char *uuid, const char *text)
{
	struct volume_facts facts;
	char why[WHY_BYTES];
	if (volume_from_json(uuid, text, &facts, why) != 0)
		return strdup(text); /* as unreadable there as here: it is left out, with an event */
	if (facts.is_deleting)
		text_print(facts.owner, sizeof(facts.owner), "%s", i->config->node.name);
	char *wanted = volume_to_json(&facts);
	volume_facts_clear(&facts);
	return wanted;
}

static char *value_wanted(const struct import *i, const struct metadata_item *item)
{
	const char *uuid;
	if ((uuid = after_prefix(item->key, "disks/")) != NULL)
		return disk_wanted(i, uuid, item->value);
	if ((uuid = after_prefix(item->key, "volumes/")) != NULL)
		return volume_wanted(i, uuid, item->value);
	return strdup(item->value);
}

/* All keys with this prefix that are not there yet. 0, -EAGAIN or -errno. */
static int write_keys(struct import *i, const char *prefix)
{
	for (uint32_t k = 0; k < i->ours.q.n_items; k++) {
		const struct metadata_item *item = &i->ours.q.items[k];
		if (!after_prefix(item->key, prefix) || theirs(i, item->key))
			continue;
		transaction_condition(&i->transaction, 0, "%s", item->key);
		transaction_put(&i->transaction, value_wanted(i, item), "%s", item->key);
		int res = transaction_room(&i->transaction) > 0 ? 0 : write_begun(i);
		if (res < 0)
			return res;
	}
	return write_begun(i);
}

/* What names others comes after what is named. */
static int write_all(struct import *i)
{
	static const char *const prefixes[] = {CLUSTER_KEY,  "pools/",   "disks/",       "placement/",
					       "snapshots/", "volumes/", "volume-names/"};
	int res = 0;
	transaction_begin(&i->transaction, transacted);
	for (size_t k = 0; k < array_size(prefixes) && res == 0; k++)
		res = write_keys(i, prefixes[k]);
	return res;
}

/* ---- the file ---- */

static int rename_file(struct import *i)
{
	char to[sizeof(i->path) + 16];
	quarry_assert(!i->from); /* closed: SQLite has written all into the one file */
	snprintf(to, sizeof(to), "%s.imported", i->path);
	if (rename(i->path, to) < 0)
		return -errno;
	int fd = open(i->config->node.data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int res = fd < 0 || fsync(fd) < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return res;
}

/* ---- the way ---- */

/* 0, or 1 with what is wrong said. */
static int import_open(struct import *i)
{
	char why[NODE_STORE_WHY_BYTES], reason[METADATA_WHY_BYTES], place_why[PLACE_WHY_BYTES];
	const struct reactor_options options = {0};
	if (place_take(&i->place, i->config->node.data_dir, i->config->node.name, place_why) < 0) {
		say("%s", place_why);
		return 1;
	}
	int res = reactor_create(&options, &i->reactor);
	if (res == 0)
		res = log_create(-1, LOG_WARNING, &i->log);
	if (res < 0) {
		say("cannot start: %s", strerror(-res));
		return 1;
	}
	if (metadata_open_embedded(i->reactor, i->log, i->path, reason, &i->from) < 0) {
		say("%s", reason);
		return 1;
	}
	if (node_store_open_etcd(i->reactor, i->log, i->config, why, &i->to) < 0) {
		say("%s", why);
		return 1;
	}
	return 0;
}

static void import_close(struct import *i)
{
	metadata_request_clear(&i->ours.q);
	metadata_request_clear(&i->theirs.q);
	if (i->to)
		metadata_close(i->to);
	if (i->from)
		metadata_close(i->from);
	i->to = i->from = NULL;
	if (i->reactor) {
		reactor_stop(i->reactor); /* what the stores had posted is delivered */
		reactor_run(i->reactor);
		reactor_destroy(i->reactor);
	}
	if (i->log)
		log_destroy(i->log);
	place_leave(&i->place);
}

/* Until all is there. 0, or 1 with what is wrong said. */
static int import_run(struct import *i)
{
	int res = list_all(i, i->from, &i->ours);
	for (uint32_t round = 0; res == 0 && round < ROUNDS_MAX; round++) {
		res = list_all(i, i->to, &i->theirs);
		if (res < 0)
			break;
		compare(i);
		if (i->n_clashes > 0) {
			say("nothing more was imported");
			return 1;
		}
		res = write_all(i);
		if (res == 0)
			return 0;
		res = res == -EAGAIN ? 0 : res;
	}
	say("the import has not ended (%s): repeat it", res < 0 ? strerror(-res) : "the cluster keeps changing");
	return 1;
}

static int import_checks(const struct import *i)
{
	char imported[sizeof(i->path) + 16];
	snprintf(imported, sizeof(imported), "%s.imported", i->path);
	if (i->config->metadata.backend != CONFIG_ETCD) {
		say("metadata.backend is \"embedded\": write  metadata = { backend = \"etcd\"; endpoints = [ "
		    "\"http://HOST:2379\" ]; };  with the addresses of your etcd, then repeat this");
		return 1;
	}
	if (access(i->path, F_OK) == 0)
		return 0;
	if (access(imported, F_OK) == 0) {
		printf("nothing to do: %s has been imported already\n", i->path);
		return -EALREADY;
	}
	say("%s does not exist: there is nothing to import", i->path);
	return 1;
}

int import_embedded(const struct config *config)
{
	struct import i = {.config = config, .place = {.fd = -1}};
	snprintf(i.path, sizeof(i.path), "%s/metadata.db", config->node.data_dir);
	int res = import_checks(&i);
	if (res != 0)
		return res == -EALREADY ? 0 : res;
	res = import_open(&i);
	if (res == 0)
		res = import_run(&i);
	if (res == 0) {
		metadata_close(i.from); /* SQLite leaves one file then */
		i.from = NULL;
		int renamed = rename_file(&i);
		if (renamed < 0)
			say("all is imported, but %s cannot be renamed to metadata.db.imported: %s; do so before the "
			    "daemon is "
			    "started",
			    i.path, strerror(-renamed));
		else
			printf("imported %u disks and %u volumes (%u entries) into %s; %s is metadata.db.imported now: "
			       "start "
			       "quarryd\n",
			       i.n_disks, i.n_volumes, i.n_written, config->metadata.prefix, i.path);
		res = renamed < 0;
	}
	import_close(&i);
	return res;
}
