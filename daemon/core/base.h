/*
 * base.h: the few words that every file of quarry uses.
 *
 * quarry_assert() stays on in release builds: it guards what the programmer promised, never what a
 * disk, a peer, a guest or an operator may get wrong. Building with NDEBUG is an error.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef NDEBUG
#error "quarry is always built with its assertions"
#endif

#define BLOCK_BYTES  4096u /* the unit of checksums, allocation and atomicity */
#define BLOCK_SHIFT  12u
#define SECTOR_BYTES 512u /* the smallest unit a client may address */
#define SECTOR_SHIFT 9u

#define KIB 1024ull
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)
#define TIB (1024ull * GIB)

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

#define must_check             __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define array_size(a)          (sizeof(a) / sizeof((a)[0]))

/* The structure that contains the given member. */
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Prints the claim that did not hold and aborts. */
_Noreturn void quarry_assert_failed(const char *claim, const char *file, int line);
#define quarry_assert(claim) ((claim) ? (void)0 : quarry_assert_failed(#claim, __FILE__, __LINE__))

/* What a stage function tells its dispatcher: go on, or return and be called again on an event. */
enum flow { FLOW_NEXT, FLOW_WAIT };

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* 16 random bytes; text form is the usual 8-4-4-4-12. */
struct uuid {
	uint8_t bytes[16];
};
#define UUID_TEXT_BYTES 37 /* with the final zero */
bool uuid_equal(const struct uuid *a, const struct uuid *b);
bool uuid_is_zero(const struct uuid *u);
void uuid_to_text(const struct uuid *u, char text[static UUID_TEXT_BYTES]);
must_check int uuid_from_text(const char *text, struct uuid *out); /* 0 or -EINVAL */
/* Makes a version-4 UUID of two random numbers. */
struct uuid uuid_make(uint64_t random_high, uint64_t random_low);
