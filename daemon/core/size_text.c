/*
 * size_text.c: sizes in messages for people, as the command takes them.
 *
 * Nothing is rounded: who reads that a size is refused compares it with what was typed, and may type it again.
 */
#include "daemon/core/size_text.h"

#include <inttypes.h>
#include <stdio.h>

const char *size_text(uint64_t bytes, char text[static SIZE_TEXT_BYTES])
{
	static const char units[] = "KMGTP";
	unsigned power = 0;
	uint64_t n = bytes;
	for (; n > 0 && n % KIB == 0 && units[power]; power++)
		n /= KIB;
	if (power == 0)
		snprintf(text, SIZE_TEXT_BYTES, "%" PRIu64 " bytes", n);
	else
		snprintf(text, SIZE_TEXT_BYTES, "%" PRIu64 "%c", n, units[power - 1]);
	return text;
}
