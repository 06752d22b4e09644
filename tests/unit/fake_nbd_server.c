/*
 * fake_nbd_server.c: the NBD frontend over volumes in memory, as a program, for real clients and for measurements.
 *
 * usage: fake_nbd_server KEY=VALUE ...
 *      socket=PATH listen=ADDRESS size=BYTES tls=off|on|require certs=FOLDER psk=FILE connections=N budget=MIB
 *
 * Exports: "vm1" and "vm2" of that size, "readonly" of 64 MiB, "null" of 1 GiB that keeps nothing. Prints "ready" when
 * it listens; ends on SIGTERM or SIGINT and prints what it counted.
 */
#include "frontends/nbd/nbd_server.h"
#include "tests/unit/fake_volume.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct program {
	struct reactor *reactor;
	struct nbd_server *server;
	struct message message;
	const char *values[16];
};

static const char *value_of(int argc, char **argv, const char *key, const char *fallback)
{
	size_t len = strlen(key);
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], key, len) == 0 && argv[i][len] == '=')
			return argv[i] + len + 1;
	return fallback;
}

static void print_one(const struct nbd_connection_view *v, void *context)
{
	(void)context;
	fprintf(stderr, "connection %llu %s %s %s requests=%llu in_flight=%u held=%llu\n",
		(unsigned long long)v->number, v->peer, v->stage, v->export_, (unsigned long long)v->requests,
		v->n_requests, (unsigned long long)v->held_bytes);
}

static void print_counters(struct nbd_server *s)
{
	const struct nbd_counters *n = nbd_server_counters(s);
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	nbd_server_connections(s, print_one, NULL);
	fprintf(stderr, "accepted=%llu refused=%llu", (unsigned long long)counter_get(&n->accepted),
		(unsigned long long)counter_get(&n->refused));
	for (uint16_t c = 0; c < NBD_N_COMMANDS; c++)
		fprintf(stderr, " command_%u=%llu", c, (unsigned long long)counter_get(&n->requests[c]));
	fprintf(stderr, " receives=%llu sends=%llu user_ms=%llu system_ms=%llu maxrss_kb=%ld\n",
		(unsigned long long)counter_get(&n->receives), (unsigned long long)counter_get(&n->sends),
		(unsigned long long)used.ru_utime.tv_sec * 1000 + (unsigned long long)used.ru_utime.tv_usec / 1000,
		(unsigned long long)used.ru_stime.tv_sec * 1000 + (unsigned long long)used.ru_stime.tv_usec / 1000,
		used.ru_maxrss);
}

static void stopped(void *context)
{
	struct program *p = context;
	reactor_stop(p->reactor);
}

static void stop(struct message *m)
{
	struct program *p = container_of(m, struct program, message);
	print_counters(p->server);
	nbd_server_stop(p->server, stopped, p);
}

/* A signal is a message from another thread: this one waits for it. */
static void *wait_for_signal(void *context)
{
	struct program *p = context;
	sigset_t set;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigwait(&set, &number);
	p->message.deliver = stop;
	reactor_post(p->reactor, &p->message);
	return NULL;
}

static void add_volumes(struct volume_set *set, uint64_t size_bytes)
{
	fake_volume_add(set, &(struct fake_options){.name = "null", .size_bytes = GIB, .is_null = true});
	fake_volume_add(set, &(struct fake_options){.name = "readonly", .size_bytes = 64 * MIB, .is_read_only = true});
	fake_volume_add(set, &(struct fake_options){.name = "vm1", .size_bytes = size_bytes});
	fake_volume_add(set, &(struct fake_options){.name = "vm2", .size_bytes = size_bytes});
}

int main(int argc, char **argv)
{
	struct program p = {0};
	struct buffers *buffers;
	struct log *log;
	pthread_t waiter;
	sigset_t set;
	char why[NBD_WHY_BYTES];
	struct nbd_server_options o = {
	    .socket = value_of(argc, argv, "socket", ""),
	    .listen = value_of(argc, argv, "listen", ""),
	    .cert_dir = value_of(argc, argv, "certs", ""),
	    .psk_file = value_of(argc, argv, "psk", ""),
	    .max_connections = (uint32_t)strtoul(value_of(argc, argv, "connections", "0"), NULL, 10),
	};

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	struct reactor_options options = {.spin_max_us =
					      (uint32_t)strtoul(value_of(argc, argv, "spin", "0"), NULL, 10)};
	if (nbd_tls_mode_from_text(value_of(argc, argv, "tls", "off"), &o.tls) != 0 ||
	    log_create(STDERR_FILENO, LOG_INFO, &log) != 0 || reactor_create(&options, &p.reactor) != 0)
		return 2;
	uint64_t budget_bytes = strtoull(value_of(argc, argv, "budget", "48"), NULL, 10) * MIB;
	if (buffers_create(p.reactor, budget_bytes, 0, &buffers) != 0)
		return 2;
	o.volumes = fake_set_create(p.reactor);
	add_volumes(o.volumes, strtoull(value_of(argc, argv, "size", "1073741824"), NULL, 10));
	o.reactor = p.reactor;
	o.log = log;
	o.buffers = buffers;
	if (nbd_server_start(&o, why, &p.server) != 0) {
		fprintf(stderr, "fake_nbd_server: %s\n", why);
		return 1;
	}
	pthread_create(&waiter, NULL, wait_for_signal, &p);
	printf("ready\n");
	fflush(stdout);
	reactor_run(p.reactor);
	pthread_join(waiter, NULL);
	fake_set_destroy(o.volumes);
	buffers_destroy(buffers);
	reactor_destroy(p.reactor);
	log_destroy(log);
	return 0;
}
