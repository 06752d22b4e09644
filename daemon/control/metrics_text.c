/*
 * metrics_text.c: everything that is counted, in Prometheus' text exposition format 0.0.4.
 *
 * A metric is a line in one of the tables below: name, help, type, and how to get it from an object. Prometheus wants
 * all samples of a metric together, so the tables are walked in the outer loop and the objects in the inner.
 *
 * Invariants
 *  1. Every metric has its HELP and TYPE lines, once, even when no object has a sample of it.
 *  2. docs/reference/metrics.md lists exactly these names (tests/unit/test_control.c compares them).
 *  3. Units are seconds and bytes; counters end in _total.
 */
#include "daemon/control/answer.h"
#include "daemon/version.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct sheet {
	FILE *out;
	const struct answer_context *context;
	const struct snapshot *s;
};

/* ---- the format ---- */

static void head(struct sheet *p, const char *name, const char *type, const char *help)
{
	fprintf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value with the format's three escapes. */
static void label(struct sheet *p, const char *name, const char *value, const char *before)
{
	fprintf(p->out, "%s%s=\"", before, name);
	for (const char *c = value; *c; c++) {
		if (*c == '\\' || *c == '"')
			fputc('\\', p->out);
		if (*c == '\n')
			fputs("\\n", p->out);
		else
			fputc(*c, p->out);
	}
	fputc('"', p->out);
}

/* name{noun="object",key="value"} number; key NULL: one label only; object NULL: none. */
struct sample {
	const char *name, *noun, *object, *key, *value;
};

static void sample_labels(struct sheet *p, const struct sample *s, const char *suffix)
{
	fprintf(p->out, "%s%s", s->name, suffix);
	if (!s->object && !s->key)
		return;
	fputc('{', p->out);
	if (s->object)
		label(p, s->noun, s->object, "");
	if (s->key)
		label(p, s->key, s->value, s->object ? "," : "");
}

static void sample_number(struct sheet *p, const struct sample *s, uint64_t n)
{
	sample_labels(p, s, "");
	fprintf(p->out, "%s %llu\n", s->object || s->key ? "}" : "", (unsigned long long)n);
}

static void sample_seconds(struct sheet *p, const struct sample *s, const char *suffix, uint64_t ns)
{
	sample_labels(p, s, suffix);
	fprintf(p->out, "%s %llu.%09llu\n", s->object || s->key ? "}" : "", (unsigned long long)(ns / NS_PER_S),
		(unsigned long long)(ns % NS_PER_S));
}

/* The histogram has 4 buckets per power of two; one per power is enough to see with, and keeps the page small. */
#define BUCKETS_STEP 4

static void sample_histogram(struct sheet *p, const struct sample *s, const struct histogram *h)
{
	uint64_t n = 0;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t bound_ns = histogram_bound_ns(i);
		n += counter_get(&h->bucket[i]);
		if (bound_ns == UINT64_MAX || i % BUCKETS_STEP != 0)
			continue;
		sample_labels(p, s, "_bucket");
		fprintf(p->out, ",le=\"%llu.%09llu\"} %llu\n", (unsigned long long)(bound_ns / NS_PER_S),
			(unsigned long long)(bound_ns % NS_PER_S), (unsigned long long)n);
	}
	sample_labels(p, s, "_bucket");
	fprintf(p->out, ",le=\"+Inf\"} %llu\n", (unsigned long long)n);
	sample_seconds(p, s, "_sum", counter_get(&h->sum_ns));
	sample_labels(p, s, "_count");
	fprintf(p->out, "} %llu\n", (unsigned long long)n);
}

/* ---- tables ---- */

/* How a metric stands in its structure, and what is shown of it. */
enum form {
	NUMBER,    /* 64 bits, plain or counter */
	BLOCKS,    /* the same, shown in bytes */
	NS,        /* the same, shown in seconds */
	SMALL,     /* 32 bits */
	FLAG,      /* bool: 0 or 1 */
	HISTOGRAM, /* struct histogram */
};

struct metric {
	const char *name, *type, *help, *key, *value; /* key: a second label */
	size_t offset;
	enum form form;
};

#define V(member)    .offset = offsetof(struct volume_counters, member)
#define OPERATION(o) .key = "operation", .value = o

static const struct metric volume_metrics[] = {
    {"quarry_volume_operations_total", "counter", "Requests completed.", OPERATION("read"), V(reads)},
    {"quarry_volume_operations_total", OPERATION("write"), V(writes)},
    {"quarry_volume_operations_total", OPERATION("trim"), V(trims)},
    {"quarry_volume_operations_total", OPERATION("zero"), V(zeroes)},
    {"quarry_volume_operations_total", OPERATION("flush"), V(flushes)},
    {"quarry_volume_operations_total", OPERATION("map"), V(maps)},
    {"quarry_volume_bytes_total", "counter", "Bytes that requests moved.", OPERATION("read"), V(read_bytes)},
    {"quarry_volume_bytes_total", OPERATION("write"), V(write_bytes)},
    {"quarry_volume_bytes_total", OPERATION("trim"), V(trim_bytes)},
    {"quarry_volume_errors_total", "counter", "Requests that failed, for whatever reason.", V(errors)},
    {"quarry_volume_no_space_total", "counter", "Writes that failed because the pool was full.", V(no_space)},
    {"quarry_volume_latency_seconds", "histogram", "From submission to completion of a request.", OPERATION("read"),
     V(read_ns), .form = HISTOGRAM},
    {"quarry_volume_latency_seconds", OPERATION("write"), V(write_ns), .form = HISTOGRAM},
    {"quarry_volume_latency_seconds", OPERATION("flush"), V(flush_ns), .form = HISTOGRAM},
};

#define D(member) .offset = offsetof(struct disk_counters, member)

static const struct metric disk_metrics[] = {
    {"quarry_disk_operations_total", "counter", "Requests that the disk completed.", OPERATION("read"), D(reads)},
    {"quarry_disk_operations_total", OPERATION("write"), D(writes)},
    {"quarry_disk_operations_total", OPERATION("trim"), D(trims)},
    {"quarry_disk_operations_total", OPERATION("flush"), D(flushes)},
    {"quarry_disk_bytes_total", "counter", "Bytes of the requests.", OPERATION("read"), D(read_bytes)},
    {"quarry_disk_bytes_total", OPERATION("write"), D(write_bytes)},
    {"quarry_disk_device_operations_total", "counter", "What the disk asked of its device or file.", .key = "kind",
     .value = "journal_write", D(journal_writes)},
    {"quarry_disk_device_operations_total", .key = "kind", .value = "data_write", D(data_writes)},
    {"quarry_disk_device_operations_total", .key = "kind", .value = "page_read", D(page_reads)},
    {"quarry_disk_device_operations_total", .key = "kind", .value = "page_write", D(page_writes)},
    {"quarry_disk_cache_hits_total", "counter", "Lookups of a page that was in the cache.", D(cache_hits)},
    {"quarry_disk_cache_misses_total", "counter", "Lookups that had to read a page.", D(cache_misses)},
    {"quarry_disk_checksum_errors_total", "counter", "Reads whose bytes failed their checksum.", D(checksum_errors)},
    {"quarry_disk_io_errors_total", "counter", "Errors that the device or file gave.", D(io_errors)},
    {"quarry_disk_latency_seconds", "histogram",
     "From submission to completion of a request; checkpoint: of a whole one.", OPERATION("read"), D(read_ns),
     .form = HISTOGRAM},
    {"quarry_disk_latency_seconds", OPERATION("write"), D(write_ns), .form = HISTOGRAM},
    {"quarry_disk_latency_seconds", OPERATION("flush"), D(flush_ns), .form = HISTOGRAM},
    {"quarry_disk_latency_seconds", OPERATION("checkpoint"), D(checkpoint_ns), .form = HISTOGRAM},
};

#define S(member) .offset = offsetof(struct disk_stats, member)

static const struct metric disk_stats_metrics[] = {
    {"quarry_disk_size_bytes", "gauge", "What the disk holds, its own structures included.", S(n_blocks),
     .form = BLOCKS},
    {"quarry_disk_free_bytes", "gauge", "Free now.", S(free_blocks), .form = BLOCKS},
    {"quarry_disk_waiting_bytes", "gauge", "Freed, reusable after the next checkpoint.", S(waiting_blocks),
     .form = BLOCKS},
    {"quarry_disk_reserve_bytes", "gauge", "Kept back so that trims and deletes work on a full disk.",
     S(reserve_blocks), .form = BLOCKS},
    {"quarry_disk_punched_bytes_total", "counter", "Freed space returned to the device or file below.",
     S(punched_blocks), .form = BLOCKS},
    {"quarry_disk_cache_pages", "gauge", "Pages in the cache, 4 KiB each.", S(cache_pages)},
    {"quarry_disk_cache_pages_limit", "gauge", "Most pages that the cache may hold.", S(cache_pages_max)},
    {"quarry_disk_dirty_pages", "gauge", "Changed pages that wait for a checkpoint.", S(dirty_pages)},
    {"quarry_disk_dirty_pages_limit", "gauge", "A checkpoint begins at this number.", S(dirty_pages_max)},
    {"quarry_disk_count_deltas", "gauge", "Changes of reference counts that wait for a checkpoint.", S(deltas)},
    {"quarry_disk_lost_parts", "gauge",
     "Parts of deleted trees that damage keeps from being freed, since the disk was opened.", S(lost_parts)},
    {"quarry_disk_dying_trees", "gauge", "Deleted trees whose space is still being freed.", S(dying_trees)},
    {"quarry_disk_journal_size_bytes", "gauge", "Length of the journal.", S(journal_blocks), .form = BLOCKS},
    {"quarry_disk_journal_used_bytes", "gauge", "What a recovery would replay now.", S(journal_used), .form = BLOCKS},
    {"quarry_disk_checkpoints_total", "counter", "Checkpoints since the daemon's start.", S(checkpoints)},
    {"quarry_disk_checkpoint_last_seconds", "gauge", "How long the last checkpoint took.", S(checkpoint_last_ns),
     .form = NS},
    {"quarry_disk_recovery_seconds", "gauge", "How long the last recovery took.", S(recovery_ns), .form = NS},
    {"quarry_disk_replayed_records", "gauge", "Journal records that the last recovery replayed.", S(replayed_records)},
    {"quarry_disk_dropped_records", "gauge", "Unfinished records that it dropped.", S(dropped_records)},
};

#define O(member) .offset = offsetof(struct volume_view, member)

static const struct metric volume_view_metrics[] = {
    {"quarry_volume_size_bytes", "gauge", "Size as clients see it.", O(size_bytes)},
    {"quarry_volume_allocated_bytes", "gauge", "Written and not trimmed since.", O(allocated_bytes)},
    {"quarry_volume_snapshots", "gauge", "Its snapshots.", O(n_snapshots), .form = SMALL},
    {"quarry_volume_snapshots_bytes", "gauge", "That its snapshots point to; what they share is counted for each.",
     O(snapshots_bytes)},
    {"quarry_volume_reclaiming_bytes", "gauge",
     "Of its deleted trees, still to be looked at and freed where not shared.", O(reclaiming_bytes)},
    {"quarry_volume_attached", "gauge", "1: clients can reach it over this frontend.", .key = "frontend",
     .value = "nbd", O(is_attached_nbd), .form = FLAG},
    {"quarry_volume_attached", .key = "frontend", .value = "vhost-user", O(is_attached_vhost), .form = FLAG},
    {"quarry_volume_serving", "gauge", "1: attached and able to serve.", O(is_serving), .form = FLAG},
    {"quarry_volume_degraded_bytes", "gauge", "Of segments with fewer current copies than it has replicas.",
     O(degraded_bytes)},
    {"quarry_volume_stale_copies", "gauge", "Disks whose copies of it are not current.", O(n_stale), .form = SMALL},
    {"quarry_volume_resyncing", "gauge", "1: one of these is being made current.", O(resync.is_running), .form = FLAG},
    {"quarry_volume_resync_copied_bytes", "gauge", "What was copied for that.", O(resync.copied_bytes)},
    {"quarry_volume_resync_left_seconds", "gauge", "About so long it takes; 0: not known.", O(resync.eta_s)},
    {"quarry_volume_rebuilding", "gauge", "1: copies are being made anew elsewhere.", O(is_rebuilding), .form = FLAG},
    {"quarry_volume_differing_blocks", "gauge",
     "Blocks that differed between current copies when these were compared last.", O(differing_blocks)},
};

#define K(member) .offset = offsetof(struct disk_view, member)

static const struct metric disk_view_metrics[] = {
    {"quarry_disk_open", "gauge", "1: the disk was opened; 0: it could not be.", K(is_open), .form = FLAG},
    {"quarry_disk_draining", "gauge", "1: it is being drained, or is and holds nothing.", K(drain.is_wanted),
     .form = FLAG},
    {"quarry_disk_drain_left_bytes", "gauge", "Data that are still to leave it.", K(drain.left_bytes)},
    {"quarry_disk_drain_left_seconds", "gauge", "About so long that takes; 0: not known.", K(drain.eta_s)},
    {"quarry_disk_scrub_running", "gauge", "1: a scrub is under way.", K(scrub.is_running), .form = FLAG},
    {"quarry_disk_scrub_done_bytes", "gauge", "How far the scrub is.", K(scrub.done_blocks), .form = BLOCKS},
    {"quarry_disk_scrub_size_bytes", "gauge", "How far it has to go.", K(scrub.total_blocks), .form = BLOCKS},
    {"quarry_disk_scrub_bad_blocks", "gauge", "Blocks that failed their checksums in the last scrub.",
     K(scrub.bad_blocks)},
    {"quarry_disk_scrub_healed_blocks", "gauge", "Of these, blocks that were healed from another copy since.",
     K(scrub.healed_blocks)},
    {"quarry_disk_scrub_straightened_leaves", "gauge", "Leaves that the last scrub made contiguous.",
     K(scrub.straightened_leaves)},
};

#define P(member) .offset = offsetof(struct pool_view, member)

static const struct metric pool_metrics[] = {
    {"quarry_pool_size_bytes", "gauge", "Of all its disks.", P(size_bytes)},
    {"quarry_pool_used_bytes", "gauge", "In use.", P(used_bytes)},
    {"quarry_pool_free_bytes", "gauge", "Free.", P(free_bytes)},
    {"quarry_pool_provisioned_bytes", "gauge", "Sum of its volumes' sizes; may exceed the pool's.",
     P(provisioned_bytes)},
    {"quarry_pool_disks", "gauge", "Its disks.", P(n_disks), .form = SMALL},
    {"quarry_pool_volumes", "gauge", "Its volumes.", P(n_volumes), .form = SMALL},
};

#define N(member) .offset = offsetof(struct nbd_counters, member)

static const struct metric nbd_metrics[] = {
    {"quarry_nbd_connections", "gauge", "Clients connected now.", N(n_connections)},
    {"quarry_nbd_requests_in_flight", "gauge", "Requests under way now.", N(n_requests)},
    {"quarry_nbd_connections_total", "counter", "Connections since the start.", .key = "outcome", .value = "accepted",
     N(accepted)},
    {"quarry_nbd_connections_total", .key = "outcome", .value = "refused", N(refused)},
    {"quarry_nbd_connections_total", .key = "outcome", .value = "handshake_failed", N(handshakes_failed)},
    {"quarry_nbd_connections_total", .key = "outcome", .value = "stalled", N(stalled)},
    {"quarry_nbd_tls_handshakes_total", "counter", "TLS handshakes that succeeded.", N(tls_handshakes)},
#define X(command, number)                                                                                             \
	{"quarry_nbd_requests_total", (number) == 0 ? "counter" : NULL,                                                \
	 "Requests by command.",      .key = "command",                                                                \
	 .value = #command,           N(requests[number])},
    NBD_COMMANDS(X)
#undef X
	{"quarry_nbd_requests_refused_total", "counter", "Requests answered with an error before a volume saw them.",
	 N(requests_refused)},
    {"quarry_nbd_errors_total", "counter", "Requests that a volume failed.", N(errors)},
    {"quarry_nbd_bytes_total", "counter", "Payload moved.", .key = "direction", .value = "read", N(read_bytes)},
    {"quarry_nbd_bytes_total", .key = "direction", .value = "write", N(write_bytes)},
    {"quarry_nbd_transfers_total", "counter", "Socket operations: how well requests and replies are gathered.",
     .key = "direction", .value = "receive", N(receives)},
    {"quarry_nbd_transfers_total", .key = "direction", .value = "send", N(sends)},
    {"quarry_nbd_waits_total", "counter", "Times a connection waited for its share.", .key = "for", .value = "buffers",
     N(waits_buffers)},
    {"quarry_nbd_waits_total", .key = "for", .value = "requests", N(waits_requests)},
};

#define H(member) .offset = offsetof(struct vhost_counters, member)

static const struct metric vhost_metrics[] = {
    {"quarry_vhost_sockets", "gauge", "Volumes that virtual machines can reach.", H(n_doors)},
    {"quarry_vhost_connections", "gauge", "Clients connected now.", H(n_connections)},
    {"quarry_vhost_requests_in_flight", "gauge", "Requests under way now.", H(n_requests)},
    {"quarry_vhost_connections_total", "counter", "Connections since the start.", .key = "outcome", .value = "accepted",
     H(accepted)},
    {"quarry_vhost_connections_total", .key = "outcome", .value = "refused", H(refused)},
    {"quarry_vhost_connections_total", .key = "outcome", .value = "failed", H(failed)},
    {"quarry_vhost_requests_total", "counter", "Requests of guests by type.", .key = "type", .value = "read", H(reads)},
    {"quarry_vhost_requests_total", .key = "type", .value = "write", H(writes)},
    {"quarry_vhost_requests_total", .key = "type", .value = "flush", H(flushes)},
    {"quarry_vhost_requests_total", .key = "type", .value = "discard", H(trims)},
    {"quarry_vhost_requests_total", .key = "type", .value = "write_zeroes", H(zeroes)},
    {"quarry_vhost_requests_total", .key = "type", .value = "get_id", H(ids)},
    {"quarry_vhost_requests_total", .key = "type", .value = "unsupported", H(unsupported)},
    {"quarry_vhost_errors_total", "counter", "Requests answered with an error.", H(errors)},
    {"quarry_vhost_broken_rings_total", "counter", "Queues given up since they made no sense.", H(broken_rings)},
    {"quarry_vhost_resumed_total", "counter", "Requests taken up that were in flight before a restart.", H(resumed)},
    {"quarry_vhost_bytes_total", "counter", "Payload moved.", .key = "direction", .value = "read", H(read_bytes)},
    {"quarry_vhost_bytes_total", .key = "direction", .value = "write", H(write_bytes)},
    {"quarry_vhost_bounced_bytes_total", "counter", "Bytes read by way of a buffer of ours.", H(bounced_bytes)},
    {"quarry_vhost_rereads_total", "counter", "Reads done again since the guest's memory did not match.", H(rereads)},
    {"quarry_vhost_kicks_total", "counter", "Times a guest woke us.", H(kicks)},
    {"quarry_vhost_calls_total", "counter", "Times we woke a guest.", H(calls)},
    {"quarry_vhost_waits_total", "counter", "Times a request waited for memory.", .key = "for", .value = "buffers",
     H(waits_buffers)},
    {"quarry_vhost_waits_total", .key = "for", .value = "requests", H(waits_requests)},
};

/* ---- walking them ---- */

static void metric_sample(struct sheet *p, const struct metric *m, const struct sample *s, const void *base)
{
	const void *at = (const char *)base + m->offset;
	switch (m->form) {
	case NUMBER:
		sample_number(p, s, counter_get(at));
		break;
	case BLOCKS:
		sample_number(p, s, counter_get(at) * BLOCK_BYTES);
		break;
	case NS:
		sample_seconds(p, s, "", counter_get(at));
		break;
	case SMALL:
		sample_number(p, s, *(const uint32_t *)at);
		break;
	case FLAG:
		sample_number(p, s, *(const bool *)at);
		break;
	case HISTOGRAM:
		sample_histogram(p, s, at);
		break;
	}
}

/* The objects that a table tells of. at(): the structure of object i, NULL when it has none now. */
struct family {
	const struct metric *table;
	size_t n_table;
	const char *noun;
	size_t (*count)(const struct snapshot *s);
	const void *(*at)(const struct snapshot *s, size_t i, const char **name);
};

/* Metrics of one name stand in a row of their table; the first has type and help. */
static void family_write(struct sheet *p, const struct family *f)
{
	for (size_t first = 0, next; first < f->n_table; first = next) {
		const struct metric *row = &f->table[first];
		quarry_assert(row->type && row->help);
		for (next = first + 1; next < f->n_table && strcmp(f->table[next].name, row->name) == 0;)
			next++;
		head(p, row->name, row->type, row->help);
		for (size_t i = 0; i < f->count(p->s); i++) {
			const char *name = NULL;
			const void *base = f->at(p->s, i, &name);
			for (size_t k = first; k < next && base; k++) {
				const struct metric *m = &f->table[k];
				metric_sample(p, m, &(struct sample){m->name, f->noun, name, m->key, m->value}, base);
			}
		}
	}
}

static size_t count_one(const struct snapshot *s)
{
	return 1;
}
static size_t count_disks(const struct snapshot *s)
{
	return s->n_disks;
}
static size_t count_volumes(const struct snapshot *s)
{
	return s->n_volumes;
}
static size_t count_pools(const struct snapshot *s)
{
	return s->n_pools;
}

static const void *at_nbd(const struct snapshot *s, size_t i, const char **name)
{
	return &s->nbd;
}

static const void *at_vhost(const struct snapshot *s, size_t i, const char **name)
{
	return &s->vhost;
}

static const void *at_disk_view(const struct snapshot *s, size_t i, const char **name)
{
	*name = s->disks[i].view.name;
	return s->disks[i].view.is_elsewhere ? NULL : &s->disks[i].view;
}

static const void *at_disk_stats(const struct snapshot *s, size_t i, const char **name)
{
	*name = s->disks[i].view.name;
	return s->disks[i].view.is_open ? &s->disks[i].view.stats : NULL;
}

static const void *at_disk_counters(const struct snapshot *s, size_t i, const char **name)
{
	*name = s->disks[i].view.name;
	return s->disks[i].view.counters;
}

static const void *at_volume_view(const struct snapshot *s, size_t i, const char **name)
{
	*name = s->volumes[i].view.name;
	const struct volume_view *v = &s->volumes[i].view;
	return v->is_deleting || v->is_elsewhere ? NULL : v;
}

static const void *at_volume_counters(const struct snapshot *s, size_t i, const char **name)
{
	*name = s->volumes[i].view.name;
	return s->volumes[i].view.counters;
}

static const void *at_pool(const struct snapshot *s, size_t i, const char **name)
{
	*name = s->pools[i].name;
	return &s->pools[i];
}

#define TABLE(t) t, array_size(t)

static const struct family families[] = {
    {TABLE(pool_metrics), "pool", count_pools, at_pool},
    {TABLE(volume_view_metrics), "volume", count_volumes, at_volume_view},
    {TABLE(volume_metrics), "volume", count_volumes, at_volume_counters},
    {TABLE(disk_view_metrics), "disk", count_disks, at_disk_view},
    {TABLE(disk_stats_metrics), "disk", count_disks, at_disk_stats},
    {TABLE(disk_metrics), "disk", count_disks, at_disk_counters},
    {TABLE(nbd_metrics), "", count_one, at_nbd},
    {TABLE(vhost_metrics), "", count_one, at_vhost},
};

/* ---- what is no table: the process and the node ---- */

static void single_number(struct sheet *p, const char *name, const char *type, const char *help, uint64_t n)
{
	head(p, name, type, help);
	sample_number(p, &(struct sample){.name = name}, n);
}

static void single_seconds(struct sheet *p, const char *name, const char *type, const char *help, uint64_t ns)
{
	head(p, name, type, help);
	sample_seconds(p, &(struct sample){.name = name}, "", ns);
}

static uint64_t time_ns(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_usec * NS_PER_US;
}

static uint64_t resident_bytes(void)
{
	unsigned long long size = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f && fscanf(f, "%llu %llu", &size, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_files(void)
{
	uint64_t n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n > 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

static void count_problem(const struct problem *problem, void *context)
{
	(*(uint64_t *)context)++;
}

static bool node_is_alive(const struct snapshot_node *n)
{
	return n->view.state == MEMBER_SERVING;
}
static bool node_is_draining(const struct snapshot_node *n)
{
	return n->drain.is_wanted;
}

/* Of each node of the cluster; of one that is alone: alone. */
static void nodes_metric(struct sheet *p, const char *name, const char *help, bool (*of)(const struct snapshot_node *n),
			 bool alone)
{
	head(p, name, "gauge", help);
	for (size_t i = 0; i < p->s->n_nodes; i++)
		sample_number(p, &(struct sample){name, "node", p->s->nodes[i].view.name, NULL, NULL},
			      of(&p->s->nodes[i]));
	if (p->s->n_nodes == 0)
		sample_number(p, &(struct sample){name, "node", p->context->config->node.name, NULL, NULL}, alone);
}

static void nodes_write(struct sheet *p)
{
	nodes_metric(p, "quarry_node_alive", "1: the node has a lease; 0: it has stopped, or died.", node_is_alive,
		     true);
	nodes_metric(p, "quarry_node_draining", "1: it is being drained, or is and serves and holds nothing.",
		     node_is_draining, false);
}

/* What this node has move to emptier disks. */
static void balance_write(struct sheet *p)
{
	const struct balance_view *v = &p->s->balance;
	bool is_ours = v->node[0] && strcmp(v->node, p->context->config->node.name) == 0;
	single_number(p, "quarry_rebalancing", "gauge", "1: this node has segments move to emptier disks.", is_ours);
	single_number(p, "quarry_rebalance_moved_bytes", "gauge", "Since it has begun.", v->moved_bytes);
	single_number(p, "quarry_rebalance_left_bytes", "gauge", "About so much is to move.", v->left_bytes);
	single_number(p, "quarry_rebalance_left_seconds", "gauge", "About so long that takes; 0: not known.", v->eta_s);
}

static void node_write(struct sheet *p)
{
	uint64_t problems = 0;
	health_each(p->s, count_problem, &problems);
	head(p, "quarry_build_info", "gauge", "1; the labels say what runs here.");
	sample_number(
	    p, &(struct sample){"quarry_build_info", "node", p->context->config->node.name, "version", QUARRY_VERSION},
	    1);
	single_number(p, "quarry_problems", "gauge", "What quarry status would complain about.", problems);
	single_number(p, "quarry_buffers_used_bytes", "gauge", "I/O buffers in use.", p->s->buffers_used_bytes);
	single_number(p, "quarry_buffers_limit_bytes", "gauge", "I/O buffers there are.", p->s->buffers_budget_bytes);
}

static void process_write(struct sheet *p)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	single_seconds(p, "process_cpu_seconds_total", "counter", "User and system time.",
		       time_ns(&usage.ru_utime) + time_ns(&usage.ru_stime));
	single_number(p, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
	single_number(p, "process_open_fds", "gauge", "Open file descriptors.", open_files());
	single_seconds(p, "process_start_time_seconds", "gauge", "When the daemon was started, since 1970.",
		       p->context->started_wall_ns);
}

char *metrics_text(const struct answer_context *c, const struct snapshot *s)
{
	char *text = NULL;
	size_t len = 0;
	struct sheet p = {.out = open_memstream(&text, &len), .context = c, .s = s};
	if (!p.out)
		return NULL;
	node_write(&p);
	nodes_write(&p);
	balance_write(&p);
	for (size_t i = 0; i < array_size(families); i++)
		family_write(&p, &families[i]);
	process_write(&p);
	bool is_whole = !ferror(p.out);
	if (fclose(p.out) == 0 && is_whole)
		return text;
	free(text);
	return NULL;
}
