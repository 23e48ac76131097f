/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/child.h"
#include "tools/bench/role.h"

#define HUNG_UP_MS	500	/* who closed its words without an end may be about to exit */

/* the first cause stays: what follows from it says less */
static __attribute__((format(printf, 2, 3))) void tell(struct child *k, const char *fmt, ...)
{
	va_list ap;

	if (k->why[0])
		return;
	va_start(ap, fmt);
	vsnprintf(k->why, sizeof(k->why), fmt, ap);
	va_end(ap);
}

struct place { char text[80]; };

static void first_word(char *ret, size_t size, pid_t pid, const char *file)
{
	char path[48];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	if (f && !fgets(ret, (int)size, f))
		*ret = 0;
	if (f)
		fclose(f);
}

/* " (D in FUNCTION)", where the kernel has it; empty for another host's. Neither file waits for the process. */
static struct place place_of(pid_t pid)
{
	char stat[256] = "", wchan[48] = "", *state;
	struct place p = { "" };

	if (pid <= 0)
		return p;
	first_word(stat, sizeof(stat), pid, "stat");
	first_word(wchan, sizeof(wchan), pid, "wchan");
	state = strrchr(stat, ')');
	if (!state || !state[1])
		return p;
	if (wchan[0] && strcmp(wchan, "0"))
		snprintf(p.text, sizeof(p.text), " (%c in %.40s)", state[2], wchan);
	else
		snprintf(p.text, sizeof(p.text), " (state %c)", state[2]);
	return p;
}

static void take_word(struct child *k, struct result *res, const char *line)
{
	char key[32];
	double v;

	if (sscanf(line, "ready %ld %ld", &k->port, &k->role_pid) == 2) {
		k->ready = true;
	} else if (sscanf(line, "m %31s %lf", key, &v) == 2) {
		for (unsigned i = 0; i < _M_N; i++)
			if (!strcmp(key, metric_info[i].key))
				res->m[i] = v;
	} else if (!strcmp(line, "end")) {
		k->ended = true;
	} else if (sscanf(line, "share %llu %llu %llu %llu", &k->share.ring, &k->share.tcp, &k->share.conns, &k->share.accel) == 4) {
		;
	} else if (!strncmp(line, "step ", 5)) {
		snprintf(k->step, sizeof(k->step), "%s", line + 5);
	} else if (!strncmp(line, "fail ", 5)) {
		tell(k, "%s", line + 5);
	}
}

/* false: no more will come */
static bool take_words(struct child *k, struct result *res)
{
	ssize_t n = read(k->out, k->buf + k->n, sizeof(k->buf) - 1 - k->n);
	char *nl;

	if (n < 0)
		return errno == EINTR;
	if (!n)
		return false;
	k->n += n;
	k->buf[k->n] = 0;
	while ((nl = strchr(k->buf, '\n'))) {
		*nl = 0;
		take_word(k, res, k->buf);
		k->n -= nl + 1 - k->buf;
		memmove(k->buf, nl + 1, k->n + 1);
	}
	return k->n < sizeof(k->buf) - 1;	/* a line without end: not one of ours */
}

static void stands_still(struct child *k)
{
	if (k->out < 0)
		return;
	if (k->ended)
		tell(k, "ended, but somebody keeps its words open%s", place_of(k->pid).text);
	else
		tell(k, "stood still: %s%s", k->step[0] ? k->step : "no word from it", place_of(k->pid).text);
}

int child_listen(struct child *k, unsigned n, bool ready, int64_t deadline, struct result *res)
{
	for (;;) {
		struct pollfd p[2];
		unsigned open = 0;
		int64_t left = (deadline - now_ns()) / 1000000;

		for (unsigned i = 0; i < n; i++) {
			p[i] = (struct pollfd){ .fd = k[i].out, .events = POLLIN };
			open += k[i].out >= 0;
		}
		if (!open)
			return 0;
		if (run_stopped())
			return RUN_E_STOP;
		if (left <= 0) {
			for (unsigned i = 0; i < n; i++)
				stands_still(&k[i]);
			return RUN_E_STILL;
		}
		if (poll(p, n, (int)left) <= 0)
			continue;
		for (unsigned i = 0; i < n; i++) {
			if (k[i].out < 0 || !p[i].revents || take_words(&k[i], res))
				continue;
			close(k[i].out);
			k[i].out = -1;
			if (!k[i].ended)	/* the other would wait for it in vain */
				return RUN_E_FAILED;
		}
		if (ready && k[0].ready)
			return 0;
	}
}

pid_t child_wait(pid_t pid, int *ret_status, unsigned ms)
{
	struct timespec tick = { 0, 1000000 };
	int64_t end = now_ns() + ms * 1000000ll;
	pid_t r;

	while (!(r = waitpid(pid, ret_status, WNOHANG)) && now_ns() < end)
		nanosleep(&tick, NULL);
	return r;
}

int child_end(struct child *k, unsigned exit_ms)
{
	bool hung_up = k->out < 0 && !k->ended, judged = exit_ms || hung_up;
	pid_t pid = k->pid, gone;
	int status = 0;

	if (k->out >= 0)
		close(k->out);
	k->out = -1;
	k->pid = 0;
	if (pid <= 0) {
		if (k->remote && hung_up)
			tell(k, "hung up without a result");
		return judged && k->why[0] ? RUN_E_FAILED : 0;
	}
	gone = child_wait(pid, &status, exit_ms ? exit_ms : hung_up ? HUNG_UP_MS : 0);
	if (!gone && judged)
		tell(k, "%s%s", hung_up ? "closed its words without a result and lives on" : "does not exit after its end", place_of(pid).text);
	(void)kill(-pid, SIGKILL);	/* and whatever it started in its group */
	if (!gone) {
		(void)kill(pid, SIGKILL);
		if (!child_wait(pid, &status, EXIT_MS)) {
			snprintf(k->why, sizeof(k->why), "%s: does not die%s", k->step[0] ? k->step : "no word from it", place_of(pid).text);
			return RUN_E_STILL;
		}
		return judged ? RUN_E_STILL : 0;
	}
	if (!judged)
		return 0;
	if (gone < 0)
		tell(k, "cannot be waited for");
	else if (WIFSIGNALED(status))
		tell(k, "signal %d%s", WTERMSIG(status), hung_up ? ", without a result" : "");
	else if (WEXITSTATUS(status) || hung_up)
		tell(k, "status %d%s", WEXITSTATUS(status), hung_up ? ", without a result" : "");
	else
		return 0;
	return RUN_E_FAILED;
}
