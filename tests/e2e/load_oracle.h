/*
 * load_oracle.h: what every sector of some volumes may hold, for a load that checks itself; used by loadgen (NBD) and
 * vhost-loadgen.
 *
 *   oracle_volume_begin, then for each request: oracle_pick, oracle_take, (oracle_fill), and one of
 *   oracle_done (it was completed), oracle_lost (its reply never came). oracle_verify reads everything back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SECTOR              512u
#define BLOCK_SECTORS       8u
#define SEGMENT_SECTORS     (1u << 21) /* 1 GiB */
#define ATOMIC_SECTORS      512u       /* 256 KiB */
#define REQUEST_SECTORS_MAX 1024u      /* 512 KiB: some requests are no longer atomic */
#define WINDOWS_MAX         3u
#define VOLUMES_MAX         8u
#define LOST_MAX            2048u

enum kind { READ, WRITE, WRITE_ZEROES, TRIM, FLUSH };

struct sector {
	uint64_t id;
	uint16_t busy; /* readers, or BUSY_WRITE */
};

struct window {
	uint64_t first; /* sector of the volume */
	uint32_t n;
	struct sector *s;
};

struct volume {
	const char *name; /* where it is found: a URI, a socket's path */
	unsigned index;
	struct window windows[WINDOWS_MAX];
	unsigned n_windows;
};

/* A request in flight, or a write whose outcome is unknown. */
struct request {
	enum kind kind;
	struct window *w;
	uint32_t first, n; /* sectors of the window */
	uint64_t id;       /* of a write; 0 for zeros */
};

struct oracle {
	struct volume volumes[VOLUMES_MAX];
	unsigned n_volumes, window_mib;
	struct request lost[LOST_MAX];
	struct volume *lost_of[LOST_MAX];
	unsigned n_lost;
	uint64_t random, next_id;
	bool is_wrong; /* and what is wrong has been said */
};

/* Reads sectors of a volume while nothing else is in flight; false when that failed, after it has said so. */
typedef bool oracle_read_fn(void *context, struct volume *v, uint64_t first, uint32_t n, uint8_t *out);

/* What both programs are told: a number from 1 to max, or the program ends with status 2; */
unsigned load_number(const char *text, unsigned max);
/* and the volumes by name: false: there are none, or too many. */
bool oracle_name_volumes(struct oracle *o, char **names, int n);

const char *kind_name(enum kind k);
uint64_t oracle_dice(struct oracle *o, uint64_t n);

/* Windows of a volume of so many sectors; false when it is too small or there is no memory. */
bool oracle_volume_begin(struct oracle *o, struct volume *v, uint64_t sectors);
void oracle_free(struct oracle *o);

/* First sector of the volume that a request is about; 0 for a flush. */
uint64_t request_sector(const struct request *r);

/* A request for a range that is free; false when this throw of the dice came to nothing. */
bool oracle_pick(struct oracle *o, struct volume *v, struct request *r);
void oracle_take(struct request *r);
/* The content of a write. */
void oracle_fill(const struct volume *v, const struct request *r, uint8_t *data);
void oracle_done(struct oracle *o, const struct volume *v, struct request *r, const uint8_t *data);
void oracle_lost(struct oracle *o, struct volume *v, struct request *r);

/* Compares all windows of a volume and settles what was lost; returns the number of sectors. */
uint64_t oracle_verify(struct oracle *o, struct volume *v, oracle_read_fn *read, void *context);
