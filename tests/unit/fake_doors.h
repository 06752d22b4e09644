/*
 * fake_doors.h: stands for the vhost-user frontend: counts what a volume set tells it, and has one door at a time.
 */
#pragma once

#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <stdio.h>

struct doors {
	struct volume_doors hooks;
	uint32_t opened, vhost_detached, nbd_detached, renamed, detaching, queues;
	int res;
	struct volume *volume;
	struct volume_watch watch;
};

static void doors_close(struct doors *d)
{
	volume_watch_stop(d->volume, &d->watch);
	volume_put(d->volume);
	d->volume = NULL;
}

static void doors_event(struct volume_watch *watch, enum volume_event e)
{
	struct doors *d = container_of(watch, struct doors, watch);
	d->renamed += e == VOLUME_RENAMED;
	d->nbd_detached += e == VOLUME_NBD_DETACHED;
	d->vhost_detached += e == VOLUME_VHOST_DETACHED;
	d->detaching += e == VOLUME_DETACHING;
	if (e == VOLUME_VHOST_DETACHED || e == VOLUME_DETACHING)
		doors_close(d);
}

static int doors_open(struct volume_doors *hooks, struct volume *v, char *why, size_t room)
{
	struct doors *d = container_of(hooks, struct doors, hooks);
	CU_ASSERT_PTR_NULL(d->volume);
	snprintf(why, room, "no room");
	if (d->res != 0)
		return d->res;
	d->opened++;
	d->queues = volume_vhost_queues(v);
	d->volume = v;
	d->watch.event = doors_event;
	list_init(&d->watch.link);
	volume_hold(v);
	volume_watch_start(v, &d->watch);
	return 0;
}

static void count_door(struct volume *v, void *context)
{
	++*(uint32_t *)context;
}

static uint32_t doors_of(struct head_world *w)
{
	uint32_t n = 0;
	volume_each_door(w->set, count_door, &n);
	return n;
}
