/* SPDX-License-Identifier: MIT */
/*
 * carry.c - unread ring bytes and exec: every byte once and in order, or a reset on both sides
 *
 * carry CASE [STATIC]: a receiver that is awake leaves bytes unread, then execs; a peer process sends and tells how the
 * stream ended for it. Exit 0: right. Only calls as a program makes them; the script carry-ring runs it under wsdrun and
 * looks into the log whether bytes really lay in the ring.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEFT	3000	/* unread at exec */
#define MORE	100000	/* sent when the reader has begun */

static char self[4096];
static volatile int *sent;

static void die(const char *what)
{
	fprintf(stderr, "carry: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static unsigned char byte_at(long i)
{
	return (unsigned char)(i * 7 + (i >> 8) * 13);
}

static void send_span(int fd, long from, long n)
{
	unsigned char b[MORE];
	long i, r;

	for (i = 0; i < n; i++)
		b[i] = byte_at(from + i);
	for (i = 0; i < n; i += r)
		if ((r = write(fd, b + i, (size_t)(n - i))) <= 0)
			die("peer's write");
}

/* all that comes, to the end; the first byte is answered, so that the peer goes on */
static void check_rest(int in, int out, FILE *f, long from)
{
	unsigned char b[4096];
	long at = from, r, i;

	for (;;) {
		if (f) {
			r = (i = getc(f)) == EOF ? 0 : 1;
			b[0] = (unsigned char)i;
		} else {
			r = read(in, b, sizeof(b));
		}
		if (r < 0)
			die("read");
		if (r == 0)
			break;
		for (i = 0; i < r; i++)
			if (b[i] != byte_at(at + i)) {
				fprintf(stderr, "carry: wrong byte at %ld\n", at + i);
				_exit(1);
			}
		if (at == from && write(out, "x", 1) != 1)
			die("answer");
		at += r;
	}
	if (at != LEFT + MORE) {
		fprintf(stderr, "carry: %ld bytes of %d\n", at, LEFT + MORE);
		_exit(1);
	}
}

static void check_all(int in, int out, FILE *f)
{
	check_rest(in, out, f, 0);
}

static int peer(int port, bool reset)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), i;
	char b[4];

	if (connect(fd, (void *)&a, sizeof(a)))
		die("connect");
	for (i = 0; i < 3000; i++)
		if (write(fd, "ping", 4) != 4 || recv(fd, b, 4, MSG_WAITALL) != 4)
			die("warm");
	send_span(fd, 0, LEFT);
	*sent = 1;
	i = (int)read(fd, b, 1);
	if (reset)
		return i < 0 && errno == ECONNRESET ? 0 : (fprintf(stderr, "carry: peer read %d\n", i), 1);
	if (i != 1)
		die("peer's read");
	send_span(fd, LEFT, MORE);
	shutdown(fd, SHUT_WR);
	i = (int)read(fd, b, 1);
	if (i != 0)
		die("peer's end");
	return 0;
}

static void run(int fd, const char *what, char **argv_more)
{
	char n[16], *argv[] = { self, (char *)what, n, NULL };

	snprintf(n, sizeof(n), "%d", fd);
	execv(self, argv_more ? argv_more : argv);
	die("exec");
}

static void finish(pid_t pid)
{
	int st;

	if (waitpid(pid, &st, 0) != pid || st)
		die("child");
}

static void receiver(int fd, const char *name, char *fixed)
{
	static char *huge[40];
	static char big[120000];
	pid_t pid;
	char *argv[] = { fixed, NULL };
	int i;

	if (!strcmp(name, "exec")) {
		run(fd, "reader", NULL);
	} else if (!strcmp(name, "stdio")) {
		dup2(fd, 0);
		close(fd);
		run(0, "stdio-reader", NULL);
	} else if (!strcmp(name, "twice")) {
		run(fd, "again", NULL);
	} else if (!strcmp(name, "enoent")) {
		if (execl("/nonexistent", "x", NULL) != -1 || errno != ENOENT)
			die("exec of nothing");
		check_all(fd, fd, NULL);
	} else if (!strcmp(name, "e2big")) {	/* it fails when all is packed */
		memset(big, 'x', sizeof(big) - 1);
		for (i = 0; i < 39; i++)
			huge[i] = big;
		for (i = 0; i < 3; i++)
			if (execv(self, huge) != -1 || errno != E2BIG)
				die("exec of too much");
		check_all(fd, fd, NULL);
	} else if (!strcmp(name, "e2big-exec")) {
		memset(big, 'x', sizeof(big) - 1);
		for (i = 0; i < 39; i++)
			huge[i] = big;
		if (execv(self, huge) != -1 || errno != E2BIG)
			die("exec of too much");
		run(fd, "reader", NULL);
	} else if (!strcmp(name, "fork")) {	/* the child reads */
		pid = fork();
		if (pid == 0)
			run(fd, "reader", NULL);
		finish(pid);
	} else if (!strcmp(name, "fork-leak")) {	/* the child has it, and reads nothing */
		pid = fork();
		if (pid == 0)
			run(fd, "nothing", NULL);
		finish(pid);
		check_all(fd, fd, NULL);
	} else if (!strcmp(name, "fork-part")) {	/* the child takes some, the parent the rest; each byte once */
		pid = fork();
		if (pid == 0)
			run(fd, "part", NULL);
		finish(pid);
		check_rest(fd, fd, NULL, 1000);
	} else if (!strcmp(name, "fork-close")) {	/* a child that lets go must not reset what the parent reads */
		pid = fork();
		if (pid == 0) {
			close(fd);
			run(-1, "nothing", NULL);
		}
		finish(pid);
		check_all(fd, fd, NULL);
	} else if (!strcmp(name, "vfork")) {
		pid = vfork();
		if (pid == 0) {
			dup2(fd, 0);
			dup2(fd, 1);
			close(fd);
			execl(self, self, "reader", "0", NULL);
			_exit(9);
		}
		finish(pid);
	} else if (!strcmp(name, "static")) {
		dup2(fd, 0);
		if (fd)
			close(fd);
		execv(fixed, argv);
		die("exec");
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof(a);
	int ls, fd, i, st;
	pid_t pid, me;
	char b[4];

	alarm(20);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 || argc < 2)
		return 2;
	if (!strcmp(argv[1], "reader")) {
		check_all(atoi(argv[2]), atoi(argv[2]), NULL);
		return 0;
	}
	if (!strcmp(argv[1], "stdio-reader")) {
		check_all(0, 0, stdin);
		return 0;
	}
	if (!strcmp(argv[1], "again"))
		run(atoi(argv[2]), "reader", NULL);
	if (!strcmp(argv[1], "part")) {
		unsigned char some[1000];

		if (recv(atoi(argv[2]), some, sizeof(some), MSG_WAITALL) != sizeof(some))
			die("part");
		for (i = 0; i < 1000; i++)
			if (some[i] != byte_at(i))
				die("part is wrong");
		return 0;
	}
	if (!strcmp(argv[1], "nothing"))
		return 0;
	sent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ls = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(ls, (void *)&a, sizeof(a)) || listen(ls, 1) || getsockname(ls, (void *)&a, &l))
		die("listen");
	/* the receiver is the child: its exec must leave somebody to judge */
	pid = fork();
	if (pid == 0) {
		fd = accept(ls, NULL, NULL);
		close(ls);
		for (i = 0; i < 3000; i++)
			if (recv(fd, b, 4, MSG_WAITALL) != 4 || write(fd, "pong", 4) != 4)
				die("warm");
		while (!*sent)
			;	/* awake, so the gate stays open */
		receiver(fd, argv[1], argc > 2 ? argv[2] : NULL);
		return 0;
	}
	close(ls);
	me = fork();
	if (me == 0)
		return peer(ntohs(a.sin_port), !strcmp(argv[1], "static"));
	if (waitpid(pid, &st, 0) != pid || st) {
		fprintf(stderr, "carry: receiver ended with %x\n", st);
		return 1;
	}
	finish(me);
	return 0;
}
