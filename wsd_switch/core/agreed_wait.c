/* SPDX-License-Identifier: MIT */
/*
 * agreed_wait.c - sleeping beside TCP, the device and the daemon
 *
 * Nobody wakes a thread by a word in memory of this process that another host wrote. So who sleeps enters itself here, arms the device, then
 * looks once more, then sleeps on the descriptor, on the provider's (control.wait_fd), which nobody outside this process holds
 * (A1), and on an eventfd of its own. An event of the device is told once, to all together: who takes it from wait_fd tells all
 * others who sleep, and they look, and arm again.
 *
 * Invariant: a completion is found by the look behind arm(), or makes wait_fd readable, or was taken by another thread after its
 * event: then that thread tells, or its change of the road was before our look, for it changes the state first, then looks who is asleep, and
 * we are entered first, then look. "Somebody else is inside" is not "nothing": arm() says look again (F5). Who has no place in the
 * table sleeps in slices, and so does a forked child, in whose memory no completion is seen.
 */
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"

#define SLICE_MS	10
#define BUSY_NAP_MS	1	/* others' completions keep the device from being armed */
#define ARM_TRIES	4
#define SPIN_ASK_US	50		/* TCP is looked at meanwhile: after so long, then half as often each time, */
#define SPIN_ASK_MOST_US 100		/* down to this */
#define SPIN_AGAIN	16		/* ... after ROAD_SPIN_VAIN is tried */
#define WAITERS_MAX	128
#define SETS_MAX	96	/* of them for sets, which keep theirs */

struct place {
	_Atomic uint32_t used;
	_Atomic uint32_t asleep;	/* threads */
	_Atomic uint32_t told;		/* since it last looked: its descriptor is, or will be, readable */
	_Atomic int fd;			/* + 1; stays for who comes next */
};

static struct place places[WAITERS_MAX];
static _Atomic uint32_t n_places;	/* the highest one ever used, + 1 */
_Atomic uint32_t road_gen;

int64_t road_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int poll_now(struct pollfd *p)
{
	return (int)real.syscall(SYS_poll, p, 1, 0);
}

/* ---- who sleeps ---- */

static bool place_open(struct place *p)
{
	int fd, e = errno;

	if (atomic_load(&p->fd))
		return true;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd >= 0) {
		fd = fd_to_top(fd);
		hidden_add(fd);
		atomic_store(&p->fd, fd + 1);
	}
	errno = e;
	return fd >= 0;
}

static int place_get(void)
{
	uint32_t i, n, z;

	for (i = 0; i < WAITERS_MAX; i++) {
		z = 0;
		if (atomic_load_explicit(&places[i].used, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong(&places[i].used, &z, 1))
			continue;
		if (!place_open(&places[i])) {
			atomic_store(&places[i].used, 0);
			return -1;
		}
		n = atomic_load(&n_places);
		while (n <= i && !atomic_compare_exchange_weak(&n_places, &n, i + 1))
			;
		return (int)i;
	}
	return -1;
}

/* a set keeps its place: waiter_count() says who sleeps there */
void waiter_begin(struct waiter *w)
{
	if (!w->place)
		w->place = place_get() + 1;
	if (w->place)
		atomic_fetch_add(&places[w->place - 1].asleep, 1);
}

bool waiter_keep(struct waiter *w)
{
	static _Atomic uint32_t n;

	if (w->place)
		return true;
	if (atomic_fetch_add(&n, 1) >= SETS_MAX || !(w->place = place_get() + 1))
		atomic_fetch_sub(&n, 1);
	return w->place;
}

void waiter_end(struct waiter *w)
{
	struct place *p;

	if (!w->place)
		return;
	p = &places[w->place - 1];
	atomic_store(&p->asleep, 0);
	if (atomic_load(&p->told))
		waiter_seen(w);
	w->place = 0;
	atomic_store(&p->used, 0);
}

int waiter_fd(const struct waiter *w)
{
	return !w->place ? -1 : atomic_load_explicit(&places[w->place - 1].fd, memory_order_relaxed) - 1;
}

/* first the descriptor, then the mark, then the caller looks: who finds the mark still set changed the state before that */
void waiter_seen(const struct waiter *w)
{
	uint64_t v;
	int e = errno;

	if (!w->place)
		return;
	(void)real.syscall(SYS_read, waiter_fd(w), &v, sizeof(v));	/* no cancellation point */
	atomic_store(&places[w->place - 1].told, 0);
	errno = e;
}

void waiter_count(const struct waiter *w, int n)
{
	if (w->place)
		atomic_fetch_add(&places[w->place - 1].asleep, (uint32_t)n);
}

static void tell(struct place *p)
{
	uint64_t one = 1;
	int e = errno;

	sig_hold();	/* a handler may leave by siglongjmp: between the two the mark would stay for ever */
	if (!atomic_exchange(&p->told, 1))
		(void)real.syscall(SYS_write, atomic_load(&p->fd) - 1, &one, sizeof(one));
	sig_release();
	errno = e;
}

void waiter_tell(const struct waiter *w)
{
	if (w->place)
		tell(&places[w->place - 1]);
}

void waiters_tell(void)
{
	uint32_t i, n;

	atomic_thread_fence(memory_order_seq_cst);	/* the state was changed, now who sleeps */
	n = atomic_load(&n_places);
	for (i = 0; i < n; i++)
		if (atomic_load(&places[i].asleep) && !atomic_load(&places[i].told))
			tell(&places[i]);
}

/* the descriptors are the parent's: its sets are woken by them */
void waiters_after_fork(void)
{
	uint32_t i, n = atomic_load(&n_places);

	for (i = 0; i < n; i++) {
		int fd = atomic_load(&places[i].fd) - 1;

		if (fd >= 0) {
			hidden_remove(fd);
			real.close(fd);
		}
		places[i] = (struct place){ 0 };
	}
	atomic_store(&n_places, 0);
}

/* ---- the device ---- */

int64_t agreed_timeout(struct conn *c, int fd, int name)
{
	struct timeval tv = { 0, 0 };
	socklen_t l = sizeof(tv);
	int64_t *kept = &c->timeo[name == SO_SNDTIMEO];
	int e = errno;

	/* asked once; setsockopt() of ours forgets it, and who shares the socket may have set it behind our back */
	if (*kept == 0 || atomic_load(&c->s->holders) > 1) {
		if (real.getsockopt(fd, SOL_SOCKET, name, &tv, &l) < 0)
			tv = (struct timeval){ 0, 0 };
		*kept = 1 + (int64_t)tv.tv_sec * 1000000000 + tv.tv_usec * 1000;
		errno = e;
	}
	return *kept == 1 ? 0 : road_now() + *kept - 1;
}

bool road_arm(struct thr *t)
{
	int r;

	sig_hold();
	r = ctl_road_arm();
	sig_release();
	return r == 0;
}

unsigned road_drain(struct thr *t)
{
	uint64_t id[64];
	unsigned i, sum = 0;

	for (i = 0; i < 64; i++) {
		unsigned n;

		sig_hold();
		n = ctl_road_drain(id, 64);
		sig_release();
		sum += n;
		if (n < 64)
			break;
	}
	/* also when it gave nothing: the event may have been others' whose completions somebody else took */
	waiters_tell();
	return sum;
}

void road_woken(struct thr *t)
{
	struct pollfd p = { .fd = road_wait_fd(), .events = POLLIN };
	int e = errno;

	if (road_drain(t)) {
		ctl_look(t);
	} else {
		/* then it was the daemon's packet, or another thread is at it */
		ctl_progress(t);
		if (real.poll(&p, 1, 0) > 0)
			thr_nap(500);
	}
	errno = e;
}

bool road_armed(struct thr *t, unsigned *nap_ms)
{
	unsigned i;

	for (i = 0; i < ARM_TRIES; i++) {
		if (road_arm(t))
			return i == 0;		/* what was drained may be ours */
		road_drain(t);
	}
	if (!*nap_ms || *nap_ms > BUSY_NAP_MS)
		*nap_ms = BUSY_NAP_MS;
	return true;
}

int road_wait_fd(void)
{
	return ctl_road_wait_fd();
}

/* ---- one connection ---- */

void road_poll(struct road *r, unsigned us)
{
	uint64_t now = tsc_now();

	if (us && now - atomic_load_explicit(&r->polled, memory_order_relaxed) < (uint64_t)US(us))
		return;
	sig_hold();
	r->p.poll(r->p.conn);
	sig_release();
	atomic_store_explicit(&r->polled, now, memory_order_relaxed);
}

/* 1: look again, 0: nothing came, -1: a signal did */
static int spin(struct thr *t, struct road *r, int fd, short events, uint32_t changes)
{
	uint64_t t0 = tsc_now(), asked = t0, now = t0, each = (uint64_t)US(SPIN_ASK_US), most = (uint64_t)US(cfg.road_spin_us);
	unsigned looks = 0;

	for (;;) {
		if (road_changes(r) != changes)
			return 1;
		sig_hold();
		r->p.poll(r->p.conn);
		sig_release();
		if (road_changes(r) != changes) {
			atomic_store_explicit(&r->polled, now, memory_order_relaxed);
			return 1;
		}
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return -1;
		road_pause(r, ++looks);
		if (looks % ROAD_CLOCK_LOOKS)
			continue;
		now = tsc_now();
		if (now - t0 > most)
			return 0;
		if (events && now - asked > each) {
			struct pollfd p = { .fd = fd, .events = events };

			asked = now;
			if (each < (uint64_t)US(SPIN_ASK_MOST_US))
				each *= 2;
			if (real.poll(&p, 1, 0) > 0)
				return 1;
		}
	}
}

bool road_spin(struct thr *t, struct conn *c, int fd, short events, uint32_t changes)
{
	struct road *r = road_of(c);
	uint32_t vain = atomic_load_explicit(&r->vain, memory_order_relaxed);
	int k;

	if (!road_mine(r) || cfg.spin_us <= 0 || cfg.road_spin_us <= 0)
		return false;
	/* nothing has come in time for a while: it is tried now and then */
	if (vain >= ROAD_SPIN_VAIN && vain % SPIN_AGAIN) {
		atomic_store_explicit(&r->vain, vain + 1, memory_order_relaxed);
		return false;
	}
	k = spin(t, r, fd, events, changes);
	if (k > 0)
		atomic_store_explicit(&r->vain, 0, memory_order_relaxed);
	else if (k == 0)
		atomic_store_explicit(&r->vain, vain + 1, memory_order_relaxed);
	return k > 0;
}

/* a cancelled thread leaves nothing behind */
struct pin {
	struct conn *c;
};

static void pin_end(struct pin *p)
{
	if (p->c)
		conn_unpin(p->c);
	p->c = NULL;
}

int road_sleep(struct thr *t, struct conn *c, int fd, short events, int64_t until, unsigned nap_ms, uint32_t changes)
{
	struct waiter me __attribute__((cleanup(waiter_end))) = { 0 };
	struct pin pin __attribute__((cleanup(pin_end))) = { NULL };
	struct road *r = road_of(c);
	struct pollfd p[3] = { { .fd = fd, .events = events }, { .fd = road_wait_fd(), .events = POLLIN }, { .events = POLLIN } };
	int64_t left, rest;
	struct timespec to;
	int k, e;

	if (!events)
		p[0].fd = -1;		/* POLLHUP and POLLERR would not let us sleep */
	waiter_begin(&me);
	p[2].fd = waiter_fd(&me);
	if ((p[2].fd < 0 || p[1].fd < 0 || !road_mine(r) || atomic_load(&r->ask_due)) && (!nap_ms || nap_ms > SLICE_MS))
		nap_ms = SLICE_MS;
	if (road_mine(r) && !road_armed(t, &nap_ms))
		return 0;
	if (road_changes(r) != changes)
		return 0;
	left = nap_ms * 1000000ll;
	if (until) {
		rest = until - road_now();
		if (rest <= 0)
			return -EAGAIN;
		if (!left || rest < left)
			left = rest;
	}
	if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
		k = -1;
		e = EINTR;
	} else {
		to = (struct timespec){ left / 1000000000, left % 1000000000 };
		conn_pin(c);
		pin.c = c;
		cs_leave(t);
		k = real.ppoll(p, 3, left ? &to : NULL, NULL);
		e = errno;
		cs_enter();
		pin_end(&pin);
	}
	if (k > 0 && p[2].revents)
		waiter_seen(&me);
	if (k < 0 && e == EINTR && atomic_load(&t->sig_any)) {
		bool intr = atomic_load(&t->sig_eintr);

		sig_call_begin(t);
		return intr || until ? -EINTR : 0;
	}
	if (k < 0)
		return e == EINTR ? 0 : -e;
	if (k > 0 && p[1].revents)
		road_woken(t);
	return 0;
}

/* ---- what poll, select and sets report ---- */

#define RD_BITS	(POLLIN | POLLRDNORM)

static uint32_t kernel_now(int fd, uint32_t events)
{
	struct pollfd p = { .fd = fd, .events = (short)events };
	int e = errno;

	if (poll_now(&p) < 0)
		p.revents = 0;
	errno = e;
	return (uint16_t)p.revents;
}

uint32_t road_kept(struct conn *c, int fd, uint32_t wanted)
{
	if (likely(!atomic_load_explicit(&c->s->kept_err, memory_order_relaxed)))
		return 0;
	return POLLERR | ((kernel_now(fd, wanted) | RD_BITS) & (wanted | POLLHUP));
}

uint32_t road_report(struct thr *t, struct conn *c, int fd, uint32_t wanted, uint32_t kernel, uint32_t *ret_ask, unsigned *ret_nap)
{
	/* with a mark that is ours what the kernel said counts as little as with frames */
	bool plain = agreed_plain_in(c) && !(atomic_load_explicit(&c->s->flags, memory_order_relaxed) & S_LOWAT_CUT), after;
	uint32_t got = agreed_events(t, c, fd, wanted, ret_ask, ret_nap), e;

	after = agreed_plain_in(c);
	e = kernel & ((wanted & *ret_ask) | POLLERR | POLLHUP | POLLNVAL);
	if (plain && after)
		return e;
	if (!plain && after)	/* it returned: from here on the kernel knows, but what it said was about frames */
		return (e & ~(uint32_t)RD_BITS) | (kernel_now(fd, wanted & RD_BITS) & wanted & RD_BITS);
	if (!plain)		/* bytes in the kernel may be headers */
		e &= ~(uint32_t)RD_BITS;
	return e | got;
}

