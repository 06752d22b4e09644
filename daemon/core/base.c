/*
 * base.c: what happens when a claim does not hold, and UUIDs as text.
 *
 * Pure functions; no state, no owner.
 */
#include "daemon/core/base.h"
#include "daemon/core/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes before which the text form has a dash. */
static bool is_dash_before(unsigned byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

_Noreturn void quarry_assert_failed(const char *claim, const char *file, int line)
{
	fprintf(stderr, "<2>quarry: assertion failed at %s:%d: %s\n", file, line, claim);
	abort();
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a, b, sizeof *a) == 0;
}

bool uuid_is_zero(const struct uuid *u)
{
	static const struct uuid zero;

	return uuid_equal(u, &zero);
}

void uuid_to_text(const struct uuid *u, char text[static UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	char *at = text;

	for (unsigned i = 0; i < sizeof u->bytes; i++) {
		if (is_dash_before(i))
			*at++ = '-';
		*at++ = digits[u->bytes[i] >> 4];
		*at++ = digits[u->bytes[i] & 15];
	}
	*at = '\0';
	quarry_assert(at == text + UUID_TEXT_BYTES - 1);
}

/* 0 to 15, or -1. Not isxdigit(): the answer must not depend on the locale. */
static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int uuid_from_text(const char *text, struct uuid *out)
{
	struct uuid u;

	for (unsigned i = 0; i < sizeof u.bytes; i++) {
		if (is_dash_before(i) && *text++ != '-')
			return -EINVAL;
		int high = hex_digit(text[0]);
		int low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return -EINVAL;
		u.bytes[i] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (*text != '\0')
		return -EINVAL;
	*out = u;
	return 0;
}

struct uuid uuid_make(uint64_t random_high, uint64_t random_low)
{
	struct uuid u;

	put_be64(u.bytes, random_high);
	put_be64(u.bytes + 8, random_low);
	u.bytes[6] = (uint8_t)((u.bytes[6] & 0x0f) | 0x40); /* RFC 4122: version 4, random */
	u.bytes[8] = (uint8_t)((u.bytes[8] & 0x3f) | 0x80); /* and its variant */
	quarry_assert(!uuid_is_zero(&u));
	return u;
}
