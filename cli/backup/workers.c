/*
 * workers.c: a few threads.
 *
 * 1. One lock guards both queues. A job in the queue or in work belongs to the threads; one that was taken to the
 *    thread that submitted it.
 * 2. The counter behind workers_fd() is raised after a job has joined the done ones, and drained before they are looked
 *    at: none is missed.
 */
#include "cli/backup/workers.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define THREADS_MAX 8

struct queue {
	struct job *first, **last;
};

struct workers {
	pthread_t threads[THREADS_MAX];
	long n_threads;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t has_work;
	struct queue waiting, done;
	bool is_ending;
	int fd;
};

static void queue_begin(struct queue *q)
{
	q->first = NULL;
	q->last = &q->first;
}

static void queue_put(struct queue *q, struct job *job)
{
	job->next = NULL;
	*q->last = job;
	q->last = &job->next;
}

static struct job *queue_take(struct queue *q)
{
	struct job *job = q->first;
	if (job) {
		q->first = job->next;
		if (!q->first)
			q->last = &q->first;
	}
	return job;
}

void worker_begin(struct worker *w)
{
	*w = (struct worker){.packer = packer_create(), .fd = -1};
}

void worker_end(struct worker *w)
{
	packer_destroy(w->packer);
	free(w->room);
	if (w->fd >= 0)
		close(w->fd);
}

uint8_t *worker_room(struct worker *w, size_t n_bytes)
{
	if (n_bytes > w->room_bytes) {
		free(w->room);
		w->room = malloc(n_bytes);
		w->room_bytes = n_bytes;
		if (!w->room)
			abort();
	}
	return w->room;
}

static void *thread_run(void *context)
{
	struct workers *all = context;
	struct worker worker;
	worker_begin(&worker);
	pthread_mutex_lock(&all->lock);
	for (;;) {
		struct job *job = queue_take(&all->waiting);
		if (!job && all->is_ending)
			break;
		if (!job) {
			pthread_cond_wait(&all->has_work, &all->lock);
			continue;
		}
		pthread_mutex_unlock(&all->lock);
		job->work(job, &worker);
		pthread_mutex_lock(&all->lock);
		queue_put(&all->done, job);
		if (eventfd_write(all->fd, 1) < 0)
			abort();
	}
	pthread_mutex_unlock(&all->lock);
	worker_end(&worker);
	return NULL;
}

struct workers *workers_create(void)
{
	struct workers *all = calloc(1, sizeof(*all));
	sigset_t every, before;
	if (!all)
		abort();
	all->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	all->n_threads = n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
	queue_begin(&all->waiting);
	queue_begin(&all->done);
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->has_work, NULL);
	/* signals are for the thread that can end the command in order */
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	for (long i = 0; i < all->n_threads; i++) {
		if (all->fd < 0 || pthread_create(&all->threads[i], NULL, thread_run, all) != 0)
			abort();
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return all;
}

void workers_destroy(struct workers *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	quarry_assert(!all->waiting.first && !all->done.first);
	all->is_ending = true;
	pthread_cond_broadcast(&all->has_work);
	pthread_mutex_unlock(&all->lock);
	for (long i = 0; i < all->n_threads; i++)
		pthread_join(all->threads[i], NULL);
	pthread_cond_destroy(&all->has_work);
	pthread_mutex_destroy(&all->lock);
	close(all->fd);
	free(all);
}

void workers_submit(struct workers *all, struct job *job)
{
	pthread_mutex_lock(&all->lock);
	queue_put(&all->waiting, job);
	pthread_cond_signal(&all->has_work);
	pthread_mutex_unlock(&all->lock);
}

struct job *workers_take(struct workers *all)
{
	eventfd_t count;
	pthread_mutex_lock(&all->lock);
	struct job *job = queue_take(&all->done);
	if (!all->done.first)
		(void)eventfd_read(all->fd, &count);
	pthread_mutex_unlock(&all->lock);
	return job;
}

int workers_fd(const struct workers *all)
{
	return all->fd;
}

struct job *workers_wait(struct workers *all)
{
	struct job *job = workers_take(all);
	while (!job) {
		struct pollfd wait = {.fd = all->fd, .events = POLLIN};
		if (poll(&wait, 1, -1) < 0 && errno != EINTR)
			abort();
		job = workers_take(all);
	}
	return job;
}
