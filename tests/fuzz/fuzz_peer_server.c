/*
 * fuzz_peer_server.c: a node that has the cluster's key and sends anything: well-formed messages in any order, with any
 * numbers, to a server with a real disk in the simulated world.
 *
 * An input is a row of messages of 16 bytes or more: how each is sent, its type, and its numbers, which are small, so
 * that they meet each other. Ids, sessions and generations are right unless `how` says otherwise, so that inputs get
 * far. Whatever happened, another node is served after it; the server stops with nothing held; and the disk, whose
 * process then dies, recovers.
 */
#include <CUnit/Basic.h>

/* The world of the unit tests checks what must hold by CUnit, which knows no tests here. */
#define CU_assertImplementation(holds, ...) quarry_assert(holds)

#include "tests/unit/peer_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { /* how a message is sent */
       REPEATS_ID = 1,
       OTHER_SESSION = 2,
       OTHER_GENERATION = 4,
       IS_REPLY = 8,
       WAITS = 16, /* a moment passes after it */
       HAS_DAMAGE = 32,
       FLAGS_SHIFT = 6,
};
#define MESSAGES_MAX 60u

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t input_byte(struct input *in)
{
	if (in->size == 0)
		return 0;
	in->size--;
	return *in->data++;
}

/* What a message of this type has to say, out of small numbers that meet each other; the body's bytes follow. */
static void input_message(struct input *in, enum peer_type type, struct peer_message *m)
{
	memset(m, 0, sizeof(*m));
	m->tree_id = input_byte(in) % 8;
	m->parent_id = input_byte(in) % 8;
	m->first = (uint64_t)input_byte(in) << (input_byte(in) % 41);
	m->n_blocks = 1 + input_byte(in);
	m->epoch = input_byte(in);
	m->since = input_byte(in) % 16;
	m->size_blocks = (uint64_t)input_byte(in) << (input_byte(in) % 41);
	m->zero_blocks = (uint64_t)input_byte(in) * 0x0101010101010101u;
	m->before = m->since ? m->since : UINT64_MAX;
	m->other_id = m->parent_id;
	m->child[0] = m->since / 8;
	if (type == PEER_TRIM || type == PEER_MAP || type == PEER_CUT || type == PEER_STAMPS || type == PEER_COPY_HOLES)
		m->n_blocks <<= input_byte(in) % 40;
	else if (type == PEER_READ || type == PEER_HEAL || type == PEER_DAMAGE)
		m->n_blocks = 1 + m->n_blocks % PEER_READ_BLOCKS;
	else
		m->n_blocks = 1 + m->n_blocks % (type == PEER_ORDER ? PEER_TEXT_BLOCKS : PEER_WRITE_BLOCKS);
	if (type == PEER_ORDER)
		m->zero_blocks = 0;
	m->text_bytes = m->n_blocks * BLOCK_BYTES - m->epoch;
	m->first = min_u64(m->first, PEER_BLOCK_MAX - m->n_blocks);
	if (m->n_blocks < 64)
		m->zero_blocks &= (1ull << m->n_blocks) - 1;
	if (type != PEER_GREETING)
		return;
	m->node.cluster = uuid_make(1, 3);
	memcpy(m->node.name, "n2", 3);
}

static uint8_t *message_data(enum peer_type type, struct peer_message *m, bool has_damage)
{
	bool is_copy = type == PEER_COPY;
	if (!is_copy && type != PEER_WRITE && type != PEER_ORDER && type != PEER_HEAL)
		return NULL;
	uint8_t *data = aligned_alloc(BLOCK_BYTES, PEER_DATA_MAX), *at = data;
	for (uint32_t i = 0; i < m->n_blocks; i++) {
		bool is_there = peer_block_is_there(m, i);
		uint32_t crc = 0;
		if (is_there) {
			memset(at, (int)(m->epoch + 1), BLOCK_BYTES);
			crc = crc32c(0, at, BLOCK_BYTES) + has_damage;
			at += BLOCK_BYTES;
		}
		if (is_copy)
			m->stamps[i] = (struct peer_stamp){.crc = crc, .is_data = is_there, .epoch = m->epoch};
		else
			m->crcs[i] = crc;
	}
	return data;
}

static bool sent_or_ended(void *context)
{
	struct call *c = context;
	return c->is_sent;
}

/* false: the connection has ended. */
static bool send_one(struct line *l, struct input *in)
{
	static struct peer_message m;
	uint8_t how = input_byte(in);
	uint8_t which = input_byte(in);
	enum peer_type type = (enum peer_type)(PEER_GREETING + which % PEER_HEAL);
	if (which >= UINT8_MAX - 1) /* what came later has numbers of its own */
		type = which == UINT8_MAX ? PEER_DAMAGE : PEER_MEASURE;
	uint32_t flags = (uint32_t)(how >> FLAGS_SHIFT) << 1; /* FUA, ORDERED */
	input_message(in, type, &m);
	l->next_id -= how & REPEATS_ID;
	struct peer_header h = line_header(l, type);
	bool of_volume = h.generation != 0;
	if (of_volume && type != PEER_HELLO && h.session == 0)
		h.session = 1;
	if (of_volume && type != PEER_HELLO)
		h.session += how & OTHER_SESSION;
	if (of_volume)
		h.generation += how & OTHER_GENERATION;
	if (type == PEER_WRITE)
		h.flags = flags & (PEER_FUA | PEER_ORDERED);
	else if (type == PEER_TRIM)
		h.flags = flags & PEER_FUA;
	bool can_read =
	    type == PEER_READ || type == PEER_MAP || type == PEER_HEAL || type == PEER_DAMAGE || type == PEER_MEASURE;
	if (can_read && flags & PEER_FUA) { /* without a session */
		h.flags = PEER_READER;
		h.generation = h.session = 0;
	}
	uint8_t *data = message_data(type, &m, how & HAS_DAMAGE);
	if (how & IS_REPLY && type == PEER_FLUSH)
		h.flags = PEER_REPLY;
	struct call *c = line_send(l, h, &m, data);
	sim_run(l->world->one.sim, sent_or_ended, c, 10000);
	if (how & WAITS)
		one_let_pass(&l->world->one, NS_PER_MS);
	return !l->has_ended;
}

/* Somebody else sees nothing of it. */
static void check_another(struct world *w)
{
	struct line *l = line_open(w, 1);
	struct peer_message m = {.tree_id = 50, .epoch = 300};
	l->generation = 100;
	quarry_assert(line_greet(l) == 0 && line_hello(l) == 0);
	quarry_assert(line_call(l, PEER_CREATE, m, NULL) == 0);
	m = (struct peer_message){.tree_id = 50, .first = 3, .n_blocks = 2, .epoch = 301};
	quarry_assert(call_end(l, line_write(l, m, PEER_FUA, 9)) == 0);
	quarry_assert(line_read_differs(l, 50, 3, 2, 9) == 0);
}

/* The disk's process dies, and what it wrote to its journal must be what recovery takes. */
static void world_end(struct world *w)
{
	for (unsigned i = 0; i < LINES_MAX; i++)
		line_close(&w->lines[i]);
	world_stop_server(w);
	buffers_destroy(w->buffers);
	sim_crash(w->one.machine, SIM_KILL);
	disk_abandon(w->one.disk);
	one_open_disk(&w->one);
	one_close(&w->one);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w; /* large */
	struct input in = {data, size};
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	const struct peer_message m = {.tree_id = 1, .epoch = 1};
	quarry_assert(line_call(l, PEER_CREATE, m, NULL) == 0);
	for (uint32_t i = 0; i < MESSAGES_MAX && in.size > 0; i++)
		if (!send_one(l, &in))
			break;
	check_another(&w);
	world_end(&w);
	return 0;
}
