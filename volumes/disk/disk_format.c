/*
 * disk_format.c: writes, reads and checks what a checkpoint leaves on a disk: superblock, pointers, tree and volume
 * records, count deltas. (journal_format.c does the same for the journal.)
 *
 * disk_format.h has the byte tables; the structs below repeat them as fields, and static asserts hold each one to its
 * place. All of it is plain computation on bytes: no I/O, no state, callable on any thread.
 *
 * Invariants
 *  1. A reader copies, checks everything, then returns; it reads nothing outside the bytes it was given.
 *  2. What a writer makes, its reader accepts: both use the same *_is_sane() function, the writer asserts it.
 *  3. Bytes that the format does not name are zero; a reader refuses others, so that they stay free for later versions.
 *  4. A checksum is verified before any field behind it is believed, with two exceptions that come before: the magic
 *     (whose is it?) and the place of the checksum, which no later version may move.
 *
 * What a reader here cannot know it leaves to its caller: whether a block lies inside the disk (only the superblock
 * knows how large that is), whether a slot is in use, whether epochs and sequences fit what came before.
 */
#include "volumes/disk/disk_format_internal.h"

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define FLAG_CLEAN    1u
#define FLAG_RESERVED 2u
#define FLAGS_KNOWN   (FLAG_CLEAN | FLAG_RESERVED)

#define CRC64_SEED   0ull
#define TREE_MAGIC   0x31545551u
#define VOLUME_MAGIC 0x31565551u

/* ---- the bytes, as structs; every field lies at a multiple of its size ---- */

struct superblock_bytes {
	char magic[8];
	uint32_t crc, version;
	uint64_t features_refuse, features_read_only, features_forget;
	struct uuid disk, pool, cluster;
	uint64_t checkpoint, n_blocks, journal_blocks, replay_from, crc64_polynomial, crc64_seed;
	struct pointer trees;
	uint32_t n_tree_slots, n_volume_slots;
	struct pointer volumes, counts, deltas;
	uint32_t n_deltas, flags;
	uint64_t wall_ns;
	char label[DISK_LABEL_BYTES];
	uint64_t cache_bytes;
	uint64_t scrubbed_wall_ns;
	struct uuid boot;
	uint64_t power_losses;
};
_Static_assert(offsetof(struct superblock_bytes, crc) == 8, "format");
_Static_assert(offsetof(struct superblock_bytes, version) == 12, "format");
_Static_assert(offsetof(struct superblock_bytes, features_refuse) == 16, "format");
_Static_assert(offsetof(struct superblock_bytes, features_read_only) == 24, "format");
_Static_assert(offsetof(struct superblock_bytes, features_forget) == 32, "format");
_Static_assert(offsetof(struct superblock_bytes, disk) == 40, "format");
_Static_assert(offsetof(struct superblock_bytes, pool) == 56, "format");
_Static_assert(offsetof(struct superblock_bytes, cluster) == 72, "format");
_Static_assert(offsetof(struct superblock_bytes, checkpoint) == 88, "format");
_Static_assert(offsetof(struct superblock_bytes, n_blocks) == 96, "format");
_Static_assert(offsetof(struct superblock_bytes, journal_blocks) == 104, "format");
_Static_assert(offsetof(struct superblock_bytes, replay_from) == 112, "format");
_Static_assert(offsetof(struct superblock_bytes, crc64_polynomial) == 120, "format");
_Static_assert(offsetof(struct superblock_bytes, crc64_seed) == 128, "format");
_Static_assert(offsetof(struct superblock_bytes, trees) == 136, "format");
_Static_assert(offsetof(struct superblock_bytes, n_tree_slots) == 152, "format");
_Static_assert(offsetof(struct superblock_bytes, n_volume_slots) == 156, "format");
_Static_assert(offsetof(struct superblock_bytes, volumes) == 160, "format");
_Static_assert(offsetof(struct superblock_bytes, counts) == 176, "format");
_Static_assert(offsetof(struct superblock_bytes, deltas) == 192, "format");
_Static_assert(offsetof(struct superblock_bytes, n_deltas) == 208, "format");
_Static_assert(offsetof(struct superblock_bytes, flags) == 212, "format");
_Static_assert(offsetof(struct superblock_bytes, wall_ns) == 216, "format");
_Static_assert(offsetof(struct superblock_bytes, label) == 224, "format");
_Static_assert(offsetof(struct superblock_bytes, cache_bytes) == 288, "format");
_Static_assert(offsetof(struct superblock_bytes, scrubbed_wall_ns) == 296, "format");
_Static_assert(offsetof(struct superblock_bytes, boot) == 304, "format");
_Static_assert(offsetof(struct superblock_bytes, power_losses) == 320, "format");
_Static_assert(sizeof(struct superblock_bytes) == 328, "format");

struct tree_record_bytes {
	uint32_t magic;
	uint8_t height, state, zero[2];
	struct uuid volume;
	uint64_t tree_id, parent_id;
	struct pointer root;
	uint64_t fork_epoch, n_data_blocks, drop_cursor;
};
_Static_assert(offsetof(struct tree_record_bytes, volume) == 8, "format");
_Static_assert(offsetof(struct tree_record_bytes, tree_id) == 24, "format");
_Static_assert(offsetof(struct tree_record_bytes, parent_id) == 32, "format");
_Static_assert(offsetof(struct tree_record_bytes, root) == 40, "format");
_Static_assert(offsetof(struct tree_record_bytes, fork_epoch) == 56, "format");
_Static_assert(offsetof(struct tree_record_bytes, n_data_blocks) == 64, "format");
_Static_assert(offsetof(struct tree_record_bytes, drop_cursor) == 72, "format");
_Static_assert(sizeof(struct tree_record_bytes) == 80, "format");

struct volume_record_bytes {
	uint32_t magic;
	uint8_t zero[4];
	struct uuid volume;
	uint64_t generation, session, complete_epoch, size_blocks, power_losses;
};
_Static_assert(offsetof(struct volume_record_bytes, volume) == 8, "format");
_Static_assert(offsetof(struct volume_record_bytes, generation) == 24, "format");
_Static_assert(offsetof(struct volume_record_bytes, size_blocks) == 48, "format");
_Static_assert(offsetof(struct volume_record_bytes, power_losses) == 56, "format");
_Static_assert(sizeof(struct volume_record_bytes) == 64, "format");

/* ---- checksums and pointers ---- */

uint32_t block_crc(enum block_kind kind, const void *block)
{
	return crc32c((uint32_t)kind, block, BLOCK_BYTES);
}

uint32_t block_crc_without(uint32_t seed, const uint8_t *block, size_t crc_at)
{
	static const uint8_t no_crc[4];
	uint32_t crc = crc32c(seed, block, crc_at);

	quarry_assert(crc_at + sizeof(no_crc) < BLOCK_BYTES);
	crc = crc32c(crc, no_crc, sizeof(no_crc));
	return crc32c(crc, block + crc_at + sizeof(no_crc), BLOCK_BYTES - crc_at - sizeof(no_crc));
}

unsigned table_height(uint64_t n_slots)
{
	unsigned height = n_slots > 0 ? 1 : 0;

	quarry_assert(n_slots <= 1ull << BLOCK_NUMBER_BITS);
	while (height > 0 && tree_span(height) < n_slots)
		height++;
	return height;
}

/* ---- superblock ---- */

/* Length of the well-formed UTF-8 character that begins here; 0: it is none. The text ends with a zero byte. */
static size_t utf8_length(const uint8_t *s)
{
	size_t n = 0;

	if (s[0] < 0x80)
		n = 1;
	else if (s[0] >= 0xc2 && s[0] < 0xe0)
		n = 2;
	else if (s[0] >= 0xe0 && s[0] < 0xf0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] < 0xf5)
		n = 4;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* No overlong forms, no surrogates, nothing past U+10FFFF. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* A label ends up in log lines and JSON: UTF-8 without control characters, a zero at its end and only zeros after. */
static bool label_is_sane(const char label[static DISK_LABEL_BYTES])
{
	const uint8_t *s = (const uint8_t *)label;
	size_t len = strnlen(label, DISK_LABEL_BYTES);

	if (len == DISK_LABEL_BYTES || !bytes_are_zero(s + len, DISK_LABEL_BYTES - len))
		return false;
	/* The final zero is no continuation byte, so a character cut short is found before the end. */
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_length(s + i);
		if (n == 0 || s[i] < 0x20 || s[i] == 0x7f)
			return false;
	}
	return true;
}

/* May the pointer of a table lead where it leads? */
static bool table_is_sane(const struct superblock *sb, struct pointer root, uint64_t n_slots)
{
	if (!pointer_is_sane(root))
		return false;
	if (pointer_is_hole(root))
		return true; /* every slot is empty */
	return n_slots > 0 && pointer_block(root) >= JOURNAL_START + sb->journal_blocks &&
	       pointer_block(root) < sb->n_blocks;
}

const char *superblock_fault(const struct superblock *sb)
{
	if (uuid_is_zero(&sb->disk))
		return "the disk's UUID is zero";
	if (sb->checkpoint == 0 || sb->checkpoint > SEQUENCE_MAX)
		return "the checkpoint number is out of range";
	if (sb->n_blocks < DISK_MIN_BLOCKS || sb->n_blocks > DISK_MAX_BLOCKS)
		return "the size of the disk is out of range";
	/* A disk that grew keeps its journal, so it may be smaller than a new disk's. */
	if (sb->journal_blocks < JOURNAL_MIN_BLOCKS || sb->journal_blocks > journal_blocks_for(sb->n_blocks))
		return "the size of the journal is out of range";
	if (sb->replay_from == 0 || sb->replay_from > SEQUENCE_MAX)
		return "the journal position is out of range";
	if (sb->n_tree_slots > TABLE_SLOTS_MAX)
		return "too many tree slots";
	if (sb->n_volume_slots > TABLE_SLOTS_MAX)
		return "too many volume slots";
	if (sb->n_deltas > DELTA_LOG_MAX)
		return "the log of count changes is too long";
	if (!table_is_sane(sb, sb->trees, sb->n_tree_slots))
		return "the pointer to the table of trees is out of range";
	if (!table_is_sane(sb, sb->volumes, sb->n_volume_slots))
		return "the pointer to the table of volumes is out of range";
	if (!table_is_sane(sb, sb->counts, regions_of(sb->n_blocks)))
		return "the pointer to the count index is out of range";
	if (!table_is_sane(sb, sb->deltas, sb->n_deltas) || pointer_is_hole(sb->deltas) != (sb->n_deltas == 0))
		return "the pointer to the log of count changes is out of range";
	if (!label_is_sane(sb->label))
		return "the label is not a text";
	return NULL;
}

void superblock_encode(const struct superblock *sb, uint8_t block[static BLOCK_BYTES])
{
	struct superblock_bytes b = {
	    .version = DISK_FORMAT_VERSION,
	    .features_refuse = sb->features_refuse,
	    .features_read_only = sb->features_read_only,
	    .features_forget = sb->features_forget & FEATURES_FORGET_KNOWN, /* this is where the rest is forgotten */
	    .disk = sb->disk,
	    .pool = sb->pool,
	    .cluster = sb->cluster,
	    .checkpoint = sb->checkpoint,
	    .n_blocks = sb->n_blocks,
	    .journal_blocks = sb->journal_blocks,
	    .replay_from = sb->replay_from,
	    .crc64_polynomial = CRC64_POLYNOMIAL,
	    .crc64_seed = CRC64_SEED,
	    .trees = sb->trees,
	    .n_tree_slots = sb->n_tree_slots,
	    .n_volume_slots = sb->n_volume_slots,
	    .volumes = sb->volumes,
	    .counts = sb->counts,
	    .deltas = sb->deltas,
	    .n_deltas = sb->n_deltas,
	    .flags = (sb->is_clean ? FLAG_CLEAN : 0) | (sb->is_reserved ? FLAG_RESERVED : 0),
	    .wall_ns = sb->wall_ns,
	    .cache_bytes = sb->cache_bytes,
	    .scrubbed_wall_ns = sb->scrubbed_wall_ns,
	    .boot = sb->boot,
	    .power_losses = sb->power_losses,
	};

	quarry_assert(superblock_fault(sb) == NULL);
	quarry_assert((sb->features_refuse & ~FEATURES_REFUSE_KNOWN) == 0);
	quarry_assert((sb->features_read_only & ~FEATURES_READ_ONLY_KNOWN) == 0);
	memcpy(b.magic, SUPERBLOCK_MAGIC, sizeof(b.magic));
	memcpy(b.label, sb->label, sizeof(b.label));
	memset(block, 0, BLOCK_BYTES);
	memcpy(block, &b, sizeof(b));
	put_le32(block + offsetof(struct superblock_bytes, crc),
		 block_crc_without(0, block, offsetof(struct superblock_bytes, crc)));
}

static enum superblock_verdict verdict(enum superblock_verdict v, char why[static WHY_BYTES], const char *format, ...)
    printf_like(3, 4);
static enum superblock_verdict verdict(enum superblock_verdict v, char why[static WHY_BYTES], const char *format, ...)
{
	va_list args;

	quarry_assert(v != SUPERBLOCK_VALID);
	va_start(args, format);
	vsnprintf(why, WHY_BYTES, format, args);
	va_end(args);
	return v;
}

/* Whose block is it, is it whole, can this version read it? */
static enum superblock_verdict superblock_identify(const uint8_t *block, const struct superblock_bytes *b,
						   char why[static WHY_BYTES])
{
	if (bytes_are_zero(block, BLOCK_BYTES))
		return verdict(SUPERBLOCK_BLANK, why, "the block is blank");
	if (memcmp(b->magic, SUPERBLOCK_MAGIC, sizeof(b->magic)) != 0)
		return verdict(SUPERBLOCK_FOREIGN, why, "the block does not begin with quarry's magic");
	if (b->crc != block_crc_without(0, block, offsetof(struct superblock_bytes, crc)))
		return verdict(SUPERBLOCK_DAMAGED, why, "the superblock does not match its checksum");
	if (b->version == 0)
		return verdict(SUPERBLOCK_DAMAGED, why, "the superblock has format version 0");
	if (b->version > DISK_FORMAT_VERSION)
		return verdict(SUPERBLOCK_NEWER, why, "the disk has format version %u, this quarry reads up to %u",
			       b->version, DISK_FORMAT_VERSION);
	if (b->features_refuse & ~FEATURES_REFUSE_KNOWN)
		return verdict(SUPERBLOCK_NEWER, why, "the disk uses features (%#llx) of a newer quarry",
			       (unsigned long long)(b->features_refuse & ~FEATURES_REFUSE_KNOWN));
	if (b->crc64_polynomial != CRC64_POLYNOMIAL || b->crc64_seed != CRC64_SEED)
		return verdict(SUPERBLOCK_NEWER, why, "the disk sums its journal with an unknown polynomial or seed");
	return SUPERBLOCK_VALID;
}

enum superblock_verdict superblock_decode(const uint8_t block[static BLOCK_BYTES], struct superblock *out,
					  char why[static WHY_BYTES])
{
	struct superblock_bytes b;
	enum superblock_verdict v;
	const char *fault;

	memcpy(&b, block, sizeof(b));
	v = superblock_identify(block, &b, why);
	if (v != SUPERBLOCK_VALID)
		return v;
	if (b.flags & ~FLAGS_KNOWN)
		return verdict(SUPERBLOCK_DAMAGED, why, "the superblock has unknown flags (%#x)", b.flags);
	if (!bytes_are_zero(block + sizeof(b), BLOCK_BYTES - sizeof(b)))
		return verdict(SUPERBLOCK_DAMAGED, why, "the superblock's unused bytes are not zero");
	*out = (struct superblock){
	    .disk = b.disk,
	    .pool = b.pool,
	    .cluster = b.cluster,
	    .features_refuse = b.features_refuse,
	    .features_read_only = b.features_read_only,
	    .features_forget = b.features_forget,
	    .checkpoint = b.checkpoint,
	    .n_blocks = b.n_blocks,
	    .journal_blocks = b.journal_blocks,
	    .replay_from = b.replay_from,
	    .trees = b.trees,
	    .volumes = b.volumes,
	    .counts = b.counts,
	    .deltas = b.deltas,
	    .n_tree_slots = b.n_tree_slots,
	    .n_volume_slots = b.n_volume_slots,
	    .n_deltas = b.n_deltas,
	    .is_clean = b.flags & FLAG_CLEAN,
	    .is_reserved = b.flags & FLAG_RESERVED,
	    .wall_ns = b.wall_ns,
	    .cache_bytes = b.cache_bytes,
	    .scrubbed_wall_ns = b.scrubbed_wall_ns,
	    .boot = b.boot,
	    .power_losses = b.power_losses,
	};
	memcpy(out->label, b.label, sizeof(out->label));
	fault = superblock_fault(out);
	if (fault)
		return verdict(SUPERBLOCK_DAMAGED, why, "the superblock is wrong although its checksum fits: %s",
			       fault);
	return SUPERBLOCK_VALID;
}

/* ---- tree and volume records ---- */

static bool tree_record_is_sane(const struct tree_record *t)
{
	if (uuid_is_zero(&t->volume) || t->tree_id == 0 || t->parent_id == t->tree_id)
		return false;
	if (t->height > TREE_HEIGHT_MAX || !pointer_is_sane(t->root) || (t->height == 0 && !pointer_is_hole(t->root)))
		return false;
	if (t->state != TREE_LIVE && t->state != TREE_DYING)
		return false;
	if (t->drop_cursor > VOLUME_BLOCKS_MAX || (t->state == TREE_LIVE && t->drop_cursor != 0))
		return false;
	return t->fork_epoch <= EPOCH_MAX && t->n_data_blocks <= VOLUME_BLOCKS_MAX;
}

void tree_record_encode(const struct tree_record *t, uint8_t block[static BLOCK_BYTES])
{
	struct tree_record_bytes b = {
	    .magic = TREE_MAGIC,
	    .height = (uint8_t)t->height,
	    .state = (uint8_t)t->state,
	    .volume = t->volume,
	    .tree_id = t->tree_id,
	    .parent_id = t->parent_id,
	    .root = t->root,
	    .fork_epoch = t->fork_epoch,
	    .n_data_blocks = t->n_data_blocks,
	    .drop_cursor = t->drop_cursor,
	};

	quarry_assert(tree_record_is_sane(t));
	memset(block, 0, BLOCK_BYTES);
	memcpy(block, &b, sizeof(b));
}

int tree_record_decode(const uint8_t block[static BLOCK_BYTES], struct tree_record *out)
{
	struct tree_record_bytes b;

	memcpy(&b, block, sizeof(b));
	if (b.magic != TREE_MAGIC || !bytes_are_zero(b.zero, sizeof(b.zero)) ||
	    !bytes_are_zero(block + sizeof(b), BLOCK_BYTES - sizeof(b)))
		return -EBADMSG;
	*out = (struct tree_record){
	    .volume = b.volume,
	    .tree_id = b.tree_id,
	    .parent_id = b.parent_id,
	    .root = b.root,
	    .height = b.height,
	    .state = (enum tree_state)b.state,
	    .fork_epoch = b.fork_epoch,
	    .n_data_blocks = b.n_data_blocks,
	    .drop_cursor = b.drop_cursor,
	};
	return tree_record_is_sane(out) ? 0 : -EBADMSG;
}

static bool volume_record_is_sane(const struct volume_record *v)
{
	return !uuid_is_zero(&v->volume) && v->complete_epoch <= EPOCH_MAX && v->size_blocks <= VOLUME_BLOCKS_MAX;
}

void volume_record_encode(const struct volume_record *v, uint8_t block[static BLOCK_BYTES])
{
	struct volume_record_bytes b = {
	    .magic = VOLUME_MAGIC,
	    .volume = v->volume,
	    .generation = v->generation,
	    .session = v->session,
	    .complete_epoch = v->complete_epoch,
	    .size_blocks = v->size_blocks,
	    .power_losses = v->power_losses,
	};

	quarry_assert(volume_record_is_sane(v));
	memset(block, 0, BLOCK_BYTES);
	memcpy(block, &b, sizeof(b));
}

int volume_record_decode(const uint8_t block[static BLOCK_BYTES], struct volume_record *out)
{
	struct volume_record_bytes b;

	memcpy(&b, block, sizeof(b));
	if (b.magic != VOLUME_MAGIC || !bytes_are_zero(b.zero, sizeof(b.zero)) ||
	    !bytes_are_zero(block + sizeof(b), BLOCK_BYTES - sizeof(b)))
		return -EBADMSG;
	*out = (struct volume_record){
	    .volume = b.volume,
	    .generation = b.generation,
	    .session = b.session,
	    .complete_epoch = b.complete_epoch,
	    .size_blocks = b.size_blocks,
	    .power_losses = b.power_losses,
	};
	return volume_record_is_sane(out) ? 0 : -EBADMSG;
}

/* ---- deltas ---- */

#define DELTA_CHANGE_BITS  14u
#define DELTA_CHANGE_SHIFT BLOCK_NUMBER_BITS
#define DELTA_WAS_ZERO     (1ull << 62)
#define DELTA_IS_ZERO      (1ull << 63)

uint64_t delta_pack(struct delta d)
{
	uint64_t change = (uint64_t)(int64_t)d.change & ((1ull << DELTA_CHANGE_BITS) - 1);

	quarry_assert(d.block < 1ull << BLOCK_NUMBER_BITS);
	quarry_assert(d.change >= -DELTA_CHANGE_MAX && d.change <= DELTA_CHANGE_MAX);
	return d.block | change << DELTA_CHANGE_SHIFT | (d.was_zero ? DELTA_WAS_ZERO : 0) |
	       (d.is_zero ? DELTA_IS_ZERO : 0);
}

struct delta delta_unpack(uint64_t word)
{
	int32_t change = (int32_t)(word >> DELTA_CHANGE_SHIFT & ((1ull << DELTA_CHANGE_BITS) - 1));

	if (change > DELTA_CHANGE_MAX)
		change -= 1 << DELTA_CHANGE_BITS; /* the sign bit */
	return (struct delta){
	    .block = word & ((1ull << BLOCK_NUMBER_BITS) - 1),
	    .change = change,
	    .was_zero = word & DELTA_WAS_ZERO,
	    .is_zero = word & DELTA_IS_ZERO,
	};
}
