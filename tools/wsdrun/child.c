/* SPDX-License-Identifier: MIT */
/*
 * The child stays in our process group, so what the terminal sends (Ctrl-C, Ctrl-Z, a new
 * window size) reaches it anyway and is not sent twice: the kernel's own signals are told by
 * si_code > 0. What others send to us is meant for the program and forwarded.
 *
 * Signals are blocked and taken by sigwaitinfo(): no handler, no race, and what was ignored when we
 * were started (nohup) is still ignored in the child, as dispositions are not touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdrun/wsdrun.h"

static const int forwarded[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT, SIGTSTP };

/* the program was stopped: whoever waits for us must see that, and continue both */
static void stop_as_well(pid_t child, int sig)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL }, old;
	sigset_t one, before;

	sigemptyset(&one);
	sigaddset(&one, sig);
	sigaction(sig, &dfl, &old);
	sigprocmask(SIG_UNBLOCK, &one, &before);
	raise(sig);
	/* continued, or in an orphaned group, where nothing stops us and nobody could continue us */
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (sig != SIGSTOP)
		sigaction(sig, &old, NULL);
	kill(child, SIGCONT);
}

int child_run(char **argv, int *ret_status)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL }, old_chld;
	sigset_t set, before;
	_cleanup_close_ int rd = -1, wr = -1;
	int pipefd[2], err = 0, status, sig;
	siginfo_t info;
	pid_t child, r;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	rd = pipefd[0];
	wr = pipefd[1];

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&set, forwarded[i]);
	sigaddset(&set, SIGCHLD);
	sigaction(SIGCHLD, &dfl, &old_chld);	/* ignored, there would be no status to wait for */
	sigprocmask(SIG_BLOCK, &set, &before);

	child = fork();
	if (child < 0) {
		err = errno;
		sigprocmask(SIG_SETMASK, &before, NULL);
		return -err;
	}
	if (child == 0) {
		sigaction(SIGCHLD, &old_chld, NULL);
		sigprocmask(SIG_SETMASK, &before, NULL);
		execvp(argv[0], argv);
		err = errno;
		(void)!write(wr, &err, sizeof(err));
		_exit(WSDRUN_E_NOT_FOUND);
	}
	close(wr);
	wr = -1;
	while (read(rd, &err, sizeof(err)) < 0 && errno == EINTR)
		;

	for (;;) {
		r = waitpid(child, &status, WUNTRACED | WNOHANG);
		if (r == child && WIFSTOPPED(status)) {
			stop_as_well(child, WSTOPSIG(status));
			continue;
		}
		if (r == child || (r < 0 && errno != EINTR))
			break;
		sig = sigwaitinfo(&set, &info);
		if (sig > 0 && sig != SIGCHLD && info.si_code <= 0 && info.si_pid != child)
			kill(child, sig);
	}
	if (r < 0)
		err = err ? err : -errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (err)
		return err;
	*ret_status = status;
	return 0;
}

_Noreturn void child_exit_like(int status)
{
	struct rlimit none = { 0, 0 };
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t one;
	int sig;

	if (WIFEXITED(status))
		exit(WEXITSTATUS(status));

	sig = WTERMSIG(status);
	(void)setrlimit(RLIMIT_CORE, &none);	/* one core file is enough */
	sigaction(sig, &dfl, NULL);
	sigemptyset(&one);
	sigaddset(&one, sig);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	raise(sig);
	exit(128 + sig);
}
