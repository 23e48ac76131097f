/* SPDX-License-Identifier: MIT */
/* As inetd: each connection becomes the standard input and output of a program, cat by default. */
#include <sys/wait.h>

#include "examples/example.h"

int main(int argc, char **argv)
{
	unsigned long left = number(argc, argv, 2, 0);
	int l = listen_on(number(argc, argv, 1, 0)), status, bad = 0;
	char *cat[] = { "cat", NULL }, **prog = argc > 3 ? argv + 3 : cat;

	do {
		int fd = accept(l, NULL, NULL);
		pid_t pid;

		if (fd < 0)
			die("accept");
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			dup2(fd, STDIN_FILENO);
			dup2(fd, STDOUT_FILENO);
			close(fd);
			execvp(prog[0], prog);
			_exit(127);
		}
		close(fd);
	} while (--left);
	while (wait(&status) > 0)
		bad |= status;
	return bad != 0;
}
