/*
 * test_sim.c: the simulator keeps its own promises: the fault model of files, time, crashes, repetition. Streams are in
 * test_sim_net.c.
 */
#include "tests/unit/sim_attempt.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_BLOCKS 64u

/* ---- a world with one file ---- */

struct stage {
	struct sim *sim;
	struct sim_machine *machine;
	struct sim_file *medium;
	struct file *file;
	uint8_t *memory; /* N_BLOCKS blocks */
};

static void stage_open(struct stage *g)
{
	CU_ASSERT_EQUAL_FATAL(reactor_file_open(sim_reactor(g->machine), "d1", 0, &g->file), 0);
}

static struct stage stage_make(uint64_t seed)
{
	struct stage g = {.sim = sim_create(seed)};

	g.machine = sim_machine_create(g.sim, "n1");
	g.medium = sim_file_create(g.machine, "d1", N_BLOCKS * BLOCK_BYTES);
	g.memory = aligned_alloc(BLOCK_BYTES, N_BLOCKS * BLOCK_BYTES);
	stage_open(&g);
	return g;
}

static void stage_end(struct stage *g)
{
	file_close(g->file);
	sim_destroy(g->sim);
	free(g->memory);
}

static void stage_crash(struct stage *g, enum sim_crash_kind kind)
{
	sim_crash(g->machine, kind);
	file_close(g->file);
	stage_open(g);
}

static uint8_t *block_memory(struct stage *g, uint64_t block)
{
	return g->memory + block * BLOCK_BYTES;
}

static void write_start(struct stage *g, struct attempt *t, uint64_t first, uint64_t n, uint8_t fill)
{
	*t = (struct attempt){0};
	op_init(&t->op, attempt_done);
	memset(block_memory(g, first), fill, n * BLOCK_BYTES);
	t->iov = (struct iovec){block_memory(g, first), n * BLOCK_BYTES};
	file_write(g->file, &t->op, &t->iov, 1, first * BLOCK_BYTES);
}

static int attempt_wait(struct stage *g, struct attempt *t)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(g->sim, attempt_is_done, t, STEPS_MAX), SIM_DONE);
	return t->res;
}

static int write_now(struct stage *g, uint64_t first, uint64_t n, uint8_t fill)
{
	struct attempt t;

	write_start(g, &t, first, n, fill);
	return attempt_wait(g, &t);
}

static void read_start(struct stage *g, struct attempt *t, uint64_t first, uint64_t n)
{
	*t = (struct attempt){0};
	op_init(&t->op, attempt_done);
	t->iov = (struct iovec){block_memory(g, first), n * BLOCK_BYTES};
	file_read(g->file, &t->op, &t->iov, 1, first * BLOCK_BYTES);
}

static int read_now(struct stage *g, uint64_t first, uint64_t n)
{
	struct attempt t;

	read_start(g, &t, first, n);
	return attempt_wait(g, &t);
}

static int flush_now(struct stage *g)
{
	struct attempt t = {0};

	op_init(&t.op, attempt_done);
	file_flush(g->file, &t.op);
	return attempt_wait(g, &t);
}

static int punch_now(struct stage *g, uint64_t first, uint64_t n)
{
	struct attempt t = {0};

	op_init(&t.op, attempt_done);
	file_punch(g->file, &t.op, first * BLOCK_BYTES, n * BLOCK_BYTES);
	return attempt_wait(g, &t);
}

static bool block_is(const void *block, uint8_t fill)
{
	const uint8_t *bytes = block;

	for (uint32_t i = 0; i < BLOCK_BYTES; i++) {
		if (bytes[i] != fill)
			return false;
	}
	return true;
}

static bool medium_is(struct stage *g, uint64_t block, uint8_t fill)
{
	uint8_t content[BLOCK_BYTES];

	sim_file_peek(g->medium, block, content);
	return block_is(content, fill);
}

/* ---- files ---- */

static void file_keeps_what_is_written(void)
{
	struct stage g = stage_make(1);

	CU_ASSERT_EQUAL(read_now(&g, 0, 4), 0);
	CU_ASSERT_TRUE(block_is(block_memory(&g, 3), 0)); /* never written: zeros */
	CU_ASSERT_EQUAL(write_now(&g, 2, 3, 7), 0);
	memset(g.memory, 1, N_BLOCKS * BLOCK_BYTES);
	CU_ASSERT_EQUAL(read_now(&g, 1, 5), 0);
	CU_ASSERT_TRUE(block_is(block_memory(&g, 1), 0));
	CU_ASSERT_TRUE(block_is(block_memory(&g, 2), 7));
	CU_ASSERT_TRUE(block_is(block_memory(&g, 4), 7));
	CU_ASSERT_TRUE(block_is(block_memory(&g, 5), 0));
	CU_ASSERT_EQUAL(read_now(&g, N_BLOCKS - 1, 2), -EIO); /* past the end */
	stage_end(&g);
}

static void vectors_and_sectors(void)
{
	struct stage g = stage_make(2);
	struct attempt t = {0};
	struct iovec iov[3] = {{g.memory, 512}, {g.memory + 8192, 4096}, {g.memory + 20480, 1024}};

	CU_ASSERT_EQUAL(write_now(&g, 10, 3, 9), 0);
	memset(g.memory, 1, 512);
	memset(g.memory + 8192, 2, 4096);
	memset(g.memory + 20480, 3, 1024);
	op_init(&t.op, attempt_done);
	file_write(g.file, &t.op, iov, 3, 10 * BLOCK_BYTES + 512);
	CU_ASSERT_EQUAL(attempt_wait(&g, &t), 0);
	memset(g.memory, 0, N_BLOCKS * BLOCK_BYTES);
	CU_ASSERT_EQUAL(read_now(&g, 10, 3), 0);
	const uint8_t *got = block_memory(&g, 10);
	CU_ASSERT_EQUAL(got[0], 9);
	CU_ASSERT_EQUAL(got[512], 1);
	CU_ASSERT_EQUAL(got[1023], 1);
	CU_ASSERT_EQUAL(got[1024], 2);
	CU_ASSERT_EQUAL(got[1024 + 4095], 2);
	CU_ASSERT_EQUAL(got[1024 + 4096], 3);
	CU_ASSERT_EQUAL(got[1024 + 4096 + 1024], 9);
	stage_end(&g);
}

static void flushed_survives_power_loss(void)
{
	for (uint64_t seed = 1; seed < 50; seed++) {
		struct stage g = stage_make(seed);
		CU_ASSERT_EQUAL(write_now(&g, 0, 8, 5), 0);
		CU_ASSERT_EQUAL(flush_now(&g), 0);
		stage_crash(&g, SIM_POWER_LOSS);
		for (uint64_t b = 0; b < 8; b++)
			CU_ASSERT_TRUE(medium_is(&g, b, 5));
		stage_end(&g);
	}
}

/* Each block keeps any of its three contents by itself; torn ones occur as well, unless they are forbidden. */
static void unflushed_lands_block_by_block(void)
{
	uint32_t kept[3] = {0}, torn = 0, mixed = 0;

	for (uint64_t seed = 1; seed < 100; seed++) {
		struct stage g = stage_make(seed);
		uint32_t seen = 0;
		sim_file_faults(g.medium)->torn_ppm = seed % 2 ? 0 : 200000;
		CU_ASSERT_EQUAL(write_now(&g, 0, 8, 1), 0);
		CU_ASSERT_EQUAL(flush_now(&g), 0);
		CU_ASSERT_EQUAL(write_now(&g, 0, 8, 2), 0);
		CU_ASSERT_EQUAL(write_now(&g, 0, 8, 3), 0);
		stage_crash(&g, SIM_POWER_LOSS);
		for (uint64_t b = 0; b < 8; b++) {
			bool is_whole = false;
			for (uint8_t fill = 1; fill <= 3; fill++) {
				if (medium_is(&g, b, fill)) {
					kept[fill - 1]++;
					seen |= 1u << fill;
					is_whole = true;
				}
			}
			torn += !is_whole;
			CU_ASSERT_TRUE(is_whole || seed % 2 == 0);
		}
		mixed += (seen & (seen - 1)) != 0;
		stage_end(&g);
	}
	CU_ASSERT_TRUE(kept[0] > 50 && kept[1] > 50 && kept[2] > 50);
	CU_ASSERT_TRUE(torn > 10 && mixed > 10);
}

/* A flush covers what was delivered before it was submitted, not what is delivered while it is under way. */
static void flush_covers_only_what_was_delivered(void)
{
	uint32_t lost = 0;

	for (uint64_t seed = 1; seed < 100; seed++) {
		struct stage g = stage_make(seed);
		struct attempt flush = {0}, write;
		write_start(&g, &write, 0, 1, 6);
		op_init(&flush.op, attempt_done);
		file_flush(g.file, &flush.op);
		CU_ASSERT_EQUAL(attempt_wait(&g, &flush), 0);
		CU_ASSERT_EQUAL(attempt_wait(&g, &write), 0);
		stage_crash(&g, SIM_POWER_LOSS);
		lost += medium_is(&g, 0, 0);
		stage_end(&g);
	}
	CU_ASSERT_TRUE(lost > 10);
}

static void kill_keeps_what_completed(void)
{
	uint32_t landed = 0, lost = 0, partly = 0;

	for (uint64_t seed = 1; seed < 100; seed++) {
		struct stage g = stage_make(seed);
		struct attempt t;
		CU_ASSERT_EQUAL(write_now(&g, 0, 4, 1), 0);
		CU_ASSERT_EQUAL(file_lock(g.file), 0);
		write_start(&g, &t, 8, 4, 2);
		stage_crash(&g, SIM_KILL);
		CU_ASSERT_FALSE(t.is_done);
		CU_ASSERT_EQUAL(file_lock(g.file), 0); /* the dead process's lock is gone */
		uint32_t n = 0;
		for (uint64_t b = 0; b < 4; b++) {
			CU_ASSERT_TRUE(medium_is(&g, b, 1));
			CU_ASSERT_TRUE(medium_is(&g, 8 + b, 2) || medium_is(&g, 8 + b, 0));
			n += medium_is(&g, 8 + b, 2);
		}
		landed += n == 4;
		lost += n == 0;
		partly += n > 0 && n < 4;
		CU_ASSERT_EQUAL(sim_run(g.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_FALSE(t.is_done); /* never delivered */
		stage_end(&g);
	}
	CU_ASSERT_TRUE(landed > 10 && lost > 10 && partly > 10);
}

static void punched_is_zero_or_old(void)
{
	uint32_t zero = 0, old = 0;

	for (uint64_t seed = 1; seed < 20; seed++) {
		struct stage g = stage_make(seed);
		CU_ASSERT_EQUAL(write_now(&g, 0, 16, 4), 0);
		CU_ASSERT_EQUAL(punch_now(&g, 4, 8), 0);
		for (uint64_t b = 0; b < 16; b++) {
			bool is_outside = b < 4 || b >= 12;
			CU_ASSERT_TRUE(medium_is(&g, b, 4) || (!is_outside && medium_is(&g, b, 0)));
			zero += medium_is(&g, b, 0);
			old += !is_outside && medium_is(&g, b, 4);
		}
		sim_file_faults(g.medium)->is_punch_refused = true;
		CU_ASSERT_EQUAL(punch_now(&g, 4, 8), -EOPNOTSUPP);
		stage_end(&g);
	}
	CU_ASSERT_TRUE(zero > 20 && old > 5);
}

static void faults_on_demand(void)
{
	struct stage g = stage_make(3);

	CU_ASSERT_EQUAL(write_now(&g, 0, 8, 8), 0);
	sim_file_flip(g.medium, 5, 77);
	CU_ASSERT_EQUAL(read_now(&g, 5, 1), 0);
	CU_ASSERT_EQUAL(block_memory(&g, 5)[9], 8 ^ 1 << 5);
	sim_file_break(g.medium, 6);
	CU_ASSERT_EQUAL(read_now(&g, 5, 1), 0);
	CU_ASSERT_EQUAL(read_now(&g, 5, 2), -EIO);
	CU_ASSERT_EQUAL(write_now(&g, 6, 1, 3), 0);
	CU_ASSERT_EQUAL(read_now(&g, 6, 1), 0); /* rewriting mends it */
	sim_file_fail(g.medium, OP_WRITE, 1, EIO);
	CU_ASSERT_EQUAL(write_now(&g, 0, 1, 1), 0);
	CU_ASSERT_EQUAL(write_now(&g, 0, 1, 2), -EIO);
	CU_ASSERT_TRUE(medium_is(&g, 0, 1) || medium_is(&g, 0, 2));
	CU_ASSERT_EQUAL(write_now(&g, 0, 1, 3), 0);
	sim_file_fail(g.medium, OP_FLUSH, 0, EIO);
	CU_ASSERT_EQUAL(flush_now(&g), -EIO);
	CU_ASSERT_EQUAL(flush_now(&g), 0);
	stage_end(&g);
}

static void failed_flush_makes_nothing_durable(void)
{
	uint32_t lost = 0;

	for (uint64_t seed = 1; seed < 60; seed++) {
		struct stage g = stage_make(seed);
		CU_ASSERT_EQUAL(write_now(&g, 0, 1, 6), 0);
		sim_file_fail(g.medium, OP_FLUSH, 0, EIO);
		CU_ASSERT_EQUAL(flush_now(&g), -EIO);
		stage_crash(&g, SIM_POWER_LOSS);
		lost += medium_is(&g, 0, 0);
		stage_end(&g);
	}
	CU_ASSERT_TRUE(lost > 10);
}

static void misdirected_writes_land_elsewhere(void)
{
	struct stage g = stage_make(5);
	uint32_t found = 0;

	CU_ASSERT_EQUAL(write_now(&g, 0, N_BLOCKS, 1), 0);
	sim_file_faults(g.medium)->misdirect_ppm = 1000000;
	CU_ASSERT_EQUAL(write_now(&g, 7, 1, 2), 0);
	for (uint64_t b = 0; b < N_BLOCKS; b++)
		found += medium_is(&g, b, 2);
	CU_ASSERT_EQUAL(found, 1);
	stage_end(&g);
}

static void opening_files(void)
{
	struct stage g = stage_make(6);
	struct reactor *r = sim_reactor(g.machine);
	struct file *second, *third;

	CU_ASSERT_EQUAL(reactor_file_open(r, "none", 0, &second), -ENOENT);
	CU_ASSERT_EQUAL(reactor_file_open(r, "d1", FILE_CREATE, &second), -EEXIST);
	CU_ASSERT_EQUAL_FATAL(reactor_file_open(r, "d2", FILE_CREATE, &second), 0);
	CU_ASSERT_EQUAL(file_size_bytes(second), 0);
	CU_ASSERT_EQUAL(file_set_size(second, 10 * GIB), 0);
	CU_ASSERT_EQUAL(file_size_bytes(second), (int64_t)(10 * GIB));
	CU_ASSERT_EQUAL_FATAL(reactor_file_open(r, "d2", 0, &third), 0);
	CU_ASSERT_EQUAL(file_lock(second), 0);
	CU_ASSERT_EQUAL(file_lock(third), -EAGAIN);
	file_close(second);
	CU_ASSERT_EQUAL(file_lock(third), 0);
	file_close(third);
	CU_ASSERT_EQUAL(sim_file_stats(sim_file_find(g.machine, "d2")).blocks, 0); /* sparse */
	stage_end(&g);
}

/* Two writes in flight to one block are a defect of the process, which dies of it. */
static void overlapping_writes_are_caught(void)
{
	struct stage g = stage_make(7);
	struct attempt a, b;
	int status;
	pid_t child = fork();

	if (child == 0) {
		(void)!freopen("/dev/null", "w", stderr);
		write_start(&g, &a, 3, 2, 1);
		write_start(&g, &b, 4, 2, 1);
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_TRUE(WIFSIGNALED(status));
	stage_end(&g);
}

static void changed_memory_in_flight_is_caught(void)
{
	struct stage g = stage_make(8);
	struct attempt t;
	int status;
	pid_t child = fork();

	if (child == 0) {
		(void)!freopen("/dev/null", "w", stderr);
		write_start(&g, &t, 3, 2, 1);
		block_memory(&g, 4)[100] = 2;
		sim_run(g.sim, NULL, NULL, STEPS_MAX);
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_TRUE(WIFSIGNALED(status));
	stage_end(&g);
}

/* ---- crash points ---- */

/* Submission and delivery count one each; the process stops at every index there is, and never delivers more. */
static void crash_at_every_index(void)
{
	for (uint64_t index = 1; index <= 9; index++) {
		struct stage g = stage_make(100 + index);
		struct attempt t[4];
		uint32_t n_done = 0;
		sim_crash_at(g.machine, index);
		for (uint32_t i = 0; i < 4; i++)
			write_start(&g, &t[i], i, 1, 1);
		enum sim_outcome outcome = sim_run(g.sim, NULL, NULL, STEPS_MAX);
		for (uint32_t i = 0; i < 4; i++)
			n_done += t[i].is_done;
		CU_ASSERT_EQUAL(outcome, index <= 8 ? SIM_CRASH_DUE : SIM_IDLE);
		CU_ASSERT_EQUAL(n_done, index <= 5 ? 0 : index - 5);
		stage_crash(&g, SIM_KILL);
		for (uint32_t i = 0; i < 4; i++) {
			bool is_submitted = index > i + 1;
			CU_ASSERT_TRUE(is_submitted || medium_is(&g, i, 0));
			CU_ASSERT_TRUE(!t[i].is_done || medium_is(&g, i, 1));
		}
		CU_ASSERT_EQUAL(read_now(&g, 0, 1), 0); /* the next process works */
		stage_end(&g);
	}
}

/* ---- time, order ---- */

struct bell {
	struct timer timer;
	struct reactor *reactor;
	uint64_t rang_ns;
	uint32_t n;
};

static void bell_rings(struct timer *t)
{
	struct bell *b = container_of(t, struct bell, timer);

	b->rang_ns = reactor_now_ns(b->reactor);
	b->n++;
}

static void timers_fire_in_virtual_time(void)
{
	struct sim *s = sim_create(9);
	struct sim_machine *m = sim_machine_create(s, "n1");
	struct bell bells[3] = {{.n = 0}};
	uint64_t start_ns = sim_now_ns(s);

	for (uint32_t i = 0; i < 3; i++) {
		bells[i].reactor = sim_reactor(m);
		timer_init(&bells[i].timer, bell_rings);
		timer_start(bells[i].reactor, &bells[i].timer, (3 - i) * 1000 * NS_PER_S);
	}
	timer_stop(bells[1].reactor, &bells[1].timer);
	CU_ASSERT_EQUAL(sim_run_for(s, 1500 * NS_PER_S), SIM_DONE);
	CU_ASSERT_EQUAL(bells[2].n, 1);
	CU_ASSERT_EQUAL(bells[0].n, 0);
	CU_ASSERT_EQUAL(sim_run(s, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(bells[0].n, 1);
	CU_ASSERT_EQUAL(bells[1].n, 0);
	CU_ASSERT_TRUE(bells[0].rang_ns >= start_ns + 3000 * NS_PER_S);
	timer_start(bells[1].reactor, &bells[1].timer, 1);
	sim_crash(m, SIM_KILL);
	CU_ASSERT_FALSE(timer_is_running(&bells[1].timer));
	CU_ASSERT_EQUAL(sim_run(s, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(bells[1].n, 0);
	sim_destroy(s);
}

/* One of two stands still; what was due meanwhile happens when it goes on, and nothing of it after a crash. */
static void paused_machines_wait(void)
{
	struct sim *s = sim_create(10);
	struct sim_machine *m[2] = {sim_machine_create(s, "n1"), sim_machine_create(s, "n2")};
	struct bell bells[2] = {{.n = 0}};
	uint64_t start_ns = sim_now_ns(s);

	for (uint32_t i = 0; i < 2; i++) {
		bells[i].reactor = sim_reactor(m[i]);
		timer_init(&bells[i].timer, bell_rings);
		timer_start(bells[i].reactor, &bells[i].timer, NS_PER_S);
	}
	sim_pause_until(m[0], start_ns + 5 * NS_PER_S);
	CU_ASSERT_EQUAL(sim_run_for(s, 2 * NS_PER_S), SIM_DONE);
	CU_ASSERT_TRUE(bells[0].n == 0 && bells[1].n == 1);
	CU_ASSERT_EQUAL(sim_run_for(s, 4 * NS_PER_S), SIM_DONE);
	CU_ASSERT_EQUAL(bells[0].n, 1);
	CU_ASSERT_TRUE(bells[0].rang_ns >= start_ns + 5 * NS_PER_S);
	timer_start(bells[0].reactor, &bells[0].timer, NS_PER_S);
	sim_pause_until(m[0], sim_now_ns(s) + 100 * NS_PER_S);
	sim_crash(m[0], SIM_KILL);
	timer_start(sim_reactor(m[0]), &bells[0].timer, 1);
	CU_ASSERT_EQUAL(sim_run_for(s, NS_PER_S), SIM_DONE);
	CU_ASSERT_EQUAL(bells[0].n, 2);
	sim_destroy(s);
}

/* Operations overtake each other, and the same seed repeats it exactly. */
static uint64_t order_of_completions(uint64_t seed)
{
	struct stage g = stage_make(seed);
	struct attempt t[16];
	uint64_t order = 0, n_done = 0;

	for (uint32_t i = 0; i < 16; i++)
		write_start(&g, &t[i], i, 1, 1);
	while (n_done < 16 && sim_step(g.sim)) {
		for (uint32_t i = 0; i < 16; i++) {
			if (t[i].is_done) {
				order = order * 31 + i;
				t[i].is_done = false;
				n_done++;
			}
		}
	}
	CU_ASSERT_EQUAL(n_done, 16);
	order ^= sim_now_ns(g.sim) ^ reactor_random(sim_reactor(g.machine));
	stage_end(&g);
	return order;
}

static void seeds_repeat(void)
{
	CU_ASSERT_EQUAL(order_of_completions(11), order_of_completions(11));
	CU_ASSERT_NOT_EQUAL(order_of_completions(11), order_of_completions(12));
}

struct letter {
	struct message message;
	uint32_t number;
	uint32_t *next;
};

static void letter_deliver(struct message *m)
{
	struct letter *l = container_of(m, struct letter, message);

	CU_ASSERT_EQUAL(*l->next, l->number);
	(*l->next)++;
}

static void stop_deliver(struct message *m)
{
	(void)m;
}

static void messages_arrive_in_order(void)
{
	struct sim *s = sim_create(13);
	struct sim_machine *m = sim_machine_create(s, "n1");
	uint32_t next = 0;
	struct letter letters[100];
	struct message last = {.deliver = stop_deliver};

	for (uint32_t i = 0; i < array_size(letters); i++) {
		letters[i] = (struct letter){.message = {.deliver = letter_deliver}, .number = i, .next = &next};
		reactor_post(sim_reactor(m), &letters[i].message);
	}
	CU_ASSERT_EQUAL(next, 0);
	CU_ASSERT_EQUAL(sim_run(s, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(next, array_size(letters));
	reactor_post(sim_reactor(m), &last);
	sim_crash(m, SIM_KILL); /* takes the message with it */
	CU_ASSERT_EQUAL(sim_run(s, NULL, NULL, STEPS_MAX), SIM_IDLE);
	sim_destroy(s);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite files = CU_add_suite("sim: files", NULL, NULL);
	CU_ADD_TEST(files, file_keeps_what_is_written);
	CU_ADD_TEST(files, vectors_and_sectors);
	CU_ADD_TEST(files, flushed_survives_power_loss);
	CU_ADD_TEST(files, unflushed_lands_block_by_block);
	CU_ADD_TEST(files, flush_covers_only_what_was_delivered);
	CU_ADD_TEST(files, kill_keeps_what_completed);
	CU_ADD_TEST(files, punched_is_zero_or_old);
	CU_ADD_TEST(files, faults_on_demand);
	CU_ADD_TEST(files, failed_flush_makes_nothing_durable);
	CU_ADD_TEST(files, misdirected_writes_land_elsewhere);
	CU_ADD_TEST(files, opening_files);
	CU_ADD_TEST(files, overlapping_writes_are_caught);
	CU_ADD_TEST(files, changed_memory_in_flight_is_caught);
	CU_pSuite world = CU_add_suite("sim: world", NULL, NULL);
	CU_ADD_TEST(world, crash_at_every_index);
	CU_ADD_TEST(world, timers_fire_in_virtual_time);
	CU_ADD_TEST(world, paused_machines_wait);
	CU_ADD_TEST(world, seeds_repeat);
	CU_ADD_TEST(world, messages_arrive_in_order);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	bool has_failed = CU_get_number_of_failures() > 0;
	CU_cleanup_registry();
	return has_failed;
}
