/*
 * test_vhost_request.c: requests of a guest, from the ring to their status: what they ask for, where the data lies,
 * what the volume answers; rings that stop, go on and are taken up again.
 */
#include "tests/unit/vhost_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct request_world {
	struct vhost_world w;
	struct vmm v;
};

static void world_open_with(struct request_world *m, const struct vhost_world_options *o, bool is_packed)
{
	vhost_world_start(&m->w, o);
	vmm_connect(&m->w, &m->v, "vm1");
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m->v, is_packed), 0);
}

static void world_open(struct request_world *m, bool is_packed)
{
	world_open_with(m, &(struct vhost_world_options){0}, is_packed);
}

static void world_close(struct request_world *m)
{
	vmm_close(&m->v);
	vhost_world_end(&m->w);
}

static void fill(struct request_world *m, uint64_t guest, uint32_t len_bytes, uint8_t seed)
{
	for (uint32_t i = 0; i < len_bytes; i++)
		*vmm_at(&m->v, guest + i) = (uint8_t)(i * 7 + i / 512 + seed);
}

static bool is_filled(struct request_world *m, uint64_t guest, uint32_t len_bytes, uint8_t seed)
{
	for (uint32_t i = 0; i < len_bytes; i++)
		if (*vmm_at(&m->v, guest + i) != (uint8_t)(i * 7 + i / 512 + seed))
			return false;
	return true;
}

static int write_at(struct request_world *m, uint64_t sector, uint64_t data, uint32_t len_bytes)
{
	return vmm_do(&m->v, &(struct vmm_request){BLK_T_OUT, 1, sector, data, len_bytes, false, 0});
}

static int read_at(struct request_world *m, uint64_t sector, uint64_t data, uint32_t len_bytes)
{
	return vmm_do(&m->v, &(struct vmm_request){BLK_T_IN, 2, sector, data, len_bytes, true, 0});
}

/* ---- what is right ---- */

static void writes_are_read_back(bool is_packed)
{
	static const struct {
		uint32_t at, len;
	} cases[] = {{0, 512},
		     {0, 4096},
		     {3, 512},
		     {100, 8192},
		     {0x30000, 65536},
		     {512, 512},
		     {0x60000, 300 * 1024}}; /* odd places, and over the border of the two regions */
	struct request_world m;

	world_open(&m, is_packed);
	for (size_t i = 0; i < array_size(cases); i++) {
		uint64_t data = VMM_DATA + cases[i].at;
		fill(&m, data, cases[i].len, (uint8_t)i);
		CU_ASSERT_EQUAL(write_at(&m, 8 * i + 1, data, cases[i].len), BLK_S_OK);
		fill(&m, data, cases[i].len, 99);
		CU_ASSERT_EQUAL(read_at(&m, 8 * i + 1, data, cases[i].len), BLK_S_OK);
		CU_ASSERT_TRUE(is_filled(&m, data, cases[i].len, (uint8_t)i));
	}
	CU_ASSERT(counter_get(&vhost_server_counters(m.w.server)->bounced_bytes) > 0); /* what lies oddly */
	world_close(&m);
}

static void writes_are_read_back_split(void)
{
	writes_are_read_back(false);
}
static void writes_are_read_back_packed(void)
{
	writes_are_read_back(true);
}

static void used_bytes_are_those_written(void)
{
	struct request_world m;
	uint32_t token = 0, len = 0;

	world_open(&m, false);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 3, 0, VMM_DATA, 4096, false, 0});
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT(token == 3 && len == 4097);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 4, 0, VMM_DATA, 4096, false, 0});
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT(token == 4 && len == 1);
	world_close(&m);
}

static void a_serial_is_given(void)
{
	struct request_world m;

	world_open(&m, false);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_GET_ID, 1, 0, VMM_DATA, BLK_ID_BYTES, false, 0}), 0);
	char wanted[UUID_TEXT_BYTES];
	uuid_to_text(volume_uuid(m.w.vm), wanted);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA), wanted, 8), 0);
	world_close(&m);
}

/* As much as there is room for; the byte behind it is the guest's. */
static void a_serial_is_cut_to_its_room(void)
{
	struct request_world m;
	uint32_t token, len;

	world_open(&m, false);
	for (uint32_t room = 0; room < BLK_ID_BYTES; room += 4) {
		*vmm_at(&m.v, VMM_DATA + room) = 0xee;
		vmm_request(&m.v, &(struct vmm_request){BLK_T_GET_ID, 1, 0, VMM_DATA, room, false, 0});
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		CU_ASSERT_EQUAL(len, room + 1);
		CU_ASSERT_EQUAL(*vmm_at(&m.v, VMM_DATA + room), 0xee);
	}
	world_close(&m);
}

static void requests_of_no_bytes_are_answered(void)
{
	struct request_world m;

	for (int is_packed = 0; is_packed < 2; is_packed++) {
		world_open(&m, is_packed);
		CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 0), BLK_S_OK);
		CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 0), BLK_S_OK);
		CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_DISCARD, 1, 0, VMM_DATA, 0, false, 0}),
				BLK_S_IOERR);
		CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 512), BLK_S_OK);
		world_close(&m);
	}
}

/* Of the volume's own 20 digits it has the first 12 only. */
static void a_snapshot_has_a_serial_of_its_own(void)
{
	struct request_world m;
	char wanted[UUID_TEXT_BYTES];

	vhost_world_start(&m.w, &(struct vhost_world_options){0});
	vmm_connect(&m.w, &m.v, WORLD_SNAPSHOT);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_GET_ID, 1, 0, VMM_DATA, BLK_ID_BYTES, false, 0}), 0);
	uuid_to_text(volume_uuid(m.w.readonly), wanted);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA), wanted, 8), 0);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA + 8), wanted + 9, 4), 0);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA + 12), "0000001f", 8), 0);
	world_close(&m);
}

/* ---- ranges ---- */

static int range_do(struct request_world *m, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	uint8_t *at = vmm_at(&m->v, VMM_DATA);

	put_le64(at, sector);
	put_le32(at + 8, n);
	put_le32(at + 12, flags);
	return vmm_do(&m->v, &(struct vmm_request){type, 1, 0, VMM_DATA, BLK_RANGE_BYTES, false, 0});
}

static void ranges_are_trimmed_and_zeroed(void)
{
	struct request_world m;

	world_open(&m, false);
	fill(&m, VMM_DATA, 65536, 1);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 65536), BLK_S_OK);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 8, 8, 0), BLK_S_OK);
	CU_ASSERT_FALSE(fake_volume_is_data(m.w.vm, 4096));
	CU_ASSERT_TRUE(fake_volume_is_data(m.w.vm, 8192));
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 16, 8, 0), BLK_S_OK);
	CU_ASSERT_TRUE(fake_volume_is_data(m.w.vm, 8192)); /* zeros, and its space is kept */
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 16, 8, BLK_RANGE_UNMAP), BLK_S_OK);
	CU_ASSERT_FALSE(fake_volume_is_data(m.w.vm, 8192));
	world_close(&m);
}

static void ranges_that_make_no_sense_are_refused(void)
{
	struct request_world m;
	uint64_t end = WORLD_VOLUME_BYTES / 512;

	world_open(&m, false);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, end - 8, 9, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, UINT64_MAX, 1, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 0, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 8, BLK_RANGE_UNMAP), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 8, 2), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_DISCARD, 1, 0, VMM_DATA, 8, false, 0}), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_DISCARD, 1, 0, VMM_DATA, 33 * 16, false, 0}),
			BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).ops[VOLUME_TRIM], 0);
	world_close(&m);
}

/* As the configuration says: a longer one keeps the volume busy for as long as the guest likes. */
static void ranges_beyond_the_limits_are_refused(void)
{
	struct request_world m;

	world_open_with(&m, &(struct vhost_world_options){.volume_bytes = 4 * GIB}, false);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 2 * GIB / 512, BLK_RANGE_UNMAP), BLK_S_OK);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 2 * GIB / 512 + 1, BLK_RANGE_UNMAP), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 2 * GIB / 512 + 1, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 2 * GIB / 512 + 1, 0), BLK_S_OK);
	world_close(&m);
}

/* ---- what is wrong ---- */

static void requests_outside_are_refused(void)
{
	struct request_world m;
	uint64_t end = WORLD_VOLUME_BYTES / 512;

	world_open(&m, false);
	CU_ASSERT_EQUAL(read_at(&m, end - 1, VMM_DATA, 1024), BLK_S_IOERR);
	CU_ASSERT_EQUAL(read_at(&m, UINT64_MAX / 512, VMM_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(write_at(&m, UINT64_MAX, VMM_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 513), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){15, 1, 0, VMM_DATA, 512, false, 0}), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(read_at(&m, end - 1, VMM_DATA, 512), BLK_S_OK);
	world_close(&m);
}

static void memory_that_is_not_the_guests_breaks_the_ring(void)
{
	struct request_world m;

	world_open(&m, false);
	vmm_request(&m.v,
		    &(struct vmm_request){BLK_T_IN, 1, 0, VMM_GUEST + 2 * VMM_REGION_BYTES - 512, 1024, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 1);
	CU_ASSERT_EQUAL(sim_counter_take(m.w.sim, m.v.err), 1); /* and its guest is told */
	world_close(&m);
}

static void errors_of_the_volume_reach_the_guest(void)
{
	struct request_world m;

	world_open(&m, true);
	fake_volume_fail(m.w.vm, VOLUME_WRITE, -ENOSPC);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 4096), BLK_S_IOERR);
	fake_volume_fail(m.w.vm, VOLUME_WRITE, 0);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	world_close(&m);
}

static void memory_that_changed_is_read_again(void)
{
	struct request_world m;

	world_open(&m, false);
	fill(&m, VMM_DATA, 8192, 5);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 8192), BLK_S_OK);
	fake_volume_fail(m.w.vm, VOLUME_READ, -EBADMSG);
	fill(&m, VMM_DATA, 8192, 77);
	CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 8192), BLK_S_OK);
	CU_ASSERT_TRUE(is_filled(&m, VMM_DATA, 8192, 5));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->rereads), 1);
	world_close(&m);
}

static void a_read_only_volume_is_only_read(void)
{
	struct request_world m;

	vhost_world_start(&m.w, &(struct vhost_world_options){0});
	vmm_connect(&m.w, &m.v, WORLD_SNAPSHOT);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
	CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){.type = BLK_T_FLUSH}), BLK_S_OK);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 4096), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 8, 0), BLK_S_IOERR);
	world_close(&m);
}

/* ---- durability ---- */

static void without_a_cache_writes_are_durable_at_once(void)
{
	struct request_world m;
	uint8_t payload[VHOST_CONFIG_HEAD_BYTES + 1] = {0};

	world_open(&m, false);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, 0);
	put_le32(payload, BLK_CONFIG_WCE);
	put_le32(payload + 4, 1);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_CONFIG, payload, sizeof(payload), NULL), 0);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, 1);
	world_close(&m);
}

/* ---- large requests ---- */

#define CUTS      120u /* more than the volume takes at once */
#define CUT_BYTES (CUTS * SECTOR_BYTES)

static void pieces_of_a_request_go_together(void)
{
	struct request_world m;
	struct vmm_request read = {BLK_T_IN, 1, 0, VMM_DATA, CUT_BYTES, true, CUTS};
	uint32_t token, len;

	world_open(&m, false);
	fill(&m, VMM_DATA, CUT_BYTES, 8);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, CUT_BYTES), BLK_S_OK);
	fill(&m, VMM_DATA, CUT_BYTES, 9);
	fake_volume_hold(m.w.vm, true);
	vmm_request(&m.v, &read);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL_FATAL(fake_volume_n_held(m.w.vm), 2);
	fake_volume_let_go(m.w.vm, 1); /* out of order */
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	fake_volume_let_go(m.w.vm, 0);
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT_EQUAL(len, CUT_BYTES + 1);
	CU_ASSERT_TRUE(is_filled(&m, VMM_DATA, CUT_BYTES, 8));
	world_close(&m);
}

/* Each piece that does not match is read again behind the guest's back, and what was right before it is not. */
static void a_piece_that_changed_is_read_again(uint64_t pos_bytes, uint64_t bounced_bytes)
{
	struct request_world m;

	world_open(&m, false);
	fill(&m, VMM_DATA, CUT_BYTES, 8);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, CUT_BYTES), BLK_S_OK);
	fill(&m, VMM_DATA, CUT_BYTES, 9);
	fake_volume_fail_at(m.w.vm, VOLUME_READ, pos_bytes, -EBADMSG);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_DATA, CUT_BYTES, true, CUTS}), 0);
	CU_ASSERT_TRUE(is_filled(&m, VMM_DATA, CUT_BYTES, 8));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->rereads), 1);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->bounced_bytes), bounced_bytes);
	world_close(&m);
}

static void pieces_that_changed_are_read_again(void)
{
	a_piece_that_changed_is_read_again(0, CUT_BYTES);
	a_piece_that_changed_is_read_again(64 * SECTOR_BYTES, CUT_BYTES - 64 * SECTOR_BYTES);
}

static void a_piece_that_fails_fails_the_request(void)
{
	struct request_world m;
	struct vmm_request read = {BLK_T_IN, 1, 0, VMM_DATA, CUT_BYTES, true, CUTS};
	uint32_t token, len;

	world_open(&m, true);
	fake_volume_fail_at(m.w.vm, VOLUME_READ, 64 * SECTOR_BYTES, -EIO);
	vmm_request(&m.v, &read);
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_IOERR);
	CU_ASSERT_EQUAL(len, 1);
	world_close(&m);
}

/* ---- memory of ours ---- */

static void requests_wait_for_buffers(void)
{
	struct request_world m;
	uint32_t token, len;

	world_open_with(&m, &(struct vhost_world_options){.budget_bytes = MIB}, false);
	fake_volume_hold(m.w.vm, true);
	for (uint32_t i = 0; i < 4; i++)
		vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, i, 2048 * i, VMM_DATA, 512 << 10, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_n_held(m.w.vm), 2);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->waits_buffers), 2);
	fake_volume_hold(m.w.vm, false);
	while (fake_volume_n_held(m.w.vm) > 0)
		fake_volume_let_go(m.w.vm, 0);
	for (uint32_t i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	world_close(&m);
}

/* ---- a server, or a connection, that ends meanwhile ---- */

/* What was in flight when the connection broke is carried out; what the guest sees of it, it sees once. */
static void requests_in_flight_are_taken_up(bool is_packed)
{
	struct request_world m;
	uint32_t token, len, seen = 0;

	world_open(&m, is_packed);
	fake_volume_hold(m.w.vm, true);
	for (uint32_t i = 0; i < 5; i++)
		vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, i, 8 * i, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_n_held(m.w.vm), 5);
	fake_volume_let_go(m.w.vm, 3); /* out of order */
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_drop(&m.v);
	vmm_reconnect(&m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	CU_ASSERT_EQUAL(vmm_memory(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_inflight(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, vhost_ring_lost_base(&m.v.ring, is_packed ? 0x80008000u : 0)), 0);
	fake_volume_hold(m.w.vm, false);
	while (fake_volume_n_held(m.w.vm) > 0)
		fake_volume_let_go(m.w.vm, 0);
	for (uint32_t i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL_FATAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		seen |= 1u << token;
	}
	CU_ASSERT_EQUAL(seen, 31);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	world_close(&m);
}

static void requests_in_flight_are_taken_up_split(void)
{
	requests_in_flight_are_taken_up(false);
}
static void requests_in_flight_are_taken_up_packed(void)
{
	requests_in_flight_are_taken_up(true);
}

/* A server that stops while the volume is detached answers nothing: the next one finds these requests in flight. */
static void a_detached_volume_leaves_requests_in_flight(void)
{
	struct request_world m;
	uint32_t token, len;

	world_open(&m, false);
	fake_volume_detach(m.w.vm);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	CU_ASSERT_TRUE(vmm_is_ended(&m.v));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->n_doors), 1);
	world_close(&m);
}

static void memory_that_is_cut_off_ends_the_connection(void)
{
	struct request_world m;

	world_open(&m, false);
	sim_memory_cut(m.w.sim, m.v.memory[1]);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_GUEST + VMM_REGION_BYTES, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_TRUE(vmm_is_ended(&m.v));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->failed), 1);
	CU_ASSERT_EQUAL(sim_run(m.w.sim, NULL, NULL, 10000), SIM_IDLE); /* and nothing turns on and on */
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->n_connections), 0);
	world_close(&m);
}

/* ---- a machine that moves ---- */

/* Changed pages are told from now on, in so many bytes of a log that has 4,096. */
static int log_begin(struct request_world *m, uint64_t len_bytes)
{
	uint8_t where[VHOST_LOG_BYTES] = {0}, payload[8];
	int log = sim_memory_create(m->w.sim, 4096);

	put_le64(where, len_bytes);
	vmm_tell(&m->v, VHOST_SET_LOG_BASE, 0, where, sizeof(where), &(struct fds){.fd = {log}, .n = 1});
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m->v, VHOST_SET_LOG_BASE, NULL));
	put_le64(payload, VHOST_F_LOG_ALL | VHOST_F_PROTOCOL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_FLUSH |
			      VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
	CU_ASSERT_EQUAL(vmm_ask(&m->v, VHOST_SET_FEATURES, payload, sizeof(payload), NULL), 0);
	return log;
}

static bool is_logged(struct request_world *m, int log, uint64_t guest)
{
	const uint8_t *bits = sim_memory_at(m->w.sim, log, NULL);
	uint64_t page = guest / VHOST_LOG_PAGE;

	return bits[page / 8] >> page % 8 & 1;
}

/* What a read brought, and the status and the ring, are in the log of changed pages; what a write took is not. */
static void changed_pages_are_logged(void)
{
	struct request_world m;

	world_open(&m, false);
	int log = log_begin(&m, 4096);
	CU_ASSERT_EQUAL(write_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_FALSE(is_logged(&m, log, VMM_DATA));
	CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA + 4096, 8192), BLK_S_OK);
	CU_ASSERT_FALSE(is_logged(&m, log, VMM_DATA));
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_DATA + 4096));
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_DATA + 8192));
	CU_ASSERT_FALSE(is_logged(&m, log, VMM_DATA + 12288));
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_GUEST + 0x4000)); /* the status */
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_GUEST + 0x2000)); /* the used ring */
	sim_fd_close(m.w.sim, log);
	world_close(&m);
}

/* Its VMM loses pages of its own guest, and nobody else anything. */
static void a_log_that_is_too_short_is_not_left(void)
{
	struct request_world m;

	world_open(&m, false);
	int log = log_begin(&m, 1);
	CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 8192), BLK_S_OK);
	const uint8_t *bytes = sim_memory_at(m.w.sim, log, NULL);
	for (uint32_t i = 1; i < 4096; i++)
		CU_ASSERT_EQUAL(bytes[i], 0);
	sim_fd_close(m.w.sim, log);
	world_close(&m);
}

/* ---- rings ---- */

static void a_ring_is_stopped_when_nothing_is_in_flight(void)
{
	struct request_world m;
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};
	uint32_t token, len;

	world_open(&m, false);
	fake_volume_hold(m.w.vm, true);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_tell(&m.v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 2, 8, VMM_DATA, 4096, false, 0}); /* comes too late */
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	fake_volume_hold(m.w.vm, false);
	fake_volume_let_go(m.w.vm, 0);
	const uint8_t *reply = vmm_hear(&m.v, VHOST_GET_VRING_BASE, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_EQUAL(get_le32(reply + 4), 1);
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT_EQUAL(token, 1);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	CU_ASSERT_EQUAL(vmm_ring(&m.v, 1), 0); /* goes on where it stood */
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT_EQUAL(token, 2);
	world_close(&m);
}

/* As when a virtual machine moves: the second client waits until the first has stopped its ring. */
static void one_client_runs_at_a_time(void)
{
	struct request_world m;
	struct vmm other;
	uint32_t token, len;

	world_open(&m, false);
	vmm_connect(&m.w, &other, "vm1");
	CU_ASSERT_EQUAL(vmm_start(&other, false), 0);
	vmm_request(&other, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&other.ring, &token, &len));
	CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 512), BLK_S_OK);
	vmm_drop(&m.v);
	CU_ASSERT_EQUAL(vmm_completion(&other, &token, &len), BLK_S_OK);
	vmm_close(&other);
	world_close(&m);
}

static void clients_beyond_the_limit_are_refused(void)
{
	struct vhost_world w;
	struct vmm clients[5];

	vhost_world_start(&w, &(struct vhost_world_options){0});
	for (size_t i = 0; i < array_size(clients); i++)
		vmm_connect(&w, &clients[i], "vm1");
	CU_ASSERT_TRUE(vmm_is_ended(&clients[4]));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(w.server)->refused), 1);
	CU_ASSERT_EQUAL(vmm_start(&clients[0], false), 0);
	for (size_t i = 0; i < array_size(clients); i++)
		vmm_close(&clients[i]);
	vhost_world_end(&w);
}

#define TURN_REQUESTS 64u /* VHOST_TAKE_MAX, whose header does not go with the VMM's */

/* It takes so many in one turn and looks again in the next. Finding nothing then, it has to ask for kicks. */
static void a_turn_full_of_requests_is_followed_by_kicks(bool is_packed)
{
	struct request_world m;
	uint32_t token, len;

	world_open(&m, is_packed);
	for (uint32_t n = TURN_REQUESTS - 1; n <= TURN_REQUESTS + 1; n++) {
		for (uint32_t i = 0; i < n; i++)
			vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, i, 0, VMM_DATA, 4096, false, 0});
		for (uint32_t i = 0; i < n; i++)
			CU_ASSERT_EQUAL_FATAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		vhost_world_pass(&m.w, NS_PER_S);
		CU_ASSERT_EQUAL(read_at(&m, 0, VMM_DATA, 4096), BLK_S_OK);
	}
	world_close(&m);
}

static void a_split_ring_asks_for_kicks_after_a_full_turn(void)
{
	a_turn_full_of_requests_is_followed_by_kicks(false);
}

static void a_packed_ring_asks_for_kicks_after_a_full_turn(void)
{
	a_turn_full_of_requests_is_followed_by_kicks(true);
}

static void a_polled_ring_is_served_without_kicks(void)
{
	struct request_world m;
	uint32_t token, len;

	world_open_with(&m, &(struct vhost_world_options){.poll_us = 50}, false);
	for (uint32_t i = 0; i < 20; i++) {
		vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, i, 0, VMM_DATA, 4096, false, 0});
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	}
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(sim_run(m.w.sim, NULL, NULL, 10000), SIM_IDLE); /* it does not look for ever */
	world_close(&m);
}

static void clients_that_come_and_go_are_told_of(void)
{
	struct request_world m;
	struct log_event_view events[8];

	world_open(&m, false);
	vmm_drop(&m.v);
	vhost_world_pass(&m.w, NS_PER_S);
	size_t n = log_events(m.w.log, 0, events, array_size(events));
	CU_ASSERT_EQUAL_FATAL(n, 2);
	CU_ASSERT_STRING_EQUAL(events[0].code, "vhost-client-connected");
	CU_ASSERT_STRING_EQUAL(events[0].object, "vm1");
	CU_ASSERT_STRING_EQUAL(events[1].code, "vhost-client-disconnected");
	world_close(&m);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
#define T(name) {#name, name}
	    T(writes_are_read_back_split),
	    T(writes_are_read_back_packed),
	    T(used_bytes_are_those_written),
	    T(a_serial_is_given),
	    T(a_serial_is_cut_to_its_room),
	    T(requests_of_no_bytes_are_answered),
	    T(a_snapshot_has_a_serial_of_its_own),
	    T(ranges_are_trimmed_and_zeroed),
	    T(ranges_that_make_no_sense_are_refused),
	    T(ranges_beyond_the_limits_are_refused),
	    T(requests_outside_are_refused),
	    T(memory_that_is_not_the_guests_breaks_the_ring),
	    T(errors_of_the_volume_reach_the_guest),
	    T(memory_that_changed_is_read_again),
	    T(a_read_only_volume_is_only_read),
	    T(without_a_cache_writes_are_durable_at_once),
	    T(pieces_of_a_request_go_together),
	    T(pieces_that_changed_are_read_again),
	    T(a_piece_that_fails_fails_the_request),
	    T(requests_wait_for_buffers),
	    T(requests_in_flight_are_taken_up_split),
	    T(requests_in_flight_are_taken_up_packed),
	    T(a_detached_volume_leaves_requests_in_flight),
	    T(memory_that_is_cut_off_ends_the_connection),
	    T(changed_pages_are_logged),
	    T(a_log_that_is_too_short_is_not_left),
	    T(a_ring_is_stopped_when_nothing_is_in_flight),
	    T(one_client_runs_at_a_time),
	    T(clients_beyond_the_limit_are_refused),
	    T(a_split_ring_asks_for_kicks_after_a_full_turn),
	    T(a_packed_ring_asks_for_kicks_after_a_full_turn),
	    T(a_polled_ring_is_served_without_kicks),
	    T(clients_that_come_and_go_are_told_of),
	};

	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("vhost-user requests and rings", NULL, NULL);
	for (size_t i = 0; i < array_size(tests); i++)
		CU_add_test(suite, tests[i].name, tests[i].run);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
