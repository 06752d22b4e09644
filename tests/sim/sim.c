/*
 * sim.c: the simulated world: machines, their reactors, virtual time, and one seed for everything.
 *
 * What happens next is always the earliest event of any reactor: an I/O that its file has finished, bytes that arrive,
 * a timer that is due, something deferred or posted (now). Latencies are random and spread over orders of magnitude
 * (sim_latency_ns()), so operations in flight overtake each other in every order; among events of one moment chance
 * decides. A turn takes all events of its reactor up to a random moment a little later, so that turns of one
 * completion and of many both occur, then what the shared half of the reactor has due, then the turn-end hooks.
 *
 *   machine: runs --io_index reaches crash_at--> crash due --sim_crash()--> runs, with a new reactor
 *
 * Invariants
 *  1. Time never goes back; an event happens at its time or later, a timer never early.
 *  2. Every event in a heap happens or vanishes exactly once; it vanishes only when its reactor dies.
 *  3. From the moment a crash is due until sim_crash(), the machine takes no turn and nothing it submits happens.
 *  4. A dead reactor accepts no operation; all its timers, hooks, ops and messages are unlinked, so their owners may be
 *     freed in any order, or ask to stop them.
 *  5. Nothing depends on an address or on the real clock: the same calls with the same seed give the same run.
 *
 * Owner: the thread of the test. reactor_post() and reactor_stop() too are called on this thread only.
 */
#include "tests/sim/sim_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WALL_START_NS        (1700000000ull * NS_PER_S) /* some day; time of the world begins with it */
#define TIME_START_NS        NS_PER_S                   /* so that 0 never is a moment */
#define HEAP_SIZE_FIRST      64u
#define MESSAGES_OF_TURN_MAX 64u
#define STILL_MAX            1000u /* turns that take no time */
#define PPM                  1000000
#define CLOCK_MAX_NS         (UINT64_MAX / PPM) /* later is never */
#define LATENCY_HALVINGS     10u                /* a latency is the longest one divided by up to 2^9 */

/* ---- chance ---- */

uint64_t sim_split(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t sim_random(struct sim *s)
{
	return sim_split(&s->random_state);
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
	quarry_assert(n > 0);
	return sim_random(s) % n; /* the bias is far below what any test could notice */
}

bool sim_chance(struct sim *s, uint32_t per_million)
{
	return per_million > 0 && sim_random(s) % 1000000 < per_million;
}

uint64_t sim_latency_ns(struct sim *s, uint64_t min_ns, uint64_t max_ns)
{
	uint64_t chance = sim_random(s);
	uint64_t range_ns = max_ns - min_ns;

	quarry_assert(min_ns <= max_ns);
	return min_ns + (range_ns > 0 ? (chance >> 8) % range_ns >> chance % LATENCY_HALVINGS : 0);
}

/* ---- events ---- */

static bool event_is_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_event_add(struct sim_reactor *r, struct sim_event *e, uint64_t delay_ns)
{
	struct sim *s = r->machine->sim;

	quarry_assert(!r->is_dead);
	quarry_assert(e->happen != NULL && e->vanish != NULL);
	quarry_assert(delay_ns > 0); /* rule 1 of reactor.h: never in the turn that asked for it */
	if (r->n_events + 1 >= r->heap_size) {
		r->heap_size = r->heap_size ? r->heap_size * 2 : HEAP_SIZE_FIRST;
		r->heap = realloc(r->heap, r->heap_size * sizeof(*r->heap));
		quarry_assert(r->heap != NULL);
	}
	e->at_ns = s->now_ns + delay_ns;
	e->order = sim_random(s);
	uint32_t at = ++r->n_events;
	for (; at > 1 && event_is_before(e, r->heap[at / 2]); at /= 2)
		r->heap[at] = r->heap[at / 2];
	r->heap[at] = e;
}

static struct sim_event *event_take(struct sim_reactor *r)
{
	quarry_assert(r->n_events > 0);
	struct sim_event *first = r->heap[1];
	struct sim_event *last = r->heap[r->n_events--];
	uint32_t at = 1;

	for (uint32_t child; (child = at * 2) <= r->n_events; at = child) {
		if (child < r->n_events && event_is_before(r->heap[child + 1], r->heap[child]))
			child++;
		if (!event_is_before(r->heap[child], last))
			break;
		r->heap[at] = r->heap[child];
	}
	r->heap[at] = last;
	return first;
}

/* ---- the reactor's side ---- */

void sim_op_keep(struct sim_reactor *r, struct op *op)
{
	quarry_assert(r->machine->is_crash_due);
	list_append(&r->unsubmitted, &op->link);
}

bool sim_io_counts(struct sim_machine *m)
{
	if (m->is_crash_due)
		return true;
	m->io_index++;
	m->is_crash_due = m->crash_at != 0 && m->io_index >= m->crash_at;
	return m->is_crash_due;
}

static void op_submit(struct reactor *base, struct op *op)
{
	struct sim_reactor *r = sim_reactor_of(base);

	quarry_assert(!r->is_dead);
	switch (op->kind) {
	case OP_READ:
	case OP_WRITE:
	case OP_FLUSH:
	case OP_PUNCH:
		sim_file_submit(r, op);
		return;
	case OP_ACCEPT:
	case OP_RECV:
	case OP_RECV_ALL:
	case OP_RECV_FDS:
	case OP_SEND:
	case OP_SEND_FDS:
		sim_net_submit(r, op);
		return;
	case OP_CONNECT: /* has an entry of its own */
	case OP_NONE:
	case OP_DEFER:
		break;
	}
	quarry_assert(!"an operation of this kind is not submitted");
}

/* What the machine's clock shows at a moment of the world. */
static uint64_t clock_at(const struct sim_machine *m, uint64_t world_ns)
{
	return world_ns + (uint64_t)((int64_t)world_ns * m->drift_ppm / PPM);
}

/* The first moment of the world at which its clock shows that, or more. */
static uint64_t clock_moment(const struct sim_machine *m, uint64_t shown_ns)
{
	if (m->drift_ppm == 0 || shown_ns == 0 || shown_ns > CLOCK_MAX_NS)
		return shown_ns;
	uint64_t world_ns = shown_ns * PPM / (uint64_t)(PPM + m->drift_ppm);
	while (clock_at(m, world_ns) < shown_ns)
		world_ns++;
	return world_ns;
}

static uint64_t world_now_ns(struct reactor *r)
{
	return clock_at(sim_reactor_of(r)->machine, sim_of(r)->now_ns);
}
static uint64_t world_wall_ns(struct reactor *r)
{
	return WALL_START_NS + world_now_ns(r) + (uint64_t)sim_reactor_of(r)->machine->wall_ahead_ns;
}
static uint64_t world_random(struct reactor *r)
{
	return sim_split(&sim_reactor_of(r)->machine->random_state);
}

static struct uuid world_boot(struct reactor *r)
{
	return sim_reactor_of(r)->machine->boot;
}

static void message_post(struct reactor *base, struct message *m)
{
	struct sim_reactor *r = sim_reactor_of(base);

	if (r->is_dead)
		return;
	m->next = NULL;
	*r->last_message = m;
	r->last_message = &m->next;
}

static void reactor_wake_nothing(struct reactor *r)
{
	quarry_assert(!sim_reactor_of(r)->is_dead);
}

/* reactor_run(): blocks its caller, who is outside of any turn, while the whole world goes on. */
static void world_run(struct reactor *r)
{
	while (!r->is_stopping) {
		bool is_alive = sim_step(sim_of(r));
		quarry_assert(is_alive); /* else it would wait for ever */
	}
	r->is_stopping = false;
}

static const struct reactor_ops world_ops = {
    .file_open = sim_file_open,
    .file_close = sim_handle_close,
    .file_lock = sim_handle_lock,
    .file_size_bytes = sim_handle_size,
    .file_set_size = sim_handle_set_size,
    .file_reserve = sim_handle_reserve,
    .file_remove = sim_handle_remove,
    .listen = sim_net_listen,
    .listener_close = sim_listener_close,
    .stream_shutdown = sim_stream_shutdown,
    .stream_close = sim_stream_close,
    .stream_peer = sim_stream_peer,
    .fds_close = sim_shared_close,
    .fds_held = sim_shared_held,
    .stream_take = sim_shared_stream,
    .fd_is_memory = sim_shared_is_memory,
    .map = sim_shared_map,
    .share = sim_shared_make,
    .mapping_close = sim_shared_unmap,
    .event_open = sim_bell_open,
    .event_signal = sim_bell_signal,
    .event_close = sim_bell_close,
    .submit = op_submit,
    .connect = sim_net_connect,
    .now_ns = world_now_ns,
    .wall_ns = world_wall_ns,
    .random = world_random,
    .boot = world_boot,
    .post = message_post,
    .wake = reactor_wake_nothing,
    .run = world_run,
};

static void process_start(struct sim_machine *m)
{
	struct sim_reactor *r = calloc(1, sizeof(*r));

	quarry_assert(r != NULL);
	reactor_base_init(&r->base, &world_ops);
	r->machine = m;
	r->last_message = &r->first_message;
	list_init(&r->unsubmitted);
	list_append(&m->reactors, &r->link);
	m->reactor = r;
}

/* ---- turns ---- */

static uint64_t reactor_next_ns(const struct sim_reactor *r)
{
	uint64_t next_ns = r->first_message != NULL ? 0 : clock_moment(r->machine, reactor_base_next_ns(&r->base));

	return r->n_events > 0 ? min_u64(next_ns, r->heap[1]->at_ns) : next_ns;
}

/* The machine where something happens first, one at random among equals; NULL: nowhere. */
static struct sim_machine *machine_next(struct sim *s, uint64_t *at_ns)
{
	struct sim_machine *found = NULL;
	uint64_t n_equal = 0;

	*at_ns = UINT64_MAX;
	list_each (node, &s->machines) {
		struct sim_machine *m = container_of(node, struct sim_machine, link);
		uint64_t next_ns = m->is_crash_due ? UINT64_MAX : max_u64(s->now_ns, reactor_next_ns(m->reactor));
		next_ns = max_u64(next_ns, m->paused_until_ns);
		if (next_ns == UINT64_MAX || next_ns > *at_ns)
			continue;
		n_equal = next_ns < *at_ns ? 1 : n_equal + 1;
		*at_ns = next_ns;
		if (n_equal == 1 || sim_below(s, n_equal) == 0)
			found = m;
	}
	return found;
}

static void messages_deliver(struct sim_reactor *r)
{
	for (uint32_t n = 0; r->first_message != NULL && n < MESSAGES_OF_TURN_MAX; n++) {
		struct message *m = r->first_message;
		r->first_message = m->next;
		if (r->first_message == NULL)
			r->last_message = &r->first_message;
		m->deliver(m);
	}
}

static void machine_turn(struct sim_machine *m)
{
	struct sim_reactor *r = m->reactor;
	struct sim *s = m->sim;

	while (r->n_events > 0 && r->heap[1]->at_ns <= s->now_ns && !m->is_crash_due) {
		struct sim_event *e = event_take(r);
		e->happen(e);
	}
	if (!m->is_crash_due)
		messages_deliver(r);
	if (!m->is_crash_due)
		reactor_base_deliver(&r->base);
	if (!m->is_crash_due)
		reactor_base_turn_end(&r->base);
}

bool sim_step(struct sim *s)
{
	uint64_t at_ns;
	struct sim_machine *m = machine_next(s, &at_ns);

	quarry_assert(!s->is_stepping);
	if (m == NULL)
		return false;
	s->is_stepping = true;
	uint64_t before_ns = s->now_ns;
	s->now_ns = at_ns + (s->batch_max_ns > 0 ? sim_below(s, s->batch_max_ns) : 0);
	s->n_still = s->now_ns == before_ns ? s->n_still + 1 : 0;
	if (s->n_still == STILL_MAX) { /* somebody polls, until some time has passed */
		s->now_ns += NS_PER_US;
		s->n_still = 0;
	}
	machine_turn(m);
	s->is_stepping = false;
	return true;
}

static bool any_crash_is_due(const struct sim *s)
{
	list_each (node, &s->machines) {
		if (container_of(node, struct sim_machine, link)->is_crash_due)
			return true;
	}
	return false;
}

enum sim_outcome sim_run(struct sim *s, bool (*is_done)(void *context), void *context, uint64_t steps_max)
{
	for (uint64_t n = 0;; n++) {
		if (any_crash_is_due(s))
			return SIM_CRASH_DUE;
		if (is_done != NULL && is_done(context))
			return SIM_DONE;
		if (n >= steps_max)
			return SIM_TOO_LONG;
		if (!sim_step(s))
			return SIM_IDLE;
	}
}

enum sim_outcome sim_run_for(struct sim *s, uint64_t duration_ns)
{
	uint64_t end_ns = s->now_ns + duration_ns, next_ns;

	while (!any_crash_is_due(s)) {
		machine_next(s, &next_ns);
		if (next_ns > end_ns) {
			s->now_ns = max_u64(s->now_ns, end_ns);
			return SIM_DONE;
		}
		sim_step(s);
	}
	return SIM_CRASH_DUE;
}

/* ---- machines ---- */

struct reactor *sim_reactor(struct sim_machine *m)
{
	return &m->reactor->base;
}
uint64_t sim_io_index(const struct sim_machine *m)
{
	return m->io_index;
}
bool sim_crash_is_due(const struct sim_machine *m)
{
	return m->is_crash_due;
}

void sim_crash_at(struct sim_machine *m, uint64_t index)
{
	quarry_assert(index == 0 || index > m->io_index);
	quarry_assert(!m->is_crash_due);
	m->crash_at = index;
}

void sim_clock_drift(struct sim_machine *m, int32_t ppm)
{
	quarry_assert(ppm > -PPM && ppm < PPM);
	quarry_assert(m->sim->now_ns == TIME_START_NS && !m->sim->is_stepping);
	m->drift_ppm = ppm;
}

void sim_wall_jump(struct sim_machine *m, int64_t ahead_ns)
{
	quarry_assert(!m->sim->is_stepping);
	m->wall_ahead_ns = ahead_ns;
}

void sim_pause_until(struct sim_machine *m, uint64_t until_ns)
{
	quarry_assert(!m->sim->is_stepping);
	m->paused_until_ns = until_ns;
}

/* Takes an op from a dead process without delivering it. */
static void ops_forget(struct list *ops)
{
	for (struct list *node; (node = list_pop(ops)) != NULL;)
		container_of(node, struct op, link)->kind = OP_NONE;
}

/* Invariant 4. */
static void process_end(struct sim_reactor *r)
{
	struct reactor *base = &r->base;

	while (r->n_events > 0) {
		struct sim_event *e = event_take(r);
		e->vanish(e);
	}
	ops_forget(&base->deferred);
	ops_forget(&r->unsubmitted);
	while (list_pop(&base->turn_hooks) != NULL)
		;
	for (uint32_t i = 1; i <= base->n_timers; i++)
		base->heap[i]->heap_index = 0;
	base->n_timers = 0;
	r->first_message = NULL;
	r->last_message = &r->first_message;
	r->is_dead = true;
}

void sim_crash(struct sim_machine *m, enum sim_crash_kind kind)
{
	quarry_assert(!m->sim->is_stepping);
	process_end(m->reactor);
	sim_files_crash(m, kind);
	sim_net_crash(m, kind);
	m->is_crash_due = false;
	m->crash_at = 0;
	m->paused_until_ns = 0;
	if (kind == SIM_POWER_LOSS)
		m->boot = uuid_make(m->random_state, sim_split(&m->random_state));
	process_start(m);
	quarry_assert(!m->reactor->is_dead);
}

struct sim_machine *sim_machine_create(struct sim *s, const char *name)
{
	struct sim_machine *m = calloc(1, sizeof(*m));

	quarry_assert(m != NULL);
	quarry_assert(strlen(name) < sizeof(m->name));
	m->sim = s;
	snprintf(m->name, sizeof(m->name), "%s", name);
	struct list *lists[] = {&m->reactors, &m->files,        &m->handles,   &m->dead_handles,
				&m->streams,  &m->dead_streams, &m->listeners, &m->dead_listeners};
	for (size_t i = 0; i < array_size(lists); i++)
		list_init(lists[i]);
	m->random_state = sim_random(s);
	m->boot = uuid_make(m->random_state, 1);
	list_append(&s->machines, &m->link);
	process_start(m);
	return m;
}

static void machine_destroy(struct sim_machine *m)
{
	process_end(m->reactor);
	sim_files_destroy(m);
	sim_net_destroy(m);
	for (struct list *node; (node = list_pop(&m->reactors)) != NULL;) {
		struct sim_reactor *r = container_of(node, struct sim_reactor, link);
		reactor_base_fini(&r->base);
		free(r->heap);
		free(r);
	}
	free(m);
}

/* ---- the world ---- */

struct sim *sim_create(uint64_t seed)
{
	/* The world's character: how far apart latencies lie, how many completions a turn gathers. */
	static const uint64_t latency_max_us[] = {50, 200, 1000, 20000};
	static const uint64_t batch_max_us[] = {0, 5, 50, 500};
	struct sim *s = calloc(1, sizeof(*s));

	quarry_assert(s != NULL);
	s->random_state = seed;
	s->now_ns = TIME_START_NS;
	s->latency_max_ns = latency_max_us[sim_below(s, array_size(latency_max_us))] * NS_PER_US;
	s->batch_max_ns = batch_max_us[sim_below(s, array_size(batch_max_us))] * NS_PER_US;
	list_init(&s->machines);
	list_init(&s->partitions);
	list_init(&s->held);
	return s;
}

void sim_destroy(struct sim *s)
{
	quarry_assert(!s->is_stepping);
	sim_net_fini(s);
	sim_shared_fini(s); /* it closes streams */
	for (struct list *node; (node = list_pop(&s->machines)) != NULL;)
		machine_destroy(container_of(node, struct sim_machine, link));
	free(s);
}

uint64_t sim_now_ns(const struct sim *s)
{
	return s->now_ns;
}
