/*
 * recovery_internal.h: the state of a recovery and its parts: recovery.c the stages, recovery_load.c what a checkpoint
 * wrote, recovery_replay.c the journal.
 */
#pragma once

#include "volumes/disk/disk_internal.h"

#define RECOVERY_BUFFER_BLOCKS 256u  /* of journal, read at once */
#define RECOVERY_DATA_BLOCKS   256u  /* of data to be verified, in one batch */
#define RECOVERY_RECORDS_MAX   1024u /* in one batch */

#define RECORD_TEXT_BYTES (TREE_TEXT_BYTES + 80u)

#define RECOVERY_STAGES(X)                                                                                             \
	X(SUPERBLOCKS)                                                                                                 \
	X(TABLES) X(RECORDS) X(DELTAS) X(SCAN) X(BEYOND) X(FETCH) X(VERIFY) X(APPLY) X(FLUSH) X(CHECKPOINT) X(END)
enum recovery_stage {
#define STAGE_NAME(name) RECOVERY_##name,
	RECOVERY_STAGES(STAGE_NAME)
#undef STAGE_NAME
};

struct recovery_op {
	struct op op;
	struct recovery *recovery;
	struct iovec iov;
	int res;
};

struct recovery {
	struct disk *disk;
	enum recovery_stage stage;
	int err;       /* why it ends */
	uint32_t owed; /* reads in flight */
	int read_res;  /* of the reads that have just ended: the first error */
	int wait_res;  /* what the waiter was woken with */
	bool is_woken, is_begun, is_reading, is_single, is_fetched, is_data_single;
	struct waiter waiter;
	struct recovery_op ops[RECOVERY_DATA_BLOCKS];
	uint64_t started_ns, device_blocks;
	uint64_t cursor;       /* the stage's own */
	unsigned table, level; /* TABLES, RECORDS */

	uint8_t *buffer;            /* RECOVERY_BUFFER_BLOCKS: of journal, or of whatever a stage reads */
	uint32_t chunk_n, chunk_at; /* journal blocks in it, and the next to look at */
	bool is_unreadable[RECOVERY_BUFFER_BLOCKS]; /* of these: they are zeros in the buffer */
	uint64_t next;                              /* SCAN: the next sequence; then: the end of the journal */
	uint64_t known_flushed;
	uint64_t last_beyond; /* BEYOND: the highest valid sequence behind the end */

	/* the batch */
	uint64_t replayed;  /* the next sequence to fetch records from */
	uint32_t record_at; /* bytes into its block */
	uint32_t n_batch, batch_at;
	struct batch_record {
		struct record record;
		uint64_t sequence;
		uint32_t data; /* where its data begin in r->data, in blocks */
		bool is_doubtful, is_dropped, is_unreadable;
	} batch[RECOVERY_RECORDS_MAX];
	uint8_t *data; /* RECOVERY_DATA_BLOCKS */
	uint32_t n_data;
	char first_dropped[RECORD_TEXT_BYTES];
	bool has_dropped; /* a record was dropped: ordered ones after it go too [RMWDEP] */
};

/* Says why recovery cannot go on; returns -EBADMSG. */
int recovery_fail(struct recovery *r, const char *format, ...) printf_like(2, 3);
/* Reads n blocks; the stage is run again when all reads have ended. `slot` < RECOVERY_DATA_BLOCKS, one read each. */
void recovery_read(struct recovery *r, unsigned slot, void *memory, uint64_t block, uint64_t n_blocks);

/* recovery_load.c */
enum flow recovery_tables(struct recovery *r);
enum flow recovery_records(struct recovery *r);
enum flow recovery_deltas(struct recovery *r);

/* recovery_replay.c */
/* Makes chunk_block() the block of this sequence: reads on when the buffer is used up. An unreadable block is zeros. */
enum flow chunk_read(struct recovery *r, uint64_t sequence);
static inline uint8_t *chunk_block(const struct recovery *r)
{
	return r->buffer + (size_t)r->chunk_at * BLOCK_BYTES;
}
void replay_begin(struct recovery *r);
enum flow replay_fetch(struct recovery *r);
void replay_verify(struct recovery *r);
enum flow replay_apply(struct recovery *r);
