/* SPDX-License-Identifier: MIT */
/* A process for each connection. The parent closes its copy at once, the child does the talking. */
#include <sys/wait.h>

#include "examples/example.h"

static void serve(int fd)
{
	static char buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (write_all(fd, buf, (size_t)n) < 0)
			_exit(1);
	_exit(n < 0);
}

int main(int argc, char **argv)
{
	unsigned long left = number(argc, argv, 2, 0);
	int l = listen_on(number(argc, argv, 1, 0)), status, bad = 0;

	do {
		int fd = accept(l, NULL, NULL);
		pid_t pid;

		if (fd < 0)
			die("accept");
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			close(l);
			serve(fd);
		}
		close(fd);
		while (waitpid(-1, &status, WNOHANG) > 0)
			bad |= status;
	} while (--left);
	while (wait(&status) > 0)
		bad |= status;
	return bad != 0;
}
