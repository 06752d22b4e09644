/*
 * nbd_options.c: takes the data of options apart.
 *
 * A cursor walks over the data; every step checks that enough is left before it looks. What does not add up to the last
 * byte is malformed.
 *
 * Invariants
 *  1. The cursor never passes the end: left_bytes shrinks by exactly what was taken.
 *  2. Texts handed out point into the data and lie inside it.
 *  3. Unknown information requests and unknown namespaces are passed over, as the protocol demands.
 */
#include "frontends/nbd/nbd_options.h"

#include <errno.h>

struct cursor {
	const uint8_t *next;
	uint32_t left_bytes;
};

static bool take(struct cursor *c, uint32_t len_bytes, const uint8_t **out)
{
	if (len_bytes > c->left_bytes)
		return false;
	*out = c->next;
	c->next += len_bytes;
	c->left_bytes -= len_bytes;
	return true;
}

static bool take_16(struct cursor *c, uint16_t *out)
{
	const uint8_t *p;
	if (!take(c, 2, &p))
		return false;
	*out = get_be16(p);
	return true;
}

static bool take_32(struct cursor *c, uint32_t *out)
{
	const uint8_t *p;
	if (!take(c, 4, &p))
		return false;
	*out = get_be32(p);
	return true;
}

/* A 32-bit length and as many bytes. */
static bool take_text(struct cursor *c, struct nbd_text *out)
{
	uint32_t len_bytes;
	if (!take_32(c, &len_bytes))
		return false;
	out->len_bytes = len_bytes;
	return take(c, len_bytes, &out->bytes) && nbd_text_is_valid(*out);
}

bool nbd_text_is_valid(struct nbd_text text)
{
	if (text.len_bytes > NBD_STRING_MAX)
		return false;
	return text.len_bytes == 0 || memchr(text.bytes, 0, text.len_bytes) == NULL;
}

bool nbd_text_equal(struct nbd_text a, struct nbd_text b)
{
	return a.len_bytes == b.len_bytes && (a.len_bytes == 0 || memcmp(a.bytes, b.bytes, a.len_bytes) == 0);
}

struct nbd_text nbd_text_of(const char *text)
{
	return (struct nbd_text){.bytes = (const uint8_t *)text, .len_bytes = (uint32_t)strlen(text)};
}

static void note_info(struct nbd_info_query *q, uint16_t info)
{
	switch (info) {
	case NBD_INFO_NAME:
		q->wants_name = true;
		break;
	case NBD_INFO_DESCRIPTION:
		q->wants_description = true;
		break;
	case NBD_INFO_BLOCK_SIZE:
		q->wants_block_size = true;
		break;
	default: /* EXPORT is always told; what we do not know is passed over */
		break;
	}
}

int nbd_info_query_decode(struct nbd_text data, struct nbd_info_query *out)
{
	struct cursor c = {.next = data.bytes, .left_bytes = data.len_bytes};
	uint16_t n_infos;

	*out = (struct nbd_info_query){0};
	if (!take_text(&c, &out->name) || !take_16(&c, &n_infos))
		return -EINVAL;
	for (uint16_t i = 0; i < n_infos; i++) {
		uint16_t info;
		if (!take_16(&c, &info))
			return -EINVAL;
		note_info(out, info);
	}
	quarry_assert(c.left_bytes <= data.len_bytes);
	return c.left_bytes == 0 ? 0 : -EINVAL;
}

/* "qemu:dirty-bitmap:NAME" */
static void note_bitmap(struct nbd_meta_query *q, struct nbd_text query)
{
	uint32_t prefix_bytes = sizeof(NBD_BITMAP_PREFIX) - 1;
	if (query.len_bytes <= prefix_bytes || memcmp(query.bytes, NBD_BITMAP_PREFIX, prefix_bytes) != 0)
		return;
	if (q->n_bitmaps < NBD_BITMAP_QUERIES_MAX)
		q->bitmaps[q->n_bitmaps++] =
		    (struct nbd_text){.bytes = query.bytes + prefix_bytes, .len_bytes = query.len_bytes - prefix_bytes};
}

int nbd_meta_query_decode(struct nbd_text data, struct nbd_meta_query *out)
{
	struct cursor c = {.next = data.bytes, .left_bytes = data.len_bytes};

	*out = (struct nbd_meta_query){0};
	if (!take_text(&c, &out->name) || !take_32(&c, &out->n_queries))
		return -EINVAL;
	for (uint32_t i = 0; i < out->n_queries; i++) { /* each takes 4 bytes or more: bounded by the data */
		struct nbd_text query;
		if (!take_text(&c, &query))
			return -EINVAL;
		if (query.len_bytes == 0 || memchr(query.bytes, ':', query.len_bytes) == NULL)
			return -EINVAL; /* a query begins with a namespace and a colon */
		out->names_allocation |= nbd_text_equal(query, nbd_text_of("base:allocation"));
		out->names_base |= nbd_text_equal(query, nbd_text_of("base:"));
		out->names_bitmaps |= nbd_text_equal(query, nbd_text_of("qemu:")) ||
				      nbd_text_equal(query, nbd_text_of(NBD_BITMAP_PREFIX));
		note_bitmap(out, query);
	}
	quarry_assert(c.left_bytes <= data.len_bytes);
	return c.left_bytes == 0 ? 0 : -EINVAL;
}
