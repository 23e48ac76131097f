/* SPDX-License-Identifier: MIT */
/*
 * Starting a private daemon
 *
 * The lock file "proxyd.start" beside the socket lets one wsdrun at a time start a daemon; those that
 * do not get the lock look at the socket until the daemon of the other one answers. The
 * daemon has a lock of its own: this one only spares the losers' work and their error messages.
 *
 * The daemon must outlive CMD and must not be noticed by it. So it becomes nobody's child (CMD
 * may wait for any child), has its own session, none of our descriptors, no preload library, the default
 * signal dispositions, and neither our CPU affinity (taskset) nor our scheduling class (chrt).
 *
 * It says READY=1 on a datagram socket of ours (sd_notify). A message proves nothing, as anybody
 * may send one: only a connection whose SO_PEERCRED is right ends the wait well.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <wsd/proxy_proto.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdrun/wsdrun.h"

#define START_MS	2000		/* longest wait for a daemon that is starting */
#define IDLE_EXIT_S	"30"
#define LOG_MAX		(1 << 20)	/* a larger log is started anew */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

/* ---- in the process that becomes the daemon: no way back, no printing ---- */

static void plain_scheduling(void)
{
	struct sched_param param = { 0 };
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	(void)sched_setaffinity(0, sizeof(all), &all);
	(void)sched_setscheduler(0, SCHED_OTHER, &param);
}

static void plain_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void plain_stdio(const char *log)
{
	struct stat st;
	int null, fd;

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > LOG_MAX)
		(void)!ftruncate(fd, 0);
	if (null >= 0)
		(void)dup2(null, STDIN_FILENO);
	(void)dup2(fd >= 0 ? fd : null, STDOUT_FILENO);
	(void)dup2(fd >= 0 ? fd : null, STDERR_FILENO);
}

static _Noreturn void become_daemon(const char *binary, const char *path, const char *log, int error_pipe)
{
	int err;

	plain_signals();
	plain_scheduling();
	plain_stdio(log);
	(void)syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
	(void)!chdir("/");
	umask(022);
	unsetenv("LD_PRELOAD");
	unsetenv("WSD_STATS");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
	unsetenv("WATCHDOG_USEC");
	execl(binary, binary, "--private", "--socket", path, "--idle-exit", IDLE_EXIT_S, (char *)NULL);
	err = errno;
	(void)!write(error_pipe, &err, sizeof(err));
	_exit(127);
}

/* ---- here ---- */

/* a datagram socket with an abstract name of the kernel's choice, named in NOTIFY_SOCKET */
static int notify_socket(char name[static 16])
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	int fd;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sun, len) == 0) {
		len = sizeof(sun);
		if (getsockname(fd, (struct sockaddr *)&sun, &len) == 0 && len > sizeof(sa_family_t) + 1) {
			snprintf(name, 16, "@%.*s", (int)(len - sizeof(sa_family_t) - 1), sun.sun_path + 1);
			return fd;
		}
	}
	close(fd);
	return -EADDRNOTAVAIL;
}

/*
 * Two forks, so that init is its parent. The pid comes through a pipe, which then tells by
 * closing that exec succeeded, or brings the errno. *ret_pidfd is -1 where the kernel gives none.
 */
static int spawn(int *ret_pidfd, const char *binary, const char *path, const char *log)
{
	_cleanup_close_ int rd = -1, wr = -1;
	int pipefd[2], err, pidfd, status;
	pid_t first, pid = 0;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	rd = pipefd[0];
	wr = pipefd[1];

	first = fork();
	if (first < 0)
		return -errno;
	if (first == 0) {
		setsid();
		pid = fork();
		if (pid == 0) {
			/* the parent's number first: nothing may come before it */
			pid = getpid();
			(void)!write(wr, &pid, sizeof(pid));
			become_daemon(binary, path, log, wr);
		}
		_exit(pid < 0);
	}
	while (waitpid(first, &status, 0) < 0 && errno == EINTR)
		;
	close(wr);
	wr = -1;
	if (read(rd, &pid, sizeof(pid)) != sizeof(pid))
		return -EAGAIN;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (read(rd, &err, sizeof(err)) == sizeof(err)) {
		if (pidfd >= 0)
			close(pidfd);
		return -err;
	}
	*ret_pidfd = pidfd;
	return 0;
}

/* until it answers, dies or the time is up */
static int wait_ready(const char *path, int pidfd, int notify, int64_t deadline)
{
	struct pollfd p[2] = { { .fd = notify, .events = POLLIN }, { .fd = pidfd, .events = POLLIN } };
	char drain[256];
	int step = 2;

	for (;;) {
		if (endpoint_answers(path))
			return 0;
		if (p[1].revents)
			return -ECHILD;
		if (now_ms() >= deadline)
			return -ETIMEDOUT;
		/* readiness cuts the wait short; without it (an old libsystemd, a daemon of other make) we look ourselves */
		(void)poll(p, 2, step);
		if (p[0].revents)
			(void)!recv(notify, drain, sizeof(drain), MSG_DONTWAIT);
		step = step < 50 ? step * 2 : 50;
	}
}

static int start(const char *binary, const char *path, int64_t deadline)
{
	char log[ENDPOINT_PATH_MAX + 8], name[16] = "";
	_cleanup_close_ int notify = -1, pidfd = -1;
	int r;

	snprintf(log, sizeof(log), "%s", path);
	strcpy(strrchr(log, '/') + 1, "proxyd.log");

	notify = notify_socket(name);
	if (notify >= 0)
		setenv("NOTIFY_SOCKET", name, 1);
	else
		unsetenv("NOTIFY_SOCKET");
	r = spawn(&pidfd, binary, path, log);
	if (r) {
		note("cannot start %s: %s", binary, strerror(-r));
		return r;
	}
	r = wait_ready(path, pidfd, notify, deadline);
	if (r == -ECHILD)
		note("the daemon ended at once; see %s", log);
	else if (r)
		note("the daemon does not answer after %d ms; see %s", START_MS, log);
	else
		note("started %s for this user", binary);
	/* servers started by root drop to users of their own, and their workers must reach it */
	if (!r && geteuid() == 0)
		(void)chmod(path, 0666);
	return r;
}

/* one wsdrun starts, the others see it answer */
static int start_once(const char *binary, const char *path)
{
	char lock[ENDPOINT_PATH_MAX + 8], *saved = getenv("NOTIFY_SOCKET");
	_cleanup_free_ char *notify = saved ? strdup(saved) : NULL;
	int64_t deadline = now_ms() + START_MS;
	struct timespec pause = { 0, 5000000 };
	_cleanup_close_ int fd = -1;
	int r;

	snprintf(lock, sizeof(lock), "%s", path);
	strcpy(strrchr(lock, '/') + 1, "proxyd.start");
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (endpoint_answers(path))
			return 0;
		if (now_ms() >= deadline)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	if (endpoint_answers(path))	/* whoever had the lock has started it */
		return 0;

	r = start(binary, path, deadline);
	if (notify)			/* CMD may be a service that must report to its own manager */
		setenv("NOTIFY_SOCKET", notify, 1);
	else
		unsetenv("NOTIFY_SOCKET");
	return r;
}

static int ensure_at(const char *path, const char *binary)
{
	char dir[ENDPOINT_PATH_MAX];
	uid_t uid;
	int r, fd;

	r = endpoint_connect(&fd, path, &uid);
	if (r == 0) {
		close(fd);
		return 0;
	}
	if (r == ENDPOINT_E_BUSY)
		return 0;
	if (r != ENDPOINT_E_NOBODY || !*binary)
		return r;

	strcpy(dir, path);
	if (!strrchr(dir, '/'))
		return -EINVAL;
	*strrchr(dir, '/') = 0;
	r = endpoint_check_dir(*dir ? dir : "/");
	if (r)
		return r;
	return start_once(binary, path);
}

int daemon_ensure(char path[static ENDPOINT_PATH_MAX], const char *wanted, const char *binary)
{
	char dir[ENDPOINT_PATH_MAX];
	int r = ENDPOINT_E_NOBODY;

	path[0] = 0;
	if (wanted) {
		if (strlen(wanted) >= ENDPOINT_PATH_MAX)
			return ENDPOINT_E_LONG;
		strcpy(path, wanted);
		return ensure_at(path, binary);
	}

	if (endpoint_answers(WSD_PROXYD_SYSTEM_PATH)) {
		strcpy(path, WSD_PROXYD_SYSTEM_PATH);
		return 0;
	}
	for (unsigned n = 0; endpoint_private_dir(dir, n); n++) {
		if (!dir[0] || strlen(dir) + sizeof("/proxyd.sock") > ENDPOINT_PATH_MAX)
			continue;
		r = endpoint_make_dir(dir);
		if (r) {
			note("%s: %s", dir, endpoint_strerror(r));
			continue;
		}
		sprintf(path, "%s/proxyd.sock", dir);
		return ensure_at(path, binary);
	}
	return r;
}
