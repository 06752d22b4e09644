/*
 * test_vhost_client.c: the rings and layouts of the vhost-user-blk client, against a device in memory.
 *
 * The device is written from the specification a second time, the other way round. It sleeps when it has found nothing
 * more and works on only when it is kicked; the driver looks for completions only when it is called: a kick or call
 * that one side holds back wrongly stops the test.
 */
#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vhost/vhost_slot.h"

#define DISK_SECTORS 4096u
#define SECTOR       512u
#define SLOTS        12u
#define AREA_SECTORS (DISK_SECTORS / SLOTS)
#define PENDING_MAX  64u
#define CHAIN_MAX    80u

/* A request that the device has taken and not completed. */
struct pending {
	uint16_t id, n_descs;
	struct vhost_piece pieces[CHAIN_MAX];
	unsigned n;
};

struct device {
	struct vhost_memory *memory;
	bool is_packed, has_event_idx, is_awake;
	uint16_t size, avail, used, n_unsignaled;
	bool avail_wrap, used_wrap;
	uint8_t *desc, *driver, *dev;
	struct pending pending[PENDING_MAX];
	unsigned n_pending;
	uint64_t random;
	uint8_t disk[DISK_SECTORS * SECTOR];
	uint64_t n_calls, n_kicks, n_done;
};

/* ---- reading a request ---- */

static void pending_add(struct pending *p, uint64_t addr, uint32_t len, uint16_t flags)
{
	CU_ASSERT_FATAL(p->n < CHAIN_MAX);
	CU_ASSERT(len > 0);
	/* what is read comes before what is written */
	CU_ASSERT(p->n == 0 || (flags & VRING_DESC_F_WRITE) || !p->pieces[p->n - 1].is_writable);
	p->pieces[p->n++] = (struct vhost_piece){.addr = addr, .len = len, .is_writable = flags & VRING_DESC_F_WRITE};
}

static void table_read(struct device *d, struct pending *p, uint64_t addr, uint32_t len)
{
	uint8_t *table = vhost_memory_at(d->memory, addr);

	CU_ASSERT(len % 16 == 0 && len > 0);
	for (uint32_t i = 0; i < len / 16; i++) {
		struct vring_desc *s = (struct vring_desc *)table + i;
		struct vring_packed_desc *k = (struct vring_packed_desc *)table + i;

		if (d->is_packed) {
			pending_add(p, k->addr, k->len, k->flags);
		} else {
			pending_add(p, s->addr, s->len, s->flags);
			CU_ASSERT(((s->flags & VRING_DESC_F_NEXT) != 0) == (i + 1 < len / 16));
			CU_ASSERT(!(s->flags & VRING_DESC_F_NEXT) || s->next == i + 1);
		}
	}
}

static bool split_take(struct device *d, struct pending *p)
{
	struct vring_avail *avail = (void *)d->driver;
	struct vring_desc *desc = (void *)d->desc;
	uint16_t at;

	if (avail->idx == d->avail)
		return false;
	p->id = at = avail->ring[d->avail++ & (d->size - 1)];
	for (;;) {
		CU_ASSERT_FATAL(at < d->size);
		if (desc[at].flags & VRING_DESC_F_INDIRECT)
			table_read(d, p, desc[at].addr, desc[at].len);
		else
			pending_add(p, desc[at].addr, desc[at].len, desc[at].flags);
		if (!(desc[at].flags & VRING_DESC_F_NEXT))
			return true;
		at = desc[at].next;
	}
}

static bool packed_take(struct device *d, struct pending *p)
{
	struct vring_packed_desc *desc = (void *)d->desc;
	uint16_t flags = desc[d->avail].flags;

	if (((flags >> 7) & 1) != d->avail_wrap || ((flags >> 15) & 1) == d->avail_wrap)
		return false;
	p->n_descs = 0;
	do {
		flags = desc[d->avail].flags;
		p->id = desc[d->avail].id;
		p->n_descs++;
		if (flags & VRING_DESC_F_INDIRECT)
			table_read(d, p, desc[d->avail].addr, desc[d->avail].len);
		else
			pending_add(p, desc[d->avail].addr, desc[d->avail].len, flags);
		d->avail++;
		if (d->avail == d->size) {
			d->avail = 0;
			d->avail_wrap = !d->avail_wrap;
		}
	} while (flags & VRING_DESC_F_NEXT);
	return true;
}

static bool device_take(struct device *d)
{
	struct pending *p = &d->pending[d->n_pending];

	CU_ASSERT_FATAL(d->n_pending < PENDING_MAX);
	p->n = 0;
	if (!(d->is_packed ? packed_take(d, p) : split_take(d, p)))
		return false;
	d->n_pending++;
	return true;
}

/* ---- working on it ---- */

/* One byte of the stream of a direction at a time: slow and plain. */
static uint8_t *stream_byte(struct device *d, const struct pending *p, bool is_writable, uint32_t pos)
{
	for (unsigned i = 0; i < p->n; i++) {
		if (p->pieces[i].is_writable != is_writable)
			continue;
		if (pos < p->pieces[i].len)
			return vhost_memory_at(d->memory, p->pieces[i].addr + pos);
		pos -= p->pieces[i].len;
	}
	return NULL;
}

static uint32_t stream_len(const struct pending *p, bool is_writable)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < p->n; i++)
		n += p->pieces[i].is_writable == is_writable ? p->pieces[i].len : 0;
	return n;
}

/* The number of bytes written into guest memory. */
static uint32_t execute(struct device *d, const struct pending *p)
{
	uint32_t n_out = stream_len(p, false), n_in = stream_len(p, true);
	struct virtio_blk_outhdr h;
	uint8_t *disk;

	CU_ASSERT_FATAL(n_out >= sizeof(h) && n_in >= 1);
	for (uint32_t i = 0; i < sizeof(h); i++)
		((uint8_t *)&h)[i] = *stream_byte(d, p, false, i);
	CU_ASSERT_FATAL(h.sector * SECTOR + n_out - sizeof(h) + n_in - 1 <= sizeof(d->disk));
	disk = d->disk + h.sector * SECTOR;
	CU_ASSERT(h.type == VIRTIO_BLK_T_OUT || n_out == sizeof(h));
	CU_ASSERT(h.type == VIRTIO_BLK_T_IN || n_in == 1);
	for (uint32_t i = sizeof(h); i < n_out; i++)
		disk[i - sizeof(h)] = *stream_byte(d, p, false, i);
	for (uint32_t i = 0; i + 1 < n_in; i++)
		*stream_byte(d, p, true, i) = disk[i];
	*stream_byte(d, p, true, n_in - 1) = VIRTIO_BLK_S_OK;
	return n_in;
}

/* ---- completing it ---- */

static bool split_wants_call(struct device *d)
{
	struct vring_avail *avail = (void *)d->driver;

	if (!d->has_event_idx)
		return !(avail->flags & VRING_AVAIL_F_NO_INTERRUPT);
	return vring_need_event(avail->ring[d->size], d->used, (uint16_t)(d->used - d->n_unsignaled));
}

/* The event is among the descriptors that were used since the last call: counted one by one. */
static bool packed_wants_call(struct device *d)
{
	struct vring_packed_desc_event *e = (void *)d->driver;
	uint16_t at = d->used;
	bool wrap = d->used_wrap;

	if (e->flags != VRING_PACKED_EVENT_FLAG_DESC)
		return e->flags == VRING_PACKED_EVENT_FLAG_ENABLE;
	for (uint16_t i = 0; i < d->n_unsignaled; i++) {
		if (at == 0) {
			at = d->size;
			wrap = !wrap;
		}
		at--;
		if ((e->off_wrap & 0x7fff) == at && (e->off_wrap >> 15) == wrap)
			return true;
	}
	return false;
}

static void device_complete(struct device *d, unsigned i)
{
	struct pending p = d->pending[i];
	uint32_t len = execute(d, &p);

	d->pending[i] = d->pending[--d->n_pending];
	if (d->is_packed) {
		struct vring_packed_desc *desc = (void *)d->desc;

		desc[d->used].id = p.id;
		desc[d->used].len = len;
		desc[d->used].flags = (uint16_t)(VRING_DESC_F_WRITE | (d->used_wrap ? 1u << 7 | 1u << 15 : 0));
		d->used = (uint16_t)(d->used + p.n_descs);
		d->n_unsignaled = (uint16_t)(d->n_unsignaled + p.n_descs);
		if (d->used >= d->size) {
			d->used = (uint16_t)(d->used - d->size);
			d->used_wrap = !d->used_wrap;
		}
	} else {
		struct vring_used *used = (void *)d->dev;

		used->ring[d->used & (d->size - 1)] = (struct vring_used_elem){.id = p.id, .len = len};
		used->idx = ++d->used;
		d->n_unsignaled++;
	}
	d->n_done++;
}

/* True when the driver is to be called for what was completed since. */
static bool device_calls(struct device *d)
{
	bool is_wanted = d->n_unsignaled > 0 && (d->is_packed ? packed_wants_call(d) : split_wants_call(d));

	d->n_unsignaled = 0;
	d->n_calls += is_wanted;
	return is_wanted;
}

static void device_want_kick(struct device *d, bool is_wanted)
{
	struct vring_used *used = (void *)d->dev;
	struct vring_packed_desc_event *e = (void *)d->dev;

	if (d->is_packed && d->has_event_idx && is_wanted)
		*e = (struct vring_packed_desc_event){.off_wrap = (uint16_t)(d->avail | d->avail_wrap << 15),
						      .flags = VRING_PACKED_EVENT_FLAG_DESC};
	else if (d->is_packed)
		e->flags = is_wanted ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE;
	else if (d->has_event_idx && is_wanted)
		memcpy(&used->ring[d->size], &d->avail, sizeof(d->avail));
	else
		used->flags = is_wanted ? 0 : VRING_USED_F_NO_NOTIFY;
}

/* Takes and completes some, in any order; true when the driver is to be called. */
static bool device_turn(struct device *d)
{
	unsigned n = 1 + (unsigned)vhost_dice(&d->random, 6);

	if (d->is_awake) {
		device_want_kick(d, false);
		while (n-- > 0 && device_take(d))
			;
		if (n != ~0u) { /* nothing more there: to sleep, unless something came meanwhile */
			device_want_kick(d, true);
			d->is_awake = device_take(d);
		}
	}
	n = (unsigned)vhost_dice(&d->random, d->n_pending + 1);
	while (n-- > 0)
		device_complete(d, (unsigned)vhost_dice(&d->random, d->n_pending));
	return device_calls(d);
}

/* ---- the driver's part ---- */

struct world {
	struct vhost_client c;
	struct device d;
	uint8_t wanted[DISK_SECTORS * SECTOR];
	uint8_t buffer[AREA_SECTORS * SECTOR];
	uint64_t random;
	bool is_called;
};

static struct world *world_make(bool is_packed, bool has_event_idx, uint16_t size, uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));
	struct vhost_options o = {.path = "",
				  .is_packed = is_packed,
				  .queue_size = size,
				  .n_slots = SLOTS,
				  .data_max = AREA_SECTORS * SECTOR,
				  .without_event_idx = !has_event_idx};
	struct vhost_queue *q = &w->c.queues[0];

	CU_ASSERT_FATAL(vhost_client_init(&w->c, &o) == 0);
	w->c.features_offered = ~0ull;
	vhost_client_forget(&w->c, is_packed);
	w->random = seed;
	w->d = (struct device){.memory = &w->c.memory,
			       .is_packed = is_packed,
			       .has_event_idx = has_event_idx,
			       .size = size,
			       .avail_wrap = true,
			       .used_wrap = true,
			       .random = seed + 1,
			       .desc = q->ring.desc,
			       .driver = q->ring.driver,
			       .dev = q->ring.device};
	device_want_kick(&w->d, true);
	return w;
}

static void world_free(struct world *w)
{
	vhost_client_fini(&w->c);
	free(w);
}

static bool send_one(struct world *w, bool may_mix)
{
	struct vhost_slot *s = vhost_slot_get(&w->c.queues[0]);
	uint64_t type = vhost_dice(&w->random, 10), first, n;
	struct vhost_shape shape = {.layout = (enum vhost_layout)vhost_dice(&w->random, 3),
				    .table = (enum vhost_table)vhost_dice(&w->random, may_mix ? 3 : 2),
				    .dice = &w->random};

	if (!s)
		return false;
	/* a slot works on sectors of its own */
	first = (uint64_t)(s - w->c.queues[0].slots) * AREA_SECTORS;
	n = 1 + vhost_dice(&w->random, vhost_dice(&w->random, 4) == 0 ? AREA_SECTORS : 8);
	type = type < 5 ? VIRTIO_BLK_T_IN : type < 9 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_FLUSH;
	vhost_slot_prepare(s, (uint32_t)type, first, type == VIRTIO_BLK_T_FLUSH ? 0 : (uint32_t)n * SECTOR, shape);
	if (type == VIRTIO_BLK_T_OUT) {
		for (uint32_t i = 0; i < s->data_len; i++)
			w->buffer[i] = (uint8_t)vhost_dice(&w->random, 256);
		vhost_slot_write(s, w->buffer, s->data_len);
	}
	if (!vhost_slot_submit(s)) {
		vhost_slot_put(s);
		return false;
	}
	if (type == VIRTIO_BLK_T_OUT)
		memcpy(w->wanted + first * SECTOR, w->buffer, s->data_len);
	return true;
}

static unsigned take_all(struct world *w)
{
	struct vhost_slot *s;
	unsigned n = 0;
	uint32_t len;

	while ((s = vhost_queue_take(&w->c.queues[0], &len))) {
		CU_ASSERT(vhost_slot_status(s) == VIRTIO_BLK_S_OK);
		CU_ASSERT(len == 1 + (s->type == VIRTIO_BLK_T_IN ? s->data_len : 0));
		if (s->type == VIRTIO_BLK_T_IN) {
			vhost_slot_read(s, w->buffer, s->data_len);
			CU_ASSERT(memcmp(w->buffer, w->wanted + s->sector * SECTOR, s->data_len) == 0);
		}
		vhost_slot_put(s);
		n++;
	}
	CU_ASSERT_PTR_NULL(w->c.queues[0].ring.why);
	return n;
}

static void run(bool is_packed, bool has_event_idx, uint16_t size, bool may_mix)
{
	struct world *w = world_make(is_packed, has_event_idx, size, size * 4u + is_packed * 2u + has_event_idx);
	struct vhost_ring *r = &w->c.queues[0].ring;
	unsigned n_done = 0, n_idle = 0, n_held = 0;

	vhost_ring_want_call(r);
	while (n_done < 6000 && n_idle < 1000) {
		unsigned n = (unsigned)vhost_dice(&w->random, 4), before = n_done;

		while (n-- > 0 && send_one(w, may_mix))
			;
		if (vhost_ring_needs_kick(r)) {
			w->d.n_kicks++;
			w->d.is_awake = true;
		}
		w->is_called |= device_turn(&w->d);
		if (w->is_called) {
			w->is_called = false;
			vhost_ring_unwant_call(r);
			n_done += take_all(w);
			while (vhost_ring_want_call(r))
				n_done += take_all(w);
		}
		n_idle = n_done == before ? n_idle + 1 : 0;
	}
	CU_ASSERT(n_done >= 6000); /* nothing got stuck */
	CU_ASSERT(w->d.n_kicks < w->d.n_done && w->d.n_calls < w->d.n_done);
	for (unsigned i = 0; i < size; i++)
		n_held += r->entries[i].is_in_flight ? r->entries[i].n_descs : 0;
	CU_ASSERT(r->n_free + n_held == size);
	world_free(w);
}

static void test_split(void)
{
	run(false, false, 256, true);
	run(false, true, 256, true);
	run(false, true, 64, true);
}

static void test_packed(void)
{
	run(true, false, 256, false);
	run(true, true, 256, false);
	run(true, true, 67, false); /* a packed ring's size need not be a power of two */
}

/* ---- what a device must not do is found ---- */

static void test_twice(void)
{
	for (int is_packed = 0; is_packed < 2; is_packed++) {
		struct world *w = world_make(is_packed, true, 64, 7);
		struct vhost_ring *r = &w->c.queues[0].ring;
		struct vhost_slot *s = vhost_slot_get(&w->c.queues[0]);
		struct pending again;
		uint32_t token, len;

		vhost_slot_prepare(s, VIRTIO_BLK_T_FLUSH, 0, 0, (struct vhost_shape){.layout = VHOST_LAYOUT_PLAIN});
		CU_ASSERT_FATAL(vhost_slot_submit(s) && device_take(&w->d));
		again = w->d.pending[0];
		device_complete(&w->d, 0);
		CU_ASSERT(vhost_ring_take(r, &token, &len));
		w->d.pending[w->d.n_pending++] = again;
		device_complete(&w->d, 0);
		CU_ASSERT(!vhost_ring_take(r, &token, &len));
		CU_ASSERT_PTR_NOT_NULL_FATAL(r->why);
		CU_ASSERT(strstr(r->why, "not in flight") != NULL);
		world_free(w);
	}
}

static void test_wrong_id(void)
{
	for (int is_packed = 0; is_packed < 2; is_packed++) {
		struct world *w = world_make(is_packed, true, 64, 7);
		struct vhost_ring *r = &w->c.queues[0].ring;
		struct vhost_slot *s = vhost_slot_get(&w->c.queues[0]);
		uint32_t token, len;

		vhost_slot_prepare(s, VIRTIO_BLK_T_FLUSH, 0, 0, (struct vhost_shape){.layout = VHOST_LAYOUT_PLAIN});
		CU_ASSERT_FATAL(vhost_slot_submit(s) && device_take(&w->d));
		w->d.pending[0].id = 64;
		device_complete(&w->d, 0);
		CU_ASSERT(!vhost_ring_take(r, &token, &len));
		CU_ASSERT_PTR_NOT_NULL_FATAL(r->why);
		CU_ASSERT(strstr(r->why, "beyond") != NULL);
		world_free(w);
	}
}

static void test_memory(void)
{
	struct vhost_memory m;
	uint64_t gpa, crossed = 0;

	CU_ASSERT_FATAL(vhost_memory_init(&m, 5, 1 << 20) == 0);
	while ((gpa = vhost_memory_take(&m, 12000, 64)) != 0) {
		unsigned first = 0, last = 0;

		memset(vhost_memory_at(&m, gpa), 0xff, 12000); /* no gap in it */
		for (unsigned i = 0; i < m.n; i++) {
			first = m.regions[i].gpa <= gpa ? i : first;
			last = m.regions[i].gpa <= gpa + 11999 ? i : last;
		}
		CU_ASSERT(last == first || (last == first + 1 && first % 2 == 0));
		CU_ASSERT(gpa + 12000 <= m.regions[last].gpa + m.regions[last].size);
		crossed += last != first;
	}
	CU_ASSERT(crossed == 2); /* from 0 to 1, from 2 to 3; none touches 4 */
	CU_ASSERT(m.at < 5 || gpa == 0);
	vhost_memory_fini(&m);
}

int main(void)
{
	CU_pSuite s;

	if (CU_initialize_registry() != CUE_SUCCESS)
		return 2;
	s = CU_add_suite("vhost_client", NULL, NULL);
	CU_add_test(s, "split rings, any layout", test_split);
	CU_add_test(s, "packed rings, any layout", test_packed);
	CU_add_test(s, "a request completed twice is found", test_twice);
	CU_add_test(s, "an id beyond the ring is found", test_wrong_id);
	CU_add_test(s, "allocations cross into touching regions and no gap", test_memory);
	CU_basic_run_tests();
	return CU_get_number_of_failures() ? 1 : 0;
}
