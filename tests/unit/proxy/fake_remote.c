/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/proxy/fake_remote.h"

static void put(const char *sys, const char *path, const char *text)
{
	char full[256], *p;
	int fd;

	snprintf(full, sizeof(full), "%s/%s", sys, path);
	for (p = full + strlen(sys) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(full, 0700);
		*p = '/';
	}
	fd = open(full, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	cr_assert_geq(fd, 0, "%s", full);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

void fake_device(const char *sys, const char *gid)
{
	put(sys, "class/infiniband_verbs/uverbs0/ibdev", "rxe0\n");
	put(sys, "class/infiniband/rxe0/parent", "eth0\n");
	put(sys, "class/infiniband/rxe0/ports/1/state", "4: ACTIVE\n");
	put(sys, "class/infiniband/rxe0/ports/1/link_layer", "Ethernet\n");
	put(sys, "class/infiniband/rxe0/ports/1/gids/0", "fe80:0000:0000:0000:5054:00ff:fe12:3456\n");
	put(sys, "class/infiniband/rxe0/ports/1/gid_attrs/types/0", "RoCE v2\n");
	put(sys, "class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0", "eth0\n");
	put(sys, "class/infiniband/rxe0/ports/1/gids/1", gid);
	put(sys, "class/infiniband/rxe0/ports/1/gid_attrs/types/1", "RoCE v2\n");
	put(sys, "class/infiniband/rxe0/ports/1/gid_attrs/ndevs/1", "eth0\n");
	put(sys, "class/net/eth0/mtu", "4200\n");
}


static int try_offer(struct proxy_client *pc, int fd, uint32_t role, uint64_t cookie, const struct proxy_san_offer *x)
{
	struct proxy_msg m;

	/* of a session before: only wakes */
	while (proxy_client_receive(pc, &m) == 1)
		cr_assert_eq(m.type, PROXY_MSG_SAN_LOOK);
	return proxy_client_offer_san(pc, fd, role, sock_cookie(fd), cookie, x);
}

void offer_proven(struct fake *f, int fd, uint32_t role, const struct proxy_san_offer *x)
{
	int r = -1;

	if (!f->pc)
		f->pc = proxy_client_new();
	f->fd = fd;
	f->cookie = 100 + role;
	cr_assert(UNTIL((r = try_offer(f->pc, fd, role, f->cookie, x)) != PROXY_CLIENT_E_BUSY));
	cr_assert_eq(r, 0, "offer: %d", r);
}

void offer_san(struct fake *f, int fd, uint32_t role, uint32_t flags)
{
	offer_proven(f, fd, role, &(struct proxy_san_offer){ .flags = flags });
}

struct proxy_msg expect(struct fake *f, enum proxy_msg_type type)
{
	struct proxy_msg m = message(f->pc);

	while (m.type == PROXY_MSG_SAN_LOOK && type != PROXY_MSG_SAN_LOOK)
		m = message(f->pc);
	cr_assert_eq(m.type, type, "message %d instead of %d, reason %u", m.type, type, m.reason);
	cr_assert_eq(m.cookie, f->cookie);
	return m;
}

void take_setup(struct fake *f)
{
	f->setup = expect(f, PROXY_MSG_SAN_SETUP);
	f->id = f->setup.session_id;
	f->base = mmap(NULL, f->setup.length, PROT_READ | PROT_WRITE, MAP_SHARED, f->setup.fd, 0);
	cr_assert_neq((void *)f->base, MAP_FAILED);
	close(f->setup.fd);
	f->rs = (struct wsd_remote *)f->base;
}

void say_local(struct fake *f)
{
	char blob[16];

	snprintf(blob, sizeof(blob), "qp of %u", f->setup.side);
	cr_assert_eq(proxy_client_san_local(f->pc, f->cookie, f->id, blob, sizeof(blob)), 0);
}

void take_remote(struct fake *f)
{
	struct proxy_msg m = expect(f, PROXY_MSG_SAN_REMOTE);
	char blob[16];

	snprintf(blob, sizeof(blob), "qp of %u", 1 - f->setup.side);
	cr_assert_eq(m.blob_len, sizeof(blob));
	cr_assert_str_eq((const char *)m.blob, blob);
}

void say_ready(struct fake *f)
{
	cr_assert_eq(proxy_client_san_ready(f->pc, f->cookie, f->id), 0);
}

void offer_both(struct fake f[2], struct pair *p)
{
	*p = pair_make(PAIR_V4);
	offer_san(&f[0], p->end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&f[1], p->end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	take_setup(&f[0]);
	take_setup(&f[1]);
}

void live(struct fake f[2], struct pair *p)
{
	offer_both(f, p);
	join_both(f);
}

void join_both(struct fake f[2])
{
	unsigned i;

	for (i = 0; i < 2; i++)
		say_local(&f[i]);
	for (i = 0; i < 2; i++)
		take_remote(&f[i]);
	for (i = 0; i < 2; i++)
		say_ready(&f[i]);
	for (i = 0; i < 2; i++)
		(void)expect(&f[i], PROXY_MSG_SAN_GO);
}

void ask(struct fake *f, enum wsd_san_what what, uint64_t a, uint64_t b)
{
	cr_assert_eq(proxy_client_san_ask(f->pc, f->cookie, f->id, what, a, b), 0);
}

void done(struct fake f[2], struct pair *p)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		if (p->end[i] >= 0)
			close(p->end[i]);
		f[i].pc = proxy_client_free(f[i].pc);
		if (f[i].base)
			munmap(f[i].base, f[i].setup.length);
	}
}

uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 7 + (off >> 8));
}

/* X puts ring bytes [posted, to), the newest seam says n */
void post(struct fake *f, uint64_t to)
{
	uint64_t o;

	for (o = f->rs->posted; o < to; o++)
		f->base[f->rs->off_tx0 + (o & (f->rs->ring0 - 1))] = byte_at(o);
	atomic_store(&f->rs->posted, to);
}

void add_seam(struct fake *f, uint64_t ring_off, uint64_t tcp_off)
{
	uint32_t n = f->rs->seam_n + 1;
	struct wsd_seam s = { .ring_off = ring_off, .tcp_off = tcp_off, .n = n };
	uint64_t w[3] = { ring_off, tcp_off, n };

	s.check = wsd_remote_check(f->rs->nonce, (uint32_t)WSD_CTL_SEAM(n % WSD_REMOTE_SEAMS), w, 3);
	f->rs->seam[n % WSD_REMOTE_SEAMS] = s;
	atomic_store(&f->rs->seam_n, n);
}

void check_filled(struct fake *f, uint64_t from, uint64_t to)
{
	uint64_t o;

	cr_assert_leq(atomic_load(&f->rs->fill_from), from);
	for (o = from; o < to; o++)
		cr_assert_eq(f->base[f->rs->off_fill + (o & (f->rs->fill_max - 1))], byte_at(o), "byte %lu", (unsigned long)o);
}
