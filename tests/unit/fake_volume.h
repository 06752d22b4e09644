/*
 * fake_volume.h: volumes in memory behind volume.h, for tests of frontends: thin, checked, and obedient.
 *
 * Every rule of volume.h that a frontend could break is asserted. What a test wants to happen is asked for here:
 * errors, completions that are held back and let go in any order, detaching, resizing.
 */
#pragma once

#include "volumes/head/volume.h"

struct volume_set *fake_set_create(struct reactor *r);
void fake_set_destroy(struct volume_set *set); /* nothing may be referenced or in flight */

struct fake_options {
	const char *name;
	uint64_t size_bytes;
	uint64_t snapshot_number; /* 0: it is none */
	uint32_t n_bases;         /* earlier snapshots that it lists: base-0, base-1, ... */
	bool is_read_only;
	bool is_null; /* keeps nothing: reads leave the buffers as they are */
};
struct volume *fake_volume_add(struct volume_set *set, const struct fake_options *o);

/* The next requests of this kind complete with res; 0: with success again. */
void fake_volume_fail(struct volume *v, enum volume_op op, int res);
/* As fake_volume_fail(), for requests that touch this byte only. */
void fake_volume_fail_at(struct volume *v, enum volume_op op, uint64_t pos_bytes, int res);
/* Held: requests are carried out but do not complete until they are let go. */
void fake_volume_hold(struct volume *v, bool holds);
uint32_t fake_volume_n_held(const struct volume *v);
void fake_volume_let_go(struct volume *v, uint32_t index); /* 0: the one submitted first */

void fake_volume_resize(struct volume *v, uint64_t size_bytes);
void fake_volume_detach(struct volume *v); /* requests are answered with -ESHUTDOWN from now on */

/* The content, behind the frontend's back. */
void fake_volume_peek(struct volume *v, uint64_t pos_bytes, void *data, uint64_t len_bytes);
void fake_volume_poke(struct volume *v, uint64_t pos_bytes, const void *data, uint64_t len_bytes);
bool fake_volume_is_data(const struct volume *v, uint64_t pos_bytes);

struct fake_counts {
	uint32_t ops[VOLUME_MAP + 1];
	uint32_t n_fua, n_no_hole, n_fast_zero;
	uint32_t references, watches, in_flight;
	uint64_t last_pos_bytes, last_len_bytes;
};
struct fake_counts fake_volume_counts(const struct volume *v);
