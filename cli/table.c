/*
 * table.c: aligned columns with headers.
 *
 * 1. Every cell is made printable when it comes in: it may be a name or message that someone else chose.
 * 2. The last column is not padded, so that lines do not end in blanks.
 * 3. A table is printed only when its last row is full.
 */
#include "cli/table.h"

#include "cli/size.h"
#include "cli/text.h"

#include <string.h>

#define COLUMNS_MAX 12u
#define GAP         2u /* blanks between columns */
#define FIELD_WIDTH 18

struct table {
	size_t n_columns, n_cells, room;
	const char *headers[COLUMNS_MAX]; /* without the '>' */
	bool is_right[COLUMNS_MAX];
	size_t width[COLUMNS_MAX];
	char **cells;
};

static void *need(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

struct table *table_create(const char *const *headers, size_t n_columns)
{
	quarry_assert(n_columns > 0 && n_columns <= COLUMNS_MAX);
	struct table *t = need(calloc(1, sizeof(*t)));
	t->n_columns = n_columns;
	for (size_t i = 0; i < n_columns; i++) {
		t->is_right[i] = headers[i][0] == '>';
		t->headers[i] = headers[i] + t->is_right[i];
		t->width[i] = text_width(t->headers[i]);
	}
	return t;
}

void table_destroy(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

void table_text(struct table *t, const char *cell)
{
	if (t->n_cells == t->room) {
		t->room = t->room ? 2 * t->room : 8 * t->n_columns;
		t->cells = need(realloc(t->cells, t->room * sizeof(*t->cells)));
	}
	char *copy = text_printable(cell ? cell : "-");
	size_t column = t->n_cells % t->n_columns, width = text_width(copy);
	if (width > t->width[column])
		t->width[column] = width;
	t->cells[t->n_cells++] = copy;
}

void table_size(struct table *t, const json_t *bytes)
{
	char text[SIZE_TEXT_BYTES];
	if (!json_is_integer(bytes) || json_integer_value(bytes) < 0) {
		table_text(t, NULL);
		return;
	}
	size_to_text((uint64_t)json_integer_value(bytes), text);
	table_text(t, text);
}

void table_number(struct table *t, const json_t *number)
{
	char text[SIZE_TEXT_BYTES];
	if (!json_is_integer(number)) {
		table_text(t, NULL);
		return;
	}
	snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(number));
	table_text(t, text);
}

static void row_print(const struct table *t, const char *const *cells, FILE *out)
{
	for (size_t i = 0; i < t->n_columns; i++) {
		bool is_last = i + 1 == t->n_columns;
		int padding = (int)(t->width[i] - text_width(cells[i]));
		quarry_assert(padding >= 0);
		if (t->is_right[i])
			fprintf(out, "%*s%s", padding, "", cells[i]);
		else
			fprintf(out, "%s%*s", cells[i], is_last ? 0 : padding, "");
		fprintf(out, "%*s", is_last ? 0 : (int)GAP, "");
	}
	fputc('\n', out);
}

void table_print(const struct table *t, FILE *out)
{
	quarry_assert(t->n_cells % t->n_columns == 0);
	row_print(t, t->headers, out);
	for (size_t i = 0; i < t->n_cells; i += t->n_columns)
		row_print(t, (const char *const *)t->cells + i, out);
}

void field_text(FILE *out, const char *name, const char *value)
{
	auto_free char *copy = text_printable(value && *value ? value : "-");
	fprintf(out, "%s:%*s %s\n", name, FIELD_WIDTH - (int)strlen(name), "", copy);
}

void field_size(FILE *out, const char *name, const json_t *bytes)
{
	char size[SIZE_TEXT_BYTES];
	if (!json_is_integer(bytes) || json_integer_value(bytes) < 0) {
		field_text(out, name, NULL);
		return;
	}
	size_to_text((uint64_t)json_integer_value(bytes), size);
	auto_free char *both = text_format("%s (%lld bytes)", size, (long long)json_integer_value(bytes));
	field_text(out, name, json_integer_value(bytes) < 1024 ? size : both);
}
