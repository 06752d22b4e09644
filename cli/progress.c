/*
 * progress.c: one line on standard error that changes while something takes long.
 */
#include "cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_WIDTH 78

bool progress_is_seen(void)
{
	return isatty(STDERR_FILENO);
}

void progress_show(const char *format, ...)
{
	char line[LINE_WIDTH + 1];
	if (!progress_is_seen())
		return;
	va_list list;
	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	fprintf(stderr, "\r%-*s", LINE_WIDTH, line);
}

void progress_end(void)
{
	if (progress_is_seen())
		fprintf(stderr, "\r%*s\r", LINE_WIDTH, "");
}

uint64_t now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void pause_ms(long ms)
{
	struct timespec delay = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	(void)nanosleep(&delay, NULL);
}
