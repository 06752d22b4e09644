/*
 * import_embedded.h: `quarryd --import-embedded`: what a node has in its own store goes into the cluster's, in etcd.
 */
#pragma once

#include "daemon/config.h"

/* Reads node.data_dir/metadata.db, puts all of it into the store in etcd that the configuration names, and renames
 * the file to metadata.db.imported. No daemon may be running there. May be repeated, also after it was interrupted.
 * Says on standard output what it did, on standard error why it refuses. 0, or 1: nothing was changed, or it is to
 * be repeated. */
must_check int import_embedded(const struct config *config);
