/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <wsd/shared_ring.h>

#include "tests/fakes/fake_daemon.h"

#define PAGE 4096

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fake daemon: %s\n", what);
	abort();
}

void fake_daemon_start(struct fake_daemon *d)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memset(d, 0, sizeof(*d));
	for (int i = 0; i < FAKE_CLIENTS; i++)
		d->client[i].fd = -1;
	strcpy(d->dir, "/tmp/wsd-fake-XXXXXX");
	need(mkdtemp(d->dir), "directory");
	snprintf(d->path, sizeof(d->path), "%s/s", d->dir);
	strcpy(a.sun_path, d->path);
	d->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	need(d->listener >= 0 && !bind(d->listener, (struct sockaddr *)&a, sizeof(a)) && !listen(d->listener, 64),
	     "listen");
	setenv(WSD_PROXY_SOCKET_ENV, d->path, 1);
}

void fake_daemon_stop(struct fake_daemon *d)
{
	for (int i = 0; i < FAKE_CLIENTS; i++)
		if (d->client[i].fd >= 0) {
			close(d->client[i].fd);
			munmap(d->client[i].page, PAGE);
			d->client[i].fd = -1;
		}
	close(d->listener);
	unlink(d->path);
	rmdir(d->dir);
}

static void send_fd(int to, const void *buf, size_t len, int fd)
{
	struct iovec iov = { (void *)buf, len };
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} c = {};
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = &c;
		m.msg_controllen = sizeof(c);
		c.hdr.cmsg_level = SOL_SOCKET;
		c.hdr.cmsg_type = SCM_RIGHTS;
		c.hdr.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&c.hdr), &fd, sizeof(fd));
	}
	(void)!sendmsg(to, &m, MSG_NOSIGNAL);	/* a client that is gone is the test's business */
}

void fake_daemon_send(struct fake_daemon *d, int client, const void *buf, size_t len, int fd)
{
	send_fd(d->client[client].fd, buf, len, fd);
	atomic_fetch_add(&d->client[client].page->queued, 1);
}

static struct wsd_msg_hdr header(uint32_t len, uint16_t type, uint64_t cookie)
{
	return (struct wsd_msg_hdr){ .len = len, .version = WSD_PROXY_VERSION, .type = type, .cookie = cookie };
}

static void welcome(struct fake_daemon *d, int client, uint64_t cookie)
{
	struct wsd_msg_welcome w = { header(sizeof(w), WSD_MSG_WELCOME, cookie), PAGE, getpid() };
	int fd = memfd_create("notify", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	need(fd >= 0 && !ftruncate(fd, PAGE), "notify page");
	d->client[client].page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(d->client[client].page != MAP_FAILED, "map of notify page");
	need(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), "seals");
	fake_daemon_send(d, client, &w, sizeof(w), fd);
	close(fd);
}

void fake_daemon_welcome(struct fake_daemon *d, int client)
{
	welcome(d, client, d->caps);
}

#define TAKE(array, count, type)                                                     \
	do {                                                                         \
		need(len == sizeof(type), "length of " #type);                       \
		need(d->count < sizeof(d->array) / sizeof(d->array[0]), "records");  \
		memcpy(&d->array[d->count++], buf, len);                                \
	} while (0)

static void take(struct fake_daemon *d, int client, const char *buf, size_t len)
{
	struct wsd_msg_hdr h;

	need(len >= sizeof(h), "no header");
	memcpy(&h, buf, sizeof(h));
	need(h.len == len && h.version == WSD_PROXY_VERSION, "bad header");
	switch (h.type) {
	case WSD_MSG_HELLO:
		if (!d->silent)
			welcome(d, client, d->caps);
		break;
	case WSD_MSG_OFFER:
		need(len == sizeof(struct wsd_msg_offer) && d->n_offers < FAKE_RECORDS && h.cookie, "offer");
		d->offer[d->n_offers].client = client;
		memcpy(&d->offer[d->n_offers++].m, buf, len);
		break;
	case WSD_MSG_WITHDRAW:
		TAKE(withdraw, n_withdraws, struct wsd_msg_withdraw);
		break;
	case WSD_MSG_ATTACHED:
		TAKE(attached, n_attached, struct wsd_msg_attached);
		break;
	case WSD_MSG_OFFER_SAN:
		need(d->caps & WSD_CAP_SAN, "OFFER_SAN was not offered");
		need(len == sizeof(struct wsd_msg_offer_san) && d->n_offers_san < FAKE_SAN_RECORDS && h.cookie, "offer");
		d->offer_san[d->n_offers_san].client = client;
		memcpy(&d->offer_san[d->n_offers_san++].m, buf, len);
		break;
	case WSD_MSG_SAN_LOCAL:
		TAKE(local, n_locals, struct wsd_msg_san_blob);
		break;
	case WSD_MSG_SAN_READY:
		TAKE(ready, n_readies, struct wsd_msg_san_plain);
		break;
	case WSD_MSG_SAN_ASK:
		TAKE(ask, n_asks, struct wsd_msg_san_plain);
		break;
	default:
		need(false, "unknown type");
	}
}

static void read_client(struct fake_daemon *d, int i)
{
	char buf[WSD_MSG_MAX];
	ssize_t n;

	while ((n = recv(d->client[i].fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		take(d, i, buf, n);
	if (n == 0 || errno != EAGAIN) {
		close(d->client[i].fd);
		d->client[i].fd = -1;
	}
}

void fake_daemon_pump(struct fake_daemon *d)
{
	int fd, i;

	while ((fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		for (i = 0; i < FAKE_CLIENTS && d->client[i].fd >= 0; i++)
			;
		need(i < FAKE_CLIENTS, "too many clients");
		d->client[i] = (struct fake_client){ .fd = fd };
		d->n_clients++;
	}
	for (i = 0; i < FAKE_CLIENTS; i++)
		if (d->client[i].fd >= 0)
			read_client(d, i);
}

void fake_daemon_refuse(struct fake_daemon *d, unsigned offer, uint32_t reason)
{
	const struct fake_offer *o = &d->offer[offer];
	struct wsd_msg_refused m = { header(sizeof(m), WSD_MSG_REFUSED, o->m.hdr.cookie), reason, 0 };

	fake_daemon_send(d, o->client, &m, sizeof(m), -1);
}

void fake_daemon_session(struct fake_daemon *d, unsigned offer, int fd, uint32_t ring_size, uint64_t session_id,
			 uint32_t side)
{
	const struct fake_offer *o = &d->offer[offer];
	struct wsd_msg_session m = {
		header(sizeof(m), WSD_MSG_SESSION, o->m.hdr.cookie),
		session_id, wsd_session_length(ring_size), ring_size, side,
	};

	fake_daemon_send(d, o->client, &m, sizeof(m), fd);
}
