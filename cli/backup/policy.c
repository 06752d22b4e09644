/*
 * policy.c: which backups of a volume are kept. Plain functions of their arguments.
 */
#include "cli/backup/policy.h"

#include <stdio.h>
#include <string.h>

/* Days since 1970-01-01 of a date in the Gregorian calendar: years are counted from March, so that a leap day is last. */
static int64_t day_of(int year, int month, int day)
{
	int64_t y = month > 2 ? year : year - 1;
	int64_t m = month > 2 ? month - 3 : month + 9;
	int64_t era = y / 400, of_era = y % 400;
	int64_t of_year = (153 * m + 2) / 5 + day - 1;
	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

bool day_parse(const char *text, int64_t *day)
{
	int year = 0, month = 0, of_month = 0, end = 0;
	if (strspn(text, "0123456789-") < 10 || sscanf(text, "%4d-%2d-%2d%n", &year, &month, &of_month, &end) != 3 ||
	    end != 10 || year < 1970 || month < 1 || month > 12 || of_month < 1 || of_month > 31)
		return false;
	*day = day_of(year, month, of_month);
	return true;
}

/* 1970-01-01 was a Thursday: the week that begins on Monday 1969-12-29 is number 0. */
static int64_t period_of(const struct policy_item *item, int64_t days)
{
	return days == 1 ? item->day : (item->day + 3) / days;
}

static void keep_by_period(struct policy_item *items, size_t n, uint32_t n_periods, int64_t days)
{
	for (size_t i = n; i > 0 && n_periods > 0; i--) {
		if (i < n && period_of(&items[i - 1], days) == period_of(&items[i], days))
			continue;
		items[i - 1].is_kept = true;
		n_periods--;
	}
}

void policy_apply(const struct policy *policy, struct policy_item *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		items[i].is_kept = n - i <= policy->n_last;
	keep_by_period(items, n, policy->n_daily, 1);
	keep_by_period(items, n, policy->n_weekly, 7);
}
