/*
 * handlers.h: one function per command; each reads the call, asks the daemon, prints.
 */
#pragma once

#include "cli/cli.h"

enum status backup_create(struct cli *c);
enum status backup_list(struct cli *c);
enum status backup_prune(struct cli *c);
enum status backup_restore(struct cli *c);
enum status backup_verify(struct cli *c);

enum status disk_add(struct cli *c);
enum status disk_check(struct cli *c);
enum status disk_list(struct cli *c);
enum status disk_remove(struct cli *c);
enum status disk_drain(struct cli *c);
enum status disk_scrub(struct cli *c);
enum status disk_show(struct cli *c);

enum status node_list(struct cli *c);
enum status node_show(struct cli *c);
enum status node_drain(struct cli *c);

enum status pool_create(struct cli *c);
enum status pool_delete(struct cli *c);
enum status pool_list(struct cli *c);
enum status pool_set(struct cli *c);
enum status pool_show(struct cli *c);

enum status cluster_import(struct cli *c);

enum status snapshot_create(struct cli *c);
enum status snapshot_delete(struct cli *c);
enum status snapshot_diff(struct cli *c);
enum status snapshot_list(struct cli *c);
enum status snapshot_rollback(struct cli *c);
enum status snapshot_schedule(struct cli *c);
enum status snapshot_show(struct cli *c);

enum status volume_attach(struct cli *c);
enum status volume_clone(struct cli *c);
enum status volume_create(struct cli *c);
enum status volume_delete(struct cli *c);
enum status volume_detach(struct cli *c);
enum status volume_export(struct cli *c);
enum status volume_import(struct cli *c);
enum status volume_list(struct cli *c);
enum status volume_move(struct cli *c);
enum status volume_rename(struct cli *c);
enum status volume_resize(struct cli *c);
enum status volume_set(struct cli *c);
enum status volume_show(struct cli *c);

enum status events_show(struct cli *c);
enum status status_show(struct cli *c);
enum status top_show(struct cli *c);
enum status usage_show(struct cli *c);

enum status completion_print(struct cli *c);
enum status names_print(struct cli *c);
