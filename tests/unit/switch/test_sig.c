/* SPDX-License-Identifier: MIT */
/* G26: wrapped handlers; every query answers what the program set */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "wsd_switch/core/sig.h"

static void begin(void)
{
	real_ready();
	thr_get();
}

TestSuite(sig, .init = begin, .timeout = 30);

static volatile int calls, depth, any, intr;
static void *volatile handler_seen;

static void on_plain(int sig)
{
	calls++;
	depth = (int)thr_self->in_handler;
	any = (int)thr_self->sig_any;
	intr = (int)thr_self->sig_eintr;
	errno = 77;
}

static void on_info(int sig, siginfo_t *si, void *uc)
{
	struct sigaction a;

	on_plain(sig);
	sig_set(sig, NULL, &a);
	handler_seen = (void *)a.sa_sigaction;
	errno = si->si_value.sival_int;
}

static void query_is(int sig, void *h, int flags)
{
	struct sigaction a;

	cr_assert_eq(sig_set(sig, NULL, &a), 0);
	cr_assert_eq((void *)a.sa_sigaction, h, "signal %d", sig);
	cr_assert_eq(a.sa_flags & ~0x04000000, flags, "signal %d: flags %x, not %x", sig, a.sa_flags, flags);
}

Test(sig, the_thread_learns_that_a_handler_ran)
{
	struct sigaction a = { .sa_handler = on_plain };

	sig_set(SIGUSR1, &a, NULL);
	errno = 0;
	raise(SIGUSR1);
	cr_assert_eq(calls, 1);
	cr_assert_eq(errno, 77, "errno is the handler's");
	cr_assert_eq(depth, 1);
	cr_assert(any && intr);
	cr_assert_eq(thr_self->in_handler, 0);
	sig_call_begin(thr_self);
	cr_assert_eq(thr_self->sig_any, 0);
	a.sa_flags = SA_RESTART;
	sig_set(SIGUSR1, &a, NULL);
	raise(SIGUSR1);
	cr_assert(any && !intr, "SA_RESTART does not interrupt");
}

Test(sig, every_flag_comes_back_as_set)
{
	static const int f[] = { 0, SA_RESTART, SA_NODEFER, SA_ONSTACK, SA_NOCLDSTOP, (int)SA_RESETHAND, SA_SIGINFO,
				 SA_SIGINFO | SA_RESTART, SA_SIGINFO | (int)SA_RESETHAND | SA_NODEFER };
	int sig, i, took;

	for (took = 0; took < 2; took++) {
		for (sig = 1; sig <= 64; sig++) {
			if (sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33)
				continue;
			for (i = 0; i < (int)(sizeof(f) / sizeof(*f)); i++) {
				struct sigaction a = { .sa_flags = f[i] }, b;

				if (f[i] & SA_SIGINFO)
					a.sa_sigaction = on_info;
				else
					a.sa_handler = on_plain;
				sigfillset(&a.sa_mask);
				cr_assert_eq(sig_set(sig, &a, NULL), 0);
				query_is(sig, (void *)a.sa_handler, f[i]);
				sig_set(sig, NULL, &b);
				cr_assert_eq(sigismember(&b.sa_mask, SIGSEGV), 1);
				cr_assert_eq(sigismember(&b.sa_mask, SIGUSR2), 1);
				cr_assert_eq(sigismember(&b.sa_mask, SIGKILL), 0);
				a.sa_handler = i & 1 ? SIG_IGN : SIG_DFL;
				a.sa_flags = 0;
				cr_assert_eq(sig_set(sig, &a, &b), 0);
				cr_assert_eq(b.sa_flags & ~0x04000000, f[i], "old action");
				query_is(sig, (void *)a.sa_handler, 0);
			}
		}
		fault_install();
	}
}

Test(sig, the_kernel_sees_default_and_ignore_unwrapped)
{
	struct sigaction a = { .sa_handler = SIG_IGN }, k;

	sig_set(SIGPIPE, &a, NULL);
	real.sigaction(SIGPIPE, NULL, &k);
	cr_assert_eq(k.sa_handler, SIG_IGN);
	a.sa_handler = on_plain;
	sig_set(SIGPIPE, &a, NULL);
	real.sigaction(SIGPIPE, NULL, &k);
	cr_assert_neq(k.sa_handler, on_plain, "wrapped");
	a.sa_handler = SIG_DFL;
	sig_set(SIGPIPE, &a, NULL);
	real.sigaction(SIGPIPE, NULL, &k);
	cr_assert_eq(k.sa_handler, SIG_DFL);
}

Test(sig, dispositions_from_before_us_are_shown)
{
	struct sigaction a = { .sa_handler = on_plain, .sa_flags = SA_RESTART }, b;

	real.sigaction(SIGUSR2, &a, NULL);
	query_is(SIGUSR2, (void *)on_plain, SA_RESTART);
	real.sigaction(SIGSEGV, &a, NULL);
	fault_install();
	query_is(SIGSEGV, (void *)on_plain, SA_RESTART);
	raise(SIGSEGV);
	cr_assert_eq(calls, 1);
	a.sa_handler = SIG_IGN;
	sig_set(SIGUSR2, &a, &b);
	cr_assert_eq(b.sa_handler, on_plain);
}

Test(sig, one_shot_is_default_inside_and_after)
{
	struct sigaction a = { .sa_flags = SA_SIGINFO | (int)SA_RESETHAND };

	a.sa_sigaction = on_info;
	sig_set(SIGUSR1, &a, NULL);
	handler_seen = (void *)1;
	raise(SIGUSR1);
	cr_assert_eq(calls, 1);
	cr_assert_eq(handler_seen, (void *)SIG_DFL);
	query_is(SIGUSR1, (void *)SIG_DFL, SA_SIGINFO | (int)SA_RESETHAND);
	a.sa_handler = on_plain;
	a.sa_flags = (int)SA_RESETHAND;
	sig_set(SIGUSR1, &a, NULL);
	raise(SIGUSR1);
	query_is(SIGUSR1, (void *)SIG_DFL, (int)SA_RESETHAND);
}

Test(sig, siginfo_and_values_arrive)
{
	struct sigaction a = { .sa_flags = SA_SIGINFO };
	union sigval v = { .sival_int = 4711 };

	a.sa_sigaction = on_info;
	sig_set(SIGRTMIN + 1, &a, NULL);
	sigqueue(getpid(), SIGRTMIN + 1, v);
	cr_assert_eq(errno, 4711);
}

Test(sig, what_libc_refuses_is_refused)
{
	struct sigaction a = { .sa_handler = on_plain };
	static const int bad[] = { 0, -1, 65, SIGKILL, SIGSTOP, 32, 33 };
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		errno = 0;
		cr_assert_eq(sig_set(bad[i], &a, NULL), -1);
		cr_assert_eq(errno, EINVAL);
	}
	cr_assert_eq(sig_mask(99, &a.sa_mask, NULL), EINVAL);
}

Test(sig, a_frozen_process_gets_its_handlers_unwrapped)
{
	struct sigaction a = { .sa_handler = on_plain }, b, k;

	sig_set(SIGUSR1, &a, NULL);
	atomic_store(&proc_frozen, 1);
	sig_set(SIGUSR1, &a, &b);
	cr_assert_eq(b.sa_handler, on_plain);
	real.sigaction(SIGUSR1, NULL, &k);
	cr_assert_eq(k.sa_handler, on_plain);
}

/* two threads set different handlers, flags and masks all the time; every answer is one of them, whole */
static volatile bool stop;
static volatile int torn;

static void other(int sig)
{
	calls++;
}

static void *setter(void *arg)
{
	struct sigaction a = { 0 }, b;
	bool first = arg != NULL;

	a.sa_handler = first ? on_plain : other;
	a.sa_flags = first ? SA_RESTART : SA_NODEFER;
	thr_self = NULL;
	while (!stop) {
		sig_set(SIGUSR1, &a, &b);
		if (!((b.sa_handler == on_plain && (b.sa_flags & SA_RESTART)) ||
		      (b.sa_handler == other && (b.sa_flags & SA_NODEFER))))
			torn++;
	}
	return NULL;
}

Test(sig, two_setters_never_make_a_third_disposition)
{
	struct sigaction a = { .sa_handler = on_plain, .sa_flags = SA_RESTART };
	pthread_t t[2];
	int i;

	sig_set(SIGUSR1, &a, NULL);
	pthread_create(&t[0], NULL, setter, NULL);
	pthread_create(&t[1], NULL, setter, (void *)1);
	for (i = 0; i < 20000; i++)
		raise(SIGUSR1);
	stop = true;
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	cr_assert_eq(torn, 0);
	cr_assert_geq(calls, 20000 - 1);
}

static _Atomic int in_lock_calls;

/* a handler that sets its own signal's action again, while the interrupted thread does the same */
static void setting(int sig)
{
	struct sigaction a = { .sa_handler = setting, .sa_flags = SA_RESTART };

	in_lock_calls++;
	sig_set(sig, &a, NULL);
}

static void *sender(void *arg)
{
	pthread_t to = *(pthread_t *)arg;

	thr_self = NULL;
	while (!stop)
		pthread_kill(to, SIGUSR2);
	return NULL;
}

Test(sig, a_handler_that_interrupts_sigaction_never_waits_for_it)
{
	struct sigaction a = { .sa_handler = setting, .sa_flags = SA_RESTART }, b;
	pthread_t t, me = pthread_self();

	sig_set(SIGUSR2, &a, NULL);
	pthread_create(&t, NULL, sender, &me);
	while (in_lock_calls < 2000) {
		sig_set(SIGUSR2, &a, &b);
		cr_assert_eq(b.sa_handler, setting);
	}
	stop = true;
	pthread_join(t, NULL);
}
