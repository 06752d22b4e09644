/*
 * volume.h: what the volume commands and the transfers have in common.
 */
#pragma once

#include "cli/cli.h"

/* The resource of a checked NAME or NAME@SNAP; to be freed. */
char *export_path(const char *name);
/* The URI under which a client on this machine best reaches an attachment; lives as long as the object. */
const char *attachment_uri(const struct cli *c, const json_t *attachment);
/* The attachment over NBD among a volume's or snapshot's; NULL: it has none. */
const json_t *attachment_over_nbd(const json_t *object);
/* Attach and detach over NBD, as the commands do. */
must_check enum status volume_attach_nbd(struct cli *c, const char *name, bool is_read_only, json_t **attachment);
must_check enum status volume_detach_from(struct cli *c, const char *name, const char *suffix, json_t **answer);
