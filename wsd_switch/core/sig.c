/* SPDX-License-Identifier: MIT */
/*
 * sig.c - wrapped handlers, virtual dispositions, masks without SIGSEGV and SIGBUS (sig.h)
 *
 * Each signal has two slots and each slot a wrapper function of its own. A new handler goes into the slot that the kernel does
 * not point to; one system call then changes wrapper, flags and mask together, so no delivery meets half of a change. Changes are
 * made under a lock a signal that is only tried: not got (a handler interrupted this very sigaction, or two threads at
 * once) means that the handler goes to the kernel unwrapped, which costs an EINTR race of nanoseconds and nothing else.
 * What a late delivery reads (a handler's address) is one word, so a torn slot cannot be seen by it.
 *
 * For SIGSEGV and SIGBUS after sig_take_over() the slots hold the virtual disposition; `cur` says which.
 *
 * A signal that comes while its thread holds the receive lock (sig_hold) is put off: the wrapper keeps its siginfo and returns
 * with everything blocked; sig_deliver() queues it to this thread again and takes the mask back, so that the kernel runs the
 * handler with its own flags, mask and stack, as if the signal had come a moment later. Signals that the processor or the
 * kernel raises for an instruction are never put off.
 */
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "wsd_switch/core/sig.h"

#define NSIGS		65
#define BIT(sig)	(1ull << ((sig) - 1))
#define STRIP		(BIT(SIGSEGV) | BIT(SIGBUS))
/* told by an instruction; and those that libc keeps for itself */
#define SYNCHRONOUS	(STRIP | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP) | BIT(SIGSYS))
#define LIBCS		(BIT(32) | BIT(33))
#define OFF_MAX		8	/* the kernel may stack several before the first instruction of a handler */
#define RESTORER	0x04000000
#define KNOWN_FLAGS	(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | \
			 (int)SA_RESETHAND | RESTORER)
#ifndef BUS_MCEERR_AO
#define BUS_MCEERR_AO 5
#endif

struct slot {
	_Atomic uintptr_t handler;
	_Atomic int flags;
	_Atomic uint64_t mask;
};

struct entry {
	_Atomic uintptr_t lock;		/* the owner's thread pointer */
	_Atomic uint32_t cur;
	_Atomic uint32_t taken;		/* 1: being taken over, 2: done */
	_Atomic uintptr_t ours;
	struct slot slot[2];
};

static struct entry tab[NSIGS];
static const int special_sig[2] = { SIGSEGV, SIGBUS };
/* SIGSEGV and SIGBUS as this thread's program believes them blocked; no slot of thr.c needed for it */
static __thread uint64_t shadow __attribute__((tls_model("initial-exec")));
static __thread uint64_t pend_mask __attribute__((tls_model("initial-exec")));
static __thread siginfo_t pend[2] __attribute__((tls_model("initial-exec")));
static _Atomic uint32_t waiter[2];	/* a thread in sig_timedwait() for SIGSEGV, SIGBUS */

__thread uint32_t sig_held __attribute__((tls_model("initial-exec")));
__thread uint32_t sig_n_off __attribute__((tls_model("initial-exec")));
static __thread struct off {
	uint64_t mask;		/* the kernel's, before the first */
	struct {
		int sig, slot;
		siginfo_t si;
	} s[OFF_MAX];
} off;

static uint64_t set_bits(const sigset_t *s)
{
	uint64_t v;

	memcpy(&v, s, sizeof(v));
	return v;
}

static void set_put(sigset_t *s, uint64_t v)
{
	memcpy(s, &v, sizeof(v));
}

static bool entry_lock(struct entry *e, int spins)
{
	uintptr_t me = (uintptr_t)__builtin_thread_pointer(), z;

	for (; spins > 0; spins--) {
		z = 0;
		if (atomic_compare_exchange_strong(&e->lock, &z, me))
			return true;
		if (z == me)
			return false;
		__builtin_ia32_pause();
	}
	return false;
}

static void entry_unlock(struct entry *e, bool got)
{
	if (got)
		atomic_store(&e->lock, 0);
}

/* ---- running the program's handler ---- */

static bool requeue(int sig, siginfo_t *si)
{
	return real.syscall(SYS_rt_tgsigqueueinfo, real.syscall(SYS_getpid), real.syscall(SYS_gettid), sig, si) == 0;
}

/* what was sent while the program believed it blocked arrives when it no longer does */
static void shadow_set(uint64_t v)
{
	uint64_t due = pend_mask & ~v;

	shadow = v;
	if (likely(due == 0))
		return;
	pend_mask &= ~due;
	if (due & BIT(SIGSEGV))
		requeue(SIGSEGV, &pend[0]);
	if (due & BIT(SIGBUS))
		requeue(SIGBUS, &pend[1]);
}

static void run(int sig, siginfo_t *si, void *uc, uintptr_t h, int flags, uint64_t mask)
{
	struct thr *t = thr_self;	/* none: this thread is in none of our calls */
	uint64_t was = shadow;
	uint32_t depth = 0;
	uintptr_t frame = 0;

	if (t && !t->shared) {
		depth = t->in_handler;
		frame = t->handler_frame;
		if (depth == 0)
			t->handler_frame = flags & SA_ONSTACK ? UINTPTR_MAX : (uintptr_t)__builtin_frame_address(0);
		t->in_handler = depth + 1;
		atomic_store_explicit(&t->sig_any, 1, memory_order_relaxed);
		if (!(flags & SA_RESTART))
			atomic_store_explicit(&t->sig_eintr, 1, memory_order_relaxed);
	}
	atomic_signal_fence(memory_order_seq_cst);
	shadow = was | (mask & STRIP);
	((sig_fn)h)(sig, si, uc);	/* all three, as the kernel passes them with and without SA_SIGINFO */
	if (unlikely(shadow != was))
		shadow_set(was);	/* the kernel takes the old mask back as well */
	atomic_signal_fence(memory_order_seq_cst);
	if (t && !t->shared) {
		t->in_handler = depth;
		t->handler_frame = frame;
	}
}

static const sig_fn wrapper[2];

/* a one-shot that is put off has not fired yet */
static void set_again(int sig, int i)
{
	struct slot *s = &tab[sig].slot[i];
	struct sigaction k;

	if (!(atomic_load(&s->flags) & (int)SA_RESETHAND) || real.sigaction(sig, NULL, &k) < 0 || k.sa_handler != SIG_DFL)
		return;
	k.sa_sigaction = wrapper[i];
	k.sa_flags |= SA_SIGINFO;
	real.sigaction(sig, &k, NULL);
}

/* slot i; -1: the virtual disposition of SIGSEGV, SIGBUS */
static bool put_off(int sig, siginfo_t *si, void *ucv, int i)
{
	ucontext_t *uc = ucv;
	const uint64_t all = ~(SYNCHRONOUS | LIBCS);
	uint64_t mask;

	if (likely(sig_held == 0) || sig_n_off == OFF_MAX || (si->si_code > 0 && (SYNCHRONOUS & BIT(sig))))
		return false;
	if (i >= 0)
		set_again(sig, i);
	off.s[sig_n_off].sig = sig;
	off.s[sig_n_off].slot = i;
	off.s[sig_n_off].si = *si;
	mask = set_bits(&uc->uc_sigmask);
	/* of several that the kernel stacked the last to run is the one that returns to the section */
	if (sig_n_off == 0 || (mask & all) != all)
		off.mask = mask;
	sig_n_off++;
	set_put(&uc->uc_sigmask, mask | all);
	return true;
}

static void run_slot(int sig, siginfo_t *si, void *uc, int i)
{
	struct slot *s = &tab[sig].slot[i];

	if (unlikely(put_off(sig, si, uc, i)))
		return;
	run(sig, si, uc, atomic_load(&s->handler), atomic_load(&s->flags), atomic_load(&s->mask));
}

static void wrapper0(int sig, siginfo_t *si, void *uc)
{
	run_slot(sig, si, uc, 0);
}

static void wrapper1(int sig, siginfo_t *si, void *uc)
{
	run_slot(sig, si, uc, 1);
}

static const sig_fn wrapper[2] = { wrapper0, wrapper1 };

/* the section is over; signals are blocked still, all that can be */
void sig_deliver(void)
{
	struct off o = off;
	uint32_t i, n = sig_n_off;
	ucontext_t uc = { 0 };
	sigset_t mask;
	int e = errno;

	sig_n_off = 0;
	sigemptyset(&mask);
	set_put(&mask, o.mask);
	for (i = 0; i < n; i++)
		if (!requeue(o.s[i].sig, &o.s[i].si) && o.s[i].slot >= 0) {
			uc.uc_sigmask = mask;	/* RLIMIT_SIGPENDING: by hand */
			run_slot(o.s[i].sig, &o.s[i].si, &uc, o.s[i].slot);
		}
	real.pthread_sigmask(SIG_SETMASK, &mask, NULL);
	errno = e;
}

/* as if there were no handler of ours: the right signal, the right core */
static void die(int sig, siginfo_t *si, bool again)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };

	real.sigaction(sig, &dfl, NULL);
	if (!again)
		requeue(sig, si);	/* else the instruction faults again on return */
}

/* a thread of the program waits for it in sigwait(): sent to the process it is that thread's */
static bool to_waiter(int sig, siginfo_t *si)
{
	uint32_t w = atomic_load(&waiter[sig == SIGBUS]);
	siginfo_t x = *si;

	if (!w || si->si_code == SI_TKILL || w == (uint32_t)real.syscall(SYS_gettid))
		return false;
	if (x.si_code >= 0)
		x.si_code = SI_QUEUE;		/* the kernel lets nobody say SI_USER of another thread */
	return real.syscall(SYS_rt_tgsigqueueinfo, real.syscall(SYS_getpid), w, sig, &x) == 0;
}

void sig_chain(int sig, siginfo_t *si, void *uc)
{
	struct entry *e = &tab[sig];
	struct slot *s = &e->slot[atomic_load(&e->cur)];
	bool fault = si->si_code > 0 && !(sig == SIGBUS && si->si_code == BUS_MCEERR_AO);
	uintptr_t h = atomic_load(&s->handler);
	int flags = atomic_load(&s->flags), err = errno;

	if (!fault && unlikely(put_off(sig, si, uc, -1)))
		return;
	if (unlikely(shadow & BIT(sig))) {
		if (fault) {
			die(sig, si, true);	/* the kernel kills for a fault that is blocked */
		} else if (!to_waiter(sig, si)) {
			pend[sig == SIGBUS] = *si;
			pend_mask |= BIT(sig);
		}
		goto out;
	}
	while (h != (uintptr_t)SIG_DFL && h != (uintptr_t)SIG_IGN) {
		if ((flags & (int)SA_RESETHAND) &&
		    !atomic_compare_exchange_strong(&s->handler, &h, (uintptr_t)SIG_DFL))
			continue;
		run(sig, si, uc, h, flags, atomic_load(&s->mask));
		return;
	}
	if (h == (uintptr_t)SIG_DFL || fault)
		die(sig, si, fault);
out:
	errno = err;
}

/* ---- dispositions ---- */

/* the kernel's answer becomes the program's */
static void show(int sig, struct sigaction *k)
{
	struct entry *e = &tab[sig];
	uintptr_t h = (uintptr_t)k->sa_sigaction;
	struct slot *s;
	int i;

	if (h > 1 && h == atomic_load(&e->ours)) {
		s = &e->slot[atomic_load(&e->cur)];
		k->sa_sigaction = (sig_fn)atomic_load(&s->handler);
		k->sa_flags = atomic_load(&s->flags);
		set_put(&k->sa_mask, atomic_load(&s->mask));
		if (!(k->sa_flags & RESTORER))
			k->sa_restorer = NULL;
		return;
	}
	for (i = 0; i < 2; i++)
		if (h == (uintptr_t)wrapper[i])
			break;
	if (i < 2) {
		s = &e->slot[i];
		k->sa_sigaction = (sig_fn)atomic_load(&s->handler);
		set_put(&k->sa_mask, set_bits(&k->sa_mask) | (atomic_load(&s->mask) & STRIP));
	} else if (h == (uintptr_t)SIG_DFL && (k->sa_flags & (int)SA_RESETHAND)) {
		s = &e->slot[atomic_load(&e->cur)];	/* a one-shot of ours has fired: its flags are still there */
		if (!(atomic_load(&s->flags) & (int)SA_RESETHAND))
			return;
		set_put(&k->sa_mask, set_bits(&k->sa_mask) | (atomic_load(&s->mask) & STRIP));
	} else {
		return;
	}
	if (!(atomic_load(&s->flags) & SA_SIGINFO))
		k->sa_flags &= ~SA_SIGINFO;
}

static void slot_put(struct slot *s, const struct sigaction *a)
{
	atomic_store(&s->handler, (uintptr_t)a->sa_sigaction);
	atomic_store(&s->flags, a->sa_flags & KNOWN_FLAGS);
	atomic_store(&s->mask, set_bits(&a->sa_mask) & ~(BIT(SIGKILL) | BIT(SIGSTOP)));
}

/* the kernel's part of a virtual disposition: our handler, on the program's terms */
static int install_ours(int sig, const struct sigaction *a)
{
	struct sigaction k = *a;
	bool none = a->sa_handler == SIG_DFL || a->sa_handler == SIG_IGN;

	k.sa_sigaction = (sig_fn)atomic_load(&tab[sig].ours);
	k.sa_flags = none ? SA_RESTART | SA_ONSTACK : a->sa_flags & ~(int)SA_RESETHAND;
	k.sa_flags |= SA_SIGINFO;
	set_put(&k.sa_mask, none ? 0 : set_bits(&a->sa_mask) & ~STRIP);
	return real.sigaction(sig, &k, NULL);
}

static int set_virtual(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct entry *e = &tab[sig];
	struct sigaction a = *act;
	uint32_t next;
	int r;

	if (old) {
		r = real.sigaction(sig, NULL, old);
		if (r < 0)
			return r;
		show(sig, old);
	}
	a.sa_flags |= RESTORER;		/* libc adds it, and queries show it */
	next = !atomic_load(&e->cur);
	slot_put(&e->slot[next], &a);
	atomic_store(&e->cur, next);
	return install_ours(sig, &a);
}

static int set_wrapped(int sig, const struct sigaction *act, struct sigaction *old, bool locked)
{
	struct entry *e = &tab[sig];
	struct sigaction k = *act, was;
	uintptr_t h = (uintptr_t)act->sa_sigaction;
	bool wrap = locked && act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN &&
		    h != (uintptr_t)wrapper[0] && h != (uintptr_t)wrapper[1];
	uint32_t next = !atomic_load(&e->cur);
	int r;

	set_put(&k.sa_mask, set_bits(&k.sa_mask) & ~STRIP);
	if (wrap) {
		slot_put(&e->slot[next], act);
		k.sa_sigaction = wrapper[next];
		k.sa_flags |= SA_SIGINFO;
	}
	r = real.sigaction(sig, &k, &was);
	if (r < 0)
		return r;
	if (old) {
		show(sig, &was);
		*old = was;
	}
	if (wrap)
		atomic_store(&e->cur, next);
	return 0;
}

int sig_set(int sig, const struct sigaction *act, struct sigaction *old)
{
	bool ours = proc_on && sig > 0 && sig < NSIGS, got = false, special, handler;
	struct entry *e;
	int r;

	if (!ours || !act || sig == SIGKILL || sig == SIGSTOP || sig == 32 || sig == 33 ||
	    atomic_load_explicit(&proc_frozen, memory_order_relaxed) || proc_is_vfork_child()) {
		r = real.sigaction(sig, act, old);
		if (r == 0 && old && ours)
			show(sig, old);
		return r;
	}
	e = &tab[sig];
	special = STRIP & BIT(sig);
	handler = act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN;
	if (handler && (set_bits(&act->sa_mask) & STRIP))
		fault_install();	/* what faults or is sent while it runs is then told apart (sig_chain) */
	if (special || handler)
		got = entry_lock(e, special ? 100000 : 1000);
	if (atomic_load(&e->taken) && (uintptr_t)act->sa_sigaction != atomic_load(&e->ours))
		r = set_virtual(sig, act, old);
	else
		r = set_wrapped(sig, act, old, got);
	entry_unlock(e, got);
	return r;
}

void sig_take_over(int sig, sig_fn ours)
{
	struct entry *e = &tab[sig];
	struct sigaction k;
	uint32_t next;
	bool got;
	int spins = 100000;

	if (likely(atomic_load(&e->taken) == 2) || !proc_on || atomic_load(&proc_frozen) || proc_is_vfork_child())
		return;
	got = entry_lock(e, spins);
	if (atomic_load(&e->taken))
		goto out;
	if (real.sigaction(sig, NULL, &k) < 0)
		goto out;
	show(sig, &k);
	next = !atomic_load(&e->cur);
	slot_put(&e->slot[next], &k);
	atomic_store(&e->cur, next);
	atomic_store(&e->taken, 1);
	atomic_store(&e->ours, (uintptr_t)ours);
	install_ours(sig, &k);
	atomic_store(&e->taken, 2);
out:
	entry_unlock(e, got);
}

void sig_after_fork(void)
{
	int i;

	for (i = 1; i < NSIGS; i++)
		atomic_store(&tab[i].lock, 0);
}

/* ---- masks ---- */

int sig_mask(int how, const sigset_t *set, sigset_t *old)
{
	uint64_t was = shadow, bits, strip;
	sigset_t k;
	int r;

	if (!proc_on || (!set && !was) || proc_is_vfork_child())
		return real.pthread_sigmask(how, set, old);
	strip = likely(!atomic_load_explicit(&proc_frozen, memory_order_relaxed)) ? STRIP : 0;
	if (!set) {
		bits = 0;
	} else {
		k = *set;
		bits = set_bits(set) & strip;
		if (bits && how != SIG_UNBLOCK) {
			fault_install();	/* what is sent or faults meanwhile is then told apart (sig_chain) */
			set_put(&k, set_bits(set) & ~strip);
		}
	}
	r = real.pthread_sigmask(how, set ? &k : NULL, old);
	if (r)
		return r;
	if (old && was)
		set_put(old, set_bits(old) | was);
	if (!set || (bits | was) == 0)
		return 0;
	if (how == SIG_BLOCK)
		shadow_set(was | bits);
	else if (how == SIG_UNBLOCK)
		shadow_set(was & ~bits);
	else
		shadow_set(bits);
	return 0;
}

/* for calls that take a mask for their own time; a bad pointer is left for the kernel to judge */
const sigset_t *sig_strip_mask(const sigset_t *in, sigset_t *out)
{
	uint64_t bits;

	if (!in || !atomic_load(&tab[SIGSEGV].taken) || atomic_load_explicit(&proc_frozen, memory_order_relaxed) ||
	    !fault_copy(&bits, in, sizeof(bits)) || !(bits & STRIP))
		return in;
	sigemptyset(out);
	set_put(out, bits & ~STRIP);
	return out;
}

/* blocks SIGSEGV and SIGBUS in the kernel for a call in which nothing of ours can fault */
static void really_block(sigset_t *strip)
{
	sigemptyset(strip);
	set_put(strip, STRIP);
	real.pthread_sigmask(SIG_BLOCK, strip, NULL);
}

int sig_suspend(const sigset_t *set)
{
	uint64_t was = shadow, bits;
	sigset_t strip, k;
	int r, e;

	if (!proc_on || atomic_load_explicit(&proc_frozen, memory_order_relaxed) || proc_is_vfork_child() ||
	    !fault_copy(&bits, set, sizeof(bits)) || (!(bits & STRIP) && !was))
		return real.sigsuspend(set);
	fault_install();
	really_block(&strip);
	shadow_set(bits & STRIP);	/* what the new mask lets in comes inside the call, and ends it */
	sigemptyset(&k);
	set_put(&k, bits & ~STRIP);
	r = real.sigsuspend(&k);
	e = errno;
	shadow_set(was);
	real.pthread_sigmask(SIG_UNBLOCK, &strip, NULL);
	errno = e;
	return r;
}

struct waiting {
	uint64_t bits;
	uint32_t was[2];
	sigset_t strip;
};

static void waiting_end(struct waiting *w)
{
	int i;

	for (i = 0; i < 2; i++)
		if (w->bits & BIT(special_sig[i]))
			atomic_store(&waiter[i], w->was[i]);
	real.pthread_sigmask(SIG_UNBLOCK, &w->strip, NULL);
}

/* taken off by a cancelled thread too */
static int timedwait(struct waiting *wait, const sigset_t *set, siginfo_t *si, const struct timespec *to)
{
	struct waiting w __attribute__((cleanup(waiting_end))) = *wait;

	return real.sigtimedwait(set, si, to);
}

int sig_timedwait(const sigset_t *set, siginfo_t *si, const struct timespec *to)
{
	struct waiting w = { 0 };
	int i, r, e;

	if (!proc_on || atomic_load_explicit(&proc_frozen, memory_order_relaxed) || proc_is_vfork_child() ||
	    !fault_copy(&w.bits, set, sizeof(w.bits)) || !(w.bits &= STRIP))
		return real.sigtimedwait(set, si, to);
	really_block(&w.strip);
	for (i = 0; i < 2; i++) {
		uint64_t bit = BIT(special_sig[i]);

		if (!(w.bits & bit))
			continue;
		if (pend_mask & bit) {
			pend_mask &= ~bit;
			r = special_sig[i];
			if (si && !fault_copy(si, &pend[i], sizeof(*si))) {
				r = -1;
				errno = EFAULT;
			}
			goto out;
		}
	}
	for (i = 0; i < 2; i++)
		if (w.bits & BIT(special_sig[i]))
			w.was[i] = atomic_exchange(&waiter[i], (uint32_t)real.syscall(SYS_gettid));
	return timedwait(&w, set, si, to);
out:
	e = errno;
	real.pthread_sigmask(SIG_UNBLOCK, &w.strip, NULL);
	errno = e;
	return r;
}

int sig_pending(sigset_t *set)
{
	int r = real.sigpending(set);

	if (r == 0 && unlikely(pend_mask))
		set_put(set, set_bits(set) | pend_mask);
	return r;
}

void sig_start(void)
{
	sigset_t now, un;
	uint64_t bits;

	if (!proc_on || real.pthread_sigmask(SIG_BLOCK, NULL, &now))
		return;
	bits = set_bits(&now) & STRIP;
	if (!bits)
		return;
	fault_install();
	sigemptyset(&un);
	set_put(&un, bits);
	shadow |= bits;		/* first: what is pending stays so */
	real.pthread_sigmask(SIG_UNBLOCK, &un, NULL);
}

void sig_exec_begin(bool image)
{
	struct sigaction ign = { .sa_handler = SIG_IGN };
	sigset_t set;
	int i;

	if (shadow) {
		sigemptyset(&set);
		set_put(&set, shadow);
		real.pthread_sigmask(SIG_BLOCK, &set, NULL);
	}
	for (i = 0; image && i < 2; i++) {
		struct entry *e = &tab[special_sig[i]];

		if (atomic_load(&e->taken) && atomic_load(&e->slot[atomic_load(&e->cur)].handler) == (uintptr_t)SIG_IGN)
			real.sigaction(special_sig[i], &ign, NULL);
	}
}

void sig_exec_end(bool image)
{
	struct sigaction ign = { .sa_handler = SIG_IGN };
	sigset_t set;
	int i;

	for (i = 0; image && i < 2; i++) {
		struct entry *e = &tab[special_sig[i]];

		if (atomic_load(&e->taken) && atomic_load(&e->slot[atomic_load(&e->cur)].handler) == (uintptr_t)SIG_IGN)
			install_ours(special_sig[i], &ign);
	}
	if (shadow) {
		sigemptyset(&set);
		set_put(&set, shadow);
		real.pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	}
}
