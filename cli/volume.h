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
/* Attach and detach, as the commands do; the body is the API's AttachmentCreate. */
must_check enum status volume_attach_with(struct cli *c, const char *name, const json_t *body, json_t **attachment);
must_check enum status volume_detach_from(struct cli *c, const char *name, const char *suffix, json_t **answer);
