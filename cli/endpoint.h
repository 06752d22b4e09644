/*
 * endpoint.h: one side of a copy: a raw file, a block device, or whatever answers over NBD.
 */
#pragma once

#include "cli/cli.h"

#include <poll.h>

struct nbd_handle;

/* One read, write or zeroing under way. Owner: the copy; the endpoint sets it when it is done. */
struct endpoint_op {
	struct endpoint *endpoint; /* of a connection */
	bool is_done;
	int error; /* 0 or an errno */
};

/* A run of the source that is all data or all hole. */
struct extent {
	uint64_t end_bytes; /* where it ends */
	bool is_hole;       /* reads as zeros */
};
#define EXTENTS_MAX 1024u

struct endpoint {
	char *name; /* for messages: a path or URI */
	uint64_t size_bytes;
	struct nbd_handle *nbd;             /* NULL: a file */
	int fd;                             /* of a file; beside a connection: always readable */
	bool is_end_told;                   /* of the connection: see endpoint_pollfd(), */
	bool has_news, is_news_told;        /* as for these */
	bool is_fresh;                      /* reads as zeros where nothing was written: holes need not be written */
	bool is_device;                     /* fd is a block device */
	bool knows_holes;                   /* cleared when it turns out not to */
	bool can_zero;                      /* false: write zeros instead */
	struct extent extents[EXTENTS_MAX]; /* the newest answer about holes, used up from next on */
	uint32_t n_extents, next_extent;
};

/* All of these: DONE, or REFUSED with the reason in c->failure. endpoint_close() may be called in any case. */
must_check enum status endpoint_open_uri(struct cli *c, struct endpoint *e, const char *uri);
/* What quarryd serves itself; where that is over TLS only, QUARRY_NBD_CERT_DIR or QUARRY_NBD_PSK_FILE must name what the
 * client needs. context: another meta context to ask for beside base:allocation; whether the server has it, libnbd
 * tells. NULL: no other. */
must_check enum status endpoint_open_attachment(struct cli *c, struct endpoint *e, const char *uri,
						const char *context);
/* Only the last: are they named, if they are needed? */
must_check enum status endpoint_check_attachment(struct cli *c, const char *uri);
must_check enum status endpoint_open_file(struct cli *c, struct endpoint *e, const char *path, int flags);
/* Runs a program that serves NBD on a socket that it is given (systemd's way), such as qemu-nbd. */
must_check enum status endpoint_open_program(struct cli *c, struct endpoint *e, const char *name, char **argv);
void endpoint_close(struct endpoint *e);

/* These begin; the op is done later, or at once. Buffers are the caller's until then. */
void endpoint_read(struct endpoint *e, struct endpoint_op *op, void *data, size_t len_bytes, uint64_t pos_bytes);
void endpoint_write(struct endpoint *e, struct endpoint_op *op, const void *data, size_t len_bytes, uint64_t pos_bytes);
void endpoint_zero(struct endpoint *e, struct endpoint_op *op, uint64_t len_bytes, uint64_t pos_bytes);
/* These two: NBD only. */
void endpoint_trim(struct endpoint *e, struct endpoint_op *op, uint64_t len_bytes, uint64_t pos_bytes);
void endpoint_flush_begin(struct endpoint *e, struct endpoint_op *op);
/* Blocks, and takes the answers of all that is under way. 0 or an errno. */
must_check int endpoint_flush(struct endpoint *e);
/* Lets what is read from now on come from where it is stored, as far as this machine can: after a flush. */
void endpoint_forget(struct endpoint *e);
/* What begins at pos_bytes, at most to the end of the endpoint. Blocks. 0 or an errno. */
must_check int endpoint_extent(struct endpoint *e, uint64_t pos_bytes, struct extent *out);

/* What poll() must wait for, and what to do when it has come. A file waits for nothing (fd -1). What was done outside of
 * endpoint_polled(), by a call that began another operation or blocked, is news: poll() returns at once, so that whoever
 * has looked at his ops before that call looks again. */
struct pollfd endpoint_pollfd(struct endpoint *e);
void endpoint_polled(struct endpoint *e, short events);
