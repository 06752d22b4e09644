/*
 * facts.h: what the metadata store keeps of pools, disks and volumes, as structs, and their JSON.
 *
 * The readers take untrusted text (an operator may have edited it, a newer quarry may have written it): they check
 * every member, and say in one sentence which key is wrong and how. Plain functions.
 */
#pragma once

#include "volumes/head/volume_set.h"

#include <jansson.h>

#define SET_DISKS_MAX     64u /* disks of one node, removed ones that volumes still name among them */
#define NAME_BYTES        (VOLUME_NAME_MAX + 1)
#define EPOCHS_PER_ATTACH (1ull << 24) /* [EPRANGE] */
#define TREES_PER_ATTACH  64u          /* [TREEID] */
#define SNAPSHOTS_MAX     16384u       /* of one volume; a disk has 65,535 trees for all of them */
#define LINES_MAX         4096u        /* of one volume, ended ones that snapshots need among them */

struct pool_facts {
	char name[NAME_BYTES];
	struct uuid uuid;
	uint32_t replicas, min_replicas;
	enum failure_domain failure_domain;
	uint64_t revision; /* of its key */
};

struct disk_facts {
	struct uuid uuid;
	char node[NAME_BYTES], path[SET_TEXT_MAX], pool[NAME_BYTES], name[DISK_LABEL_BYTES];
	uint64_t size_bytes;
	bool
	    is_removed; /* by force, while volumes had data on it: kept so that their placements still name something */
	bool is_reserved;
	bool is_draining;      /* nothing is placed on it, and what lies there goes elsewhere */
	bool drains_with_node; /* because its node is being drained */
	struct uuid cluster;   /* that its superblock names, when that is another than this store's; else zero */
	/* It has been at this checkpoint, when the clock said so: at an earlier one it is an older copy. 0: not known. */
	uint64_t checkpoint, seen_ns;
	uint64_t revision;
};

/*
 * A line of a volume's history: a tree that is, or once was, the live one. A rollback ends a line and begins another,
 * whose parent is the line on which the snapshot was taken, as it was at the end of `epoch`. Ended lines stay in the
 * record while snapshots or younger lines come from them: they say what two points have in common (history.h).
 */
struct tree_facts {
	uint64_t id, parent, epoch;
	enum { TREE_IS_LIVE, TREE_IS_SNAPSHOT, TREE_IS_DELETED } state;
};

/* Where a clone comes from: a line of another volume, as it was at the end of an epoch. The nearest first. */
#define ANCESTORS_MAX 32u
struct ancestor {
	struct uuid volume;
	uint64_t tree, epoch;
};

#define SNAPSHOT_NAME_BYTES (2 * NAME_BYTES) /* "NAME@SNAP" */
struct schedule_facts {
	uint64_t every_s; /* 0: there is none */
	uint32_t keep;
};

/* A volume that is served while its content is still being brought (fill.c). */
struct fill_facts {
	char source[SET_TEXT_MAX]; /* in words for people, and to know it again; "": the volume is whole */
	uint64_t filled_bytes;     /* durable from the start to here */
};
#define FILL_BYTES_MAX (64 * TIB) /* of such a volume: its head has two bits for each MiB */

/* Segments that were being moved last (move.c). Where they do not lie they may have left something. */
struct moving_facts {
	uint64_t first;
	uint32_t n_segments;  /* 0: none */
	struct uuid to, from; /* zero: none */
};
#define MOVE_SEGMENTS_MAX 8u

/* A snapshot has a key of its own (snapshots/VOLUME/TREE), so that thousands do not make their volume's record long. */
struct snapshot_facts {
	char name[NAME_BYTES];
	uint64_t tree;          /* its id on the disks */
	uint64_t branch, epoch; /* the line it was taken from, and the last epoch it holds */
	uint64_t size_bytes;    /* of the volume then */
	uint64_t created_ns;
	bool is_deleting, is_scheduled;
	bool is_temporary; /* attached over NBD for who copies it: when nobody is connected it may go */
	char attached_nbd[NAME_BYTES], attached_vhost[NAME_BYTES]; /* the node that serves it so; "": none */
	uint32_t vhost_queues;                                     /* 0: as many as usual */
	uint64_t revision;
};

struct volume_disk_facts {
	struct uuid uuid;
	bool is_stale;
	bool is_left;        /* stale, and no segment lies there: what it has of the volume is to be dropped */
	bool is_new;         /* left, and nothing was ever written there: it may be joined as it is */
	uint64_t since;      /* of a stale one: it may lack writes of epochs >= since, */
	uint64_t had_before; /* and had every tree with a lower id that is recorded */
	uint64_t generation; /* the last that may have been told to it; 0: not known */
	bool is_older;       /* not stale, but an older copy of it was accepted: it counts where there is no other */
};

struct volume_facts {
	struct uuid uuid;
	char name[NAME_BYTES], pool[NAME_BYTES], owner[NAME_BYTES];
	char renamed_from[NAME_BYTES]; /* the last rename, so that repeating it is recognised (P6) */
	uint64_t size_bytes;
	uint32_t replicas, min_replicas; /* with fewer copies in sync writes wait, then fail */
	bool was_replicated;             /* it had several, and what goes for such volumes still goes for it */
	bool is_uneven; /* there may be segments with more or fewer copies than it is to have (even.c) */
	uint64_t generation, epoch_base; /* the owner may use epochs epoch_base .. epoch_base + EPOCHS_PER_ATTACH - 1 */
	uint64_t live_tree,
	    next_tree;      /* the owner may use ids next_tree - TREES_PER_ATTACH .. next_tree - 1 [TREEID] */
	uint64_t live_from; /* snapshot that the live tree was forked from, by a rollback; 0: by none */
	uint64_t history;   /* grows with every change of its snapshots */
	struct tree_facts *trees;
	uint32_t n_trees;
	struct volume_disk_facts disks[SET_DISKS_MAX]; /* every disk that holds a tree of the volume */
	uint32_t n_disks;
	struct ancestor ancestors[ANCESTORS_MAX]; /* of a clone */
	uint32_t n_ancestors;
	char cloned_from[SNAPSHOT_NAME_BYTES]; /* "": it is no clone */
	struct schedule_facts schedule;
	struct fill_facts fill;
	struct moving_facts moving;
	bool is_deleting, is_attached_nbd, is_attached_vhost, is_read_only;
	uint32_t vhost_queues; /* 0: as many as usual */
	uint64_t created_ns;
	uint64_t revision;
};

const char *failure_domain_name(enum failure_domain d);
must_check int failure_domain_from_text(const char *text, enum failure_domain *out); /* 0 or -EINVAL */
/* snprintf() for what people read: a text that does not fit is cut short. */
void text_print(char *text, size_t room, const char *format, ...) printf_like(3, 4);
/* [A-Za-z0-9][A-Za-z0-9._-]*, at most VOLUME_NAME_MAX long. */
bool name_is_valid(const char *name);

/* The readers: 0, -EINVAL with a sentence in why, or -ENOMEM. The writers: a text to be freed; NULL: no memory. */
must_check int cluster_from_json(const char *text, struct uuid *out, char why[static WHY_BYTES]);
char *cluster_to_json(const struct uuid *cluster);
must_check int pool_from_json(const char *name, const char *text, struct pool_facts *out, char why[static WHY_BYTES]);
char *pool_to_json(const struct pool_facts *p);
must_check int disk_from_json(const char *uuid, const char *text, struct disk_facts *out, char why[static WHY_BYTES]);
char *disk_to_json(const struct disk_facts *d);
must_check int volume_from_json(const char *uuid, const char *text, struct volume_facts *out,
				char why[static WHY_BYTES]);
char *volume_to_json(const struct volume_facts *v);

/* key: "VOLUME-UUID/TREE". */
must_check int snapshot_from_json(const char *key, const char *text, struct uuid *volume, struct snapshot_facts *out,
				  char why[static WHY_BYTES]);
char *snapshot_to_json(const struct snapshot_facts *s);

/* Do copies of it lie on several disks, or did they? Then its disks have agreed at each attach, and any node can serve it. */
static inline bool volume_facts_are_replicated(const struct volume_facts *v)
{
	return v->replicas > 1 || v->was_replicated;
}
must_check int volume_facts_copy(const struct volume_facts *from, struct volume_facts *to); /* 0 or -ENOMEM */
void volume_facts_clear(struct volume_facts *v);
/* The volume's entry for a disk, or NULL. */
struct volume_disk_facts *volume_facts_disk(struct volume_facts *v, const struct uuid *disk);
/* From now on the disk is named, and may be told this generation. false: there are too many. */
must_check bool volume_facts_name_disk(struct volume_facts *v, const struct uuid *disk, uint64_t generation);
/* Does what lies there count? A disk that is being joined for the first time is named before, as one that is left and new. */
bool volume_facts_use_disk(const struct volume_facts *v, const struct uuid *disk);
/* Names it, as one that counts from now on. */
must_check bool volume_facts_take_disk(struct volume_facts *v, const struct uuid *disk, uint64_t generation);
