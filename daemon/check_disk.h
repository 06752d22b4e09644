/*
 * check_disk.h: `quarryd --check-disk PATH`: verifies a disk that no daemon has open.
 */
#pragma once

#include "daemon/core/base.h"

/* Exit statuses beside 0, the disk is sound, and 1, it is not: nothing was checked, and standard error says why in a line. */
#define CHECK_DISK_IN_USE     3
#define CHECK_DISK_NOT_OPENED 4

/* Prints what it finds to standard output. Returns the exit status. */
int check_disk(const char *path, bool is_verbose);
