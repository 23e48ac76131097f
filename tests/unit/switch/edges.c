/* SPDX-License-Identifier: MIT */
/*
 * edges.c - small programs whose every answer must be the same with and without the switch
 *
 * edges CASE prints what it saw. The script `compare` runs each case plain and under LD_PRELOAD and compares output
 * and end. Only calls as a program makes them; nothing of ours is linked.
 */
#include <aio.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define say(...) do { printf(__VA_ARGS__); fflush(stdout); } while (0)
#define SAY_CALL(e) do { long r_; errno = 0; r_ = (long)(e); say("%s = %ld, errno %d\n", #e, r_, errno); } while (0)

static char self[4096];

static long ms_since(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - from->tv_sec) * 1000 + (now.tv_nsec - from->tv_nsec) / 1000000;
}

/* a TCP connection of this process with itself, used long enough to be on the ring if it may */
static void pair(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof(a);
	struct timespec from;
	char b[4];
	int i, ls = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(ls, (void *)&a, sizeof(a)) || listen(ls, 1) || getsockname(ls, (void *)&a, &l))
		abort();
	sv[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(sv[0], (void *)&a, sizeof(a)))
		abort();
	sv[1] = accept(ls, NULL, NULL);
	if (sv[1] < 0)
		abort();
	close(ls);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (i = 0; i < 40 || (getenv("EDGES_WARM") && ms_since(&from) < 60); i++)
		if (write(sv[0], "warm", 4) != 4 || read(sv[1], b, 4) != 4 || write(sv[1], "warm", 4) != 4 ||
		    read(sv[0], b, 4) != 4)
			abort();
}

static void works(int sv[2], const char *what)
{
	char b[16] = { 0 };
	ssize_t w = write(sv[0], "ping", 4), r = read(sv[1], b, sizeof(b));

	say("%s: wrote %zd read %zd %s\n", what, w, r, b);
	w = write(sv[1], "pong", 4);
	r = read(sv[0], b, sizeof(b));
	say("%s: wrote %zd read %zd %s\n", what, w, r, b);
}

static void ended(pid_t pid, const char *what)
{
	int st = 0;

	if (waitpid(pid, &st, 0) != pid)
		st = -1;
	say("%s: exit %d signal %d\n", what, WIFEXITED(st) ? WEXITSTATUS(st) : -1, WIFSIGNALED(st) ? WTERMSIG(st) : 0);
}

static void show_mask(const char *what)
{
	sigset_t s;
	int i;

	pthread_sigmask(SIG_BLOCK, NULL, &s);
	say("%s:", what);
	for (i = 1; i < 65; i++)
		if (sigismember(&s, i) == 1)
			say(" %d", i);
	say("\n");
}

static volatile int count;

static void handler(int sig)
{
	count++;
}

static void show_action(int sig)
{
	struct sigaction a;
	int r = sigaction(sig, NULL, &a);

	say("signal %d: %d %s flags %x mask %lx\n", sig, r,
	    a.sa_handler == SIG_DFL ? "default" : a.sa_handler == SIG_IGN ? "ignore" :
	    a.sa_handler == handler ? "handler" : "other", (unsigned)a.sa_flags, *(unsigned long *)&a.sa_mask);
}

/* ---- cases ---- */

static void case_signals(void)
{
	static const int sigs[] = { SIGUSR1, SIGSEGV, SIGBUS, SIGCHLD, SIGPIPE, 64 };
	void (*h)(int);
	sigset_t s;
	size_t i;

	for (i = 0; i < sizeof(sigs) / sizeof(*sigs); i++) {
		int g = sigs[i];

		show_action(g);
		h = signal(g, handler);
		say("signal was %d\n", h == SIG_DFL);
		show_action(g);
		SAY_CALL(siginterrupt(g, 1));
		show_action(g);
		h = signal(g, handler);
		show_action(g);
		SAY_CALL(siginterrupt(g, 0));
		h = sysv_signal(g, handler);
		show_action(g);
		raise(g);
		show_action(g);
		say("count %d\n", count);
		h = sigset(g, SIG_HOLD);
		say("sigset %d\n", h == SIG_DFL);
		h = sigset(g, handler);
		say("sigset held %d\n", h == SIG_HOLD);
		show_mask("mask");
		SAY_CALL(sigignore(g));
		show_action(g);
		raise(g);
		say("count %d\n", count);
	}
	SAY_CALL((long)signal(0, handler));
	SAY_CALL((long)signal(9, handler));
	SAY_CALL((long)signal(32, handler));
	SAY_CALL((long)signal(65, handler));
	SAY_CALL(sigignore(SIGKILL));
	SAY_CALL(siginterrupt(99, 1));
	sigfillset(&s);
	SAY_CALL(sigprocmask(SIG_SETMASK, &s, NULL));
	show_mask("full");
	sigemptyset(&s);
	sigaddset(&s, SIGSEGV);
	SAY_CALL(sigprocmask(SIG_UNBLOCK, &s, NULL));
	show_mask("less");
	SAY_CALL(sigprocmask(77, &s, NULL));
	SAY_CALL(pthread_sigmask(77, &s, NULL));
}

static void case_inherited(void)
{
	sigset_t s;
	char *argv[] = { self, (char *)"inherited2", NULL };

	sigemptyset(&s);
	sigaddset(&s, SIGSEGV);
	sigaddset(&s, SIGUSR1);
	sigprocmask(SIG_BLOCK, &s, NULL);
	signal(SIGBUS, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	signal(SIGHUP, handler);
	execv("/nonexistent", argv);
	show_mask("after a failed exec");
	show_action(SIGBUS);
	execv(self, argv);
}

static void case_inherited2(void)
{
	show_mask("mask");
	show_action(SIGBUS);
	show_action(SIGSEGV);
	show_action(SIGUSR2);
	show_action(SIGHUP);
	raise(SIGSEGV);
	say("still here\n");
}

static void case_vfork(void)
{
	char b[16];
	int sv[2], i;
	pid_t pid;

	pair(sv);
	works(sv, "before");
	for (i = 0; i < 3; i++) {
		if (write(sv[0], "held0", 5) != 5 || write(sv[1], "held1", 5) != 5)
			abort();
		pid = vfork();
		if (pid == 0) {		/* as Python's subprocess does */
			struct sigaction dfl = { .sa_handler = SIG_DFL };

			sigaction(SIGPIPE, &dfl, NULL);
			if (i == 0)
				close(sv[0]);
			else if (i == 1)
				close_range(3, ~0u, 0);
			else
				dup2(2, sv[1]);
			execl("/bin/true", "true", NULL);
			_exit(9);
		}
		ended(pid, "vfork child");
		memset(b, 0, sizeof(b));
		SAY_CALL(read(sv[0], b, 5));
		SAY_CALL(read(sv[1], b + 5, 5));
		say("%s\n", b);
		works(sv, "after");
	}
	pid = vfork();
	if (pid == 0)
		_exit(5);
	ended(pid, "vfork exit");
	works(sv, "after");
}

static int clone_child(void *arg)
{
	int *sv = arg;

	close(sv[0]);
	close(sv[1]);
	_exit(sv[2]);
}

static void case_clone(void)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	int sv[3];
	pid_t pid, ctid = 0, ptid = 0;

	pair(sv);
	sv[2] = 11;
	pid = clone(clone_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, sv);
	ended(pid, "clone");
	works(sv, "after clone");
	pid = clone(clone_child, stack + sizeof(stack), SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, sv, &ptid,
		    NULL, &ctid);
	say("ptid %d ctid %d\n", ptid == pid, ctid);
	ended(pid, "clone without VM");
	works(sv, "after clone");
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		close(sv[0]);
		_exit(12);
	}
	ended(pid, "syscall clone");
	pid = (pid_t)syscall(SYS_fork);
	if (pid == 0)
		_exit(13);
	ended(pid, "syscall fork");
	works(sv, "after all");
	SAY_CALL(clone(NULL, NULL, 0, NULL));
}

static void case_spawn(void)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"exit $X", NULL };
	char *env[] = { (char *)"X=21", NULL };
	int sv[2], r;
	pid_t pid;
	FILE *f;
	char b[64] = { 0 };

	pair(sv);
	works(sv, "before");
	r = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, env);
	say("posix_spawn %d\n", r);
	ended(pid, "spawned");
	works(sv, "after");
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addclose(&fa, sv[0]);
	posix_spawnattr_init(&at);
	r = posix_spawnp(&pid, "sh", &fa, &at, argv, env);
	say("posix_spawnp %d\n", r);
	ended(pid, "spawned");
	r = posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, env);
	say("posix_spawn of nothing %d\n", r);
	say("system %d\n", system("exit 3"));
	say("system NULL %d\n", system(NULL) != 0);
	f = popen("echo hello", "r");
	say("popen %s", fgets(b, sizeof(b), f));
	say("pclose %d\n", pclose(f));
	works(sv, "after");
	setenv("X", "22", 1);
	if ((pid = fork()) == 0)
		execlp("sh", "sh", "-c", "exit $X", NULL);
	ended(pid, "execlp");
	if ((pid = fork()) == 0)
		execle("/bin/sh", "sh", "-c", "exit $X", NULL, env);
	ended(pid, "execle");
	if ((pid = fork()) == 0)
		execl("/bin/sh", "sh", "-c", "exit 23", NULL);
	ended(pid, "execl");
	if ((pid = fork()) == 0)
		execvpe("sh", argv, env);
	ended(pid, "execvpe");
	if ((pid = fork()) == 0)
		execvp("sh", argv);
	ended(pid, "execvp");
	if ((pid = fork()) == 0)
		fexecve(open("/bin/sh", O_RDONLY), argv, env);
	ended(pid, "fexecve");
	if ((pid = fork()) == 0)
		execveat(AT_FDCWD, "/bin/sh", argv, env, 0);
	ended(pid, "execveat");
	if ((pid = fork()) == 0)
		syscall(SYS_execve, "/bin/sh", argv, env);
	ended(pid, "syscall execve");
	SAY_CALL(execl("/nonexistent", "x", NULL));
	SAY_CALL(execvp("nonexistent-program", argv));
	works(sv, "after all");
}

/* what the new image finds on the descriptor that it was given */
static void do_exec(bool unread)
{
	int sv[2], p[2];
	char n[3][16], b[16] = { 0 };
	pid_t pid;

	if (pipe(p))
		abort();
	pair(sv);
	works(sv, "before");
	if (unread && write(sv[0], "left", 4) != 4)
		abort();
	pid = fork();
	if (pid == 0) {
		snprintf(n[0], 16, "%d", sv[0]);
		snprintf(n[1], 16, "%d", sv[1]);
		snprintf(n[2], 16, "%d", p[1]);
		execl(self, self, "exec2", n[0], n[1], n[2], NULL);
	}
	/* the image is there: what is sent now is its own to read, whoever had the socket before */
	if (read(p[0], b, 1) != 1 || (!unread && write(sv[0], "fed", 3) != 3))
		abort();
	ended(pid, "exec2");
	say("read %zd %s\n", read(sv[0], b, sizeof(b)), b);
	say("read %zd %s\n", read(sv[1], b, sizeof(b)), b);
}

static void case_exec(void)
{
	do_exec(false);
}

static void case_unread_exec(void)
{
	do_exec(true);
}

static void exec2(int a, int c, int p)
{
	char b[16] = { 0 };

	if (write(p, "x", 1) != 1)
		abort();
	say("image read %zd %s\n", read(c, b, sizeof(b)), b);
	say("image wrote %zd\n", write(c, "back", 4));
	say("image wrote %zd\n", write(a, "more", 4));
}

static void *forker(void *arg)
{
	int *bad = arg, i, st;
	pid_t pid;

	for (i = 0; i < 40; i++) {
		struct sigaction a = { .sa_handler = handler };

		sigaction(SIGUSR1, &a, NULL);
		pid = fork();
		if (pid == 0) {
			sigaction(SIGUSR1, &a, NULL);
			raise(SIGUSR1);
			_exit(17);
		}
		if (pid < 0 || waitpid(pid, &st, 0) != pid || !WIFEXITED(st) || WEXITSTATUS(st) != 17)
			__atomic_fetch_add(bad, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void case_threads_fork(void)
{
	pthread_t t[4];
	int bad = 0, i, sv[2];

	pair(sv);
	works(sv, "before");
	for (i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, forker, &bad);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	say("bad %d\n", bad);
	works(sv, "after");
}

/* A handler that runs under a mask with SIGSEGV in it, and reads into nothing: EFAULT, and nobody is killed */
static int bad_fd;

static void read_into_nothing(int sig)
{
	int e = errno;

	void *volatile nowhere = (void *)8;

	SAY_CALL(read(bad_fd, nowhere, 4));
	errno = e;
}

static volatile int waited;

static void *wait_for_all(void *arg)
{
	sigset_t all;
	int sig = 0, r;

	sigfillset(&all);
	r = sigwait(&all, &sig);
	say("the thread's sigwait = %d, signal %d\n", r, sig);
	waited = 1;
	return arg;
}

static void case_masks(void)
{
	struct timespec none = { 0, 0 }, long_time = { 20, 0 };
	struct sigaction sa = { .sa_handler = read_into_nothing };
	sigset_t most, all, old, set;
	siginfo_t si;
	int sv[2], ep = epoll_create1(0), sig = 0;
	pthread_t t;

	pair(sv);
	bad_fd = sv[1];
	if (write(sv[0], "data", 4) != 4)
		abort();
	sigaction(SIGUSR1, &sa, NULL);
	sigfillset(&all);
	most = all;
	sigdelset(&most, SIGUSR1);
	sigprocmask(SIG_SETMASK, &all, &old);
	raise(SIGUSR1);
	SAY_CALL(sigsuspend(&most));
	raise(SIGUSR1);
	SAY_CALL(ppoll(NULL, 0, &long_time, &most));
	raise(SIGUSR1);
	SAY_CALL(pselect(0, NULL, NULL, NULL, &long_time, &most));
	raise(SIGUSR1);
	SAY_CALL(epoll_pwait(ep, (struct epoll_event[1]){ { 0 } }, 1, 20000, &most));
	show_mask("still all");
	/* signals sent while they are blocked wait, and are waited for */
	kill(getpid(), SIGSEGV);
	raise(SIGBUS);
	sigemptyset(&set);
	SAY_CALL(sigpending(&set));
	say("pending %d %d\n", sigismember(&set, SIGSEGV), sigismember(&set, SIGBUS));
	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	SAY_CALL(sigwaitinfo(&set, &si));
	say("signal %d, code %d\n", si.si_signo, si.si_code);
	SAY_CALL(sigtimedwait(&set, &si, &none));
	sigaddset(&set, SIGBUS);
	SAY_CALL(sigwait(&set, &sig));
	say("signal %d\n", sig);
	SAY_CALL(sigtimedwait((sigset_t *)8, &si, &none));
	SAY_CALL(sigsuspend((sigset_t *)8));
	/* one that sigsuspend lets in */
	sa.sa_handler = handler;
	sigaction(SIGSEGV, &sa, NULL);
	raise(SIGSEGV);
	set = all;
	sigdelset(&set, SIGSEGV);
	SAY_CALL(sigsuspend(&set));
	show_mask("still all");
	/* sent to the process while another thread waits for every signal */
	pthread_create(&t, NULL, wait_for_all, NULL);
	while (!waited) {
		kill(getpid(), SIGSEGV);
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
	}
	pthread_join(t, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	while (sigtimedwait(&set, &si, &none) > 0)
		;
	sigprocmask(SIG_SETMASK, &old, NULL);
	SAY_CALL(read(sv[1], &sig, 4));
	close(ep);
}

static void case_forkpty(void)
{
	int sv[2], master = -1, st;
	char b[64] = { 0 };
	pid_t pid;

	pair(sv);
	pid = fork();
	if (pid == 0) {
		/* sockets where the terminal will be */
		dup2(sv[1], 0);
		dup2(sv[1], 2);
		pid = forkpty(&master, NULL, NULL, NULL);
		if (pid == 0) {
			ssize_t n = read(0, b, sizeof(b));

			_exit(n == 6 && !memcmp(b, "typed\n", 6) && isatty(2) && write(2, "out", 3) == 3 ? 21 : 22);
		}
		if (write(master, "typed\n", 6) != 6)
			_exit(3);
		if (waitpid(pid, &st, 0) != pid || !WIFEXITED(st))
			_exit(4);
		_exit(WEXITSTATUS(st));
	}
	ended(pid, "forkpty");
	works(sv, "after");
}

pid_t _Fork(void) __attribute__((weak));

/* the parent lets go of a socket with bytes unread before the child has made any call: they are the child's */
static void case_async_fork(void)
{
	int sv[2], p[2];
	char b[16] = { 0 };
	pid_t pid;

	if (!_Fork) {
		say("no _Fork\n");
		return;
	}
	pair(sv);
	if (pipe(p) || write(sv[0], "unread", 6) != 6)
		abort();
	pid = _Fork();
	if (pid == 0) {
		ssize_t r;

		while (syscall(SYS_read, p[0], b, 1) != 1)
			;
		r = read(sv[1], b, sizeof(b));
		if (r != 6 || memcmp(b, "unread", 6))
			_exit(2);
		_exit(write(sv[1], "answer", 6) == 6 ? 0 : 3);
	}
	close(sv[1]);
	if (write(p[1], "x", 1) != 1)
		abort();
	ended(pid, "child");
	memset(b, 0, sizeof(b));
	SAY_CALL(read(sv[0], b, sizeof(b)));
	say("%s\n", b);
	SAY_CALL(read(sv[0], b, sizeof(b)));
}

static void case_daemon(void)
{
	int sv[2], p[2], st;
	char b[64] = { 0 };
	struct stat s;
	pid_t pid;

	if (pipe(p))
		abort();
	pid = fork();
	if (pid == 0) {
		pair(sv);
		dup2(sv[1], 0);
		if (daemon(1, 0) == 0) {
			int n;

			fstat(0, &s);
			n = snprintf(b, sizeof(b), "0 is %s, read %zd, conn %zd", S_ISCHR(s.st_mode) ? "null" : "other",
				     read(0, b, 1), write(sv[0], "abc", 3));
			n += snprintf(b + n, sizeof(b) - (size_t)n, " %zd", read(sv[1], b + 50, 3));
			if (write(p[1], b, (size_t)n) < 0)
				_exit(2);
		}
		_exit(0);
	}
	waitpid(pid, &st, 0);
	close(p[1]);
	say("daemon: exit %d\n", WEXITSTATUS(st));
	say("read %d\n", (int)read(p[0], b, sizeof(b)) > 0);
	say("%s\n", b);
}

static void case_stdio(void)
{
	int sv[2], d;
	char b[64];
	FILE *r, *w;

	pair(sv);
	works(sv, "before");
	SAY_CALL(dprintf(sv[0], "number %d\n", 42));
	d = dup(sv[1]);
	r = fdopen(sv[1], "r");
	w = fdopen(d, "w");
	say("fileno %d %d\n", fileno(r) == sv[1], fileno(w) == d);
	say("fgets %s", fgets(b, sizeof(b), r));
	SAY_CALL(fprintf(w, "answer\n"));
	SAY_CALL(fflush(w));
	memset(b, 0, sizeof(b));
	SAY_CALL(read(sv[0], b, sizeof(b)));
	say("%s", b);
	SAY_CALL(fseek(r, 0, SEEK_SET));
	say("fdopen bad mode %d", fdopen(sv[0], "x") == NULL);
	say(" errno %d\n", errno);
	say("fdopen closed %d\n", fdopen(999, "r") == NULL);
	fputs("last\n", w);
	SAY_CALL(fclose(w));
	SAY_CALL(fclose(r));
	memset(b, 0, sizeof(b));
	SAY_CALL(read(sv[0], b, sizeof(b)));
	say("%s", b);
	SAY_CALL(read(sv[0], b, sizeof(b)));
	SAY_CALL(read(sv[1], b, sizeof(b)));
	SAY_CALL(dprintf(sv[1], "x"));
	pair(sv);
	r = fdopen(sv[0], "r+");
	say("freopen %d\n", freopen("/dev/null", "r+", r) == r);
	SAY_CALL(read(sv[1], b, sizeof(b)));
	SAY_CALL(fgetc(r));
	SAY_CALL(fclose(r));
}

static void case_aio(void)
{
	struct aiocb cb = { 0 }, cb2 = { 0 };
	const struct aiocb *l[1] = { &cb };
	struct aiocb *two[2] = { &cb, &cb2 };
	char b[64] = { 0 };
	int sv[2];

	pair(sv);
	works(sv, "before");
	if (write(sv[0], "hello", 5) != 5)
		abort();
	cb.aio_fildes = sv[1];
	cb.aio_buf = b;
	cb.aio_nbytes = sizeof(b);
	cb.aio_sigevent.sigev_notify = SIGEV_NONE;
	SAY_CALL(aio_read(&cb));
	aio_suspend(l, 1, NULL);
	SAY_CALL(aio_error(&cb));
	SAY_CALL(aio_return(&cb));
	say("%s\n", b);
	cb.aio_nbytes = 3;
	SAY_CALL(aio_write(&cb));
	aio_suspend(l, 1, NULL);
	SAY_CALL(aio_return(&cb));
	memset(b + 10, 0, 10);
	SAY_CALL(read(sv[0], b + 10, 10));
	say("%s\n", b + 10);
	if (write(sv[0], "list", 4) != 4)
		abort();
	cb.aio_lio_opcode = LIO_READ;
	cb.aio_nbytes = sizeof(b);
	cb2 = cb;
	cb2.aio_fildes = sv[1];
	cb2.aio_lio_opcode = LIO_WRITE;
	cb2.aio_nbytes = 2;
	SAY_CALL(lio_listio(LIO_WAIT, two, 2, NULL));
	SAY_CALL(aio_return(&cb));
	SAY_CALL(aio_return(&cb2));
	cb.aio_fildes = 999;
	SAY_CALL(aio_read(&cb));
	aio_suspend(l, 1, NULL);
	SAY_CALL(aio_error(&cb));
}

static void case_syscall(void)
{
	struct { const sigset_t *p; size_t n; } m6;
	struct timespec z = { 0, 0 };
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = 7 };
	struct pollfd p;
	int sv[2], d, ep, v = 0;
	socklen_t l = sizeof(v);
	char b[64] = { 0 };
	sigset_t s;
	fd_set rs;

	pair(sv);
	works(sv, "before");
	sigfillset(&s);
	SAY_CALL(syscall(SYS_write, sv[0], "abc", 3));
	p.fd = sv[1];
	p.events = POLLIN;
	SAY_CALL(syscall(SYS_poll, &p, 1, 1000));
	SAY_CALL(syscall(SYS_ppoll, &p, 1, &z, &s, 8));
	SAY_CALL(syscall(SYS_ppoll, &p, 1, &z, &s, 9));
	SAY_CALL(syscall(SYS_ppoll, &p, 1, &z, (void *)8, 8));
	SAY_CALL(syscall(SYS_ppoll, &p, 1, &z, NULL, 0));
	FD_ZERO(&rs);
	FD_SET(sv[1], &rs);
	m6.p = &s;
	m6.n = 8;
	SAY_CALL(syscall(SYS_pselect6, sv[1] + 1, &rs, NULL, NULL, &z, &m6));
	SAY_CALL(syscall(SYS_pselect6, sv[1] + 1, &rs, NULL, NULL, &z, (void *)8));
	SAY_CALL(syscall(SYS_pselect6, sv[1] + 1, &rs, NULL, NULL, &z, NULL));
	ep = (int)syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
	SAY_CALL(syscall(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, sv[1], &ev));
	SAY_CALL(syscall(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, sv[1], &ev));
	SAY_CALL(syscall(SYS_epoll_wait, ep, &ev, 1, 1000));
	SAY_CALL(syscall(SYS_epoll_pwait, ep, &ev, 1, 0, &s, 8));
	SAY_CALL(syscall(SYS_epoll_pwait, ep, &ev, 1, 0, &s, 128));
	SAY_CALL(syscall(SYS_epoll_pwait2, ep, &ev, 1, &z, NULL, 0));
	SAY_CALL(syscall(SYS_read, sv[1], b, sizeof(b)));
	SAY_CALL(syscall(SYS_sendto, sv[1], b, 3, MSG_NOSIGNAL, NULL, 0));
	SAY_CALL(syscall(SYS_recvfrom, sv[0], b, sizeof(b), 0, NULL, NULL));
	SAY_CALL(syscall(SYS_recvfrom, sv[0], b, sizeof(b), MSG_DONTWAIT, NULL, NULL));
	SAY_CALL(syscall(SYS_getsockopt, sv[0], SOL_SOCKET, SO_TYPE, &v, &l));
	say("type %d\n", v);
	d = (int)syscall(SYS_dup, sv[0]);
	SAY_CALL(syscall(SYS_fcntl, d, F_GETFD));
	SAY_CALL(syscall(SYS_close, sv[0]));
	SAY_CALL(syscall(SYS_write, d, "xyz", 3));
	SAY_CALL(syscall(SYS_dup3, d, sv[0], O_CLOEXEC));
	SAY_CALL(syscall(SYS_fcntl, sv[0], F_GETFD));
	SAY_CALL(syscall(SYS_shutdown, sv[0], SHUT_WR));
	SAY_CALL(syscall(SYS_close_range, d, d, 0));
	SAY_CALL(syscall(SYS_read, sv[1], b, sizeof(b)));
	SAY_CALL(syscall(SYS_read, sv[1], b, sizeof(b)));
	SAY_CALL(syscall(SYS_read, 999, b, 1));
	SAY_CALL(syscall(SYS_read, sv[1], (void *)8, 1));
	SAY_CALL(syscall(SYS_write, sv[1], (void *)8, 1));
	SAY_CALL(syscall(99999, 1, 2, 3, 4, 5, 6));
	SAY_CALL(syscall(SYS_getppid) == getppid());
	SAY_CALL(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL));
	SAY_CALL(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL));
	SAY_CALL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 8));
	SAY_CALL(prctl(PR_GET_SECCOMP));
}

/* a filter that kills for everything that a switch might be tempted to do */
static void sandbox(bool by_prctl)
{
#define ALLOW(n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	static struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_close), ALLOW(SYS_exit_group), ALLOW(SYS_poll),
		ALLOW(SYS_epoll_wait), ALLOW(SYS_rt_sigreturn), ALLOW(SYS_newfstatat),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = { sizeof(f) / sizeof(*f), f };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (by_prctl)
		SAY_CALL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
	else
		SAY_CALL(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
}

static void in_sandbox(bool by_prctl)
{
	int sv[2], i, ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN };
	struct pollfd p;

	say("start\n");
	pair(sv);
	for (i = 0; i < 20; i++)
		works(sv, "before");
	epoll_ctl(ep, EPOLL_CTL_ADD, sv[1], &ev);
	sandbox(by_prctl);
	for (i = 0; i < 20; i++)
		works(sv, "inside");
	if (write(sv[0], "x", 1) != 1)
		abort();
	p.fd = sv[1];
	p.events = POLLIN;
	SAY_CALL(poll(&p, 1, 1000));
	SAY_CALL(epoll_wait(ep, &ev, 1, 1000));
	SAY_CALL(close(sv[0]));
	SAY_CALL(close(sv[1]));
}

static void case_sandbox_prctl(void)
{
	in_sandbox(true);
}

static void case_sandbox_seccomp(void)
{
	in_sandbox(false);
}

/* bytes that lie unread when the sandbox closes are read, or both ends hear of it: never silence, never a gap (G22) */
static void case_sandbox_unread(void)
{
	char b[8];
	int sv[2];
	ssize_t r;

	say("start\n");	/* stdio allocates at its first use */
	pair(sv);
	if (write(sv[0], "left", 4) != 4)
		abort();
	sandbox(true);
	r = read(sv[1], b, sizeof(b));
	say("told %d\n", (r == 4 && !memcmp(b, "left", 4)) || (r < 0 && errno == ECONNRESET) || r == 0);
}

static void case_sandbox_strict(void)
{
	int sv[2];
	char b[8];

	pair(sv);
	works(sv, "before");
	SAY_CALL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	if (write(sv[0], "abc", 3) == 3 && read(sv[1], b, 8) == 3)
		say("through\n");
	_exit(0);		/* exit_group is not allowed: killed, as without us */
}

static void crash(int how)
{
	int sv[2], fd;
	char *p;

	pair(sv);
	works(sv, "before");
	if (how == 0) {
		*(volatile int *)8 = 1;
	} else if (how == 1) {
		fd = memfd_create("t", 0);
		p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
		say("%d\n", *(volatile char *)p);
	} else if (how == 2) {
		kill(getpid(), SIGSEGV);
	} else {
		abort();
	}
}

static void case_crash_segv(void)
{
	crash(0);
}

static void case_crash_bus(void)
{
	crash(1);
}

static void case_crash_sent(void)
{
	crash(2);
}

static void case_crash_abort(void)
{
	crash(3);
}

static void quick_end(void)
{
	say("quick\n");
}

static void case_quick_exit(void)
{
	int sv[2];

	pair(sv);
	works(sv, "before");
	at_quick_exit(quick_end);
	quick_exit(6);
}

static void case_exit(void)
{
	int sv[2];

	pair(sv);
	works(sv, "before");
	_Exit(8);
}

/* SCM_RIGHTS to a child that has nothing else */
static void do_rights(bool unread)
{
	union { char b[CMSG_SPACE(sizeof(int))]; struct cmsghdr h; } u = { { 0 } };
	struct iovec io = { (char *)"x", 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u) };
	int us[2], sv[2];
	char b[16] = { 0 };
	pid_t pid;

	socketpair(AF_UNIX, SOCK_STREAM, 0, us);
	pid = fork();
	if (pid == 0) {
		char c;
		int fd;

		io.iov_base = &c;
		recvmsg(us[1], &m, 0);
		memcpy(&fd, CMSG_DATA(&u.h), sizeof(fd));
		if (read(us[1], &c, 1) != 1)	/* the sender has said what it did */
			_exit(1);
		say("got %zd %s\n", read(fd, b, sizeof(b)), b);
		say("sent %zd\n", write(fd, "reply", 5));
		_exit(0);
	}
	pair(sv);
	works(sv, "before");
	u.h.cmsg_len = CMSG_LEN(sizeof(int));
	u.h.cmsg_level = SOL_SOCKET;
	u.h.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&u.h), &sv[1], sizeof(int));
	if (unread)
		say("write %zd\n", write(sv[0], "passed", 6));
	SAY_CALL(sendmsg(us[0], &m, 0));
	if (!unread)
		say("write %zd\n", write(sv[0], "passed", 6));
	if (write(us[0], "g", 1) != 1)
		say("no go-ahead\n");
	ended(pid, "receiver");
	close(sv[1]);
	memset(b, 0, sizeof(b));
	SAY_CALL(read(sv[0], b, sizeof(b)));
	say("%s\n", b);
	SAY_CALL(read(sv[0], b, sizeof(b)));
}

static void case_rights(void)
{
	do_rights(false);
}

static void case_unread_rights(void)
{
	do_rights(true);
}

static const struct {
	const char *name;
	void (*f)(void);
} cases[] = {
	{ "signals", case_signals }, { "inherited", case_inherited }, { "vfork", case_vfork },
	{ "clone", case_clone }, { "spawn", case_spawn }, { "exec", case_exec },
	{ "threads-fork", case_threads_fork }, { "daemon", case_daemon },
	{ "masks", case_masks }, { "forkpty", case_forkpty }, { "async-fork", case_async_fork }, { "stdio", case_stdio },
	{ "aio", case_aio }, { "syscall", case_syscall }, { "sandbox-prctl", case_sandbox_prctl },
	{ "sandbox-seccomp", case_sandbox_seccomp }, { "sandbox-strict", case_sandbox_strict },
	{ "sandbox-unread", case_sandbox_unread },
	{ "crash-segv", case_crash_segv }, { "crash-bus", case_crash_bus }, { "crash-sent", case_crash_sent },
	{ "crash-abort", case_crash_abort }, { "quick-exit", case_quick_exit }, { "exit", case_exit },
	{ "rights", case_rights }, { "unread-exec", case_unread_exec }, { "unread-rights", case_unread_rights },
	{ "inherited2", case_inherited2 },	/* what "inherited" executes; the last one */
};

int main(int argc, char **argv)
{
	size_t i, n = sizeof(cases) / sizeof(*cases);

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 2;
	if (argc == 5 && !strcmp(argv[1], "exec2")) {
		exec2(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
		return 0;
	}
	for (i = 0; argc == 2 && i < n; i++) {
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].f();
			return 0;
		}
	}
	for (i = 0; i < n - 1; i++)
		puts(cases[i].name);
	return argc == 1 ? 0 : 2;
}
