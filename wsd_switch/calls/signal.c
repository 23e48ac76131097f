/* SPDX-License-Identifier: MIT */
/* signal.c - sigaction and its older relatives, masks, and waits for signals, without SIGSEGV and SIGBUS (G26, G28; core/sig.h) */
#include <string.h>

#include "wsd_switch/core/sig.h"

#define SIG_INTERRUPT_FLAG 0x20000000	/* SA_INTERRUPT */

typedef void (*handler_fn)(int);

/* in libc but not in its headers */
int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);
handler_fn bsd_signal(int sig, handler_fn h);
handler_fn ssignal(int sig, handler_fn h);
handler_fn sysv_signal(int sig, handler_fn h);
handler_fn __sysv_signal(int sig, handler_fn h);
int __sigsuspend(const sigset_t *set);
int __sigpause(int sig_or_mask, int is_sig);
int __xpg_sigpause(int sig);
int bsd_sigpause(int mask) __asm__("sigpause");	/* libc's header means the other one by that name */
int sigblock(int mask);
int sigsetmask(int mask);
int siggetmask(void);

static _Atomic uint64_t interrupts;	/* siginterrupt(): signal() installs these without SA_RESTART */

static bool valid(int sig, handler_fn h)
{
	if (h != SIG_ERR && sig >= 1 && sig <= 64 && sig != 32 && sig != 33)
		return true;
	errno = EINVAL;
	return false;
}

WSD_EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	real_ready();
	return sig_set(sig, act, old);
}

WSD_EXPORT int __sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return sigaction(sig, act, old);
}

static handler_fn set_simple(int sig, handler_fn h, int flags, bool self)
{
	struct sigaction a = { .sa_handler = h, .sa_flags = flags }, old;

	if (!valid(sig, h))
		return SIG_ERR;
	sigemptyset(&a.sa_mask);
	if (self)
		sigaddset(&a.sa_mask, sig);
	return sigaction(sig, &a, &old) < 0 ? SIG_ERR : old.sa_handler;
}

WSD_EXPORT handler_fn signal(int sig, handler_fn h)
{
	bool intr = sig >= 1 && sig <= 64 && (atomic_load(&interrupts) & (1ull << (sig - 1)));

	return set_simple(sig, h, intr ? 0 : SA_RESTART, true);
}

WSD_EXPORT handler_fn bsd_signal(int sig, handler_fn h)
{
	return signal(sig, h);
}

WSD_EXPORT handler_fn ssignal(int sig, handler_fn h)
{
	return signal(sig, h);
}

WSD_EXPORT handler_fn __sysv_signal(int sig, handler_fn h)
{
	return set_simple(sig, h, (int)SA_RESETHAND | SA_NODEFER | SIG_INTERRUPT_FLAG, false);
}

WSD_EXPORT handler_fn sysv_signal(int sig, handler_fn h)
{
	return __sysv_signal(sig, h);
}

WSD_EXPORT int siginterrupt(int sig, int flag)
{
	struct sigaction a;

	if (sigaction(sig, NULL, &a) < 0)
		return -1;
	if (flag) {
		atomic_fetch_or(&interrupts, 1ull << (sig - 1));
		a.sa_flags &= ~SA_RESTART;
	} else {
		atomic_fetch_and(&interrupts, ~(1ull << (sig - 1)));
		a.sa_flags |= SA_RESTART;
	}
	return sigaction(sig, &a, NULL);
}

WSD_EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	real_ready();
	return sig_mask(how, set, old);
}

WSD_EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int r;

	real_ready();
	r = sig_mask(how, set, old);
	if (!r)
		return 0;
	errno = r;
	return -1;
}

WSD_EXPORT handler_fn sigset(int sig, handler_fn h)
{
	struct sigaction a = { .sa_handler = h }, old;
	sigset_t set, was;

	sigemptyset(&set);
	if (sigaddset(&set, sig) < 0)
		return SIG_ERR;
	if (h == SIG_HOLD) {
		if (sigprocmask(SIG_BLOCK, &set, &was) < 0)
			return SIG_ERR;
		if (sigismember(&was, sig))
			return SIG_HOLD;
		return sigaction(sig, NULL, &old) < 0 ? SIG_ERR : old.sa_handler;
	}
	if (sigaction(sig, &a, &old) < 0 || sigprocmask(SIG_UNBLOCK, &set, &was) < 0)
		return SIG_ERR;
	return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
}

WSD_EXPORT int sigignore(int sig)
{
	struct sigaction a = { .sa_handler = SIG_IGN };

	return sigaction(sig, &a, NULL);
}

WSD_EXPORT int sighold(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	return sigaddset(&set, sig) < 0 ? -1 : sigprocmask(SIG_BLOCK, &set, NULL);
}

WSD_EXPORT int sigrelse(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	return sigaddset(&set, sig) < 0 ? -1 : sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- waiting ---- */

WSD_EXPORT int sigsuspend(const sigset_t *set)
{
	real_ready();
	return sig_suspend(set);
}

WSD_EXPORT int __sigsuspend(const sigset_t *set)
{
	return sigsuspend(set);
}

/* the BSD calls have masks of 32 signals */
static void from_bsd(int mask, sigset_t *ret)
{
	uint32_t bits = (uint32_t)mask;

	sigemptyset(ret);
	memcpy(ret, &bits, sizeof(bits));
}

static int to_bsd(const sigset_t *set)
{
	uint32_t bits;

	memcpy(&bits, set, sizeof(bits));
	return (int)bits;
}

WSD_EXPORT int __xpg_sigpause(int sig)
{
	sigset_t set;

	if (sigprocmask(SIG_BLOCK, NULL, &set) < 0 || sigdelset(&set, sig) < 0)
		return -1;
	return sigsuspend(&set);
}

WSD_EXPORT int bsd_sigpause(int mask)
{
	sigset_t set;

	from_bsd(mask, &set);
	return sigsuspend(&set);
}

WSD_EXPORT int __sigpause(int sig_or_mask, int is_sig)
{
	return is_sig ? __xpg_sigpause(sig_or_mask) : bsd_sigpause(sig_or_mask);
}

static int bsd_mask(int how, const int *mask)
{
	sigset_t set, old;

	if (mask)
		from_bsd(*mask, &set);
	return sigprocmask(how, mask ? &set : NULL, &old) < 0 ? -1 : to_bsd(&old);
}

WSD_EXPORT int sigblock(int mask)
{
	return bsd_mask(SIG_BLOCK, &mask);
}

WSD_EXPORT int sigsetmask(int mask)
{
	return bsd_mask(SIG_SETMASK, &mask);
}

WSD_EXPORT int siggetmask(void)
{
	return bsd_mask(SIG_BLOCK, NULL);
}

WSD_EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *si, const struct timespec *to)
{
	real_ready();
	return sig_timedwait(set, si, to);
}

WSD_EXPORT int sigwaitinfo(const sigset_t *set, siginfo_t *si)
{
	return sigtimedwait(set, si, NULL);
}

/* goes on after a handler, where the others say EINTR */
WSD_EXPORT int sigwait(const sigset_t *set, int *sig)
{
	int r, e = errno;

	do
		r = sigtimedwait(set, NULL, NULL);
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		r = errno;
		errno = e;
		return r;
	}
	errno = e;
	*sig = r;
	return 0;
}

WSD_EXPORT int sigpending(sigset_t *set)
{
	real_ready();
	return sig_pending(set);
}
