/*
 * test_vhost_request.c: requests of a guest, from the ring to their status: what they ask for, where the data lies,
 * what the volume answers.
 */
#include "tests/unit/vhost_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <string.h>

static void fill(struct guest_world *m, uint64_t guest, uint32_t len_bytes, uint8_t seed)
{
	for (uint32_t i = 0; i < len_bytes; i++)
		*vmm_at(&m->v, guest + i) = (uint8_t)(i * 7 + i / 512 + seed);
}

static bool is_filled(struct guest_world *m, uint64_t guest, uint32_t len_bytes, uint8_t seed)
{
	for (uint32_t i = 0; i < len_bytes; i++)
		if (*vmm_at(&m->v, guest + i) != (uint8_t)(i * 7 + i / 512 + seed))
			return false;
	return true;
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
	struct guest_world m;

	guest_world_open(&m, NULL, is_packed);
	for (size_t i = 0; i < array_size(cases); i++) {
		uint64_t data = VMM_DATA + cases[i].at;
		fill(&m, data, cases[i].len, (uint8_t)i);
		CU_ASSERT_EQUAL(vmm_write(&m.v, 8 * i + 1, data, cases[i].len), BLK_S_OK);
		fill(&m, data, cases[i].len, 99);
		CU_ASSERT_EQUAL(vmm_read(&m.v, 8 * i + 1, data, cases[i].len), BLK_S_OK);
		CU_ASSERT_TRUE(is_filled(&m, data, cases[i].len, (uint8_t)i));
	}
	CU_ASSERT(counter_get(&vhost_server_counters(m.w.server)->bounced_bytes) > 0); /* what lies oddly */
	guest_world_close(&m);
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
	struct guest_world m;
	uint32_t token = 0, len = 0;

	guest_world_open(&m, NULL, false);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 3, 0, VMM_DATA, 4096, false, 0});
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT(token == 3 && len == 4097);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 4, 0, VMM_DATA, 4096, false, 0});
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT(token == 4 && len == 1);
	guest_world_close(&m);
}

static void a_serial_is_given(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_GET_ID, 1, 0, VMM_DATA, BLK_ID_BYTES, false, 0}), 0);
	char wanted[UUID_TEXT_BYTES];
	uuid_to_text(volume_uuid(m.w.vm), wanted);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA), wanted, 8), 0);
	guest_world_close(&m);
}

/* As much as there is room for; the byte behind it is the guest's. */
static void a_serial_is_cut_to_its_room(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	for (uint32_t room = 0; room < BLK_ID_BYTES; room += 4) {
		*vmm_at(&m.v, VMM_DATA + room) = 0xee;
		vmm_request(&m.v, &(struct vmm_request){BLK_T_GET_ID, 1, 0, VMM_DATA, room, false, 0});
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		CU_ASSERT_EQUAL(len, room + 1);
		CU_ASSERT_EQUAL(*vmm_at(&m.v, VMM_DATA + room), 0xee);
	}
	guest_world_close(&m);
}

static void requests_of_no_bytes_are_answered(void)
{
	struct guest_world m;

	for (int is_packed = 0; is_packed < 2; is_packed++) {
		guest_world_open(&m, NULL, is_packed);
		CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 0), BLK_S_OK);
		CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 0), BLK_S_OK);
		CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_DISCARD, 1, 0, VMM_DATA, 0, false, 0}),
				BLK_S_IOERR);
		CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
		guest_world_close(&m);
	}
}

/* Of the volume's own 20 digits it has the first 12 only. */
static void a_snapshot_has_a_serial_of_its_own(void)
{
	struct guest_world m;
	char wanted[UUID_TEXT_BYTES];

	vhost_world_start(&m.w, &(struct vhost_world_options){0});
	vmm_connect(&m.w, &m.v, WORLD_SNAPSHOT);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_GET_ID, 1, 0, VMM_DATA, BLK_ID_BYTES, false, 0}), 0);
	uuid_to_text(volume_uuid(m.w.readonly), wanted);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA), wanted, 8), 0);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA + 8), wanted + 9, 4), 0);
	CU_ASSERT_EQUAL(memcmp(vmm_at(&m.v, VMM_DATA + 12), "0000001f", 8), 0);
	guest_world_close(&m);
}

/* ---- ranges ---- */

static int range_do(struct guest_world *m, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	uint8_t *at = vmm_at(&m->v, VMM_DATA);

	put_le64(at, sector);
	put_le32(at + 8, n);
	put_le32(at + 12, flags);
	return vmm_do(&m->v, &(struct vmm_request){type, 1, 0, VMM_DATA, BLK_RANGE_BYTES, false, 0});
}

static void ranges_are_trimmed_and_zeroed(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	fill(&m, VMM_DATA, 65536, 1);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 65536), BLK_S_OK);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 8, 8, 0), BLK_S_OK);
	CU_ASSERT_FALSE(fake_volume_is_data(m.w.vm, 4096));
	CU_ASSERT_TRUE(fake_volume_is_data(m.w.vm, 8192));
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 16, 8, 0), BLK_S_OK);
	CU_ASSERT_TRUE(fake_volume_is_data(m.w.vm, 8192)); /* zeros, and its space is kept */
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 16, 8, BLK_RANGE_UNMAP), BLK_S_OK);
	CU_ASSERT_FALSE(fake_volume_is_data(m.w.vm, 8192));
	guest_world_close(&m);
}

static void ranges_that_make_no_sense_are_refused(void)
{
	struct guest_world m;
	uint64_t end = WORLD_VOLUME_BYTES / 512;

	guest_world_open(&m, NULL, false);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, end - 8, 9, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, UINT64_MAX, 1, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 0, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 8, BLK_RANGE_UNMAP), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 8, 2), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_DISCARD, 1, 0, VMM_DATA, 8, false, 0}), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_DISCARD, 1, 0, VMM_DATA, 33 * 16, false, 0}),
			BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).ops[VOLUME_TRIM], 0);
	guest_world_close(&m);
}

/* As the configuration says: a longer one keeps the volume busy for as long as the guest likes. */
static void ranges_beyond_the_limits_are_refused(void)
{
	struct guest_world m;

	guest_world_open(&m, &(struct vhost_world_options){.volume_bytes = 4 * GIB}, false);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 2 * GIB / 512, BLK_RANGE_UNMAP), BLK_S_OK);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 2 * GIB / 512 + 1, BLK_RANGE_UNMAP), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_WRITE_ZEROES, 0, 2 * GIB / 512 + 1, 0), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 2 * GIB / 512 + 1, 0), BLK_S_OK);
	guest_world_close(&m);
}

/* ---- what is wrong ---- */

static void requests_outside_are_refused(void)
{
	struct guest_world m;
	uint64_t end = WORLD_VOLUME_BYTES / 512;

	guest_world_open(&m, NULL, false);
	CU_ASSERT_EQUAL(vmm_read(&m.v, end - 1, VMM_DATA, 1024), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_read(&m.v, UINT64_MAX / 512, VMM_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_write(&m.v, UINT64_MAX, VMM_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 513), BLK_S_IOERR);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){15, 1, 0, VMM_DATA, 512, false, 0}), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(vmm_read(&m.v, end - 1, VMM_DATA, 512), BLK_S_OK);
	guest_world_close(&m);
}

static void memory_that_is_not_the_guests_breaks_the_ring(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	vmm_request(&m.v,
		    &(struct vmm_request){BLK_T_IN, 1, 0, VMM_GUEST + 2 * VMM_REGION_BYTES - 512, 1024, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 1);
	CU_ASSERT_EQUAL(sim_counter_take(m.w.sim, m.v.err), 1); /* and its guest is told */
	guest_world_close(&m);
}

static void errors_of_the_volume_reach_the_guest(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, true);
	fake_volume_fail(m.w.vm, VOLUME_WRITE, -ENOSPC);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_IOERR);
	fake_volume_fail(m.w.vm, VOLUME_WRITE, 0);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	guest_world_close(&m);
}

static void memory_that_changed_is_read_again(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	fill(&m, VMM_DATA, 8192, 5);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 8192), BLK_S_OK);
	fake_volume_fail(m.w.vm, VOLUME_READ, -EBADMSG);
	fill(&m, VMM_DATA, 8192, 77);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 8192), BLK_S_OK);
	CU_ASSERT_TRUE(is_filled(&m, VMM_DATA, 8192, 5));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->rereads), 1);
	guest_world_close(&m);
}

static void a_read_only_volume_is_only_read(void)
{
	struct guest_world m;

	vhost_world_start(&m.w, &(struct vhost_world_options){0});
	vmm_connect(&m.w, &m.v, WORLD_SNAPSHOT);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){.type = BLK_T_FLUSH}), BLK_S_OK);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_IOERR);
	CU_ASSERT_EQUAL(range_do(&m, BLK_T_DISCARD, 0, 8, 0), BLK_S_IOERR);
	guest_world_close(&m);
}

/* ---- durability ---- */

/* And so they are after the connection was lost: the guest has said it once. */
static void without_a_cache_writes_are_durable_at_once(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, 0);
	CU_ASSERT_EQUAL(vmm_set_cache(&m.v, false), 0);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, 1);
	vmm_drop(&m.v);
	vmm_reconnect(&m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_start(&m.v, false), 0);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, 2);
	CU_ASSERT_EQUAL(vmm_set_cache(&m.v, true), 0);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, 2);
	guest_world_close(&m);
}

/* ---- large requests ---- */

#define CUTS      120u /* more than the volume takes at once */
#define CUT_BYTES (CUTS * SECTOR_BYTES)

static void pieces_of_a_request_go_together(void)
{
	struct guest_world m;
	struct vmm_request read = {BLK_T_IN, 1, 0, VMM_DATA, CUT_BYTES, true, CUTS};
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	fill(&m, VMM_DATA, CUT_BYTES, 8);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, CUT_BYTES), BLK_S_OK);
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
	guest_world_close(&m);
}

/* Each piece that does not match is read again behind the guest's back, and what was right before it is not. */
static void a_piece_that_changed_is_read_again(uint64_t pos_bytes, uint64_t bounced_bytes)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	fill(&m, VMM_DATA, CUT_BYTES, 8);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, CUT_BYTES), BLK_S_OK);
	fill(&m, VMM_DATA, CUT_BYTES, 9);
	fake_volume_fail_at(m.w.vm, VOLUME_READ, pos_bytes, -EBADMSG);
	CU_ASSERT_EQUAL(vmm_do(&m.v, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_DATA, CUT_BYTES, true, CUTS}), 0);
	CU_ASSERT_TRUE(is_filled(&m, VMM_DATA, CUT_BYTES, 8));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->rereads), 1);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->bounced_bytes), bounced_bytes);
	guest_world_close(&m);
}

static void pieces_that_changed_are_read_again(void)
{
	a_piece_that_changed_is_read_again(0, CUT_BYTES);
	a_piece_that_changed_is_read_again(64 * SECTOR_BYTES, CUT_BYTES - 64 * SECTOR_BYTES);
}

static void a_piece_that_fails_fails_the_request(void)
{
	struct guest_world m;
	struct vmm_request read = {BLK_T_IN, 1, 0, VMM_DATA, CUT_BYTES, true, CUTS};
	uint32_t token, len;

	guest_world_open(&m, NULL, true);
	fake_volume_fail_at(m.w.vm, VOLUME_READ, 64 * SECTOR_BYTES, -EIO);
	vmm_request(&m.v, &read);
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_IOERR);
	CU_ASSERT_EQUAL(len, 1);
	guest_world_close(&m);
}

/* ---- memory of ours ---- */

static void requests_wait_for_buffers(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, &(struct vhost_world_options){.budget_bytes = MIB}, false);
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
	guest_world_close(&m);
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
	};

	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("vhost-user requests", NULL, NULL);
	for (size_t i = 0; i < array_size(tests); i++)
		CU_add_test(suite, tests[i].name, tests[i].run);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
