/*
 * checkpoint_internal.h: the cut, the part of a checkpoint that happens in one turn (cut.c), for checkpoint.c.
 */
#pragma once

#include "volumes/disk/disk_internal.h"

/* Upper bounds of what the cut will take, as things stand. */
uint64_t cut_blocks_needed(const struct disk *d);
uint32_t cut_frames_needed(const struct disk *d);
/* Cuts the journal, gives every changed page, record, count page and table page a fresh block and queues their writes,
 * freezes what was freed, and fills c->superblock and c->cut. Needs the room that the two bounds promise; cannot
 * fail. */
void cut(struct checkpoint *c);
/* The checkpoint that left them out is flushed: trees that are all free give their slots back, unless somebody who was to
 * read there is still to hear that it is gone: then after the next one. */
void cut_forget_trees(struct disk *d);
