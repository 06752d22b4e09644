/*
 * client.c: requests to the daemon's control API.
 *
 * 1. The way to the daemon is decided once: --server, else --socket, else QUARRY_SOCKET, else the usual socket.
 * 2. A token is read only for --server and is sent only over TLS or to this machine.
 * 3. An answer is a JSON object of at most ANSWER_BYTES_MAX, or the call fails; its texts are not trusted by printers.
 * 4. Whoever fails here says what the user can do about it.
 */
#include "cli/client.h"

#include "cli/call.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/text.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define SOCKET_DEFAULT     "/run/quarry/control.sock"
#define CONNECT_TIMEOUT_MS 5000L
#define TIMEOUT_S          60u
#define WATCH_MS           500
#define ANSWER_BYTES_MAX   (64u << 20)
#define TOKEN_BYTES_MAX    4096u

struct client {
	CURL *curl;
	struct curl_slist *headers;
	char *base;   /* "http://localhost" or the server's URL without a slash at its end */
	char *socket; /* NULL: over TCP */
	char curl_text[CURL_ERROR_SIZE];
};

struct answer {
	char *data;
	size_t n_bytes;
	bool is_too_large;
};

/* ---- where the daemon is ---- */

static bool is_this_machine(const char *url)
{
	static const char *const hosts[] = {"http://localhost", "http://127.0.0.1", "http://[::1]"};
	for (size_t i = 0; i < array_size(hosts); i++) {
		size_t length = strlen(hosts[i]);
		if (strncmp(url, hosts[i], length) == 0 && (url[length] == '\0' || strchr(":/", url[length])))
			return true;
	}
	return false;
}

static enum status token_check(struct cli *c, const char *token, const char *from)
{
	if (*token == '\0')
		return cli_refuse(c, "local", "the token in '%s' is empty", from);
	for (const char *p = token; *p; p++) {
		if (*p <= ' ' || *p > '~')
			return cli_refuse(c, "local", "the token in '%s' has a blank or a character that is not ASCII",
					  from);
	}
	return DONE;
}

/* Reads the token file, without the line's end. */
static enum status token_read(struct cli *c, const char *path, char token[static TOKEN_BYTES_MAX])
{
	FILE *file = fopen(path, "re");
	if (!file)
		return cli_refuse(c, "local", "cannot read the token file '%s': %s", path, strerror(errno));
	size_t n = fread(token, 1, TOKEN_BYTES_MAX, file);
	fclose(file);
	if (n == TOKEN_BYTES_MAX)
		return cli_refuse(c, "local", "the token file '%s' is too large to be one", path);
	token[n] = '\0';
	token[strcspn(token, "\r\n")] = '\0';
	return token_check(c, token, path);
}

static void header_add(struct client *client, const char *header)
{
	struct curl_slist *longer = curl_slist_append(client->headers, header);
	if (!longer)
		abort();
	client->headers = longer;
}

static enum status token_use(struct cli *c)
{
	char token[TOKEN_BYTES_MAX];
	const char *path = call_text(c->call, "token-file"), *environment = getenv("QUARRY_TOKEN");
	enum status status = DONE;
	if (path) {
		status = token_read(c, path, token);
	} else if (environment) {
		status = token_check(c, environment, "QUARRY_TOKEN");
		snprintf(token, sizeof(token), "%s", environment);
	} else {
		return DONE;
	}
	if (status != DONE)
		return status;
	if (strncmp(c->client->base, "https://", strlen("https://")) != 0 && !is_this_machine(c->client->base))
		return cli_refuse(c, "local", "the token is not sent unencrypted to '%s'; use https://",
				  c->client->base);
	auto_free char *header = text_format("Authorization: Bearer %s", token);
	header_add(c->client, header);
	explicit_bzero(token, sizeof(token));
	return DONE;
}

static enum status server_use(struct cli *c, const char *url)
{
	if (strncmp(url, "http://", strlen("http://")) != 0 && strncmp(url, "https://", strlen("https://")) != 0)
		return cli_misuse(c, "--server '%s' is not a URL like https://HOST:PORT", url);
	if (call_has(c->call, "socket"))
		return cli_misuse(c, "--socket and --server exclude each other");
	c->client->base = text_format("%s", url);
	for (size_t n = strlen(c->client->base); n > 0 && c->client->base[n - 1] == '/'; n--)
		c->client->base[n - 1] = '\0';
	if (call_has(c->call, "ca-file"))
		curl_easy_setopt(c->client->curl, CURLOPT_CAINFO, call_text(c->call, "ca-file"));
	return token_use(c);
}

static enum status socket_use(struct cli *c)
{
	const char *path = call_text(c->call, "socket");
	if (!path)
		path = getenv("QUARRY_SOCKET");
	if (!path || !*path)
		path = SOCKET_DEFAULT;
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return cli_refuse(c, "local", "the socket path '%s' is too long; a unix socket's has at most %zu bytes",
				  path, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
	c->client->base = text_format("http://localhost");
	c->client->socket = text_format("%s", path);
	curl_easy_setopt(c->client->curl, CURLOPT_UNIX_SOCKET_PATH, path);
	curl_easy_setopt(c->client->curl, CURLOPT_PROXY, "");
	return DONE;
}

static enum status client_create(struct cli *c)
{
	c->client = calloc(1, sizeof(*c->client));
	if (!c->client)
		abort();
	c->client->curl = curl_easy_init();
	if (!c->client->curl)
		abort();
	header_add(c->client, "Content-Type: application/json");
	header_add(c->client, "Expect:");
	const char *server = call_text(c->call, "server");
	return server ? server_use(c, server) : socket_use(c);
}

void client_destroy(struct client *client)
{
	if (!client)
		return;
	curl_slist_free_all(client->headers);
	curl_easy_cleanup(client->curl);
	free(client->base);
	free(client->socket);
	free(client);
}

bool client_is_remote(const struct cli *c)
{
	return call_has(c->call, "server");
}

char *client_host(const struct cli *c)
{
	const char *host = strstr(c->client->base, "://") + 3;
	size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	return text_format("%.*s", (int)n, host);
}

char *api_path(const char *prefix, const char *name, const char *suffix)
{
	char *encoded = curl_easy_escape(NULL, name, 0);
	if (!encoded)
		abort();
	char *path = text_format("%s%s%s", prefix, encoded, suffix);
	curl_free(encoded);
	return path;
}

/* ---- what went wrong ---- */

static enum status socket_failed(struct cli *c, long os_error)
{
	const char *path = c->client->socket;
	if (os_error == ENOENT)
		return cli_refuse(
		    c, "unreachable",
		    "there is no quarryd at '%s'; start it (systemctl start quarryd), or name its control socket "
		    "with --socket or QUARRY_SOCKET",
		    path);
	if (os_error == EACCES || os_error == EPERM)
		return cli_refuse(
		    c, "unreachable",
		    "no permission to use '%s'; run this as root, or as a member of the group that owns the socket",
		    path);
	if (os_error == ECONNREFUSED)
		return cli_refuse(c, "unreachable",
				  "nobody answers at '%s': quarryd has ended; start it (systemctl start quarryd)",
				  path);
	return cli_refuse(c, "unreachable", "cannot connect to '%s': %s", path,
			  os_error ? strerror((int)os_error) : c->client->curl_text);
}

static enum status transfer_failed(struct cli *c, CURLcode code, const struct answer *answer)
{
	long os_error = 0;
	const struct client *client = c->client;
	const char *where = client->socket ? client->socket : client->base;
	const char *text = *client->curl_text ? client->curl_text : curl_easy_strerror(code);
	curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &os_error);
	if (answer->is_too_large)
		return cli_refuse(c, "unreachable", "the answer from '%s' is too large; is this quarryd?", where);
	if (code == CURLE_COULDNT_CONNECT && client->socket)
		return socket_failed(c, os_error);
	if (code == CURLE_OPERATION_TIMEDOUT)
		return cli_refuse(
		    c, "unreachable",
		    "no answer from quarryd at '%s' in time; it may still carry the command out: see 'quarry status' "
		    "and its log",
		    where);
	if (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR)
		return cli_refuse(
		    c, "unreachable",
		    "quarryd at '%s' ended the connection before its answer; whether the command was carried out is "
		    "not known: it may be repeated",
		    where);
	if (code == CURLE_PEER_FAILED_VERIFICATION)
		return cli_refuse(c, "unreachable",
				  "the certificate of '%s' is not trusted (%s); give its authority with --ca-file",
				  where, text);
	return cli_refuse(c, "unreachable", "cannot reach quarryd at '%s': %s", where, text);
}

/* "size_bytes: must be ..." becomes "--size '1000' must be ...": who typed the option knows nothing of the key. */
static enum status key_refused(struct cli *c, const char *code, const char *message)
{
	const char *value, *rest = strstr(message, ": ");
	auto_free char *key = text_format("%.*s", rest ? (int)(rest - message) : 0, message);
	auto_free char *word = call_word_of(c->call, key, &value);
	if (!word)
		return cli_refuse(c, code, "%s", message);
	return cli_refuse(c, code, "%s '%s' %s", word, value, rest + strlen(": "));
}

/* The daemon's own words, when it gave some. */
static enum status answer_refused(struct cli *c, long http_status, const json_t *answer)
{
	const json_t *error = json_object_get(answer, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	if (http_status == 401 && client_is_remote(c))
		return cli_refuse(c, "unauthorized",
				  "'%s' wants another token; give it with --token-file or QUARRY_TOKEN",
				  c->client->base);
	if (code && message)
		return strcmp(code, "invalid") == 0 ? key_refused(c, code, message)
						    : cli_refuse(c, code, "%s", message);
	return cli_refuse(c, "unreachable", "'%s' answered with HTTP status %ld and without a reason; is this quarryd?",
			  c->client->socket ? c->client->socket : c->client->base, http_status);
}

/* ---- one request ---- */

static size_t answer_take(char *data, size_t size, size_t n, void *context)
{
	struct answer *answer = context;
	quarry_assert(size == 1);
	if (n > ANSWER_BYTES_MAX - answer->n_bytes) {
		answer->is_too_large = true;
		return 0;
	}
	char *longer = realloc(answer->data, answer->n_bytes + n);
	if (!longer)
		abort();
	memcpy(longer + answer->n_bytes, data, n);
	answer->data = longer;
	answer->n_bytes += n;
	return n;
}

/* An answer that is awaited. */
struct wait {
	const struct request *request;
	CURL *curl;
	struct cli beside; /* asks meanwhile, over a connection of its own */
};

/* libcurl calls this about once a second while it waits. */
static int elapsed_show(void *context, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t e)
{
	struct wait *w = context;
	const struct request *request = w->request;
	curl_off_t elapsed_us = 0;
	char elapsed[SIZE_TEXT_BYTES];
	(void)a, (void)b, (void)d, (void)e;
	curl_easy_getinfo(w->curl, CURLINFO_TOTAL_TIME_T, &elapsed_us);
	if (elapsed_us < 1000000 || !progress_is_seen())
		return 0;
	duration_to_text((uint64_t)elapsed_us / 1000000, elapsed);
	auto_free char *how_far = request->how_far ? request->how_far(&w->beside, request) : NULL;
	progress_show("%s: %s%s%s", request->progress, how_far ? how_far : "", how_far ? ", " : "", elapsed);
	return 0;
}

static CURLcode request_send(struct cli *c, const struct request *request, struct answer *answer)
{
	struct client *client = c->client;
	auto_free char *url = text_format("%s%s", client->base, request->path);
	auto_free char *body = request->body ? json_dumps(request->body, JSON_COMPACT) : NULL;
	struct wait wait = {.request = request, .curl = client->curl, .beside = {.call = c->call}};
	unsigned timeout_s = request->timeout_s ? request->timeout_s : TIMEOUT_S;
	CURL *curl = client->curl;
	client->curl_text[0] = '\0';
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, client->headers);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, client->curl_text);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, timeout_s == TIMEOUT_NEVER_S ? 0L : (long)timeout_s);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_take);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, request->progress ? 0L : 1L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, elapsed_show);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &wait);
	curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
	if (body)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
	CURLcode code = curl_easy_perform(curl);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, NULL);
	client_destroy(wait.beside.client);
	if (request->progress)
		progress_end();
	return code;
}

enum status client_call(struct cli *c, const struct request *request, json_t **out)
{
	struct answer answer = {0};
	enum status status = c->client ? DONE : client_create(c);
	if (status != DONE)
		return status;
	quarry_assert(request->path[0] == '/');
	CURLcode code = request_send(c, request, &answer);
	if (code != CURLE_OK) {
		status = transfer_failed(c, code, &answer);
		free(answer.data);
		return status;
	}
	long http_status = 0;
	curl_easy_getinfo(c->client->curl, CURLINFO_RESPONSE_CODE, &http_status);
	json_t *value = answer.n_bytes ? json_loadb(answer.data, answer.n_bytes, 0, NULL) : NULL;
	free(answer.data);
	if (http_status < 200 || http_status > 299)
		status = answer_refused(c, http_status, value);
	else if (!json_is_object(value))
		status = cli_refuse(c, "unreachable", "the answer from '%s' is not JSON; is this quarryd?",
				    c->client->socket ? c->client->socket : c->client->base);
	if (status == DONE && out)
		*out = json_incref(value);
	json_decref(value);
	return status;
}

enum status client_get(struct cli *c, const char *path, json_t **out)
{
	return client_call(c, &(struct request){.method = "GET", .path = path}, out);
}

enum status client_watch(struct cli *c, const char *path, char *(*going_on)(const json_t *answer, const void *context),
			 const void *context, json_t **answer)
{
	enum status status = DONE;
	for (char *text; status == DONE && (text = going_on(*answer, context)) != NULL; free(text)) {
		progress_show("%s", text);
		pause_ms(WATCH_MS);
		json_decref(*answer);
		*answer = NULL;
		status = client_get(c, path, answer);
	}
	progress_end();
	return status;
}
