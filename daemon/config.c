/*
 * config.c: reads quarryd's configuration.
 *
 *   text --libconfig--> tree --one table of keys--> struct config --rules between keys--> accepted
 *
 * Invariants
 *  1. Every key stands in the table `keys` or is one of the two lists (node.labels, metadata.endpoints): what stands in
 *     neither is an error that names it.
 *  2. Nothing of the file is used before its type and range were checked; every message names file, line and key.
 *  3. All errors are said, not just the first: an operator repairs a file in one go.
 *  4. A key whose feature this release lacks is parsed and checked like the others, and refused when it asks for
 *     something: silence would be a promise.
 */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the keys ---- */

enum key_kind {
	KEY_NAME,    /* [A-Za-z0-9][A-Za-z0-9._-]* */
	KEY_PATH,    /* absolute; may be empty when min is 0 */
	KEY_ADDRESS, /* HOST:PORT, or empty */
	KEY_PREFIX,  /* begins with a slash */
	KEY_INTEGER, /* from min to max */
	KEY_BOOLEAN,
	KEY_CHOICE, /* one of choices; the number of it is kept */
};

struct key {
	const char *group, *name;
	enum key_kind kind;
	size_t offset, size; /* in struct config; size of a text with its final zero */
	uint64_t min, max;
	const char *choices[6];
};

#define AT(g, n)                                                                                                       \
	.group = #g, .name = #n, .offset = offsetof(struct config, g.n), .size = sizeof(((struct config *)0)->g.n)

static const struct key keys[] = {
    {AT(node, name), .kind = KEY_NAME},
    {AT(node, data_dir), .kind = KEY_PATH, .min = 1},
    {AT(node, reactors), .kind = KEY_INTEGER, .max = 64},
    {AT(node, cache_mb), .kind = KEY_INTEGER, .min = 16, .max = 1 << 20},
    {AT(control, socket), .kind = KEY_PATH},
    {AT(control, listen), .kind = KEY_ADDRESS},
    {AT(control, token_file), .kind = KEY_PATH},
    {AT(control, tls), .kind = KEY_CHOICE, .choices = {"off", "on"}},
    {AT(control, cert_dir), .kind = KEY_PATH},
    {AT(peer, listen), .kind = KEY_ADDRESS},
    {AT(peer, key_file), .kind = KEY_PATH},
    {AT(peer, insecure), .kind = KEY_BOOLEAN},
    {AT(cluster, lease_ms), .kind = KEY_INTEGER, .min = 500, .max = 600000},
    {AT(cluster, drift_ppm), .kind = KEY_INTEGER, .max = 100000},
    {AT(cluster, replica_timeout_ms), .kind = KEY_INTEGER, .min = 50, .max = 60000},
    {AT(cluster, rebuild_after_s), .kind = KEY_INTEGER, .max = 30 * 24 * 3600},
    {AT(metadata, backend), .kind = KEY_CHOICE, .choices = {"embedded", "etcd"}},
    {AT(metadata, prefix), .kind = KEY_PREFIX},
    {AT(metadata, ca_file), .kind = KEY_PATH},
    {AT(metadata, cert_file), .kind = KEY_PATH},
    {AT(metadata, key_file), .kind = KEY_PATH},
    {AT(metadata, user), .kind = KEY_NAME},
    {AT(metadata, password_file), .kind = KEY_PATH},
    {AT(nbd, socket), .kind = KEY_PATH},
    {AT(nbd, listen), .kind = KEY_ADDRESS},
    {AT(nbd, tls), .kind = KEY_CHOICE, .choices = {"off", "on", "require"}},
    {AT(nbd, cert_dir), .kind = KEY_PATH},
    {AT(nbd, psk_file), .kind = KEY_PATH},
    {AT(nbd, max_connections), .kind = KEY_INTEGER, .min = 1, .max = 65535},
    {AT(vhost, dir), .kind = KEY_PATH, .min = 1},
    {AT(vhost, poll_us), .kind = KEY_INTEGER, .max = 1000},
    {AT(vhost, file_memory), .kind = KEY_BOOLEAN},
    {AT(log, level), .kind = KEY_CHOICE, .choices = {"error", "warning", "notice", "info", "debug"}},
};
_Static_assert(array_size(keys) <= CONFIG_KEYS_MAX, "each has a place for its line");
_Static_assert(LOG_ERROR == 0 && LOG_DEBUG == 4, "the choices of log.level are in the order of enum log_level");

void config_defaults(struct config *out)
{
	*out = (struct config){
	    .node = {.data_dir = "/var/lib/quarry", .cache_mb = 256},
	    .control = {.socket = "/run/quarry/control.sock"},
	    .cluster = {.lease_ms = 5000, .drift_ppm = 1000, .replica_timeout_ms = 700, .rebuild_after_s = 600},
	    .metadata = {.backend = CONFIG_EMBEDDED, .prefix = "/quarry"},
	    .nbd = {.socket = "/run/quarry/nbd.sock", .max_connections = 256},
	    .vhost = {.dir = "/run/quarry/vhost"},
	    .log = {.level = LOG_INFO},
	};
}

/* ---- messages ---- */

struct reading {
	const char *file;
	struct config *config;
	struct config_report *report;
	config_setting_t *root; /* to find the line of a key */
};

static void printf_like(4, 0)
    reading_say(struct reading *r, int line, const char *kind, const char *format, va_list args)
{
	char text[512], place[16] = "", whole[1024];
	quarry_assert(r->report->say);
	vsnprintf(text, sizeof(text), format, args);
	if (line > 0)
		snprintf(place, sizeof(place), "%d:", line);
	snprintf(whole, sizeof(whole), "%s:%s %s%s", r->file, place, kind, text);
	r->report->say(r->report, whole);
}

static void printf_like(3, 4) reading_error(struct reading *r, int line, const char *format, ...)
{
	va_list args;
	r->report->n_errors++;
	va_start(args, format);
	reading_say(r, line, "", format, args);
	va_end(args);
}

static void printf_like(3, 4) reading_warning(struct reading *r, int line, const char *format, ...)
{
	va_list args;
	r->report->n_warnings++;
	va_start(args, format);
	reading_say(r, line, "warning: ", format, args);
	va_end(args);
}

static int line_of(const config_setting_t *s)
{
	return s ? (int)config_setting_source_line(s) : 0;
}

/* The line of "group.name" if the file has it, else 0. */
static int line_of_key(struct reading *r, const char *path)
{
	return line_of(config_setting_lookup(r->root, path));
}

/* ---- texts ---- */

static bool name_is_valid(const char *text)
{
	if (!isalnum((unsigned char)text[0]))
		return false;
	for (const char *c = text; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return false;
	}
	return true;
}

static bool text_is_printable(const char *text)
{
	for (const char *c = text; *c; c++) {
		if (iscntrl((unsigned char)*c))
			return false;
	}
	return true;
}

/* What is wrong with a text for a key of this kind; NULL: nothing. */
static const char *text_fault(const struct key *k, const char *text)
{
	if (!text_is_printable(text))
		return "has a control character";
	switch (k->kind) {
	case KEY_NAME:
		return name_is_valid(text)
			   ? NULL
			   : "must be of letters, digits, '.', '_' and '-', and begin with one of the first two";
	case KEY_PATH:
		if (text[0] == '\0')
			return k->min > 0 ? "must not be empty" : NULL;
		return text[0] == '/' ? NULL : "must be an absolute path";
	case KEY_PREFIX:
		return text[0] == '/' ? NULL : "must begin with a slash";
	case KEY_ADDRESS:
		return text[0] == '\0' ? NULL : config_address_fault(text);
	case KEY_INTEGER:
	case KEY_BOOLEAN:
	case KEY_CHOICE:
		break;
	}
	quarry_assert(!"a text has a kind of text");
	return NULL;
}

/* ---- one key ---- */

static void read_text(struct reading *r, const struct key *k, config_setting_t *s)
{
	char *to = (char *)r->config + k->offset;
	const char *text = config_setting_get_string(s);
	if (!text) {
		reading_error(r, line_of(s), "%s.%s: must be a text in quotes", k->group, k->name);
		return;
	}
	const char *fault = text_fault(k, text);
	if (fault)
		reading_error(r, line_of(s), "%s.%s: %s", k->group, k->name, fault);
	else if (strlen(text) >= k->size)
		reading_error(r, line_of(s), "%s.%s: has %zu bytes, at most %zu fit", k->group, k->name, strlen(text),
			      k->size - 1);
	else
		memcpy(to, text, strlen(text) + 1);
}

static void read_integer(struct reading *r, const struct key *k, config_setting_t *s)
{
	quarry_assert(k->size == sizeof(uint64_t));
	int type = config_setting_type(s);
	long long value = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64 ? config_setting_get_int64(s) : -1;
	if (value < 0 || (uint64_t)value < k->min || (uint64_t)value > k->max) {
		reading_error(r, line_of(s), "%s.%s: must be a whole number from %llu to %llu", k->group, k->name,
			      (unsigned long long)k->min, (unsigned long long)k->max);
		return;
	}
	*(uint64_t *)((char *)r->config + k->offset) = (uint64_t)value;
}

static void read_boolean(struct reading *r, const struct key *k, config_setting_t *s)
{
	quarry_assert(k->size == sizeof(bool));
	if (config_setting_type(s) != CONFIG_TYPE_BOOL)
		reading_error(r, line_of(s), "%s.%s: must be true or false", k->group, k->name);
	else
		*(bool *)((char *)r->config + k->offset) = config_setting_get_bool(s) != 0;
}

static void read_choice(struct reading *r, const struct key *k, config_setting_t *s)
{
	const char *text = config_setting_get_string(s);
	char all[128] = "";
	quarry_assert(k->size == sizeof(uint64_t));
	for (size_t i = 0; i < array_size(k->choices) && k->choices[i]; i++) {
		if (text && strcmp(text, k->choices[i]) == 0) {
			*(uint64_t *)((char *)r->config + k->offset) = i;
			return;
		}
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s\"%s\"", i ? ", " : "", k->choices[i]);
	}
	reading_error(r, line_of(s), "%s.%s: must be one of %s", k->group, k->name, all);
}

static void read_key(struct reading *r, const struct key *k, config_setting_t *s)
{
	switch (k->kind) {
	case KEY_NAME:
	case KEY_PATH:
	case KEY_ADDRESS:
	case KEY_PREFIX:
		read_text(r, k, s);
		break;
	case KEY_INTEGER:
		read_integer(r, k, s);
		break;
	case KEY_BOOLEAN:
		read_boolean(r, k, s);
		break;
	case KEY_CHOICE:
		read_choice(r, k, s);
		break;
	}
}

/* ---- the two lists ---- */

static void read_labels(struct reading *r, config_setting_t *s)
{
	static const struct key label = {.kind = KEY_NAME};
	int n = config_setting_length(s);
	if (!config_setting_is_group(s)) {
		reading_error(r, line_of(s), "node.labels: must be a group, as in { zone = \"a\"; }");
		return;
	}
	if (n > (int)CONFIG_LABELS_MAX) {
		reading_error(r, line_of(s), "node.labels: has %d labels, at most %u are kept", n, CONFIG_LABELS_MAX);
		return;
	}
	for (int i = 0; i < n; i++) {
		config_setting_t *one = config_setting_get_elem(s, (unsigned)i);
		const char *value = config_setting_get_string(one), *name = config_setting_name(one);
		struct config_label *to = &r->config->node.labels[r->config->node.n_labels];
		if (!value || text_fault(&label, value) || strlen(value) >= sizeof(to->value) ||
		    strlen(name) >= sizeof(to->key)) {
			reading_error(r, line_of(one), "node.labels.%.64s: must be a short name in quotes", name);
			continue;
		}
		snprintf(to->key, sizeof(to->key), "%s", name);
		snprintf(to->value, sizeof(to->value), "%s", value);
		r->config->node.n_labels++;
	}
}

/* Has what stands behind the scheme of a URL a port? */
static bool authority_has_port(const char *authority)
{
	const char *colon = strrchr(authority, ':');
	return colon && !strchr(colon, ']');
}

/* What is wrong with a URL of etcd; NULL: nothing. */
static const char *endpoint_fault(const char *url, bool *has_port)
{
	char authority[CONFIG_TEXT_MAX];
	if (!url || !text_is_printable(url))
		return "must be a text in quotes, as in \"http://127.0.0.1:2379\"";
	if (strlen(url) >= CONFIG_TEXT_MAX)
		return "is too long";
	bool is_https = strncmp(url, "https://", 8) == 0;
	if (!is_https && strncmp(url, "http://", 7) != 0)
		return "must be a URL that begins with http:// or https://";
	snprintf(authority, sizeof(authority), "%s", url + (is_https ? 8 : 7));
	size_t len = strcspn(authority, "/");
	if (authority[len] == '/' && authority[len + 1] != '\0')
		return "must have no path";
	authority[len] = '\0';
	*has_port = authority_has_port(authority);
	if (authority[0] == '\0')
		return "must have a host, as in \"http://127.0.0.1:2379\"";
	return *has_port ? config_address_fault(authority) : NULL;
}

static void read_endpoints(struct reading *r, config_setting_t *s)
{
	int n = config_setting_length(s);
	if (!config_setting_is_array(s) && !config_setting_is_list(s)) {
		reading_error(r, line_of(s), "metadata.endpoints: must be a list, as in [\"http://127.0.0.1:2379\"]");
		return;
	}
	if (n > (int)CONFIG_ENDPOINTS_MAX) {
		reading_error(r, line_of(s), "metadata.endpoints: has %d members, at most %u are used", n,
			      CONFIG_ENDPOINTS_MAX);
		return;
	}
	for (int i = 0; i < n; i++) {
		config_setting_t *one = config_setting_get_elem(s, (unsigned)i);
		const char *url = config_setting_get_string(one);
		char *to = r->config->metadata.endpoints[r->config->metadata.n_endpoints];
		bool has_port = false;
		const char *fault = endpoint_fault(url, &has_port);
		int line = line_of(one) > 0 ? line_of(one) : line_of(s);
		if (fault) {
			reading_error(r, line, "metadata.endpoints: member %d %s", i + 1, fault);
			continue;
		}
		if (!has_port)
			reading_warning(
			    r, line,
			    "metadata.endpoints: member %d has no port, so that of HTTP is taken; etcd's own is "
			    "2379",
			    i + 1);
		snprintf(to, CONFIG_TEXT_MAX, "%s", url);
		r->config->metadata.n_endpoints++;
	}
}

/* ---- groups ---- */

static const struct key *key_find(const char *group, const char *name)
{
	for (size_t i = 0; i < array_size(keys); i++) {
		if (strcmp(keys[i].group, group) == 0 && (!name || strcmp(keys[i].name, name) == 0))
			return &keys[i];
	}
	return NULL;
}

/* Letters to be put in, left out or changed between two words, at most KEY_WORD_MAX long; else more than any. */
#define KEY_WORD_MAX 24u
static unsigned words_distance(const char *a, const char *b)
{
	size_t n_a = strlen(a), n_b = strlen(b);
	unsigned row[KEY_WORD_MAX + 1];
	if (n_a > KEY_WORD_MAX || n_b > KEY_WORD_MAX)
		return UINT32_MAX;
	for (size_t j = 0; j <= n_b; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= n_a; i++) {
		unsigned before = row[0]; /* of the row above, one column to the left */
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= n_b; j++) {
			unsigned above = row[j], change = before + (a[i - 1] != b[j - 1]);
			unsigned shift = (above < row[j - 1] ? above : row[j - 1]) + 1;
			row[j] = change < shift ? change : shift;
			before = above;
		}
	}
	return row[n_b];
}

struct nearest_key {
	const char *typed, *word; /* word NULL: none is near */
	unsigned distance;
};

/* Near is at most one letter in four, and one more. */
static void nearest_offer(struct nearest_key *n, const char *word)
{
	unsigned distance = words_distance(n->typed, word);
	if (distance > 1 + strlen(n->typed) / 4 || (n->word && distance >= n->distance))
		return;
	n->word = word;
	n->distance = distance;
}

/* The key of the group that is a list, and not in the table; NULL: it has none. */
static const char *list_of_group(const char *group)
{
	return strcmp(group, "node") == 0 ? "labels" : strcmp(group, "metadata") == 0 ? "endpoints" : NULL;
}

static void say_unknown_key(struct reading *r, const char *group, config_setting_t *s)
{
	const char *list = list_of_group(group);
	struct nearest_key nearest = {.typed = config_setting_name(s)};
	if (list)
		nearest_offer(&nearest, list);
	char all[256] = "";
	for (size_t i = 0; i < array_size(keys); i++) {
		if (strcmp(keys[i].group, group) != 0)
			continue;
		snprintf(all + strlen(all), sizeof(all) - strlen(all), " %s", keys[i].name);
		nearest_offer(&nearest, keys[i].name);
	}
	if (nearest.word)
		reading_error(r, line_of(s), "%s.%.64s: unknown key; did you mean %s.%s?", group, nearest.typed, group,
			      nearest.word);
	else
		reading_error(r, line_of(s), "%s.%.64s: unknown key; %s has:%s%s%s", group, nearest.typed, group, all,
			      list ? " " : "", list ? list : "");
}

static void say_unknown_group(struct reading *r, config_setting_t *s)
{
	struct nearest_key nearest = {.typed = config_setting_name(s)};
	for (size_t i = 0; i < array_size(keys); i++)
		nearest_offer(&nearest, keys[i].group);
	if (nearest.word)
		reading_error(r, line_of(s), "%.64s: unknown key; did you mean %s?", nearest.typed, nearest.word);
	else
		reading_error(r, line_of(s),
			      "%.64s: unknown key; there are: node control peer cluster metadata nbd vhost log",
			      nearest.typed);
}

static void read_group(struct reading *r, config_setting_t *group)
{
	const char *name = config_setting_name(group);
	if (!key_find(name, NULL)) {
		say_unknown_group(r, group);
		return;
	}
	if (!config_setting_is_group(group)) {
		reading_error(r, line_of(group), "%s: must be a group, as in %s = { ... };", name, name);
		return;
	}
	for (int i = 0; i < config_setting_length(group); i++) {
		config_setting_t *s = config_setting_get_elem(group, (unsigned)i);
		const struct key *k = key_find(name, config_setting_name(s));
		if (k) {
			r->config->lines[k - keys] = line_of(s);
			read_key(r, k, s);
		} else if (strcmp(name, "node") == 0 && strcmp(config_setting_name(s), "labels") == 0)
			read_labels(r, s);
		else if (strcmp(name, "metadata") == 0 && strcmp(config_setting_name(s), "endpoints") == 0)
			read_endpoints(r, s);
		else
			say_unknown_key(r, name, s);
	}
}

int config_line(const struct config *config, const char *key)
{
	const char *point = strchr(key, '.');
	quarry_assert(point);
	size_t len = (size_t)(point - key);
	for (size_t i = 0; i < array_size(keys); i++) {
		if (strlen(keys[i].group) == len && strncmp(keys[i].group, key, len) == 0 &&
		    strcmp(keys[i].name, point + 1) == 0)
			return config->lines[i];
	}
	quarry_assert(!"a key of the table");
	return 0;
}

/* ---- rules between keys ---- */

static void check_control(struct reading *r)
{
	const struct config *c = r->config;
	int line = line_of_key(r, "control.listen");
	if (c->control.socket[0] == '\0' && c->control.listen[0] == '\0')
		reading_error(r, line_of_key(r, "control.socket"),
			      "control.socket: without it and control.listen nobody can give orders");
	if (c->control.tls != CONFIG_TLS_OFF && c->control.cert_dir[0] == '\0')
		reading_error(r, line_of_key(r, "control.tls"),
			      "control.tls: needs control.cert_dir with server-cert.pem and server-key.pem");
	if (c->control.listen[0] == '\0')
		return;
	if (c->control.token_file[0] == '\0')
		reading_error(r, line, "control.listen: needs control.token_file, which holds the bearer token");
	if (c->control.tls == CONFIG_TLS_OFF && !config_address_is_loopback(c->control.listen))
		reading_error(r, line, "control.listen: needs control.tls = \"on\" except on a loopback address");
}

static void check_nbd(struct reading *r)
{
	const struct config *c = r->config;
	if (c->nbd.tls != CONFIG_TLS_OFF && c->nbd.cert_dir[0] == '\0' && c->nbd.psk_file[0] == '\0')
		reading_error(r, line_of_key(r, "nbd.tls"), "nbd.tls: needs nbd.cert_dir or nbd.psk_file");
	if (c->nbd.tls == CONFIG_TLS_OFF && c->nbd.cert_dir[0] != '\0')
		reading_warning(r, line_of_key(r, "nbd.cert_dir"),
				"nbd.cert_dir: has no effect while nbd.tls is \"off\": clients are not encrypted");
	if (c->nbd.tls == CONFIG_TLS_OFF && c->nbd.psk_file[0] != '\0')
		reading_warning(r, line_of_key(r, "nbd.psk_file"),
				"nbd.psk_file: has no effect while nbd.tls is \"off\": clients are not encrypted");
	if (c->nbd.socket[0] != '\0' && strcmp(c->nbd.socket, c->control.socket) == 0)
		reading_error(r, line_of_key(r, "nbd.socket"), "nbd.socket: is control.socket too; give each its own");
	if (c->nbd.listen[0] != '\0' && strcmp(c->nbd.listen, c->control.listen) == 0)
		reading_error(r, line_of_key(r, "nbd.listen"), "nbd.listen: is control.listen too; give each its own");
}

static void check_vhost(struct reading *r)
{
	static const char shortest[] = "/v.sock";
	const char *dir = r->config->vhost.dir;
	if (strlen(dir) + strlen(shortest) >= CONFIG_SOCKET_MAX)
		reading_warning(
		    r, line_of_key(r, "vhost.dir"),
		    "vhost.dir: no volume can be attached over vhost-user: DIR/NAME.sock has at most %u bytes",
		    CONFIG_SOCKET_MAX - 1);
}

static bool endpoints_use_tls(const struct config *c)
{
	for (uint32_t i = 0; i < c->metadata.n_endpoints; i++) {
		if (strncmp(c->metadata.endpoints[i], "https://", 8) != 0)
			return false;
	}
	return c->metadata.n_endpoints > 0;
}

static void check_metadata(struct reading *r)
{
	const struct config *c = r->config;
	bool is_etcd = c->metadata.backend == CONFIG_ETCD;
	const char *files[][2] = {
	    {"ca_file", c->metadata.ca_file},
	    {"cert_file", c->metadata.cert_file},
	    {"key_file", c->metadata.key_file},
	    {"user", c->metadata.user},
	    {"password_file", c->metadata.password_file},
	};
	for (size_t i = 0; i < array_size(files); i++) {
		char path[40];
		snprintf(path, sizeof(path), "metadata.%s", files[i][0]);
		if (files[i][1][0] == '\0')
			continue;
		if (!is_etcd)
			reading_error(r, line_of_key(r, path), "%s: goes with backend = \"etcd\" only", path);
		else if (i < 3 && !endpoints_use_tls(c))
			reading_error(r, line_of_key(r, path), "%s: needs endpoints that begin with https://", path);
	}
	if ((c->metadata.cert_file[0] == '\0') != (c->metadata.key_file[0] == '\0'))
		reading_error(r, line_of_key(r, "metadata"), "metadata: cert_file and key_file go together");
	if ((c->metadata.user[0] == '\0') != (c->metadata.password_file[0] == '\0'))
		reading_error(r, line_of_key(r, "metadata"), "metadata: user and password_file go together");
	if (is_etcd && c->metadata.n_endpoints == 0)
		reading_error(r, line_of_key(r, "metadata.backend"),
			      "metadata.backend: \"etcd\" needs endpoints, as in [\"http://127.0.0.1:2379\"]");
	if (!is_etcd && c->metadata.n_endpoints > 0)
		reading_error(r, line_of_key(r, "metadata.endpoints"),
			      "metadata.endpoints: go with backend = \"etcd\" only");
}

/* Who has the cluster's key can do everything with the disks of its nodes; without one, whoever reaches the address. */
static void check_peer(struct reading *r)
{
	const struct config *c = r->config;
	int line = line_of_key(r, "peer.listen");
	bool is_insecure = c->peer.insecure && c->peer.key_file[0] == '\0';
	if (c->peer.listen[0] == '\0' && c->peer.key_file[0] != '\0')
		reading_warning(r, line_of_key(r, "peer.key_file"),
				"peer.key_file: has no effect without peer.listen: other nodes cannot reach this one");
	if (c->peer.listen[0] == '\0')
		return;
	if (config_address_is_any(c->peer.listen))
		reading_error(r, line,
			      "peer.listen: other nodes connect to this very address: give one of this node's, as in "
			      "\"10.0.0.1:9751\"");
	if (c->metadata.backend != CONFIG_ETCD)
		reading_error(r, line, "peer.listen: goes with metadata.backend = \"etcd\" only");
	if (c->peer.key_file[0] == '\0' && !is_insecure)
		reading_error(r, line, "peer.listen: needs peer.key_file, which holds the cluster's key");
	if (is_insecure && !config_address_is_loopback(c->peer.listen))
		reading_error(r, line,
			      "peer.listen: needs peer.key_file: peer.insecure is for a loopback address only");
	if (strcmp(c->peer.listen, c->nbd.listen) == 0 || strcmp(c->peer.listen, c->control.listen) == 0)
		reading_error(r, line, "peer.listen: is nbd.listen or control.listen too; give each its own");
}

/* What this release does not have. */
static void check_honoured(struct reading *r)
{
	const struct config *c = r->config;
	if (c->node.reactors > 1)
		reading_error(r, line_of_key(r, "node.reactors"),
			      "node.reactors: more than 1 is not available in this release");
	if (c->cluster.replica_timeout_ms >= c->cluster.lease_ms)
		reading_error(r, line_of_key(r, "cluster.replica_timeout_ms"),
			      "cluster.replica_timeout_ms: must be below cluster.lease_ms (%llu)",
			      (unsigned long long)c->cluster.lease_ms);
}

/* ---- entry points ---- */

/* The line of an @include, 0: there is none. One file is all there is, so that its lines are what messages name. */
static int line_of_include(const char *text)
{
	int line = 1;
	for (const char *c = text; c; line++) {
		c += strspn(c, " \t");
		if (strncmp(c, "@include", 8) == 0)
			return line;
		c = strchr(c, '\n');
		c = c ? c + 1 : NULL;
	}
	return 0;
}

static void read_tree(struct reading *r)
{
	for (int i = 0; i < config_setting_length(r->root); i++)
		read_group(r, config_setting_get_elem(r->root, (unsigned)i));
	unsigned n_before_rules = r->report->n_errors;
	if (!config_setting_lookup(r->root, "node.name"))
		reading_error(r, line_of_key(r, "node"),
			      "node.name: is missing; every node needs a name: node = { name = \"n1\"; };");
	/* Rules between keys judge values that hold by themselves. */
	if (n_before_rules > 0)
		return;
	check_control(r);
	check_nbd(r);
	check_vhost(r);
	check_metadata(r);
	check_peer(r);
	check_honoured(r);
}

/* With the line's text: what is wrong often stands at the end of the line before, as a semicolon that is missing. */
static void say_syntax_error(struct reading *r, const char *text, int line, const char *fault)
{
	char shown[80];
	size_t n = 0;
	if (strcmp(fault, "syntax error") != 0) {
		reading_error(r, line, "%s", fault);
		return;
	}
	for (int i = 1; i < line && *text; i++) {
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	text += strspn(text, " \t");
	for (; n < sizeof(shown) - 1 && text[n] && text[n] != '\n'; n++)
		shown[n] = iscntrl((unsigned char)text[n]) ? '?' : text[n];
	shown[n] = '\0';
	if (n > 0)
		reading_error(r, line, "%s at or before: %s (a setting is NAME = VALUE; and texts stand in quotes)",
			      fault, shown);
	else
		reading_error(r, line,
			      "%s at or before the end: is a bracket or quote still open, or a semicolon missing?",
			      fault);
}

int config_parse(const char *name, const char *text, struct config *out, struct config_report *report)
{
	config_t tree;
	struct reading r = {.file = name, .config = out, .report = report};
	report->n_errors = report->n_warnings = 0;
	config_defaults(out);
	if (line_of_include(text) > 0) {
		reading_error(&r, line_of_include(text), "@include is not supported");
		return -EINVAL;
	}
	config_init(&tree);
	if (config_read_string(&tree, text) == CONFIG_TRUE) {
		r.root = config_root_setting(&tree);
		read_tree(&r);
	} else {
		say_syntax_error(&r, text, config_error_line(&tree), config_error_text(&tree));
	}
	config_destroy(&tree);
	return report->n_errors > 0 ? -EINVAL : 0;
}

/* The whole file as a text; NULL and errno. */
static char *file_text(const char *path)
{
	struct stat st;
	char *text = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) < 0)
		goto out;
	errno = S_ISDIR(st.st_mode)                         ? EISDIR
		: !S_ISREG(st.st_mode)                      ? EINVAL
		: st.st_size > (off_t)CONFIG_FILE_BYTES_MAX ? EFBIG
							    : 0;
	if (errno != 0)
		goto out;
	text = calloc(1, (size_t)st.st_size + 1);
	if (text && pread(fd, text, (size_t)st.st_size, 0) != st.st_size) {
		free(text);
		text = NULL;
		errno = EIO;
	}
out:;
	int saved = errno;
	close(fd);
	errno = saved;
	return text;
}

int config_load(const char *path, struct config *out, struct config_report *report)
{
	char *text = file_text(path);
	if (!text) {
		int res = -errno;
		struct reading r = {.file = path, .report = report};
		report->n_errors = 0;
		reading_error(&r, 0, "cannot be read: %s", strerror(-res));
		return res;
	}
	int res = config_parse(path, text, out, report);
	free(text);
	return res;
}
