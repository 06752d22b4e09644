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
	uint64_t revision;
};

struct tree_facts {
	uint64_t id, parent, epoch;
	enum { TREE_IS_LIVE, TREE_IS_SNAPSHOT, TREE_IS_DELETED } state;
};

struct volume_disk_facts {
	struct uuid uuid;
	bool is_stale;
	uint64_t since; /* of a stale one: it may lack writes of epochs >= since */
};

struct volume_facts {
	struct uuid uuid;
	char name[NAME_BYTES], pool[NAME_BYTES], owner[NAME_BYTES];
	char renamed_from[NAME_BYTES]; /* the last rename, so that repeating it is recognised (P6) */
	uint64_t size_bytes;
	uint32_t replicas;
	uint64_t generation, epoch_base; /* the owner may use epochs epoch_base .. epoch_base + EPOCHS_PER_ATTACH - 1 */
	uint64_t live_tree, next_tree;
	struct tree_facts *trees;
	uint32_t n_trees;
	struct volume_disk_facts disks[SET_DISKS_MAX]; /* every disk that holds a tree of the volume */
	uint32_t n_disks;
	bool is_deleting, is_attached_nbd, is_attached_vhost, is_read_only;
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

must_check int volume_facts_copy(const struct volume_facts *from, struct volume_facts *to); /* 0 or -ENOMEM */
void volume_facts_clear(struct volume_facts *v);
/* The volume's entry for a disk, or NULL. */
struct volume_disk_facts *volume_facts_disk(struct volume_facts *v, const struct uuid *disk);
