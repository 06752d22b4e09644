/*
 * set_older.c: an older copy of a disk, put back, is told from the disk as it was, and used only when somebody says so.
 *
 * The store remembers of each disk a checkpoint that it has been at. A disk makes one whenever it is opened, before it is
 * used, and another when it is closed. So what was copied before its last opening, or, when it was closed cleanly, before
 * that, is behind what the store remembers, and is not opened (disk_options.checkpoint_min).
 *
 *   seen     one transaction: the store is told of the disks that have got further. By a command of the set's own when they
 *            have been opened, and once more when the set has closed them
 *   accept   a part of disk add --accept-older: VOLUMES, one after the other, then the disk's own key; then it is opened
 *
 * Invariants
 *  1. First the disk, then the store: what the store remembers was durable on the disk before. So a crash between the two
 *     leaves the disk ahead, never behind.
 *  2. What is behind is not written to: it would catch up.
 *  3. Before an accepted copy is opened, the record of every volume with several copies says that it may lack anything:
 *     whichever head comes next takes it for current only where no other copy is (volume_attach.c).
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <string.h>

/* In one transaction, beside what else is in it; of more, the others are told of the next time. */
#define SEEN_DISKS_MAX 24u

/* ---- seen ---- */

void set_disk_look(struct set_disk *d)
{
	quarry_assert(d->disk);
	d->checkpoint = disk_superblock(d->disk)->checkpoint;
	d->seen_ns = reactor_wall_ns(d->set->reactor);
}

static bool disk_is_further(const struct set_disk *d)
{
	return d && set_disk_is_ours(d) && !d->facts.is_removed && d->facts.revision > 0 &&
	       d->checkpoint > d->facts.checkpoint;
}

uint64_t set_seen_tell(struct volume_set *s, struct transaction *t)
{
	uint64_t disks = 0;
	uint32_t n = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX && n < SEEN_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		char uuid[UUID_TEXT_BYTES];
		if (!disk_is_further(d))
			continue;
		struct disk_facts facts = d->facts;
		facts.checkpoint = d->checkpoint;
		facts.seen_ns = d->seen_ns;
		uuid_to_text(&facts.uuid, uuid);
		transaction_condition(t, facts.revision, DISK_KEY, uuid);
		transaction_put(t, disk_to_json(&facts), DISK_KEY, uuid);
		disks |= 1ull << i;
		n++;
	}
	return disks;
}

void set_seen_told(struct volume_set *s, uint64_t disks, uint64_t revision)
{
	for (; disks != 0; disks &= disks - 1) {
		struct set_disk *d = s->disks[__builtin_ctzll(disks)];
		quarry_assert(d && d->checkpoint > d->facts.checkpoint);
		d->facts.checkpoint = d->checkpoint;
		d->facts.seen_ns = d->seen_ns;
		d->facts.revision = revision;
	}
}

static int seen_decide(struct command *c)
{
	c->seen_disks = set_seen_tell(c->set, &c->transaction);
	return c->seen_disks != 0;
}

static void seen_apply(struct command *c, uint64_t revision)
{
	set_seen_told(c->set, c->seen_disks, revision);
}

const struct command_kind command_seen = {
    .name = "disks seen", .run = command_change_run, .decide = seen_decide, .apply = seen_apply};

static void seen_over(struct set_command *o, int res)
{
	struct volume_set *s = set_own_ended(o);
	if (res == 0) /* there may be more than one transaction takes */
		set_seen_want(s);
}

void set_seen_want(struct volume_set *s)
{
	bool is_needed = false;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		is_needed |= disk_is_further(s->disks[i]);
	if (is_needed && !s->is_stopping) /* without memory, the next opening tells it, or the end */
		set_order_own(s, SET_DISKS_SEEN, seen_over);
}

/* ---- accept ---- */

/* Does the record still say of the disk what may not hold? Of a volume with one copy nobody knows better. */
static bool accept_concerns(struct set_volume *entry, const struct set_disk *d)
{
	const struct volume_disk_facts *known = volume_facts_disk(&entry->facts, &d->facts.uuid);
	if (!known || known->is_left || entry->facts.is_deleting || !volume_facts_are_replicated(&entry->facts))
		return false;
	return known->is_stale ? known->since > 0 || known->had_before > 0 : !known->is_older;
}

static int accept_change(struct record_update *u, struct volume_facts *facts)
{
	const struct command *c = container_of(u, struct command, update);
	struct volume_disk_facts *known = volume_facts_disk(facts, &c->disk->facts.uuid);
	if (!known || known->is_left)
		return 0;
	known->is_older = !known->is_stale;
	if (known->is_stale)
		known->since = known->had_before = 0;
	return 0;
}

static void accept_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res !=
	    0) /* -ENOENT: it has been deleted, of which this node's copies are not told before the command ends */
		command_refuse_store(c, res == -ENOENT ? -EAGAIN : res);
	c->kind->run(c);
}

enum flow older_accept_volumes(struct command *c)
{
	quarry_assert(c->disk && c->disk->is_older && !c->disk->disk);
	list_each (node, &c->set->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		if (!accept_concerns(entry, c->disk))
			continue;
		c->update = (struct record_update){.change = accept_change, .done = accept_recorded};
		record_update_start(&c->update, entry);
		return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

int older_accept_decide(struct command *c)
{
	char uuid[UUID_TEXT_BYTES];
	c->disk_facts = c->disk->facts;
	c->disk_facts.checkpoint = c->disk_facts.seen_ns = 0;
	uuid_to_text(&c->disk->facts.uuid, uuid);
	transaction_condition(&c->transaction, c->disk->facts.revision, DISK_KEY, uuid);
	transaction_put(&c->transaction, disk_to_json(&c->disk_facts), DISK_KEY, uuid);
	return 1;
}

void older_accept_apply(struct command *c, uint64_t revision)
{
	struct set_disk *d = c->disk;
	log_event(
	    c->set->log, LOG_WARNING, "disk-older-accepted", d->facts.name,
	    "an older copy of disk %s (%s) was accepted: volumes with other copies take from these what it lacks; "
	    "of all others, what was written there since is lost",
	    d->facts.name, d->facts.path);
	d->facts.checkpoint = d->facts.seen_ns = 0;
	d->facts.revision = revision;
	d->is_older = false;
}
