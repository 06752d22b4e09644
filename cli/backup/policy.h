/*
 * policy.h: which backups of a volume are kept.
 */
#pragma once

#include "cli/cli.h"

struct policy {
	uint32_t n_last, n_daily, n_weekly;
};

struct policy_item {
	int64_t day; /* since 1970-01-01, UTC; weeks begin on Monday */
	bool is_kept;
};

/* "2025-01-31..." to a day; false: it is no such text. */
bool day_parse(const char *text, int64_t *day);
/* The items are of one volume, oldest first. Keeps the last n_last; the last of each of the last n_daily days that have
 * one, and of n_weekly weeks. */
void policy_apply(const struct policy *policy, struct policy_item *items, size_t n);
