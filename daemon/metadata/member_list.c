/*
 * member_list.c: the nodes that are known, sorted by name, and their JSON in the store.
 *
 * What the store says was written by other nodes, perhaps of another release: a member that cannot be read is left as
 * one of which nothing is known, and a name that is none is not taken in.
 */
#include "daemon/metadata/member_list.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {
    [MEMBER_SERVING] = "serving", [MEMBER_STOPPED] = "stopped", [MEMBER_LOST] = "lost"};

const char *member_state_name(enum member_state s)
{
	quarry_assert((size_t)s < array_size(state_names));
	return state_names[s];
}

static char *text_of(json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	json_decref(value);
	return text;
}

/* A number that is not negative; 0 for anything else. */
static uint64_t number_of(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));
	return n > 0 ? (uint64_t)n : 0;
}

char *member_to_text(enum member_state state, uint64_t since_ns, const char *about)
{
	json_t *object = json_loads(about, JSON_REJECT_DUPLICATES, NULL);
	return text_of(json_pack("{s:s,s:I,s:o}", "state", member_state_name(state), "since_ns", (json_int_t)since_ns,
				 "about", object ? object : json_object()));
}

void member_read(struct member *n, const char *text)
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *about = json_object_get(root, "about");
	const char *state = json_string_value(json_object_get(root, "state"));
	quarry_assert(n->name[0]);
	n->state = MEMBER_LOST;
	for (size_t i = 0; state && i < array_size(state_names); i++)
		if (strcmp(state, state_names[i]) == 0)
			n->state = (enum member_state)i;
	n->since_ns = number_of(root, "since_ns");
	char *known = json_is_object(about) ? json_dumps(about, JSON_COMPACT) : NULL;
	if (known && strlen(known) < MEMBER_ABOUT_BYTES) {
		free(n->about);
		n->about = known;
	} else {
		free(known);
	}
	json_decref(root);
}

void lease_read(struct lease_facts *l, const char *text)
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	const char *who = json_string_value(json_object_get(root, "identity"));
	l->lease_ms = number_of(root, "lease_ms");
	snprintf(l->identity, sizeof(l->identity), "%s", who ? who : "?");
	json_decref(root);
}

char *lease_to_text(const char *identity, uint64_t since_ns, uint64_t lease_ms)
{
	return text_of(json_pack("{s:s,s:I,s:I}", "identity", identity, "since_ns", (json_int_t)since_ns, "lease_ms",
				 (json_int_t)lease_ms));
}

/* ---- the list ---- */

struct member *member_find(const struct list *all, const char *name)
{
	list_each (link, all) {
		struct member *n = container_of(link, struct member, link);
		if (strcmp(n->name, name) == 0)
			return n;
	}
	return NULL;
}

struct member *member_get(struct list *all, const char *name)
{
	struct member *n = member_find(all, name);
	if (n || name[0] == '\0' || strlen(name) >= MEMBER_NAME_BYTES)
		return n;
	quarry_assert(!n);
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->state = MEMBER_LOST;
	snprintf(n->name, sizeof(n->name), "%s", name);
	list_init(&n->link);
	struct list *before = all->next;
	while (before != all && strcmp(container_of(before, struct member, link)->name, name) < 0)
		before = before->next;
	list_append(before, &n->link);
	return n;
}

void members_clear(struct list *all)
{
	for (struct list *link; (link = list_pop(all)) != NULL;) {
		struct member *n = container_of(link, struct member, link);
		free(n->about);
		free(n);
	}
}
