/*
 * test_members.c: who has which name, and until when: nodes over one store in memory, in virtual time.
 */
#include "daemon/metadata/members.h"
#include "tests/sim/sim.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_NS  (2 * NS_PER_S)
#define STEPS_MAX 200000u
#define NODES_MAX 2u

struct node {
	struct members *members;
	struct members_listener listener;
	bool is_ready, is_gone;
	int res;
	char why[MEMBERS_WHY_BYTES];
	uint32_t n_lapsed, n_same, n_new;
};

struct world {
	struct sim *sim;
	struct sim_machine *machine;
	struct reactor *reactor;
	struct log *log;
	struct metadata *store;
	struct node nodes[NODES_MAX];
};

static void world_open(struct world *w, uint64_t seed)
{
	*w = (struct world){.sim = sim_create(seed)};
	w->machine = sim_machine_create(w->sim, "m");
	w->reactor = sim_reactor(w->machine);
	if (log_create(-1, LOG_INFO, &w->log) < 0 || metadata_open_memory(w->reactor, &w->store) < 0)
		abort();
}

static void world_close(struct world *w)
{
	metadata_close(w->store);
	sim_destroy(w->sim);
	log_destroy(w->log);
}

static bool is_ready(void *context)
{
	return ((struct node *)context)->is_ready;
}

static bool is_gone(void *context)
{
	return ((struct node *)context)->is_gone;
}

static void until(struct world *w, bool (*holds)(void *context), void *context)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(w->sim, holds, context, STEPS_MAX), SIM_DONE);
}

static void let_pass(struct world *w, uint64_t ns)
{
	CU_ASSERT_EQUAL_FATAL(sim_run_for(w->sim, ns), SIM_DONE);
}

static void ready(struct members *m, int res, void *context)
{
	struct node *n = context;
	n->is_ready = true;
	n->res = res;
	snprintf(n->why, sizeof(n->why), "%s", members_why(m));
}

static void gone(void *context)
{
	struct node *n = context;
	n->is_gone = true;
	n->members = NULL;
}

static void lapsed(struct members_listener *l)
{
	container_of(l, struct node, listener)->n_lapsed++;
}

static void returned(struct members_listener *l, bool is_new)
{
	struct node *n = container_of(l, struct node, listener);
	n->n_new += is_new;
	n->n_same += !is_new;
}

static void join_begin(struct world *w, struct node *n, const char *name, const char *identity)
{
	const struct members_options o = {.reactor = w->reactor,
					  .log = w->log,
					  .metadata = w->store,
					  .name = name,
					  .identity = identity,
					  .about = "{\"version\":\"7\"}",
					  .lease_ns = LEASE_NS,
					  .drift_ppm = 1000};
	*n = (struct node){.listener = {.lapsed = lapsed, .returned = returned}};
	CU_ASSERT_EQUAL_FATAL(members_join(&o, ready, n, &n->members), 0);
}

static int join(struct world *w, struct node *n, const char *name, const char *identity)
{
	join_begin(w, n, name, identity);
	until(w, is_ready, n);
	if (n->res == 0)
		members_listen(n->members, &n->listener);
	return n->res;
}

static void leave(struct world *w, struct node *n)
{
	members_leave(n->members, gone, n);
	until(w, is_gone, n);
}

static enum member_state state_of(const struct node *n, const char *name)
{
	struct member_view v;
	CU_ASSERT_FATAL(members_find(n->members, name, &v));
	return v.state;
}

struct asked {
	struct metadata_request q;
	bool is_done;
	int res;
};

static void asked_done(struct metadata_request *q, int res)
{
	struct asked *a = container_of(q, struct asked, q);
	a->is_done = true;
	a->res = res;
}

static bool is_asked(void *context)
{
	return ((struct asked *)context)->is_done;
}

/* Ends the lease behind its holder's back, as time would while it cannot renew it. */
static void end_lease(struct world *w, const char *key)
{
	struct asked get = {.q = {.op = METADATA_GET, .key = key, .done = asked_done}};
	metadata_submit(w->store, &get.q);
	until(w, is_asked, &get);
	CU_ASSERT_EQUAL_FATAL(get.res, 0);
	struct asked end = {.q = {.op = METADATA_REVOKE, .lease = get.q.items[0].lease, .done = asked_done}};
	metadata_request_clear(&get.q);
	metadata_submit(w->store, &end.q);
	until(w, is_asked, &end);
	CU_ASSERT_EQUAL_FATAL(end.res, 0);
}

/* ---- tests ---- */

static void test_nodes_come_and_go(void)
{
	struct world w;
	world_open(&w, 1);
	struct node *a = &w.nodes[0], *b = &w.nodes[1];
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
	CU_ASSERT_EQUAL(join(&w, b, "n2", "there"), 0);
	let_pass(&w, 20 * NS_PER_S); /* leases are kept */
	CU_ASSERT(members_may_serve(a->members) && members_may_serve(b->members));
	CU_ASSERT(members_is_alive(a->members, "n2") && members_is_alive(b->members, "n1"));
	CU_ASSERT_FALSE(members_is_alive(a->members, "n3"));
	leave(&w, b);
	let_pass(&w, NS_PER_MS);
	CU_ASSERT_EQUAL(state_of(a, "n2"), MEMBER_STOPPED);
	CU_ASSERT_EQUAL(join(&w, b, "n2", "there"), 0);
	CU_ASSERT_EQUAL(state_of(a, "n2"), MEMBER_SERVING);
	CU_ASSERT_EQUAL(a->n_lapsed + b->n_lapsed, 0);
	leave(&w, a);
	leave(&w, b);
	world_close(&w);
}

struct watcher {
	struct members_listener listener;
	uint32_t n_changes;
};

static void watched(struct members_listener *l, const char *node)
{
	struct watcher *w = container_of(l, struct watcher, listener);
	CU_ASSERT_STRING_EQUAL(node, "n2");
	w->n_changes++;
	if (w->n_changes == 3)
		members_unlisten(l); /* in the very call */
}

static void test_several_listen(void)
{
	struct world w;
	struct watcher first = {.listener.changed = watched}, second = {.listener.changed = watched};
	world_open(&w, 3);
	struct node *a = &w.nodes[0], *b = &w.nodes[1];
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
	members_listen(a->members, &first.listener);
	members_listen(a->members, &second.listener);
	CU_ASSERT_EQUAL(join(&w, b, "n2", "there"), 0);
	let_pass(&w, NS_PER_MS);
	CU_ASSERT(first.n_changes > 0);
	CU_ASSERT_EQUAL(first.n_changes, second.n_changes);
	members_unlisten(&second.listener);
	uint32_t n = second.n_changes;
	for (int i = 0; i < 3; i++) {
		leave(&w, b);
		CU_ASSERT_EQUAL(join(&w, b, "n2", "there"), 0);
		let_pass(&w, NS_PER_MS);
	}
	CU_ASSERT_EQUAL(first.n_changes, 3);
	CU_ASSERT_EQUAL(second.n_changes, n);
	members_listen(a->members, &second.listener);
	leave(&w, b);
	leave(&w, a);
	members_unlisten(&second.listener); /* the members have gone before it */
	CU_ASSERT_FALSE(list_is_linked(&second.listener.link));
	world_close(&w);
}

/* A name that lives is refused, after the time in which one that died would have ended. */
static void test_one_name_one_node(void)
{
	struct world w;
	world_open(&w, 2);
	struct node *a = &w.nodes[0], *b = &w.nodes[1];
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
	CU_ASSERT_EQUAL(join(&w, b, "n1", "there"), -EEXIST);
	CU_ASSERT_PTR_NOT_NULL(strstr(b->why, "\"n1\" is the name of a node that is alive (here)"));
	CU_ASSERT(members_may_serve(a->members));
	leave(&w, b);
	let_pass(&w, LEASE_NS);
	CU_ASSERT(members_may_serve(a->members));
	CU_ASSERT_EQUAL(a->n_lapsed, 0);
	leave(&w, a);
	world_close(&w);
}

/* Two want one name at the same moment: never do both have it. */
static void test_race_for_a_name(void)
{
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct world w;
		world_open(&w, seed);
		metadata_memory_set_faults(w.store, &(struct metadata_faults){.delay_max_ns = 300 * NS_PER_MS,
									      .lost_percent = 20,
									      .doubled_percent = 20});
		join_begin(&w, &w.nodes[0], "n1", "here");
		join_begin(&w, &w.nodes[1], "n1", "there");
		while (!w.nodes[0].is_ready || !w.nodes[1].is_ready) {
			let_pass(&w, NS_PER_MS);
			CU_ASSERT_FALSE(members_may_serve(w.nodes[0].members) && members_may_serve(w.nodes[1].members));
		}
		CU_ASSERT(w.nodes[0].res == 0 || w.nodes[1].res == 0);
		leave(&w, &w.nodes[0]);
		leave(&w, &w.nodes[1]);
		world_close(&w);
	}
}

/* All daemons die; the store lives on, with their leases. */
static void world_crash(struct world *w)
{
	sim_crash(w->machine, SIM_KILL);
	for (uint32_t i = 0; i < NODES_MAX; i++) {
		if (w->nodes[i].members)
			members_abandon(w->nodes[i].members);
		w->nodes[i].members = NULL;
	}
	w->reactor = sim_reactor(w->machine);
	metadata_memory_crash(w->store, w->reactor);
}

/* Who died leaves a lease. Its successor in the same place ends it at once, one elsewhere waits for its end. */
static void test_successor(void)
{
	struct world w;
	world_open(&w, 3);
	for (int is_same = 1; is_same >= 0; is_same--) {
		CU_ASSERT_EQUAL(join(&w, &w.nodes[0], "n1", "here"), 0);
		world_crash(&w);
		uint64_t began_ns = sim_now_ns(w.sim);
		CU_ASSERT_EQUAL(join(&w, &w.nodes[0], "n1", is_same ? "here" : "there"), 0);
		CU_ASSERT_EQUAL(sim_now_ns(w.sim) - began_ns < LEASE_NS / 2, is_same);
		leave(&w, &w.nodes[0]);
	}
	world_close(&w);
}

/* Who finds a dead node records that it is lost; it is known again when it is back. */
static void test_lost(void)
{
	struct world w;
	world_open(&w, 4);
	struct node *a = &w.nodes[0], *b = &w.nodes[1];
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
	CU_ASSERT_EQUAL(join(&w, b, "n2", "there"), 0);
	world_crash(&w);
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
	CU_ASSERT_EQUAL(state_of(a, "n2"), MEMBER_SERVING);
	let_pass(&w, 2 * LEASE_NS);
	CU_ASSERT_EQUAL(state_of(a, "n2"), MEMBER_LOST);
	leave(&w, a);
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0); /* it knows from the store */
	CU_ASSERT_EQUAL(state_of(a, "n2"), MEMBER_LOST);
	CU_ASSERT_EQUAL(join(&w, b, "n2", "elsewhere"), 0);
	let_pass(&w, NS_PER_MS);
	CU_ASSERT_EQUAL(state_of(a, "n2"), MEMBER_SERVING);
	leave(&w, a);
	leave(&w, b);
	world_close(&w);
}

/* The store has ended a lease: from then on, and before its listener hears of another, the node may not serve. */
static void test_lease_ends(void)
{
	struct world w;
	world_open(&w, 5);
	struct node *a = &w.nodes[0];
	CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
	uint64_t first = members_lease_revision(a->members);
	end_lease(&w, "leases/n1");
	let_pass(&w, LEASE_NS);
	CU_ASSERT_EQUAL(a->n_lapsed, 1);
	CU_ASSERT_EQUAL(a->n_new, 1);
	CU_ASSERT_EQUAL(a->n_same, 0);
	CU_ASSERT(members_may_serve(a->members));
	CU_ASSERT(members_lease_revision(a->members) > first);
	leave(&w, a);
	world_close(&w);
}

/* The store answers so late that the first lease has run out by then: whoever waits for it hears of that, and that it
 * is back. */
static void test_slow_join(void)
{
	uint32_t n_over = 0;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct world w;
		world_open(&w, seed);
		struct node *a = &w.nodes[0];
		metadata_memory_set_faults(w.store, &(struct metadata_faults){.delay_max_ns = 600 * NS_PER_MS});
		CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
		bool is_over = !members_may_serve(a->members);
		metadata_memory_set_faults(w.store, &(struct metadata_faults){0});
		n_over += is_over;
		let_pass(&w, 4 * LEASE_NS);
		CU_ASSERT(members_may_serve(a->members));
		CU_ASSERT(!is_over || a->n_lapsed > 0);
		CU_ASSERT_EQUAL(a->n_lapsed, a->n_new + a->n_same);
		leave(&w, a);
		world_close(&w);
	}
	CU_ASSERT(n_over > 3);
}

/* Answers so late that leases run out, and another daemon that takes the name then: never may both serve. */
static void test_slow_store(void)
{
	uint32_t n_lapsed = 0, n_served = 0, n_taken = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world w;
		world_open(&w, seed);
		struct node *a = &w.nodes[0], *b = &w.nodes[1];
		CU_ASSERT_EQUAL(join(&w, a, "n1", "here"), 0);
		join_begin(&w, b, "n1", "there");
		metadata_memory_set_faults(
		    w.store,
		    &(struct metadata_faults){.delay_max_ns = NS_PER_S, .lost_percent = 10, .doubled_percent = 10});
		for (uint32_t i = 0; i < 1200; i++) {
			let_pass(&w, 50 * NS_PER_MS);
			bool may_a = members_may_serve(a->members), may_b = members_may_serve(b->members);
			CU_ASSERT_FALSE(may_a && may_b);
			CU_ASSERT(!may_a || members_until_ns(a->members) <= sim_now_ns(w.sim) + LEASE_NS);
			n_served += may_a;
			n_taken += may_b;
			if (!b->is_ready || b->res == 0)
				continue;
			leave(&w, b); /* it was refused: it tries again */
			join_begin(&w, b, "n1", "there");
		}
		n_lapsed += a->n_lapsed;
		metadata_memory_set_faults(w.store, &(struct metadata_faults){0});
		leave(&w, b);
		let_pass(&w, 4 * LEASE_NS);
		CU_ASSERT(members_may_serve(a->members));
		CU_ASSERT_EQUAL(a->n_lapsed, a->n_new + a->n_same);
		leave(&w, a);
		world_close(&w);
	}
	CU_ASSERT(n_lapsed > 0 && n_served > 0 && n_taken > 0);
}

int main(void)
{
	CU_pSuite suite;
	if (CU_initialize_registry() != CUE_SUCCESS || !(suite = CU_add_suite("members", NULL, NULL)))
		return 1;
	CU_add_test(suite, "nodes come and go", test_nodes_come_and_go);
	CU_add_test(suite, "several listen", test_several_listen);
	CU_add_test(suite, "one name, one node", test_one_name_one_node);
	CU_add_test(suite, "a race for a name", test_race_for_a_name);
	CU_add_test(suite, "a successor", test_successor);
	CU_add_test(suite, "a node is lost", test_lost);
	CU_add_test(suite, "a lease ends", test_lease_ends);
	CU_add_test(suite, "a slow join", test_slow_join);
	CU_add_test(suite, "a slow store", test_slow_store);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures > 0;
}
