/*
 * config.h: what quarryd is told at start, read from a libconfig file and checked.
 *
 * docs/man/quarry.conf.5 describes every key. A struct config is immutable once it was read.
 */
#pragma once

#include "daemon/core/log.h"

#define CONFIG_TEXT_MAX       256u /* bytes of a path or address, with the final zero */
#define CONFIG_SOCKET_MAX     108u /* what a unix socket's address can hold */
#define CONFIG_NAME_MAX       64u
#define CONFIG_LABELS_MAX     16u
#define CONFIG_ENDPOINTS_MAX  16u
#define CONFIG_FILE_BYTES_MAX MIB
#define CONFIG_KEYS_MAX       48u

enum config_backend { CONFIG_EMBEDDED, CONFIG_ETCD };
enum config_tls { CONFIG_TLS_OFF, CONFIG_TLS_ON, CONFIG_TLS_REQUIRE };

struct config {
	struct {
		char name[CONFIG_NAME_MAX], data_dir[CONFIG_TEXT_MAX];
		uint64_t reactors; /* 0: as many as fit the machine */
		uint64_t cache_mb;
		struct config_label {
			char key[CONFIG_NAME_MAX], value[CONFIG_NAME_MAX];
		} labels[CONFIG_LABELS_MAX];
		uint32_t n_labels;
	} node;
	struct {
		char socket[CONFIG_SOCKET_MAX], listen[CONFIG_TEXT_MAX], token_file[CONFIG_TEXT_MAX];
		uint64_t tls; /* enum config_tls, off or on */
		char cert_dir[CONFIG_TEXT_MAX];
	} control;
	struct {
		char listen[CONFIG_TEXT_MAX], key_file[CONFIG_TEXT_MAX];
		bool insecure;
	} peer;
	struct {
		uint64_t lease_ms, drift_ppm, replica_timeout_ms, rebuild_after_s;
	} cluster;
	struct {
		uint64_t backend; /* enum config_backend */
		char endpoints[CONFIG_ENDPOINTS_MAX][CONFIG_TEXT_MAX];
		uint32_t n_endpoints;
		char prefix[CONFIG_TEXT_MAX], ca_file[CONFIG_TEXT_MAX], cert_file[CONFIG_TEXT_MAX],
		    key_file[CONFIG_TEXT_MAX];
		char user[CONFIG_NAME_MAX], password_file[CONFIG_TEXT_MAX];
	} metadata;
	struct {
		char socket[CONFIG_SOCKET_MAX], listen[CONFIG_TEXT_MAX];
		uint64_t tls; /* enum config_tls */
		char cert_dir[CONFIG_TEXT_MAX], psk_file[CONFIG_TEXT_MAX];
		uint64_t max_connections;
	} nbd;
	struct {
		char dir[CONFIG_TEXT_MAX];
		uint64_t poll_us;
		bool file_memory;
	} vhost;
	struct {
		uint64_t level; /* enum log_level */
	} log;
	int lines[CONFIG_KEYS_MAX]; /* of the keys that the file has, for config_line() */
};

/* Hears of everything that is wrong: one line each, "FILE:LINE: KEY: what and what to do"; and, after "warning: ", of what
 * has no effect though somebody has written it. */
struct config_report {
	void (*say)(struct config_report *report, const char *line);
	unsigned n_errors, n_warnings;
};

/* Reads and checks a file. 0, or -EINVAL after at least one line was said; or -errno: it cannot be read (said too). */
must_check int config_load(const char *path, struct config *out, struct config_report *report);
/* The same of a text; name stands for the file in messages. */
must_check int config_parse(const char *name, const char *text, struct config *out, struct config_report *report);
/* Would the files and folders that a configuration names let a daemon start? file stands for it in messages. Changes
 * nothing. 0, or -EINVAL after all that is wrong was said. */
must_check int config_check_files(const char *file, const struct config *config, struct config_report *report);
/* The line of a key such as "node.data_dir"; 0: the file does not have it. */
int config_line(const struct config *config, const char *key);
/* Every key has its default, node.name none. */
void config_defaults(struct config *out);

/* config_address.c: "HOST:PORT", whose host may be an IPv6 address in brackets. */

/* What is wrong with it; NULL: nothing. */
const char *config_address_fault(const char *address);
/* The host, without brackets. */
void config_address_host(const char *address, char host[static CONFIG_TEXT_MAX]);
/* Is it this machine alone? */
bool config_address_is_loopback(const char *address);
/* Is it all addresses of this machine: good to listen on, and for nobody to connect to? */
bool config_address_is_any(const char *address);
