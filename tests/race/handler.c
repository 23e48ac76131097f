/* SPDX-License-Identifier: MIT */
/*
 * handler.c - a timer's handler receives and sends on the very socket that the interrupted thread receives and sends on
 *
 * recv() and send() are async-signal-safe, and the kernel's socket lock lets neither see the other half-way. So each byte is
 * taken once, by the one or the other; FIONREAD > 0 in the handler means that a blocking receive there returns; and when all
 * of a round has been taken nobody waits any more. Who takes which byte is open: they are counted by value on both sides.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "race.h"

#define ROUND 300
#define END 255		/* no byte of a round */

static int fd;
static unsigned rounds;
static struct race_tally in, out;	/* main and handler of one thread: += is one of them at a time per byte, see add() */
static volatile uint64_t got, sent_by_handler, handler_eagain, handler_took, hits;
static volatile sig_atomic_t may_send;

static void add(struct race_tally *t, const unsigned char *b, ssize_t n)
{
	ssize_t i;

	for (i = 0; i < n; i++)		/* the handler may come between load and store */
		__atomic_fetch_add(&t->n[b[i]], 1, __ATOMIC_RELAXED);
}

/* rounds of ROUND bytes, in pieces, some by way of a full TCP; then it reads what came, by value */
static void peer(int s)
{
	uint64_t rng = 11, theirs = 0;
	unsigned char b[4096], go;
	struct race_tally t = { { 0 } }, back = { { 0 } }, x;
	size_t i;

	for (;;) {
		size_t left = ROUND;
		ssize_t r;

		/* bytes of the handler's come at any time; END and what follows are main's */
		r = recv(s, b, sizeof(b), 0);
		race_check(r > 0, "the peer got %zd", r);
		for (i = 0; i < (size_t)r && b[i] != END; i++)
			back.n[b[i]]++, theirs++;
		if (i == (size_t)r)
			continue;
		go = i + 1 < (size_t)r ? b[i + 1] : 0;
		if (i + 1 == (size_t)r)
			race_recv(s, &go, 1);
		else
			race_check(i + 2 == (size_t)r, "%zu bytes behind the round's mark, which is at %zu: %u %u %u", (size_t)r - i - 2, i, b[i + 1], b[i + 2], b[r - 1]);
		if (go == 'q')
			break;
		while (left) {
			size_t n = 1 + race_rnd(&rng) % (race_rnd(&rng) % 4 ? 40 : 900);

			if (n > left)
				n = left;
			for (i = 0; i < n; i++) {
				b[i] = (unsigned char)race_rnd(&rng);
				t.n[b[i]]++;
			}
			/* a flag that no ring carries: these go by TCP and make seams */
			if (race_rnd(&rng) % 6 == 0) {
				for (i = 0; i < n;) {
					r = send(s, b + i, n - i, MSG_NOSIGNAL | MSG_DONTROUTE);
					race_check(r > 0, "send gave %zd", r);
					i += (size_t)r;
				}
			} else {
				race_send(s, b, n);
			}
			left -= n;
		}
	}
	race_send(s, "r", 1);
	race_recv(s, &x, sizeof(x));
	race_check(!memcmp(&x, &t, sizeof(t)), "main and handler together did not get what was sent");
	race_recv(s, &x, sizeof(x));
	race_check(!memcmp(&x, &back, sizeof(back)), "not what main and handler sent, %llu bytes", (unsigned long long)theirs);
	race_send(s, "k", 1);
}

static void on_signal(int sig)
{
	unsigned char b[300];
	int e = errno, n = 0, flags = MSG_DONTWAIT;
	ssize_t r;

	hits++;
	if (hits % 3 == 0) {
		/* bytes are there and nobody else takes them: a blocking receive returns at once */
		race_check(!ioctl(fd, FIONREAD, &n), "FIONREAD");
		if (n > 0)
			flags = 0;
	}
	if (hits % 2 == 0 || flags == 0) {
		r = recv(fd, b, 1 + hits % sizeof(b), flags);
		race_check(r > 0 || (r < 0 && errno == EAGAIN && flags), "the handler's recv gave %zd", r);
		if (r > 0) {
			add(&in, b, r);
			got += (uint64_t)r;
			handler_took += (uint64_t)r;
		} else {
			handler_eagain++;
		}
	}
	if (may_send && hits % 4 == 1) {
		memset(b, (int)(hits % 200), sizeof(b));
		r = send(fd, b, 1 + hits % 20, MSG_NOSIGNAL | MSG_DONTWAIT);
		race_check(r > 0 || errno == EAGAIN, "the handler's send gave %zd", r);
		if (r > 0) {
			add(&out, b, r);
			sent_by_handler += (uint64_t)r;
		}
	}
	errno = e;
}

static void block(bool on)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, SIGALRM);
	sigprocmask(on ? SIG_BLOCK : SIG_UNBLOCK, &s, NULL);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_signal };	/* no SA_RESTART: the handler may take what main waits for */
	/* every 50 us hardly anything goes by a ring; the slower half, first, has its seams */
	struct itimerval it = { { 0, 300 }, { 0, 300 } }, fast = { { 0, 50 }, { 0, 50 } };
	unsigned char b[4096], mark[2] = { END, 'g' };
	uint64_t rng = 5, end;
	unsigned i;
	ssize_t r, at;

	race_start(60);
	rounds = (unsigned)(3000 * race_scale()) + 100;
	fd = race_connect(peer);
	alarm(0);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
	end = race_now_us() + 55000000;
	for (i = 0; i < rounds; i++) {
		uint64_t goal = (uint64_t)(i + 1) * ROUND;

		if (i == rounds / 2)
			setitimer(ITIMER_REAL, &fast, NULL);
		/* the handler's bytes may lie anywhere between main's, but not behind the mark */
		may_send = 1;
		memset(b, (int)(i % 200), sizeof(b));
		for (at = 0; at < (ssize_t)(i % 700); at += r > 0 ? r : 0) {
			r = send(fd, b, (size_t)(i % 700 - at), MSG_NOSIGNAL);
			race_check(r > 0 || errno == EINTR, "send gave %zd", r);
			if (r > 0)
				add(&out, b, r);
		}
		may_send = 0;
		race_send(fd, mark, 2);
		while (got < goal) {
			int how = (int)(race_rnd(&rng) % 4);

			race_check(race_now_us() < end, "round %u stuck at %llu of %llu bytes", i, (unsigned long long)got,
				   (unsigned long long)goal);
			if (how == 3 && poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, 1000) < 0)
				continue;
			r = recv(fd, b, 1 + race_rnd(&rng) % sizeof(b), how ? MSG_DONTWAIT : 0);
			if (r < 0 && (errno == EINTR || errno == EAGAIN))
				continue;
			race_check(r > 0, "recv gave %zd", r);
			add(&in, b, r);
			__atomic_fetch_add(&got, (uint64_t)r, __ATOMIC_RELAXED);
		}
		race_check(got == goal, "%llu bytes, must be %llu", (unsigned long long)got, (unsigned long long)goal);
	}
	block(true);
	race_check(hits && handler_took && sent_by_handler, "the handler had nothing to do");
	mark[1] = 'q';
	race_send(fd, mark, 2);
	race_recv(fd, mark, 1);
	race_send(fd, &in, sizeof(in));
	race_send(fd, &out, sizeof(out));
	race_recv(fd, mark, 1);
	race_end(fd);
}
