/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdctl/wsdctl.h"

int request_open(int *ret_fd, char path[static ENDPOINT_PATH_MAX], const char *wanted, uint16_t type, uint32_t flags)
{
	struct wsd_msg_plain m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = type, .cookie = 1 },
		.flags = flags,
	};

	return request_send(ret_fd, path, wanted, &m, sizeof(m));
}

int request_send(int *ret_fd, char path[static ENDPOINT_PATH_MAX], const char *wanted, const void *m, size_t len)
{
	_cleanup_close_ int fd = -1;
	int r;

	r = endpoint_find(path, wanted);
	if (r)
		return r;
	r = endpoint_connect(&fd, path, NULL);
	if (r)
		return r;
	if (send(fd, m, len, MSG_NOSIGNAL) != (ssize_t)len)
		return errno == EPIPE ? -ECONNRESET : -errno;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static size_t length_of(uint16_t type)
{
	switch (type) {
	case WSD_MSG_STATUS_DAEMON:
		return sizeof(struct wsd_msg_status_daemon);
	case WSD_MSG_STATUS_CONN:
		return sizeof(struct wsd_msg_status_conn);
	case WSD_MSG_STATUS_PEER:
		return sizeof(struct wsd_msg_status_peer);
	case WSD_MSG_STATUS_END:
		return sizeof(struct wsd_msg_plain);
	case WSD_MSG_ERROR:
		return sizeof(struct wsd_msg_refused);
	}
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

int request_next(int fd, union message *ret_m)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t deadline = now_ms() + REQUEST_SILENCE_MS, left;
	union message m;
	ssize_t n;

	for (;;) {
		n = recv(fd, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC);	/* no room for descriptors: they are dropped */
		if (n >= 0)
			break;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		left = deadline - now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return -errno;
	}
	if (n == 0)
		return -ECONNRESET;
	if ((size_t)n < sizeof(m.hdr) || m.hdr.len != (size_t)n || m.hdr.version != WSD_PROXY_VERSION ||
	    (size_t)n != length_of(m.hdr.type))
		return -EBADMSG;
	memcpy(ret_m, &m, (size_t)n);
	return 0;
}
