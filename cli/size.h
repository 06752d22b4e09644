/*
 * size.h: sizes and numbers as people write and read them.
 *
 * A size is digits with an optional fraction and one of the letters K M G T P, powers of 1024: "512", "4K", "1.5T".
 * What size_to_text() prints size_parse() reads, though rounded.
 */
#pragma once

#include "cli/cli.h"

#define SIZE_TEXT_BYTES 24
#define SIZE_WHY_BYTES  160

/* 0, or -EINVAL with a phrase in why that goes on after the text itself ("is not a size: ..."). A fraction of a unit is
 * rounded up to 512 bytes. Zero is not a size. */
must_check int size_parse(const char *text, uint64_t *out_bytes, char why[static SIZE_WHY_BYTES]);
/* Three figures or so: "512", "4K", "1.5T". */
void size_to_text(uint64_t bytes, char text[static SIZE_TEXT_BYTES]);
/* Nothing is rounded, for messages that compare two: "10G", "1536M"; "1000000000 bytes" where no unit fits. As the
 * daemon says it (daemon/core/size_text.h), of which nothing is linked in here. */
void size_to_exact_text(uint64_t bytes, char text[static SIZE_TEXT_BYTES]);
/* A whole decimal number between min and max; 0 or -EINVAL with why as above. */
must_check int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *out,
			    char why[static SIZE_WHY_BYTES]);
/* "850ns", "12us", "3.4ms", "1.2s". */
void latency_to_text(uint64_t ns, char text[static SIZE_TEXT_BYTES]);
/* "42s", "5m 3s", "2h 1m", "3d 4h". */
void duration_to_text(uint64_t seconds, char text[static SIZE_TEXT_BYTES]);

/* A time in seconds: a whole number with s, m, h or d behind it. 0 or -EINVAL with the reason. */
int duration_parse(const char *text, uint64_t *out, char why[static SIZE_WHY_BYTES]);
