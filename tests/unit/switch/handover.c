/* SPDX-License-Identifier: MIT */
/*
 * handover.c - unread ring bytes and processes that come by the socket: every byte once and in order, or a reset on both sides
 *
 * handover CASE: an owner that is awake leaves bytes unread and lets go of its socket, by SCM_RIGHTS or to a child that libc makes;
 * a peer process sends, and tells how the stream ended for it. Exit 0: right. Only calls as a program makes them, and right on
 * plain TCP, too (but for the cases whose outcome is a reset); the script handover-ring runs it under wsdrun and looks into the
 * log whether bytes really lay in the ring.
 *
 * The receivers run from the beginning, so that they inherit nothing. DAEMON_PID and DAEMON_SOCKET name the daemon to kill.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEFT	3000	/* put into the ring, and unread when the socket changes hands */
#define BEHIND	2000	/* sent over TCP behind them in the cases "...behind" */
#define MORE	100000	/* sent when the reader has begun */
#define PART	1000

extern char **environ;
static char self[4096];
static volatile int *sent, *turn;
static bool behind;

static void die(const char *what)
{
	fprintf(stderr, "handover: pid %d: %s: %s\n", getpid(), what, strerror(errno));
	_exit(1);
}

static unsigned char byte_at(long i)
{
	return (unsigned char)(i * 7 + (i >> 8) * 13);
}

static bool is(const char *name, const char *what)
{
	return strcmp(name, what) == 0;
}

static void send_span(int fd, long from, long n, int flags)
{
	unsigned char b[MORE];
	long i, r;

	for (i = 0; i < n; i++)
		b[i] = byte_at(from + i);
	for (i = 0; i < n; i += r)
		if ((r = send(fd, b + i, (size_t)(n - i), flags)) <= 0)
			die("peer's send");
}

/* n bytes, or with n < 0 all to the end, from offset `from` on */
static void check(int fd, long from, long n)
{
	unsigned char b[4096];
	long at = from, r, i;

	while (n < 0 || at < from + n) {
		r = read(fd, b, n < 0 || from + n - at > (long)sizeof(b) ? sizeof(b) : (size_t)(from + n - at));
		if (r < 0)
			die("read");
		if (r == 0)
			break;
		for (i = 0; i < r; i++)
			if (b[i] != byte_at(at + i)) {
				fprintf(stderr, "handover: pid %d: wrong byte at %ld\n", getpid(), at + i);
				_exit(1);
			}
		at += r;
	}
	if (n >= 0 && at != from + n) {
		fprintf(stderr, "handover: pid %d: %ld bytes of %ld\n", getpid(), at - from, n);
		_exit(1);
	}
	if (n < 0 && at != LEFT + (behind ? BEHIND : 0) + MORE) {
		fprintf(stderr, "handover: pid %d: the stream has %ld bytes\n", getpid(), at);
		_exit(1);
	}
}

/* two processes read at once: each byte is counted by its value, by whoever gets it; the first one answers */
static void race(int fd)
{
	volatile int *counts = sent + 256, *answered = sent + 128;
	unsigned char b[128];
	long r, i, k = 0;

	while ((r = read(fd, b, (size_t)(1 + k++ * 29 % 97))) > 0) {
		for (i = 0; i < r; i++)
			__atomic_fetch_add(&counts[b[i]], 1, __ATOMIC_SEQ_CST);
		if (!__atomic_exchange_n(answered, 1, __ATOMIC_SEQ_CST) && write(fd, "x", 1) != 1)
			die("answer");
	}
	if (r < 0)
		die("read");
}

static void race_judge(void)
{
	volatile int *counts = sent + 256;
	int want[256] = { 0 };
	long i, n = LEFT + (behind ? BEHIND : 0) + MORE;

	for (i = 0; i < n; i++)
		want[byte_at(i)]++;
	for (i = 0; i < 256; i++)
		if (want[i] != counts[i]) {
			fprintf(stderr, "handover: value %ld came %d times, not %d\n", i, counts[i], want[i]);
			exit(1);
		}
}

/* all that is there before each wait, as an event loop has it */
static void by_events(int fd, const char *how)
{
	bool epoll = how[0] == 'e';
	struct epoll_event ev = { .events = EPOLLIN | (is(how, "epoll-et") ? EPOLLET : 0) };
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int ep = epoll_create1(0);
	unsigned char b[777];
	long at = 0, r, i;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (epoll && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
		die("epoll_ctl");
	for (;;) {
		if ((epoll ? epoll_wait(ep, &ev, 1, 5000) : poll(&p, 1, 5000)) != 1)
			die("no event");
		do {
			r = recv(fd, b, sizeof(b), 0);
			if (r < 0 && errno != EAGAIN)
				die("recv");
			for (i = 0; i < r; i++)
				if (b[i] != byte_at(at + i))
					die("wrong byte");
			if (at == 0 && r > 0 && write(fd, "x", 1) != 1)
				die("answer");
			at += r > 0 ? r : 0;
		} while (r > 0 && is(how, "epoll-et"));
		if (r == 0)
			break;
	}
	if (at != LEFT + (behind ? BEHIND : 0) + MORE)
		die("short stream");
}

/* the rest of the stream; the peer goes on when it is answered */
static void check_rest(int fd, int out, long from)
{
	check(fd, from, 1);
	if (write(out, "x", 1) != 1)
		die("answer");
	check(fd, from + 1, -1);
}

static void pass(int u, int fd)
{
	union { struct cmsghdr a; char b[CMSG_SPACE(sizeof(int))]; } ctl = { 0 };
	struct iovec iov = { "x", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof(ctl) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(u, &m, 0) != 1)
		die("sendmsg");
}

static int get(int u)
{
	union { struct cmsghdr a; char b[CMSG_SPACE(sizeof(int))]; } ctl = { 0 };
	char x;
	struct iovec iov = { &x, 1 };
	struct mmsghdr mm = { .msg_hdr = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl,
					   .msg_controllen = sizeof(ctl) } };
	int fd = -1;

	if (getpid() % 2 ? recvmsg(u, &mm.msg_hdr, 0) < 0 : recvmmsg(u, &mm, 1, 0, NULL) < 0)
		die("recvmsg");
	if (!CMSG_FIRSTHDR(&mm.msg_hdr))
		_exit(1);	/* the owner has gone without passing it: nobody waits for us */
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&mm.msg_hdr)), sizeof(int));
	return fd;
}

static void await(int n)
{
	while (*turn < n)
		poll(NULL, 0, 1);
}

static int peer(int port, bool reset)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), i;
	char b[4];

	if (connect(fd, (void *)&a, sizeof(a)))
		die("connect");
	for (i = 0; i < 3000; i++)
		if (write(fd, "ping", 4) != 4 || recv(fd, b, 4, MSG_WAITALL) != 4)
			die("warm");
	send_span(fd, 0, LEFT, 0);
	if (behind)
		send_span(fd, LEFT, BEHIND, MSG_CONFIRM);	/* a flag without meaning here, and so not for the ring */
	*sent = 1;
	i = (int)read(fd, b, 1);
	if (reset)
		return i < 0 && errno == ECONNRESET ? 0 : (fprintf(stderr, "handover: peer read %d\n", i), 1);
	if (i != 1)
		die("peer's read");
	send_span(fd, LEFT + (behind ? BEHIND : 0), MORE, 0);
	shutdown(fd, SHUT_WR);
	i = (int)read(fd, b, 1);
	if (i != 0)
		die("peer's end");
	return 0;
}

static void finish(pid_t pid, const char *who)
{
	int st;

	if (waitpid(pid, &st, 0) != pid || st) {
		fprintf(stderr, "handover: %s ended with %x\n", who, st);
		_exit(1);
	}
}

/* ---- the owner: it has accepted, and bytes lie unread ---- */

static void spawn(int fd, bool dup, char **env)
{
	char n[16], *argv[] = { self, env == environ ? "reader" : "unaware-reader", n, NULL };
	posix_spawn_file_actions_t fa;
	pid_t pid;

	snprintf(n, sizeof(n), "%d", dup ? 0 : fd);
	posix_spawn_file_actions_init(&fa);
	if (dup && (fcntl(fd, F_SETFD, FD_CLOEXEC) || posix_spawn_file_actions_adddup2(&fa, fd, 0)))
		die("file action");
	if (posix_spawn(&pid, self, &fa, NULL, argv, env))
		die("posix_spawn");
	close(fd);
	finish(pid, "spawned");
}

static void kill_daemon(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_SEQPACKET, 0), r;
	const char *pid = getenv("DAEMON_PID");

	if (!pid)
		return;
	strcpy(a.sun_path, getenv("DAEMON_SOCKET"));
	kill(atoi(pid), SIGKILL);
	do {
		r = connect(s, (void *)&a, sizeof(a));
		close(s);
		s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	} while (r == 0);
	close(s);
}

static void owner(int fd, const char *name, int ub, int uc, int ua)
{
	char cmd[4200];
	FILE *f;

	if (is(name, "spawn") || is(name, "spawn-behind")) {
		spawn(fd, false, environ);
	} else if (is(name, "spawn-dup")) {
		spawn(fd, true, environ);
	} else if (is(name, "spawn-unaware") || is(name, "spawn-dup-unaware")) {
		spawn(fd, is(name, "spawn-dup-unaware"), (char *[]){ NULL });
	} else if (is(name, "system") || is(name, "popen")) {
		snprintf(cmd, sizeof(cmd), "exec '%s' reader %d", self, fd);
		if (is(name, "system")) {
			if (system(cmd))
				die("system");
		} else {
			f = popen(cmd, "r");
			close(fd);
			if (!f || pclose(f))
				die("popen");
		}
	} else if (is(name, "popen-unaware")) {
		snprintf(cmd, sizeof(cmd), "exec env -i '%s' unaware-reader %d", self, fd);
		f = popen(cmd, "r");
		close(fd);
		if (!f || pclose(f))
			die("popen");
	} else if (is(name, "exec-pass")) {	/* a child that got them through exec passes them on; we have it, too */
		char n[16], m[16], *argv[] = { self, (char *)"passer", n, m, NULL };
		pid_t pid;

		snprintf(n, sizeof(n), "%d", fd);
		snprintf(m, sizeof(m), "%d", ub);
		pid = fork();
		if (pid == 0) {
			execv(self, argv);
			die("exec");
		}
		finish(pid, "passer");
		await(1);
	} else if (is(name, "exec-popen")) {	/* all is in the new image's own memory: nobody else can have it */
		char n[16], *argv[] = { self, (char *)"popener", n, NULL };

		snprintf(n, sizeof(n), "%d", fd);
		execv(self, argv);
		die("exec");
	} else if (is(name, "exec-unaware") || is(name, "vfork-unaware")) {
		char n[16], *argv[] = { self, (char *)"unaware-reader", n, NULL }, *none[] = { NULL };
		pid_t pid;

		snprintf(n, sizeof(n), "%d", fd);
		pid = is(name, "exec-unaware") ? fork() : vfork();
		if (pid == 0) {
			execve(self, argv, none);
			_exit(9);
		}
		close(fd);
		finish(pid, "child");
	} else if (is(name, "leak")) {		/* a child has it, reads nothing and lives on */
		pid_t pid = fork();

		if (pid == 0) {
			snprintf(cmd, sizeof(cmd), "exec '%s' nothing", self);
			_exit(system(cmd) ? 1 : 0);
		}
		finish(pid, "child");
		check_rest(fd, fd, 0);
	} else if (is(name, "part")) {		/* both read; each byte once */
		pass(ub, fd);
		await(1);
		check_rest(fd, fd, PART);
		*turn = 2;
	} else if (is(name, "race") || is(name, "race-behind")) {
		pass(ub, fd);
		while (!*turn)
			;
		race(fd);
	} else if (is(name, "back")) {
		pass(ub, fd);
		close(fd);
		fd = get(ua);
		check_rest(fd, fd, 0);
	} else if (is(name, "dead") || is(name, "dead-two")) {
		pass(ub, fd);
		if (is(name, "dead-two"))
			pass(uc, fd);
		raise(SIGKILL);
	} else if (is(name, "stopped-daemon")) {
		if (getenv("DAEMON_PID"))
			kill(atoi(getenv("DAEMON_PID")), SIGSTOP);
		pass(ub, fd);
		close(fd);
	} else if (is(name, "no-daemon")) {
		kill_daemon();
		pass(ub, fd);
		close(fd);
	} else {				/* pass, behind, chain..., unaware... */
		pass(ub, fd);
		close(fd);
		*turn = 1;
	}
}

/* ---- receivers ---- */

static void unaware(int fd)
{
	char b[8];
	ssize_t r = read(fd, b, sizeof(b));

	/* ECONNRESET, or EPIPE for who sleeps in it at that moment (connect(AF_UNSPEC) of another process) */
	if (r >= 0) {
		fprintf(stderr, "handover: unaware receiver read %zd\n", r);
		_exit(1);
	}
}

static void b_does(const char *name, int u, int to_c, int to_a)
{
	char n[16], *argv[] = { self, (char *)"unaware", n, NULL }, *none[] = { NULL };
	int fd;

	if (is(name, "unaware") || is(name, "unaware-behind")) {
		snprintf(n, sizeof(n), "%d", u);
		fcntl(u, F_SETFD, 0);
		execve(self, argv, none);
		die("exec");
	}
	if (is(name, "late"))
		await(1);
	if (is(name, "dead") || is(name, "dead-two"))
		await(1);	/* the judge says so */
	fd = get(u);
	if (is(name, "no-daemon") || is(name, "stopped-daemon")) {
		char b[8];

		if (read(fd, b, sizeof(b)) >= 0 || errno != ECONNRESET)
			die("read something");
		return;
	}
	if (is(name, "part")) {
		check(fd, 0, PART);
		*turn = 1;
		await(2);
	} else if (is(name, "chain") || is(name, "chain-behind")) {
		pass(to_c, fd);
		close(fd);
	} else if (is(name, "chain-read")) {
		check(fd, 0, PART);
		pass(to_c, fd);
		close(fd);
	} else if (is(name, "back")) {
		pass(to_a, fd);
		close(fd);
	} else if (is(name, "race") || is(name, "race-behind")) {
		*turn = 1;
		race(fd);
	} else if (is(name, "poll") || is(name, "epoll-lt") || is(name, "epoll-et") || is(name, "poll-behind")) {
		by_events(fd, name);
	} else if (is(name, "dead-two")) {
		check(fd, 0, PART);
		*turn = 2;
		await(3);
	} else if (is(name, "fork")) {		/* and on to a child, which reads the rest */
		pid_t pid;

		check(fd, 0, PART);
		pid = fork();
		if (pid == 0) {
			check_rest(fd, fd, PART);
			_exit(0);
		}
		finish(pid, "child of the receiver");
	} else if (is(name, "exec")) {
		char *args[] = { self, (char *)"reader", n, NULL };

		snprintf(n, sizeof(n), "%d", fd);
		execv(self, args);
		die("exec");
	} else {
		if (is(name, "exec-pass"))
			*turn = 1;
		check_rest(fd, fd, 0);
	}
}

static bool c_is_needed(const char *name)
{
	return is(name, "chain") || is(name, "chain-behind") || is(name, "chain-read") || is(name, "dead-two");
}

static void c_does(const char *name, int u)
{
	int fd;

	if (is(name, "dead-two")) {
		await(1);
		fd = get(u);
		await(2);
		check_rest(fd, fd, PART);
		*turn = 3;
		return;
	}
	fd = get(u);
	check_rest(fd, fd, is(name, "chain-read") ? PART : 0);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int ls, fd, i, st, b[2], c[2], back[2];
	pid_t own, pb, pc = 0, me;
	socklen_t l = sizeof(a);
	const char *name = argv[1];
	bool reset;
	char x[4];

	alarm(25);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 || argc < 2)
		return 2;
	behind = getenv("BEHIND") || strstr(name, "behind");
	if (is(name, "reader")) {
		check_rest(atoi(argv[2]), atoi(argv[2]), 0);
		return 0;
	}
	if (is(name, "nothing"))
		return 0;
	if (is(name, "unaware")) {
		unaware(get(atoi(argv[2])));
		return 0;
	}
	if (is(name, "passer")) {
		pass(atoi(argv[3]), atoi(argv[2]));
		return 0;
	}
	if (is(name, "popener")) {
		char cmd[4200];
		FILE *f;

		snprintf(cmd, sizeof(cmd), "exec '%s' unaware-reader %s", self, argv[2]);
		f = popen(cmd, "r");
		return !f || pclose(f) ? 1 : 0;
	}
	if (is(name, "unaware-reader")) {
		unaware(atoi(argv[2]));
		return 0;
	}
	if (behind)
		setenv("BEHIND", "1", 1);
	reset = is(name, "unaware-scm") || is(name, "unaware-behind") || is(name, "no-daemon") ||
		is(name, "stopped-daemon") || is(name, "exec-popen") ||
		is(name, "popen-unaware") || is(name, "exec-unaware") || is(name, "vfork-unaware") || is(name, "spawn-unaware") || is(name, "spawn-dup-unaware");
	if (is(name, "unaware-scm"))
		name = "unaware";
	sent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	turn = sent + 64;
	ls = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(ls, (void *)&a, sizeof(a)) || listen(ls, 1) || getsockname(ls, (void *)&a, &l) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, b) || socketpair(AF_UNIX, SOCK_DGRAM, 0, c) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, back))
		die("listen");
	pb = fork();
	if (pb == 0) {
		close(b[0]);
		close(c[1]);
		b_does(name, b[1], c[0], back[0]);
		return 0;
	}
	if (c_is_needed(name)) {
		pc = fork();
		if (pc == 0) {
			close(c[0]);
			c_does(name, c[1]);
			return 0;
		}
	}
	own = fork();
	if (own == 0) {
		close(b[1]);
		fd = accept(ls, NULL, NULL);
		for (i = 0; i < 3000; i++)
			if (recv(fd, x, 4, MSG_WAITALL) != 4 || write(fd, "pong", 4) != 4)
				die("warm");
		while (!*sent)
			;	/* awake, so the gate stays open */
		owner(fd, name, b[0], c[0], back[1]);
		return 0;
	}
	close(ls);
	close(b[0]);
	close(b[1]);
	me = fork();
	if (me == 0)
		return peer(ntohs(a.sin_port), reset);
	if (waitpid(own, &st, 0) != own || (st && !(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL && !strncmp(name, "dead", 4)))) {
		fprintf(stderr, "handover: owner ended with %x\n", st);
		return 1;
	}
	if (!strncmp(name, "dead", 4))
		*turn = 1;
	if (!strncmp(name, "spawn", 5) || is(name, "exec-popen") || is(name, "popen-unaware") || is(name, "exec-unaware") || is(name, "vfork-unaware") || is(name, "system") ||
	    is(name, "popen") || is(name, "leak")) {
		kill(pb, SIGKILL);
		waitpid(pb, &st, 0);
	} else {
		finish(pb, "receiver");
	}
	if (pc)
		finish(pc, "second receiver");
	finish(me, "peer");
	if (!strncmp(name, "race", 4))
		race_judge();
	return 0;
}
