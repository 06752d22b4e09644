/*
 * record_update.h: changing volumes' records in the metadata store, and this node's copy of them.
 *
 * Everything that changes a record, or relies on it while it changes something else (placement), goes through here: one
 * after the other per volume, conditional on the record's revision [REVISION]. Mostly it is one record; a snapshot of
 * several volumes changes all of theirs in one transaction.
 */
#pragma once

#include "volumes/head/facts.h"
#include "volumes/head/transaction.h"

struct set_volume;

/* One of the records that an update changes. */
struct record_member {
	struct set_volume *entry; /* set by the caller */
	uint64_t generation;      /* set by the caller: the volume's must be this; 0: any */
	struct record_update *update;
	struct list turn;
	struct volume_facts wanted, found;
	char *wanted_text;
	uint64_t base_revision; /* of the record that was changed: the watch may have brought a newer one since */
	uint64_t found_revision;
	bool has_changed, is_as_wanted;
};
#define RECORD_MEMBERS_MAX 16u

struct record_update {
	/* set by the caller */
	uint64_t generation; /* the volume's must be this; 0: any */
	/* Changes the copy it is given; may be called again on what the record has become. 0, or -errno: give up.
	 * NULL: the record stays as it is and is only a condition. Of several, called once for each, in their order. */
	int (*change)(struct record_update *u, struct volume_facts *facts);
	/* May add to the transaction; NULL: nothing. */
	void (*extend)(struct record_update *u, struct transaction *t);
	/* NULL, or the head that waits for the outcome: while it needs that [JOINHOLD], a store that does not tell is asked
	 * every second, and done() is not told of an unknown outcome. */
	const struct volume *head;
	/* 0; -ESTALE another generation; -ENOENT the record is gone; -EAGAIN a condition of extend() did not hold;
	 * -ETIMEDOUT outcome unknown; what change() or the store said. */
	void (*done)(struct record_update *u, int res);

	/* set here */
	bool is_certain; /* at done(0): the store said so, and the revision is that of all that was changed */
	uint64_t revision;

	struct {
		unsigned stage;
		int err;
		uint32_t tries;
		bool is_refused; /* the last transaction: a condition did not hold */
		bool is_open;    /* one that was not answered may still take effect: the record is as it was then */
		struct record_member one, *members;
		uint32_t n_members, at; /* at: the one being read */
		struct op op;
		struct timer again;
		struct transaction transaction;
		struct metadata_request read;
	} own;
};

/* done() comes on a later turn. */
void record_update_start(struct record_update *u, struct set_volume *entry);
/* The same for several volumes' records: all are changed, or none. The members are the caller's until done(). */
void record_update_start_many(struct record_update *u, struct record_member *members, uint32_t n_members);
bool record_update_is_idle(const struct record_update *u); /* zeroed, or done */
void record_update_abandon(struct record_update *u);       /* frees what it holds, as a crash does */
