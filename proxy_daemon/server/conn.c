/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/request.h"
#include "proxy_daemon/server/san/peer_status.h"
#include "proxy_daemon/server/san/remote.h"
#include "proxy_daemon/server/status.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define NOTIFY_PAGE	4096u
#define PACKETS_A_TURN	32u		/* then the others get theirs */
#define PACE_US		2000u

struct packet {
	TAILQ_ENTRY(packet) link;
	int fd;
	uint32_t len;
	char bytes[];
};

/* ---- sending ---- */

static int transmit(struct conn *c, const void *buf, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} ctl;
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cm;
	ssize_t n;

	if (fd >= 0) {
		memset(&ctl, 0, sizeof(ctl));
		mh.msg_control = &ctl;
		mh.msg_controllen = sizeof(ctl);
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &fd, sizeof(int));
	}
	do {
		n = sendmsg(c->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* after the packet: who sees the new count finds it */
	if (c->page)
		atomic_fetch_add(&c->page->queued, 1);
	return 0;
}

static void packet_drop(struct conn *c, struct packet *p)
{
	TAILQ_REMOVE(&c->queue, p, link);
	c->n_queue--;
	if (p->fd >= 0) {
		c->n_queue_fds--;
		c->srv->n_queue_fds--;
		close(p->fd);
	}
	free(p);
}

static int enqueue(struct conn *c, const void *buf, size_t len, int fd)
{
	struct packet *p;

	if (fd >= 0 && (c->n_queue_fds >= CONN_QUEUE_FDS_MAX || c->srv->n_queue_fds >= QUEUE_FDS_MAX))
		return -ENOBUFS;
	if (c->n_queue >= CONN_QUEUE_MAX) {
		log_client("pid %d uid %u does not read its answers, dropped", c->pid, c->uid);
		conn_kill(c);
		return -ENOBUFS;
	}
	p = malloc(sizeof(*p) + len);
	if (!p)
		return -ENOBUFS;
	p->fd = -1;
	if (fd >= 0) {
		p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (p->fd < 0) {
			free(p);
			return -ENOBUFS;
		}
		c->n_queue_fds++;
		c->srv->n_queue_fds++;
	}
	p->len = (uint32_t)len;
	memcpy(p->bytes, buf, len);
	TAILQ_INSERT_TAIL(&c->queue, p, link);
	c->n_queue++;
	(void)sd_event_source_set_io_events(c->io, EPOLLIN | EPOLLOUT);
	return 0;
}

int conn_send(struct conn *c, const void *buf, size_t len, int fd)
{
	int r;

	if (c->dead)
		return -EPIPE;
	if (!TAILQ_EMPTY(&c->queue))
		return enqueue(c, buf, len, fd);
	r = transmit(c, buf, len, fd);
	if (r == -EAGAIN)
		return enqueue(c, buf, len, fd);
	if (r == -ETOOMANYREFS || r == -ENOMEM || r == -ENOBUFS || r == -EMFILE || r == -ENFILE)
		return -ENOBUFS;
	if (r) {
		conn_kill(c);
		return -EPIPE;
	}
	return 0;
}

int conn_send_reason(struct conn *c, uint16_t type, uint64_t cookie, uint32_t reason)
{
	struct wsd_msg_refused m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = type, .cookie = cookie },
		.reason = reason,
	};

	return conn_send(c, &m, sizeof(m), -1);
}

int conn_send_plain(struct conn *c, uint16_t type)
{
	struct wsd_msg_plain m = { .hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = type } };

	return conn_send(c, &m, sizeof(m), -1);
}

void conn_error(struct conn *c, uint32_t reason, const char *what)
{
	log_client("pid %d uid %u: %s", c->pid, c->uid, what);
	(void)conn_send_reason(c, WSD_MSG_ERROR, 0, reason);
	conn_kill(c);
}

void conn_say_gone(struct conn *c)
{
	if (!c->page)
		return;
	atomic_store(&c->page->gone, 1);
	atomic_fetch_add(&c->page->queued, 1);
}

static void flush(struct conn *c)
{
	struct packet *p;
	int r;

	while ((p = TAILQ_FIRST(&c->queue))) {
		r = transmit(c, p->bytes, p->len, p->fd);
		if (r == -EAGAIN || r == -ENOMEM || r == -ENOBUFS || r == -ETOOMANYREFS)
			return;
		if (r) {
			conn_kill(c);
			return;
		}
		packet_drop(c, p);
	}
	(void)sd_event_source_set_io_events(c->io, EPOLLIN);
	if (c->status_active)
		status_continue(c);
}

/* ---- receiving ---- */

/* read-only for the client even if it tries: sealed after our own mapping was made */
static int make_page(struct conn *c, int *ret_fd)
{
	struct wsd_notify_page *page;
	int fd, r;

	fd = memfd_create("wsd-notify", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, NOTIFY_PAGE) < 0 || fallocate(fd, 0, 0, NOTIFY_PAGE) < 0)
		goto err_close;
	page = mmap(NULL, NOTIFY_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		goto err_close;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		goto err_unmap;
	c->page = page;
	*ret_fd = fd;
	return 0;

err_unmap:
	munmap(page, NOTIFY_PAGE);
err_close:
	r = -errno;
	close(fd);
	return r;
}

static void take_hello(struct conn *c)
{
	struct wsd_msg_welcome m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_WELCOME,
			 .cookie = WSD_CAP_REATTACH | WSD_CAP_SAN },
		.page_size = NOTIFY_PAGE, .pid = (uint32_t)getpid(),
	};
	int fd = -1;

	if (c->hello) {
		conn_error(c, WSD_R_PEER_BROKEN, "a second HELLO");
		return;
	}
	if (make_page(c, &fd)) {
		conn_error(c, WSD_R_NOMEM, "no memory for its notify page");
		return;
	}
	san_page(c->srv, c->page);
	c->hello = true;
	if (conn_send(c, &m, sizeof(m), fd))
		conn_kill(c);
	close(fd);
}

static void take_unload(struct conn *c, const struct wsd_msg_plain *m)
{
	if (c->uid != 0 && c->uid != c->srv->uid) {
		conn_error(c, WSD_R_NOT_OWNER, "UNLOAD by another user");
		return;
	}
	log_info("pid %d uid %u: unload, %s", c->pid, c->uid, m->flags == WSD_UNLOAD_WAIT ? "wait" : "revoke");
	c->unload_asked = true;
	server_unload(c->srv, m->flags == WSD_UNLOAD_REVOKE);
}

static void handle(struct conn *c, const union request *rq)
{
	switch (rq->hdr.type) {
	case WSD_MSG_HELLO:
		take_hello(c);
		return;
	case WSD_MSG_STATUS:
		if (c->status_active)
			conn_error(c, WSD_R_PEER_BROKEN, "STATUS before the last one was answered");
		else
			status_start(c);
		return;
	case WSD_MSG_UNLOAD:
		take_unload(c, &rq->plain);
		return;
	case WSD_MSG_PEERS:
		peer_status(c, &rq->peers);
		return;
	}
	if (!c->hello) {
		conn_error(c, WSD_R_PEER_BROKEN, "a request before HELLO");
		return;
	}
	switch (rq->hdr.type) {
	case WSD_MSG_OFFER:
		end_offer(c, &rq->offer, NULL);
		return;
	case WSD_MSG_OFFER_SAN:
		end_offer(c, &rq->offer_san.offer, &rq->offer_san);
		return;
	case WSD_MSG_SAN_LOCAL:
		remote_local(end_of(c, rq->hdr.cookie), &rq->blob);
		return;
	case WSD_MSG_SAN_READY:
		remote_ready(end_of(c, rq->hdr.cookie), &rq->san);
		return;
	case WSD_MSG_SAN_ASK:
		remote_ask(end_of(c, rq->hdr.cookie), &rq->san);
		return;
	case WSD_MSG_WITHDRAW:
		end_withdraw(c, &rq->withdraw);
		return;
	case WSD_MSG_ATTACHED:
		end_attached(c, &rq->attached);
		return;
	case WSD_MSG_SIDE:
		end_side(c, &rq->side);
		return;
	case WSD_MSG_REATTACH:
		end_reattach(c, &rq->reattach);
		return;
	}
}

static int on_pace(sd_event_source *source, uint64_t usec, void *data)
{
	struct conn *c = data;

	(void)sd_event_source_set_enabled(c->io, SD_EVENT_ON);
	return 0;
}

/* a token a request; without any, read on a little later: the client meets a full socket then */
static bool may_read(struct conn *c)
{
	uint64_t now = server_now_us(c->srv), earned = (now - c->tokens_us) * CONN_RATE_SECOND / 1000000;

	if (earned) {
		c->tokens = earned + c->tokens > CONN_RATE_BURST ? CONN_RATE_BURST : c->tokens + (uint32_t)earned;
		c->tokens_us = now;
	}
	if (c->tokens) {
		c->tokens--;
		return true;
	}
	if (c->pace) {
		sd_event_source_set_time(c->pace, now + PACE_US);
		sd_event_source_set_enabled(c->pace, SD_EVENT_ONESHOT);
	} else if (sd_event_add_time(c->srv->event, &c->pace, CLOCK_MONOTONIC, now + PACE_US, 0, on_pace, c) < 0) {
		conn_kill(c);
		return false;
	}
	(void)sd_event_source_set_enabled(c->io, SD_EVENT_OFF);
	return false;
}

void conn_charge(struct conn *c, uint64_t requests)
{
	c->tokens -= requests < c->tokens ? (uint32_t)requests : c->tokens;
}

static void read_some(struct conn *c)
{
	char buf[WSD_MSG_MAX + 1];
	union request rq;
	const char *what;
	unsigned turn;
	ssize_t n;
	int r;

	c->reading = true;	/* a request of ours may read another's, never our own again */
	for (turn = 0; turn < PACKETS_A_TURN && !c->dead && may_read(c); turn++) {
		/* no control buffer: descriptors that somebody sends are closed by the kernel */
		n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			/* an empty packet looks like the end, too */
			conn_kill(c);
			break;
		}
		r = request_parse(&rq, buf, (size_t)n, &what);
		if (r)
			conn_error(c, (uint32_t)r, what);
		else
			handle(c, &rq);
	}
	c->reading = false;
}

void conn_read_now(struct conn *c)
{
	if (!c->reading)
		read_some(c);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct conn *c = data;

	if (revents & EPOLLOUT)
		flush(c);
	if (!c->dead)
		read_some(c);
	return 0;
}

/* ---- life ---- */

bool conn_alive(const struct conn *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return c->pidfd >= 0 && poll(&p, 1, 0) == 0;
}

static int on_death(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct conn *c = data;

	read_some(c);		/* its last words may be a WITHDRAW */
	conn_kill(c);
	return 0;
}

void conn_kill(struct conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	(void)sd_event_source_set_enabled(c->io, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(c->death, SD_EVENT_OFF);
	if (c->pace)
		(void)sd_event_source_set_enabled(c->pace, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(c->srv->reaper, SD_EVENT_ONESHOT);
}

void conn_free(struct conn *c)
{
	struct server *srv = c->srv;

	c->io = sd_event_source_disable_unref(c->io);
	c->death = sd_event_source_disable_unref(c->death);
	c->pace = sd_event_source_disable_unref(c->pace);
	end_conn_gone(c);
	remote_maker_gone(c);
	if (c->status_active)
		end_cursor_stop(&c->status_at);
	while (!TAILQ_EMPTY(&c->queue))
		packet_drop(c, TAILQ_FIRST(&c->queue));
	if (c->page)
		munmap(c->page, NOTIFY_PAGE);
	close(c->fd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	TAILQ_REMOVE(&srv->conns, c, link);
	srv->n_conns--;
	c->user->n_clients--;
	user_put(&srv->users, c->user);
	free(c);
	server_maybe_done(srv);
}

/* The process behind the connection. Without SO_PEERPIDFD the pid could be another's by now: then
 * it must at least be the same user's, and the connection must not be hung up. */
static int open_peer(int fd, const struct ucred *cred)
{
	struct pollfd p = { .fd = fd };
	socklen_t len = sizeof(int);
	int pidfd;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
		return pidfd;
	if (errno != ENOPROTOOPT)
		return -1;
	pidfd = (int)syscall(SYS_pidfd_open, cred->pid, 0);
	if (pidfd >= 0 && poll(&p, 1, 0) == 1 && (p.revents & POLLHUP)) {
		close(pidfd);
		return -1;
	}
	return pidfd;
}

int conn_accept(struct server *srv, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct conn *c;
	int r = -ENOMEM;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
		r = -errno;
		goto err_close;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		goto err_close;
	c->srv = srv;
	c->fd = fd;
	c->pid = cred.pid;
	c->uid = cred.uid;
	c->tokens = CONN_RATE_BURST;
	c->tokens_us = server_now_us(srv);
	TAILQ_INIT(&c->queue);
	c->user = user_get(&srv->users, cred.uid);
	if (!c->user)
		goto err_free;
	r = -EUSERS;
	if (srv->n_conns >= MAX_CLIENTS || (cred.uid != 0 && c->user->n_clients >= MAX_CLIENTS_USER))
		goto err_user;
	c->pidfd = open_peer(fd, &cred);
	r = -ESRCH;
	if (c->pidfd < 0)
		goto err_user;
	r = sd_event_add_io(srv->event, &c->io, fd, EPOLLIN, on_io, c);
	if (r < 0)
		goto err_pidfd;
	r = sd_event_add_io(srv->event, &c->death, c->pidfd, EPOLLIN, on_death, c);
	if (r < 0)
		goto err_io;
	TAILQ_INSERT_TAIL(&srv->conns, c, link);
	srv->n_conns++;
	c->user->n_clients++;
	return 0;

err_io:
	c->io = sd_event_source_disable_unref(c->io);
err_pidfd:
	close(c->pidfd);
err_user:
	user_put(&srv->users, c->user);
err_free:
	free(c);
err_close:
	close(fd);
	return r;
}
