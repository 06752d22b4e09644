/*
 * help.h: what --help prints, made from the table of commands.
 */
#pragma once

#include "cli/cli.h"

/* Help for what the command line named before --help: everything, a noun, or a command. */
enum status help_print(struct cli *c);
