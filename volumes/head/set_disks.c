/*
 * set_disks.c: the disks of the set: opened, failed, closed, found; and the commands that remove and scrub one.
 *
 *   ABSENT -> OPENING -> RUNNING -> CLOSING -> ABSENT or REMOVED
 *               |           |          ^
 *               +-> ABSENT  +-> FAILED-+
 *
 * Those of other nodes are ABSENT or RUNNING as set_peers.c says, and are never opened here.
 *
 *   ABSENT    not open: `why` says what kept it from opening, if anything
 *   FAILED    it ran and failed: nothing is acknowledged, until it is opened anew (disk add, or the next start), which
 *             recovers it
 *   REMOVED   by force, while volumes had data on it: their requests there fail with -EIO until they are deleted
 *
 * Invariants
 *  1. Only a RUNNING disk is given requests.
 *  2. `disk` is not NULL from OPENING to the end of CLOSING.
 *  3. No head holds a tree of a disk that was closed: what it had joined there is LOST until it is attached again.
 *  4. The cache is shared out so that one more disk always finds some: at the start each gets an equal part and one
 *     part is left; a disk added later gets half of what is left (cache_given counts).
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A scrub asked for by a person should end while he waits, and still leave most of the device to the clients. */
#define SCRUB_BYTES_PER_S (256 * MIB)
/* And one comes by itself every week, slowly. */
#define SCRUB_EVERY_NS (7 * 24 * 3600 * NS_PER_S)

static void set_disk_changed(struct set_disk *d)
{
	void (*changed)(struct set_disk * d, void *context) = d->changed;
	d->changed = NULL;
	if (changed)
		changed(d, d->context);
}

static void explain_snapshot(struct volume *v, void *context)
{
	volume_explain(v);
}

/* It depends on their disks, and on this node's lease. */
void set_explain(struct volume_set *s)
{
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->head)
			volume_explain(v->head);
		snapshots_each_head(v, explain_snapshot, NULL);
	}
}

/* ---- opening ---- */

static void set_disk_leave_head(struct volume *v, void *context)
{
	struct set_disk *d = context;
	volume_disk_lose(v, d->index, -EIO);
	if (d->disk)
		return;
	/* Nothing that was written there can be flushed any more: so much was told to whoever flushed while it had failed. */
	v->disks[d->index].replica.disk = NULL;
	v->disks[d->index].replica.client = NULL;
	v->disks[d->index].written = v->disks[d->index].flushed = 0;
}

/* Sessions and trees end with the disk that gave them. */
void set_disk_leave_heads(struct set_disk *d)
{
	list_each (node, &d->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->head)
			set_disk_leave_head(v->head, d);
		snapshots_each_head(v, set_disk_leave_head, d);
		reap_leave_disk(v, d);
	}
}

static void set_disk_return_snapshot(struct volume *v, void *context)
{
	snapshot_find_trees(v);
}

void set_disk_returned(struct set_disk *d)
{
	quarry_assert(set_disk_is_running(d));
	list_each (node, &d->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		snapshots_each_head(v, set_disk_return_snapshot, NULL);
		if (v->head) {
			resync_want(v->head);
			stale_more_copies(v->head); /* there may be disks enough for a new segment */
		} else {
			return_want(v);
		}
		if (snapshots_are_deleting(v) && (v->head || set_volume_is_here(v)))
			sweep_want(v);
	}
	set_explain(d->set);
	reaps_resume(d->set);
	drains_look(d->set);
}

static void set_disk_closed(struct disk *disk, void *context)
{
	struct set_disk *d = context;
	quarry_assert(d->disk == disk);
	if (d->checkpoint > 0) /* it has run: what it has made durable since */
		set_disk_look(d);
	d->disk = NULL;
	d->state = d->facts.is_removed ? SET_DISK_REMOVED : SET_DISK_ABSENT;
	d->set->cache_given -= d->cache_bytes;
	d->cache_bytes = 0;
	set_disk_leave_heads(d);
	set_disk_changed(d);
}

static void set_disk_opened(struct disk *disk, int res, void *context)
{
	struct set_disk *d = context;
	quarry_assert(d->state == SET_DISK_OPENING);
	d->disk = disk;
	if (res == 0 && !uuid_equal(&disk_superblock(disk)->disk, &d->facts.uuid)) {
		text_print(d->why, sizeof(d->why), "%s holds another disk (%s) than the one registered", d->facts.path,
			   disk_superblock(disk)->label);
		res = -ENODEV;
	} else if (res != 0) {
		text_print(d->why, sizeof(d->why), "%s", disk_why(disk));
	}
	d->is_older = res == -ESTALE;
	if (res == 0) {
		d->state = SET_DISK_RUNNING;
		d->why[0] = 0;
		set_disk_look(d);
		set_disk_changed(d);
		return;
	}
	log_event(d->set->log, LOG_ERROR, "disk-not-opened", d->facts.name, "disk %s (%s) does not open: %s",
		  d->facts.name, d->facts.path, d->why);
	d->state = SET_DISK_CLOSING;
	disk_close(disk, set_disk_closed, d);
}

static void set_disk_failed(struct disk *disk, void *context)
{
	struct set_disk *d = context;
	if (d->state != SET_DISK_RUNNING)
		return;
	d->state = SET_DISK_FAILED;
	text_print(d->why, sizeof(d->why), "%s", disk_why(disk));
	set_disk_leave_heads(d);
	set_explain(d->set);
	drains_look(d->set);
}

static uint64_t set_disk_share(const struct volume_set *s)
{
	return s->cache_share ? s->cache_share : (s->cache_bytes - s->cache_given) / 2;
}

/* For what the disk says about damage. */
static void set_disk_name_volume(const struct uuid *volume, char *text, size_t room, void *context)
{
	const struct set_disk *d = context;
	list_each (node, &d->set->volumes) {
		const struct set_volume *v = container_of(node, struct set_volume, link);
		if (uuid_equal(&v->facts.uuid, volume)) {
			text_print(text, room, "%s", v->facts.name);
			return;
		}
	}
	uuid_to_text(volume, text);
}

static void set_disk_damaged(const struct uuid *volume, uint64_t tree_id, uint64_t block, void *context)
{
	damage_note(context, volume, tree_id, block);
}

int set_disk_open(struct set_disk *d, void (*changed)(struct set_disk *d, void *context), void *context)
{
	struct volume_set *s = d->set;
	quarry_assert(d->state == SET_DISK_ABSENT && !d->disk && !d->changed);
	d->checkpoint = d->seen_ns = 0;
	d->is_older = false;
	d->cache_bytes = set_disk_share(s);
	if (d->cache_bytes < DISK_CACHE_MIN_BYTES) {
		text_print(d->why, sizeof(d->why), "the cache is too small for one more disk: raise node.cache_mb");
		return -ENOMEM;
	}
	struct disk_options o = {.reactor = s->reactor,
				 .log = s->log,
				 .path = d->facts.path,
				 .cluster = uuid_is_zero(&d->facts.cluster) ? &s->cluster : &d->facts.cluster,
				 .cache_bytes = d->cache_bytes,
				 .checkpoint_min = d->facts.checkpoint,
				 .seen_wall_ns = d->facts.seen_ns,
				 .scrub_every_ns = SCRUB_EVERY_NS,
				 .opened = set_disk_opened,
				 .failed = set_disk_failed,
				 .name_volume = set_disk_name_volume,
				 .damaged = set_disk_damaged,
				 .context = d};
	int err = disk_open(&o, &d->disk, d->why);
	if (err != 0) {
		log_event(s->log, LOG_ERROR, "disk-not-opened", d->facts.name, "disk %s (%s) does not open: %s",
			  d->facts.name, d->facts.path, d->why);
		d->disk = NULL;
		return err;
	}
	s->cache_given += d->cache_bytes;
	d->state = SET_DISK_OPENING;
	d->changed = changed;
	d->context = context;
	return 0;
}

void set_disk_close(struct set_disk *d, void (*changed)(struct set_disk *d, void *context), void *context)
{
	quarry_assert(d->disk && d->state != SET_DISK_OPENING && !d->changed);
	d->state = SET_DISK_CLOSING;
	d->changed = changed;
	d->context = context;
	if (d->set->disk_closes)
		d->set->disk_closes(d->disk, d->set->disk_closes_context);
	disk_close(d->disk, set_disk_closed, d);
}

void volume_set_on_disk_close(struct volume_set *s, void (*closes)(struct disk *disk, void *context), void *context)
{
	s->disk_closes = closes;
	s->disk_closes_context = context;
}

/* What is freed and waits for a checkpoint counts. Of another node's disk it is what that has told last. */
uint64_t set_disk_room(const struct set_disk *d)
{
	struct disk_stats stats;
	if (!d->disk)
		return d->room_blocks;
	disk_stats(d->disk, &stats);
	uint64_t room = stats.free_blocks + stats.waiting_blocks;
	return room > stats.reserve_blocks ? room - stats.reserve_blocks : 0;
}

struct disk *volume_set_disk(struct volume_set *s, const struct uuid *disk)
{
	const struct set_disk *d = set_disk_by_uuid(s, disk);
	return set_disk_runs_here(d) ? d->disk : NULL;
}

const struct uuid *volume_set_cluster(const struct volume_set *s)
{
	return &s->cluster;
}

/* ---- finding ---- */

static bool set_disk_is_called(const struct set_disk *d, const char *object, const struct uuid *uuid)
{
	if (d->facts.is_removed || d->facts.path[0] == 0)
		return false;
	return strcmp(d->facts.name, object) == 0 || uuid_equal(&d->facts.uuid, uuid) ||
	       (set_disk_is_ours(d) && strcmp(d->facts.path, object) == 0);
}

struct set_disk *set_disk_find(struct volume_set *s, const char *object)
{
	struct uuid uuid;
	if (uuid_from_text(object, &uuid) != 0)
		uuid = (struct uuid){0};
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (s->disks[i] && set_disk_is_called(s->disks[i], object, &uuid))
			return s->disks[i];
	return NULL;
}

int command_find_disk(struct command *c)
{
	c->disk = set_disk_find(c->set, c->order->object);
	if (c->disk)
		return 0;
	return command_refuse_missing(c, "disk", c->order->object);
}

static bool volume_uses(struct set_volume *v, const struct set_disk *d)
{
	return volume_facts_disk(&v->facts, &d->facts.uuid) ||
	       (v->head && (v->head->disks[d->index].state != VOLUME_DISK_UNUSED ||
			    placer_uses_disk(v->head, d->index) || move_uses_disk(v->head, d->index)));
}

uint32_t set_disk_users(const struct set_disk *d, char *names, size_t room)
{
	uint32_t n = 0;
	size_t used = 0;
	if (room > 0)
		names[0] = 0;
	list_each (node, &d->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (!volume_uses(v, d))
			continue;
		size_t len = strlen(v->facts.name) + 2;
		if (used + len < room) {
			text_print(names + used, room - used, "%s%s", n ? ", " : "", v->facts.name);
			used = strlen(names);
		}
		n++;
	}
	return n;
}

/* ---- disk remove: CHECK -> CHANGE -> CLOSE -> END ---- */

enum disk_remove_stage { REMOVE_CHECK, REMOVE_CHANGE, REMOVE_CLOSE, REMOVE_END };

/* A node that is gone for good cannot be asked: by force, its disks are taken out of the store. */
static bool disk_is_of_lost_node(const struct command *c)
{
	return c->order->force && !set_disk_is_ours(c->disk) && !set_node_is_alive(c->set, c->disk->facts.node);
}

static void live_tree_count(const struct tree_record *t, void *context)
{
	*(uint32_t *)context += t->state == TREE_LIVE;
}

/* Is a volume about to be placed there? The store may not have told of it yet, but the disk was joined before. */
static bool disk_has_live_trees(const struct set_disk *d)
{
	uint32_t n = 0;
	if (d->disk && disk_state(d->disk) == DISK_RUNNING)
		disk_trees_each(d->disk, live_tree_count, &n);
	return n > 0;
}

/* 1: go on; 0: it is done already; -errno. */
static int disk_remove_check(struct command *c)
{
	char names[160];
	c->order->is_unchanged =
	    !set_disk_find(c->set, c->order->object) && deleted_has(c->set, "disk", c->order->object);
	if (c->order->is_unchanged)
		return 0;
	int err = command_find_disk(c);
	if (err != 0)
		return err;
	if (!disk_is_of_lost_node(c) && command_check_disk_here(c, c->disk) != 0)
		return c->err;
	uint32_t n = set_disk_users(c->disk, names, sizeof(names));
	if (n > 0 && !c->order->force)
		return command_refuse(
		    c, -EBUSY, "in-use",
		    "disk %s holds data of %u volume%s (%s): drain it first (quarry disk drain), delete them, or lose "
		    "what lies there with --force",
		    c->disk->facts.name, n, n == 1 ? "" : "s", names);
	if (!c->order->force && disk_has_live_trees(c->disk))
		return command_refuse(
		    c, -EBUSY, "in-use",
		    "disk %s has maps of a volume, which may be about to be placed there, or are dropped "
		    "soon: try again, or drain it first (quarry disk drain)",
		    c->disk->facts.name);
	c->was_running = c->disk->state == SET_DISK_RUNNING;
	if (c->was_running)
		c->disk->state = SET_DISK_CLOSING; /* nothing is placed on it from now on */
	return 1;
}

static void disk_remove_undo(struct command *c)
{
	if (c->was_running && c->disk->state == SET_DISK_CLOSING)
		c->disk->state = SET_DISK_RUNNING;
	if (c->disk->facts.is_removed) /* it came about all the same, as the store says */
		set_disk_take_out(c->disk);
}

static int disk_remove_decide(struct command *c)
{
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&c->disk->facts.uuid, uuid);
	if (c->disk->facts.is_removed)
		return 0;
	transaction_condition(&c->transaction, c->disk->facts.revision, DISK_KEY, uuid);
	if (!set_disk_is_ours(c->disk)) /* its node is gone, and has not come back meanwhile */
		transaction_condition(&c->transaction, 0, LEASE_KEY, c->disk->facts.node);
	c->disk_facts = c->disk->facts;
	c->disk_facts.is_removed = true;
	if (set_disk_users(c->disk, NULL, 0) > 0 || disk_has_live_trees(c->disk))
		transaction_put(&c->transaction, disk_to_json(&c->disk_facts), DISK_KEY, uuid);
	else
		transaction_delete(&c->transaction, DISK_KEY, uuid);
	c->deleted = deleted_make("disk", c->disk->facts.name);
	text_print(c->deleted.names[1], sizeof(c->deleted.names[1]), "%s", c->disk->facts.path);
	text_print(c->deleted.names[2], sizeof(c->deleted.names[2]), "%s", uuid);
	deleted_put(c->set, &c->transaction, &c->deleted);
	return 1;
}

static void disk_remove_apply(struct command *c, uint64_t revision)
{
	c->disk->facts.is_removed = true;
	c->disk->facts.revision = revision;
	deleted_add(c->set, &c->deleted);
}

static void disk_remove_closed(struct set_disk *d, void *context)
{
	struct command *c = context;
	quarry_assert(c->disk == d && !d->disk);
	c->kind->run(c);
}

static void disk_remove_finish(struct command *c)
{
	struct set_disk *d = c->disk;
	log_event(c->set->log, LOG_NOTICE, "disk-removed", d->facts.name,
		  "disk %s (%s) has been removed from pool %s%s", d->facts.name, d->facts.path, d->facts.pool,
		  c->order->force ? " by force" : "");
	d->state = SET_DISK_REMOVED;
	text_print(d->why, sizeof(d->why), "it was removed by force");
	if (set_disk_users(d, NULL, 0) == 0)
		set_disk_forget(d);
	set_explain(c->set);
	drains_look(c->set);
	reaps_resume(c->set); /* one that waited for it waits no more */
}

static void disk_remove_run(struct command *c)
{
	for (;;) {
		switch ((enum disk_remove_stage)c->stage) {
		case REMOVE_CHECK:
			c->stage = disk_remove_check(c) == 1 ? REMOVE_CHANGE : REMOVE_END;
			if (c->stage == REMOVE_END)
				break;
			change_run(c);
			return;
		case REMOVE_CHANGE:
			c->stage = c->err ? REMOVE_END : REMOVE_CLOSE;
			if (c->err != 0) {
				disk_remove_undo(c);
				break;
			}
			if (c->disk->client)
				set_disk_lose(c->disk, "it was removed by force");
			if (!c->disk->disk)
				break;
			set_disk_close(c->disk, disk_remove_closed, c);
			return;
		case REMOVE_CLOSE:
			disk_remove_finish(c);
			c->stage = REMOVE_END;
			break;
		case REMOVE_END:
			command_end(c);
			return;
		}
	}
}

const struct command_kind command_disk_remove = {
    .name = "disk remove", .run = disk_remove_run, .decide = disk_remove_decide, .apply = disk_remove_apply};

/* ---- disk scrub ---- */

/* Of the volumes that are served here and have a copy there. */
static void compare_copies_on(const struct set_disk *d)
{
	list_each (node, &d->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->head && volume_facts_disk(&v->facts, &d->facts.uuid))
			compare_now(v->head);
	}
}

static void disk_scrub_run(struct command *c)
{
	if (command_find_disk(c) == 0 && command_check_disk_here(c, c->disk) == 0) {
		if (!set_disk_is_running(c->disk)) {
			command_refuse(c, -EIO, "failed", "disk %s does not run: %s", c->disk->facts.name,
				       c->disk->why);
		} else {
			int err = disk_scrub_start(c->disk->disk, SCRUB_BYTES_PER_S, true);
			if (err != 0 && err != -EBUSY) /* one is under way: that is what was asked for */
				command_refuse(c, err, "failed", "disk %s cannot be scrubbed: %s", c->disk->facts.name,
					       strerror(-err));
			else
				compare_copies_on(c->disk);
		}
	}
	command_end(c);
}

const struct command_kind command_disk_scrub = {.name = "disk scrub", .run = disk_scrub_run};
