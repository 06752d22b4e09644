/*
 * load_oracle.c: remembers what every sector may hold, and checks it.
 *
 * Invariants
 *  1. Every sector has an id: of the write that it was last told to hold, 0 for zeros. The content is made from volume,
 *     sector and id, so that a stale, torn, lost or misplaced sector is told from a right one.
 *  2. No two requests in flight overlap unless both read; requests for neighbouring sectors of one block do run at
 *     once.
 *  3. A completed write is known: its id is what the sectors hold (P1). One whose reply never came is lost: old or
 *     new, and a write of up to 256 KiB inside one segment is one of the two as a whole (P5).
 *  4. oracle_verify settles every lost write by what it finds, so that a later change of mind is found as well.
 *
 * Ids are held for windows of the volume only: its beginning, both sides of the first segment's end, and its last
 * bytes, which is where mistakes are; the rest of a volume stays a hole.
 */
#include "tests/e2e/load_oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_WRITE 0xffffu

unsigned load_number(const char *text, unsigned max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end != '\0' || n == 0 || n > max) {
		fprintf(stderr, "\"%s\" is not a number from 1 to %u\n", text, max);
		exit(2);
	}
	return (unsigned)n;
}

bool oracle_name_volumes(struct oracle *o, char **names, int n)
{
	if (n < 1 || n > (int)VOLUMES_MAX)
		return false;
	for (o->n_volumes = 0; (int)o->n_volumes < n; o->n_volumes++)
		o->volumes[o->n_volumes] = (struct volume){.name = names[o->n_volumes], .index = o->n_volumes};
	return true;
}

const char *kind_name(enum kind k)
{
	static const char *const names[] = {"read", "write", "zero", "trim", "flush"};

	return names[k];
}

uint64_t request_sector(const struct request *r)
{
	return r->w ? r->w->first + r->first : 0;
}

/* ---- dice and content ---- */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

uint64_t oracle_dice(struct oracle *o, uint64_t n)
{
	o->random = mix(o->random);
	return o->random % n;
}

static void sector_fill(const struct volume *v, uint64_t sector, uint64_t id, uint8_t out[static SECTOR])
{
	uint64_t words[SECTOR / 8], seed = mix(id ^ mix(sector << 8 | v->index));

	if (id == 0) {
		memset(out, 0, SECTOR);
		return;
	}
	words[0] = id;
	words[1] = sector;
	words[2] = v->index;
	for (unsigned i = 3; i < SECTOR / 8; i++)
		words[i] = seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	memcpy(out, words, SECTOR);
}

static bool sector_holds(const struct volume *v, uint64_t sector, uint64_t id, const uint8_t data[static SECTOR])
{
	uint8_t want[SECTOR];

	sector_fill(v, sector, id, want);
	return memcmp(want, data, SECTOR) == 0;
}

static void say_wrong(struct oracle *o, const struct volume *v, uint64_t sector, const char *what, const uint8_t *data,
		      uint64_t want)
{
	uint64_t words[3];

	memcpy(words, data, sizeof(words));
	printf("WRONG %s sector %llu (byte %llu): %s; it should hold write %llu and begins with %llu %llu %llu\n",
	       v->name, (unsigned long long)sector, (unsigned long long)sector * SECTOR, what, (unsigned long long)want,
	       (unsigned long long)words[0], (unsigned long long)words[1], (unsigned long long)words[2]);
	o->is_wrong = true;
}

/* ---- choosing a request (invariant 2) ---- */

static bool range_is_free(const struct window *w, uint32_t first, uint32_t n, bool for_read)
{
	for (uint32_t i = first; i < first + n; i++) {
		if (w->s[i].busy == BUSY_WRITE || (!for_read && w->s[i].busy != 0))
			return false;
	}
	return true;
}

void oracle_take(struct request *r)
{
	for (uint32_t i = r->first; i < r->first + r->n; i++)
		r->w->s[i].busy = r->kind == READ ? (uint16_t)(r->w->s[i].busy + 1) : (uint16_t)BUSY_WRITE;
}

static void range_release(struct request *r)
{
	for (uint32_t i = r->first; i < r->first + r->n; i++)
		r->w->s[i].busy = r->kind == READ ? (uint16_t)(r->w->s[i].busy - 1) : 0;
}

/* Mostly small, some odd, few large: the sizes that file systems and databases ask for. */
static uint32_t pick_sectors(struct oracle *o)
{
	uint64_t d = oracle_dice(o, 100);

	if (d < 25)
		return 1 + (uint32_t)oracle_dice(o, 15); /* parts of blocks */
	if (d < 65)
		return BLOCK_SECTORS;
	if (d < 85)
		return BLOCK_SECTORS * (1 + (uint32_t)oracle_dice(o, 16));
	if (d < 95)
		return 1 + (uint32_t)oracle_dice(o, ATOMIC_SECTORS);
	return ATOMIC_SECTORS + (uint32_t)oracle_dice(o, REQUEST_SECTORS_MAX - ATOMIC_SECTORS);
}

static enum kind pick_kind(struct oracle *o)
{
	uint64_t d = oracle_dice(o, 100);

	return d < 20 ? READ : d < 85 ? WRITE : d < 91 ? WRITE_ZEROES : d < 97 ? TRIM : FLUSH;
}

bool oracle_pick(struct oracle *o, struct volume *v, struct request *r)
{
	r->kind = pick_kind(o);
	r->w = &v->windows[oracle_dice(o, v->n_windows)];
	r->n = pick_sectors(o);
	r->first = (uint32_t)oracle_dice(o, r->w->n - r->n);
	if (r->kind == FLUSH) {
		r->w = NULL;
		r->first = r->n = 0;
		return true;
	}
	/* a trim leaves parts of blocks as they are; most aligned writes are so in the volume too */
	if (r->kind == TRIM || (r->n % BLOCK_SECTORS == 0 && oracle_dice(o, 8) != 0)) {
		r->first -= (uint32_t)((r->w->first + r->first) % BLOCK_SECTORS);
		r->n = (r->n + BLOCK_SECTORS - 1) / BLOCK_SECTORS * BLOCK_SECTORS;
	}
	if (r->first + r->n > r->w->n)
		return false;
	/* zeros written as data become holes; the oracle calls both 0 */
	r->id = r->kind == WRITE && oracle_dice(o, 20) != 0 ? o->next_id++ : 0;
	return range_is_free(r->w, r->first, r->n, r->kind == READ);
}

void oracle_fill(const struct volume *v, const struct request *r, uint8_t *data)
{
	for (uint32_t i = 0; i < r->n; i++)
		sector_fill(v, r->w->first + r->first + i, r->id, data + (size_t)i * SECTOR);
}

/* ---- what became of it ---- */

void oracle_done(struct oracle *o, const struct volume *v, struct request *r, const uint8_t *data)
{
	range_release(r);
	for (uint32_t i = 0; i < r->n; i++) {
		struct sector *x = &r->w->s[r->first + i];
		uint64_t sector = r->w->first + r->first + i;

		if (r->kind != READ)
			x->id = r->id;
		else if (!o->is_wrong && !sector_holds(v, sector, x->id, data + (size_t)i * SECTOR))
			say_wrong(o, v, sector, "read under load", data + (size_t)i * SECTOR, x->id);
	}
}

/* The range of a write stays taken, so that nobody writes there before it is settled. */
void oracle_lost(struct oracle *o, struct volume *v, struct request *r)
{
	if (r->kind == FLUSH)
		return;
	if (r->kind == READ) {
		range_release(r);
		return;
	}
	if (o->n_lost == LOST_MAX) {
		printf("WRONG use: more than %u requests were lost\n", LOST_MAX);
		o->is_wrong = true;
		return;
	}
	o->lost[o->n_lost] = *r;
	o->lost_of[o->n_lost++] = v;
}

/* The pieces of a write that are whole or not at all: all of it, or else single blocks (invariant 3). */
static bool is_atomic(const struct request *r)
{
	uint64_t first = r->w->first + r->first;

	return r->kind == WRITE && r->n <= ATOMIC_SECTORS &&
	       first / SEGMENT_SECTORS == (first + r->n - 1) / SEGMENT_SECTORS;
}

/* Decides one unknown write by what the volume holds, and takes that as the truth. */
static void settle(struct oracle *o, const struct volume *v, struct request *r, const uint8_t *window_data)
{
	int whole = -1; /* -1: no sector told yet; 0: old; 1: new */

	range_release(r);
	for (uint32_t i = r->first; i < r->first + r->n && !o->is_wrong; i++) {
		struct sector *x = &r->w->s[i];
		const uint8_t *data = window_data + (size_t)i * SECTOR;
		uint64_t sector = r->w->first + i;
		bool is_new = sector_holds(v, sector, r->id, data), is_old = sector_holds(v, sector, x->id, data);

		if (!is_atomic(r) && sector % BLOCK_SECTORS == 0)
			whole = -1;
		if (!is_new && !is_old)
			say_wrong(o, v, sector, "neither the old nor the new content of a write in flight", data,
				  x->id);
		else if (is_new && !is_old && whole == 0)
			say_wrong(o, v, sector, "torn: new after old sectors of one write", data, x->id);
		else if (is_old && !is_new && whole == 1)
			say_wrong(o, v, sector, "torn: old after new sectors of one write", data, r->id);
		else if (is_new != is_old)
			whole = is_new;
		if (is_new && !o->is_wrong)
			x->id = r->id;
	}
}

static bool window_read(struct volume *v, const struct window *w, uint8_t *out, oracle_read_fn *read, void *context)
{
	for (uint32_t at = 0; at < w->n; at += ATOMIC_SECTORS) {
		uint32_t n = w->n - at < ATOMIC_SECTORS ? w->n - at : ATOMIC_SECTORS;

		if (!read(context, v, w->first + at, n, out + (size_t)at * SECTOR))
			return false;
	}
	return true;
}

static void window_verify(struct oracle *o, struct volume *v, struct window *w, oracle_read_fn *read, void *context)
{
	uint8_t *data = malloc((size_t)w->n * SECTOR);

	if (!data || !window_read(v, w, data, read, context)) {
		o->is_wrong = true;
		free(data);
		return;
	}
	for (unsigned i = 0; i < o->n_lost && !o->is_wrong; i++) {
		if (o->lost_of[i] == v && o->lost[i].w == w)
			settle(o, v, &o->lost[i], data);
	}
	for (uint32_t i = 0; i < w->n && !o->is_wrong; i++) {
		const uint8_t *sector = data + (size_t)i * SECTOR;

		if (!sector_holds(v, w->first + i, w->s[i].id, sector))
			say_wrong(o, v, w->first + i, "a completed write is lost", sector, w->s[i].id);
	}
	free(data);
}

uint64_t oracle_verify(struct oracle *o, struct volume *v, oracle_read_fn *read, void *context)
{
	uint64_t n = 0;

	for (unsigned k = 0; k < v->n_windows && !o->is_wrong; k++) {
		window_verify(o, v, &v->windows[k], read, context);
		n += v->windows[k].n;
	}
	return n;
}

/* ---- beginning and end ---- */

static bool window_add(struct volume *v, uint64_t first, uint64_t n)
{
	struct window *w = &v->windows[v->n_windows++];

	*w = (struct window){.first = first, .n = (uint32_t)n, .s = calloc(n, sizeof(struct sector))};
	return w->s != NULL;
}

bool oracle_volume_begin(struct oracle *o, struct volume *v, uint64_t sectors)
{
	uint64_t n = (uint64_t)o->window_mib * 2048;

	if (sectors < REQUEST_SECTORS_MAX * 2)
		return false;
	if (sectors <= 3 * n)
		return window_add(v, 0, sectors);
	if (!window_add(v, 0, n) || !window_add(v, sectors - n, n))
		return false;
	if (sectors > SEGMENT_SECTORS + 2 * n)
		return window_add(v, SEGMENT_SECTORS - n / 2, n);
	return true;
}

void oracle_free(struct oracle *o)
{
	for (unsigned i = 0; i < o->n_volumes; i++) {
		for (unsigned k = 0; k < o->volumes[i].n_windows; k++)
			free(o->volumes[i].windows[k].s);
	}
}
