/*
 * test_facts.c: the records of the metadata store: what is written is read again, and what an operator or a newer quarry may
 * have made of them is refused with the key that is wrong.
 */
#include "volumes/head/facts.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char uuid_of_volume[] = "11111111-2222-3333-4444-555555555555";
static const char uuid_of_disk[] = "66666666-7777-8888-9999-aaaaaaaaaaaa";

/* With all that a volume may have. */
static struct volume_facts rich_volume(struct tree_facts *tree)
{
	struct volume_facts f = {.name = "vm1",
				 .pool = "default",
				 .owner = "n1",
				 .renamed_from = "vm0",
				 .size_bytes = 600ull << 30,
				 .replicas = 2,
				 .min_replicas = 2,
				 .generation = 7,
				 .epoch_base = 7 * EPOCHS_PER_ATTACH,
				 .live_tree = 5,
				 .next_tree = 69,
				 .live_from = 4,
				 .history = 3,
				 .trees = tree,
				 .n_trees = 1,
				 .n_disks = 2,
				 .moving = {.first = 256, .n_segments = 8},
				 .was_replicated = true,
				 .is_uneven = true,
				 .is_attached_nbd = true,
				 .created_ns = 1};
	*tree = (struct tree_facts){.id = 5, .state = TREE_IS_LIVE};
	CU_ASSERT_EQUAL_FATAL(uuid_from_text(uuid_of_volume, &f.uuid), 0);
	CU_ASSERT_EQUAL_FATAL(uuid_from_text(uuid_of_disk, &f.disks[0].uuid), 0);
	f.disks[1] =
	    (struct volume_disk_facts){.uuid = f.uuid, .is_stale = true, .since = 9, .had_before = 6, .generation = 6};
	f.moving.to = f.disks[0].uuid;
	f.moving.from = f.uuid;
	text_print(f.cloned_from, sizeof(f.cloned_from), "golden@v1");
	f.schedule = (struct schedule_facts){.every_s = 3600, .keep = 24};
	return f;
}

static json_t *volume_json(void)
{
	struct tree_facts tree;
	struct volume_facts f = rich_volume(&tree);
	char *text = volume_to_json(&f);
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(object);
	free(text);
	return object;
}

static int volume_read(json_t *object, struct volume_facts *out, char why[static WHY_BYTES])
{
	char *text = json_dumps(object, JSON_COMPACT);
	int err = volume_from_json(uuid_of_volume, text, out, why);
	free(text);
	return err;
}

static void a_volume_is_read_as_it_was_written(void)
{
	struct volume_facts f;
	char why[WHY_BYTES] = "";
	json_t *object = volume_json();
	CU_ASSERT_EQUAL_FATAL(volume_read(object, &f, why), 0);
	char *text = volume_to_json(&f);
	json_t *again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	CU_ASSERT(json_equal(object, again));
	CU_ASSERT_EQUAL(f.moving.first, 256);
	CU_ASSERT_EQUAL(f.moving.n_segments, 8);
	CU_ASSERT(uuid_equal(&f.moving.to, &f.disks[0].uuid) || uuid_equal(&f.moving.to, &f.disks[1].uuid));
	volume_facts_clear(&f);
	json_decref(again);
	json_decref(object);
	free(text);
}

/* The value of the key, which may be one of an object within, is another; NULL: there is none. The key is named, or another. */
struct wrong {
	const char *within, *key, *value, *named;
};

static void expect_refused(const struct wrong *w)
{
	struct volume_facts f;
	char why[WHY_BYTES] = "";
	json_t *object = volume_json(), *place = w->within ? json_object_get(object, w->within) : object;
	CU_ASSERT_PTR_NOT_NULL_FATAL(place);
	if (w->value)
		json_object_set_new(place, w->key, json_loads(w->value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(place, w->key);
	int err = volume_read(object, &f, why);
	CU_ASSERT_EQUAL(err, -EINVAL);
	if (err == 0)
		volume_facts_clear(&f);
	bool is_named = strstr(why, w->named ? w->named : w->key) != NULL;
	CU_ASSERT(is_named);
	if (err != -EINVAL || !is_named)
		printf("\n  %s %s: %d \"%s\"\n", w->key, w->value ? w->value : "away", err, why);
	json_decref(object);
}

static void what_is_wrong_is_named(void)
{
	static const struct wrong wrong[] = {
	    {NULL, "name", NULL, NULL},
	    {NULL, "name", "\"\"", NULL},
	    {NULL, "name", "\"../etc\"", NULL},
	    {NULL, "name", "7", NULL},
	    {NULL, "pool", "[]", NULL},
	    {NULL, "size_bytes", "0", NULL},
	    {NULL, "size_bytes", "1000", NULL},
	    {NULL, "size_bytes", "-512", NULL},
	    {NULL, "size_bytes", "9223372036854775807", NULL},
	    {NULL, "size_bytes", "1e9", NULL},
	    {NULL, "replicas", "65", NULL},
	    {NULL, "min_replicas", "0", NULL},
	    {NULL, "min_replicas", "3", NULL},
	    {NULL, "generation", "-1", NULL},
	    {NULL, "epoch_base", "\"7\"", NULL},
	    {NULL, "next_tree", "5", NULL},
	    {NULL, "live_from", "-1", NULL},
	    {NULL, "state", "\"well\"", NULL},
	    {NULL, "trees", "{}", NULL},
	    {NULL, "trees", "[7]", NULL},
	    {NULL, "attachments", "7", NULL},
	    {NULL, "replicas_state", "[]", NULL},
	    {NULL, "replicas_state", "{\"no-uuid\":{\"state\":\"in-sync\"}}", "no-uuid"},
	    {NULL, "schedule", "{\"every_s\":0,\"keep\":1}", "every_s"},
	    {"moving", "first_segment", NULL, NULL},
	    {"moving", "first_segment", "-1", NULL},
	    {"moving", "first_segment", "\"0\"", NULL},
	    {"moving", "first_segment", "505", "segments"}, /* of two chunks */
	    {"moving", "segments", "9", NULL},
	    {"moving", "segments", "-1", NULL},
	    {"moving", "to", "\"disk\"", NULL},
	    {"moving", "from", "7", NULL},
	    {NULL, "was_replicated", "1", NULL},
	    {NULL, "uneven", "\"yes\"", NULL},
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		expect_refused(&wrong[i]);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("facts", NULL, NULL);
	CU_add_test(suite, "a volume is read as it was written", a_volume_is_read_as_it_was_written);
	CU_add_test(suite, "what is wrong is named", what_is_wrong_is_named);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
