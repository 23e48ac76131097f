/* SPDX-License-Identifier: MIT */
/* wsd-bench: whatever a role's process does, a run with it ends in bounded time and says what stood still */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/child.h"
#include "tools/bench/role.h"

static bool stop;

bool run_stopped(void)
{
	return stop;
}

static void hear(int out, const char *line)
{
	cr_assert_eq(write(out, line, strlen(line)), (ssize_t)strlen(line));
}

/* a process that does @what with the descriptor of its words; at the latest it ends with the test */
static struct child child(void (*what)(int out))
{
	struct child k = { .out = -1 };
	int p[2];

	cr_assert_eq(pipe(p), 0);
	k.pid = fork();
	cr_assert_geq(k.pid, 0);
	if (!k.pid) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)setpgid(0, 0);
		close(p[0]);
		what(p[1]);
		_exit(0);
	}
	(void)setpgid(k.pid, k.pid);
	close(p[1]);
	k.out = p[0];
	return k;
}

static int64_t in_ms(long ms)
{
	return now_ns() + ms * 1000000ll;
}

/* what a run does with one end; @why of it */
static int run_of(struct child *k, long ms, unsigned exit_ms)
{
	struct result res;
	int64_t begin = now_ns();
	pid_t pid = k->pid;
	int r = child_listen(k, 1, false, in_ms(ms), &res), x = child_end(k, r ? 0 : exit_ms);

	cr_assert_lt(now_ns() - begin, 20000000000ll);
	cr_assert(kill(pid, 0) && errno == ESRCH, "the process is left");
	cr_assert_eq(k->out, -1);
	return r ? r : x;
}

static void never_ends(int out)
{
	hear(out, "step looking at the sky\n");
	for (;;)
		pause();
}

Test(child, one_that_never_ends_is_named_with_its_step)
{
	struct child k = child(never_ends);

	cr_assert_eq(run_of(&k, 300, 100), RUN_E_STILL);
	cr_assert_not_null(strstr(k.why, "stood still: looking at the sky ("), "%s", k.why);
}

static void says_nothing(int out)
{
	(void)out;
	for (;;)
		pause();
}

Test(child, one_that_is_never_ready_as_well)
{
	struct child k[2] = { child(says_nothing), { .out = -1, .ended = true } };
	struct result res;

	cr_assert_eq(child_listen(k, 1, true, in_ms(100), &res), RUN_E_STILL);
	cr_assert_not_null(strstr(k[0].why, "stood still"), "%s", k[0].why);
	cr_assert_eq(child_end(&k[0], 0), 0);
	cr_assert_eq(child_end(&k[1], 0), 0, "the other was never started");
}

static void floods(int out)
{
	for (;;)
		hear(out, "m rate 1\n");
}

Test(child, words_without_end_have_a_deadline)
{
	struct child k = child(floods);

	cr_assert_eq(run_of(&k, 300, 100), RUN_E_STILL);
}

static void closes(int out)
{
	close(out);
	for (;;)
		pause();
}

Test(child, one_that_closes_its_words_and_lives_on)
{
	struct child k = child(closes);

	cr_assert_eq(run_of(&k, 20000, 100), RUN_E_FAILED);
	cr_assert_not_null(strstr(k.why, "without a result and lives on"), "%s", k.why);
}

static void ends_and_closes(int out)
{
	hear(out, "end\n");
	closes(out);
}

Test(child, one_that_ends_and_lives_on)
{
	struct child k = child(ends_and_closes);

	cr_assert_eq(run_of(&k, 20000, 100), RUN_E_STILL);
	cr_assert_not_null(strstr(k.why, "does not exit after its end"), "%s", k.why);
}

static int grandchild[2];

/* its child and itself take no signal that can be refused; the child is seen by what it holds open */
static void ignores_all(int out)
{
	for (int i = 1; i < SIGRTMIN; i++)
		signal(i, SIG_IGN);
	if (!fork()) {
		signal(SIGALRM, SIG_DFL);
		alarm(60);
		for (;;)
			pause();
	}
	never_ends(out);
}

Test(child, one_that_ignores_signals_ends_with_all_it_started)
{
	struct child k;
	char c;

	cr_assert_eq(pipe(grandchild), 0);
	k = child(ignores_all);
	close(grandchild[1]);
	cr_assert_eq(run_of(&k, 300, 100), RUN_E_STILL);
	alarm(10);
	cr_assert_eq(read(grandchild[0], &c, 1), 0, "nobody has its other end any more");
}

/* who is not in the group that ends with a child ends when the test hangs up, or is over */
static int hold[2];

static _Noreturn void be_held(void)
{
	char c;

	(void)setsid();
	close(hold[1]);
	(void)!read(hold[0], &c, 1);
	_exit(0);
}

static void leaves_words_open(int out)
{
	hear(out, "end\n");
	if (!fork())
		be_held();
}

Test(child, words_that_somebody_else_keeps_open)
{
	struct child k;

	cr_assert_eq(pipe(hold), 0);
	k = child(leaves_words_open);
	cr_assert_eq(run_of(&k, 500, 5000), RUN_E_STILL);
	cr_assert_not_null(strstr(k.why, "keeps its words open"), "%s", k.why);
	close(hold[1]);
}

static void exits_3(int out)
{
	(void)out;
	_exit(3);
}

static void fails(int out)
{
	hear(out, "fail main: the first\nfail main: the second\n");
	_exit(1);
}

static void ends(int out)
{
	hear(out, "ready 5 6\nm rate 7\nend\n");
}

Test(child, one_that_ends_says_how)
{
	struct child k = child(exits_3);

	cr_assert_eq(run_of(&k, 20000, 5000), RUN_E_FAILED);
	cr_assert_str_eq(k.why, "status 3, without a result");
	k = child(fails);
	cr_assert_eq(run_of(&k, 20000, 5000), RUN_E_FAILED);
	cr_assert_str_eq(k.why, "main: the first");
	k = child(ends);
	cr_assert_eq(run_of(&k, 20000, 5000), 0);
	cr_assert_str_eq(k.why, "");
	cr_assert(k.ready && k.port == 5 && k.role_pid == 6);
}

Test(child, nobody_waits_once_the_user_stops)
{
	struct child k = child(never_ends);

	stop = true;
	cr_assert_eq(run_of(&k, 20000, 5000), RUN_E_STOP);
}

/*
 * One that SIGKILL does not end, as it is with a process that sleeps in a driver: a tracer that does not take its end.
 * The tracer is its child, out of its group.
 */
static int held[2];

static void is_held(int out)
{
	(void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	if (!fork()) {
		char c = ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) ? 'n' : 'y';

		(void)!write(held[1], &c, 1);
		be_held();
	}
	close(hold[1]);
	never_ends(out);
}

Test(child, one_that_does_not_die_is_left_behind)
{
	struct result res;
	struct child k;
	int64_t begin;
	pid_t pid;
	char c;

	cr_assert(!pipe(hold) && !pipe(held));
	k = child(is_held);
	alarm(40);
	cr_assert_eq(read(held[0], &c, 1), 1);
	if (c != 'y')
		cr_skip("no ptrace here");
	pid = k.pid;
	begin = now_ns();
	cr_assert_eq(child_listen(&k, 1, false, in_ms(300), &res), RUN_E_STILL);
	cr_assert_eq(child_end(&k, 0), RUN_E_STILL);
	cr_assert_lt(now_ns() - begin, 20000000000ll);
	cr_assert_not_null(strstr(k.why, "looking at the sky: does not die"), "%s", k.why);
	close(hold[1]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}
