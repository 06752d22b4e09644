/*
 * replay.c: the main() of a fuzzer without libFuzzer: feeds it files, so that every compiler and `make check` replays
 * what fuzzing once found.
 *
 * usage: fuzz_NAME FILE|FOLDER ...      a folder is read one level deep, in order of name
 *
 * One input is the empty one, always. Exit status 0 when the fuzzer returned from every input; it aborts itself
 * otherwise, and the name printed last is the input that did it.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Some fuzzers prepare something once. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

#define INPUT_BYTES_MAX (64u << 20) /* no corpus needs more; a mistyped path might be a disk */

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data = NULL;
	int res = 1;

	if (!f || fstat(fileno(f), &st) || st.st_size > (off_t)INPUT_BYTES_MAX) {
		fprintf(stderr, "%s: cannot be read as an input: %s\n", path, f ? "too large" : strerror(errno));
		goto out;
	}
	/* exactly as long as the input, so that a sanitizer sees one byte too far */
	data = malloc(st.st_size ? (size_t)st.st_size : 1);
	if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
		fprintf(stderr, "%s: short read\n", path);
		goto out;
	}
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	res = 0;
out:
	free(data);
	if (f)
		fclose(f);
	return res;
}

static int is_visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int replay_folder(const char *path, unsigned *n_inputs)
{
	struct dirent **names;
	int n = scandir(path, &names, is_visible, alphasort), res = 0;

	if (n < 0)
		return 0; /* no corpus yet */
	for (int i = 0; i < n; i++) {
		char full[PATH_MAX];

		if (snprintf(full, sizeof(full), "%s/%s", path, names[i]->d_name) < (int)sizeof(full)) {
			res |= replay_file(full);
			++*n_inputs;
		}
		free(names[i]);
	}
	free(names);
	return res;
}

int main(int argc, char **argv)
{
	unsigned n_inputs = 1;
	int res = 0;

	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st)) {
			printf("%s: no corpus\n", argv[i]);
			continue;
		}
		if (S_ISDIR(st.st_mode)) {
			res |= replay_folder(argv[i], &n_inputs);
		} else {
			res |= replay_file(argv[i]);
			n_inputs++;
		}
	}
	printf("%u inputs\n", n_inputs);
	return res;
}
