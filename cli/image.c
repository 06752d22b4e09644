/*
 * image.c: image files: what format a file has, and opening one as an endpoint.
 *
 * 1. A raw file is read and written here; a qcow2 file is served by qemu-nbd, which is asked for only then.
 * 2. An image is not trusted: a qcow2 header that names another file (a backing file, a data file) is refused, since
 *    that name was chosen by whoever made the image and the file would be read with our rights. That holds for what is
 *    read, too: qemu-nbd gets the very file that was looked at, whatever has its name by then, and is told to open no
 *    backing file; and the header is looked at once more when qemu-nbd has opened it. Whoever can write into that very
 *    file while it is being opened can change its header, and change it back, between the two looks: nothing here can
 *    hold him off, and people are told to import what only they can write (docs/how-to/back-up-an-image.md).
 *    An image of which a part is missing is refused: qemu-nbd would serve zeros in its place.
 * 3. A file in a format that is not known as such is not taken for raw data when its first bytes say otherwise.
 * 4. A target that is there is left alone unless the user insists; one that somebody uses, even then.
 */
#include "cli/image.h"

#include "cli/size.h"
#include "cli/text.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The qcow2 header, big-endian (qemu: docs/interop/qcow2.txt).
 * offset  size  what
 *      0     4  magic "QFI\xfb"
 *      4     4  version, 2 or 3
 *      8     8  where the name of the backing file stands, 0: none
 *     32     4  encryption, 0: none
 *     72     8  version 3: features that one must know; bit 2: the data lies in another file */
#define QCOW2_MAGIC             "QFI\xfb"
#define QCOW2_VERSION           4
#define QCOW2_BACKING           8
#define QCOW2_ENCRYPTION        32
#define QCOW2_FEATURES          72
#define QCOW2_BYTES_2           72u  /* header of version 2 */
#define QCOW2_BYTES_3           104u /* of version 3, at least */
#define QCOW2_FEATURE_DATA_FILE 4u

/* What qemu-img check ends with: something is wrong or missing; there are clusters that nothing points to. */
#define CHECK_CORRUPTIONS 2
#define CHECK_LEAKS       3

#define INHERITED_FD_MIN 10 /* the first few are the program's own: what it is told to serve, and where to complain */

bool is_nbd_uri(const char *text)
{
	static const char *const schemes[] = {"nbd://",       "nbds://",      "nbd+unix://",
					      "nbds+unix://", "nbd+vsock://", "nbds+vsock://"};
	for (size_t i = 0; i < array_size(schemes); i++) {
		if (strncmp(text, schemes[i], strlen(schemes[i])) == 0)
			return true;
	}
	return false;
}

/* ---- formats ---- */

const char *image_format_name(const void *header, size_t n_bytes)
{
	static const struct {
		const char *name, *magic;
		size_t n_magic, pos;
	} formats[] = {
	    {"qcow2", QCOW2_MAGIC, 4, 0},       {"vmdk", "KDMV", 4, 0},
	    {"vhdx", "vhdxfile", 8, 0},         {"vhd", "conectix", 8, 0},
	    {"vdi", "\x7f\x10\xda\xbe", 4, 64}, {"qed", "QED\0", 4, 0},
	    {"luks", "LUKS\xba\xbe", 6, 0},
	};
	for (size_t i = 0; i < array_size(formats); i++) {
		if (formats[i].pos + formats[i].n_magic <= n_bytes &&
		    memcmp((const char *)header + formats[i].pos, formats[i].magic, formats[i].n_magic) == 0)
			return formats[i].name;
	}
	return NULL;
}

static uint32_t get_be32(const char *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static uint64_t get_be64(const char *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static int qcow2_refuse(char why[static IMAGE_WHY_BYTES], const char *reason)
{
	snprintf(why, IMAGE_WHY_BYTES, "%s", reason);
	return -ENOTSUP;
}

int qcow2_check(const void *header, size_t n_bytes, char why[static IMAGE_WHY_BYTES])
{
	const char *h = header;
	if (n_bytes < QCOW2_BYTES_2 || memcmp(h, QCOW2_MAGIC, strlen(QCOW2_MAGIC)) != 0)
		return qcow2_refuse(why, "is no qcow2 image");
	uint32_t version = get_be32(h + QCOW2_VERSION);
	if (version < 2 || version > 3 || (version == 3 && n_bytes < QCOW2_BYTES_3))
		return qcow2_refuse(why, "is a qcow2 image of an unknown version; convert it with 'qemu-img convert'");
	if (get_be64(h + QCOW2_BACKING) != 0)
		return qcow2_refuse(why, "has a backing file; make one image of both with 'qemu-img convert'");
	if (get_be32(h + QCOW2_ENCRYPTION) != 0)
		return qcow2_refuse(why, "is encrypted; convert it with 'qemu-img convert'");
	if (version == 3 && (get_be64(h + QCOW2_FEATURES) & QCOW2_FEATURE_DATA_FILE))
		return qcow2_refuse(why,
				    "has its data in another file; make one image of both with 'qemu-img convert'");
	return 0;
}

/* ---- programs ---- */

static enum status program_find(struct cli *c, const char *program)
{
	const char *path = getenv("PATH");
	auto_free char *list = text_format("%s", path ? path : "/usr/bin:/bin");
	char *rest = list;
	for (char *folder = strsep(&rest, ":"); folder; folder = strsep(&rest, ":")) {
		auto_free char *file = text_format("%s/%s", *folder ? folder : ".", program);
		if (access(file, X_OK) == 0)
			return DONE;
	}
	return cli_refuse(c, "local",
			  "qcow2 files are handled by '%s', which is not installed; on Debian: apt install qemu-utils",
			  program);
}

/* Runs it to its end; its exit status, -1 when a signal ended it. What a quiet one says is lost. */
static enum status program_run(struct cli *c, char **argv, bool is_quiet, int *exit_status)
{
	pid_t pid = 0;
	int state = 0;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	for (int fd = STDOUT_FILENO; is_quiet && fd <= STDERR_FILENO; fd++)
		posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
	int error = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error)
		return cli_refuse(c, "local", "cannot run '%s': %s", argv[0], strerror(error));
	while (waitpid(pid, &state, 0) < 0) {
		if (errno != EINTR)
			return cli_refuse(c, "local", "cannot wait for '%s': %s", argv[0], strerror(errno));
	}
	*exit_status = WIFEXITED(state) ? WEXITSTATUS(state) : -1;
	return DONE;
}

/* ---- source ---- */

static enum status qcow2_look(struct cli *c, int fd, const char *path)
{
	char header[IMAGE_HEADER_BYTES], why[IMAGE_WHY_BYTES];
	ssize_t n = pread(fd, header, sizeof(header), 0);
	if (n < 0)
		return cli_refuse(c, "local", "cannot read '%s': %s", path, strerror(errno));
	if (qcow2_check(header, (size_t)n, why) < 0)
		return cli_refuse(c, "invalid", "'%s' %s", path, why);
	return DONE;
}

/* Is all there? What a table of the image says and lies behind the file's end reads as zeros, without an error. */
static enum status qcow2_look_through(struct cli *c, char *image, const char *path)
{
	char *argv[] = {"qemu-img", "check", "-q", image, NULL};
	int exit_status = 0;
	enum status status = program_run(c, argv, true, &exit_status);
	if (status != DONE || exit_status == 0 || exit_status == CHECK_LEAKS)
		return status;
	if (exit_status != CHECK_CORRUPTIONS)
		return cli_refuse(c, "local", "qemu-img could not check '%s'; 'qemu-img check' tells why", path);
	return cli_refuse(
	    c, "damaged",
	    "'%s' is damaged, or only a part of it is here; 'qemu-img check' tells more: fetch it again, or "
	    "take what is left with 'qemu-img convert -O raw'",
	    path);
}

/* qemu-nbd on a file that is open: on a descriptor of its own, behind those that a program is given. */
static enum status qcow2_open_source(struct cli *c, struct endpoint *e, int file_fd, const char *path)
{
	int fd = fcntl(file_fd, F_DUPFD, INHERITED_FD_MIN);
	if (fd < 0)
		return cli_refuse(c, "local", "cannot open '%s': %s", path, strerror(errno));
	auto_free char *image = text_format("json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":\"%s\","
					    "\"filename\":\"/proc/self/fd/%d\"}}",
					    e->is_device ? "host_device" : "file", fd);
	char *argv[] = {"qemu-nbd", "--read-only", image, NULL};
	endpoint_close(e);
	enum status status = qcow2_look(c, fd, path);
	if (status == DONE)
		status = program_find(c, "qemu-nbd");
	if (status == DONE)
		status = program_find(c, "qemu-img");
	if (status == DONE)
		status = endpoint_open_program(c, e, path, argv);
	if (status == DONE)
		status = qcow2_look(c, fd, path);
	if (status == DONE)
		status = qcow2_look_through(c, image, path);
	close(fd);
	return status;
}

enum status image_open_source(struct cli *c, struct endpoint *e, const char *path, const char *format)
{
	char header[IMAGE_HEADER_BYTES];
	enum status status = endpoint_open_file(c, e, path, O_RDONLY);
	if (status != DONE)
		return status;
	ssize_t n = pread(e->fd, header, sizeof(header), 0);
	if (n < 0)
		return cli_refuse(c, "local", "cannot read '%s': %s", path, strerror(errno));
	const char *seen = image_format_name(header, (size_t)n);
	if (!format && seen && strcmp(seen, "qcow2") != 0)
		return cli_refuse(
		    c, "invalid",
		    "'%s' looks like a %s image; convert it with 'qemu-img convert', or say --format raw to take its "
		    "bytes as they are",
		    path, seen);
	if (!format)
		format = seen ? seen : "raw";
	if (strcmp(format, "raw") == 0)
		return DONE;
	return qcow2_open_source(c, e, e->fd, path);
}

/* ---- target ---- */

/* A device that is mounted, or part of something else, is not opened (O_EXCL). Who has a file open and cares, as quarryd its
 * disks and qemu its images, holds a lock. */
static enum status raw_claim(struct cli *c, struct endpoint *e, const char *path)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat now;
	bool is_device = stat(path, &now) == 0 && S_ISBLK(now.st_mode);
	enum status status = endpoint_open_file(c, e, path, O_RDWR | (is_device ? O_EXCL : 0));
	if (status != DONE)
		return status;
	if (fcntl(e->fd, F_OFD_SETLK, &whole) < 0 && (errno == EAGAIN || errno == EACCES))
		return cli_refuse(c, "in-use", "'%s' is in use by another program; choose another name", path);
	return DONE;
}

static enum status raw_open(struct cli *c, struct endpoint *e, struct image_target *t, uint64_t size_bytes)
{
	enum status status = raw_claim(c, e, t->path);
	if (status != DONE || e->is_device)
		return status;
	char size[SIZE_TEXT_BYTES];
	size_to_exact_text(size_bytes, size);
	/* First to nothing, so that what was there before is a hole. */
	if (ftruncate(e->fd, 0) < 0 || ftruncate(e->fd, (off_t)size_bytes) < 0)
		return cli_refuse(c, "local", "cannot give '%s' its %s: %s", t->path, size, strerror(errno));
	e->size_bytes = size_bytes;
	e->is_fresh = true;
	return DONE;
}

static enum status qcow2_open(struct cli *c, struct endpoint *e, struct image_target *t, uint64_t size_bytes)
{
	auto_free char *size = text_format("%llu", (unsigned long long)size_bytes);
	auto_free char *absolute = realpath(t->path, NULL);
	if (!absolute)
		return cli_refuse(c, "local", "cannot open '%s': %s", t->path, strerror(errno));
	/* the path is absolute, since a name like "nbd:x" means something else to qemu */
	char *argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", absolute, size, NULL};
	char *serving[] = {"qemu-nbd", "--discard=unmap", "--format=qcow2", absolute, NULL};
	enum status status = program_find(c, "qemu-img");
	if (status == DONE)
		status = program_find(c, "qemu-nbd");
	int exit_status = 0;
	if (status == DONE)
		status = program_run(c, argv, false, &exit_status);
	if (status == DONE && exit_status != 0)
		status = cli_refuse(c, "local", "'%s' could not make '%s'", argv[0], t->path);
	if (status == DONE)
		status = endpoint_open_program(c, e, t->path, serving);
	e->is_fresh = true;
	return status;
}

/* A new empty file; or, when the user insists, the one or the block device that is there. */
static enum status target_make(struct cli *c, struct image_target *t, bool is_forced)
{
	int fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd >= 0) {
		close(fd);
		t->was_made = true;
		return DONE;
	}
	const char *name = strrchr(t->path, '/');
	if (errno == ENOENT && name && name > t->path)
		return cli_refuse(
		    c, "local",
		    "cannot make '%s': there is no folder '%.*s'; make it first, or mount what belongs there", t->path,
		    (int)(name - t->path), t->path);
	if (errno != EEXIST)
		return cli_refuse(c, "local", "cannot make '%s': %s", t->path, strerror(errno));
	struct stat status;
	if (stat(t->path, &status) == 0 && S_ISDIR(status.st_mode))
		return cli_refuse(c, "invalid", "'%s' is a folder; name a file in it", t->path);
	if (!is_forced)
		return cli_refuse(c, "exists", "'%s' exists; choose another name, or overwrite it with --force",
				  t->path);
	return DONE;
}

enum status image_open_target(struct cli *c, struct endpoint *e, struct image_target *t, enum image_format format,
			      uint64_t size_bytes, bool is_forced)
{
	quarry_assert(t->path && !t->was_made);
	enum status status = target_make(c, t, is_forced);
	if (status != DONE)
		return status;
	status = format == IMAGE_QCOW2 ? qcow2_open(c, e, t, size_bytes) : raw_open(c, e, t, size_bytes);
	if (status == DONE && e->size_bytes < size_bytes) {
		char has[SIZE_TEXT_BYTES], wanted[SIZE_TEXT_BYTES];
		size_to_exact_text(e->size_bytes, has);
		size_to_exact_text(size_bytes, wanted);
		return cli_refuse(c, "no-space", "'%s' has %s, too little for %s", t->path, has, wanted);
	}
	return status;
}

void image_target_drop(struct image_target *t)
{
	if (t->was_made)
		(void)unlink(t->path);
	t->was_made = false;
}
