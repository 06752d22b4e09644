/*
 * set_disk_add.c: the command that makes a disk of a file or device and takes it into a pool.
 *
 *   CHECK -> FORMAT -> PROBE -> REGISTER -> OPEN -> END
 *     +----> CLOSE -> REOPEN -> OPEN -> END                 a disk that is registered and does not run
 *               ^         |
 *               +-FORGET <- ACCEPT                          an older copy of it, with --accept-older: see set_older.c
 *
 *   FORMAT    blocks for as long as writing a file through takes: on a thread of its own, while other commands pass
 *   PROBE     opens what is there now. Where FORMAT refused to destroy something: an empty disk of this cluster and
 *             pool, with the wanted properties and unknown to the store, is what an earlier try has formatted, and is
 *             taken as it is (P6); anything else stays refused
 *   REGISTER  one transaction, after which the disk exists
 *   CLOSE     a disk that has failed, so that it can be opened anew; what waited for it goes on when it runs
 *   ACCEPT    what the volumes' records say of it is said no more
 *   FORGET    one transaction: nor how far it was
 *
 * Invariants
 *  1. Nothing is formatted that is registered, or by two at a time.
 *  2. A crash between FORMAT and REGISTER leaves a formatted, empty file; the next try finds and registers it.
 *  3. The thread has the maker to itself until it has posted its message, but for the count of what is written; nothing
 *     else of it touches the set.
 */
#include "daemon/core/size_text.h"
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADD_STAGES(X) X(CHECK) X(FORMAT) X(PROBE) X(REGISTER) X(CLOSE) X(REOPEN) X(ACCEPT) X(FORGET) X(OPEN) X(END)
#define X(name)       ADD_##name,
enum add_stage { ADD_STAGES(X) };
#undef X

struct disk_maker {
	struct message message;
	struct command *command;
	struct reactor *home;
	pthread_t thread;
	bool has_thread;
	char path[SET_TEXT_MAX], label[DISK_LABEL_BYTES];
	struct disk_format_options options;
	_Atomic uint64_t written_bytes; /* the thread adds to it, views look at it */
	int err;
	char why[WHY_BYTES];
	struct disk *probed;
	bool is_found;
	struct superblock found;
	uint32_t n_trees;
};

/* ---- CHECK ---- */

/* Has a disk this name, or one that is being made? */
static bool disk_name_is_taken(struct volume_set *s, const char *name)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (s->disks[i] && strcmp(s->disks[i]->facts.name, name) == 0)
			return true;
	list_each (node, &s->aside) {
		const struct command *c = container_of(node, struct set_command, link)->own;
		if (c->maker && strcmp(c->maker->label, name) == 0)
			return true;
	}
	return false;
}

/* NODE-dN with the least N that is free. */
static void disk_name_choose(struct volume_set *s, char name[static DISK_LABEL_BYTES])
{
	uint32_t n = 1;
	do {
		text_print(name, DISK_LABEL_BYTES, "%.50s-d%u", s->node_name, n++);
	} while (disk_name_is_taken(s, name));
}

static uint32_t set_disks_count(const struct volume_set *s)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		n += s->disks[i] != NULL;
	return n;
}

/* Is this the disk that the order speaks of? To have one that does not run opened, its path is enough. */
static bool add_is_alike(const struct set_command *o, const struct set_disk *d)
{
	bool is_down = !set_disk_is_running(d);
	bool has_pool = (is_down && o->pool[0] == 0) || strcmp(d->facts.pool, order_pool(o)) == 0;
	bool has_space = (is_down && !o->reserve) || d->facts.is_reserved == o->reserve;
	return has_pool && has_space && (o->size_bytes == 0 || o->size_bytes == d->facts.size_bytes);
}

/* The path is registered: the same again is success, once the disk runs. */
static int add_exists(struct command *c, struct set_disk *d)
{
	const struct set_command *o = c->order;
	if (!add_is_alike(o, d))
		return command_refuse(
		    c, -EEXIST, "exists",
		    "%s is disk %s of pool %s already, with other properties: remove it first (quarry disk "
		    "remove)",
		    o->path, d->facts.name, d->facts.pool);
	if (d->state == SET_DISK_ABSENT || d->state == SET_DISK_FAILED)
		c->disk = d;
	else if (!set_disk_is_running(d))
		return command_refuse(c, -EIO, "failed", "%s is disk %s already, and does not run: %s", o->path,
				      d->facts.name, d->why);
	else
		c->order->is_unchanged = true;
	return 0;
}

/* Another command makes a disk of the path at this moment. It has the file's lock, for which a second would wait. */
static bool path_is_being_added(struct volume_set *s, const char *path)
{
	list_each (node, &s->aside) {
		const struct command *c = container_of(node, struct set_command, link)->own;
		if (c->maker && strcmp(c->maker->path, path) == 0)
			return true;
	}
	return false;
}

/* 1: go on; 0: it is there already, c->disk if it is to be opened; -errno. */
static int add_check(struct command *c)
{
	const struct set_command *o = c->order;
	struct set_pool *pool = NULL;
	char size[SIZE_TEXT_BYTES];
	if (o->path[0] == 0)
		return command_refuse(c, -EINVAL, "invalid", "no path was given");
	if (o->size_bytes % BLOCK_BYTES != 0)
		return command_refuse(c, -EINVAL, "invalid",
				      "a disk of %s is not possible: the size is a multiple of 4K",
				      size_text(o->size_bytes, size));
	if (command_check_pool(c, &pool) != 0)
		return c->err;
	struct set_disk *there = set_disk_find(c->set, o->path);
	if (there)
		return add_exists(c, there);
	if (o->accept_older)
		return command_refuse(c, -ENOENT, "not-found",
				      "%s is no disk that is known here: there is nothing that it could be older than",
				      o->path);
	if (command_check_node_takes(c, c->set->node_name) != 0)
		return c->err;
	if (path_is_being_added(c->set, o->path))
		return command_refuse(c, -EAGAIN, "busy",
				      "%s is being added by another command: wait until quarry disk list shows it",
				      o->path);
	if (set_disks_count(c->set) == SET_DISKS_MAX)
		return command_refuse(c, -EMFILE, "too-many", "there are %u disks already: no more can be used",
				      SET_DISKS_MAX);
	if ((c->set->cache_bytes - c->set->cache_given) / 2 < DISK_CACHE_MIN_BYTES)
		return command_refuse(
		    c, -ENOMEM, "no-memory",
		    "the disks in use have taken the cache: start the daemon again, which shares it out anew, or raise "
		    "node.cache_mb");
	return 1;
}

static int add_prepare(struct command *c)
{
	const struct set_command *o = c->order;
	struct disk_maker *m = calloc(1, sizeof(*m));
	if (!m)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory to add a disk");
	c->maker = m;
	m->command = c;
	m->home = c->set->reactor;
	text_print(m->path, sizeof(m->path), "%s", o->path);
	disk_name_choose(c->set, m->label);
	m->options = (struct disk_format_options){.disk = set_random_uuid(c->set),
						  .pool = set_pool_find(c->set, order_pool(o))->facts.uuid,
						  .cluster = c->set->cluster,
						  .label = m->label,
						  .size_bytes = o->size_bytes,
						  .reserve = o->reserve,
						  .written_bytes = &m->written_bytes,
						  .force = o->force};
	return 0;
}

/* ---- FORMAT ---- */

static void maker_delivered(struct message *message)
{
	struct disk_maker *m = container_of(message, struct disk_maker, message);
	pthread_join(m->thread, NULL);
	m->has_thread = false;
	command_step_back_in(m->command);
}

static void *maker_thread(void *context)
{
	struct disk_maker *m = context;
	struct reactor_options options = {.n_entries = 64};
	struct reactor *r;
	m->err = reactor_create(&options, &r);
	if (m->err != 0) {
		text_print(m->why, sizeof(m->why), "no reactor could be made: %s", strerror(-m->err));
	} else {
		m->err = disk_format(r, m->path, &m->options, m->why);
		reactor_destroy(r);
	}
	reactor_post(m->home, &m->message);
	return NULL;
}

static int maker_start(struct command *c)
{
	struct disk_maker *m = c->maker;
	m->message.deliver = maker_delivered;
	int err = pthread_create(&m->thread, NULL, maker_thread, m);
	if (err != 0)
		return command_refuse(c, -err, "no-memory", "no thread could be started: %s", strerror(err));
	m->has_thread = true;
	command_step_aside(c);
	return 0;
}

/* ---- PROBE ---- */

static void probe_count(const struct tree_record *t, void *context)
{
	((struct disk_maker *)context)->n_trees++;
}

static void probe_closed(struct disk *d, void *context)
{
	struct disk_maker *m = context;
	m->probed = NULL;
	m->command->kind->run(m->command);
}

static void probe_opened(struct disk *d, int res, void *context)
{
	struct disk_maker *m = context;
	m->is_found = res == 0;
	if (res == 0) {
		m->found = *disk_superblock(d);
		disk_trees_each(d, probe_count, m);
	} else if (m->err == 0) {
		text_print(m->why, sizeof(m->why), "%s was formatted and does not open: %s", m->path, disk_why(d));
	}
	disk_close(d, probe_closed, m);
}

/* Looks at the disk that is there, ours or not. false: it cannot even be opened. */
static bool probe_start(struct command *c)
{
	struct disk_maker *m = c->maker;
	char why[WHY_BYTES];
	if (m->err != 0 && m->err != -EEXIST)
		return false;
	struct disk_options o = {.reactor = c->set->reactor,
				 .log = c->set->log,
				 .path = m->path,
				 .cluster = &c->set->cluster,
				 .cache_bytes = DISK_CACHE_MIN_BYTES,
				 .is_read_only = true,
				 .is_probe = true,
				 .opened = probe_opened,
				 .context = m};
	int err = disk_open(&o, &m->probed, why);
	if (err != 0 && m->err == 0)
		text_print(m->why, sizeof(m->why), "%s was formatted and cannot be opened: %s", m->path, why);
	return err == 0;
}

static bool probe_fits(const struct command *c)
{
	const struct disk_maker *m = c->maker;
	return m->n_trees == 0 && pointer_is_hole(m->found.volumes) && uuid_equal(&m->found.pool, &m->options.pool) &&
	       m->found.is_reserved == m->options.reserve && !set_disk_by_uuid(c->set, &m->found.disk) &&
	       (m->options.size_bytes == 0 || m->options.size_bytes == m->found.n_blocks * BLOCK_BYTES);
}

static void add_judge(struct command *c)
{
	struct disk_maker *m = c->maker;
	if (m->err == -EEXIST && m->is_found && probe_fits(c))
		m->err = 0;
	if (m->err == 0 && !m->is_found)
		m->err = -EIO;
	if (m->err != 0) {
		command_refuse(c, m->err, m->err == -EEXIST ? "holds-data" : "failed", "%s", m->why);
		return;
	}
	m->options.disk = m->found.disk;
	text_print(m->label, sizeof(m->label), "%s", m->found.label);
}

/* ---- REGISTER ---- */

static int add_decide(struct command *c)
{
	const struct disk_maker *m = c->maker;
	char uuid[UUID_TEXT_BYTES];
	struct set_pool *pool;
	if (c->disk)
		return older_accept_decide(c);
	uuid_to_text(&m->options.disk, uuid);
	if (set_disk_by_uuid(c->set, &m->options.disk))
		return 0;
	if (command_check_pool(c, &pool) != 0)
		return c->err;
	c->disk_facts = (struct disk_facts){
	    .uuid = m->options.disk, .size_bytes = m->found.n_blocks * BLOCK_BYTES, .is_reserved = m->options.reserve};
	text_print(c->disk_facts.node, sizeof(c->disk_facts.node), "%s", c->set->node_name);
	text_print(c->disk_facts.path, sizeof(c->disk_facts.path), "%s", m->path);
	text_print(c->disk_facts.pool, sizeof(c->disk_facts.pool), "%s", pool->facts.name);
	text_print(c->disk_facts.name, sizeof(c->disk_facts.name), "%s", m->label);
	command_enter_pool(c, pool);
	transaction_condition(&c->transaction, 0, DISK_KEY, uuid);
	transaction_put(&c->transaction, disk_to_json(&c->disk_facts), DISK_KEY, uuid);
	return 1;
}

static void add_apply(struct command *c, uint64_t revision)
{
	if (c->disk)
		return older_accept_apply(c, revision);
	c->disk_facts.revision = revision;
	command_entered_pool(c, c->disk_facts.pool, revision);
	if (!set_disk_put(c->set, &c->disk_facts))
		command_refuse(c, -ENOMEM, "no-memory",
			       "it is done, but there is no memory to remember it: start the daemon again");
}

/* ---- OPEN ---- */

static void add_opened(struct set_disk *d, void *context)
{
	struct command *c = context;
	if (!set_disk_is_running(d))
		command_refuse(c, -EIO, "failed", "disk %s was added and does not open: %s", d->facts.name, d->why);
	else
		log_event(c->set->log, LOG_NOTICE, "disk-added", d->facts.name, "disk %s (%s) is in pool %s",
			  d->facts.name, d->facts.path, d->facts.pool);
	set_seen_want(c->set);
	c->kind->run(c);
}

static int add_open(struct command *c)
{
	struct set_disk *d = set_disk_by_uuid(c->set, &c->maker->options.disk);
	quarry_assert(d);
	if (set_disk_open(d, add_opened, c) == 0)
		return 0;
	return command_refuse(c, -EIO, "failed", "disk %s was added and does not open: %s", d->facts.name, d->why);
}

/* ---- CLOSE, REOPEN ---- */

static void add_closed(struct set_disk *d, void *context)
{
	struct command *c = context;
	quarry_assert(c->disk == d && !d->disk);
	c->kind->run(c);
}

static bool add_accepts(const struct command *c)
{
	return c->disk && c->disk->is_older && c->order->accept_older;
}

static void add_reopened(struct set_disk *d, void *context)
{
	struct command *c = context;
	if (add_accepts(c)) {
		c->stage = ADD_ACCEPT;
	} else if (!set_disk_is_running(d)) {
		command_refuse(c, -EIO, "failed", "%s is disk %s already, and does not open: %s", d->facts.path,
			       d->facts.name, d->why);
	} else {
		log_event(c->set->log, LOG_NOTICE, "disk-reopened", d->facts.name, "disk %s (%s) serves again",
			  d->facts.name, d->facts.path);
		set_disk_returned(d);
	}
	set_seen_want(c->set);
	c->kind->run(c);
}

static int add_reopen(struct command *c)
{
	struct set_disk *d = c->disk;
	if (set_disk_open(d, add_reopened, c) == 0)
		return 0;
	return command_refuse(c, -EIO, "failed", "%s is disk %s already, and does not open: %s", d->facts.path,
			      d->facts.name, d->why);
}

/* ---- the dispatcher ---- */

static enum add_stage add_first_stage(struct command *c)
{
	int verdict = add_check(c);
	if (verdict == 1 && add_prepare(c) == 0)
		return ADD_FORMAT;
	return verdict == 0 && c->disk ? ADD_CLOSE : ADD_END;
}

/* What must hold whenever the dispatcher is entered: what the thread used is ours again (3). */
static void disk_add_check(const struct command *c)
{
	quarry_assert(!c->maker || !c->maker->has_thread);
	quarry_assert(!c->maker || !c->maker->probed);
	quarry_assert(!c->disk || !c->maker); /* either one that is there, or a new one */
}

static void disk_add_run(struct command *c)
{
	for (;;) {
		disk_add_check(c);
		if (c->err != 0)
			c->stage = ADD_END;
		switch ((enum add_stage)c->stage) {
		case ADD_CHECK:
			c->stage = add_first_stage(c);
			if (c->stage == ADD_FORMAT && maker_start(c) == 0)
				return;
			break;
		case ADD_FORMAT:
			c->stage = ADD_PROBE;
			if (probe_start(c))
				return;
			break;
		case ADD_PROBE:
			add_judge(c);
			c->stage = ADD_REGISTER;
			if (c->err != 0)
				break;
			change_run(c);
			return;
		case ADD_REGISTER:
			c->stage = ADD_OPEN;
			if (add_open(c) == 0)
				return;
			break;
		case ADD_CLOSE:
			c->stage = ADD_REOPEN;
			if (!c->disk->disk)
				break;
			set_disk_close(c->disk, add_closed, c);
			return;
		case ADD_REOPEN:
			c->stage = ADD_OPEN;
			if (add_reopen(c) == 0)
				return;
			break;
		case ADD_ACCEPT:
			if (older_accept_volumes(c) == FLOW_WAIT)
				return;
			c->stage = ADD_FORGET;
			change_run(c);
			return;
		case ADD_FORGET:
			c->stage = ADD_CLOSE;
			break;
		case ADD_OPEN:
			c->stage = ADD_END;
			break;
		case ADD_END:
			free(c->maker);
			c->maker = NULL;
			command_end(c);
			return;
		}
	}
}

void volume_set_disks_adding(struct volume_set *s, void (*each)(const struct disk_adding_view *v, void *context),
			     void *context)
{
	list_each (node, &s->aside) {
		const struct command *c = container_of(node, struct set_command, link)->own;
		if (!c->maker)
			continue;
		struct disk_adding_view v = {.size_bytes = c->order->size_bytes,
					     .written_bytes = atomic_load(&c->maker->written_bytes),
					     .is_reserved = c->order->reserve};
		text_print(v.path, sizeof(v.path), "%s", c->order->path);
		text_print(v.pool, sizeof(v.pool), "%s", order_pool(c->order));
		each(&v, context);
	}
}

void disk_maker_abandon(struct disk_maker *m)
{
	quarry_assert(!m->has_thread);
	if (m->probed)
		disk_abandon(m->probed);
	free(m);
}

const struct command_kind command_disk_add = {
    .name = "disk add", .run = disk_add_run, .decide = add_decide, .apply = add_apply};
