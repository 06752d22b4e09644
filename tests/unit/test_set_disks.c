/*
 * test_set_disks.c: disks of a set that are removed while they are taken into use, that fail, come back or are given up, and what
 * becomes of volumes and deletions meanwhile.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)

/* ---- views ---- */

static void look_at_volume(const struct volume_view *v, void *context)
{
	*(struct volume_view *)context = *v;
}

/* The only volume's; its name is "" when there is none. */
static struct volume_view look_volume(struct head_world *w)
{
	struct volume_view v = {0};
	volume_set_volumes(w->set, look_at_volume, &v);
	return v;
}

static void count_disk(const struct disk_view *v, void *context)
{
	(*(uint32_t *)context)++;
}

static uint32_t look_n_disks(struct head_world *w)
{
	uint32_t n = 0;
	volume_set_disks(w->set, count_disk, &n);
	return n;
}

static bool no_volume_is_left(void *context)
{
	return list_is_empty(&((struct head_world *)context)->set->volumes);
}

/* ---- an older store is put back ---- */

static void put_record(struct head_world *w, const struct uuid *volume, char *record)
{
	char uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	uuid_to_text(volume, uuid);
	text_print(key, sizeof(key), VOLUME_KEY, uuid);
	world_put(w, key, record);
}

static void restart(struct head_world *w, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		world_stop(w);
		CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	}
}

static int take_over(struct head_world *w)
{
	struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1", "nbd");
	c.takeover = true;
	return world_command(w, &c);
}

static void is_refused_until_taken_over(struct head_world *w)
{
	for (unsigned i = 0; i < 2; i++) {
		CU_ASSERT_PTR_NULL(world_head(w, "vm1"));
		CU_ASSERT(world_attach(w, "vm1") < 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(look_volume(w).why, "older metadata.db put back"));
		restart(w, 1);
	}
	CU_ASSERT_EQUAL(take_over(w), 0);
	restart(w, 2);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "vm1"));
	CU_ASSERT(look_volume(w).is_serving);
}

/* Its volume is written, and the only disk is away for some restarts; an older store is put back, or not. */
static void disk_goes_and_returns(struct head_world *w, uint64_t seed, bool is_store_older)
{
	uint8_t *data = world_memory(4096);
	memset(data, 7, 4096);
	world_open(w, seed);
	world_add_disk(w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	struct sim_machine *elsewhere = sim_machine_create(w->sim, "n2");
	struct sim_file *medium = world_disk_file(w, 1);
	struct volume *v = world_volume(w, "vm1", GIB);
	struct uuid volume = v->entry->facts.uuid;
	CU_ASSERT_EQUAL(world_write(w, v, 0, data, 4096, VOLUME_FUA), 0);
	char *older = volume_to_json(&v->entry->facts);
	restart(w, 2);
	world_stop(w);
	if (is_store_older)
		put_record(w, &volume, older);
	else
		free(older);
	sim_file_move(medium, elsewhere);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	restart(w, 5);
	world_stop(w);
	sim_file_move(medium, w->machine);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	free(data);
}

static void returned_volume_holds_its_data(struct head_world *w)
{
	uint8_t *data = world_memory(4096);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "vm1"));
	CU_ASSERT_EQUAL(world_read(w, world_head(w, "vm1"), 0, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 7);
	free(data);
}

/* While it is away the store's generations grow past what the disk remembers. */
static void an_older_store_is_noticed_at_a_disk_that_was_away(void)
{
	struct head_world w;
	disk_goes_and_returns(&w, 70, true);
	is_refused_until_taken_over(&w);
	returned_volume_holds_its_data(&w);
	world_close(&w);
}

/* With the store that it knows, it comes back into use. */
static void a_disk_that_was_away_is_joined_again(void)
{
	struct head_world w;
	disk_goes_and_returns(&w, 71, false);
	restart(&w, 1);
	returned_volume_holds_its_data(&w);
	world_close(&w);
}

/* Its volume is deleted instead: nobody has to take it over first. */
static void a_volume_of_an_older_store_is_deleted(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 7, 4096);
	world_open(&w, 73);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	struct uuid volume = v->entry->facts.uuid;
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, VOLUME_FUA), 0);
	char *older = volume_to_json(&v->entry->facts);
	restart(&w, 2);
	world_stop(&w);
	put_record(&w, &volume, older);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1"));
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	struct set_command c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_until(&w, no_volume_is_left, &w);
	world_close(&w);
	free(data);
}

/* What was given up does not come back when its segment is written again. */
static void what_was_given_up_stays_away(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 7, 4096);
	world_open(&w, 74);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 8 * GIB);
	struct uuid volume = v->entry->facts.uuid;
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, VOLUME_FUA), 0);
	char *older = volume_to_json(&v->entry->facts);
	struct chunk *c = chunk_get(v, 0);
	char *chunk = chunk_to_json(c, NULL, 0);
	restart(&w, 2);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(world_write(&w, v, 2 * GIB, data, 4096, VOLUME_FUA), 0);
	world_stop(&w);
	char uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	uuid_to_text(&volume, uuid);
	text_print(key, sizeof(key), CHUNK_KEY, uuid, 0u);
	world_put(&w, key, chunk);
	put_record(&w, &volume, older);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	is_refused_until_taken_over(&w);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(world_read(&w, v, 2 * GIB, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 0);
	memset(data, 5, 4096);
	CU_ASSERT_EQUAL(world_write(&w, v, 2 * GIB + 8192, data, 4096, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL(world_read(&w, v, 2 * GIB, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 0);
	world_crash(&w, SIM_POWER_LOSS);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(world_read(&w, v, 2 * GIB, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 0);
	CU_ASSERT_EQUAL(world_read(&w, v, 2 * GIB + 8192, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 5);
	world_close(&w);
	free(data);
}

/* A copy from within the same attachment: all generations agree. */
static void an_older_store_is_noticed_at_a_disk_that_it_does_not_name(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 7, 4096);
	world_open(&w, 72);
	world_add_disk(&w, DISK_BYTES);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 64 * GIB);
	struct uuid volume = v->entry->facts.uuid;
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL_FATAL(v->entry->facts.n_disks, 1);
	char *older = volume_to_json(&v->entry->facts);
	for (uint64_t segment = 1; segment < 64 && v->entry->facts.n_disks == 1; segment++)
		CU_ASSERT_EQUAL(world_write(&w, v, segment * GIB, data, 4096, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL_FATAL(v->entry->facts.n_disks, 2);
	world_stop(&w);
	put_record(&w, &volume, older);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	is_refused_until_taken_over(&w);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(v->entry->facts.n_disks, 2);
	memset(data, 0, 4096);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 7);
	world_close(&w);
	free(data);
}

/* ---- a disk is removed at any moment of a volume's first write to it ---- */

struct removal {
	struct volume_io io;
	struct set_command command;
	bool is_written, is_removed;
	int write_res, remove_res;
};

static void removal_written(struct volume_io *io, int res)
{
	struct removal *r = container_of(io, struct removal, io);
	r->is_written = true;
	r->write_res = res;
}

static void removal_done(struct set_command *c, int res)
{
	struct removal *r = container_of(c, struct removal, command);
	r->is_removed = true;
	r->remove_res = res;
}

static bool removal_is_over(void *context)
{
	const struct removal *r = context;
	return r->is_written && r->is_removed;
}

static void a_disk_is_not_removed_under_its_first_write(void)
{
	uint32_t n_refused = 0, n_removed = 0;
	for (uint32_t steps = 0; steps < 40; steps++) {
		struct head_world w;
		uint8_t *data = world_memory(4096);
		struct iovec iov = {data, 4096};
		struct removal r = {.command = order(SET_DISK_REMOVE, "n1-d1")};
		memset(data, 7, 4096);
		world_open(&w, 60);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", GIB);
		r.io = (struct volume_io){
		    .op = VOLUME_WRITE, .len_bytes = 4096, .iov = &iov, .n_iov = 1, .done = removal_written};
		r.command.done = removal_done;
		volume_submit(v, &r.io);
		for (uint32_t i = 0; i < steps; i++)
			sim_step(w.sim);
		volume_set_command(w.set, &r.command);
		world_until(&w, removal_is_over, &r);
		CU_ASSERT_EQUAL(r.write_res == 0, r.remove_res != 0); /* one of the two */
		CU_ASSERT_EQUAL(v->entry->facts.n_disks, r.remove_res != 0);
		n_refused += r.remove_res == -EBUSY;
		n_removed += r.remove_res == 0;
		memset(data, 0, 4096);
		CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), 0);
		CU_ASSERT_EQUAL(data[0], r.remove_res == 0 ? 0 : 7);
		world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT(look_volume(&w).is_serving);
		world_close(&w);
		free(data);
	}
	CU_ASSERT(n_refused > 0 && n_removed > 0);
}

/* ---- a disk that has failed comes back, or is given up ---- */

/* The next write fails it, and with it the command or request that it was for. */
/* The command cannot tell; what the store says in the end is acted on all the same. */
static void a_removal_of_unknown_outcome_is_carried_through(void)
{
	const struct metadata_faults faults = {.lost_percent = 100, .unread_percent = 20}, none = {0};
	uint32_t n_removed = 0, n_kept = 0;
	for (uint64_t seed = 70; seed < 100; seed++) {
		struct head_world w;
		struct set_command c = order(SET_DISK_REMOVE, "n1-d1");
		uint8_t *data = world_memory(4096);
		memset(data, 7, 4096);
		world_open(&w, seed);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", GIB);
		CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), 0);
		c.force = true;
		metadata_memory_set_faults(w.metadata, &faults);
		(void)!world_command(&w, &c);
		metadata_memory_set_faults(w.metadata, &none);
		world_let_pass(&w, 60 * NS_PER_S);
		const struct set_disk *d = w.set->disks[0];
		CU_ASSERT_PTR_NOT_NULL_FATAL(d);
		CU_ASSERT_EQUAL(d->state, d->facts.is_removed ? SET_DISK_REMOVED : SET_DISK_RUNNING);
		n_removed += d->facts.is_removed;
		n_kept += !d->facts.is_removed;
		world_close(&w);
		free(data);
	}
	CU_ASSERT(n_removed > 0 && n_kept > 0);
}

static void fail_disk(struct head_world *w, struct volume *v)
{
	uint8_t *data = world_memory(4096);
	memset(data, 9, 4096);
	sim_file_fail(world_disk_file(w, 1), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(world_write(w, v, 8192, data, 4096, 0), -EIO);
	CU_ASSERT_EQUAL(w->set->disks[0]->state, SET_DISK_FAILED);
	free(data);
}

static struct set_command order_add(const char *path)
{
	struct set_command c = {.kind = SET_DISK_ADD};
	text_print(c.path, sizeof(c.path), "%s", path);
	return c;
}

static void a_failed_disk_is_opened_again(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 5, 4096);
	world_open(&w, 61);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@s"), 0);
	struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1@s", "nbd");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	fail_disk(&w, v);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), -EIO);
	c = order_add("d1");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(w.set->disks[0]->state, SET_DISK_RUNNING);
	CU_ASSERT_EQUAL(world_events(&w, "disk-reopened"), 1);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0); /* and once more */
	memset(data, 0, 4096);
	CU_ASSERT_EQUAL(world_read(&w, world_export(&w, "vm1@s"), 0, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 5);
	/* its session ended with the disk */
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), -EIO);
	CU_ASSERT(!look_volume(&w).is_serving && strstr(look_volume(&w).why, "attach it"));
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	memset(data, 0, 4096);
	CU_ASSERT_EQUAL(world_read(&w, world_head(&w, "vm1"), 0, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 5);
	CU_ASSERT_EQUAL(world_write(&w, world_head(&w, "vm1"), 4096, data, 4096, 0), 0);
	CU_ASSERT(look_volume(&w).is_serving);
	world_close(&w);
	free(data);
}

static void a_deletion_waits_for_a_failed_disk(void)
{
	for (unsigned way = 0; way < 2; way++) {
		struct head_world w;
		uint8_t *data = world_memory(4096);
		memset(data, 5, 4096);
		world_open(&w, 62);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", GIB);
		CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), 0);
		fail_disk(&w, v);
		CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
		struct set_command c = order(SET_VOLUME_DELETE, "vm1");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		world_let_pass(&w, NS_PER_S);
		CU_ASSERT_STRING_EQUAL(look_volume(&w).name, "vm1"); /* waits */
		CU_ASSERT(strstr(look_volume(&w).why, "n1-d1") != NULL);
		c = way == 0 ? order_add("d1") : order(SET_DISK_REMOVE, "n1-d1");
		c.force = way == 1;
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		world_until(&w, no_volume_is_left, &w);
		CU_ASSERT_EQUAL(look_n_disks(&w), way == 0);
		world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_STRING_EQUAL(look_volume(&w).name, "");
		CU_ASSERT_EQUAL(w.set->disks[0] != NULL, way == 0); /* its key is gone with the last that named it */
		world_close(&w);
		free(data);
	}
}

/* Refused before a disk is touched; the old name brings everything back. */
static void a_renamed_node_does_not_start(void)
{
	struct head_world w;
	world_open(&w, 31);
	world_add_disk(&w, 64 * MIB);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	CU_ASSERT_PTR_NOT_NULL(world_volume(&w, "v", 8 * MIB));
	world_stop(&w);
	w.node_name = "n2";
	CU_ASSERT_EQUAL(world_start(&w), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(volume_set_why(w.set), "node.name is \"n2\": write node.name = \"n1\" again"));
	world_stop(&w);
	w.node_name = NULL;
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_STRING_EQUAL(volume_set_why(w.set), "");
	CU_ASSERT_PTR_NOT_NULL(world_head(&w, "v"));
	world_close(&w);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("set disks", NULL, NULL);
	CU_add_test(suite, "an older store, and a disk that was away",
		    an_older_store_is_noticed_at_a_disk_that_was_away);
	CU_add_test(suite, "a volume of an older store is deleted", a_volume_of_an_older_store_is_deleted);
	CU_add_test(suite, "what was given up stays away", what_was_given_up_stays_away);
	CU_add_test(suite, "a disk that was away is joined again", a_disk_that_was_away_is_joined_again);
	CU_add_test(suite, "an older store, and a disk that it does not name",
		    an_older_store_is_noticed_at_a_disk_that_it_does_not_name);
	CU_add_test(suite, "a disk is not removed under its first write", a_disk_is_not_removed_under_its_first_write);
	CU_add_test(suite, "a removal of unknown outcome is carried through",
		    a_removal_of_unknown_outcome_is_carried_through);
	CU_add_test(suite, "a failed disk is opened again", a_failed_disk_is_opened_again);
	CU_add_test(suite, "a deletion waits for a failed disk", a_deletion_waits_for_a_failed_disk);
	CU_add_test(suite, "a renamed node does not start", a_renamed_node_does_not_start);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
