/*
 * answer_internal.h: what the files that make the API's answers share.
 */
#pragma once

#include "daemon/control/answer_put.h"

/* answer.c */
struct attachment {
	const char *frontend, *name; /* NAME or NAME@SNAP */
	bool is_read_only;
	uint32_t queues; /* of vhost-user */
};
json_t *attachment_json(const struct answer_context *c, const struct attachment *a);

/* answer_uri.c: of an export, the first the nearest to who asks */
json_t *nbd_uris_json(const struct answer_context *c, const char *name);

/* answer_nodes.c */
json_t *nodes_json(const struct answer_context *c, const struct snapshot *s);
json_t *node_json(const struct answer_context *c, const struct snapshot *s, const char *name); /* or NULL */
uint64_t answer_uptime_s(const struct answer_context *c);

/* answer_history.c */
/* What data takes, as the figures beside it have it: those of a measurement, which has all disks, or what was seen on
 * this node's. */
uint64_t answer_data_bytes(uint64_t seen_bytes, const struct set_measure *m);
void volume_history_json(json_t *o, const struct volume_view *v, const struct set_measure *m);
json_t *schedule_json(const struct volume_view *v);                             /* null when there is none */
json_t *schedules_json(const struct snapshot *s);                               /* of all volumes */
json_t *fill_json(const struct answer_context *c, const struct volume_view *v); /* null: it is whole */
json_t *fills_json(const struct answer_context *c, const struct snapshot *s);   /* of all volumes that are not */
json_t *reclaiming_json(const struct snapshot *s); /* what was deleted and is not yet freed */
json_t *snapshots_json(const struct answer_context *c, const struct order *o, const struct snapshot *s);
json_t *snapshot_one_json(const struct answer_context *c, const struct order *o,
			  const struct snapshot *s); /* or NULL */
/* What the order attached; NULL: the snapshot is gone. */
json_t *snapshot_attachment_json(const struct answer_context *c, const struct order *o, const struct snapshot *s);
json_t *changes_json(const struct order *o);
/* Of a volume with several copies: which disks have current ones. */
json_t *volume_copies_json(const struct snapshot *s, const struct volume_view *v);
const struct set_measure *order_measure(const struct order *o); /* NULL: nothing was measured */
