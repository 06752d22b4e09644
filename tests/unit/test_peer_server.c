/*
 * test_peer_server.c: a disk that is served to another node: what each message does, what is refused, and that neither
 * a lost connection nor a lack of memory loses or leaks anything.
 */
#include "tests/unit/peer_world.h"

#include "daemon/core/bytes.h"

/* ---- greetings ---- */

static void a_greeting_comes_first(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_open(&w, 0);
	struct peer_message foreign = {.node = {.cluster = uuid_make(9, 9), .name = "n3"}}, reply;
	CU_ASSERT_EQUAL(line_call(l, PEER_GREETING, foreign, NULL), -EXDEV);
	CU_ASSERT_EQUAL(one_events(&w.one, "peer-foreign"), 1);
	CU_ASSERT_EQUAL(line_greet(l), 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_PING, (struct peer_message){0}, &reply), 0);
	line_send(l, line_header(l, PEER_GREETING), &foreign, NULL);
	CU_ASSERT_EQUAL(sim_run(w.one.sim, line_has_ended, l, ONE_STEPS_MAX), SIM_DONE);
	line_close(l);
	l = line_open(&w, 0);
	line_send(l, line_header(l, PEER_PING), &(struct peer_message){0}, NULL);
	CU_ASSERT_EQUAL(sim_run(w.one.sim, line_has_ended, l, ONE_STEPS_MAX), SIM_DONE);
	world_close(&w);
}

static void the_silent_are_left(void)
{
	struct world w;
	world_open(&w);
	struct line *mute = line_open(&w, 0), *l = line_open(&w, 1);
	CU_ASSERT_EQUAL(line_greet(l), 0);
	one_let_pass(&w.one, 3 * PEER_HANDSHAKE_NS);
	CU_ASSERT_TRUE(mute->has_ended);
	CU_ASSERT_FALSE(l->has_ended);
	for (int i = 0; i < 9; i++) {
		one_let_pass(&w.one, PEER_SILENCE_NS / 2);
		CU_ASSERT_EQUAL(line_call(l, PEER_PING, (struct peer_message){0}, NULL), 0);
	}
	one_let_pass(&w.one, 2 * PEER_SILENCE_NS + NS_PER_S);
	CU_ASSERT_TRUE(l->has_ended);
	CU_ASSERT_EQUAL(counter_get(&peer_server_counters(w.server)->n_connections), 0);
	world_close(&w);
}

static void more_connections_than_may_be(void)
{
	struct world w;
	world_open(&w);
	line_open(&w, 0);
	line_open(&w, 1);
	struct line *third = line_open(&w, 2);
	CU_ASSERT_EQUAL(sim_run(w.one.sim, line_has_ended, third, ONE_STEPS_MAX), SIM_DONE);
	CU_ASSERT_EQUAL(counter_get(&peer_server_counters(w.server)->turned_away), 1);
	world_close(&w);
}

/* ---- what each message does ---- */

static void a_session(void)
{
	struct world w;
	struct peer_message reply;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	CU_ASSERT_EQUAL(l->session, 1);
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
	struct peer_message m = {
	    .tree_id = 3, .first = 10, .n_blocks = PEER_WRITE_BLOCKS, .epoch = 2, .zero_blocks = 1ull << 63 | 2};
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, PEER_FUA, 0x5a)), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 10, 1, 0x5a), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 11, 1, 0), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 12, 61, 0x5a), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 73, 1, 0), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 74, 1, 0x5a), 0); /* the 65th */
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 75, 40, 0), 0);

	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, (struct peer_message){0}, NULL), 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_COMPLETE, (struct peer_message){.epoch = 2}, NULL), 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_FORK, (struct peer_message){.tree_id = 4, .parent_id = 3, .epoch = 2}, NULL),
			0);
	m = (struct peer_message){.tree_id = 3, .first = 20, .n_blocks = 5, .epoch = 3};
	CU_ASSERT_EQUAL(line_call(l, PEER_TRIM, m, NULL), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 20, 5, 0), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 4, 20, 5, 0x5a), 0);

	m = (struct peer_message){.tree_id = 3, .first = 0, .n_blocks = 1 << 18, .since = 3};
	CU_ASSERT_EQUAL(line_call(l, PEER_MAP, m, &reply), 0);
	CU_ASSERT_EQUAL(reply.is_last, 1);
	CU_ASSERT_EQUAL_FATAL(reply.n_entries, 1);
	CU_ASSERT_EQUAL(reply.extents[0].first, 20);
	CU_ASSERT_EQUAL(reply.extents[0].n_blocks, 5);
	CU_ASSERT_EQUAL(reply.extents[0].epoch, 3);
	CU_ASSERT_FALSE(reply.extents[0].is_data);

	CU_ASSERT_EQUAL(line_call(l, PEER_TREES, (struct peer_message){.tree_id = 0}, &reply), 0);
	CU_ASSERT_EQUAL_FATAL(reply.n_entries, 2);
	CU_ASSERT_EQUAL(reply.is_last, 1);
	CU_ASSERT_EQUAL(reply.trees[0].id, 3);
	CU_ASSERT_EQUAL(reply.trees[1].id, 4);
	CU_ASSERT_EQUAL(reply.trees[1].parent_id, 3);

	CU_ASSERT_EQUAL(line_call(l, PEER_DROP, (struct peer_message){.tree_id = 4}, NULL), 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_DROP, (struct peer_message){.tree_id = 4}, NULL), -ENOENT);
	CU_ASSERT_EQUAL(line_call(l, PEER_DROP, (struct peer_message){.tree_id = 3}, NULL), 0);
	one_let_pass(&w.one, NS_PER_S);
	CU_ASSERT_EQUAL(line_call(l, PEER_FORGET, (struct peer_message){0}, NULL), 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, (struct peer_message){0}, NULL), -ESHUTDOWN);
	world_close(&w);
}

/* More trees than one answer lists, made in no order; and more extents. */
static void long_lists(void)
{
	struct world w;
	struct peer_message reply, m;
	uint64_t after = 0, n_trees = 0, n_extents = 0;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	for (uint64_t i = 0; i < 300; i++) {
		m = (struct peer_message){.tree_id = 1 + i * 7 % 300, .epoch = 1};
		CU_ASSERT_EQUAL_FATAL(line_call(l, PEER_CREATE, m, NULL), 0);
	}
	do {
		CU_ASSERT_EQUAL_FATAL(line_call(l, PEER_TREES, (struct peer_message){.tree_id = after}, &reply), 0);
		for (uint64_t i = 0; i < reply.n_entries; i++)
			CU_ASSERT_EQUAL(reply.trees[i].id, ++n_trees);
		after = n_trees;
	} while (!reply.is_last);
	CU_ASSERT_EQUAL(n_trees, 300);
	for (uint64_t i = 0; i < 300; i++) {
		m = (struct peer_message){.tree_id = 1, .first = 2 * i, .n_blocks = 1, .epoch = 2};
		CU_ASSERT_EQUAL_FATAL(call_end(l, line_write(l, m, 0, 7)), 0);
	}
	for (after = 0;;) {
		m = (struct peer_message){.tree_id = 1, .first = after, .n_blocks = 1000 - after};
		CU_ASSERT_EQUAL_FATAL(line_call(l, PEER_MAP, m, &reply), 0);
		for (uint64_t i = 0; i < reply.n_entries; i++)
			n_extents += reply.extents[i].is_data;
		if (reply.is_last)
			break;
		CU_ASSERT_FATAL(reply.n_entries > 0);
		after = reply.extents[reply.n_entries - 1].first + reply.extents[reply.n_entries - 1].n_blocks;
	}
	CU_ASSERT_EQUAL(n_extents, 300);
	world_close(&w);
}

/* ---- what is refused ---- */

static void another_session(void)
{
	struct world w;
	const struct peer_message nothing = {0};
	world_open(&w);
	struct line *l = line_begin(&w, 0), *other = line_open(&w, 1);
	CU_ASSERT_EQUAL(line_greet(other), 0);
	other->session = l->session; /* right, and of another connection */
	CU_ASSERT_EQUAL(line_call(other, PEER_FLUSH, nothing, NULL), -ESTALE);
	other->generation = l->generation - 1; /* a head of the past */
	CU_ASSERT_EQUAL(line_hello(other), -ESTALE);
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, nothing, NULL), 0);
	l->generation++;
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, nothing, NULL), -ESTALE);
	l->generation--;
	l->session++;
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, nothing, NULL), -ESTALE);
	l->session--;
	other->generation = l->generation + 1;
	CU_ASSERT_EQUAL(line_hello(other), 0);
	CU_ASSERT_EQUAL(other->session, l->session + 1);
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, nothing, NULL), -ESTALE);
	CU_ASSERT_EQUAL(line_call(other, PEER_FLUSH, nothing, NULL), 0);
	w.one.volume = other->volume; /* a head of this node, by call */
	CU_ASSERT_EQUAL(one_call(&w.one, (struct disk_io){.op = DISK_FENCE, .generation = 7, .size_blocks = 100}), 0);
	CU_ASSERT_EQUAL(line_call(other, PEER_TREES, nothing, NULL), -ESTALE);
	CU_ASSERT_EQUAL(counter_get(&peer_server_counters(w.server)->fenced), 6);
	world_close(&w);
}

static struct peer_header reader_header(struct line *l, enum peer_type type)
{
	struct peer_header h = line_header(l, type);
	h.generation = h.session = 0;
	h.flags = PEER_READER;
	return h;
}

/* What never changes is looked at without a session, whoever has one; and what is damaged there can be healed. */
static void readers_need_no_session(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0), *other = line_open(&w, 1);
	struct peer_message m = {.tree_id = 3, .n_blocks = 2, .epoch = 2}, disks;
	CU_ASSERT_EQUAL(line_greet(other), 0);
	CU_ASSERT_EQUAL(line_call(other, PEER_DISKS, (struct peer_message){0}, &disks), 0);
	CU_ASSERT_EQUAL(disks.n_entries, 1);
	CU_ASSERT_EQUAL(disks.disks[0].room_blocks, 50);
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, 0, 9)), 0);
	struct call *c = line_send(other, reader_header(other, PEER_READ), &m, NULL);
	call_wait(other, c);
	CU_ASSERT_EQUAL(c->reply.status, PEER_STATUS_OK);
	CU_ASSERT_EQUAL(((uint8_t *)c->reply_data)[BLOCK_BYTES], 9);
	call_forget(c);
	CU_ASSERT_EQUAL(call_end(other, line_send(other, reader_header(other, PEER_MAP), &m, NULL)), 0);
	CU_ASSERT_EQUAL(call_end(other, line_give(other, reader_header(other, PEER_HEAL), m, 9)), 0);
	CU_ASSERT_EQUAL(call_end(other, line_give(other, reader_header(other, PEER_HEAL), m, 8)),
			-EIO); /* not what is there */
	CU_ASSERT_EQUAL(call_end(l, line_give(l, line_header(l, PEER_HEAL), m, 9)), 0);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 0, 2, 9), 0);
	m.tree_id = 4;
	CU_ASSERT_EQUAL(call_end(other, line_send(other, reader_header(other, PEER_READ), &m, NULL)), -ENOENT);
	w.has_no_disk = true;
	m.tree_id = 3;
	CU_ASSERT_EQUAL(call_end(other, line_send(other, reader_header(other, PEER_READ), &m, NULL)), -ENOENT);
	world_close(&w);
}

/* It names the teller's disk, which the server need not have, and is never part of a session. */
static void damage_is_handed_on(void)
{
	static const int results[] = {0, -EBUSY, -ENOENT, -EIO};
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	struct peer_message m = {.tree_id = 3, .first = 70, .n_blocks = 5};
	w.has_no_disk = true;
	for (size_t i = 0; i < array_size(results); i++) {
		w.damage_res = results[i];
		w.told = (struct peer_damage){.first = 0};
		CU_ASSERT_EQUAL(call_end(l, line_send(l, reader_header(l, PEER_DAMAGE), &m, NULL)), results[i]);
		CU_ASSERT(uuid_equal(&w.told.volume, &l->volume) && w.told.tree_id == 3);
		CU_ASSERT(w.told.first == 70 && w.told.n_blocks == 5);
	}
	w.told.n_blocks = 0;
	CU_ASSERT_EQUAL(call_end(l, line_send(l, line_header(l, PEER_DAMAGE), &m, NULL)), -EINVAL);
	CU_ASSERT_EQUAL(w.told.n_blocks, 0);
	world_close(&w);
}

static int line_measure(struct line *l, uint64_t tree_id, uint64_t first, struct peer_message *out)
{
	struct call *c = line_send(l, reader_header(l, PEER_MEASURE),
				   &(struct peer_message){.tree_id = tree_id, .first = first}, NULL);
	call_wait(l, c);
	if (c->reply.status == PEER_STATUS_OK)
		*out = *c->message;
	return call_end(l, c);
}

/* What a tree alone points to: of a disk that is there, and without a session. */
static void trees_are_measured(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0), *other = line_open(&w, 1);
	struct peer_message m = {.tree_id = 3, .n_blocks = 2, .epoch = 2}, measured = {0};
	CU_ASSERT_EQUAL(line_greet(other), 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, 0, 9)), 0);
	CU_ASSERT_EQUAL(line_measure(other, 3, 0, &measured), 0);
	CU_ASSERT(measured.is_last == 1 && measured.first == 0);
	CU_ASSERT(measured.data_blocks == 2 && measured.own_data_blocks == 2);
	CU_ASSERT_EQUAL(line_measure(other, 3, PEER_BLOCK_MAX, &measured), 0); /* nothing is so far out */
	CU_ASSERT(measured.is_last == 1 && measured.own_data_blocks == 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_FORK, (struct peer_message){.tree_id = 4, .parent_id = 3, .epoch = 2}, NULL),
			0);
	m.n_blocks = 1;
	m.epoch = 3;
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, 0, 8)), 0);
	CU_ASSERT_EQUAL(line_measure(other, 4, 0, &measured), 0);
	CU_ASSERT(measured.data_blocks == 2 && measured.own_data_blocks == 1);
	CU_ASSERT_EQUAL(line_measure(other, 5, 0, &measured), -ENOENT);
	m = (struct peer_message){.tree_id = 3};
	CU_ASSERT_EQUAL(call_end(l, line_send(l, line_header(l, PEER_MEASURE), &m, NULL)), -EINVAL);
	w.has_no_disk = true;
	CU_ASSERT_EQUAL(line_measure(other, 3, 0, &measured), -ESHUTDOWN);
	world_close(&w);
}

/* A clone is a fork into another volume. */
static void forks_into_another_volume(void)
{
	struct world w;
	const struct uuid clone = uuid_make(7, 7);
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	struct peer_message m = {.tree_id = 3, .n_blocks = 1, .epoch = 2};
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, 0, 9)), 0);
	m = (struct peer_message){.tree_id = 1, .parent_id = 3, .epoch = 3};
	m.child[0] = get_le64(clone.bytes);
	m.child[1] = get_le64(clone.bytes + 8);
	CU_ASSERT_EQUAL(line_call(l, PEER_FORK, m, NULL), 0);
	CU_ASSERT_PTR_NOT_NULL(disk_tree_find(w.one.disk, &clone, 1));
	CU_ASSERT_EQUAL(line_call(l, PEER_FORGET, (struct peer_message){0}, NULL), -EBUSY); /* it has a tree */
	world_close(&w);
}

static void what_makes_no_sense(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	struct peer_message m = {.tree_id = 3, .epoch = 1};
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, m, NULL), 0);
	m.parent_id = 3;
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, m, NULL), -EINVAL);
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.epoch = 1}, NULL), -EINVAL);
	m = (struct peer_message){.tree_id = 9, .n_blocks = 1};
	CU_ASSERT_EQUAL(line_call(l, PEER_READ, m, NULL), -ENOENT);
	m = (struct peer_message){.tree_id = 3, .n_blocks = 1};
	m = (struct peer_message){.tree_id = 3, .other_id = 9};
	CU_ASSERT_EQUAL(line_call(l, PEER_SWAP, m, NULL), -ENOENT);
	m.other_id = 3;
	CU_ASSERT_EQUAL(line_call(l, PEER_SWAP, m, NULL), -EINVAL);
	m = (struct peer_message){.tree_id = 9, .n_blocks = 1};
	CU_ASSERT_EQUAL(line_call(l, PEER_STAMPS, m, NULL), -ENOENT);
	m.tree_id = 3;
	struct peer_header h = line_header(l, PEER_HELLO);
	h.disk = uuid_make(8, 8);
	CU_ASSERT_EQUAL(call_end(l, line_send(l, h, &m, NULL)), -ENOENT);
	/* damaged on the way, beyond what TLS would notice */
	m = (struct peer_message){.tree_id = 3, .n_blocks = 2, .epoch = 2};
	struct call *c = line_write(l, m, 0, 9);
	c->data[5000] ^= 1;
	CU_ASSERT_EQUAL(call_end(l, c), -EBADMSG);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 0, 2, 0), 0);
	CU_ASSERT_EQUAL(counter_get(&peer_server_counters(w.server)->damaged), 1);
	world_close(&w);
}

static void who_breaks_the_rules(void)
{
	for (int how = 0; how < 3; how++) {
		struct world w;
		world_open(&w);
		struct line *l = line_begin(&w, 0);
		struct peer_message m = {.tree_id = 3, .n_blocks = 1, .epoch = 2};
		CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
		if (how == 0) { /* an id that does not grow */
			l->next_id--;
			line_write(l, m, 0, 1);
		} else if (how == 1) { /* a reply */
			struct peer_header h = line_header(l, PEER_FLUSH);
			h.flags = PEER_REPLY;
			line_send(l, h, &m, NULL);
		} else {
			for (uint32_t i = 0; i <= PEER_REQUESTS_MAX; i++)
				line_write(l, m, PEER_FUA, 1);
		}
		CU_ASSERT_EQUAL(sim_run(w.one.sim, line_has_ended, l, ONE_STEPS_MAX), SIM_DONE);
		world_close(&w);
	}
}

/* ---- order ---- */

static uint64_t n_sessions(const struct world *w)
{
	return counter_get(&peer_server_counters(w->server)->n_sessions);
}

/* What is at the disk when the connection breaks is through before the next session begins. */
static void the_next_session_waits(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	struct peer_message m = {.tree_id = 3, .epoch = 1};
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, m, NULL), 0);
	struct sim_file_faults *faults = sim_file_faults(w.one.medium);
	faults->slow_ppm = 1000000;
	faults->slow_ns = NS_PER_S;
	for (uint32_t i = 0; i < 20; i++) {
		m = (struct peer_message){.tree_id = 3, .first = i, .n_blocks = 1, .epoch = 2};
		line_write(l, m, 0, 7);
	}
	one_let_pass(&w.one, 200 * NS_PER_MS);
	sim_net_cut(w.far, w.one.machine);
	line_close(l);
	l = line_open(&w, 1);
	CU_ASSERT_EQUAL(line_greet(l), 0);
	CU_ASSERT_EQUAL(n_sessions(&w), 1); /* over, with its writes at the disk */
	m = (struct peer_message){.size_blocks = 1 << 18};
	struct call *hello = line_send(l, line_header(l, PEER_HELLO), &m, NULL);
	one_let_pass(&w.one, 200 * NS_PER_MS);
	CU_ASSERT_EQUAL(n_sessions(&w), 2);
	while (n_sessions(&w) == 2) {
		struct volume_record record;
		CU_ASSERT_TRUE_FATAL(disk_volume(w.one.disk, &l->volume, &record));
		CU_ASSERT_EQUAL(record.session, 1); /* the disk has not even heard of the next one */
		CU_ASSERT_TRUE_FATAL(sim_step(w.one.sim));
	}
	faults->slow_ppm = 0;
	call_wait(l, hello);
	CU_ASSERT_EQUAL(n_sessions(&w), 1);
	l->session = hello->reply.session;
	CU_ASSERT_EQUAL(l->session, 2);
	CU_ASSERT_EQUAL(line_read_differs(l, 3, 0, 20, 7), 0);
	world_close(&w);
}

/* A DROP among reads of its tree: those before it are answered, those after find nothing. */
static void a_drop_waits_for_reads(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	struct peer_message m = {.tree_id = 3, .epoch = 1}, read = {.tree_id = 3, .n_blocks = 4};
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, m, NULL), 0);
	m = (struct peer_message){.tree_id = 3, .n_blocks = 4, .epoch = 2};
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, 0, 7)), 0);
	struct sim_file_faults *faults = sim_file_faults(w.one.medium);
	faults->slow_ppm = 1000000;
	faults->slow_ns = NS_PER_S;
	struct call *before = line_send(l, line_header(l, PEER_READ), &read, NULL);
	struct call *drop = line_send(l, line_header(l, PEER_DROP), &read, NULL);
	struct call *after = line_send(l, line_header(l, PEER_READ), &read, NULL);
	call_wait(l, after);
	CU_ASSERT_EQUAL(after->reply.status, PEER_STATUS_NOT_FOUND);
	CU_ASSERT_EQUAL(w.one.disk->n_requests, 1); /* the first read: the disk has not heard of the drop */
	CU_ASSERT_FALSE(before->is_answered);
	CU_ASSERT_EQUAL(call_end(l, drop), 0);
	CU_ASSERT_TRUE(before->is_answered);
	CU_ASSERT_EQUAL(before->reply.status, PEER_STATUS_OK);
	world_close(&w);
}

/* ---- memory, disks, restarts ---- */

/* Far more data under way than there are buffers. */
static void little_memory(void)
{
	struct world w;
	struct call *calls[100];
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
	for (uint32_t i = 0; i < 100; i++) {
		uint32_t n = i % 2 ? PEER_READ_BLOCKS : PEER_WRITE_BLOCKS;
		struct peer_message m = {.tree_id = 3, .first = i / 2 * 65, .n_blocks = n, .epoch = 2};
		if (i % 2) /* elsewhere, where nothing is written */
			m.first += 10000;
		calls[i] =
		    i % 2 ? line_send(l, line_header(l, PEER_READ), &m, NULL) : line_write(l, m, 0, (uint8_t)(i + 1));
	}
	for (uint32_t i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(call_end(l, calls[i]), 0);
	for (uint32_t i = 0; i < 100; i += 2)
		CU_ASSERT_EQUAL(line_read_differs(l, 3, i / 2 * 65, 64, (uint8_t)(i + 1)), 0);
	CU_ASSERT_EQUAL(buffers_used_bytes(w.buffers), 0);
	world_close(&w);
}

/* What is damaged on the disk is told block by block, and the rest is there. */
static void a_damaged_block(void)
{
	struct world w;
	struct pointer pointer;
	struct waiter unused = {0};
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	struct peer_message m = {.tree_id = 3, .epoch = 1};
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, m, NULL), 0);
	m = (struct peer_message){.tree_id = 3, .n_blocks = 4, .epoch = 2};
	CU_ASSERT_EQUAL(call_end(l, line_write(l, m, PEER_FUA, 7)), 0);
	struct disk_tree *t = disk_tree_find(w.one.disk, &l->volume, 3);
	CU_ASSERT_EQUAL_FATAL(tree_get(t, 2, 1, &pointer, &unused), 0);
	sim_file_flip(w.one.medium, pointer_block(pointer), 77);
	struct call *c = line_send(l, line_header(l, PEER_READ), &m, NULL);
	call_wait(l, c);
	CU_ASSERT_EQUAL(c->reply.status, PEER_STATUS_OK);
	CU_ASSERT_EQUAL(c->message->bad_blocks, 1u << 2);
	CU_ASSERT_EQUAL(c->reply.data_bytes, 3 * BLOCK_BYTES);
	m.first = 2;
	m.n_blocks = 1;
	CU_ASSERT_EQUAL(line_call(l, PEER_READ, m, NULL), -EIO);
	world_close(&w);
}

static void a_disk_that_closes(void)
{
	struct world w;
	world_open(&w);
	struct line *l = line_begin(&w, 0);
	uint64_t first_session = l->session;
	struct peer_message m = {.tree_id = 3, .epoch = 1};
	CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, m, NULL), 0);
	m = (struct peer_message){.tree_id = 3, .n_blocks = 4, .epoch = 2};
	struct call *c = line_write(l, m, PEER_FUA, 7);
	one_let_pass(&w.one, 10 * NS_PER_US);
	peer_server_disk_closes(w.server, w.one.disk);
	w.has_no_disk = true;
	one_close_disk(&w.one);
	call_wait(l, c); /* whatever it is told */
	call_forget(c);
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, (struct peer_message){0}, NULL), -ESHUTDOWN);
	CU_ASSERT_EQUAL(line_hello(l), -ENOENT);
	one_open_disk(&w.one);
	w.has_no_disk = false;
	CU_ASSERT_EQUAL(line_call(l, PEER_FLUSH, (struct peer_message){0}, NULL), -ESHUTDOWN);
	CU_ASSERT_EQUAL(line_hello(l), 0);
	CU_ASSERT(l->session > first_session);
	world_stop_server(&w); /* and the node restarts its server */
	line_close(l);
	world_start_server(&w);
	uint64_t second_session = l->session;
	l = line_begin(&w, 0);
	CU_ASSERT(l->session > second_session);
	world_close(&w);
}

/* Connections that break under load at any moment: everything comes back, and what was answered is there. */
static void cuts_at_any_moment(void)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct world w;
		uint64_t chance = seed;
		world_open(&w);
		struct line *l = line_begin(&w, 0);
		struct call *calls[40];
		uint64_t answered = 0;
		CU_ASSERT_EQUAL(line_call(l, PEER_CREATE, (struct peer_message){.tree_id = 3, .epoch = 1}, NULL), 0);
		for (uint32_t i = 0; i < 40; i++) {
			uint32_t n = 1 + (uint32_t)(sim_split(&chance) % PEER_WRITE_BLOCKS);
			struct peer_message m = {.tree_id = 3, .first = i * 65, .n_blocks = n, .epoch = 2};
			calls[i] = line_write(l, m, i % 4 ? 0 : PEER_FUA, (uint8_t)(i + 1));
		}
		one_let_pass(&w.one, sim_split(&chance) % (20 * NS_PER_MS));
		for (uint32_t i = 0; i < 40; i++)
			if (calls[i]->is_answered && calls[i]->reply.status == PEER_STATUS_OK)
				answered |= 1ull << i;
		sim_net_cut(w.far, w.one.machine);
		line_close(l);
		l = line_begin(&w, 1);
		for (uint32_t i = 0; i < 40; i++)
			if (answered >> i & 1)
				CU_ASSERT_EQUAL(line_read_differs(l, 3, i * 65, 1, (uint8_t)(i + 1)), 0);
		world_close(&w);
	}
}

/* ---- orders ---- */

static struct call *line_order(struct line *l, uint32_t text_bytes)
{
	struct peer_message m = {.n_blocks = (text_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES, .text_bytes = text_bytes};
	uint8_t *data = aligned_alloc(BLOCK_BYTES, m.n_blocks * BLOCK_BYTES);
	memset(data, 0, m.n_blocks * BLOCK_BYTES);
	memset(data, 'o', text_bytes);
	for (uint32_t i = 0; i < m.n_blocks; i++)
		m.crcs[i] = crc32c(0, data + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	return line_send(l, line_header(l, PEER_ORDER), &m, data);
}

static void an_order_and_its_answer(void)
{
	struct world w;
	struct peer_message m = {.node = {.cluster = uuid_make(1, 3), .name = "n2"}}, greeting;
	const uint32_t sizes[] = {1, BLOCK_BYTES, BLOCK_BYTES + 1, PEER_TEXT_MAX};
	world_open(&w);
	struct line *l = line_open(&w, 0);
	CU_ASSERT_EQUAL(line_call(l, PEER_GREETING, m, &greeting), 0);
	CU_ASSERT_EQUAL(greeting.features, PEER_TAKES_ORDERS | PEER_TAKES_DAMAGE | PEER_MEASURES);
	for (size_t i = 0; i < array_size(sizes); i++) {
		struct call *c = line_order(l, sizes[i]);
		call_wait(l, c);
		CU_ASSERT_EQUAL(c->reply.status, PEER_STATUS_OK);
		CU_ASSERT_EQUAL(c->message->http_status, 299);
		CU_ASSERT_EQUAL(c->message->text_bytes, sizes[i]);
		CU_ASSERT_EQUAL(memcmp(c->reply_data, c->data, c->reply.data_bytes), 0);
		call_forget(c);
	}
	CU_ASSERT_EQUAL(buffers_used_bytes(w.buffers), 0);
	world_close(&w);
}

static bool order_is_held(void *context)
{
	return ((struct world *)context)->held != NULL;
}

/* It takes its time: others pass it; who asked may be gone before it ends, and the server waits for it. */
static void an_order_that_takes_long(void)
{
	struct world w;
	world_open(&w);
	w.holds_orders = true;
	struct line *l = line_open(&w, 0);
	CU_ASSERT_EQUAL(line_greet(l), 0);
	line_order(l, 100);
	CU_ASSERT_EQUAL_FATAL(sim_run(w.one.sim, order_is_held, &w, ONE_STEPS_MAX), SIM_DONE);
	CU_ASSERT_STRING_EQUAL(w.held->node, "n2");
	CU_ASSERT_EQUAL(line_call(l, PEER_PING, (struct peer_message){0}, NULL), 0);
	line_close(l);
	one_let_pass(&w.one, NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&peer_server_counters(w.server)->n_connections), 1);
	CU_ASSERT_EQUAL(w.held->text[99], 'o');
	order_echo(w.held);
	one_let_pass(&w.one, NS_PER_MS);
	CU_ASSERT_EQUAL(counter_get(&peer_server_counters(w.server)->n_connections), 0);

	w.held = NULL;
	l = line_open(&w, 1);
	CU_ASSERT_EQUAL(line_greet(l), 0);
	line_order(l, 100);
	CU_ASSERT_EQUAL_FATAL(sim_run(w.one.sim, order_is_held, &w, ONE_STEPS_MAX), SIM_DONE);
	w.is_stopped = false;
	peer_server_stop(w.server, world_stopped, &w);
	one_let_pass(&w.one, NS_PER_S);
	CU_ASSERT_FALSE(w.is_stopped);
	peer_order_answer(w.held, 0, NULL, 0);
	CU_ASSERT_EQUAL(sim_run(w.one.sim, world_is_stopped, &w, ONE_STEPS_MAX), SIM_DONE);
	w.server = NULL;
	world_close(&w);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("peer server", NULL, NULL);
	CU_add_test(suite, "a greeting comes first", a_greeting_comes_first);
	CU_add_test(suite, "the silent are left", the_silent_are_left);
	CU_add_test(suite, "more connections than may be", more_connections_than_may_be);
	CU_add_test(suite, "a session", a_session);
	CU_add_test(suite, "long lists", long_lists);
	CU_add_test(suite, "another session", another_session);
	CU_add_test(suite, "readers need no session", readers_need_no_session);
	CU_add_test(suite, "forks into another volume", forks_into_another_volume);
	CU_add_test(suite, "damage is handed on", damage_is_handed_on);
	CU_add_test(suite, "trees are measured", trees_are_measured);
	CU_add_test(suite, "what makes no sense", what_makes_no_sense);
	CU_add_test(suite, "who breaks the rules", who_breaks_the_rules);
	CU_add_test(suite, "the next session waits", the_next_session_waits);
	CU_add_test(suite, "a drop waits for reads", a_drop_waits_for_reads);
	CU_add_test(suite, "little memory", little_memory);
	CU_add_test(suite, "a damaged block", a_damaged_block);
	CU_add_test(suite, "a disk that closes", a_disk_that_closes);
	CU_add_test(suite, "cuts at any moment", cuts_at_any_moment);
	CU_add_test(suite, "an order and its answer", an_order_and_its_answer);
	CU_add_test(suite, "an order that takes long", an_order_that_takes_long);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
