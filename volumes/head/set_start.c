/*
 * set_start.c: the set begins and ends.
 *
 *   CLUSTER -> (FOUND) -> LOAD -> OPEN -> PEERS -> ATTACH -> READY        start
 *   COMMANDS -> REAP -> DETACH -> APART -> CLOSE -> SEEN -> FREE         stop
 *
 *   CLUSTER   whose node is this? FOUND: nobody's yet: a new cluster with the pool "default", in one transaction
 *   LOAD      pools, disks, volumes; where the store is this node's alone, all of it must bear this node's name
 *   OPEN      all disks of this node in parallel, each its own recovery
 *   PEERS     disks of nodes that are alive, of volumes that come back here, have PEERS_WAIT_NS to be told of: one that is
 *             not is marked stale, and has to be resynced
 *   ATTACH    every volume that this node had attached, in parallel; deletions go on in the background
 *   COMMANDS  those under way end, new ones are refused; then deletions pause, volumes are detached in memory (the
 *             store still says attached), disks are closed cleanly
 *   APART     nothing is asked of other nodes any more; disks are closed when volume_set_stop() asks for it
 *   SEEN      the store is told how far they were then (set_older.c); what it does not take it does without
 *
 * Invariants
 *  1. ready() is called once. What does not work by then has an event and a `why`, and keeps nothing else from working.
 *  2. Only a store that cannot be read, or that is another node's, makes a start fail; the set is then to be stopped.
 *  3. stopped() is the last that is heard of the set; all its memory is gone.
 *
 * Owner: the node.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START_STAGES(X) X(CLUSTER) X(FOUND) X(LOAD) X(OPEN) X(PEERS) X(ATTACH) X(READY)
#define STOP_STAGES(X)  X(COMMANDS) X(REAP) X(DETACH) X(APART) X(CLOSE) X(SEEN)
#define X(name)         START_##name,
enum start_stage { START_STAGES(X) };
#undef X
#define X(name) STOP_##name,
enum stop_stage { STOP_STAGES(X) };
#undef X

#define FOUND_TRIES_MAX 8u
/* To look who is there, connect and be told takes a second or so. */
#define PEERS_WAIT_NS (4 * NS_PER_S)

struct set_start {
	enum start_stage stage;
	int err;
	uint32_t owed, tries;
	struct volume_set *set;
	struct metadata_request get;
	struct transaction transaction;
	struct set_load load;
	struct timer peers_wait;
	bool has_waited; /* long enough for disks of other nodes */
	void (*disks_open)(struct volume_set *s, void *context);
	void (*ready)(struct volume_set *s, int res, void *context);
	void *context;
};
struct set_stop {
	enum stop_stage stage;
	uint32_t owed;
	struct volume_set *set;
	struct transaction transaction; /* SEEN */
	uint64_t seen_disks;            /* that it tells of */
	bool is_seen_refused;
	void (*detached)(void *context); /* NULL: told, or nobody asked */
	void *detached_context;
	void (*stopped)(void *context); /* NULL: not asked for yet */
	void *context;
};

static void start_run(struct set_start *t);

static void start_complete(struct set_start *t, int res)
{
	t->err = res;
	start_run(t);
}

/* ---- CLUSTER, FOUND ---- */

static void start_got(struct metadata_request *q, int res)
{
	start_complete(container_of(q, struct set_start, get), res);
}

static void start_founded(struct metadata_request *q, int res)
{
	struct set_start *t = container_of(transaction_of(q), struct set_start, transaction);
	transaction_clear(&t->transaction);
	start_complete(t, res);
}

static void start_get_cluster(struct set_start *t)
{
	t->get = (struct metadata_request){.op = METADATA_GET, .key = CLUSTER_KEY, .done = start_got};
	metadata_submit(t->set->metadata, &t->get);
}

static int start_take_cluster(struct set_start *t)
{
	char why[WHY_BYTES];
	int err = cluster_from_json(t->get.items[0].value, &t->set->cluster, why);
	if (err != 0)
		log_event(t->set->log, LOG_ERROR, "record-damaged", "cluster",
			  "the metadata store does not say which cluster this is: %s; restore it from a backup", why);
	return err;
}

static int start_found(struct set_start *t)
{
	struct pool_facts pool;
	struct uuid cluster = set_random_uuid(t->set);
	pool_facts_init(t->set, "default", &pool);
	transaction_begin(&t->transaction, start_founded);
	transaction_condition(&t->transaction, 0, CLUSTER_KEY);
	transaction_condition(&t->transaction, 0, POOL_KEY, pool.name);
	transaction_put(&t->transaction, cluster_to_json(&cluster), CLUSTER_KEY);
	transaction_put(&t->transaction, pool_to_json(&pool), POOL_KEY, pool.name);
	return transaction_submit(&t->transaction, t->set->metadata);
}

/* ---- LOAD ---- */

/* The name of another node that the store knows something of; NULL: there is none. */
static const char *start_other_node(const struct volume_set *s)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (d && !d->facts.is_removed && strcmp(d->facts.node, s->node_name) != 0)
			return d->facts.node;
	}
	list_each (node, &s->volumes) {
		const struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->facts.owner[0] && strcmp(v->facts.owner, s->node_name) != 0)
			return v->facts.owner;
	}
	return NULL;
}

/* Under another name the node would find none of its disks, and serve nothing of what it had. */
static int start_check_name(struct volume_set *s)
{
	const char *other = s->is_store_own ? start_other_node(s) : NULL;
	if (!other)
		return 0;
	text_print(s->why, sizeof(s->why),
		   "its disks and volumes are those of node \"%s\", and node.name is \"%s\": write node.name = \"%s\" "
		   "again, or give the new node a data_dir of its own",
		   other, s->node_name, other);
	return -EINVAL;
}

/* ---- OPEN, ATTACH ---- */

static void start_loaded(struct set_load *l, int res)
{
	start_complete(l->context, res);
}

static void start_disk_changed(struct set_disk *d, void *context)
{
	struct set_start *t = context;
	quarry_assert(t->owed > 0);
	t->owed--;
	start_complete(t, 0);
}

static bool disk_is_to_open(const struct set_disk *d)
{
	return d && !d->facts.is_removed && set_disk_is_ours(d);
}

/* An equal share each, and one left for a disk to come. */
static uint64_t start_share(const struct volume_set *s)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		n += disk_is_to_open(s->disks[i]);
	if (n == 0)
		return 0;
	uint64_t share = s->cache_bytes / (n + 1);
	return share >= DISK_CACHE_MIN_BYTES ? share : s->cache_bytes / n;
}

static void start_open(struct set_start *t)
{
	struct volume_set *s = t->set;
	s->cache_share = start_share(s);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		struct set_disk *d = s->disks[i];
		if (!disk_is_to_open(d))
			continue;
		t->owed++;
		if (set_disk_open(d, start_disk_changed, t) != 0)
			t->owed--;
	}
	s->cache_share = 0;
}

/* Is there a disk that may be told of any moment? */
static bool volume_misses_disk(const struct set_volume *v)
{
	for (uint32_t i = 0; i < v->facts.n_disks && set_volume_returns(v); i++) {
		const struct set_disk *d = set_disk_by_uuid(v->set, &v->facts.disks[i].uuid);
		if (d && d->state == SET_DISK_ABSENT && !set_disk_is_ours(d) &&
		    set_node_is_alive(v->set, d->facts.node))
			return true;
	}
	return false;
}

static bool start_awaits_peers(const struct set_start *t)
{
	struct volume_set *s = t->set;
	if (!s->has_peers || t->has_waited)
		return false;
	list_each (node, &s->volumes)
		if (volume_misses_disk(container_of(node, struct set_volume, link)))
			return true;
	return false;
}

/* Once, when the disks are open. */
static void start_let_peers_in(struct set_start *t)
{
	void (*disks_open)(struct volume_set * s, void *context) = t->disks_open;
	if (t->has_waited || timer_is_running(&t->peers_wait))
		return;
	timer_start(t->set->reactor, &t->peers_wait, PEERS_WAIT_NS);
	if (disks_open)
		disks_open(t->set, t->context);
}

void set_start_look(struct volume_set *s)
{
	if (s->start && s->start->stage == START_PEERS && timer_is_running(&s->start->peers_wait))
		start_run(s->start);
}

static void start_has_waited(struct timer *timer)
{
	struct set_start *t = container_of(timer, struct set_start, peers_wait);
	t->has_waited = true;
	start_run(t);
}

static void start_attached(struct set_volume *entry, int res, void *context)
{
	struct set_start *t = context;
	if (res != 0)
		log_event(t->set->log, LOG_ERROR, "volume-not-attached", entry->facts.name,
			  "volume %s was attached and could not be brought back: %s; it is tried again",
			  entry->facts.name, entry->why);
	quarry_assert(t->owed > 0);
	t->owed--;
	start_complete(t, 0);
}

static void start_attach(struct set_start *t)
{
	struct volume_set *s = t->set;
	struct attach_options o = {.is_return = true};
	t->owed = 1; /* this loop's own */
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->facts.is_deleting) {
			if (!s->members)
				reap_start(v);
		} else if (set_volume_returns(v)) {
			t->owed++;
			volume_attach(v, &o, start_attached, t);
		}
	}
	t->owed--;
	reaps_look(s);
}

/* What waits for the disks and the volumes: snapshots that were attached, deletions that were interrupted, schedules. */
static void start_histories(struct volume_set *s)
{
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->facts.is_deleting)
			continue;
		exports_return(v);
		if (snapshots_are_deleting(v) && !set_volume_is_elsewhere(v))
			sweep_want(v);
	}
	schedules_plan(s);
	drains_look(s);
	balance_start(s);
	set_seen_want(s);
}

static void start_ready(struct set_start *t)
{
	struct volume_set *s = t->set;
	void (*ready)(struct volume_set * s, int res, void *context) = t->ready;
	void *context = t->context;
	int err = t->err;
	if (err == 0)
		start_histories(s);
	timer_stop(s->reactor, &t->peers_wait);
	s->start = NULL;
	free(t);
	if (err == 0)
		takeovers_put_off(s);
	ready(s, err, context);
	commands_wake(s); /* what others have changed since the lists were read is taken in now, too */
}

/* ---- the dispatcher of the start ---- */

/* What must hold whenever the dispatcher is entered. */
static void start_check(const struct set_start *t)
{
	quarry_assert(t->set->start == t);
	quarry_assert(t->owed == 0 || t->stage >= START_PEERS);
}

static void start_run(struct set_start *t)
{
	for (;;) {
		start_check(t);
		switch (t->stage) {
		case START_CLUSTER: /* the store has answered */
			if (t->err == 0)
				t->err = start_take_cluster(t);
			metadata_request_clear(&t->get);
			t->stage = t->err ? START_READY : START_LOAD;
			if (t->err != -ENOENT)
				break;
			t->err = start_found(t);
			t->stage = t->err ? START_READY : START_FOUND;
			if (t->err == 0)
				return;
			break;
		case START_FOUND:
			if (t->err != 0 && t->err != -EAGAIN && t->err != -ETIMEDOUT) {
				t->stage = START_READY;
				break;
			}
			t->stage = ++t->tries < FOUND_TRIES_MAX ? START_CLUSTER : START_READY;
			if (t->stage == START_READY)
				break;
			start_get_cluster(t); /* also after success: what the store holds is what counts */
			return;
		case START_LOAD:
			t->stage = START_OPEN;
			set_load_start(&t->load, t->set, start_loaded, t);
			return;
		case START_OPEN:
			if (t->err == 0)
				t->err = start_check_name(t->set);
			t->stage = t->err ? START_READY : START_PEERS;
			if (t->err == 0)
				start_open(t);
			break;
		case START_PEERS:
			if (t->owed > 0)
				return;
			start_let_peers_in(t);
			if (start_awaits_peers(t))
				return;
			t->stage = START_ATTACH;
			break;
		case START_ATTACH:
			if (t->owed > 0)
				return;
			t->stage = START_READY;
			start_attach(t);
			break;
		case START_READY:
			if (t->owed > 0)
				return;
			start_ready(t);
			return;
		}
	}
}

static int set_create(const struct volume_set_options *o, struct volume_set **out)
{
	struct volume_set *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->reactor = o->reactor;
	s->log = o->log;
	s->metadata = o->metadata;
	s->cache_bytes = o->cache_bytes;
	s->is_store_own = o->is_store_own;
	s->members = o->members;
	s->rebuild_after_ns = o->rebuild_after_ns;
	s->has_peers = o->has_peers;
	text_print(s->node_name, sizeof(s->node_name), "%s", o->node_name);
	list_init(&s->peers);
	list_init(&s->pools);
	list_init(&s->node_drains);
	list_init(&s->volumes);
	list_init(&s->chunks.used);
	commands_init(s);
	schedules_init(s);
	drains_init(s);
	damage_init(s);
	balance_init(s);
	takeovers_init(s);
	returns_init(s);
	set_lease_start(s);
	set_watch_start(s);
	int err = parts_init(&s->parts, o->n_parts ? o->n_parts : PARTS_DEFAULT, true);
	if (err == 0)
		err = parts_init(&s->flushes, FLUSHES, false);
	if (err != 0) {
		(void)set_watch_stop(s);
		set_lease_stop(s);
		set_free(s);
		return err;
	}
	*out = s;
	return 0;
}

int volume_set_start(const struct volume_set_options *o, void (*ready)(struct volume_set *s, int res, void *context),
		     void *context, struct volume_set **out)
{
	quarry_assert(o->reactor && o->log && o->metadata && ready);
	if (!name_is_valid(o->node_name))
		return -EINVAL;
	struct set_start *t = calloc(1, sizeof(*t));
	int err = t ? set_create(o, out) : -ENOMEM;
	if (err != 0) {
		free(t);
		return err;
	}
	t->set = *out;
	t->ready = ready;
	t->context = context;
	t->disks_open = o->disks_open;
	timer_init(&t->peers_wait, start_has_waited);
	t->stage = START_CLUSTER;
	(*out)->start = t;
	transaction_begin(&t->transaction, start_founded);
	start_get_cluster(t);
	return 0;
}

const char *volume_set_why(const struct volume_set *s)
{
	return s->why;
}

/* ---- stop ---- */

static void stop_disk_closed(struct set_disk *d, void *context)
{
	struct volume_set *s = context;
	quarry_assert(s->stop->owed > 0);
	s->stop->owed--;
	commands_wake(s);
}

static void stop_detached(struct set_volume *entry, int res, void *context)
{
	struct volume_set *s = context;
	quarry_assert(s->stop->owed > 0);
	s->stop->owed--;
	commands_wake(s);
}

static bool stop_reaps(struct volume_set *s)
{
	bool has_stopped = true;
	list_each (node, &s->volumes)
		has_stopped &= reap_stop(container_of(node, struct set_volume, link));
	return has_stopped;
}

static void stop_snapshot_drained(struct volume *v)
{
	struct volume_set *s = v->set;
	v->state = VOLUME_SERVING; /* what compares with it may go on until it ends, too */
	snapshot_serve_end(v->snapshot);
	quarry_assert(s->stop->owed > 0);
	s->stop->owed--;
	commands_wake(s);
}

static void stop_snapshot(struct volume *v, void *context)
{
	struct volume_set *s = context;
	if (!v->snapshot->is_served)
		return;
	s->stop->owed++;
	volume_start_draining(v, stop_snapshot_drained);
}

static void stop_detach(struct volume_set *s)
{
	list_each (node, &s->volumes)
		snapshots_each_head(container_of(node, struct set_volume, link), stop_snapshot, s);
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (!v->head)
			continue;
		s->stop->owed++;
		volume_detach(v, false, stop_detached, s);
	}
}

static void stop_close(struct volume_set *s)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		struct set_disk *d = s->disks[i];
		if (!d || !d->disk)
			continue;
		s->stop->owed++;
		if (d->state != SET_DISK_CLOSING) {
			set_disk_close(d, stop_disk_closed, s);
			continue;
		}
		quarry_assert(!d->changed); /* it was taken out, and is about to be closed */
		d->changed = stop_disk_closed;
		d->context = s;
	}
}

static void stop_seen(struct metadata_request *q, int res)
{
	struct set_stop *t = container_of(transaction_of(q), struct set_stop, transaction);
	quarry_assert(t->owed == 1);
	t->owed = 0;
	if (res == 0)
		set_seen_told(t->set, t->seen_disks, q->revision);
	else
		log_line(t->set->log, LOG_INFO, "disk",
			 "the metadata store was not told how far the disks are (%s): older copies of before this end "
			 "are not noticed",
			 strerror(-res));
	t->is_seen_refused = res != 0;
	transaction_clear(&t->transaction);
	commands_wake(t->set);
}

/* As many as one transaction takes. FLOW_NEXT: all are told, or they cannot be. */
static enum flow stop_tell_seen(struct set_stop *t)
{
	struct volume_set *s = t->set;
	if (t->is_seen_refused || (s->members && members_lease_revision(s->members) == 0))
		return FLOW_NEXT;
	transaction_begin(&t->transaction, stop_seen);
	t->seen_disks = set_seen_tell(s, &t->transaction);
	if (t->seen_disks == 0)
		return FLOW_NEXT;
	t->owed = 1;
	if (transaction_submit(&t->transaction, s->metadata) == 0)
		return FLOW_WAIT;
	t->owed = 0;
	transaction_clear(&t->transaction);
	return FLOW_NEXT;
}

void set_stop_run(struct volume_set *s)
{
	struct set_stop *t = s->stop;
	if (!t)
		return;
	for (;;) {
		switch (t->stage) {
		case STOP_COMMANDS:
			if (s->start || !list_is_empty(&s->commands) || !list_is_empty(&s->aside) || !set_watch_stop(s))
				return;
			t->stage = STOP_REAP;
			break;
		case STOP_REAP:
			if (!stop_reaps(s))
				return;
			t->stage = STOP_DETACH;
			stop_detach(s);
			break;
		case STOP_DETACH:
			if (t->owed > 0)
				return;
			t->stage = STOP_APART;
			break;
		case STOP_APART:
			if (t->detached) {
				void (*detached)(void *context) = t->detached;
				t->detached = NULL;
				detached(t->detached_context); /* may stop it */
				return;
			}
			if (!t->stopped)
				return;
			t->stage = STOP_CLOSE;
			stop_close(s);
			break;
		case STOP_CLOSE:
			if (t->owed > 0 || damage_is_busy(s) || s->n_heals > 0)
				return;
			t->stage = STOP_SEEN;
			break;
		case STOP_SEEN:
			if (t->owed > 0 || stop_tell_seen(t) == FLOW_WAIT)
				return;
			set_lease_stop(s);
			void (*stopped)(void *context) = t->stopped;
			void *context = t->context;
			set_free(s);
			stopped(context);
			return;
		}
	}
}

static void stop_begin(struct volume_set *s)
{
	struct set_stop *t = calloc(1, sizeof(*t));
	quarry_assert(!s->stop);
	quarry_assert(t); /* without it there is no clean end to be had */
	t->set = s;
	s->stop = t;
	s->is_stopping = true;
	schedules_stop(s);
	drains_stop(s);
	balance_stop(s);
	damage_stop(s);
	takeovers_stop(s);
	returns_stop(s);
}

void volume_set_detach(struct volume_set *s, void (*detached)(void *context), void *context)
{
	quarry_assert(detached);
	stop_begin(s);
	s->stop->detached = detached;
	s->stop->detached_context = context;
	commands_wake(s);
}

void volume_set_stop(struct volume_set *s, void (*stopped)(void *context), void *context)
{
	quarry_assert(stopped && !(s->stop && s->stop->stopped));
	if (!s->stop)
		stop_begin(s);
	s->stop->stopped = stopped;
	s->stop->context = context;
	commands_wake(s);
}

/* ---- memory ---- */

static void set_free_volume(struct set_volume *v)
{
	if (v->attach)
		attach_abandon(v->attach);
	if (v->reap)
		reap_abandon(v->reap);
	if (v->head)
		volume_abandon(v->head);
	snapshots_fini(v);
	volume_facts_clear(&v->facts);
	free(v);
}

void set_free(struct volume_set *s)
{
	for (struct list *node; (node = list_pop(&s->volumes)) != NULL;)
		set_free_volume(container_of(node, struct set_volume, link));
	for (struct list *node; (node = list_pop(&s->pools)) != NULL;)
		free(container_of(node, struct set_pool, link));
	node_drains_fini(s);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		free(s->disks[i]);
	set_peers_abandon(s);
	damage_fini(s);
	parts_fini(&s->parts);
	parts_fini(&s->flushes);
	free(s->stop);
	free(s);
}

void volume_set_abandon(struct volume_set *s)
{
	commands_abandon(s);
	set_watch_abandon(s);
	if (s->start) {
		transaction_clear(&s->start->transaction);
		metadata_request_clear(&s->start->get);
		metadata_request_clear(&s->start->load.request);
		free(s->start);
	}
	if (s->stop)
		transaction_clear(&s->stop->transaction);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (s->disks[i] && s->disks[i]->disk)
			disk_abandon(s->disks[i]->disk);
	set_free(s);
}
