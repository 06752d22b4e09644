/*
 * main.c: quarryd: reads the command line, runs one node until a signal ends it.
 *
 * SIGTERM and SIGINT stop the node in order; a second one ends the process at once, which is safe: recovery is the only
 * way to start. Signals are taken by a thread that turns each into a message to the reactor.
 *
 * Exit status: 0 stopped in order; 1 it could not start; 2 wrong usage or configuration.
 */
#include "daemon/check_disk.h"
#include "daemon/config.h"
#include "daemon/import_embedded.h"
#include "daemon/node.h"
#include "daemon/notify.h"
#include "daemon/version.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/quarry/quarry.conf"

/* While it starts or stops, the service manager is asked for this much more time, this often. */
#define PATIENCE_S       30
#define PATIENCE_EVERY_S 10

struct daemon {
	struct config config;
	struct reactor *reactor;
	struct log *log;
	struct node *node; /* NULL once it has ended */
	struct notify notify;
	struct timer patience;
	int status;

	pthread_t signal_thread;
	sigset_t signals;
	struct message stop;
	_Atomic bool is_over; /* the signal thread ends at its next signal */
};

/* ---- usage ---- */

static const char usage[] =
    "usage: quarryd [--config FILE]          run (default: " DEFAULT_CONFIG ")\n"
    "       quarryd [--config FILE] --check-config\n"
    "                                        say what is wrong with the configuration and with the files and folders\n"
    "                                        that it names, as the user who runs this finds them; exit 2 if anything "
    "is\n"
    "       quarryd --check-disk PATH [--verbose]\n"
    "                                        verify a disk that no quarryd has open; exit 1 if it is not sound\n"
    "       quarryd [--config FILE] --import-embedded\n"
    "                                        move what this node has in its own store into the cluster's, in etcd\n"
    "       quarryd --version | --help\n";

struct arguments {
	const char *config, *check_disk;
	bool check_config, import_embedded, is_verbose, version, help;
};

static int arguments_read(int argc, char **argv, struct arguments *a)
{
	static const struct option options[] = {
	    {"config", required_argument, NULL, 'c'},
	    {"check-config", no_argument, NULL, 'C'},
	    {"check-disk", required_argument, NULL, 'd'},
	    {"import-embedded", no_argument, NULL, 'i'},
	    {"verbose", no_argument, NULL, 'v'},
	    {"version", no_argument, NULL, 'V'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	int option;
	*a = (struct arguments){0};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			a->config = optarg;
			break;
		case 'C':
			a->check_config = true;
			break;
		case 'd':
			a->check_disk = optarg;
			break;
		case 'i':
			a->import_embedded = true;
			break;
		case 'v':
			a->is_verbose = true;
			break;
		case 'V':
			a->version = true;
			break;
		case 'h':
			a->help = true;
			break;
		default:
			return -EINVAL;
		}
	}
	if (optind == argc)
		return 0;
	fprintf(stderr, "quarryd: %s: unexpected argument\n", argv[optind]);
	return -EINVAL;
}

static void patience_fired(struct timer *t);

/* ---- signals ---- */

static void stop_deliver(struct message *m)
{
	struct daemon *d = container_of(m, struct daemon, stop);
	if (!d->node)
		return;
	notify_send(&d->notify, "STOPPING=1");
	node_stop(d->node);
	patience_fired(&d->patience);
}

/* SIGUSR1, sent by the end of main(), ends it; sent by anybody else it does nothing. */
static void *signal_run(void *context)
{
	struct daemon *d = context;
	bool is_stop_posted = false;
	int number;
	while (sigwait(&d->signals, &number) == 0 && !atomic_load(&d->is_over)) {
		if (number == SIGUSR1)
			continue;
		if (number == SIGHUP) {
			log_line(d->log, LOG_NOTICE, "node", "SIGHUP ignored: the configuration is read at start only");
		} else if (!is_stop_posted) {
			is_stop_posted = true;
			reactor_post(d->reactor, &d->stop);
		} else {
			log_line(d->log, LOG_WARNING, "node",
				 "a second signal: ending at once, recovery will follow the next start");
			_exit(1);
		}
	}
	return NULL;
}

/* All threads are started after this, so all of them have the signals blocked and only sigwait() sees them. */
static void signals_block(struct daemon *d)
{
	sigemptyset(&d->signals);
	sigaddset(&d->signals, SIGTERM);
	sigaddset(&d->signals, SIGINT);
	sigaddset(&d->signals, SIGHUP);
	sigaddset(&d->signals, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &d->signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a disk that may not grow is an error of that disk alone */
}

/* ---- the node's life as the service manager sees it ---- */

static void patience_fired(struct timer *t)
{
	struct daemon *d = container_of(t, struct daemon, patience);
	if (!d->node)
		return;
	notify_send(&d->notify, "EXTEND_TIMEOUT_USEC=%u000000\nSTATUS=%s", PATIENCE_S, node_stage_text(d->node));
	timer_start(d->reactor, t, PATIENCE_EVERY_S * NS_PER_S);
}

static void node_started(struct node *n, void *context)
{
	struct daemon *d = context;
	timer_stop(d->reactor, &d->patience);
	notify_send(&d->notify, "READY=1\nSTATUS=serving");
}

static void node_ended(int res, const char *why, void *context)
{
	struct daemon *d = context;
	d->node = NULL;
	d->status = res < 0 ? 1 : 0;
	timer_stop(d->reactor, &d->patience);
	if (res < 0) {
		log_line(d->log, LOG_ERROR, "node", "cannot start: %s", why);
		notify_send(&d->notify, "ERRNO=%d\nSTATUS=cannot start", -res);
	} else {
		log_line(d->log, LOG_NOTICE, "node", "stopped");
	}
	reactor_stop(d->reactor);
}

static int daemon_serve(struct daemon *d)
{
	const struct node_options options = {
	    .reactor = d->reactor,
	    .log = d->log,
	    .config = &d->config,
	    .started = node_started,
	    .ended = node_ended,
	    .context = d,
	};
	int res = node_start(&options, &d->node);
	if (res < 0)
		return res;
	res = -pthread_create(&d->signal_thread, NULL, signal_run, d);
	quarry_assert(res == 0);
	patience_fired(&d->patience);
	reactor_run(d->reactor);
	quarry_assert(!d->node);
	atomic_store(&d->is_over, true);
	pthread_kill(d->signal_thread, SIGUSR1);
	pthread_join(d->signal_thread, NULL);
	return 0;
}

static int daemon_run(struct daemon *d)
{
	const struct reactor_options options = {.spin_max_us = 50};
	int res = log_create(STDERR_FILENO, (enum log_level)d->config.log.level, &d->log);
	if (res < 0) {
		fprintf(stderr, "quarryd: %s\n", strerror(-res));
		return 1;
	}
	signals_block(d);
	notify_open(&d->notify);
	timer_init(&d->patience, patience_fired);
	d->stop.deliver = stop_deliver;
	d->status = 1;
	res = reactor_create(&options, &d->reactor);
	if (res < 0) {
		log_line(d->log, LOG_ERROR, "node",
			 "cannot start: io_uring: %s; quarryd needs Linux 5.19 or newer with io_uring "
			 "allowed (sysctl kernel.io_uring_disabled)",
			 strerror(-res));
	} else {
		if (daemon_serve(d) < 0)
			log_line(d->log, LOG_ERROR, "node", "cannot start: no memory");
		reactor_destroy(d->reactor);
	}
	notify_close(&d->notify);
	log_destroy(d->log);
	return d->status;
}

/* ---- main ---- */

static void say_error(struct config_report *report, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
	struct arguments a;
	struct daemon d = {0};
	struct config_report report = {.say = say_error};
	const char *path;
	if (arguments_read(argc, argv, &a) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	if (a.help || a.version) {
		fputs(a.help ? usage : "quarryd " QUARRY_VERSION "\n", stdout);
		return 0;
	}
	if (a.check_disk)
		return check_disk(a.check_disk, a.is_verbose);
	path = a.config ? a.config : DEFAULT_CONFIG;
	if (config_load(path, &d.config, &report) < 0) {
		if (!a.config)
			fputs("quarryd: another configuration is given with --config FILE\n", stderr);
		return 2;
	}
	if (a.check_config && config_check_files(path, &d.config, &report) < 0)
		return 2;
	if (a.check_config) {
		printf("%s: nothing is wrong%s\n", path, report.n_warnings > 0 ? " beside what is said above" : "");
		return 0;
	}
	return a.import_embedded ? import_embedded(&d.config) : daemon_run(&d);
}
