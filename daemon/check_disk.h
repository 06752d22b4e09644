/*
 * check_disk.h: `quarryd --check-disk PATH`: verifies a disk that no daemon has open.
 */
#pragma once

#include "daemon/core/base.h"

/* Prints what it finds to standard output. The exit status: 0 the disk is sound, 1 it is not, or cannot be read. */
int check_disk(const char *path, bool is_verbose);
