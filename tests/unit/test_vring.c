/*
 * test_vring.c: split and packed rings as a guest may fill them, well-meaning or not, and the record of requests in
 * flight at every moment it may be cut.
 */
#include "frontends/vhost-user/vring.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SIZE         8u
#define GUEST        0x10000ull /* where the first region begins */
#define REGION_BYTES 0x10000ull
#define GUEST_2      (GUEST + REGION_BYTES) /* its neighbour, elsewhere in our memory */
#define DATA         (GUEST + 0x8000)
#define TABLE        (GUEST + 0x4000)

struct ring_world {
	struct vhost_memory memory;
	uint8_t *far; /* the second region */
	struct vring ring;
	struct vring_chain chain;
	uint8_t *inflight;
	uint16_t n_avail, place; /* the guest's: split, packed */
	bool wrap;
};

static void ring_begin(struct ring_world *w, bool is_new)
{
	struct vring *v = &w->ring;
	bool is_packed = v->is_packed;
	*v = (struct vring){.memory = &w->memory, .size = SIZE, .is_packed = is_packed, .has_indirect = true};
	v->desc = w->memory.regions[0].host;
	v->avail = v->desc + 0x1000;
	v->used = v->desc + 0x2000;
	v->inflight = w->inflight;
	vring_start(v, is_packed ? 0x80008000u : 0, is_new);
}

static void world_open(struct ring_world *w, bool is_packed)
{
	*w = (struct ring_world){.wrap = true};
	uint8_t *near = aligned_alloc(4096, REGION_BYTES);
	w->far = aligned_alloc(4096, REGION_BYTES);
	w->inflight = aligned_alloc(64, (INFLIGHT_QUEUE_BYTES(VRING_SIZE_MAX) + 63) & ~(size_t)63);
	CU_ASSERT_FATAL(near && w->far && w->inflight);
	memset(near, 0, REGION_BYTES);
	memset(w->far, 0, REGION_BYTES);
	memset(w->inflight, 0, INFLIGHT_QUEUE_BYTES(VRING_SIZE_MAX));
	w->memory.regions[0] = (struct vhost_region){.guest = GUEST, .len_bytes = REGION_BYTES, .host = near};
	w->memory.regions[1] = (struct vhost_region){.guest = GUEST_2, .len_bytes = REGION_BYTES, .host = w->far};
	w->memory.n_regions = 2;
	w->ring.is_packed = is_packed;
	ring_begin(w, true);
}

static void world_close(struct ring_world *w)
{
	free(w->memory.regions[0].host);
	free(w->far);
	free(w->inflight);
}

/* ---- the guest ---- */

static void desc_put(struct ring_world *w, uint32_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t *d = w->ring.desc + (size_t)i * VRING_DESC_BYTES;
	put_le64(d, addr);
	put_le32(d + 8, len);
	put_le16(d + 12, w->ring.is_packed ? next : flags);
	put_le16(d + 14, w->ring.is_packed ? flags : next);
}

static void avail_put(struct ring_world *w, uint16_t head)
{
	put_le16(w->ring.avail + 4 + 2 * (w->n_avail++ % SIZE), head);
	put_le16(w->ring.avail + 2, w->n_avail);
}

/* A request of two descriptors, to read from and to write to, known by id. */
static void guest_adds(struct ring_world *w, uint16_t id)
{
	if (!w->ring.is_packed) {
		desc_put(w, id, DATA, 16, DESC_NEXT, (uint16_t)(id + 1));
		desc_put(w, id + 1u, DATA + 512, 513, DESC_WRITE, 0);
		avail_put(w, id);
		return;
	}
	for (unsigned n = 0; n < 2; n++) {
		uint16_t flags = (uint16_t)((w->wrap ? DESC_AVAIL : DESC_USED) | (n == 0 ? DESC_NEXT : DESC_WRITE));
		desc_put(w, w->place, n == 0 ? DATA : DATA + 512, n == 0 ? 16 : 513, flags, id);
		if (++w->place == SIZE) {
			w->place = 0;
			w->wrap = !w->wrap;
		}
	}
}

static void expect_broken(struct ring_world *w, const char *why)
{
	CU_ASSERT_EQUAL(vring_next(&w->ring, &w->chain), -EPROTO);
	CU_ASSERT_TRUE(w->ring.is_broken);
	CU_ASSERT_PTR_NOT_NULL_FATAL(w->ring.why);
	CU_ASSERT_PTR_NOT_NULL(strstr(w->ring.why, why));
	if (!strstr(w->ring.why, why))
		printf("\n  it says: %s\n", w->ring.why);
	CU_ASSERT_EQUAL(vring_next(&w->ring, &w->chain), -EPROTO); /* and stays so */
	CU_ASSERT_FALSE(vring_has_more(&w->ring));
	world_close(w);
}

/* ---- what is right ---- */

static void goes_round(bool is_packed)
{
	struct ring_world w;
	world_open(&w, is_packed);
	for (unsigned round = 0; round < 100; round++) {
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 0);
		guest_adds(&w, 0);
		CU_ASSERT_TRUE(vring_has_more(&w.ring));
		CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
		CU_ASSERT_EQUAL(w.chain.readable_bytes, 16);
		CU_ASSERT_EQUAL(w.chain.writable_bytes, 513);
		CU_ASSERT_EQUAL(w.chain.n_pieces, 2);
		vring_complete(&w.ring, &w.chain, 7);
		CU_ASSERT_TRUE(vring_wants_call(&w.ring));
	}
	if (!is_packed) {
		CU_ASSERT_EQUAL(get_le16(w.ring.used + 2), 100);
		CU_ASSERT_EQUAL(get_le32(w.ring.used + 4 + 8 * (99 % SIZE) + 4), 7);
	}
	CU_ASSERT_EQUAL(vring_base(&w.ring) & 0xffff, is_packed ? (200 % SIZE) | (200 / SIZE % 2 ? 0 : 1u << 15) : 100);
	world_close(&w);
}

static void split_goes_round(void)
{
	goes_round(false);
}
static void packed_goes_round(void)
{
	goes_round(true);
}

static void a_piece_lies_in_two_regions(void)
{
	struct ring_world w;
	world_open(&w, false);
	desc_put(&w, 0, GUEST_2 - 100, 300, DESC_WRITE, 0);
	avail_put(&w, 0);
	CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
	CU_ASSERT_EQUAL_FATAL(w.chain.n_pieces, 2);
	CU_ASSERT_EQUAL(w.chain.pieces[0].iov_len, 100);
	CU_ASSERT_PTR_EQUAL(w.chain.pieces[1].iov_base, w.far);
	CU_ASSERT_EQUAL(w.chain.pieces[1].iov_len, 200);
	world_close(&w);
}

static void table_desc(struct ring_world *w, uint64_t at, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint64_t room = VRING_DESC_BYTES;
	uint8_t *d = memory_at(&w->memory, at, &room);
	put_le64(d, addr);
	put_le32(d + 8, len);
	put_le16(d + 12, w->ring.is_packed ? next : flags);
	put_le16(d + 14, w->ring.is_packed ? flags : next);
}

static void tables_are_followed(void)
{
	struct ring_world w;
	for (int is_packed = 0; is_packed < 2; is_packed++) {
		world_open(&w, is_packed);
		table_desc(&w, TABLE, DATA, 16, DESC_NEXT, 1);
		table_desc(&w, TABLE + 16, DATA + 512, 1, DESC_WRITE, 0);
		desc_put(&w, 0, TABLE, 32, DESC_INDIRECT | (is_packed ? DESC_AVAIL : 0), 0);
		if (!is_packed)
			avail_put(&w, 0);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		CU_ASSERT_EQUAL(w.chain.readable_bytes, 16);
		CU_ASSERT_EQUAL(w.chain.writable_bytes, 1);
		world_close(&w);
	}
}

static void calls_are_for_who_wants_them(void)
{
	struct ring_world w;
	world_open(&w, false);
	CU_ASSERT_TRUE(vring_wants_call(&w.ring)); /* the first: perhaps one was missed */
	w.ring.has_event_idx = true;
	put_le16(w.ring.avail + 4 + 2 * SIZE, 1); /* after the second completion */
	for (unsigned i = 0; i < 3; i++) {
		guest_adds(&w, 0);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		vring_complete(&w.ring, &w.chain, 0);
		CU_ASSERT_EQUAL(vring_wants_call(&w.ring), i == 1);
	}
	w.ring.has_event_idx = false;
	put_le16(w.ring.avail, AVAIL_NO_INTERRUPT);
	CU_ASSERT_FALSE(vring_wants_call(&w.ring));
	world_close(&w);
}

/* ---- what is a lie ---- */

static void split_lies_are_found(void)
{
	struct ring_world w;
	world_open(&w, false);
	put_le16(w.ring.avail + 2, SIZE + 1);
	expect_broken(&w, "more requests than");
	world_open(&w, false);
	avail_put(&w, SIZE);
	expect_broken(&w, "first descriptor");
	world_open(&w, false);
	desc_put(&w, 0, DATA, 16, DESC_NEXT, SIZE);
	avail_put(&w, 0);
	expect_broken(&w, "none of the ring");
	world_open(&w, false);
	desc_put(&w, 0, DATA, 16, DESC_NEXT, 1);
	desc_put(&w, 1, DATA, 16, DESC_NEXT, 0);
	avail_put(&w, 0);
	expect_broken(&w, "no end");
	world_open(&w, false);
	desc_put(&w, 0, UINT64_MAX - 8, 4096, 0, 0);
	avail_put(&w, 0);
	expect_broken(&w, "outside");
	world_open(&w, false);
	desc_put(&w, 0, GUEST_2 + REGION_BYTES - 8, UINT32_MAX, DESC_WRITE, 0);
	avail_put(&w, 0);
	expect_broken(&w, "outside");
	world_open(&w, false);
	desc_put(&w, 0, DATA, 16, DESC_WRITE | DESC_NEXT, 1);
	desc_put(&w, 1, DATA, 16, 0, 0);
	avail_put(&w, 0);
	expect_broken(&w, "after memory to write");
	world_open(&w, false);
	guest_adds(&w, 0);
	avail_put(&w, 0); /* the same again, while it is in flight */
	CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
	expect_broken(&w, "in flight was given again");
}

static void table_lies_are_found(void)
{
	static const struct {
		uint32_t len;
		uint16_t flags, next;
		const char *why;
	} lies[] = {
	    {0, 0, 0, "wrong length"},
	    {24, 0, 0, "wrong length"},
	    {(VRING_SIZE_MAX + 1) * VRING_DESC_BYTES, 0, 0, "wrong length"},
	    {32, DESC_INDIRECT, 0, "within another"},
	    {32, DESC_NEXT, 2, "none of its table"},
	    {32, DESC_NEXT, 0, "no end"},
	};
	struct ring_world w;
	for (size_t i = 0; i < array_size(lies); i++) {
		world_open(&w, false);
		table_desc(&w, TABLE, DATA, 1, lies[i].flags, lies[i].next);
		desc_put(&w, 0, TABLE, lies[i].len, DESC_INDIRECT, 0);
		avail_put(&w, 0);
		expect_broken(&w, lies[i].why);
	}
	world_open(&w, false);
	desc_put(&w, 0, GUEST_2 + REGION_BYTES - 16, 64, DESC_INDIRECT, 0);
	table_desc(&w, GUEST_2 + REGION_BYTES - 16, DATA, 1, DESC_NEXT, 1);
	avail_put(&w, 0);
	expect_broken(&w, "outside");
	world_open(&w, false);
	w.ring.has_indirect = false;
	desc_put(&w, 0, TABLE, 16, DESC_INDIRECT, 0);
	avail_put(&w, 0);
	expect_broken(&w, "not agreed on");
	world_open(&w, false);
	desc_put(&w, 0, TABLE, VRING_SIZE_MAX * VRING_DESC_BYTES, DESC_INDIRECT, 0);
	for (unsigned i = 0; i < VRING_SIZE_MAX; i++)
		table_desc(&w, TABLE + i * 16ull, DATA, 1, DESC_NEXT, (uint16_t)(i + 1));
	avail_put(&w, 0);
	expect_broken(&w, "too many pieces");
}

static void packed_lies_are_found(void)
{
	struct ring_world w;
	world_open(&w, true);
	for (uint32_t i = 0; i < SIZE; i++)
		desc_put(&w, i, DATA, 1, DESC_AVAIL | DESC_NEXT, 0);
	expect_broken(&w, "no end");
	world_open(&w, true);
	desc_put(&w, 0, 0, 1, DESC_AVAIL, 0);
	expect_broken(&w, "outside");
	world_open(&w, true);
	desc_put(&w, 0, DATA, 1, DESC_AVAIL | DESC_NEXT, 0);
	desc_put(&w, 1, TABLE, 16, DESC_AVAIL | DESC_INDIRECT, 0);
	expect_broken(&w, "beside other");
}

/* ---- being lost ---- */

/* Three requests are taken, the second is completed; then we are lost and begin anew. */
static void resumes(bool is_packed)
{
	struct ring_world w;
	world_open(&w, is_packed);
	struct vring_chain second;
	for (uint16_t id = 0; id < 6; id += 2)
		guest_adds(&w, id);
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
		if (i == 1)
			second = w.chain;
	}
	vring_complete(&w.ring, &second, 5);
	ring_begin(&w, false);
	CU_ASSERT_EQUAL(w.ring.n_resume, 2);
	CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
	CU_ASSERT_EQUAL(w.chain.id, 0);
	CU_ASSERT_EQUAL(w.chain.writable_bytes, 513);
	second = w.chain;
	CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
	CU_ASSERT_EQUAL(w.chain.id, 4);
	CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 0); /* what comes after them is where it was */
	vring_complete(&w.ring, &second, 5);
	guest_adds(&w, 0);
	CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
	CU_ASSERT_EQUAL(w.chain.id, 0);
	world_close(&w);
}

static void split_resumes(void)
{
	resumes(false);
}
static void packed_resumes(void)
{
	resumes(true);
}

/* Lost between the used ring and the record: the guest has seen it, so it does not come again. */
static void split_is_cut_within_a_completion(void)
{
	struct ring_world w;
	world_open(&w, false);
	guest_adds(&w, 2);
	CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
	vring_complete(&w.ring, &w.chain, 1);
	w.inflight[INFLIGHT_SPLIT_HEAD_BYTES + 2 * INFLIGHT_SPLIT_ENTRY_BYTES] = 1; /* as before the last steps */
	put_le16(w.inflight + 14, 0);
	ring_begin(&w, false);
	CU_ASSERT_EQUAL(w.ring.n_resume, 0);
	CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 0);
	world_close(&w);
}

/* As before the last steps of a completion: the chain whose first entry this is in flight, and the second copies of the
 * free head, of the used index and of the wrap counter not yet written. */
static void packed_record_cut(struct ring_world *w, uint16_t entry,
			      const uint8_t before[static INFLIGHT_PACKED_HEAD_BYTES])
{
	w->inflight[INFLIGHT_PACKED_HEAD_BYTES + entry * INFLIGHT_PACKED_ENTRY_BYTES] = 1;
	memcpy(w->inflight + 14, before + 14, 2);
	memcpy(w->inflight + 18, before + 18, 2);
	w->inflight[21] = before[21];
}

/* Every prefix of the stores of a completion, told by the two copies and the guest's descriptor. */
static void packed_is_cut_within_a_completion(void)
{
	for (int is_seen = 0; is_seen < 2; is_seen++) {
		struct ring_world w;
		world_open(&w, true);
		guest_adds(&w, 3);
		CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
		uint8_t before[INFLIGHT_PACKED_HEAD_BYTES], flags[2];
		memcpy(before, w.inflight, sizeof(before));
		memcpy(flags, w.ring.desc + 14, 2);
		vring_complete(&w.ring, &w.chain, 1);
		packed_record_cut(&w, w.chain.entry, before);
		if (!is_seen)
			memcpy(w.ring.desc + 14, flags, 2); /* nor is the guest's descriptor */
		ring_begin(&w, false);
		CU_ASSERT_EQUAL(w.ring.n_resume, is_seen ? 0 : 1);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), is_seen ? 0 : 1);
		world_close(&w);
	}
}

/* The ring was full: the guest has taken the answer and put its next request where that stood. It has no answer twice. */
static void a_packed_place_given_again_was_used(void)
{
	for (unsigned rounds = 0; rounds < 2; rounds++) { /* with either wrap counter */
		struct ring_world w;
		struct vring_chain first;
		world_open(&w, true);
		for (unsigned i = 0; i < rounds * SIZE / 2; i++) {
			guest_adds(&w, 1);
			CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
			vring_complete(&w.ring, &w.chain, 1);
		}
		for (uint16_t id = 0; id < SIZE / 2; id++) {
			guest_adds(&w, id);
			CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
			if (id == 0)
				first = w.chain;
		}
		uint8_t before[INFLIGHT_PACKED_HEAD_BYTES];
		memcpy(before, w.inflight, sizeof(before));
		vring_complete(&w.ring, &first, 1);
		packed_record_cut(&w, first.entry, before);
		guest_adds(&w, 7);
		ring_begin(&w, false);
		CU_ASSERT_EQUAL(w.ring.n_resume, SIZE / 2 - 1);
		static const uint16_t ids[] = {1, 2, 3, 7};
		for (unsigned i = 0; i < array_size(ids); i++) {
			CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
			CU_ASSERT_EQUAL(w.chain.id, ids[i]);
		}
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 0);
		world_close(&w);
	}
}

/* The copy that a completion changes first is no more believed than the other. */
static void a_packed_record_may_not_lead_behind_the_ring(void)
{
	struct ring_world w;
	world_open(&w, true);
	guest_adds(&w, 3);
	CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
	vring_complete(&w.ring, &w.chain, 1);
	put_le16(w.inflight + 16, 0x7fff); /* the used index, */
	put_le16(w.inflight + 18, 0);      /* and its second copy as before: the guest has seen the answer */
	ring_begin(&w, false);
	CU_ASSERT_FALSE(vring_has_more(&w.ring));
	expect_broken(&w, "makes no sense");
}

/* The record is in another process's hands. */
static void a_spoilt_record_does_no_harm(void)
{
	srand(7);
	for (unsigned round = 0; round < 20000; round++) {
		struct ring_world w;
		world_open(&w, round & 1);
		for (uint16_t id = 0; id < 6; id += 2)
			guest_adds(&w, id);
		for (unsigned i = 0; i < 3; i++)
			CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		for (unsigned n = (unsigned)rand() % 12 + 1; n > 0; n--)
			w.inflight[(unsigned)rand() % INFLIGHT_QUEUE_BYTES(SIZE)] = (uint8_t)(rand() % 12);
		ring_begin(&w, false);
		for (unsigned i = 0; i < 2 * SIZE && vring_next(&w.ring, &w.chain) == 1; i++)
			vring_complete(&w.ring, &w.chain, 0);
		world_close(&w);
	}
}

static void a_stopped_ring_begins_where_it_is_told(void)
{
	struct ring_world w;
	for (int is_packed = 0; is_packed < 2; is_packed++) {
		world_open(&w, is_packed);
		guest_adds(&w, 0);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		vring_complete(&w.ring, &w.chain, 0);
		uint32_t base = vring_base(&w.ring);
		vring_stop(&w.ring);
		vring_start(&w.ring, base, false);
		CU_ASSERT_EQUAL(vring_base(&w.ring), base);
		guest_adds(&w, 0);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		world_close(&w);
	}
}

/* Linux' virtio_uml gives 0 as the base of a packed ring that begins, whose wrap counters are 1. */
static void a_packed_ring_that_begins_may_have_the_base_0(void)
{
	struct ring_world w;
	for (int is_early = 0; is_early < 2; is_early++) {
		world_open(&w, true);
		if (is_early)
			guest_adds(&w, 0);
		vring_start(&w.ring, 0, true);
		CU_ASSERT_EQUAL(vring_base(&w.ring), 0x80008000u);
		if (!is_early)
			guest_adds(&w, 0);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		world_close(&w);
	}
}

/* Of a ring that has been gone round it is meant, whatever stands in its first place. */
static void a_packed_ring_that_has_been_gone_round_may_have_the_base_0(void)
{
	struct ring_world w;
	for (unsigned n_ahead = 0; n_ahead <= SIZE / 2; n_ahead++) {
		world_open(&w, true);
		for (unsigned i = 0; i < SIZE / 2; i++) {
			guest_adds(&w, 0);
			CU_ASSERT_EQUAL_FATAL(vring_next(&w.ring, &w.chain), 1);
			vring_complete(&w.ring, &w.chain, 1);
		}
		CU_ASSERT_EQUAL(vring_base(&w.ring), 0);
		for (unsigned i = 0; i < n_ahead; i++)
			guest_adds(&w, 0);
		w.ring.inflight = NULL; /* which knows better */
		vring_start(&w.ring, 0, true);
		CU_ASSERT_EQUAL(vring_base(&w.ring), 0);
		for (unsigned i = 0; i < n_ahead; i++)
			CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 1);
		CU_ASSERT_EQUAL(vring_next(&w.ring, &w.chain), 0);
		world_close(&w);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("vring", NULL, NULL);
	CU_add_test(suite, "split goes round", split_goes_round);
	CU_add_test(suite, "packed goes round", packed_goes_round);
	CU_add_test(suite, "a piece lies in two regions", a_piece_lies_in_two_regions);
	CU_add_test(suite, "tables are followed", tables_are_followed);
	CU_add_test(suite, "calls are for who wants them", calls_are_for_who_wants_them);
	CU_add_test(suite, "split lies are found", split_lies_are_found);
	CU_add_test(suite, "table lies are found", table_lies_are_found);
	CU_add_test(suite, "packed lies are found", packed_lies_are_found);
	CU_add_test(suite, "split resumes", split_resumes);
	CU_add_test(suite, "packed resumes", packed_resumes);
	CU_add_test(suite, "split is cut within a completion", split_is_cut_within_a_completion);
	CU_add_test(suite, "packed is cut within a completion", packed_is_cut_within_a_completion);
	CU_add_test(suite, "a packed place given again was used", a_packed_place_given_again_was_used);
	CU_add_test(suite, "a packed record may not lead behind the ring",
		    a_packed_record_may_not_lead_behind_the_ring);
	CU_add_test(suite, "a spoilt record does no harm", a_spoilt_record_does_no_harm);
	CU_add_test(suite, "a stopped ring begins where it is told", a_stopped_ring_begins_where_it_is_told);
	CU_add_test(suite, "a packed ring that begins may have the base 0",
		    a_packed_ring_that_begins_may_have_the_base_0);
	CU_add_test(suite, "a packed ring that has been gone round may have the base 0",
		    a_packed_ring_that_has_been_gone_round_may_have_the_base_0);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
