/* SPDX-License-Identifier: MIT */
/* fake_road.c - see fake_road.h */
#include <criterion/criterion.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/switch/fake_road.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

struct fake_end fake_x, fake_y;
struct fake_end *fake_joined;
static WSDPUTROAD fake_road_of;
static struct wsd_side_at fake_side;
bool fake_run, fake_late, fake_daemons = true;
unsigned fake_tear, fake_armed;
bool (*fake_ask)(struct fake_end *e, uint32_t what, uint64_t a, uint64_t b);
void (*fake_in_arm)(void);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int wait_fd = -1;
static bool armed;

struct fake_end *fake_of(const struct conn *c)
{
	return c == fake_x.c ? &fake_x : &fake_y;
}

/* lock held: e has something to take */
static void completed(struct fake_end *e)
{
	uint64_t one = 1;

	e->due = true;
	if (armed) {
		armed = false;
		(void)!real.syscall(SYS_write, wait_fd, &one, sizeof(one));
	}
}

static void land(struct fake_end *to, uint32_t off, const void *p, uint32_t n)
{
	uint8_t *at = (uint8_t *)to->ctl + off;

	if (to->stopped) {
		to->bounced++;
		return;
	}
	cr_assert_leq(off + n, WSD_REMOTE_PAGE);
	/* words whole, as adapters do it; a tear is asked for by fake_tear */
	if (!(off % 8) && !(n % 8)) {
		uint64_t w;
		uint32_t i;

		for (i = 0; i < n; i += 8) {
			memcpy(&w, (const uint8_t *)p + i, 8);
			__atomic_store_n((uint64_t *)(void *)(at + i), w, __ATOMIC_RELEASE);
		}
	} else {
		memcpy(at, p, n);
	}
}

static void late_out(struct fake_end *e)
{
	unsigned i;

	for (i = 0; i < e->late_n; i++)
		land(e->peer, e->late[i].off, e->late[i].word, e->late[i].n);
	e->late_n = 0;
}

/* lock held: what the peer's memory answered is in ours */
static void answered(struct fake_end *e)
{
	struct fake_post *p = &e->asked_for;
	uint32_t i, size;

	if (!e->answer_due)
		return;
	e->answer_due = false;
	if (e->stopped || e->lossy)
		return;
	if (p->kind == FAKE_READ) {
		memcpy((uint8_t *)e->ctl + p->to, e->answer, p->n);
	} else {
		size = p->ring ? atomic_load(&e->rs->rx1_size) : e->r->ring0;
		for (i = 0; i < p->n; i++)
			e->r->rx[p->ring][(p->at + i) & (size - 1)] = e->answer[i];
		if (p->at + p->n > e->in_head)
			e->in_head = p->at + p->n;
	}
	e->reads++;
	completed(e);
}

/* lock held: the oldest post goes on; false: nothing to do */
static bool step(struct fake_end *e)
{
	struct fake_post *p = &e->q[e->q_at % FAKE_POSTS];
	struct fake_end *y = e->peer;
	uint32_t i, size;

	if (!e->q_n)
		return false;
	if (y->stopped) {	/* it has no such queue pair any more: the adapter gives up */
		y->bounced += e->q_n;
		e->q_n = e->late_n = 0;
		e->lossy = true;
		if (!e->error)
			e->error = -ECONNRESET;
		completed(e);
		return true;
	}
	switch (p->kind) {
	case FAKE_WORD:
		if (fake_tear && !p->torn && fake_tear < p->n) {
			land(y, p->off, p->word, fake_tear);
			p->torn = fake_tear;
			return true;
		}
		if (fake_late)
			e->late[e->late_n++] = *p;
		else
			land(y, p->off + p->torn, p->word + p->torn, p->n - p->torn);
		break;
	case FAKE_PUT:
		late_out(e);
		/* from the source ring as it is now, not as it was */
		size = p->ring ? atomic_load(&e->rs->tx1_size) : e->r->ring0;
		for (i = 0; i < p->n; i++)
			y->r->rx[p->ring][(p->at + i) & (size - 1)] = e->r->tx[p->ring][(p->at + i) & (size - 1)];
		if (p->at + p->n > y->in_head)
			y->in_head = p->at + p->n;
		else
			cr_assert_gt(y->pulls, 0);
		y->nudges++;		/* it wakes, also with nothing new */
		completed(y);
		e->put = p->at + p->n;
		if (!e->unsignalled)
			e->done = e->put;
		break;
	case FAKE_FETCH:
		late_out(e);
		e->done = e->put;
		e->fetched++;
		break;
	case FAKE_READ:
	case FAKE_PULL:
		if (e->answer_due)
			return false;	/* one at a time */
		late_out(e);
		/* from the peer's memory as it is now; it may land much later */
		for (i = 0; i < p->n; i++)
			e->answer[i] = p->kind == FAKE_READ ? ((uint8_t *)y->ctl)[p->off + i] :
				       y->r->tx[p->ring][(p->at + i) & ((p->ring ? atomic_load(&y->rs->tx1_size) : y->r->ring0) - 1)];
		e->asked_for = *p;
		e->answer_due = true;
		if (!e->reads_held)
			answered(e);
		break;
	case FAKE_NUDGE:
		late_out(e);
		y->nudges++;
		completed(y);
		break;
	}
	e->q_at++;
	e->q_n--;
	if (!e->done_held && (p->kind == FAKE_PUT || p->kind == FAKE_FETCH))
		completed(e);
	return true;
}

static int take(struct fake_end *e)
{
	struct wsd_put_state *s = &e->st;
	bool any = false;

	if (e->in_head != atomic_load(&s->head)) {
		atomic_store(&e->rs->head, e->in_head);
		atomic_store(&s->head, e->in_head);
		any = true;
	}
	if (!e->done_held && (e->done != atomic_load(&s->done) || e->fetched != atomic_load(&s->fetched))) {
		atomic_store(&s->done, e->done);
		atomic_store(&s->fetched, e->fetched);
		any = true;
	}
	if (e->reads != atomic_load(&s->reads)) {
		atomic_store(&s->reads, e->reads);
		any = true;
	}
	if (e->nudges) {
		e->nudges = 0;
		any = true;
	}
	if (e->error && !atomic_load(&s->error)) {
		atomic_store(&s->error, e->error);
		any = true;
	}
	e->due = false;
	if (any)
		atomic_fetch_add(&s->changes, 1);
	return any;
}

/* ---- the road ---- */

static int f_hold(void *conn, unsigned n)
{
	struct fake_end *e = conn;

	n &= ~WSD_HOLD_WORDS;
	cr_assert(n >= 1 && n <= 8);
	pthread_mutex_lock(&lock);
	if (e->no_slot || e->q_n + n > FAKE_POSTS) {
		if (e->no_slot && n != 1)	/* agreed_quick.c's: the long way asks again */
			e->no_slot--;
		pthread_mutex_unlock(&lock);
		return 1;
	}
	if (atomic_load(&e->st.error)) {
		pthread_mutex_unlock(&lock);
		return atomic_load(&e->st.error);
	}
	e->holds++;
	cr_assert_eq(e->holder++, 0);
	return 0;
}

static void f_release(void *conn)
{
	struct fake_end *e = conn;

	cr_assert_eq(--e->holder, 0);
	if (fake_run)
		while (step(e))
			;
	pthread_mutex_unlock(&lock);
}

static struct fake_post *post(struct fake_end *e, enum fake_kind k)
{
	static struct fake_post lost;
	struct fake_post *p;

	cr_assert_eq(e->holder, 1, "posted without hold()");
	if (e->lossy || e->stopped)
		return &lost;
	p = &e->q[(e->q_at + e->q_n++) % FAKE_POSTS];
	memset(p, 0, sizeof(*p));
	p->kind = k;
	return p;
}

static int f_put(void *conn, uint32_t ring, uint64_t at, uint32_t n)
{
	struct fake_end *e = conn;
	struct fake_post *p = post(e, FAKE_PUT);

	e->signals += ring & WSD_PUT_SIGNAL ? 1 : 0;
	ring &= ~WSD_PUT_SIGNAL;
	cr_assert(ring <= 1 && n >= 1 && n <= (ring ? atomic_load(&e->rs->tx1_size) : e->r->ring0));
	p->ring = ring;
	p->at = at;
	p->n = n;
	e->puts++;
	return 0;
}

static int f_put_one(void *conn, uint32_t ring, uint64_t at, uint32_t n, _Atomic uint64_t *ret_end)
{
	if (f_hold(conn, 1))
		return 1;
	atomic_store(ret_end, at + n);
	cr_assert_eq(f_put(conn, ring, at, n), 0);
	f_release(conn);
	return 0;
}

static int f_word(void *conn, uint32_t off, const void *w, uint32_t n)
{
	struct fake_end *e = conn;
	struct fake_post *p = post(e, FAKE_WORD);

	cr_assert_leq(n, sizeof(p->word));
	p->off = off;
	p->n = n;
	memcpy(p->word, w, n);
	e->words++;
	return 0;
}

static int f_fetch(void *conn, uint32_t off)
{
	struct fake_end *e = conn;

	post(e, FAKE_FETCH)->off = off;
	e->fetches++;
	return 0;
}

static int f_read(void *conn, uint32_t off, uint32_t n, uint32_t to)
{
	struct fake_end *e = conn;
	struct fake_post *p = post(e, FAKE_READ);

	cr_assert(n && n <= 64 && off + n <= WSD_REMOTE_PAGE && to + n <= WSD_REMOTE_PAGE);
	p->off = off;
	p->n = n;
	p->to = to;
	e->n_reads++;
	return 0;
}

static int f_pull(void *conn, uint32_t ring, uint64_t at, uint32_t n, uint64_t addr, uint32_t rkey)
{
	struct fake_end *e = conn;
	struct fake_post *p = post(e, FAKE_PULL);
	uint32_t size = ring ? atomic_load(&e->rs->rx1_size) : e->r->ring0;

	cr_assert(ring <= 1 && n && (at & (size - 1)) + n <= size && n <= sizeof(e->answer));
	cr_assert(addr == (uintptr_t)e->peer->r->tx[ring] && rkey == 21 + ring);
	p->ring = ring;
	p->at = at;
	p->n = n;
	e->pulls++;
	return 0;
}

static int f_source(void *conn, uint32_t ring, uint64_t *addr, uint32_t *rkey)
{
	struct fake_end *e = conn;

	*addr = (uintptr_t)e->r->tx[ring];
	*rkey = 21 + ring;
	return 0;
}

static int f_nudge(void *conn)
{
	struct fake_end *e = conn;

	post(e, FAKE_NUDGE);
	e->nudged++;
	return 0;
}

static int f_poll(void *conn)
{
	struct fake_end *e = conn;
	int r;

	if (pthread_mutex_trylock(&lock) != 0)
		return 0;
	e->polls++;
	r = take(e);
	pthread_mutex_unlock(&lock);
	return r;
}

static int f_ring1(void *conn, int tx, uint32_t size, uint64_t *addr, uint32_t *rkey)
{
	struct fake_end *e = conn;

	cr_assert_leq(size, tx ? atomic_load(&e->rs->tx1_allowed) : atomic_load(&e->rs->rx1_allowed));
	cr_assert_leq(size, e->r->ring1_max);
	*addr = 4096 * (uint64_t)(1 + tx);
	*rkey = 17;
	return 0;
}

static int f_peer_ring1(void *conn, uint64_t addr, uint32_t rkey, uint32_t size)
{
	cr_assert(addr == 4096 && rkey == 17);
	return 0;
}

static void f_stop(void *conn, int drain)
{
	struct fake_end *e = conn;

	pthread_mutex_lock(&lock);
	if (drain)
		while (step(e))
			;
	e->stopped = true;
	e->q_n = 0;
	if (!atomic_load(&e->st.error)) {
		atomic_store(&e->st.error, -ECANCELED);
		atomic_fetch_add(&e->st.changes, 1);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- steps of the test ---- */

unsigned fake_step(struct fake_end *e, unsigned n)
{
	unsigned i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < n && step(e); i++)
		;
	pthread_mutex_unlock(&lock);
	return i;
}

void fake_poll(struct fake_end *e)
{
	pthread_mutex_lock(&lock);
	take(e);
	pthread_mutex_unlock(&lock);
}

void fake_all(void)
{
	while (fake_step(&fake_x, 1) || fake_step(&fake_y, 1))
		;
	fake_poll(&fake_x);
	fake_poll(&fake_y);
}

void fake_visible(struct fake_end *e)
{
	pthread_mutex_lock(&lock);
	late_out(e);
	pthread_mutex_unlock(&lock);
}

void fake_done(struct fake_end *e)
{
	pthread_mutex_lock(&lock);
	e->done_held = false;
	completed(e);
	pthread_mutex_unlock(&lock);
}

void fake_flood(struct fake_end *x, uint64_t pause)
{
	x->r->in_row = 64;
	x->r->sent_when = tsc_now() + (uint64_t)US(1e6);	/* no pause, however slow we are */
	x->r->put_pause = pause;
}

void fake_land(struct fake_end *e)
{
	pthread_mutex_lock(&lock);
	answered(e);
	pthread_mutex_unlock(&lock);
}

void fake_fail(struct fake_end *e, int error)
{
	pthread_mutex_lock(&lock);
	e->q_n = e->late_n = 0;
	e->answer_due = false;
	e->lossy = true;
	if (e->done_held) {
		e->done = atomic_load(&e->st.done);
		e->fetched = atomic_load(&e->st.fetched);
		e->done_held = false;
	}
	e->error = error;
	completed(e);
	pthread_mutex_unlock(&lock);
}

void fake_fail_both(int error)
{
	fake_fail(&fake_x, error);
	fake_fail(&fake_y, error);
}

/* ---- the daemons ---- */

/* as fill.c does: what lies below filled already is skipped, what is not acknowledged must fit */
void fake_fill(struct fake_end *x, uint64_t from, uint64_t to)
{
	struct wsd_remote *rs = x->rs, *far = x->peer->rs;
	uint64_t at = atomic_load(&far->filled), i, r1 = atomic_load(&rs->ring1_from);
	uint8_t *fill = (uint8_t *)(uintptr_t)x->peer->r->fill;
	uint32_t n;

	if (from < atomic_load(&far->taken))
		from = atomic_load(&far->taken);
	if (at < from) {
		atomic_store(&far->fill_from, from);
		at = from;
	}
	cr_assert_leq(to - from, x->peer->r->fill_max);
	for (i = at; i < to; i++)
		fill[i & (x->peer->r->fill_max - 1)] = i >= r1 ? x->r->tx[1][i & (atomic_load(&rs->tx1_size) - 1)]
							       : x->r->tx[0][i & (x->r->ring0 - 1)];
	for (n = 0; n < WSD_REMOTE_SEAMS; n++)
		if (rs->seam[n].n && rs->seam[n].ring_off >= from && rs->seam[n].ring_off < to)
			far->fill_seam[n] = rs->seam[n];
	if (to > at)
		atomic_store(&far->filled, to);
	pthread_mutex_lock(&lock);
	x->peer->nudges++;
	completed(x->peer);
	pthread_mutex_unlock(&lock);
}

bool fake_daemon(struct fake_end *e, uint32_t what, uint64_t a, uint64_t b)
{
	struct wsd_remote *rs = e->rs, *far = e->peer->rs;
	uint32_t none = WSD_DECIDE_UNSET;

	switch (what) {
	case WSD_SAN_DECIDE:
		atomic_compare_exchange_strong(&far->decide, &none, WSD_DECIDE_VOID);
		atomic_store(&rs->decided, atomic_load(&far->decide) == WSD_DECIDE_TAKEN ? WSD_DECIDED_TAKEN : WSD_DECIDED_VOID);
		break;
	case WSD_SAN_FILL:
		fake_fill(e, a, b);
		break;
	case WSD_SAN_END:
		fake_fill(e->peer, atomic_load(&rs->taken), atomic_load(&far->posted));
		atomic_store(&rs->end_posted, atomic_load(&far->posted));
		atomic_store(&rs->end_valid, 1);
		break;
	case WSD_SAN_GROW:
		atomic_store(a ? &rs->tx1_allowed : &rs->rx1_allowed, (uint32_t)b);
		break;
	case WSD_SAN_WANT_RETURN:
		atomic_store(&far->x_return, 1);
		break;
	case WSD_SAN_PLAIN:
		atomic_store(&far->plain_at, atomic_load(&rs->plain_H));
		atomic_store(&rs->plain_there, 1);
		break;
	}
	return true;
}

void fake_sweep(struct fake_end *e)
{
	uint32_t asks = atomic_exchange(&e->rs->asks, 0), what;

	for (what = WSD_SAN_DECIDE; what < _WSD_SAN_N; what++)
		if (asks & 1u << what)
			fake_daemon(e, what, 0, atomic_load(&e->rs->posted));
}

void fake_answer(struct fake_end *e, uint32_t what)
{
	cr_assert_gt(e->asked[what], 0, "question %u was not asked", what);
	fake_daemon(e, what, e->ask_a[what], e->ask_b[what]);
}

/* ---- instead of the provider's (linked with --wrap) ---- */

int __wrap_ctl_road_arm(void);
unsigned __wrap_ctl_road_drain(uint64_t *ret, unsigned max);
int __wrap_ctl_road_wait_fd(void);
bool __wrap_ctl_road_ask(struct thr *t, struct conn *c, uint32_t what, uint64_t a, uint64_t b);

int __wrap_ctl_road_arm(void)
{
	void (*f)(void) = fake_in_arm;
	int r;

	fake_in_arm = NULL;
	if (f)
		f();
	pthread_mutex_lock(&lock);
	r = fake_x.due || fake_y.due;
	armed = !r;
	fake_armed += !r;
	pthread_mutex_unlock(&lock);
	return r;
}

unsigned __wrap_ctl_road_drain(uint64_t *ret, unsigned max)
{
	struct fake_end *e[2] = { &fake_x, &fake_y };
	unsigned i, n = 0;
	uint64_t v;

	pthread_mutex_lock(&lock);
	(void)!real.syscall(SYS_read, wait_fd, &v, sizeof(v));
	for (i = 0; i < 2 && n < max; i++)
		if (e[i]->due && take(e[i]))
			ret[n++] = conn_id(e[i]->c);
	pthread_mutex_unlock(&lock);
	return n;
}

int __wrap_ctl_road_wait_fd(void)
{
	return wait_fd;
}

bool __wrap_ctl_road_ask(struct thr *t, struct conn *c, uint32_t what, uint64_t a, uint64_t b)
{
	struct fake_end *e = fake_of(c);

	if (fake_ask && !fake_ask(e, what, a, b))
		return false;
	e->asked[what]++;
	e->ask_a[what] = a;
	e->ask_b[what] = b;
	return fake_ask || !fake_daemons || fake_daemon(e, what, a, b);
}

/* the session of the end whose socket it is, as the provider gives it to a process without the queue pair */
int __wrap_ctl_reattach(struct thr *t, int fd, uint64_t cookie, struct ctl_session *ret);
int __wrap_ctl_reattach(struct thr *t, int fd, uint64_t cookie, struct ctl_session *ret)
{
	struct fake_end *e = fake_joined;

	if (!e)
		return -ENOENT;
	*ret = (struct ctl_session){ .road = fake_road_of, .at = fake_side, .side = e->rs->side };
	return 0;
}

/* ---- both ends ---- */

static void end_make(struct fake_end *e, struct fake_end *peer, int fd, uint32_t side, const struct fake_opt *o)
{
	uint32_t ring0 = o->ring0 ? o->ring0 : WSD_REMOTE_RING0_MIN, fill = o->fill_max ? o->fill_max : 4 * ring0;
	socklen_t l = sizeof(e->c->s->cookie);
	struct wsd_remote *rs;
	WSDPUTROAD p;
	uint8_t *m;

	memset(e, 0, sizeof(*e));
	e->fd = fd;
	e->peer = peer;
	e->length = wsd_remote_length(ring0, o->ring1_max, fill);
	/* with nothing around it: a copy outside is a SIGSEGV in the switch's own code */
	m = mmap(NULL, e->length + 2 * WSD_REMOTE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(m, MAP_FAILED);
	rs = mmap(m + WSD_REMOTE_PAGE, e->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cr_assert_neq(rs, MAP_FAILED);
	rs->magic = WSD_REMOTE_MAGIC;
	rs->version = WSD_REMOTE_VERSION;
	rs->side = side;
	rs->session_id = 1;
	rs->nonce = o->nonce ? o->nonce : 0x1234567812345678ull;
	rs->length = e->length;
	rs->epoch = 7;
	rs->ring0 = ring0;
	rs->ring1_max = o->ring1_max;
	rs->fill_max = fill;
	atomic_store(&rs->ring1_from, ~0ull);
	atomic_store(&rs->frame_H, ~0ull);
	atomic_store(&rs->in_C, ~0ull);
	e->rs = rs;
	e->ctl = (struct wsd_remote_ctl *)((uint8_t *)rs + WSD_REMOTE_PAGE);
	e->c = conn_new(fd, side ? WSD_ROLE_ACCEPT : WSD_ROLE_CONNECT, false);
	cr_assert_not_null(e->c);
	cr_assert_eq(real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &e->c->s->cookie, &l), 0);
	p = (WSDPUTROAD){ .size = sizeof(p), .inline_max = 64, .depth = 64, .conn = e, .base = rs, .length = e->length, .session_id = 1,
			  .context = conn_id(e->c), .state = &e->st, .hold = f_hold, .release = f_release, .put = f_put, .word = f_word,
			  .fetch = f_fetch, .nudge = f_nudge, .poll = f_poll, .ring1 = f_ring1, .peer_ring1 = f_peer_ring1, .stop = f_stop,
			  .put_one = f_put_one };
	if (!(o->no_reads && side)) {
		p.read = f_read;
		p.pull = f_pull;
		p.source = f_source;
	}
	cr_assert(agreed_attach(e->c, fd, &p));
	e->r = road_of(e->c);
}

/* which road a put or a frame takes is the test's to say: to the switch this one is the fastest there is */
static void fastest(struct road *r)
{
	r->bulk = (struct bulk){ .rate = { 1ull << 40, 1 }, .again = 1, .left = UINT32_MAX };
	r->flood = r->bulk;
}

void fake_make(const struct fake_opt *o)
{
	static const struct fake_opt none;
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof(sa);
	int one = 1, ls, a, b;

	if (!o)
		o = &none;
	signal(SIGPIPE, SIG_IGN);
	real_ready();
	cr_assert(proc_usable());
	cfg.shake = false;
	ls = real.socket(AF_INET, SOCK_STREAM, 0);
	a = real.socket(AF_INET, SOCK_STREAM, 0);
	if (o->rcvbuf) {
		cr_assert_eq(real.setsockopt(ls, SOL_SOCKET, SO_RCVBUF, &o->rcvbuf, sizeof(int)), 0);
		cr_assert_eq(real.setsockopt(a, SOL_SOCKET, SO_RCVBUF, &o->rcvbuf, sizeof(int)), 0);
	}
	cr_assert_eq(bind(ls, (struct sockaddr *)&sa, sizeof(sa)), 0);
	cr_assert_eq(real.listen(ls, 1), 0);
	cr_assert_eq(getsockname(ls, (struct sockaddr *)&sa, &l), 0);
	cr_assert_eq(real.connect(a, (struct sockaddr *)&sa, sizeof(sa)), 0);
	b = real.accept(ls, NULL, NULL);
	cr_assert_geq(b, 3);
	real.close(ls);
	real.setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	real.setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (o->sndbuf) {
		cr_assert_eq(real.setsockopt(a, SOL_SOCKET, SO_SNDBUF, &o->sndbuf, sizeof(int)), 0);
		cr_assert_eq(real.setsockopt(b, SOL_SOCKET, SO_SNDBUF, &o->sndbuf, sizeof(int)), 0);
	}
	if (wait_fd < 0)
		wait_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	cr_assert_geq(wait_fd, 0);
	end_make(&fake_x, &fake_y, a, 0, o);
	end_make(&fake_y, &fake_x, b, 1, o);
	fastest(fake_x.r);
	fastest(fake_y.r);
}

/* this process becomes one that has the socket and nothing else, and finds the session by it */
void fake_forget(struct fake_end *e)
{
	fake_road_of = e->r->p;
	fake_side = ctl_side_at(e->c->s);
	fake_joined = e;
	mark_set(e->fd, MARK_SESSION, true);
	conn_close_fd(e->fd);
	e->c = NULL;
}

void fake_grant(struct fake_end *y)
{
	struct thr *t = cs_enter();

	cr_assert(rx_touch(y->c));
	agreed_grant(t, y->c, y->fd);
	cs_leave(t);
	cr_assert_eq(atomic_load(&y->rs->ystate), WSD_Y_GRANTED, "not granted");
	fake_all();
}

void fake_start(struct fake_end *x)
{
	struct thr *t = cs_enter();

	agreed_obey(t, x->c, x->fd, true);
	cr_assert_eq(atomic_load(&x->rs->xstate), WSD_X_STARTING, "not started");
	fake_all();
	agreed_obey(t, x->c, x->fd, true);
	cs_leave(t);
	cr_assert_eq(atomic_load(&x->rs->xstate), WSD_X_FRAMED);
}
