/*
 * progress.h: one line on standard error that changes while something takes long; nothing where that is no terminal.
 */
#pragma once

#include "cli/cli.h"

void progress_show(const char *format, ...) printf_like(1, 2);
/* Wipes the line, so that what is printed next begins at the left. */
void progress_end(void);
bool progress_is_seen(void); /* does somebody look? */
uint64_t now_ms(void);       /* of a clock that nobody sets */
void pause_ms(long ms);
