/*
 * fake_volume_set.h: a volume set of names only, so that the control API can be tested without disks.
 *
 * Commands are answered on the next turn, with a result that the volume's name decides: "full" -ENOSPC, "taken"
 * -EEXIST, "held" when fake_release() is called; everything else succeeds.
 */
#pragma once

#include "volumes/head/volume_set.h"

struct fake_volume_set;

struct fake_volume_set *fake_volume_set_create(struct reactor *r);
void fake_volume_set_destroy(struct fake_volume_set *s); /* nothing may be held */
struct volume_set *fake_as_set(struct fake_volume_set *s);
/* On the reactor: answers the command that is held. */
void fake_release(struct fake_volume_set *s);
/* Any thread: is a command held? */
bool fake_is_holding(const struct fake_volume_set *s);
