/*
 * size_text.h: sizes in messages for people, as the command takes them.
 */
#pragma once

#include "daemon/core/base.h"

#define SIZE_TEXT_BYTES 32

/* Exact, in the largest unit that leaves no fraction: "10G", "1536M"; "1000000000 bytes" where there is none. Returns
 * text. */
const char *size_text(uint64_t bytes, char text[static SIZE_TEXT_BYTES]);
