/*
 * version.h: what `quarryd --version`, the API and the metrics call this release.
 */
#pragma once

#define QUARRY_VERSION "0.1.0"
#define QUARRY_API     "v1"
