/*
 * control.c: the life of a request of the control API, and of the API itself.
 *
 *   libmicrohttpd's thread              |  the node's reactor
 *                                       |
 *   RECEIVE -> UNDERSTAND --suspend, post--> CARRY_OUT: a command, a look, or a wait for events
 *                  | refused            |        |   \--another node has it--> FORWARD: that node's answer is awaited
 *                  v                    |        |                               |
 *   SENT <---- ANSWER <------ resume, with a snapshot or a refusal
 *
 * Invariants
 *  1. A request belongs to one thread at a time: to libmicrohttpd's until it is posted, to the reactor until its
 *     connection is resumed, then to libmicrohttpd's again. Suspending comes before posting.
 *  2. It is freed when both have let go of it: the connection by its completion, the reactor by handing it back, or,
 *     when the command outlasts the API, by the command's end.
 *  3. Requests are bounded by the connections (CONNECTIONS_MAX on each socket, one request at a time on each), their
 *     bodies by ORDER_BODY_BYTES_MAX. A client without a whole request makes room for others (control_client.h).
 *  4. Requests are posted only while the gate is open; libmicrohttpd is stopped only when no connection is suspended.
 *  5. A request is sent on to one node, once; a look that this node can answer in part is, if that one does not. What
 *     other nodes have sent on is no request here, but an errand (errand.h).
 *  6. The API is freed by the last message that was posted to it: messages arrive in the order of posting.
 *
 * Ownership: n_posted and is_open belong to the gate's lock; the lists, n_handed_back and the stopping stage to the
 * reactor; n_open is atomic.
 */
#include "daemon/control/control.h"

#include "daemon/control/answer.h"
#include "daemon/control/control_client.h"
#include "daemon/control/control_socket.h"
#include "daemon/control/errand.h"
#include "daemon/control/forward.h"
#include "daemon/control/look.h"
#include "daemon/control/order.h"

#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX   64u        /* of each socket */
#define CONNECTIONS_SPARE 16u        /* accepted beside these, until those who make room for them are gone */
#define CONNECTION_IDLE_S 10u        /* a client that says nothing for so long is disconnected */
#define CONNECTION_BYTES  (32 * KIB) /* libmicrohttpd's memory for one: headers and what is on the way */
#define DRAIN_S           1          /* for answers to leave when the API stops */

#define REQUEST_STAGES(X) X(RECEIVE) X(UNDERSTAND) X(CARRY_OUT) X(FORWARD) X(ANSWER) X(SENT)
enum request_stage {
#define X(name) REQUEST_##name,
	REQUEST_STAGES(X)
#undef X
};

#define CONTROL_STAGES(X) X(SERVE) X(FINISH) X(DRAIN) X(CLOSE) X(END)
enum control_stage {
#define X(name) CONTROL_##name,
	CONTROL_STAGES(X)
#undef X
};

struct control_port {
	struct control *control;
	struct MHD_Daemon *daemon;
	struct control_clients clients; /* of its thread */
	bool needs_token;
};

struct control {
	struct log *log;
	struct reactor *reactor;
	const struct config *config;
	struct answer_context context;
	struct snapshot_sources sources;
	struct control_port unix_port, tcp_port;
	char token[CONTROL_TOKEN_MAX];

	pthread_mutex_t gate;
	uint64_t n_posted;
	bool is_open;

	_Atomic uint64_t n_open; /* requests between their first byte and their completion */
	_Atomic bool is_draining, is_drain_told, is_event_told;
	struct message drained, event, closed;

	/* the reactor's */
	enum control_stage stage;
	uint64_t n_handed_back;
	struct list commands; /* requests whose command is under way, here or on another node */
	struct list waiters;  /* requests that wait for events */
	struct errands errands;
	struct timer patience; /* of FINISH and DRAIN */
	bool is_patience_over, is_drained;
	void (*stopped)(void *context);
	void *stopped_context;
};

struct request {
	struct control *control;
	struct control_port *port;
	struct MHD_Connection *connection;
	enum request_stage stage;
	_Atomic int holders; /* the connection, and the reactor from posting to handing back */
	char *body;
	size_t body_bytes;
	bool is_body_too_large, is_refused;
	bool is_abandoned; /* its client was answered, its command goes on */
	struct order order;
	struct refusal refusal;
	struct snapshot snapshot;
	struct forward forward;
	struct message message;
	struct list link; /* in commands or waiters */
	struct timer wait;
};

static void control_run(struct control *c);

static uint64_t wall_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- a request's memory ---- */

static void request_release(struct request *r)
{
	int before = atomic_fetch_sub(&r->holders, 1);
	quarry_assert(before >= 1);
	if (before > 1)
		return;
	snapshot_clear(&r->snapshot);
	free(r->order.command.changes.extents);
	forward_clear(&r->forward);
	free(r->body);
	free(r);
}

static struct request *request_create(struct control_port *port, struct MHD_Connection *connection)
{
	struct request *r = calloc(1, sizeof(*r));
	struct control *c = port->control;
	if (!r)
		return NULL;
	r->control = c;
	r->port = port;
	r->connection = connection;
	r->holders = 1;
	list_init(&r->link);
	atomic_fetch_add(&c->n_open, 1);
	return r;
}

/* ---- on the reactor ---- */

/* Gives the request back to its connection. */
static void request_hand_back(struct request *r)
{
	struct MHD_Connection *connection = r->connection;
	quarry_assert(!list_is_linked(&r->link));
	r->control->n_handed_back++;
	if (!r->is_abandoned)
		request_release(r); /* the connection's hold keeps it */
	MHD_resume_connection(connection);
}

static void request_refuse_closed(struct request *r)
{
	r->is_refused = true;
	order_refuse(&r->refusal, 503, "busy", "the daemon is starting or stopping; ask again");
}

static void request_look(struct request *r)
{
	look_take(&r->order, &r->control->sources, &r->snapshot);
}

static void request_begin_command(struct request *r);

/* ---- sent on to another node ---- */

/* The other node's answer, or none. */
static void forward_done(struct forward *f, int res)
{
	struct request *r = container_of(f, struct request, forward);
	struct control *c = r->control;
	if (r->is_abandoned) {
		request_release(r);
		return;
	}
	list_remove(&r->link);
	if (res < 0 && forward_is_look(&r->order)) {
		r->stage = REQUEST_CARRY_OUT;
		if (r->order.is_command) {
			request_begin_command(r);
			return;
		}
		request_look(r);
	} else if (res < 0) {
		r->is_refused = true;
		forward_refuse(f, res, &r->refusal);
	}
	request_hand_back(r);
	control_run(c);
}

/* true: it is on its way to that node. */
static bool request_forward(struct request *r, const char *node)
{
	struct control *c = r->control;
	r->forward.done = forward_done;
	if (!forward_send(&r->forward, &c->sources, &r->order, node))
		return false;
	r->stage = REQUEST_FORWARD;
	list_append(&c->commands, &r->link);
	return true;
}

/* ---- carried out here ---- */

static void command_done(struct set_command *command, int res)
{
	struct request *r = container_of(command, struct request, order.command);
	if (r->is_abandoned) {
		request_release(r);
		return;
	}
	struct control *c = r->control;
	list_remove(&r->link);
	if (res == -EREMOTE && request_forward(r, command->node))
		return;
	if (res < 0) {
		r->is_refused = true;
		order_refusal_of(command, res, &r->refusal);
		forward_explain(&r->forward, &r->refusal);
	} else {
		request_look(r);
	}
	request_hand_back(r);
	control_run(c);
}

static void request_begin_command(struct request *r)
{
	struct control *c = r->control;
	list_append(&c->commands, &r->link);
	r->order.command.done = command_done;
	volume_set_command(c->sources.volumes, &r->order.command);
}

static bool has_events(const struct request *r)
{
	struct log_event_view next;
	return log_events(r->control->log, r->order.after, &next, 1) > 0;
}

static void waiter_end(struct request *r)
{
	quarry_assert(r->order.show == ORDER_EVENTS);
	timer_stop(r->control->reactor, &r->wait);
	list_remove(&r->link);
	request_hand_back(r);
}

static void waiter_timed_out(struct timer *t)
{
	struct request *r = container_of(t, struct request, wait);
	struct control *c = r->control;
	waiter_end(r);
	control_run(c);
}

static void request_carry_out(struct message *m)
{
	struct request *r = container_of(m, struct request, message);
	struct control *c = r->control;
	char node[SET_TEXT_MAX];
	quarry_assert(r->stage == REQUEST_CARRY_OUT && !r->is_refused);
	if (c->stage != CONTROL_SERVE) {
		request_refuse_closed(r);
		request_hand_back(r);
		control_run(c);
	} else if (c->sources.peers && look_is_elsewhere(&r->order, &c->sources, node) && request_forward(r, node)) {
		return;
	} else if (r->order.is_command) {
		request_begin_command(r);
	} else if (r->order.show == ORDER_EVENTS && r->order.wait_s > 0 && !has_events(r)) {
		list_append(&c->waiters, &r->link);
		timer_init(&r->wait, waiter_timed_out);
		timer_start(c->reactor, &r->wait, r->order.wait_s * NS_PER_S);
	} else {
		request_look(r);
		request_hand_back(r);
	}
}

/* Something was logged: on any thread, under the log's lock. */
static void event_heard(void *context)
{
	struct control *c = context;
	if (!atomic_exchange(&c->is_event_told, true))
		reactor_post(c->reactor, &c->event);
}

static void event_deliver(struct message *m)
{
	struct control *c = container_of(m, struct control, event);
	atomic_store(&c->is_event_told, false);
	list_each_safe (node, &c->waiters) {
		struct request *r = container_of(node, struct request, link);
		if (has_events(r))
			waiter_end(r);
	}
	control_run(c);
}

/* ---- on libmicrohttpd's thread ---- */

static void refuse(struct request *r, unsigned status, const char *code, const char *message)
{
	r->is_refused = true;
	order_refuse(&r->refusal, status, code, "%s", message);
}

static struct control_client *client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info ? info->socket_context : NULL;
}

static void port_connected(void *context, struct MHD_Connection *connection, void **socket_context,
			   enum MHD_ConnectionNotificationCode what)
{
	struct control_port *port = context;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
		    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		quarry_assert(info);
		*socket_context = control_client_add(&port->clients, info->connect_fd);
	} else {
		control_client_remove(&port->clients, *socket_context);
		*socket_context = NULL;
	}
}

/* The first call for a request: before its body. */
static void request_begin(struct request *r, const struct control_port *port)
{
	const char *length =
	    MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	const char *token = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
	if (port->needs_token && !control_token_matches(r->control->token, token))
		refuse(r, 401, "unauthorized", "a token is needed: Authorization: Bearer TOKEN");
	else if (length && strtoull(length, NULL, 10) > ORDER_BODY_BYTES_MAX)
		refuse(r, 413, "too-large", "the body is over 64 KiB");
}

static void request_receive(struct request *r, const char *data, size_t n)
{
	if (!r->body)
		r->body = malloc(ORDER_BODY_BYTES_MAX);
	if (!r->body || r->body_bytes + n > ORDER_BODY_BYTES_MAX) {
		r->is_body_too_large = true;
		return;
	}
	memcpy(r->body + r->body_bytes, data, n);
	r->body_bytes += n;
}

static enum MHD_Result add_query(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct order_text *text = context;
	if (text->n_queries < ORDER_QUERIES_MAX)
		text->queries[text->n_queries] = (struct order_query){name, value};
	text->n_queries++; /* more than there is room for are counted, and refused */
	return MHD_YES;
}

static void request_understand(struct request *r, const char *method, const char *path)
{
	struct order_text text = {.method = method, .path = path, .body = r->body, .body_bytes = r->body_bytes};
	if (r->is_body_too_large) {
		refuse(r, 413, "too-large", "the body is over 64 KiB");
		return;
	}
	MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, add_query, &text);
	r->is_refused = order_read(&text, &r->order, &r->refusal) < 0;
	if (!r->is_refused && r->control->sources.peers)
		forward_prepare(&r->forward, &text);
}

/* Hands the request to the reactor, if the gate is open. */
static enum flow request_post(struct request *r)
{
	struct control *c = r->control;
	pthread_mutex_lock(&c->gate);
	bool is_open = c->is_open;
	if (is_open) {
		c->n_posted++;
		atomic_fetch_add(&r->holders, 1);
		r->message.deliver = request_carry_out;
		MHD_suspend_connection(r->connection);
		reactor_post(c->reactor, &r->message);
	}
	pthread_mutex_unlock(&c->gate);
	if (is_open)
		return FLOW_WAIT;
	request_refuse_closed(r);
	return FLOW_NEXT;
}

static enum MHD_Result request_answer(struct request *r)
{
	struct refusal *why = &r->refusal;
	char *text = r->is_refused ? NULL : forward_take_answer(&r->forward);
	bool is_others = text != NULL;
	if (!text && !r->is_refused)
		text = answer_make(&r->control->context, &r->order, &r->snapshot, why);
	bool is_metrics = text && r->order.show == ORDER_METRICS;
	unsigned status = is_others ? r->forward.order.http_status : text ? r->order.status : why->status;
	if (!text)
		text = answer_refusal(why);
	if (!text)
		return MHD_NO;
	struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
				is_metrics ? "text/plain; version=0.0.4; charset=utf-8" : "application/json");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == 405)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, why->allow);
	if (status == 401)
		MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
	enum MHD_Result result = MHD_queue_response(r->connection, status, response);
	MHD_destroy_response(response);
	return result;
}

/* Every call of libmicrohttpd for a request: the whole way of it. */
static enum MHD_Result request_run(struct request *r, const char *method, const char *path, const char *data, size_t *n)
{
	for (;;) {
		switch (r->stage) {
		case REQUEST_RECEIVE:
			if (*n > 0) {
				request_receive(r, data, *n);
				*n = 0;
				return MHD_YES;
			}
			r->stage = REQUEST_UNDERSTAND;
			break;
		case REQUEST_UNDERSTAND:
			control_client_begin(&r->port->clients, client_of(r->connection));
			request_understand(r, method, path);
			r->stage = r->is_refused ? REQUEST_ANSWER : REQUEST_CARRY_OUT;
			if (r->stage == REQUEST_CARRY_OUT && request_post(r) == FLOW_WAIT)
				return MHD_YES;
			break;
		case REQUEST_CARRY_OUT: /* handed back */
		case REQUEST_FORWARD:
			r->stage = REQUEST_ANSWER;
			break;
		case REQUEST_ANSWER:
			r->stage = REQUEST_SENT;
			return request_answer(r);
		case REQUEST_SENT:
			return MHD_NO;
		}
	}
}

static enum MHD_Result port_handle(void *context, struct MHD_Connection *connection, const char *path,
				   const char *method, const char *version, const char *data, size_t *n, void **state)
{
	struct control_port *port = context;
	struct request *r = *state;
	if (r)
		return request_run(r, method, path, data, n);
	r = request_create(port, connection);
	if (!r)
		return MHD_NO;
	*state = r;
	request_begin(r, port);
	if (!r->is_refused)
		return MHD_YES;
	r->stage = REQUEST_SENT;
	return request_answer(r);
}

static void drained_tell(struct control *c)
{
	if (!atomic_exchange(&c->is_drain_told, true))
		reactor_post(c->reactor, &c->drained);
}

static void port_completed(void *context, struct MHD_Connection *connection, void **state,
			   enum MHD_RequestTerminationCode why)
{
	struct control_port *port = context;
	struct control *c = port->control;
	struct request *r = *state;
	if (!r)
		return;
	*state = NULL;
	control_client_rest(&port->clients, client_of(connection));
	request_release(r);
	if (atomic_fetch_sub(&c->n_open, 1) == 1 && atomic_load(&c->is_draining))
		drained_tell(c);
}

/* The path and the queries are decoded where they are understood, after the path was split. */
static size_t leave_encoded(void *context, struct MHD_Connection *connection, char *text)
{
	return strlen(text);
}

static void printf_like(2, 0) port_log(void *context, const char *format, va_list args)
{
	struct control *c = context;
	char text[256];
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_line(c->log, LOG_DEBUG, "control", "%s", text);
}

/* ---- start ---- */

static int port_start(struct control *c, struct control_port *port, int fd, const char *cert, const char *key)
{
	const unsigned flags =
	    MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (cert ? MHD_USE_TLS : 0);
	struct MHD_OptionItem tls[] = {
	    {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)cert},
	    {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)key},
	    {MHD_OPTION_END, 0, NULL},
	};
	if (!cert)
		tls[0].option = MHD_OPTION_END;
	port->control = c;
	control_clients_init(&port->clients, CONNECTIONS_MAX);
	port->daemon = MHD_start_daemon(
	    flags, 0, NULL, NULL, port_handle, port, MHD_OPTION_EXTERNAL_LOGGER, port_log, c, MHD_OPTION_LISTEN_SOCKET,
	    fd, MHD_OPTION_NOTIFY_COMPLETED, port_completed, port, MHD_OPTION_NOTIFY_CONNECTION, port_connected, port,
	    MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX + CONNECTIONS_SPARE, MHD_OPTION_CONNECTION_TIMEOUT,
	    CONNECTION_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
	    MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded, NULL, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
	return port->daemon ? 0 : -EIO;
}

static int unix_start(struct control *c, char why[static CONTROL_WHY_BYTES])
{
	int fd = control_socket_unix(c->config->control.socket, why);
	if (fd < 0)
		return fd;
	int res = port_start(c, &c->unix_port, fd, NULL, NULL);
	if (res < 0) {
		close(fd);
		unlink(c->config->control.socket);
		snprintf(why, CONTROL_WHY_BYTES, "control.socket: the HTTP server does not start");
	}
	return res;
}

/* A file of control.cert_dir; an empty text when TLS is off. NULL with why. */
static char *cert_file(const struct config *config, const char *name, char why[static CONTROL_WHY_BYTES])
{
	char path[CONFIG_TEXT_MAX + 32];
	if (config->control.tls == CONFIG_TLS_OFF)
		return strdup("");
	snprintf(path, sizeof(path), "%s/%s", config->control.cert_dir, name);
	return control_file_read("control.cert_dir", path, why);
}

static int tcp_start(struct control *c, char why[static CONTROL_WHY_BYTES])
{
	int res = control_token_read(c->config->control.token_file, c->token, why);
	if (res < 0)
		return res;
	char *cert = cert_file(c->config, "server-cert.pem", why), *key = cert_file(c->config, "server-key.pem", why);
	int fd = cert && key ? control_socket_tcp(c->config->control.listen, why) : -EINVAL;
	res = fd < 0 ? fd : 0;
	c->tcp_port.needs_token = true;
	if (res == 0 && port_start(c, &c->tcp_port, fd, cert[0] ? cert : NULL, key[0] ? key : NULL) < 0) {
		snprintf(why, CONTROL_WHY_BYTES, "control.listen: the HTTP server does not start%s",
			 cert[0] ? "; do server-cert.pem and server-key.pem fit together?" : "");
		close(fd);
		res = -EIO;
	}
	if (key)
		explicit_bzero(key, strlen(key));
	free(key);
	free(cert);
	return res;
}

static void port_stop(struct control_port *port)
{
	if (port->daemon)
		MHD_stop_daemon(port->daemon);
	port->daemon = NULL;
}

static void ports_stop(struct control *c)
{
	quarry_assert(c->n_posted == c->n_handed_back);
	port_stop(&c->tcp_port);
	if (c->unix_port.daemon)
		unlink(c->config->control.socket);
	port_stop(&c->unix_port);
}

static void control_destroy(struct control *c)
{
	quarry_assert(list_is_empty(&c->waiters) && list_is_empty(&c->commands) && list_is_empty(&c->errands.all));
	quarry_assert(!c->tcp_port.daemon && !c->unix_port.daemon);
	pthread_mutex_destroy(&c->gate);
	explicit_bzero(c->token, sizeof(c->token));
	free(c);
}

static void gate_set(struct control *c, bool is_open)
{
	pthread_mutex_lock(&c->gate);
	c->is_open = is_open;
	pthread_mutex_unlock(&c->gate);
}

static void patience_over(struct timer *t)
{
	struct control *c = container_of(t, struct control, patience);
	c->is_patience_over = true;
	control_run(c);
}

static void drained_deliver(struct message *m)
{
	struct control *c = container_of(m, struct control, drained);
	c->is_drained = true;
	control_run(c);
}

static void closed_deliver(struct message *m)
{
	struct control *c = container_of(m, struct control, closed);
	void (*stopped)(void *context) = c->stopped;
	void *context = c->stopped_context;
	quarry_assert(c->stage == CONTROL_END);
	control_destroy(c);
	stopped(context);
}

static void errands_idle(struct errands *e)
{
	control_run(container_of(e, struct control, errands));
}

void control_take_order(struct control *c, struct peer_order *o)
{
	errands_take(&c->errands, o);
}

int control_start(const struct control_options *o, char why[static CONTROL_WHY_BYTES], struct control **out)
{
	struct control *c = calloc(1, sizeof(*c));
	int res = 0;
	if (!c) {
		snprintf(why, CONTROL_WHY_BYTES, "no memory for the control API");
		return -ENOMEM;
	}
	c->log = o->log;
	c->reactor = o->sources.reactor;
	c->config = o->config;
	c->sources = o->sources;
	c->context = (struct answer_context){
	    .config = o->config, .log = o->log, .started_wall_ns = o->started_wall_ns, .wall_ns = wall_now_ns};
	pthread_mutex_init(&c->gate, NULL);
	list_init(&c->commands);
	list_init(&c->waiters);
	timer_init(&c->patience, patience_over);
	errands_init(&c->errands, &c->context, &c->sources, errands_idle);
	c->drained.deliver = drained_deliver;
	c->event.deliver = event_deliver;
	c->closed.deliver = closed_deliver;
	if (o->config->control.socket[0])
		res = unix_start(c, why);
	if (res == 0 && o->config->control.listen[0])
		res = tcp_start(c, why);
	if (res < 0) {
		ports_stop(c);
		control_destroy(c);
		return res;
	}
	log_on_event(c->log, event_heard, c);
	gate_set(c, true);
	*out = c;
	return 0;
}

/* ---- stop ---- */

static bool has_suspended(struct control *c)
{
	pthread_mutex_lock(&c->gate);
	uint64_t n_posted = c->n_posted;
	pthread_mutex_unlock(&c->gate);
	quarry_assert(n_posted >= c->n_handed_back);
	return n_posted > c->n_handed_back;
}

/* Tells the clients of commands that take long to ask again; the commands go on. */
static void commands_abandon(struct control *c)
{
	struct list *node;
	while ((node = list_pop(&c->commands)) != NULL) {
		struct request *r = container_of(node, struct request, link);
		request_refuse_closed(r);
		r->is_abandoned = true;
		request_hand_back(r);
	}
}

static enum flow control_finish(struct control *c)
{
	if (c->is_patience_over) {
		commands_abandon(c);
		errands_abandon(&c->errands);
	}
	return has_suspended(c) || !list_is_empty(&c->errands.all) ? FLOW_WAIT : FLOW_NEXT;
}

static void control_begin_drain(struct control *c)
{
	timer_stop(c->reactor, &c->patience);
	c->is_patience_over = false;
	timer_start(c->reactor, &c->patience, DRAIN_S * NS_PER_S);
	atomic_store(&c->is_draining, true);
	if (atomic_load(&c->n_open) == 0)
		drained_tell(c);
}

/* The stopping of the API; does nothing while it serves. */
static void control_run(struct control *c)
{
	for (;;) {
		switch (c->stage) {
		case CONTROL_SERVE:
			return;
		case CONTROL_FINISH: /* what is on the reactor comes back, or is given up */
			if (control_finish(c) == FLOW_WAIT)
				return;
			c->stage = CONTROL_DRAIN;
			control_begin_drain(c);
			break;
		case CONTROL_DRAIN: /* answers leave */
			if (!c->is_drained && !c->is_patience_over)
				return;
			c->stage = CONTROL_CLOSE;
			break;
		case CONTROL_CLOSE:
			timer_stop(c->reactor, &c->patience);
			ports_stop(c);
			c->stage = CONTROL_END;
			reactor_post(c->reactor, &c->closed);
			return;
		case CONTROL_END:
			return;
		}
	}
}

void control_stop(struct control *c, void (*stopped)(void *context), void *context)
{
	quarry_assert(c->stage == CONTROL_SERVE);
	c->stopped = stopped;
	c->stopped_context = context;
	log_on_event(c->log, NULL, NULL);
	gate_set(c, false);
	errands_close(&c->errands);
	c->stage = CONTROL_FINISH;
	timer_start(c->reactor, &c->patience, CONTROL_GRACE_S * NS_PER_S);
	list_each_safe (node, &c->waiters)
		waiter_end(container_of(node, struct request, link));
	control_run(c);
}
