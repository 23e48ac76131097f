/* SPDX-License-Identifier: MIT */
/* G28: copies that survive bad pointers, and faults that are the program's */
#include <criterion/criterion.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "wsd_switch/core/sig.h"

#define PAGE 4096u

static void begin(void)
{
	real_ready();
	thr_get();
	fault_install();
}

TestSuite(fault, .init = begin, .timeout = 20);

/* two pages, the second one not there */
static char *half(void)
{
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	munmap(p + PAGE, PAGE);
	return p;
}

Test(fault, every_size_is_copied_exactly)
{
	static char src[20000], dst[20064], want[20064];
	size_t n, a, b, i;

	for (i = 0; i < sizeof(src); i++)
		src[i] = (char)(i * 7 + i / 251);
	for (n = 0; n < 9000; n += n < 700 ? 1 : 97) {
		for (a = 0; a < 3; a++) {
			b = (a * 5 + n) % 17;
			memset(dst, 0x5a, n + 64);
			memset(want, 0x5a, n + 64);
			memcpy(want + 16 + b, src + a, n);
			cr_assert(fault_copy(dst + 16 + b, src + a, n));
			cr_assert_eq(memcmp(dst, want, n + 64), 0, "n %zu from %zu to %zu", n, a, b);
		}
	}
}

Test(fault, unmapped_source_and_destination_are_an_answer)
{
	static char buf[2 * PAGE];
	char *p = half();
	size_t n, k;

	for (n = 1; n <= PAGE; n += n < 300 ? 1 : 61) {
		k = n < 7 ? 1 : n / 3;
		cr_assert(fault_copy(buf, p + PAGE - n, n), "up to the end, %zu", n);
		cr_assert(fault_copy(p + PAGE - n, buf, n));
		cr_assert_not(fault_copy(buf, p + PAGE - n + k, n), "source, %zu", n);
		cr_assert_not(fault_copy(p + PAGE - n + k, buf, n), "destination, %zu", n);
	}
	cr_assert_not(fault_copy(buf, NULL, 8));
	cr_assert_not(fault_copy(buf, (void *)0xdead000000000000ull, 8), "not canonical");
	cr_assert(fault_copy((void *)0xdead000000000000ull, buf, 0));
}

Test(fault, read_only_destination_is_an_answer)
{
	static char buf[PAGE];
	char *p = half();

	mprotect(p, PAGE, PROT_READ);
	cr_assert_not(fault_copy(p, buf, 100));
	cr_assert(fault_copy(buf, p, 100));
}

Test(fault, truncated_mapping_is_an_answer)
{
	static char buf[2 * PAGE];
	int fd = memfd_create("t", 0);
	char *p;

	cr_assert_eq(ftruncate(fd, 2 * PAGE), 0);
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert(fault_copy(buf, p, 2 * PAGE));
	cr_assert_eq(ftruncate(fd, PAGE), 0);
	cr_assert_not(fault_copy(buf, p, 2 * PAGE));
	cr_assert_not(fault_copy(buf, p + PAGE, 1));
	cr_assert(fault_copy(buf, p, PAGE));
}

static sigjmp_buf env;
static volatile int calls, last_sig, last_code;
static void *volatile last_addr;
static volatile bool onstack;
static sigset_t in_mask;
static char alt[64 << 10];

static void on_info(int sig, siginfo_t *si, void *uc)
{
	char here;

	calls++;
	last_sig = sig;
	last_code = si->si_code;
	last_addr = si->si_addr;
	onstack = &here >= alt && &here < alt + sizeof(alt);
	pthread_sigmask(SIG_BLOCK, NULL, &in_mask);
	if (si->si_code > 0)
		siglongjmp(env, 1);
}

static void on_plain(int sig)
{
	calls++;
	last_sig = sig;
	siglongjmp(env, 1);
}

static void touch(char *p)
{
	*(volatile char *)p = 1;
}

static void set(int sig, void *h, int flags)
{
	struct sigaction a = { .sa_flags = flags };

	a.sa_handler = (void (*)(int))h;
	sigaddset(&a.sa_mask, SIGUSR1);
	cr_assert_eq(sig_set(sig, &a, NULL), 0);
}

Test(fault, the_programs_handler_gets_its_own_faults)
{
	static char buf[PAGE];
	char *p = half();

	set(SIGSEGV, on_info, SA_SIGINFO);
	if (!sigsetjmp(env, 1))
		touch(p + PAGE + 5);
	cr_assert_eq(calls, 1);
	cr_assert_eq(last_sig, SIGSEGV);
	cr_assert_eq(last_code, SEGV_MAPERR);
	cr_assert_eq(last_addr, p + PAGE + 5);
	cr_assert_eq(sigismember(&in_mask, SIGUSR1), 1, "sa_mask counts");
	cr_assert_eq(sigismember(&in_mask, SIGSEGV), 1, "and the signal itself");
	cr_assert_not(fault_copy(buf, p + PAGE, 1));
	cr_assert_eq(calls, 1, "a copy's fault is not the program's");
	set(SIGSEGV, on_plain, 0);
	if (!sigsetjmp(env, 1))
		touch(p + PAGE);
	cr_assert_eq(calls, 2);
}

Test(fault, nodefer_and_onstack_are_kept)
{
	stack_t st = { .ss_sp = alt, .ss_size = sizeof(alt) };
	char *p = half();

	sigaltstack(&st, NULL);
	set(SIGSEGV, on_info, SA_SIGINFO | SA_ONSTACK | SA_NODEFER);
	if (!sigsetjmp(env, 1))
		touch(p + PAGE);
	cr_assert(onstack);
	cr_assert_eq(sigismember(&in_mask, SIGSEGV), 0);
}

Test(fault, one_shot_shows_default_after_it_fired)
{
	struct sigaction a;
	char *p = half();
	int st;
	pid_t pid;

	set(SIGBUS, on_info, SA_SIGINFO | (int)SA_RESETHAND);
	sig_set(SIGBUS, NULL, &a);
	cr_assert_eq((void *)a.sa_sigaction, (void *)on_info);
	raise(SIGBUS);
	cr_assert_eq(calls, 1);
	sig_set(SIGBUS, NULL, &a);
	cr_assert_eq(a.sa_handler, SIG_DFL);
	cr_assert(a.sa_flags & SA_RESETHAND);
	pid = fork();
	if (pid == 0) {
		raise(SIGBUS);
		_exit(3);
	}
	waitpid(pid, &st, 0);
	cr_assert(WIFSIGNALED(st) && WTERMSIG(st) == SIGBUS);
	(void)p;
}

/* how a child ends that does f */
static int end_of(void (*f)(char *), char *arg)
{
	int st;
	pid_t pid = fork();

	if (pid == 0) {
		f(arg);
		_exit(7);
	}
	waitpid(pid, &st, 0);
	return WIFSIGNALED(st) ? WTERMSIG(st) : -WEXITSTATUS(st);
}

static void send_self(char *arg)
{
	kill(getpid(), (int)(intptr_t)arg);
}

static void ignore_then_touch(char *p)
{
	set(SIGSEGV, SIG_IGN, 0);
	touch(p);
}

static void ignore_then_send(char *arg)
{
	set(SIGSEGV, SIG_IGN, 0);
	raise(SIGSEGV);
}

static void block_then_touch(char *p)
{
	sigset_t s;

	sigfillset(&s);
	set(SIGSEGV, on_plain, 0);
	sig_mask(SIG_BLOCK, &s, NULL);
	if (!sigsetjmp(env, 1))
		touch(p);
}

static void touch_truncated(char *arg)
{
	int fd = memfd_create("t", 0);
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	touch(p);
}

Test(fault, without_a_handler_the_right_signal_kills)
{
	char *p = half() + PAGE;

	cr_assert_eq(end_of(touch, p), SIGSEGV);
	cr_assert_eq(end_of(touch_truncated, NULL), SIGBUS);
	cr_assert_eq(end_of(send_self, (char *)SIGSEGV), SIGSEGV);
	cr_assert_eq(end_of(send_self, (char *)SIGBUS), SIGBUS);
	cr_assert_eq(end_of(ignore_then_touch, p), SIGSEGV, "a fault cannot be ignored");
	cr_assert_eq(end_of(ignore_then_send, p), -7, "a kill() can");
	cr_assert_eq(end_of(block_then_touch, p), SIGSEGV, "a blocked fault kills past the handler");
}

Test(fault, copies_work_while_the_program_blocks_everything)
{
	static char buf[PAGE];
	sigset_t all, old;
	char *p = half();

	sigfillset(&all);
	cr_assert_eq(sig_mask(SIG_SETMASK, &all, NULL), 0);
	cr_assert_not(fault_copy(buf, p + PAGE, 1));
	cr_assert_eq(sig_mask(SIG_BLOCK, NULL, &old), 0);
	cr_assert_eq(sigismember(&old, SIGSEGV), 1, "shown as set");
	cr_assert_eq(sigismember(&old, SIGBUS), 1);
	set(SIGSEGV, on_info, SA_SIGINFO);
	raise(SIGSEGV);
	cr_assert_eq(calls, 0, "sent while blocked: waits");
	sigemptyset(&all);
	cr_assert_eq(sig_mask(SIG_SETMASK, &all, NULL), 0);
	cr_assert_eq(calls, 1, "and arrives");
	cr_assert_leq(last_code, 0);
}

Test(fault, a_mask_for_the_time_of_a_call_is_stripped)
{
	sigset_t all, out;
	const sigset_t *r;

	sigfillset(&all);
	r = sig_strip_mask(&all, &out);
	cr_assert_eq(r, &out);
	cr_assert_eq(sigismember(r, SIGSEGV), 0);
	cr_assert_eq(sigismember(r, SIGUSR2), 1);
	sigemptyset(&all);
	cr_assert_eq(sig_strip_mask(&all, &out), &all);
	cr_assert_null(sig_strip_mask(NULL, &out));
	cr_assert_eq(sig_strip_mask((sigset_t *)8, &out), (sigset_t *)8, "the kernel says EFAULT");
}
