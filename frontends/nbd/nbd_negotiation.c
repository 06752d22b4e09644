/*
 * nbd_negotiation.c: greeting and options, until a client and the server agree on an export, or part.
 *
 *   GREET -> SEND -> FLAGS -> OPTION -> DATA -> ANSWER -> SEND -> OPTION ...
 *                               |                 ^   \__________^ (more of a long answer)
 *                               +----> SKIP ------+
 *   After SEND: OVER, when the verdict is to transmit, to go on under TLS, or to part.
 *
 * Invariants
 *  1. The client is heard only when nothing is being sent to it: one option, one answer.
 *  2. An option's data is looked at only when all of it is in the intake; longer data than fits is never kept.
 *  3. Where TLS is required, nothing but STARTTLS and ABORT is carried out before it; after STARTTLS nothing that was
 *     said in the clear counts, and bytes that were sent ahead of the handshake end the connection.
 *  4. A metadata context counts only for the export it was selected for, and only with structured replies.
 *  5. Only TALK_OVER with VERDICT_TRANSMIT leaves a volume referenced.
 */
#include "frontends/nbd/nbd_internal.h"

#include <errno.h>
#include <stdio.h>

#define ALLOCATION "base:allocation"

/* ---- composing an answer ---- */

static uint8_t *answer_room(struct nbd_talk *t, uint32_t len_bytes)
{
	quarry_assert(t->answer_bytes + len_bytes <= ANSWER_BYTES);
	uint8_t *p = t->answer + t->answer_bytes;
	t->answer_bytes += len_bytes;
	return p;
}

/* The header of an option reply, and room for its data. */
static uint8_t *answer_reply(struct nbd_talk *t, uint32_t type, uint32_t len_bytes)
{
	uint8_t *p = answer_room(t, NBD_OPTION_REPLY_HEADER_BYTES + len_bytes);
	nbd_option_reply_encode(p, t->option.option, type, len_bytes);
	return p + NBD_OPTION_REPLY_HEADER_BYTES;
}

static void answer_ack(struct nbd_talk *t)
{
	(void)answer_reply(t, NBD_REP_ACK, 0);
}

/* An error with a text for a person; the negotiation goes on. */
static void answer_error(struct nbd_talk *t, uint32_t type, const char *text)
{
	uint32_t len_bytes = (uint32_t)strlen(text);
	quarry_assert((type & NBD_REP_ERROR) != 0);
	memcpy(answer_reply(t, type, len_bytes), text, len_bytes);
}

static void answer_info_text(struct nbd_talk *t, uint16_t info, const char *text)
{
	uint32_t len_bytes = (uint32_t)strlen(text);
	uint8_t *p = answer_reply(t, NBD_REP_INFO, 2 + len_bytes);
	put_be16(p, info);
	memcpy(p + 2, text, len_bytes);
}

/* ---- exports ---- */

/* The volume of that name, with a reference; NULL: none. */
static struct volume *find_export(struct nbd_connection *c, struct nbd_text name)
{
	char text[NBD_EXPORT_NAME_BYTES];

	if (name.len_bytes == 0 || name.len_bytes >= sizeof(text))
		return NULL;
	memcpy(text, name.bytes, name.len_bytes);
	text[name.len_bytes] = 0;
	c->is_filler = volume_name_is_fill(text);
	return volume_get(c->server->volumes, text);
}

static struct nbd_terms export_terms(const struct nbd_talk *t, const struct volume *v)
{
	return (struct nbd_terms){
	    .size_bytes = volume_size_bytes(v),
	    .is_read_only = volume_is_read_only(v),
	    .is_structured = t->is_structured,
	    .reports_allocation = t->is_structured && t->has_allocation && strcmp(t->meta_export, volume_name(v)) == 0,
	    .reports_bitmaps = t->is_structured && t->n_bitmaps > 0 && strcmp(t->meta_export, volume_name(v)) == 0,
	};
}

/* Keeps the reference for the transmission. */
static void agree_on(struct nbd_connection *c, struct volume *v)
{
	quarry_assert(!c->volume);
	c->volume = v;
	volume_watch_start(v, &c->watch);
	c->terms = export_terms(&c->talk, v);
	/* one that has gone since it was selected would shift the ids of those behind it: then none is answered */
	for (uint32_t i = 0; i < c->talk.n_bitmaps && c->terms.reports_bitmaps; i++) {
		if (volume_base_open(v, c->talk.bitmaps[i], &c->bases[i]) == 0)
			c->n_bases++;
		else
			c->terms.reports_bitmaps = false;
	}
	while (!c->terms.reports_bitmaps && c->n_bases > 0)
		volume_base_close(c->bases[--c->n_bases]);
	snprintf(c->export_name, sizeof(c->export_name), "%s%s", volume_name(v),
		 c->is_filler ? VOLUME_FILL_ENDING : "");
}

/* ---- options, one function each ---- */

/* The old way to choose an export: it cannot be refused but by parting. */
static enum nbd_talk_verdict answer_export_name(struct nbd_connection *c, struct nbd_text data)
{
	struct nbd_talk *t = &c->talk;
	struct volume *v = nbd_text_is_valid(data) ? find_export(c, data) : NULL;

	if (!v)
		return VERDICT_END;
	agree_on(c, v);
	uint32_t zeroes = t->no_zeroes ? 0 : NBD_EXPORT_ANSWER_ZEROES;
	uint8_t *p = answer_room(t, NBD_EXPORT_ANSWER_BYTES + zeroes);
	put_be64(p, c->terms.size_bytes);
	put_be16(p + 8, nbd_transmission_flags(&c->terms));
	memset(p + NBD_EXPORT_ANSWER_BYTES, 0, zeroes);
	return VERDICT_TRANSMIT;
}

static void answer_info(struct nbd_talk *t, const struct volume *v, const struct nbd_info_query *q)
{
	struct nbd_terms terms = export_terms(t, v);
	uint8_t *p = answer_reply(t, NBD_REP_INFO, 12);

	put_be16(p, NBD_INFO_EXPORT);
	put_be64(p + 2, terms.size_bytes);
	put_be16(p + 10, nbd_transmission_flags(&terms));
	/* told unasked as well: some clients send requests of any size unless they are told a maximum */
	p = answer_reply(t, NBD_REP_INFO, 14);
	put_be16(p, NBD_INFO_BLOCK_SIZE);
	put_be32(p + 2, NBD_BLOCK_MIN);
	put_be32(p + 6, NBD_BLOCK_PREFERRED);
	put_be32(p + 10, NBD_PAYLOAD_MAX);
	if (q->wants_name)
		answer_info_text(t, NBD_INFO_NAME, volume_name(v));
	if (q->wants_description) {
		char uuid[UUID_TEXT_BYTES], text[64 + UUID_TEXT_BYTES];
		uuid_to_text(volume_uuid(v), uuid);
		snprintf(text, sizeof(text), "quarry volume %s", uuid);
		answer_info_text(t, NBD_INFO_DESCRIPTION, text);
	}
	answer_ack(t);
}

static enum nbd_talk_verdict answer_info_or_go(struct nbd_connection *c, struct nbd_text data)
{
	struct nbd_talk *t = &c->talk;
	struct nbd_info_query q;

	if (nbd_info_query_decode(data, &q) != 0) {
		answer_error(t, NBD_REP_ERR_INVALID, "the option's lengths do not add up");
		return VERDICT_ON;
	}
	struct volume *v = find_export(c, q.name);
	if (!v) {
		answer_error(t, NBD_REP_ERR_UNKNOWN, "no volume of this name is attached over NBD here");
		return VERDICT_ON;
	}
	answer_info(t, v, &q);
	if (t->option.option == NBD_OPT_GO) {
		agree_on(c, v);
		return VERDICT_TRANSMIT;
	}
	volume_put(v);
	return VERDICT_ON;
}

static void list_one(struct volume *v, void *context)
{
	struct nbd_talk *t = context;
	const char *name = volume_name(v);
	uint32_t len_bytes = (uint32_t)strlen(name);

	/* keep room for the ACK or the next page; what was listed stands before in order */
	if (t->verdict == VERDICT_MORE || strcmp(name, t->listed) <= 0)
		return;
	if (t->answer_bytes + 2 * NBD_OPTION_REPLY_HEADER_BYTES + 4 + len_bytes > ANSWER_BYTES) {
		t->verdict = VERDICT_MORE;
		return;
	}
	uint8_t *p = answer_reply(t, NBD_REP_SERVER, 4 + len_bytes);
	put_be32(p, len_bytes);
	memcpy(p + 4, name, len_bytes);
	snprintf(t->listed, sizeof(t->listed), "%s", name);
}

/* As many names as fit; the rest in answers that follow, so that no number of volumes takes more memory. */
static enum nbd_talk_verdict answer_list(struct nbd_connection *c, struct nbd_text data)
{
	struct nbd_talk *t = &c->talk;

	if (data.len_bytes != 0) {
		answer_error(t, NBD_REP_ERR_INVALID, "LIST takes no data");
		return VERDICT_ON;
	}
	if (t->verdict != VERDICT_MORE)
		t->listed[0] = 0;
	t->verdict = VERDICT_ON;
	volume_each_export(c->server->volumes, list_one, t);
	if (t->verdict == VERDICT_ON)
		answer_ack(t);
	return t->verdict;
}

static enum nbd_talk_verdict answer_starttls(struct nbd_connection *c, struct nbd_text data)
{
	struct nbd_talk *t = &c->talk;

	if (c->server->tls == NBD_TLS_OFF) {
		answer_error(t, NBD_REP_ERR_POLICY, "this server's configuration has no TLS");
		return VERDICT_ON;
	}
	if (c->wire.tls || data.len_bytes != 0) {
		answer_error(t, NBD_REP_ERR_INVALID, c->wire.tls ? "TLS is on already" : "STARTTLS takes no data");
		return VERDICT_ON;
	}
	if (intake_bytes(c) > 0)
		return VERDICT_END; /* sent in the clear before TLS could be: nobody honest does that */
	answer_ack(t);
	return VERDICT_SECURE;
}

static enum nbd_talk_verdict answer_structured_reply(struct nbd_connection *c, struct nbd_text data)
{
	if (data.len_bytes != 0) {
		answer_error(&c->talk, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
		return VERDICT_ON;
	}
	c->talk.is_structured = true;
	answer_ack(&c->talk);
	return VERDICT_ON;
}

static void answer_meta_context(struct nbd_talk *t, uint32_t id)
{
	uint8_t *p = answer_reply(t, NBD_REP_META_CONTEXT, 4 + sizeof(ALLOCATION) - 1);
	put_be32(p, id);
	memcpy(p + 4, ALLOCATION, sizeof(ALLOCATION) - 1);
}

/* NAME as it stands in a query, with a zero at its end; false: no snapshot is called so. */
static bool bitmap_name(struct volume *v, struct nbd_text name, char out[static BITMAP_NAME_BYTES])
{
	struct volume_base *base;
	if (name.len_bytes >= BITMAP_NAME_BYTES)
		return false;
	memcpy(out, name.bytes, name.len_bytes);
	out[name.len_bytes] = 0;
	if (volume_base_open(v, out, &base) != 0)
		return false;
	volume_base_close(base);
	return true;
}

static bool answer_bitmap(struct nbd_talk *t, uint32_t id, const char *name)
{
	uint32_t len_bytes = (uint32_t)(sizeof(NBD_BITMAP_PREFIX) - 1 + strlen(name));
	if (t->answer_bytes + 2 * NBD_OPTION_REPLY_HEADER_BYTES + 4 + len_bytes > ANSWER_BYTES)
		return false; /* room is kept for the ACK */
	uint8_t *p = answer_reply(t, NBD_REP_META_CONTEXT, 4 + len_bytes);
	put_be32(p, id);
	memcpy(p + 4, NBD_BITMAP_PREFIX, sizeof(NBD_BITMAP_PREFIX) - 1);
	memcpy(p + 4 + sizeof(NBD_BITMAP_PREFIX) - 1, name, strlen(name));
	return true;
}

struct bitmap_list {
	struct nbd_talk *talk;
	uint32_t n; /* seen in this answer */
};

static void list_bitmap(const char *name, void *context)
{
	struct bitmap_list *l = context;
	struct nbd_talk *t = l->talk;
	if (t->verdict == VERDICT_MORE || l->n++ < t->n_listed)
		return;
	if (answer_bitmap(t, 0, name))
		t->n_listed++;
	else
		t->verdict = VERDICT_MORE;
}

/*
 * As many as fit; the rest in answers that follow. They come in order of age, and are counted: when one is deleted between
 * two answers, the one behind it may be left out of this list; who knows its name can select it.
 */
static enum nbd_talk_verdict list_bitmaps(struct nbd_talk *t, struct volume *v)
{
	t->verdict = VERDICT_ON;
	volume_each_base(v, list_bitmap, &(struct bitmap_list){.talk = t});
	if (t->verdict == VERDICT_ON)
		answer_ack(t);
	return t->verdict;
}

static enum nbd_talk_verdict list_more_bitmaps(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;
	struct volume *v = find_export(c, nbd_text_of(t->listed));
	if (!v) {
		answer_error(t, NBD_REP_ERR_UNKNOWN, "the volume has been detached");
		return VERDICT_ON;
	}
	enum nbd_talk_verdict verdict = list_bitmaps(t, v);
	volume_put(v);
	return verdict;
}

/* Those that are asked for by name. */
static void answer_bitmaps(struct nbd_talk *t, struct volume *v, const struct nbd_meta_query *q, bool sets)
{
	char name[BITMAP_NAME_BYTES];
	for (uint32_t i = 0; i < q->n_bitmaps; i++) {
		if ((sets && t->n_bitmaps == STATUS_BITMAPS_MAX) || !bitmap_name(v, q->bitmaps[i], name))
			continue;
		uint32_t id = NBD_CONTEXT_ALLOCATION + 1 + t->n_bitmaps;
		if (answer_bitmap(t, sets ? id : 0, name) && sets)
			memcpy(t->bitmaps[t->n_bitmaps++], name, sizeof(name));
	}
}

static enum nbd_talk_verdict answer_meta(struct nbd_connection *c, struct nbd_text data)
{
	struct nbd_talk *t = &c->talk;
	bool sets = t->option.option == NBD_OPT_SET_META_CONTEXT;
	struct nbd_meta_query q;

	if (t->verdict == VERDICT_MORE)
		return list_more_bitmaps(c);
	if (sets) { /* even a refused one replaces what was selected before */
		t->has_allocation = false;
		t->n_bitmaps = 0;
	}
	if (!t->is_structured) {
		answer_error(t, NBD_REP_ERR_INVALID, "ask for structured replies first");
		return VERDICT_ON;
	}
	if (nbd_meta_query_decode(data, &q) != 0) {
		answer_error(t, NBD_REP_ERR_INVALID, "the option's lengths or queries are malformed");
		return VERDICT_ON;
	}
	struct volume *v = find_export(c, q.name);
	if (!v) {
		answer_error(t, NBD_REP_ERR_UNKNOWN, "no volume of this name is attached over NBD here");
		return VERDICT_ON;
	}
	if (sets)
		snprintf(t->meta_export, sizeof(t->meta_export), "%s", volume_name(v));
	if (sets && q.names_allocation) {
		t->has_allocation = true;
		answer_meta_context(t, NBD_CONTEXT_ALLOCATION);
	} else if (!sets && (q.n_queries == 0 || q.names_allocation || q.names_base)) {
		answer_meta_context(t, 0);
	}
	answer_bitmaps(t, v, &q, sets);
	enum nbd_talk_verdict verdict = VERDICT_ON;
	if (!sets && (q.n_queries == 0 || q.names_bitmaps)) {
		snprintf(t->listed, sizeof(t->listed), "%.*s", (int)q.name.len_bytes, (const char *)q.name.bytes);
		t->n_listed = 0;
		verdict = list_bitmaps(t, v);
	} else {
		answer_ack(t);
	}
	volume_put(v);
	return verdict;
}

/* ---- carrying out ---- */

/* Rules that stand above every single option; true: the option was answered. */
static bool answer_by_rule(struct nbd_connection *c, enum nbd_talk_verdict *verdict)
{
	struct nbd_talk *t = &c->talk;
	uint32_t option = t->option.option;

	*verdict = VERDICT_ON;
	if (t->option.len_bytes > OPTION_DATA_MAX) {
		if (option == NBD_OPT_EXPORT_NAME)
			*verdict = VERDICT_END;
		else
			answer_error(t, NBD_REP_ERR_TOO_BIG, "the option's data is too long");
		return true;
	}
	/* a client that does not speak fixed newstyle understands no answer to anything else */
	if (!t->is_fixed && option != NBD_OPT_EXPORT_NAME) {
		*verdict = VERDICT_END;
		return true;
	}
	bool is_open = c->server->tls != NBD_TLS_REQUIRE || c->wire.tls;
	if (is_open || option == NBD_OPT_STARTTLS || option == NBD_OPT_ABORT)
		return false;
	if (option == NBD_OPT_EXPORT_NAME)
		*verdict = VERDICT_END;
	else
		answer_error(t, NBD_REP_ERR_TLS_REQD, "this server answers after STARTTLS only");
	return true;
}

static enum nbd_talk_verdict answer_option(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;
	struct nbd_text data = {.bytes = intake_next(c), .len_bytes = t->option.len_bytes};
	enum nbd_talk_verdict verdict;

	/* taken, it still stays where it is until the next receive; what was too long was thrown away before */
	if (t->verdict != VERDICT_MORE && data.len_bytes <= OPTION_DATA_MAX)
		intake_take(c, data.len_bytes);
	if (answer_by_rule(c, &verdict))
		return verdict;
	switch (t->option.option) {
	case NBD_OPT_EXPORT_NAME:
		return answer_export_name(c, data);
	case NBD_OPT_ABORT:
		answer_ack(t);
		return VERDICT_END;
	case NBD_OPT_LIST:
		return answer_list(c, data);
	case NBD_OPT_STARTTLS:
		return answer_starttls(c, data);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return answer_info_or_go(c, data);
	case NBD_OPT_STRUCTURED_REPLY:
		return answer_structured_reply(c, data);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return answer_meta(c, data);
	default:
		answer_error(t, NBD_REP_ERR_UNSUP, "this server does not know the option");
		return VERDICT_ON;
	}
}

/* ---- stages ---- */

static void talk_greet(struct nbd_talk *t)
{
	uint8_t *p = answer_room(t, NBD_GREETING_BYTES);
	put_be64(p, NBD_GREETING_MAGIC);
	put_be64(p + 8, NBD_OPTION_MAGIC);
	put_be16(p + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
}

/* Are so many bytes in the intake? Else asks for more. */
static enum flow talk_need(struct nbd_connection *c, uint32_t len_bytes)
{
	if (intake_bytes(c) >= len_bytes)
		return FLOW_NEXT;
	if (!c->wire.is_receiving)
		intake_receive(c);
	return FLOW_WAIT;
}

/* false: flags that were not offered; the protocol has no answer to them but to part. */
static bool talk_flags(struct nbd_connection *c)
{
	uint32_t flags = get_be32(intake_next(c));

	intake_take(c, NBD_CLIENT_FLAGS_BYTES);
	if ((flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) != 0)
		return false;
	c->talk.is_fixed = flags & NBD_FIXED_NEWSTYLE;
	c->talk.no_zeroes = flags & NBD_NO_ZEROES;
	return true;
}

/* false: this is not an option, or more of one than anybody means. */
static bool talk_option(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;

	t->option = nbd_option_header_decode(intake_next(c));
	t->verdict = VERDICT_ON;
	intake_take(c, NBD_OPTION_HEADER_BYTES);
	t->skip_bytes = t->option.len_bytes;
	return t->option.magic == NBD_OPTION_MAGIC && t->option.len_bytes <= OPTION_SKIP_MAX;
}

static enum flow talk_skip(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;
	uint32_t n = (uint32_t)min_u64(t->skip_bytes, intake_bytes(c));

	intake_take(c, n);
	t->skip_bytes -= n;
	return t->skip_bytes == 0 ? FLOW_NEXT : talk_need(c, 1);
}

/* Nothing to say counts as said. */
static enum flow talk_send(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;

	if (c->wire.is_sending)
		return FLOW_WAIT;
	if (t->answer_bytes == 0)
		return FLOW_NEXT;
	t->answer_iov = (struct iovec){.iov_base = t->answer, .iov_len = t->answer_bytes};
	t->answer_bytes = 0;
	wire_send(&c->wire, &t->answer_iov, 1);
	return FLOW_WAIT;
}

/* What follows an answer that was sent. */
static enum nbd_talk_stage talk_after_send(const struct nbd_talk *t)
{
	switch (t->verdict) {
	case VERDICT_ON:
		return t->option.magic == 0 ? TALK_FLAGS : TALK_OPTION;
	case VERDICT_MORE:
		return TALK_ANSWER;
	case VERDICT_SECURE:
	case VERDICT_TRANSMIT:
	case VERDICT_END:
		break;
	}
	return TALK_OVER;
}

static void talk_check(const struct nbd_connection *c)
{
	const struct nbd_talk *t = &c->talk;

	quarry_assert(c->stage == CONNECTION_NEGOTIATE);
	quarry_assert(t->stage == TALK_SEND || t->stage == TALK_OVER || !c->wire.is_sending);
	quarry_assert(t->stage == TALK_SEND || t->answer_bytes == 0);
	quarry_assert(!t->has_allocation || t->is_structured);
	quarry_assert(!c->volume || t->verdict == VERDICT_TRANSMIT);
}

/* Read this function to know the whole negotiation. */
enum flow negotiation_run(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;

	for (;;) {
		talk_check(c);
		switch (t->stage) {
		case TALK_GREET:
			talk_greet(t);
			t->stage = TALK_SEND;
			break;
		case TALK_FLAGS:
			if (talk_need(c, NBD_CLIENT_FLAGS_BYTES) == FLOW_WAIT)
				return FLOW_WAIT;
			t->verdict = talk_flags(c) ? VERDICT_ON : VERDICT_END;
			t->stage = t->verdict == VERDICT_ON ? TALK_OPTION : TALK_OVER;
			break;
		case TALK_OPTION:
			if (talk_need(c, NBD_OPTION_HEADER_BYTES) == FLOW_WAIT)
				return FLOW_WAIT;
			if (!talk_option(c)) {
				t->verdict = VERDICT_END;
				t->stage = TALK_OVER;
			} else {
				t->stage = t->option.len_bytes > OPTION_DATA_MAX ? TALK_SKIP : TALK_DATA;
			}
			break;
		case TALK_DATA:
			if (talk_need(c, t->option.len_bytes) == FLOW_WAIT)
				return FLOW_WAIT;
			t->stage = TALK_ANSWER;
			break;
		case TALK_SKIP:
			if (talk_skip(c) == FLOW_WAIT)
				return FLOW_WAIT;
			t->stage = TALK_ANSWER;
			break;
		case TALK_ANSWER:
			t->verdict = answer_option(c);
			t->stage = TALK_SEND;
			break;
		case TALK_SEND:
			if (talk_send(c) == FLOW_WAIT)
				return FLOW_WAIT;
			t->stage = talk_after_send(t);
			break;
		case TALK_OVER:
			return FLOW_NEXT;
		}
	}
}

void negotiation_restart(struct nbd_connection *c)
{
	struct nbd_talk *t = &c->talk;

	quarry_assert(t->stage == TALK_OVER && t->verdict == VERDICT_SECURE);
	quarry_assert(intake_bytes(c) == 0);
	t->stage = TALK_OPTION;
	t->verdict = VERDICT_ON;
	t->is_structured = t->has_allocation = false;
	t->n_bitmaps = 0;
}
