/*
 * text.c: small work on words: the nearest known one, and what may be shown on a terminal.
 */
#include "cli/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORD_MAX 48u /* longer words are nothing that was mistyped */

static unsigned min_of(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Optimal string alignment over three rows of the usual table. */
unsigned text_distance(const char *a, const char *b)
{
	size_t n_a = strlen(a), n_b = strlen(b);
	if (n_a > WORD_MAX || n_b > WORD_MAX)
		return UINT32_MAX;
	unsigned row[3][WORD_MAX + 1];
	for (size_t j = 0; j <= n_b; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= n_a; i++) {
		unsigned *now = row[i % 3], *before = row[(i + 2) % 3], *two_before = row[(i + 1) % 3];
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= n_b; j++) {
			unsigned change = before[j - 1] + (a[i - 1] != b[j - 1]);
			now[j] = min_of(change, min_of(before[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = min_of(now[j], two_before[j - 2] + 1);
		}
	}
	return row[n_a % 3][n_b];
}

void nearest_begin(struct nearest *n, const char *typed)
{
	*n = (struct nearest){.typed = typed, .distance = UINT32_MAX};
}

/* Near is at most a third of the letters, or the beginning of the word. */
void nearest_offer(struct nearest *n, const char *word)
{
	size_t length = strlen(n->typed);
	unsigned distance = text_distance(n->typed, word);
	if (length >= 2 && strncmp(n->typed, word, length) == 0)
		distance = 1;
	if (distance > 1 + length / 4 || distance >= n->distance)
		return;
	n->word = word;
	n->distance = distance;
}

/* Length of the valid UTF-8 character at p (the shortest form, no surrogates), or 0. */
static size_t utf8_length(const unsigned char *p)
{
	if (p[0] < 0x80)
		return 1;
	size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

char *text_printable(const char *text)
{
	char *copy = text_format("%s", text);
	for (unsigned char *p = (unsigned char *)copy; *p;) {
		size_t n = utf8_length(p);
		bool is_control = *p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0);
		if (n == 0 || is_control) {
			memset(p, '?', n ? n : 1);
			n = n ? n : 1;
		}
		p += n;
	}
	return copy;
}

size_t text_width(const char *text)
{
	size_t width = 0;
	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

char *text_format(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	char *text = NULL;
	if (vasprintf(&text, format, list) < 0)
		abort();
	va_end(list);
	return text;
}
