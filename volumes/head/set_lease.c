/*
 * set_lease.c: what the heads of this node do while it has no lease.
 *
 *   HOLDS -> LAPSED -> HOLDS                       the same lease: nobody can have taken anything meanwhile
 *               +----> UNSURE -> HOLDS             another one: first all is read that others may have done
 *
 * A request of a client that has been carried out is answered only while the lease holds [LEASEEND]. Else it waits:
 * when the lease is back and the volume is still this node's, nobody else has changed it, and the answer is as good as
 * ever. If another node has taken the volume over, its head is fenced and the answer is an error. LEASE_PATIENCE_NS
 * after the lease has lapsed those that wait get an error, and new ones too, until there is one again.
 *
 * Invariants
 *  1. No request is answered with success without a lease, nor before it is known what was done since the last one.
 *  2. A request in `waiting` is in VOLUME_IO_REPLY, its parts are back, and its range is free.
 *
 * Owner: the set. Without a cluster the lease always holds.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>

bool set_lease_holds(const struct volume_set *s)
{
	return !s->members || (!s->lease.is_unsure && members_may_serve(s->members));
}

const char *set_lease_why(const struct volume_set *s)
{
	if (s->lease.is_lapsed)
		return "this node has no lease: it cannot reach the metadata store, or was stopped for too long; it "
		       "goes on by itself when it has one again and no other node has taken the volume over";
	if (s->lease.is_unsure)
		return "this node had no lease for a while, and is reading what other nodes did meanwhile";
	return NULL;
}

/* ---- who waits ---- */

int set_lease_await(struct volume_set *s, struct volume_io *io)
{
	if (!set_lease_is_patient(io->own.volume))
		return -EIO;
	list_append(&s->lease.waiting, &io->own.line);
	return 0;
}

bool set_lease_is_patient(const struct volume *v)
{
	return v->set->members && !v->set->lease.is_over && !v->is_fenced && v->state != VOLUME_DRAINING;
}

/* Those of one volume, or of all: each decides anew. */
static void lease_wake(struct volume_set *s, const struct volume *of)
{
	list_each_safe (node, &s->lease.waiting) {
		struct volume_io *io = container_of(node, struct volume_io, own.line);
		if (!of || io->own.volume == of)
			volume_io_wake(io, 0);
	}
}

void set_lease_drain(struct volume *v)
{
	quarry_assert(v->state == VOLUME_DRAINING || v->is_fenced);
	lease_wake(v->set, v);
}

static void patience_over(struct timer *t)
{
	struct volume_set *s = container_of(t, struct volume_set, lease.patience);
	s->lease.is_over = true;
	log_event(s->log, LOG_ERROR, "lease-waited", s->node_name,
		  "this node has had no lease for too long: requests of its clients fail until it has one again");
	lease_wake(s, NULL);
}

/* ---- what the lease does ---- */

static struct volume_set *set_of(struct members_listener *l)
{
	return container_of(l, struct volume_set, lease.listener);
}

static void lease_lapsed(struct members_listener *l)
{
	struct volume_set *s = set_of(l);
	s->lease.is_lapsed = true;
	if (!s->lease.is_over && !timer_is_running(&s->lease.patience))
		timer_start(s->reactor, &s->lease.patience, LEASE_PATIENCE_NS);
	set_explain(s);
}

static void lease_holds_again(struct volume_set *s)
{
	timer_stop(s->reactor, &s->lease.patience);
	s->lease.is_over = false;
	set_explain(s);
	lease_wake(s, NULL);
}

static void lease_returned(struct members_listener *l, bool is_new)
{
	struct volume_set *s = set_of(l);
	s->lease.is_lapsed = false;
	s->lease.is_unsure |= is_new;
	if (is_new)
		takeovers_put_off(s);
	if (s->lease.is_unsure)
		set_watch_missed(s);
	else
		lease_holds_again(s);
}

/* Segments may have moved meanwhile: a volume's head is fenced then, its snapshots' are not. What is read now is read again
 * from where it lies; what has been read fails. */
static void lease_forget_places(struct volume *v, void *context)
{
	list_each_safe (node, &v->set->lease.waiting) {
		struct volume_io *io = container_of(node, struct volume_io, own.line);
		if (io->own.volume == v)
			volume_io_wake(io, -EIO);
	}
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].state == VOLUME_DISK_JOINED)
			volume_disk_lose(v, i, -ENOTCONN);
	chunks_reload(v);
	snapshot_find_trees(v);
}

void set_lease_sure(struct volume_set *s)
{
	if (!s->lease.is_unsure || s->lease.is_lapsed)
		return;
	list_each (node, &s->volumes)
		snapshots_each_head(container_of(node, struct set_volume, link), lease_forget_places, NULL);
	s->lease.is_unsure = false;
	lease_holds_again(s);
}

/* A node has come or gone: what is attached there is as well as it is. */
static void lease_node_changed(struct members_listener *l, const char *node)
{
	set_explain(set_of(l));
	takeovers_look(set_of(l));
}

void set_lease_start(struct volume_set *s)
{
	list_init(&s->lease.waiting);
	timer_init(&s->lease.patience, patience_over);
	s->lease.listener = (struct members_listener){
	    .lapsed = lease_lapsed, .returned = lease_returned, .changed = lease_node_changed};
	if (s->members)
		members_listen(s->members, &s->lease.listener);
}

void set_lease_stop(struct volume_set *s)
{
	quarry_assert(list_is_empty(&s->lease.waiting));
	timer_stop(s->reactor, &s->lease.patience);
	if (s->members)
		members_unlisten(&s->lease.listener);
}
