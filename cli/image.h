/*
 * image.h: image files: what format a file has, and opening one as an endpoint.
 */
#pragma once

#include "cli/endpoint.h"

enum image_format { IMAGE_RAW, IMAGE_QCOW2 };

bool is_nbd_uri(const char *text);

#define IMAGE_HEADER_BYTES 512u
#define IMAGE_WHY_BYTES    200
/* Tells what the first bytes of a file look like; NULL: raw data, or nothing that is known. */
const char *image_format_name(const void *header, size_t n_bytes);
/* Whether all of a qcow2 image lies in its own file and can be read: 0, or -ENOTSUP with the reason in why. */
must_check int qcow2_check(const void *header, size_t n_bytes, char why[static IMAGE_WHY_BYTES]);

/* Opens a file to read from. `format`: "raw", "qcow2", or NULL for what it looks like. */
must_check enum status image_open_source(struct cli *c, struct endpoint *e, const char *path, const char *format);

/* A file to write to; image_target_drop() removes it again if it was made here. */
struct image_target {
	char *path;
	bool was_made;
};
/* Makes a file of size_bytes, or takes the block device that is there with is_forced. */
must_check enum status image_open_target(struct cli *c, struct endpoint *e, struct image_target *t,
					 enum image_format format, uint64_t size_bytes, bool is_forced);
void image_target_drop(struct image_target *t);
