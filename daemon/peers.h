/*
 * peers.h: the other nodes of a cluster as this one speaks to them: its disks served to them, and whether they answer.
 */
#pragma once

#include "daemon/config.h"
#include "daemon/core/buffers.h"
#include "daemon/metadata/members.h"
#include "volumes/head/volume_set.h"

struct peers;

#define PEERS_WHY_BYTES 300

struct peers_options {
	struct reactor *reactor;
	struct log *log;
	struct buffers *buffers;
	const struct config *config; /* borrowed until the end; peer.listen is set */
	struct members *members;
	struct volume_set *volumes;
};
/* Listens on peer.listen, and connects to every node that is alive and has an address of that kind. 0, or -errno
 * with why, which begins with the key. */
must_check int peers_start(const struct peers_options *o, char why[static PEERS_WHY_BYTES], struct peers **out);
/* Ends all connections, waits for the disks to answer, frees everything, calls stopped(). */
void peers_stop(struct peers *p, void (*stopped)(void *context), void *context);

enum peer_answer { PEER_NOT_ASKED, PEER_ANSWERS, PEER_IS_SILENT };
enum peer_answer peers_answer(const struct peers *p, const char *node);
