/*
 * copies_internal.h: what volumes with several copies have beside: which disks have segments together (layout.c), disks that
 * are to be marked stale (stale.c), that become equal at attach (reconcile.c) or current again (resync.c), and segments
 * that move to other disks (move.c, leave.c), of volumes with one copy, too.
 *
 * Owner: the volume.
 */
#pragma once

#include "volumes/head/part_internal.h"
#include "volumes/head/record_update.h"

/* ---- which disks have segments together, and those that are to be marked: of volumes with several copies ---- */

struct layout_set {
	uint64_t disks; /* bit per disk */
	uint64_t n_segments;
};
struct layout {
	struct layout_set *sets;
	uint32_t n, room;
	bool is_short; /* of a volume with one copy: it could not be read to its end */
};

struct stale_update {
	struct record_update update;
	struct volume *volume;
	uint64_t disks; /* bit per disk: those that it marks */
};
struct stale {
	struct stale_update *update; /* under way */
	struct list waiting;         /* requests, by own.line: a disk has missed something of them */
	struct list shorts;          /* requests, by own.line: too few copies are current */
	struct timer short_timer;    /* when one of these has waited long enough */
	bool is_short;               /* which has been told */
	struct timer retry;
	bool is_told; /* that the store cannot be reached */
	struct op op;
	void (*settled)(struct volume *v); /* who waits until no mark is owed; NULL: nobody */
};

/* ---- stale.c: disks that failed a volume with several copies ---- */

void stale_init(struct volume *v);
/* The disk was lost just now. */
void stale_note(struct volume *v, uint32_t disk);
/* It has not reached all disks that it should: it is woken when those that it missed are marked, or the head has stopped. */
void stale_wait(struct volume_io *io);
/* Fewer copies are current than it needs: it is woken when that may have changed; with -EIO when it has waited long enough. */
void stale_wait_short(struct volume_io *io);
void stale_more_copies(struct volume *v); /* a disk is current again */
void stale_wake(struct volume *v);        /* something that it depends on has changed: it looks, on a later turn */
void stale_run(struct volume *v);
bool stale_is_settled(const struct volume *v); /* no mark is owed, or none can be made any more */
bool stale_is_busy(const struct volume *v);    /* it will call somebody, or itself, again */
void stale_abandon(struct volume *v);

/* ---- layout.c: of volumes with several copies; of others nothing is kept ---- */

must_check int layout_reserve(struct volume *v, uint32_t n);     /* memory for so many sets more: 0 or -ENOMEM */
void layout_add(struct volume *v, uint64_t disks);               /* a segment lies there */
void layout_remove(struct volume *v, uint64_t disks);            /* and this one no more */
uint64_t layout_without(const struct volume *v, uint64_t disks); /* how many segments lie on none of these */
/* How many segments have fewer copies on these disks than they should have, and how many copies the worst of them has. */
uint64_t layout_degraded(const struct volume *v, uint64_t disks, uint32_t *fewest);
uint64_t layout_surplus(const struct volume *v); /* segments with more copies than it is to have */
void layout_fini(struct volume *v);
/* All segments of a volume, as the store has them, a chunk at a time. */
struct placement_walk {
	/* set by the caller, zeros else */
	struct volume *volume;
	void (*next)(struct placement_walk *w, int res); /* 0: of chunk number - 1; or what is wrong */
	void *context;
	/* set here */
	uint32_t number;                 /* of the chunk that comes next */
	uint64_t disks[PLACEMENT_CHUNK]; /* of each segment, bit per disk; 0: a hole */
	/* its own */
	bool is_under_way;
	struct metadata_request request;
	char key[KEY_BYTES];
};
/* next() follows on a later turn; false: that was all. */
must_check bool placement_walk_next(struct placement_walk *w);
void placement_walk_abandon(struct placement_walk *w);
must_check int layout_take(struct volume *v, const struct placement_walk *w); /* a chunk more: 0 or -ENOMEM */

/* ---- placement.c: of disks by index ---- */

/* Could a copy beside those on `others` be placed on it? */
bool placement_is_free(struct volume *v, uint32_t disk, uint64_t others);

/* ---- reconcile.c: the copies of a volume become equal before it is served ---- */

struct reconcile;
/* All that any joined disk wrote in epochs >= since is taken from one source for each segment. done(): 0; -EAGAIN: a disk
 * was lost, mark it and begin again; -EIO with the reason in entry->why; or -errno. */
must_check int reconcile_start(struct volume *v, uint64_t since, void (*done)(void *context, int res), void *context,
			       struct reconcile **out);
void reconcile_abandon(struct reconcile *r);

/* Is a transaction in doubt waited for? Who is fenced answers nothing any more, and who has no clients left has nobody to
 * break a promise to. */
bool volume_needs_outcome(const struct volume *v);

/* ---- resync.c: a stale disk becomes current ---- */

void resync_init(struct volume *v);
void resync_want(struct volume *v); /* a disk may be back: it begins soon, if there is something to do */
/* It ends, unless it is past that, and is not begun again before it is wanted: volume_check_drained() when it is over. */
void resync_stop(struct volume *v);
void resync_abandon(struct volume *v);
void resync_barrier_ended(struct volume *v);
/* Its outcome is waited for: nobody forks meanwhile. */
bool resync_is_switching(const struct volume *v);
uint32_t resync_candidate(const struct volume *v); /* a stale disk that is there; SET_DISKS_MAX: there is none */
/* What leaves the disks to clients while they are at it. */
#define RESYNC_BUSY_BYTES_PER_S (64 * MIB)
/* Bytes a second: clients had requests since it was asked last, or not. */
uint64_t resync_rate(const struct volume *v, uint64_t *seen_requests);
struct resync_progress {
	uint32_t disk; /* SET_DISKS_MAX: none is under way */
	uint64_t copied_bytes;
	double done;    /* part of the volume's range that has been compared, of all of its trees: 0..1 */
	uint64_t eta_s; /* as long as the rest takes if it goes on as until now; 0: not known yet */
};
void resync_look(const struct volume *v, struct resync_progress *out);

/* ---- move.c: segments side by side get a copy on another disk, in the place of an old one ---- */

/* Bit of a disk; SET_DISKS_MAX is none. */
static inline uint64_t disk_bit(uint32_t disk)
{
	return disk < SET_DISKS_MAX ? 1ull << disk : 0;
}

struct move_order {
	/* set by who orders it */
	uint64_t first;
	uint32_t n_segments; /* of one chunk */
	uint64_t disks;      /* bit per disk: where all of them lie */
	uint32_t out;        /* of these, the one that goes; SET_DISKS_MAX: none */
	uint32_t source;     /* of these, the one that is read; without a target it is not used */
	uint32_t target;     /* the one that comes; SET_DISKS_MAX: none */
	uint64_t max_bytes;  /* it ends with -EFBIG, and nothing has moved, when more is to be copied; 0: no limit */
	bool is_tidying;     /* only what an earlier move of them has left is dropped; disks and source are not used */
	/* 0; -ECANCELED: something else was first, it may begin again; or -errno. */
	void (*done)(void *context, int res, const struct move_order *order);
	void *context;
	/* set at the end */
	bool is_source_bad; /* it could not be read */
	uint64_t copied_bytes;
};
/* Where they lie after it. */
static inline uint64_t move_order_disks(const struct move_order *o)
{
	return (o->disks & ~disk_bit(o->out)) | disk_bit(o->target);
}
must_check int move_start(struct volume *v, const struct move_order *order); /* 0 or -ENOMEM */
void move_tidy(struct volume *v); /* at attach: what a crash has left of the last move is dropped in the background */
void move_stop(struct volume *v); /* it ends, unless its outcome is waited for */
void move_abandon(struct volume *v);
/* Who makes use of where segments lie, beside the head, keeps them there: from held(), which may be called at once, until
 * it lets go. */
struct places_hold {
	struct list link; /* the volume's, until held() */
	void (*held)(struct places_hold *h);
	bool is_held;
};
void places_hold(struct volume *v, struct places_hold *h);
void places_let_go(struct volume *v, struct places_hold *h);
bool move_has(const struct volume *v, uint64_t segment); /* does one move it? */
/* The disk that its changes go to beside those where it lies, as a bit; 0: none. */
uint64_t move_target(const struct volume *v, uint64_t segment);
/* The target has not done a change as the others have. */
void move_missed(struct volume *v, uint64_t segment, int res);
/* Is it where segments go, or are to go? Its place among the disks is kept. */
bool move_uses_disk(const struct volume *v, uint32_t disk);
bool move_is_switching(const struct volume *v); /* nobody forks or drops a tree meanwhile */
bool move_is_naming(const struct volume *v);    /* a disk is being joined [PLACEBAR] */
uint64_t move_copied_bytes(const struct volume *v);
bool volume_disk_is_quiet(struct volume *v, uint32_t disk); /* nobody waits for it, of the volume or its snapshots */

/* ---- even.c: each segment has as many copies as the volume is to have ---- */

bool even_is_needed(const struct set_volume *entry); /* some may have more, or fewer, and that can be mended */
bool even_concerns(const struct volume *v, uint64_t disks);
/* Has a segment more copies than it is to have, and can do without this one? */
bool even_has_enough(const struct volume *v, uint64_t disks, uint32_t disk);
/* Of segments that lie on order->disks: sets out, or target, which is none of the refused. 0, -ENOSPC; -EIO: no copy can be
 * done without now. */
must_check int even_plan(struct volume *v, uint64_t refused, struct move_order *order);

/* ---- leave_purpose.c: what segments are to move for, and what keeps them from it ---- */

enum leave_purpose {
	LEAVE_FOR_DISK,    /* all of a disk is left */
	LEAVE_FOR_COPIES,  /* each has as many copies as it is to have */
	LEAVE_FOR_BALANCE, /* one goes to an emptier disk */
};
struct leave_obstacle {
	enum leave_purpose purpose;
	char text[SET_WHY_BYTES]; /* for people; "": nothing is known */
};
/* Is this disk of the record to be left, and can be? */
bool leave_wants_disk(const struct set_volume *entry, const struct volume_disk_facts *known);
bool leave_is_needed(const struct set_volume *entry); /* there is something to be done, and it can be */
bool leave_is_urgent(const struct set_volume *entry); /* the same, but for rebalancing */
/* What was met on the way; and that something has changed, and it may be gone. */
void leave_obstruct(struct set_volume *entry, enum leave_purpose purpose, const char *format, ...) printf_like(3, 4);
void leave_forget_why(struct set_volume *entry);
/* Why it does not go on; NULL: it does, or is not needed. */
const char *leave_why(const struct set_volume *entry, enum leave_purpose purpose);

/* ---- leave.c: a volume leaves a disk, its segments get as many copies as they are to have, or one an emptier disk ---- */

void leave_init(struct volume *v);
/* Is something to be done? Then it begins soon, or goes on. */
void leave_want(struct volume *v);
void leave_stop(struct volume *v); /* volume_check_drained() when it is over */
void leave_abandon(struct volume *v);
bool leave_has(const struct volume *v, uint32_t disk); /* the record says that nothing of it counts any more */
