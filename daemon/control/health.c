/*
 * health.c: decides from a snapshot what is wrong with a node, in words for people.
 *
 * A problem is what someone should act on or wait for: a disk that does not serve, damage that was found, a volume
 * whose clients get errors, a pool that is full or soon will be.
 */
#include "daemon/control/answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A pool with less than this part of its space free is told of: time enough to add a disk. */
#define NEARLY_FULL_PART 20

/* Of a list the first few are named, the rest is counted. */
#define NAMED_MAX   4u
#define NAMED_BYTES (NAMED_MAX * (DISK_LABEL_BYTES + 2) + 32) /* and "and 4294967295 more" */

struct named {
	char text[NAMED_BYTES];
	uint32_t n;
};

struct telling {
	void (*each)(const struct problem *p, void *context);
	void *context;
};

static void printf_like(4, 5)
    tell(const struct telling *t, const char *code, const char *object, const char *format, ...)
{
	struct problem p = {.code = code};
	va_list args;
	quarry_assert(t->each);
	snprintf(p.object, sizeof(p.object), "%s", object);
	va_start(args, format);
	vsnprintf(p.message, sizeof(p.message), format, args);
	va_end(args);
	t->each(&p, t->context);
}

static void printf_like(2, 3) named_add(struct named *l, const char *format, ...)
{
	size_t len = strlen(l->text);
	va_list args;
	if (l->n++ >= NAMED_MAX)
		return;
	len += (size_t)snprintf(l->text + len, sizeof(l->text) - len, "%s", len ? ", " : "");
	va_start(args, format);
	vsnprintf(l->text + len, sizeof(l->text) - len, format, args);
	va_end(args);
}

/* No more is added: `n` there are. */
static const char *named_end(struct named *l, uint32_t n)
{
	size_t len = strlen(l->text);
	if (n > NAMED_MAX)
		snprintf(l->text + len, sizeof(l->text) - len, " and %u more", n - NAMED_MAX);
	return l->text;
}

/* Errors that were counted after a scrub has found, or made, all whole. */
static uint64_t errors_since(uint64_t n, uint64_t settled)
{
	return n > settled ? n - settled : 0;
}

static void tell_of_disk(const struct telling *t, const struct disk_view *v)
{
	char object[DISK_LABEL_BYTES + 8];
	uint64_t errors = v->counters ? counter_get(&v->counters->checksum_errors) : 0;
	uint64_t unread = v->counters ? counter_get(&v->counters->io_errors) : 0;
	uint64_t bad = v->scrub.bad_blocks - v->scrub.healed_blocks;
	if (v->is_elsewhere)
		return; /* its node knows */
	errors = errors_since(errors, v->scrub.settled_checksum_errors);
	unread = errors_since(unread, v->scrub.settled_io_errors);
	snprintf(object, sizeof(object), "disk %s", v->name);
	if (v->is_open && v->state == DISK_RECOVERING)
		tell(t, "disk-recovering", object, "it replays its journal; its volumes wait for that");
	else if (!v->is_open || v->state != DISK_RUNNING)
		tell(t, "disk-failed", object, "%s",
		     v->why[0] ? v->why : "it does not serve; the daemon's log says why");
	if (bad > 0 && v->is_healing)
		tell(t, "disk-damaged", object,
		     "its last scrub found %llu blocks that fail their checksums; they are being healed from other "
		     "copies",
		     (unsigned long long)bad);
	else if (bad > 0)
		tell(t, "disk-damaged", object,
		     "its last scrub found %llu blocks that fail their checksums; restore what the "
		     "events name, then scrub again",
		     (unsigned long long)bad);
	else if (errors > 0)
		tell(t, "disk-damaged", object,
		     "%llu reads failed their checksums since the daemon's start; scrub it: quarry disk "
		     "scrub %s",
		     (unsigned long long)errors, v->name);
	if (unread > 0 && v->is_open && v->state == DISK_RUNNING)
		tell(t, "disk-damaged", object,
		     "the device failed %llu reads since the daemon's start: see to it, then scrub it: quarry disk "
		     "scrub %s",
		     (unsigned long long)unread, v->name);
	if (v->stats.lost_parts > 0)
		tell(t, "disk-damaged", object,
		     "damaged pages keep %llu parts of deleted volumes or snapshots from being freed; the events name "
		     "them, and quarry disk check shows which blocks stay taken",
		     (unsigned long long)v->stats.lost_parts);
}

#define ETA_BYTES 64

/* ", for about 13 min more"; empty: it is not known. */
static void drain_eta_text(uint64_t eta_s, char text[static ETA_BYTES])
{
	text[0] = '\0';
	if (eta_s > 0)
		snprintf(text, ETA_BYTES, ", for about %llu min more", (unsigned long long)(eta_s / 60 + 1));
}

static void tell_of_drain(const struct telling *t, const struct disk_view *v)
{
	char object[DISK_LABEL_BYTES + 8], eta[ETA_BYTES];
	snprintf(object, sizeof(object), "disk %s", v->name);
	drain_eta_text(v->drain.eta_s, eta);
	if (!v->drain.is_wanted || v->drain.is_with_node || v->is_elsewhere)
		return;
	if (v->drain.is_done)
		tell(t, "disk-drained", object,
		     "it is drained and holds nothing: remove it (quarry disk remove %s), or use it again (quarry disk "
		     "drain %s --cancel)",
		     v->name, v->name);
	else if (v->drain.why[0])
		tell(t, "drain-stalled", object, "it cannot be drained now: %s", v->drain.why);
	else
		tell(t, "disk-draining", object, "it is being drained: %llu MiB are to go%s",
		     (unsigned long long)(v->drain.left_bytes / MIB), eta);
}

static void tell_of_volume(const struct telling *t, const struct volume_view *v)
{
	char object[SET_TEXT_MAX + 16];
	snprintf(object, sizeof(object), "volume %s", v->name);
	if (v->is_elsewhere && v->is_node_alive)
		return; /* the same */
	if ((v->is_attached_nbd || v->is_attached_vhost) && !v->is_serving)
		tell(t, "volume-failing", object, "%s", v->why[0] ? v->why : "it is attached and does not serve");
}

/* What is done about copies that are missing, or are too many. */
static void copies_work_text(const struct volume_view *v, char *text, size_t room)
{
	if (v->copies_why[0])
		snprintf(text, room, "; %s", v->copies_why);
	else if (v->is_rebuilding)
		snprintf(text, room, ", and are being made anew elsewhere");
	else if (v->is_evening)
		snprintf(text, room, "; the rest is being made");
	else
		snprintf(text, room, "%s", "");
}

/* How far the resync is, if there is one. */
static void resync_text(const struct volume_view *v, char *text, size_t room)
{
	char eta[48] = "";
	if (v->resync.eta_s > 0)
		snprintf(eta, sizeof(eta), ", about %llu s more", (unsigned long long)v->resync.eta_s);
	snprintf(text, room, "%s", "");
	if (v->resync.is_running)
		snprintf(text, room, "; resyncing: %u %% compared, %llu MiB copied%s", v->resync.percent,
			 (unsigned long long)(v->resync.copied_bytes / MIB), eta);
}

/* How many copies of what: the worst is told, and which disks are not current. */
static void tell_of_copies(const struct telling *t, const struct snapshot *s, const struct volume_view *v)
{
	char object[SET_TEXT_MAX + 16], work[SET_WHY_BYTES + 8], resync[128];
	struct named stale = {0};
	for (uint32_t i = 0; i < v->n_copies; i++) {
		const char *name = v->copies[i].is_stale ? snapshot_disk_name(s, &v->copies[i].disk) : NULL;
		if (v->copies[i].is_stale)
			named_add(&stale, "%s", name ? name : "a removed one");
	}
	const char *disks = named_end(&stale, stale.n);
	snprintf(object, sizeof(object), "volume %s", v->name);
	if (v->differing_blocks > 0 && !v->is_deleting)
		tell(t, "copies-differ", object,
		     "%llu blocks differ between its copies, though each matches its own checksum; compare what the "
		     "events name with a backup, write it anew, then scrub again",
		     (unsigned long long)v->differing_blocks);
	copies_work_text(v, work, sizeof(work));
	resync_text(v, resync, sizeof(resync));
	if (v->is_deleting || (stale.n == 0 && v->degraded_bytes == 0))
		return;
	if (stale.n == 0)
		tell(t, "volume-degraded", object, "%llu GiB of it have %u of %u copies%s",
		     (unsigned long long)(v->degraded_bytes / GIB), v->fewest_copies, v->replicas,
		     work[0] ? work : ": there are no disks for more in failure domains of their own");
	else if (v->degraded_bytes == 0)
		tell(t, "volume-degraded", object, "the copies on %s are not current%s", disks, resync);
	else
		tell(t, "volume-degraded", object,
		     "%llu GiB of it have only %u of %u current copies: those on %s are not%s%s",
		     (unsigned long long)(v->degraded_bytes / GIB), v->fewest_copies, v->replicas, disks, work, resync);
}

/* A volume that is being filled is well as long as somebody does it, and finds all. */
static void tell_of_fill(const struct telling *t, const struct volume_view *v)
{
	char object[SET_TEXT_MAX + 16];
	snprintf(object, sizeof(object), "volume %s", v->name);
	if (!v->fill_source[0] || v->is_deleting || v->is_elsewhere)
		return;
	struct named ranges = {0};
	_Static_assert(array_size(v->unfillable) == NAMED_MAX, "as many as are named");
	for (uint32_t i = 0; i < v->n_unfillable && i < array_size(v->unfillable); i++)
		named_add(&ranges, "%llu+%llu", (unsigned long long)v->unfillable[i].pos_bytes,
			  (unsigned long long)v->unfillable[i].len_bytes);
	if (v->unfillable_bytes > 0)
		tell(t, "fill-damaged", object,
		     "%llu bytes cannot be had and answer with I/O errors until they are overwritten: %s; repeat the "
		     "restore when its source is whole again: %s",
		     (unsigned long long)v->unfillable_bytes, named_end(&ranges, v->n_unfillable), v->fill_source);
	else if (!v->is_filling)
		tell(t, "fill-stalled", object, "nobody fills it; go on with: quarry backup restore %s %s --lazy",
		     v->fill_source, v->name);
}

static void tell_of_pool(const struct telling *t, const struct pool_view *v)
{
	char object[SET_TEXT_MAX + 16];
	bool is_nearly_full = v->free_bytes < v->size_bytes / NEARLY_FULL_PART;
	snprintf(object, sizeof(object), "pool %s", v->name);
	if (v->n_disks == 0 && v->n_volumes > 0)
		tell(t, "pool-empty", object, "it has volumes and no disk: quarry disk add PATH --pool %s", v->name);
	else if (v->n_disks_here > 0 && (v->free_bytes == 0 || (v->n_full > 0 && is_nearly_full)))
		tell(t, "pool-full", object,
		     "writes to new places fail; add a disk, trim or delete: quarry disk add PATH --pool %s", v->name);
	else if (v->n_disks_here > 0 && is_nearly_full)
		tell(t, "pool-nearly-full", object,
		     "less than %d %% of it is free; add a disk: quarry disk add PATH --pool %s",
		     100 / NEARLY_FULL_PART, v->name);
}

/* A node that was stopped is as somebody wanted it. One that died matters while something of it is missed. */
static void tell_of_node(const struct telling *t, const struct snapshot *s, const struct member_view *m)
{
	char object[SET_TEXT_MAX + 16];
	size_t n = 0;
	for (size_t i = 0; i < s->n_disks; i++)
		n += strcmp(s->disks[i].view.node, m->name) == 0;
	for (size_t i = 0; i < s->n_volumes; i++)
		n += strcmp(s->volumes[i].view.node, m->name) == 0;
	snprintf(object, sizeof(object), "node %s", m->name);
	if (m->state == MEMBER_LOST && m->is_self)
		tell(t, "lease-lost", object,
		     "it has no lease of the metadata store, so its volumes answer nothing; it goes on by itself when "
		     "it has one again: is etcd reachable from here?");
	else if (m->state == MEMBER_LOST && n > 0)
		tell(t, "node-lost", object,
		     "it does not renew its lease: start it, or see whether it can reach the metadata store; for good: "
		     "quarry disk remove DISK --force for each of its disks");
}

static void tell_of_node_drain(const struct telling *t, const struct snapshot_node *n)
{
	const struct node_drain_view *d = &n->drain;
	char object[SET_TEXT_MAX + 16], eta[ETA_BYTES];
	snprintf(object, sizeof(object), "node %s", n->view.name);
	drain_eta_text(d->eta_s, eta);
	if (!d->is_wanted || !n->view.is_self)
		return; /* it tells itself */
	if (d->is_done)
		tell(t, "node-drained", object,
		     "it is drained: it holds nothing and serves nothing; stop it, or use it again "
		     "(quarry node drain %s --cancel)",
		     n->view.name);
	else if (d->why[0])
		tell(t, "node-drain-stalled", object, "not all of it can go: %s", d->why);
	else
		tell(t, "node-draining", object, "it is being drained: %llu MiB and %u attached volumes are to go%s",
		     (unsigned long long)(d->left_bytes / MIB), d->n_attached, eta);
}

void health_each(const struct snapshot *s, void (*each)(const struct problem *p, void *context), void *context)
{
	struct telling t = {.each = each, .context = context};
	if (s->is_metadata_broken)
		tell(&t, "metadata-failed", "metadata store",
		     "writing it failed, so no command can be carried out; make sure that its disk has space and is "
		     "sound, then restart the daemon");
	for (size_t i = 0; i < s->n_nodes; i++) {
		tell_of_node(&t, s, &s->nodes[i].view);
		tell_of_node_drain(&t, &s->nodes[i]);
	}
	for (size_t i = 0; i < s->n_disks; i++) {
		tell_of_disk(&t, &s->disks[i].view);
		tell_of_drain(&t, &s->disks[i].view);
	}
	for (size_t i = 0; i < s->n_volumes; i++) {
		tell_of_volume(&t, &s->volumes[i].view);
		tell_of_copies(&t, s, &s->volumes[i].view);
		tell_of_fill(&t, &s->volumes[i].view);
	}
	for (size_t i = 0; i < s->n_pools; i++)
		tell_of_pool(&t, &s->pools[i]);
}
