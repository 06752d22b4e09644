/*
 * size.c: sizes and numbers as people write and read them.
 *
 * 1. Nothing is guessed: "4KB", "4 K", "-1", "0x10" and what does not fit into 63 bits is refused, each with its
 *    reason, since a volume of the wrong size is found out too late.
 * 2. No floating point: 0.1T is the same number of bytes on every machine.
 */
#include "cli/size.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define UNIT_LETTERS        "KMGTP"               /* 1024^1 ... 1024^5 */
#define FRACTION_DIGITS_MAX 9                     /* so that a fraction times a unit stays far below 2^127 */
#define SECTOR_BYTES        512u                  /* the smallest unit that a volume can be addressed in */
#define SIZE_BYTES_MAX      ((uint64_t)INT64_MAX) /* JSON integers have a sign */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* What may follow the digits of a size. 0: nothing (bytes), 1..5: the letter's power, -1: no unit. */
static int unit_power(const char *text)
{
	if (*text == '\0')
		return 0;
	char upper = *text >= 'a' && *text <= 'z' ? (char)(*text - 'a' + 'A') : *text;
	const char *letter = strchr(UNIT_LETTERS, upper);
	if (!letter || text[1] != '\0')
		return -1;
	return (int)(letter - UNIT_LETTERS) + 1;
}

struct digits {
	uint64_t value;
	unsigned n;
	bool is_overflow;
};

/* Reads digits from *text on and moves *text behind them. */
static struct digits digits_read(const char **text)
{
	struct digits d = {0};
	for (; is_digit(**text); ++*text, d.n++) {
		if (__builtin_mul_overflow(d.value, 10u, &d.value) ||
		    __builtin_add_overflow(d.value, (uint64_t)(**text - '0'), &d.value))
			d.is_overflow = true;
	}
	return d;
}

/* numerator/10^n of a unit, rounded up to a sector. */
static uint64_t fraction_bytes(struct digits fraction, uint64_t unit)
{
	quarry_assert(fraction.n <= FRACTION_DIGITS_MAX);
	quarry_assert(unit % SECTOR_BYTES == 0);
	uint64_t denominator = 1;
	for (unsigned i = 0; i < fraction.n; i++)
		denominator *= 10;
	unsigned __int128 product = (unsigned __int128)fraction.value * unit;
	uint64_t bytes = (uint64_t)((product + denominator - 1) / denominator);
	return (bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
}

static int refuse(char why[static SIZE_WHY_BYTES], const char *reason)
{
	snprintf(why, SIZE_WHY_BYTES, "%s", reason);
	return -EINVAL;
}

int size_parse(const char *text, uint64_t *out_bytes, char why[static SIZE_WHY_BYTES])
{
	const char *rest = text;
	struct digits whole = digits_read(&rest), fraction = {0};
	bool has_point = *rest == '.';
	if (has_point) {
		rest++;
		fraction = digits_read(&rest);
	}
	if (whole.n == 0 || (has_point && fraction.n == 0))
		return refuse(why, "is not a size; write it like 512, 4K, 10G or 1.5T");
	int power = unit_power(rest);
	if (power < 0)
		return refuse(why, "has an unknown unit; the units are K, M, G, T and P, powers of 1024");
	if (has_point && power == 0)
		return refuse(why, "is a fraction of a byte; the units are K, M, G, T and P");
	if (fraction.n > FRACTION_DIGITS_MAX)
		return refuse(why, "has more than nine digits after the point");
	uint64_t unit = 1ull << (10 * power), bytes = 0;
	if (whole.is_overflow || __builtin_mul_overflow(whole.value, unit, &bytes) ||
	    (has_point && __builtin_add_overflow(bytes, fraction_bytes(fraction, unit), &bytes)) ||
	    bytes > SIZE_BYTES_MAX)
		return refuse(why, "is too large; the largest size is 4096T");
	if (bytes == 0)
		return refuse(why, "is no size; the smallest is 512 bytes");
	*out_bytes = bytes;
	return 0;
}

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *out, char why[static SIZE_WHY_BYTES])
{
	quarry_assert(min <= max);
	const char *rest = text;
	struct digits number = digits_read(&rest);
	if (number.n == 0 || *rest != '\0') {
		snprintf(why, SIZE_WHY_BYTES, "is not a whole number");
		return -EINVAL;
	}
	if (number.is_overflow || number.value < min || number.value > max) {
		snprintf(why, SIZE_WHY_BYTES, "is not between %llu and %llu", (unsigned long long)min,
			 (unsigned long long)max);
		return -EINVAL;
	}
	*out = number.value;
	return 0;
}

void size_to_text(uint64_t bytes, char text[static SIZE_TEXT_BYTES])
{
	unsigned power = 0;
	/* In tenths of the unit, rounded to the nearest, so that 1023.96K is shown as 1M and not as 1024.0K. */
	unsigned __int128 tenths = (unsigned __int128)bytes * 10;
	while (power < strlen(UNIT_LETTERS) && tenths >= 10240) {
		power++;
		uint64_t unit = 1ull << (10 * power);
		tenths = ((unsigned __int128)bytes * 10 + unit / 2) / unit;
	}
	unsigned long long whole = (unsigned long long)(tenths / 10), tenth = (unsigned long long)(tenths % 10);
	if (power == 0)
		snprintf(text, SIZE_TEXT_BYTES, "%llu", whole);
	else if (tenth == 0 || whole >= 100)
		snprintf(text, SIZE_TEXT_BYTES, "%llu%c", whole, UNIT_LETTERS[power - 1]);
	else
		snprintf(text, SIZE_TEXT_BYTES, "%llu.%llu%c", whole, tenth, UNIT_LETTERS[power - 1]);
}

void size_to_exact_text(uint64_t bytes, char text[static SIZE_TEXT_BYTES])
{
	unsigned power = 0;
	unsigned long long n = bytes;
	for (; n > 0 && n % 1024 == 0 && power < strlen(UNIT_LETTERS); power++)
		n /= 1024;
	if (power == 0)
		snprintf(text, SIZE_TEXT_BYTES, "%llu bytes", n);
	else
		snprintf(text, SIZE_TEXT_BYTES, "%llu%c", n, UNIT_LETTERS[power - 1]);
}

void latency_to_text(uint64_t ns, char text[static SIZE_TEXT_BYTES])
{
	static const struct {
		uint64_t ns;
		const char *name;
	} units[] = {{1000000000, "s"}, {1000000, "ms"}, {1000, "us"}};
	for (size_t i = 0; i < array_size(units); i++) {
		if (ns < units[i].ns)
			continue;
		uint64_t whole = ns / units[i].ns, tenth = ns % units[i].ns * 10 / units[i].ns;
		if (whole >= 10)
			snprintf(text, SIZE_TEXT_BYTES, "%llu%s", (unsigned long long)whole, units[i].name);
		else
			snprintf(text, SIZE_TEXT_BYTES, "%llu.%llu%s", (unsigned long long)whole,
				 (unsigned long long)tenth, units[i].name);
		return;
	}
	snprintf(text, SIZE_TEXT_BYTES, "%lluns", (unsigned long long)ns);
}

void duration_to_text(uint64_t seconds, char text[static SIZE_TEXT_BYTES])
{
	unsigned long long s = seconds % 60, m = seconds / 60 % 60, h = seconds / 3600 % 24, d = seconds / 86400;
	if (d > 0)
		snprintf(text, SIZE_TEXT_BYTES, "%llud %lluh", d, h);
	else if (h > 0)
		snprintf(text, SIZE_TEXT_BYTES, "%lluh %llum", h, m);
	else if (m > 0)
		snprintf(text, SIZE_TEXT_BYTES, "%llum %llus", m, s);
	else
		snprintf(text, SIZE_TEXT_BYTES, "%llus", s);
}

int duration_parse(const char *text, uint64_t *out, char why[static SIZE_WHY_BYTES])
{
	static const struct {
		char letter;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	const char *rest = text;
	struct digits number = digits_read(&rest);
	for (size_t i = 0; i < array_size(units) && number.n > 0 && rest[0] != '\0' && rest[1] == '\0'; i++) {
		if (*rest != units[i].letter)
			continue;
		if (number.is_overflow || number.value == 0 || number.value > INT32_MAX / units[i].seconds) {
			snprintf(why, SIZE_WHY_BYTES, "is not between 1s and 24855d");
			return -EINVAL;
		}
		*out = number.value * units[i].seconds;
		return 0;
	}
	snprintf(why, SIZE_WHY_BYTES, "is not a time such as 30s, 15m, 1h or 7d");
	return -EINVAL;
}
