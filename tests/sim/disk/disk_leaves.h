/*
 * disk_leaves.h: which leaves of a tree others may share: what a trim on a full disk may leave as it is.
 *
 * A leaf maps PAGE_POINTERS blocks; here are those that the windows touch, numbered as they come. Trees are numbered as
 * the oracle numbers them.
 */
#pragma once

#include "tests/sim/oracle.h"

#define LEAVES_MAX 64u /* a set of them is a word */

struct leaves;

struct leaves *leaves_create(const struct oracle_window *windows, uint32_t n_windows);
void leaves_destroy(struct leaves *l);
uint32_t leaf_of_block(const struct leaves *l, uint64_t block); /* of one inside a window */

void leaves_made(struct leaves *l, uint32_t tree); /* an empty one */
/* Once when it is asked for and once when it is done: the child shares what the parent has then. */
void leaves_forked(struct leaves *l, uint32_t parent, uint32_t child);
void leaves_written(struct leaves *l, uint32_t tree, uint64_t first, uint64_t n_blocks); /* not with zeros alone */
void leaves_dropped(struct leaves *l, uint32_t tree); /* it goes in the background, and shares until it is gone */
void leaves_drained(struct leaves *l);                /* all that were dropped are gone */
/* What was not durable is undone: whoever is of one family may share again what it shared before. */
void leaves_crashed(struct leaves *l);
void leaves_recovered(struct leaves *l, uint32_t tree, bool is_live); /* else it may be on its way out, and share */
/* Bit i: another tree may have leaf i too. */
uint64_t leaves_shared(const struct leaves *l, uint32_t tree);
