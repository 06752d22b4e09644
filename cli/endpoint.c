/*
 * endpoint.c: one side of a copy.
 *
 * 1. A file's operations are done when the call returns; those over NBD when endpoint_polled() has met their replies.
 * 2. libnbd's callbacks only mark the op: they run inside libnbd, from where it must not be called.
 *       3. Nothing a server says about holes is believed beyond what was asked, and an answer without progress is an
 *          error.
 */
#include "cli/endpoint.h"

#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATUS_BYTES_MAX (1ull << 30) /* of one question about holes: well below the 32 bits that servers take */

/* ---- open and close ---- */

static void endpoint_begin(struct endpoint *e, const char *name)
{
	*e = (struct endpoint){.name = text_format("%s", name), .fd = -1, .knows_holes = true, .can_zero = true};
}

static enum status nbd_failed(struct cli *c, const struct endpoint *e, const char *what)
{
	const char *why = nbd_get_error();
	return cli_refuse(c, "io-error", "cannot %s '%s': %s", what, e->name, why ? why : "unknown error");
}

/* After the connection stands: its size, and whether it tells about holes. */
static enum status nbd_look(struct cli *c, struct endpoint *e)
{
	int64_t size = nbd_get_size(e->nbd);
	if (size < 0)
		return nbd_failed(c, e, "learn the size of");
	e->size_bytes = (uint64_t)size;
	e->knows_holes = nbd_can_meta_context(e->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	e->can_zero = nbd_can_zero(e->nbd) == 1;
	return DONE;
}

static enum status nbd_begin(struct cli *c, struct endpoint *e)
{
	e->nbd = nbd_create();
	e->fd = eventfd(1, EFD_CLOEXEC);
	if (e->fd < 0)
		return cli_refuse(c, "local", "cannot wait for '%s': %s", e->name, strerror(errno));
	if (!e->nbd || nbd_add_meta_context(e->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)
		return nbd_failed(c, e, "prepare a connection to");
	return DONE;
}

/* ---- TLS to quarryd: its address comes from itself, so what a client needs beside it comes from the environment ---- */

struct tls {
	const char *cert_dir, *psk_file; /* at most one is set */
};

static struct tls tls_find(void)
{
	const char *cert_dir = getenv("QUARRY_NBD_CERT_DIR"), *psk_file = getenv("QUARRY_NBD_PSK_FILE");
	if (cert_dir && *cert_dir)
		return (struct tls){.cert_dir = cert_dir};
	return (struct tls){.psk_file = psk_file && *psk_file ? psk_file : NULL};
}

static bool uri_has_tls(const char *uri)
{
	return strncmp(uri, "nbds", strlen("nbds")) == 0;
}

/* The name on the first line of a file of names with keys: "NAME:KEY"; to be freed. NULL: there is none. */
static char *psk_name(const char *path)
{
	char line[512];
	FILE *file = fopen(path, "re");
	bool has_line = file && fgets(line, sizeof(line), file);
	if (file)
		fclose(file);
	char *colon = has_line ? strchr(line, ':') : NULL;
	char *name = colon && colon > line ? text_format("%.*s", (int)(colon - line), line) : NULL;
	explicit_bzero(line, sizeof(line));
	return name;
}

/* Can a file of the folder be read? The client's own may be missing: not every server asks for them. */
static enum status cert_check(struct cli *c, const char *dir, const char *name, bool may_be_missing, bool *is_there)
{
	auto_free char *path = text_format("%s/%s", dir, name);
	*is_there = access(path, R_OK) == 0;
	if (*is_there || (may_be_missing && errno == ENOENT))
		return DONE;
	return cli_refuse(
	    c, "local",
	    "QUARRY_NBD_CERT_DIR: cannot read '%s': %s; the folder needs the authority's ca-cert.pem, and where "
	    "the server asks for a client's, client-cert.pem and client-key.pem",
	    path, strerror(errno));
}

static enum status cert_dir_check(struct cli *c, const char *dir)
{
	bool has_ca = false, has_cert = false, has_key = false;
	enum status status = cert_check(c, dir, "ca-cert.pem", false, &has_ca);
	if (status == DONE)
		status = cert_check(c, dir, "client-cert.pem", true, &has_cert);
	if (status == DONE)
		status = cert_check(c, dir, "client-key.pem", !has_cert, &has_key);
	if (status == DONE && has_key && !has_cert)
		status = cert_check(c, dir, "client-cert.pem", false, &has_cert);
	return status;
}

static enum status tls_use(struct cli *c, struct endpoint *e, const struct tls *tls)
{
	if (tls->cert_dir && cert_dir_check(c, tls->cert_dir) != DONE)
		return REFUSED;
	if (tls->cert_dir)
		return nbd_set_tls_certificates(e->nbd, tls->cert_dir) < 0 ? nbd_failed(c, e, "prepare TLS to") : DONE;
	auto_free char *name = psk_name(tls->psk_file);
	if (!name)
		return cli_refuse(c, "local", "cannot read a line NAME:KEY in '%s': %s", tls->psk_file,
				  access(tls->psk_file, R_OK) < 0 ? strerror(errno) : "it has none");
	if (nbd_set_tls_psk_file(e->nbd, tls->psk_file) < 0 || nbd_set_tls_username(e->nbd, name) < 0)
		return nbd_failed(c, e, "prepare TLS to");
	return DONE;
}

/* ---- by URI ---- */

static enum status uri_open(struct cli *c, struct endpoint *e, const char *uri, const struct tls *tls,
			    const char *context)
{
	endpoint_begin(e, uri);
	enum status status = nbd_begin(c, e);
	if (status == DONE && (tls->cert_dir || tls->psk_file))
		status = tls_use(c, e, tls);
	if (status != DONE)
		return status;
	if (context && nbd_add_meta_context(e->nbd, context) < 0)
		return nbd_failed(c, e, "prepare a connection to");
	/* Whoever types the URI may also name the key files in it. */
	if (nbd_set_uri_allow_local_file(e->nbd, true) < 0 || nbd_connect_uri(e->nbd, uri) < 0)
		return nbd_failed(c, e, "connect to");
	return nbd_look(c, e);
}

enum status endpoint_open_uri(struct cli *c, struct endpoint *e, const char *uri)
{
	return uri_open(c, e, uri, &(struct tls){0}, NULL);
}

enum status endpoint_check_attachment(struct cli *c, const char *uri)
{
	struct tls tls = tls_find();
	if (tls.cert_dir || tls.psk_file || !uri_has_tls(uri))
		return DONE;
	return cli_refuse(c, "local",
			  "quarryd serves NBD over TLS only: name the folder of this client's certificates in "
			  "QUARRY_NBD_CERT_DIR, or the file with its key in QUARRY_NBD_PSK_FILE");
}

enum status endpoint_open_attachment(struct cli *c, struct endpoint *e, const char *uri, const char *context)
{
	struct tls tls = tls_find();
	bool has_tls = tls.cert_dir || tls.psk_file;
	/* Over the network whoever has a key means to use it; on this machine it is used where it must be. */
	bool is_upgraded = has_tls && strncmp(uri, "nbd://", strlen("nbd://")) == 0;
	auto_free char *secure = is_upgraded ? text_format("nbds%s", uri + strlen("nbd")) : NULL;
	const char *address = secure ? secure : uri;
	enum status status = endpoint_check_attachment(c, uri);
	if (status != DONE)
		return status;
	if (!uri_has_tls(address))
		tls = (struct tls){0};
	return uri_open(c, e, address, &tls, context);
}

enum status endpoint_open_program(struct cli *c, struct endpoint *e, const char *name, char **argv)
{
	endpoint_begin(e, name);
	enum status status = nbd_begin(c, e);
	if (status != DONE)
		return status;
	if (nbd_connect_systemd_socket_activation(e->nbd, argv) < 0)
		return cli_refuse(c, "io-error", "'%s' could not open '%s': %s", argv[0], name, nbd_get_error());
	return nbd_look(c, e);
}

static enum status file_look(struct cli *c, struct endpoint *e)
{
	struct stat stat;
	if (fstat(e->fd, &stat) < 0)
		return cli_refuse(c, "local", "cannot look at '%s': %s", e->name, strerror(errno));
	e->size_bytes = (uint64_t)stat.st_size;
	e->is_device = S_ISBLK(stat.st_mode);
	if (e->is_device && ioctl(e->fd, BLKGETSIZE64, &e->size_bytes) < 0)
		return cli_refuse(c, "local", "cannot learn the size of '%s': %s", e->name, strerror(errno));
	if (!e->is_device && !S_ISREG(stat.st_mode))
		return cli_refuse(c, "local", "'%s' is neither a file nor a block device", e->name);
	return DONE;
}

enum status endpoint_open_file(struct cli *c, struct endpoint *e, const char *path, int flags)
{
	endpoint_begin(e, path);
	/* Not to wait for the writer of a FIFO. */
	e->fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666);
	if (e->fd < 0)
		return cli_refuse(c, "local", "cannot open '%s': %s", path, strerror(errno));
	return file_look(c, e);
}

void endpoint_close(struct endpoint *e)
{
	if (e->nbd) {
		(void)nbd_shutdown(e->nbd, 0);
		nbd_close(e->nbd);
	}
	if (e->name && e->fd >= 0)
		close(e->fd);
	free(e->name);
	*e = (struct endpoint){.fd = -1};
}

/* ---- read, write, zero ---- */

static int op_completed(void *context, int *error)
{
	struct endpoint_op *op = context;
	quarry_assert(!op->is_done);
	op->error = *error;
	op->is_done = true;
	op->endpoint->has_news = true;
	return 1; /* libnbd forgets the command */
}

static void op_end(struct endpoint_op *op, int error)
{
	op->error = error;
	op->is_done = true;
}

/* libnbd did not even take the command, and will not call back. */
static void op_refused(struct endpoint_op *op)
{
	int error = nbd_get_errno();
	op_end(op, error ? error : EIO);
}

static nbd_completion_callback op_callback(struct endpoint_op *op)
{
	return (nbd_completion_callback){.callback = op_completed, .user_data = op};
}

void endpoint_read(struct endpoint *e, struct endpoint_op *op, void *data, size_t len_bytes, uint64_t pos_bytes)
{
	quarry_assert(len_bytes <= e->size_bytes && pos_bytes <= e->size_bytes - len_bytes);
	*op = (struct endpoint_op){.endpoint = e};
	if (e->nbd) {
		if (nbd_aio_pread(e->nbd, data, len_bytes, pos_bytes, op_callback(op), 0) < 0)
			op_refused(op);
		return;
	}
	for (size_t done = 0; done < len_bytes;) {
		ssize_t n = pread(e->fd, (char *)data + done, len_bytes - done, (off_t)(pos_bytes + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			op_end(op, n < 0 ? errno : EIO); /* it has become shorter meanwhile */
			return;
		}
		done += (size_t)n;
	}
	op_end(op, 0);
}

/* 0 or an errno. */
static int file_write(struct endpoint *e, const void *data, size_t len_bytes, uint64_t pos_bytes)
{
	for (size_t done = 0; done < len_bytes;) {
		ssize_t n = pwrite(e->fd, (const char *)data + done, len_bytes - done, (off_t)(pos_bytes + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		done += (size_t)n;
	}
	return 0;
}

void endpoint_write(struct endpoint *e, struct endpoint_op *op, const void *data, size_t len_bytes, uint64_t pos_bytes)
{
	quarry_assert(len_bytes > 0);
	*op = (struct endpoint_op){.endpoint = e};
	if (!e->nbd)
		op_end(op, file_write(e, data, len_bytes, pos_bytes));
	else if (nbd_aio_pwrite(e->nbd, data, len_bytes, pos_bytes, op_callback(op), 0) < 0)
		op_refused(op);
}

/* The kernel zeroes a range of a file or device, or zeros are written where it cannot. 0 or an errno. */
static int file_zero(struct endpoint *e, uint64_t len_bytes, uint64_t pos_bytes)
{
	static const char zeros[64 << 10];
	int mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	if (fallocate(e->fd, mode, (off_t)pos_bytes, (off_t)len_bytes) == 0)
		return 0;
	for (uint64_t done = 0; done < len_bytes;) {
		uint64_t n = len_bytes - done < sizeof(zeros) ? len_bytes - done : sizeof(zeros);
		int error = file_write(e, zeros, n, pos_bytes + done);
		if (error)
			return error;
		done += n;
	}
	return 0;
}

void endpoint_zero(struct endpoint *e, struct endpoint_op *op, uint64_t len_bytes, uint64_t pos_bytes)
{
	quarry_assert(e->can_zero);
	*op = (struct endpoint_op){.endpoint = e};
	if (!e->nbd)
		op_end(op, file_zero(e, len_bytes, pos_bytes));
	else if (nbd_aio_zero(e->nbd, len_bytes, pos_bytes, op_callback(op), 0) < 0)
		op_refused(op);
}

void endpoint_trim(struct endpoint *e, struct endpoint_op *op, uint64_t len_bytes, uint64_t pos_bytes)
{
	quarry_assert(e->nbd);
	*op = (struct endpoint_op){.endpoint = e};
	if (nbd_aio_trim(e->nbd, len_bytes, pos_bytes, op_callback(op), 0) < 0)
		op_refused(op);
}

void endpoint_flush_begin(struct endpoint *e, struct endpoint_op *op)
{
	quarry_assert(e->nbd);
	*op = (struct endpoint_op){.endpoint = e};
	if (nbd_aio_flush(e->nbd, op_callback(op), 0) < 0)
		op_refused(op);
}

int endpoint_flush(struct endpoint *e)
{
	if (!e->nbd)
		return fsync(e->fd) < 0 ? errno : 0;
	if (nbd_can_flush(e->nbd) != 1 || nbd_flush(e->nbd, 0) == 0)
		return 0;
	return nbd_get_errno() ? nbd_get_errno() : EIO;
}

void endpoint_forget(struct endpoint *e)
{
	e->n_extents = e->next_extent = 0;
	/* Only a wish: memory that the kernel keeps all the same gives the same bytes as the program would get. */
	if (!e->nbd)
		(void)posix_fadvise(e->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* ---- holes ---- */

static int extents_take(void *context, const char *meta_context, uint64_t pos_bytes, uint32_t *entries,
			size_t n_entries, int *error)
{
	struct endpoint *e = context;
	uint64_t end_bytes = pos_bytes;
	(void)error;
	if (strcmp(meta_context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	e->n_extents = e->next_extent = 0;
	for (size_t i = 0; i + 1 < n_entries && e->n_extents < EXTENTS_MAX && entries[i] > 0; i += 2) {
		end_bytes += entries[i];
		e->extents[e->n_extents++] =
		    (struct extent){.end_bytes = end_bytes, .is_hole = (entries[i + 1] & LIBNBD_STATE_ZERO) != 0};
		if (end_bytes >= e->size_bytes)
			break;
	}
	return 0;
}

static int nbd_extents_ask(struct endpoint *e, uint64_t pos_bytes)
{
	uint64_t len_bytes = e->size_bytes - pos_bytes;
	nbd_extent_callback callback = {.callback = extents_take, .user_data = e};
	e->n_extents = e->next_extent = 0;
	if (len_bytes > STATUS_BYTES_MAX)
		len_bytes = STATUS_BYTES_MAX;
	if (nbd_block_status(e->nbd, len_bytes, pos_bytes, callback, 0) < 0)
		return nbd_get_errno() ? nbd_get_errno() : EIO;
	return e->n_extents > 0 ? 0 : EPROTO;
}

static int nbd_extent(struct endpoint *e, uint64_t pos_bytes, struct extent *out)
{
	while (e->next_extent < e->n_extents && e->extents[e->next_extent].end_bytes <= pos_bytes)
		e->next_extent++;
	if (e->next_extent == e->n_extents) {
		int error = nbd_extents_ask(e, pos_bytes);
		if (error)
			return error;
	}
	*out = e->extents[e->next_extent];
	return 0;
}

static void file_extent(struct endpoint *e, uint64_t pos_bytes, struct extent *out)
{
	off_t data = lseek(e->fd, (off_t)pos_bytes, SEEK_DATA);
	if (data < 0 && errno == ENXIO) {
		*out = (struct extent){.end_bytes = e->size_bytes, .is_hole = true};
		return;
	}
	if (data > (off_t)pos_bytes) {
		*out = (struct extent){.end_bytes = (uint64_t)data, .is_hole = true};
		return;
	}
	off_t hole = data < 0 ? -1 : lseek(e->fd, (off_t)pos_bytes, SEEK_HOLE);
	e->knows_holes = hole > (off_t)pos_bytes;
	*out = (struct extent){.end_bytes = e->knows_holes ? (uint64_t)hole : e->size_bytes};
}

int endpoint_extent(struct endpoint *e, uint64_t pos_bytes, struct extent *out)
{
	int error = 0;
	quarry_assert(pos_bytes < e->size_bytes);
	if (!e->knows_holes)
		*out = (struct extent){.end_bytes = e->size_bytes};
	else if (e->nbd)
		error = nbd_extent(e, pos_bytes, out);
	else
		file_extent(e, pos_bytes, out);
	if (error)
		return error;
	if (out->end_bytes > e->size_bytes)
		out->end_bytes = e->size_bytes;
	quarry_assert(out->end_bytes > pos_bytes);
	return 0;
}

/* ---- waiting ---- */

/* A connection can end inside any call that begins an operation, and with it what was under way: then there is nothing
 * to wait for, and whoever waits must look again, once. */
static struct pollfd ended_pollfd(struct endpoint *e)
{
	struct pollfd wait = {.fd = e->is_end_told ? -1 : e->fd, .events = POLLIN};
	e->is_end_told = true;
	return wait;
}

struct pollfd endpoint_pollfd(struct endpoint *e)
{
	struct pollfd wait = {.fd = -1};
	if (!e->nbd)
		return wait;
	if (nbd_aio_is_dead(e->nbd) || nbd_aio_is_closed(e->nbd))
		return ended_pollfd(e);
	e->is_news_told = e->has_news;
	e->has_news = false;
	if (e->is_news_told)
		return (struct pollfd){.fd = e->fd, .events = POLLIN};
	unsigned direction = nbd_aio_get_direction(e->nbd);
	wait.fd = nbd_aio_get_fd(e->nbd);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		wait.events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		wait.events |= POLLOUT;
	return wait;
}

/* What fails here fails every op of the connection; their errors tell. */
void endpoint_polled(struct endpoint *e, short events)
{
	if (!e->nbd || events == 0 || e->is_news_told) /* libnbd must not be told of bytes that are not there */
		return;
	unsigned direction = nbd_aio_get_direction(e->nbd);
	if ((events & (POLLIN | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		(void)nbd_aio_notify_read(e->nbd);
	else if ((events & POLLOUT) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		(void)nbd_aio_notify_write(e->nbd);
	e->has_news = false; /* whoever polls looks at his ops now */
}
