/*
 * test_health.c: what `quarry status` complains about.
 */
#include "daemon/control/answer.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <string.h>

static char told[1024];

static void tell(const struct problem *p, void *context)
{
	size_t used = strlen(told);
	snprintf(told + used, sizeof(told) - used, "%s(%s) ", p->code, p->object);
	CU_ASSERT(strlen(p->message) > 0);
	if (strcmp(p->code, "fill-stalled") == 0)
		CU_ASSERT_STRING_EQUAL(p->message,
				       "nobody fills it; go on with: quarry backup restore /srv/b/v@s v1 --lazy");
}

static void test_health(void)
{
	struct snapshot_disk disks[4] = {0};
	struct snapshot_volume volumes[2] = {0};
	struct pool_view pools[4] = {0};
	struct snapshot s = {
	    .disks = disks, .n_disks = 4, .volumes = volumes, .n_volumes = 2, .pools = pools, .n_pools = 4};
	for (int i = 0; i < 4; i++) {
		snprintf(disks[i].view.name, sizeof(disks[i].view.name), "d%d", i);
		snprintf(pools[i].name, sizeof(pools[i].name), "p%d", i);
		pools[i].n_disks = pools[i].n_disks_here = 1;
		pools[i].size_bytes = pools[i].free_bytes = 100 * GIB;
		disks[i].view.is_open = true;
		disks[i].view.state = DISK_RUNNING;
	}
	snprintf(volumes[0].view.name, sizeof(volumes[0].view.name), "%s", "v0");
	snprintf(volumes[1].view.name, sizeof(volumes[1].view.name), "%s", "v1");
	volumes[0].view.is_attached_nbd = volumes[0].view.is_serving = true;
	told[0] = '\0';
	health_each(&s, tell, NULL);
	CU_ASSERT_STRING_EQUAL(told, "");
	s.is_metadata_broken = true;
	disks[0].view.is_open = false;
	disks[1].view.state = DISK_FAILED;
	disks[2].view.state = DISK_RECOVERING;
	disks[3].view.scrub.bad_blocks = 1;
	disks[3].view.stats.lost_parts = 1;
	volumes[0].view.is_serving = false;
	pools[0].free_bytes = 0;
	pools[1].free_bytes = GIB;
	pools[3].n_full = 1; /* once; there is room again */
	pools[2].n_disks = pools[2].n_disks_here = 0;
	pools[2].n_volumes = 1;
	health_each(&s, tell, NULL);
	CU_ASSERT_STRING_EQUAL(
	    told, "metadata-failed(metadata store) disk-failed(disk d0) disk-failed(disk d1) disk-recovering(disk d2) "
		  "disk-damaged(disk d3) disk-damaged(disk d3) volume-failing(volume v0) pool-full(pool p0) "
		  "pool-nearly-full(pool p1) pool-empty(pool p2) ");
	disks[3].view.scrub.healed_blocks = 1;
	disks[3].view.stats.lost_parts = 0;
	told[0] = '\0';
	health_each(&s, tell, NULL);
	CU_ASSERT_PTR_NULL(strstr(told, "d3"));
	pools[1].n_full = 1; /* what is free is the reserve */
	told[0] = '\0';
	health_each(&s, tell, NULL);
	CU_ASSERT_PTR_NOT_NULL(strstr(told, "pool-full(pool p0) pool-full(pool p1) pool-empty(pool p2) "));
	snprintf(volumes[1].view.fill_source, sizeof(volumes[1].view.fill_source), "%s", "/srv/b/v@s");
	health_each(&s, tell, NULL);
	CU_ASSERT_PTR_NOT_NULL(strstr(told, "fill-stalled(volume v1) "));
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("health", NULL, NULL);
	CU_add_test(suite, "what is wrong", test_health);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures > 0;
}
