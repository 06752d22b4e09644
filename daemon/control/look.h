/*
 * look.h: what an order looks at, and which node can tell it.
 */
#pragma once

#include "daemon/control/order.h"
#include "daemon/control/snapshot.h"

/* On the reactor: the objects that the order shows, into a snapshot that is all zeros. */
void look_take(const struct order *o, const struct snapshot_sources *from, struct snapshot *s);
/* Is it about one object that another node knows all of? Then that node's name; else false. */
bool look_is_elsewhere(const struct order *o, const struct snapshot_sources *from, char node[static SET_TEXT_MAX]);
