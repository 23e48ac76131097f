/* SPDX-License-Identifier: MIT */
/*
 * agent.c - the server's end on another host
 *
 * "wsd-bench --agent" waits at its address; a connection is one run. The agent says "nonce N"; the caller sends a line,
 * the words of the spec, behind them "mac=M" when there is a secret: M is SipHash of N and the words under it. What the
 * server's end says on its ROLE_OUT goes back as it comes, at last "share RING TCP CONNS ACCEL" (bytes and connections
 * of the wsd roads). The caller hangs up when the run is over for it: a server that then still runs is ended.
 *
 * The secret keeps others from making this host measure, which is all that can be done here. It hides nothing, results come
 * back unproven, and what a run listens at takes whoever comes first: it is for test networks all the same.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/siphash.h"
#include "tools/bench/bench.h"
#include "tools/bench/role.h"

#define LINE_MAX_LEN	1024
#define CALL_MS		20000	/* the agent may still be ending the run before */
#define TAKE_MS		5000	/* a caller's line, all of it; and for him to take what he is told */
#define LATER_MS	30000	/* a run's deadline is the caller's matter: so much later he is taken for dead */
#define NONCE_LEN	32u	/* digits */

struct mac { char text[33]; };

int agent_secret(struct options *o, const char *file)
{
	char text[33] = "";
	struct stat st;
	ssize_t n;
	int fd, i;

	fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	n = fd < 0 ? -1 : read(fd, text, 32);
	if (n < 0) {
		fprintf(stderr, "wsd-bench: %s: %m\n", file);
		if (fd >= 0)
			close(fd);
		return -EIO;
	}
	if (fstat(fd, &st) < 0 || st.st_mode & 077) {
		fprintf(stderr, "wsd-bench: %s is open to others than its owner (mode must be 0600)\n", file);
		close(fd);
		return -EPERM;
	}
	close(fd);
	for (i = 0; i < 32 && isxdigit((unsigned char)text[i]); i++)
		;
	if (i < 32) {
		fprintf(stderr, "wsd-bench: %s does not begin with 32 hex digits (wsdctl key makes such a file)\n", file);
		return -EINVAL;
	}
	o->secret[1] = strtoull(text + 16, NULL, 16);
	text[16] = 0;
	o->secret[0] = strtoull(text, NULL, 16);
	o->has_secret = true;
	return 0;
}

static struct mac mac_of(const struct options *o, const char *nonce, const char *words)
{
	char text[NONCE_LEN + LINE_MAX_LEN];
	struct mac m;
	uint64_t h[2];
	int n = snprintf(text, sizeof(text), "%s%s", nonce, words);

	siphash128(h, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1, o->secret[0], o->secret[1]);
	snprintf(m.text, sizeof(m.text), "%016" PRIx64 "%016" PRIx64, h[0], h[1]);
	return m;
}

/* all of it is looked at, whatever differs */
static bool same_mac(const char *a, const char *b)
{
	unsigned char d = 0;

	if (strlen(a) != 32 || strlen(b) != 32)
		return false;
	for (unsigned i = 0; i < 32; i++)
		d |= (unsigned char)(a[i] ^ b[i]);
	return !d;
}

/* a line, without its end */
static bool take_line(int fd, char *line, size_t size, long ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t end = now_ns() + ms * 1000000, left;
	size_t n = 0;

	for (;;) {
		left = (end - now_ns()) / 1000000;
		if (left <= 0 || run_stopped())
			return false;
		if (poll(&p, 1, (int)left) <= 0)
			continue;
		if (recv(fd, line + n, 1, MSG_DONTWAIT) != 1)
			return false;
		if (line[n] == '\n') {
			line[n] = 0;
			return true;
		}
		if (++n == size)
			return false;
	}
}

static struct sockaddr_in address(const struct options *o)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons((uint16_t)o->agent_port), .sin_addr.s_addr = htonl((uint32_t)o->addr),
	};
}

static bool put(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);

		if (r <= 0)
			return false;
		p += r;
		n -= r;
	}
	return true;
}

int agent_call(const struct options *o, const struct spec *s)
{
	struct sockaddr_in in = address(o);
	struct timespec tick = { 0, 50000000 };
	static bool absent;
	struct spec_words w;
	char line[LINE_MAX_LEN + 64], said[64];
	size_t n = 0;
	int fd, r;

	spec_print(&w, s);
	for (unsigned i = 0; i < w.n; i++)
		n += snprintf(line + n, LINE_MAX_LEN - n, "%s%s", i ? " " : "", w.w[i]);
	/* it may not have come up yet; who was waited for once in vain is not again, for there are many runs */
	for (unsigned tries = 0;; tries++) {
		struct timeval tv = { .tv_sec = absent ? 1 : CALL_MS / 1000 };

		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));		/* of connect() as well */
		if (!connect(fd, (struct sockaddr *)&in, sizeof(in)))
			break;
		r = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
		close(fd);
		if (r != -ECONNREFUSED || absent || tries == CALL_MS / 50 || run_stopped()) {
			absent = true;
			return r;
		}
		nanosleep(&tick, NULL);
	}
	if (!take_line(fd, said, sizeof(said), absent ? 1000 : CALL_MS)) {
		absent = true;	/* it stands still, or still ends what stood still before */
		close(fd);
		return -ETIMEDOUT;
	}
	if (strncmp(said, "nonce ", 6) || strlen(said + 6) != NONCE_LEN) {
		close(fd);
		return -EPROTO;
	}
	absent = false;
	if (o->has_secret)
		n += snprintf(line + n, sizeof(line) - n, " mac=%s", mac_of(o, said + 6, line).text);
	line[n++] = '\n';
	if (!put(fd, line, n)) {
		close(fd);
		return -EPIPE;
	}
	return fd;
}

static bool new_nonce(char ret[static NONCE_LEN + 1])
{
	uint64_t r[2];

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		return false;
	snprintf(ret, NONCE_LEN + 1, "%016" PRIx64 "%016" PRIx64, r[0], r[1]);
	return true;
}

/* the words of the line that the caller sends; false: malformed, or not by who has the secret */
static bool take_spec(const struct options *o, int fd, struct spec *ret)
{
	static const char foreign[] = "fail agent: wants --secret, and this is not the same\n";
	char line[LINE_MAX_LEN], nonce[NONCE_LEN + 1], hello[64], *w[SPEC_WORDS_MAX], *save, *t, *mac;
	int k = 0;

	if (!new_nonce(nonce))
		return false;
	if (!put(fd, hello, (size_t)snprintf(hello, sizeof(hello), "nonce %s\n", nonce)) || !take_line(fd, line, sizeof(line), TAKE_MS))
		return false;
	mac = strstr(line, " mac=");
	if (mac)
		*mac = 0;
	if (o->has_secret && (!mac || !same_mac(mac + 5, mac_of(o, nonce, line).text))) {
		(void)put(fd, foreign, strlen(foreign));
		return false;
	}
	for (t = strtok_r(line, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		if (k == SPEC_WORDS_MAX)
			return false;
		w[k++] = t;
	}
	return !spec_parse(ret, w, k);
}

static void serve(const struct options *o, int fd)
{
	struct timeval tv = { .tv_sec = TAKE_MS / 1000 };
	char buf[2048], why[WHY_MAX];
	struct share sum;
	struct spec s;
	bool caller = true;
	int out, n;
	int64_t end;
	pid_t pid;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) || !take_spec(o, fd, &s))
		return;
	end = now_ns() + (run_most_ms(&s) + LATER_MS) * 1000000ll;
	s.addr = o->addr;
	s.cpu = -1;
	share_reset();
	pid = run_server(&out, o, &s);
	if (pid < 0)
		return;
	for (;;) {
		struct pollfd p[2] = { { .fd = out, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

		if (now_ns() > end) {
			fprintf(stderr, "wsd-bench: a server's end that its caller has not ended in time is ended\n");
			caller = false;
			break;
		}
		if (poll(p, 2, 1000) <= 0 && !run_stopped())
			continue;
		if (run_stopped() || (p[1].revents && recv(fd, buf, 1, MSG_DONTWAIT) <= 0)) {
			caller = false;
			break;
		}
		if (!p[0].revents)
			continue;
		n = (int)read(out, buf, sizeof(buf));
		if (n <= 0)
			break;
		if (!put(fd, buf, n)) {
			caller = false;
			break;
		}
	}
	n = run_server_end(why, pid, out, !caller);
	if (n == RUN_E_STILL)
		fprintf(stderr, "wsd-bench: server: %s\n", why);
	if (!caller)
		return;
	if (n)
		(void)put(fd, buf, (size_t)snprintf(buf, sizeof(buf), "fail %.150s\n", why));
	sum = share_sum();
	n = snprintf(buf, sizeof(buf), "share %llu %llu %llu %llu\n", sum.ring, sum.tcp, sum.conns, sum.accel);
	(void)put(fd, buf, n);
}

int agent_main(const struct options *o)
{
	struct sockaddr_in in = address(o);
	int l, fd, one = 1;

	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);	/* who was there may have gone */
	if (l < 0 || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(l, (struct sockaddr *)&in, sizeof(in)) ||
	    listen(l, 4)) {
		fprintf(stderr, "wsd-bench: cannot wait at %s: %m\n", inet_ntoa(in.sin_addr));
		return 1;
	}
	fprintf(stderr, "wsd-bench: waiting at %s:%d\n", inet_ntoa(in.sin_addr), o->agent_port);
	if (!o->has_secret)
		fprintf(stderr, "wsd-bench: no --secret: whoever reaches that address can make this host measure\n");
	while (!run_stopped()) {
		struct pollfd p = { .fd = l, .events = POLLIN };

		if (poll(&p, 1, 1000) <= 0)	/* not for good: a signal may come before it */
			continue;
		fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		serve(o, fd);
		close(fd);
	}
	close(l);
	return 0;
}
