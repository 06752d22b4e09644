/*
 * test_disk_rooms.c: what another node says of its disks: taken where it makes sense, and only of its own.
 */
#include "daemon/disk_rooms.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST  "00000000-0000-0000-0000-0000000000a1"
#define SECOND "00000000-0000-0000-0000-0000000000a2"

static struct uuid uuid_of(const char *text)
{
	struct uuid u;
	CU_ASSERT_EQUAL_FATAL(uuid_from_text(text, &u), 0);
	return u;
}

static void its_own_disks(void)
{
	static struct disk_rooms r;
	struct uuid first = uuid_of(FIRST), second = uuid_of(SECOND);
	disk_rooms_read("{\"disks\": [{\"uuid\": \"" FIRST
			"\", \"node\": \"n2\", \"used_bytes\": 5, \"free_bytes\": 7},"
			"{\"uuid\": \"" SECOND "\", \"node\": \"n3\", \"used_bytes\": 1, \"free_bytes\": 2}]}",
			"n2", 99, &r);
	CU_ASSERT_EQUAL(r.n, 1);
	const struct disk_room *room = disk_rooms_find(&r, &first);
	CU_ASSERT_PTR_NOT_NULL_FATAL(room);
	CU_ASSERT_EQUAL(room->used_bytes, 5);
	CU_ASSERT_EQUAL(room->free_bytes, 7);
	CU_ASSERT_EQUAL(room->wall_ns, 99);
	CU_ASSERT_PTR_NULL(disk_rooms_find(&r, &second));
}

static void what_makes_no_sense(void)
{
	static const char *const bad[] = {
	    "",
	    "[]",
	    "{\"disks\": 5}",
	    "{\"disks\": [5, null, {}]}",
	    "{\"disks\": [{\"uuid\": \"x\", \"node\": \"n2\", \"used_bytes\": 5, \"free_bytes\": 7}]}",
	    "{\"disks\": [{\"uuid\": \"" FIRST "\", \"node\": \"n2\", \"used_bytes\": null, \"free_bytes\": 7}]}",
	    "{\"disks\": [{\"uuid\": \"" FIRST "\", \"node\": \"n2\", \"used_bytes\": 5, \"free_bytes\": -1}]}",
	    "{\"disks\": [{\"uuid\": \"" FIRST "\", \"node\": \"n2\", \"used_bytes\": 5.5, \"free_bytes\": 1}]}",
	    "{\"disks\": [{\"uuid\": \"" FIRST
	    "\", \"node\": \"n2\", \"used_bytes\": 5, \"free_bytes\": 9223372036854775807}]}",
	};
	static struct disk_rooms r;
	for (size_t i = 0; i < array_size(bad); i++) {
		r.n = 1;
		disk_rooms_read(bad[i], "n2", 99, &r);
		CU_ASSERT_EQUAL(r.n, 0);
	}
}

static void more_than_are_kept(void)
{
	static struct disk_rooms r;
	const size_t room = 256 * 1024;
	char *text = malloc(room);
	size_t n = (size_t)snprintf(text, room, "{\"disks\": [");
	for (unsigned i = 0; i < 2 * DISK_ROOMS_MAX; i++)
		n += (size_t)snprintf(text + n, room - n,
				      "%s{\"uuid\": \"00000000-0000-0000-0000-%012x\", \"node\": \"n2\", "
				      "\"used_bytes\": 1, \"free_bytes\": 2}",
				      i ? "," : "", i + 1);
	snprintf(text + n, room - n, "]}");
	disk_rooms_read(text, "n2", 99, &r);
	CU_ASSERT_EQUAL(r.n, DISK_ROOMS_MAX);
	free(text);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk rooms", NULL, NULL);
	CU_add_test(suite, "its own disks", its_own_disks);
	CU_add_test(suite, "what makes no sense", what_makes_no_sense);
	CU_add_test(suite, "more than are kept", more_than_are_kept);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
