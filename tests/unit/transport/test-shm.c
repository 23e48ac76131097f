/* SPDX-License-Identifier: MIT */
/* test-shm.c - the shm backend against memory that is not what it should be, and a peer that lies */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rdma_transport/fault/fault.h"
#include "tests/fakes/fake_session.h"

#define RING	WSD_RING_MIN
#define ID	77u
#define LEN	wsd_session_length(RING)

static struct rt_peer good(int fd)
{
	return (struct rt_peer){ .size = sizeof(struct rt_peer), .fd = fd, .length = LEN, .ring_size = RING, .session_id = ID };
}

/* what connecting answers, as side 0 */
static int try_connect(const struct rt_peer *peer)
{
	struct rt_ctx *ctx;
	struct rt_conn *c;
	int r;

	cr_assert_eq(rt_ctx_open(&ctx, "shm", NULL), 0);
	cr_assert_eq(rt_conn_new(&c, ctx), 0);
	r = rt_conn_connect(c, peer);
	rt_conn_close(c);
	rt_ctx_close(ctx);
	return r;
}

Test(shm, descriptor_that_is_no_session)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	struct rt_peer p;
	int fd;

	p = good(fake_session_new(RING, ID));
	cr_assert_eq(try_connect(&p), 0);

	p = good(fake_session_raw(RING, ID, LEN));
	cr_assert_eq(try_connect(&p), -EINVAL, "no seals");
	cr_assert_eq(fcntl(p.fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	cr_assert_eq(try_connect(&p), -EINVAL, "may grow");

	p = good(fake_session_raw(RING, ID, LEN - 4096));
	cr_assert_eq(fcntl(p.fd, F_ADD_SEALS, seals), 0);
	cr_assert_eq(try_connect(&p), -EINVAL, "shorter than said");

	p = good(-1);
	cr_assert_eq(try_connect(&p), -EINVAL, "none");
	fd = open("/dev/zero", O_RDWR);
	p = good(fd);
	cr_assert_eq(try_connect(&p), -EINVAL, "a device");

	p = good(fake_session_raw(RING, ID, LEN));
	cr_assert_eq(fcntl(p.fd, F_ADD_SEALS, seals | F_SEAL_WRITE), 0);
	cr_assert_eq(try_connect(&p), -EPERM, "read only");

	fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
	if (fd >= 0) {
		p = good(fd);
		p.ring_size = WSD_RING_MAX;
		p.length = wsd_session_length(WSD_RING_MAX);
		if (!ftruncate(fd, 10 << 20) && !fcntl(fd, F_ADD_SEALS, seals))
			cr_assert_eq(try_connect(&p), -EINVAL, "huge pages");
	}
}

Test(shm, sizes_out_of_bounds)
{
	static const uint32_t sizes[] = { 0, 1, 4096, RING / 2, RING + 4096, RING + 1, 2 * WSD_RING_MAX, 0x80000000u, UINT32_MAX };
	struct rt_peer p = good(fake_session_new(RING, ID));

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		p.ring_size = sizes[i];
		p.length = wsd_session_length(sizes[i]);
		cr_assert_eq(try_connect(&p), -EINVAL, "ring of %u", sizes[i]);
	}
	p = good(p.fd);
	p.length++;
	cr_assert_eq(try_connect(&p), -EINVAL);
	p = good(p.fd);
	p.side = 2;
	cr_assert_eq(try_connect(&p), -EINVAL);
}

Test(shm, header_words_that_contradict)
{
	int fd = fake_session_new(RING, ID);
	struct wsd_session *m = fake_session_map(fd, LEN);
	struct rt_peer p = good(fd);
	struct wsd_session keep = *m;

#define WRONG(what)                                                  \
	do {                                                         \
		what;                                                \
		cr_assert_eq(try_connect(&p), -EPROTO, "%s", #what); \
		memcpy(m, &keep, sizeof(keep));                      \
	} while (0)
	WRONG(m->magic ^= 1);
	WRONG(m->version++);
	WRONG(m->ring_size *= 2);
	WRONG(m->session_id++);
	WRONG(m->length--);
	WRONG(atomic_store(&m->dir[0].gate, RING + 1));
	WRONG(atomic_store(&m->dir[0].tail, 1));
	WRONG(atomic_store(&m->dir[1].gate, RING + 1));
	WRONG(atomic_store(&m->dir[1].tail, 1));
	cr_assert_eq(try_connect(&p), 0);
}

Test(shm, idle_session_is_three_pages)
{
	uint32_t ring = WSD_RING_DEFAULT;
	uint64_t len = wsd_session_length(ring);
	struct rt_peer p = good(fake_session_new(ring, ID));
	unsigned char in[1 + 2 * WSD_RING_DEFAULT / 4096];
	struct rt_ctx *ctx;
	struct rt_conn *c;
	struct rt_ring r;
	unsigned n = 0;

	p.ring_size = ring;
	p.length = len;
	cr_assert_eq(rt_ctx_open(&ctx, "shm", NULL), 0);
	cr_assert_eq(rt_conn_new(&c, ctx), 0);
	cr_assert_eq(rt_conn_connect(c, &p), 0);
	cr_assert_eq(rt_conn_ring(c, &r), 0);
	cr_assert_eq(mincore(r.base, len, in), 0);
	for (unsigned i = 0; i < len / 4096; i++)
		n += in[i] & 1;
	cr_assert_leq(n, 3, "%u pages", n);
	rt_conn_close(c);
	rt_ctx_close(ctx);
}

struct fixture {
	struct rt_ctx *ctx;
	struct rt_conn *c;
	struct wsd_session *m;
	uint8_t *rx_ring;
	char buf[64];
	int fd;
};

static void begin(struct fixture *f)
{
	struct rt_peer p;

	f->fd = fake_session_new(RING, ID);
	f->m = fake_session_map(f->fd, LEN);
	f->rx_ring = (uint8_t *)f->m + WSD_SESSION_HDR + RING;
	p = good(f->fd);
	cr_assert_eq(rt_ctx_open(&f->ctx, "shm", NULL), 0);
	cr_assert_eq(rt_conn_new(&f->c, f->ctx), 0);
	cr_assert_eq(rt_conn_connect(f->c, &p), 0);
}

static void end(struct fixture *f)
{
	rt_conn_close(f->c);
	rt_ctx_close(f->ctx);
	munmap(f->m, LEN);
	close(f->fd);
}

static int poll_status(struct fixture *f)
{
	struct rt_completion wc;

	return rt_poll(f->c, &wc, 1) == 1 ? wc.status : 1;
}

static void post_recv(struct fixture *f)
{
	struct rt_sge s = { f->buf, sizeof(f->buf) };

	cr_assert_eq(rt_post_recv(f->c, &s, 1, 1), 0);
}

Test(shm, head_beyond_the_ring)
{
	struct fixture f;

	begin(&f);
	post_recv(&f);
	cr_assert_eq(poll_status(&f), 1);
	atomic_store(&f.m->dir[1].gate, RING + 1);
	cr_assert_eq(poll_status(&f), -EPROTO);
	cr_assert_eq(rt_conn_error(f.c), -EPROTO);
	end(&f);
}

Test(shm, tail_beyond_the_head)
{
	struct rt_sge s;
	struct fixture f;

	begin(&f);
	s = (struct rt_sge){ f.buf, 8 };
	atomic_store(&f.m->dir[0].tail, 1);
	cr_assert_eq(rt_post_send(f.c, &s, 1, 1), 0);
	cr_assert_eq(poll_status(&f), -EPROTO);
	end(&f);
}

Test(shm, own_head_changed_by_the_peer)
{
	struct rt_sge s;
	struct fixture f;

	begin(&f);
	s = (struct rt_sge){ f.buf, 8 };
	atomic_store(&f.m->dir[0].gate, 64);
	cr_assert_eq(rt_post_send(f.c, &s, 1, 1), 0);
	cr_assert_eq(poll_status(&f), -EPROTO);
	end(&f);
}

/* every 32-bit word of a frame header, changed in several ways, with a receive and a span there to be hit */
Test(shm, frame_headers_are_not_believed, .timeout = 30)
{
	static const uint32_t values[] = { 0, 1, 2, 3, 64, 65, 0x7fffffff, 0x80000000, 0xffffffff };
	uint32_t frame[2][8];
	struct fixture f;
	unsigned refused = 0;

	/* a good one of each kind, taken from what the backend itself sends to side 1 */
	for (int kind = 0; kind < 2; kind++) {
		struct rt_peer p;
		struct rt_conn *other;
		struct rt_mr *mr;
		struct rt_sge s;
		uint8_t desc[RT_DESC_MAX];

		begin(&f);
		p = good(f.fd);
		p.side = 1;
		cr_assert_eq(rt_conn_new(&other, f.ctx), 0);
		cr_assert_eq(rt_conn_connect(other, &p), 0);
		s = (struct rt_sge){ f.buf, 8 };
		cr_assert_eq(rt_mr_new(&mr, f.c, f.buf, 32, RT_ACCESS_WRITE), 0);
		cr_assert_eq(rt_mr_desc(mr, desc, sizeof(desc)), 0);
		if (kind)
			cr_assert_eq(rt_post_write(other, &s, 1, desc, rt_ctx_limits(f.ctx)->desc_len, 4, 1), 0);
		else
			cr_assert_eq(rt_post_send(other, &s, 1, 1), 0);
		memcpy(frame[kind], f.rx_ring, sizeof(frame[kind]));
		rt_mr_drop(mr);
		rt_conn_close(other);
		end(&f);
	}
	for (int kind = 0; kind < 2; kind++)
		for (unsigned word = 0; word < 8; word++)
			for (unsigned v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
				struct {
					uint8_t guard[64], span[32], guard2[64];
				} area = {};
				struct rt_mr *mr;
				int r;

				begin(&f);
				memset(&area, 0xaa, sizeof(area));
				post_recv(&f);
				cr_assert_eq(rt_mr_new(&mr, f.c, area.span, sizeof(area.span), RT_ACCESS_WRITE), 0);
				memset(f.rx_ring, 0x55, RING);
				memcpy(f.rx_ring, frame[kind], 32);
				((uint32_t *)f.rx_ring)[word] = values[v];
				atomic_store(&f.m->dir[1].gate, RING);
				r = poll_status(&f);
				refused += r == -EPROTO || r == -EMSGSIZE;
				for (unsigned i = 0; i < 64; i++)
					cr_assert(area.guard[i] == 0xaa && area.guard2[i] == 0xaa,
						  "kind %d word %u value %x wrote outside", kind, word, values[v]);
				rt_mr_drop(mr);
				end(&f);
			}
	cr_assert_gt(refused, 60, "only %u refused", refused);
}

Test(shm, message_longer_than_the_receive)
{
	char big[65] = "x";
	struct rt_sge s = { big, sizeof(big) };
	struct rt_conn *other;
	struct rt_peer p;
	struct fixture f;

	begin(&f);
	p = good(f.fd);
	p.side = 1;
	cr_assert_eq(rt_conn_new(&other, f.ctx), 0);
	cr_assert_eq(rt_conn_connect(other, &p), 0);
	post_recv(&f);
	cr_assert_eq(rt_post_send(other, &s, 1, 1), 0);
	cr_assert_eq(poll_status(&f), -EMSGSIZE);
	rt_conn_close(other);
	end(&f);
}

Test(shm, span_dropped_under_a_write)
{
	static char span[4 * RING], source[4 * RING];
	struct rt_sge s = { source, sizeof(source) };
	uint8_t desc[RT_DESC_MAX];
	struct rt_completion wc;
	struct rt_conn *other;
	struct rt_peer p;
	struct rt_mr *mr;
	struct fixture f;

	memset(source, 1, sizeof(source));
	begin(&f);
	p = good(f.fd);
	p.side = 1;
	cr_assert_eq(rt_conn_new(&other, f.ctx), 0);
	cr_assert_eq(rt_conn_connect(other, &p), 0);
	post_recv(&f);
	cr_assert_eq(rt_mr_new(&mr, f.c, span, sizeof(span), RT_ACCESS_WRITE), 0);
	cr_assert_eq(rt_mr_desc(mr, desc, sizeof(desc)), 0);
	cr_assert_eq(rt_post_write(other, &s, 1, desc, rt_ctx_limits(f.ctx)->desc_len, 0, 1), 0);
	cr_assert_eq(poll_status(&f), 1);
	cr_assert_eq(span[0], 1);
	rt_mr_drop(mr);
	memset(span, 0, sizeof(span));
	rt_poll(other, &wc, 1);		/* the next part comes */
	cr_assert_eq(poll_status(&f), -EPROTO);
	for (unsigned i = 0; i < sizeof(span); i++)
		cr_assert_eq(span[i], 0);
	rt_conn_close(other);
	end(&f);
}

Test(shm, revoked_session_ends)
{
	struct fixture f;

	begin(&f);
	post_recv(&f);
	atomic_store(&f.m->revoked, 1);
	cr_assert_eq(poll_status(&f), -ECONNRESET);
	end(&f);
}

Test(shm, a_child_says_nothing)
{
	struct fixture f;
	pid_t pid;
	int status;

	begin(&f);
	post_recv(&f);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		rt_conn_orphan(f.c);
		rt_conn_close(f.c);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	cr_assert_eq(atomic_load(&f.m->dir[0].xflags), 0, "the child spoke for its parent");
	cr_assert_eq(poll_status(&f), 1);
	end(&f);
	/* the parent's own close is seen */
	f.m = fake_session_map(f.fd = fake_session_new(RING, ID), LEN);
}

#ifdef WSD_FAULT_INJECTION
Test(fault, plan_is_checked)
{
	cr_assert_eq(rt_fault_plan("post_send:1:104"), 0);
	cr_assert_eq(rt_fault_plan("post_send:1:104,conn_connect:2:12"), 0);
	cr_assert_eq(rt_fault_plan(""), 0);
	cr_assert_eq(rt_fault_plan("nosuch:1:104"), -EINVAL);
	cr_assert_eq(rt_fault_plan("post_send:1"), -EINVAL);
	cr_assert_eq(rt_fault_plan("post_send:1:0"), -EINVAL);
	cr_assert_eq(rt_fault_plan("post_send:1:5x"), -EINVAL);
}

Test(fault, each_operation_fails_when_told)
{
	struct rt_peer p = good(fake_session_new(RING, ID));
	char buf[8], desc[RT_DESC_MAX];
	struct rt_sge s = { buf, sizeof(buf) };
	struct rt_ctx *ctx;
	struct rt_conn *c;
	struct rt_mr *mr;
	struct rt_ring ring;
	uint32_t dl;

	cr_assert_eq(rt_ctx_open(&ctx, "fault:", NULL), -ENOENT);
	cr_assert_eq(rt_ctx_open(&ctx, "fault:fault:shm", NULL), -EINVAL);
	rt_fault_arm(RT_FAULT_ctx_open, 1, -EIO);
	cr_assert_eq(rt_ctx_open(&ctx, "fault:shm", NULL), -EIO);
	cr_assert_eq(rt_ctx_open(&ctx, "fault:shm", NULL), 0);
	rt_fault_arm(RT_FAULT_conn_open, 1, -EIO);
	cr_assert_eq(rt_conn_new(&c, ctx), -EIO);
	cr_assert_eq(rt_conn_new(&c, ctx), 0);
	rt_fault_arm(RT_FAULT_conn_connect, 2, -EIO);
	p.side = 3;
	cr_assert_eq(rt_conn_connect(c, &p), -EINVAL, "base/ checks before it counts");
	p.side = 0;
	p.session_id++;
	cr_assert_eq(rt_conn_connect(c, &p), -EPROTO);
	p.session_id--;
	cr_assert_eq(rt_conn_connect(c, &p), -EIO, "the second");
	cr_assert_eq(rt_conn_connect(c, &p), 0);
	rt_fault_arm(RT_FAULT_mr_open, 1, -EIO);
	cr_assert_eq(rt_mr_new(&mr, c, buf, 8, RT_ACCESS_WRITE), -EIO);
	cr_assert_eq(rt_mr_new(&mr, c, buf, 8, RT_ACCESS_WRITE), 0);
	rt_fault_arm(RT_FAULT_mr_desc, 1, -EIO);
	cr_assert_eq(rt_mr_desc(mr, desc, sizeof(desc)), -EIO);
	cr_assert_eq(rt_mr_desc(mr, desc, sizeof(desc)), 0);
	dl = rt_ctx_limits(ctx)->desc_len;
	rt_fault_arm(RT_FAULT_conn_ring, 1, -EIO);
	cr_assert_eq(rt_conn_ring(c, &ring), -EIO);
	rt_fault_arm(RT_FAULT_post_recv, 1, -EIO);
	cr_assert_eq(rt_post_recv(c, &s, 1, 1), -EIO);
	rt_fault_arm(RT_FAULT_post_put, 1, -EIO);
	cr_assert_eq(rt_post_put(c, &s, 1, 0, 1), -EIO);
	rt_fault_arm(RT_FAULT_post_send, 1, -EIO);
	cr_assert_eq(rt_post_send(c, &s, 1, 1), -EIO);
	cr_assert_eq(rt_post_send(c, &s, 1, 1), 0);
	rt_fault_arm(RT_FAULT_post_write, 1, -EIO);
	cr_assert_eq(rt_post_write(c, &s, 1, desc, dl, 0, 1), -EIO);
	rt_mr_drop(mr);
	rt_conn_close(c);
	rt_ctx_close(ctx);
}
#endif
