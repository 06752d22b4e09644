/*
 * member_list.h: what a node knows of the nodes of its cluster, by name. See members.c.
 */
#pragma once

#include "daemon/metadata/members.h"

/* What is known of one node. */
struct member {
	struct list link; /* by name */
	char name[MEMBER_NAME_BYTES];
	uint64_t lease_revision; /* of its lease's key; 0: there is none */
	uint64_t gone_revision;  /* of that key's deletion */
	uint64_t revision;       /* of nodes/NAME; 0: there is none */
	enum member_state state; /* as nodes/NAME says */
	uint64_t since_ns;
	char *about;
	bool is_mark_wanted; /* its lease has gone, and nodes/NAME does not say so yet */
};

/* NULL: there is none of that name. */
struct member *member_find(const struct list *all, const char *name);
/* Made when there is none; NULL: no memory, or it is no name. */
struct member *member_get(struct list *all, const char *name);
void members_clear(struct list *all);
/* Takes over what the store says of a node; what cannot be read leaves it as one of which nothing is known. */
void member_read(struct member *n, const char *text);
/* The same as a text, to be freed; NULL: no memory. */
char *member_to_text(enum member_state state, uint64_t since_ns, const char *about);

/* What stands under the key of a lease. */
struct lease_facts {
	char identity[MEMBER_IDENTITY_BYTES]; /* "?": it cannot be read; then nobody has it */
	uint64_t lease_ms;
};
void lease_read(struct lease_facts *l, const char *text);
char *lease_to_text(const char *identity, uint64_t since_ns, uint64_t lease_ms); /* to be freed; NULL: no memory */
