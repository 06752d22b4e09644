/*
 * set_resize.c: the command that grows or shrinks a volume, attached or not.
 *
 *   CHECK -> (ATTACH) -> SCAN -> LIMIT -> SCAN -> ERASE -> FLUSH -> RECORD -> TELL -> (DETACH) -> END
 *     +--- grows: RECORD at once --------------------------------------^
 *
 *   ATTACH  a volume that nobody uses is attached for the command's own work, and seen by no frontend
 *   SCAN    is there data beyond the new size? With --force nobody asks. Once while clients still write there, to
 *           refuse early and disturb nobody, and once more after
 *   LIMIT   from here on clients cannot address what will be cut off
 *   ERASE   what lies beyond becomes zeros, and FLUSH makes it durable, before RECORD: so that a volume that shrinks
 *           and grows again shows zeros there, wherever the machine was switched off
 *
 * Invariants
 *  1. The record's size is never above what reads as it should: a shrink erases before it is recorded.
 *  2. Whatever fails, clients may address again what the record says, and a volume attached here is detached.
 */
#include "daemon/core/size_text.h"
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define RESIZE_STAGES(X)                                                                                               \
	X(CHECK) X(ATTACH) X(SCAN) X(LIMIT) X(SCAN_AGAIN) X(ERASE) X(FLUSH) X(RECORD) X(TELL) X(DETACH) X(END)
#define X(name) RESIZE_##name,
enum resize_stage { RESIZE_STAGES(X) };
#undef X

static uint64_t resize_old(const struct command *c)
{
	return c->volume->facts.size_bytes;
}

static bool resize_shrinks(const struct command *c)
{
	return c->order->size_bytes < resize_old(c);
}

/* ---- one door ---- */

static void resize_io_done(struct volume_io *io, int res)
{
	struct command *c = container_of(io, struct command, io);
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s cannot be resized: its disks answer: %s", c->order->object,
			       strerror(-res));
	c->kind->run(c);
}

static void resize_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->is_attached_here = res == 0;
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s cannot be resized: %s", entry->facts.name, entry->why);
	c->kind->run(c);
}

static void resize_detached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->kind->run(c);
}

static void resize_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res != 0)
		command_refuse_store(c, res);
	c->kind->run(c);
}

/* ---- the stages' work ---- */

/* 1: something is to be done; 0: it has that size; -errno. */
static int resize_check(struct command *c)
{
	if (command_find_volume(c) != 0 || command_check_size(c, c->order->size_bytes) != 0 ||
	    command_check_here(c, c->volume) != 0 || command_check_whole(c, c->volume, "resized") != 0)
		return c->err;
	return c->order->size_bytes != resize_old(c);
}

static void resize_submit(struct command *c, enum volume_op op)
{
	quarry_assert(c->volume->head && (op == VOLUME_FLUSH || resize_shrinks(c)));
	c->io.op = op;
	c->io.flags = 0;
	c->io.pos_bytes = c->order->size_bytes;
	c->io.len_bytes = resize_old(c) - c->order->size_bytes;
	c->io.extents = &c->extent;
	c->io.extents_max = 1;
	c->io.done = resize_io_done;
	volume_submit_internal(c->volume->head, &c->io);
}

/* One hole from end to end, or there is data. */
static void resize_judge(struct command *c)
{
	uint64_t len = resize_old(c) - c->order->size_bytes;
	if (c->err != 0 || c->order->force || (!c->extent.is_data && c->extent.len_bytes == len))
		return;
	uint64_t at = c->order->size_bytes + (c->extent.is_data ? 0 : c->extent.len_bytes);
	char size[SIZE_TEXT_BYTES];
	command_refuse(c, -EBUSY, "in-use",
		       "volume %s holds data beyond %s (at byte %" PRIu64
		       "): trim it first, choose a larger size, or lose it with --force",
		       c->order->object, size_text(c->order->size_bytes, size), at);
}

static int resize_change(struct record_update *u, struct volume_facts *facts)
{
	facts->size_bytes = container_of(u, struct command, update)->order->size_bytes;
	return 0;
}

static void resize_record(struct command *c)
{
	c->update.generation = c->volume->head ? c->volume->head->generation : 0; /* whose data were looked at */
	c->update.change = resize_change;
	c->update.done = resize_recorded;
	record_update_start(&c->update, c->volume);
}

static void resize_tell(struct command *c)
{
	struct volume *v = c->volume->head;
	if (!v)
		return;
	bool has_changed = v->size_bytes != resize_old(c) || c->err == 0;
	v->size_bytes = resize_old(c); /* what the record says now, whatever has failed */
	if (has_changed)
		volume_tell(v, VOLUME_RESIZED);
}

static int resize_prepare_growth(struct command *c)
{
	if (c->volume->head && volume_grow_chunks(c->volume->head, c->order->size_bytes) != 0)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory for a volume of that size");
	return 0;
}

/* ---- the dispatcher ---- */

static enum resize_stage resize_begin(struct command *c)
{
	if (resize_check(c) != 1)
		return RESIZE_END;
	if (resize_shrinks(c))
		return RESIZE_ATTACH;
	return resize_prepare_growth(c) == 0 ? RESIZE_FLUSH : RESIZE_END;
}

static void volume_resize_run(struct command *c)
{
	for (;;) {
		if (c->err != 0 && c->stage < RESIZE_TELL && c->stage > RESIZE_CHECK)
			c->stage = RESIZE_TELL;
		switch ((enum resize_stage)c->stage) {
		case RESIZE_CHECK:
			c->stage = resize_begin(c);
			c->order->is_unchanged = c->err == 0 && c->stage == RESIZE_END;
			if (c->stage == RESIZE_ATTACH && !c->volume->head) {
				struct attach_options o = {.is_return = true};
				volume_attach(c->volume, &o, resize_attached, c);
				return;
			}
			break;
		case RESIZE_ATTACH:
			c->stage = c->order->force ? RESIZE_SCAN_AGAIN : RESIZE_SCAN;
			if (c->stage == RESIZE_SCAN_AGAIN)
				c->volume->head->size_bytes = c->order->size_bytes;
			resize_submit(c, VOLUME_MAP);
			return;
		case RESIZE_SCAN:
			resize_judge(c);
			c->stage = RESIZE_LIMIT;
			break;
		case RESIZE_LIMIT:
			c->volume->head->size_bytes = c->order->size_bytes;
			c->stage = RESIZE_SCAN_AGAIN;
			resize_submit(c, VOLUME_MAP);
			return;
		case RESIZE_SCAN_AGAIN:
			resize_judge(c);
			c->stage = RESIZE_ERASE;
			if (c->err != 0)
				break;
			resize_submit(c, VOLUME_ZERO);
			return;
		case RESIZE_ERASE:
			c->stage = RESIZE_FLUSH;
			resize_submit(c, VOLUME_FLUSH);
			return;
		case RESIZE_FLUSH:
			c->stage = RESIZE_RECORD;
			resize_record(c);
			return;
		case RESIZE_RECORD:
			c->stage = RESIZE_TELL;
			break;
		case RESIZE_TELL:
			resize_tell(c);
			c->stage = RESIZE_DETACH;
			if (c->is_attached_here) {
				volume_detach(c->volume, false, resize_detached, c);
				return;
			}
			break;
		case RESIZE_DETACH:
			c->stage = RESIZE_END;
			break;
		case RESIZE_END:
			command_end(c);
			return;
		}
	}
}

const struct command_kind command_volume_resize = {.name = "volume resize", .run = volume_resize_run};
