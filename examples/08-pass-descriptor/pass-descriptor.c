/* SPDX-License-Identifier: MIT */
/*
 * The parent accepts, echoes the first message itself, and then hands the busy connection to a worker
 * process by SCM_RIGHTS, which echoes the rest.
 */
#include <sys/wait.h>

#include "examples/example.h"

static void pass(int to, int fd)
{
	char c = 'x', control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &c, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	if (sendmsg(to, &m, 0) != 1)
		die("sendmsg");
}

/* a descriptor, or -1 at the end */
static int take(int from)
{
	char c, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &c, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	int fd;

	if (recvmsg(from, &m, 0) != 1 || !CMSG_FIRSTHDR(&m))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return fd;
}

static int echo_some(int fd, int once)
{
	static char buf[65536];
	ssize_t n;

	do {
		n = recv(fd, buf, sizeof(buf), 0);
		if (n <= 0 || write_all(fd, buf, (size_t)n) < 0)
			return n < 0;
	} while (!once);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long left = number(argc, argv, 2, 0);
	int l = listen_on(number(argc, argv, 1, 0)), pair[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
		die("socketpair");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		int fd, bad = 0;

		close(l);
		close(pair[0]);
		while ((fd = take(pair[1])) >= 0) {
			bad |= echo_some(fd, 0);
			close(fd);
		}
		_exit(bad);
	}
	close(pair[1]);
	do {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			die("accept");
		echo_some(fd, 1);
		pass(pair[0], fd);
		close(fd);
	} while (--left);
	close(pair[0]);
	waitpid(pid, &status, 0);
	return status != 0;
}
