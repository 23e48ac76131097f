/* SPDX-License-Identifier: MIT */
/*
 * cq.c - completions, and waiting for them
 *
 * Nothing is lost between threads: what a pass finds is put into the connection's state, and the connection on a list that only
 * v_drain() takes from. A thread that arms and then finds the look lock taken, or the list not empty, is told
 * to look again; after it was told 0 the next completion makes the descriptor readable, whoever takes that completion.
 *
 * req_notify works once, so a queue stays "armed" until its event was taken, and is not armed again before. An event
 * is acknowledged at once: destroying waits for what is not.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "rdma_transport/base/rawsys.h"
#include "rdma_transport/verbs/verbs.h"

#define EVENTS	(2 * V_DEVICES)
#define PASSES	64		/* of V_WC completions, for one queue in one look: bounded */
#define BIT(sig)	(1ull << ((sig) - 1))

static inline bool enter(struct v_ctx *x)
{
	return !atomic_load_explicit(&x->orphan, memory_order_relaxed) && !atomic_load_explicit(&x->look.held, memory_order_relaxed) &&
	       !atomic_exchange_explicit(&x->look.held, true, memory_order_acquire);
}

bool v_look_try(struct v_ctx *x, struct v_guard *g)
{
	if (!enter(x))
		return false;
	g->error = errno;
	g->blocked = false;
	g->cancel = v_cancel_off();
	return true;
}

/* all but what an instruction raises, and libc's own */
static uint64_t block_signals(void)
{
	static const uint64_t all = ~(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP) | BIT(SIGSYS) | BIT(32) | BIT(33));
	uint64_t was = 0;

	rt_raw4(SYS_rt_sigprocmask, SIG_BLOCK, (long)&all, (long)&was, sizeof(was));
	return was;
}

static void unblock_signals(uint64_t was)
{
	rt_raw4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&was, 0, sizeof(was));
}

static void a_moment(unsigned i)
{
	struct timespec ts = { .tv_nsec = 50000 };

	if (i < 100)
		sched_yield();
	else
		rt_raw4(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&ts, 0);
}

bool v_look_soon(struct v_ctx *x, struct v_guard *g)
{
	uint64_t mask = block_signals();

	for (unsigned i = 0; i < 200; i++) {
		if (v_look_try(x, g)) {
			g->blocked = true;
			g->mask = mask;
			return true;
		}
		a_moment(i);
	}
	unblock_signals(mask);
	return false;
}

void v_look_wait(struct v_ctx *x, struct v_guard *g)
{
	uint64_t mask = block_signals();

	for (unsigned i = 0; !v_look_try(x, g); i++)
		a_moment(i);
	g->blocked = true;
	g->mask = mask;
}

V_INLINE_PATH void done(struct v_ctx *x, struct v_guard *g)
{
	int cancel = g->cancel, error = g->error;

	if (x->idle)
		v_devices_sweep(x);
	atomic_store_explicit(&x->look.held, false, memory_order_release);
	if (g->blocked)
		unblock_signals(g->mask);
	v_cancel_back(cancel);
	errno = error;
}

void v_look_done(struct v_ctx *x, struct v_guard *g)
{
	done(x, g);
}

void v_touch_first(struct v_conn *c)
{
	struct v_ctx *x = c->ctx;

	if (atomic_exchange(&c->changed, true))
		return;
	c->next_changed = atomic_load(&x->changed);
	while (!atomic_compare_exchange_weak(&x->changed, &c->next_changed, c))
		;
}

void v_fail(struct v_conn *c, int error)
{
	int32_t none = 0;

	if (atomic_compare_exchange_strong(&c->state.error, &none, error))
		v_touch(c);
}

static void gather(struct v_ctx *x)
{
	struct v_conn *c = atomic_exchange(&x->changed, NULL);

	while (c) {
		struct v_conn *next = c->next_changed;

		c->next_changed = x->told;
		x->told = c;
		c = next;
	}
}

void v_untell(struct v_ctx *x, struct v_conn *c)
{
	struct v_conn **p = &x->told;

	gather(x);
	while (*p && *p != c)
		p = &(*p)->next_changed;
	if (*p)
		*p = c->next_changed;
	atomic_store(&c->changed, true);	/* and never put there again */
}

/* receives were used up: post a lot again, and let the peer know */
V_INLINE_PATH void receives(struct v_conn *c)
{
	if (c->rq_used < V_RQ_BATCH || atomic_load(&c->state.error))
		return;
	if (v_recv_post(c, V_RQ_BATCH)) {
		v_fail(c, -ECONNRESET);
		return;
	}
	c->rq_used -= V_RQ_BATCH;
	atomic_store(&c->credit_due, true);
}

/* the completion says that the data is visible */
V_INLINE_PATH void head_is(struct v_conn *c, uint64_t head)
{
	if (atomic_load_explicit(&c->state.error, memory_order_relaxed))
		return;
	atomic_store_explicit(&c->state.head, head, memory_order_release);
	atomic_store_explicit(&c->remote->head, head, memory_order_release);
}

V_INLINE_PATH void arrived(struct v_conn *c, const struct ibv_wc *wc)
{
	uint64_t head = atomic_load_explicit(&c->state.head, memory_order_relaxed);
	uint32_t step = ntohl(wc->imm_data) - (uint32_t)head;

	/* a put of bytes that were pulled, perhaps while the next pull is under way */
	if (atomic_load_explicit(&c->pull_to, memory_order_relaxed) && -step <= atomic_load(&c->rx_max))
		step = 0;
	if (wc->opcode != IBV_WC_RECV_RDMA_WITH_IMM || !(wc->wc_flags & IBV_WC_WITH_IMM) ||
	    step > atomic_load_explicit(&c->rx_max, memory_order_relaxed)) {
		v_fail(c, -EPROTO);
		return;
	}
	c->rq_used++;
	if (step)		/* else a nudge */
		head_is(c, head + step);
	v_touch(c);
	receives(c);
}

/* the posts up to seq are completed */
V_INLINE_PATH void sent(struct v_conn *c, enum v_kind kind, uint32_t seq16)
{
	uint32_t tail = atomic_load_explicit(&c->sq_tail, memory_order_relaxed);
	uint32_t seq = tail + (uint16_t)(seq16 - tail);
	uint64_t done;

	if (seq - tail >= c->sq_size) {
		v_fail(c, -EPROTO);	/* a device that completes what was never posted */
		return;
	}
	done = atomic_load_explicit(&c->put_end[seq % V_SQ], memory_order_relaxed);
	atomic_store_explicit(&c->sq_tail, seq + 1, memory_order_release);
	if (kind == V_FETCH)
		atomic_fetch_add_explicit(&c->state.fetched, 1, memory_order_release);
	if (kind == V_PULL && atomic_load(&c->pull_to) > atomic_load_explicit(&c->state.head, memory_order_relaxed))
		head_is(c, atomic_load(&c->pull_to));
	if (kind == V_PULL || kind == V_READ)
		atomic_fetch_add_explicit(&c->state.reads, 1, memory_order_release);
	if (done != atomic_load_explicit(&c->state.done, memory_order_relaxed))
		atomic_store_explicit(&c->state.done, done, memory_order_release);
	v_touch(c);
}

V_INLINE_PATH void dispatch(struct v_ctx *x, const struct ibv_wc *wc)
{
	uint32_t slot = (uint32_t)(wc->wr_id >> 44), gen = (uint32_t)(wc->wr_id >> 20) & 0xffffff;
	enum v_kind kind = (enum v_kind)(wc->wr_id >> 16 & 15);
	struct v_conn *c = slot < x->n_slots ? x->slot[slot] : NULL;

	if (!c || (c->gen & 0xffffff) != gen || !c->qp)
		return;
	if (kind == V_MSG_TX || kind == V_MSG_RX) {
		v_msg_done(c, wc, kind == V_MSG_TX);
		return;
	}
	if (wc->status != IBV_WC_SUCCESS) {
		int r = v_status(wc->status);

		/* flushed without an error of its own: the device may say why, else the other end broke off */
		if (r == -ECANCELED)
			v_async(x, c->dev);
		v_fail(c, r == -ECANCELED ? -ECONNRESET : r);
		return;
	}
	if (kind == V_RECV)
		arrived(c, wc);
	else
		sent(c, kind, (uint32_t)wc->wr_id & 0xffff);
	if (atomic_load(&c->credit_due))
		v_post_leftover(c, true);
}

/* a queue that cannot be read or armed: who counts on it would wait for ever */
static void queue_broken(struct v_ctx *x, struct v_shard *s)
{
	for (uint32_t i = 0; i < x->n_slots; i++)
		if (x->slot[i] && x->slot[i]->shard == s)
			v_fail(x->slot[i], -ECONNRESET);
}

/* one poll's answer, before which `stale` completions were known to be nobody's. true: there are no more */
V_INLINE_PATH bool took(struct v_ctx *x, struct v_shard *s, const struct ibv_wc *wc, int n, unsigned stale)
{
	if (n < 0) {
		queue_broken(x, s);
		return true;
	}
	for (int k = 0; k < n; k++)
		dispatch(x, &wc[k]);
	if (n == V_WC)
		return false;
	s->reserved -= stale;
	s->stale -= stale;
	return true;
}

void v_take(struct v_ctx *x, struct v_shard *s)
{
	struct ibv_wc wc[V_WC];

	for (unsigned i = 0; i < PASSES; i++) {
		unsigned stale = s->stale;

		if (took(x, s, wc, rt_verbs_poll_cq(x->lib, s->cq, V_WC, wc), stale))
			return;
	}
}

/* who spins finds nothing most times: a poll of the queue is no cancellation point, so nothing is kept and given back for that */
int v_look(void *conn)
{
	struct v_conn *c = conn;
	struct v_guard g = { .error = errno };
	struct v_ctx *x = c->ctx;
	struct ibv_wc wc[V_WC];
	struct v_shard *s;
	uint32_t before;
	unsigned stale = 0;
	int n = 0;

	if (!enter(x))
		return 0;
	s = c->shard;
	if (s) {
		stale = s->stale;
		n = rt_verbs_poll_cq(x->lib, s->cq, V_WC, wc);
	}
	if (!n && !stale && !x->idle) {
		atomic_store_explicit(&x->look.held, false, memory_order_release);
		errno = g.error;
		return 0;
	}
	before = atomic_load(&c->state.changes);
	g.cancel = v_cancel_off();
	if (s && !took(x, s, wc, n, stale))
		v_take(x, s);
	done(x, &g);
	return atomic_load(&c->state.changes) != before;
}

void v_take_all(struct v_ctx *x)
{
	for (unsigned i = 0; i < V_DEVICES; i++) {
		struct v_device *dev = x->dev[i];

		for (unsigned k = 0; dev && k < dev->n_shards; k++)
			if (dev->shard[k].reserved)
				v_take(x, &dev->shard[k]);
	}
}

static void fail_some(struct v_ctx *x, struct v_device *dev, int port, struct ibv_qp *qp, int error)
{
	for (uint32_t i = 0; i < x->n_slots; i++) {
		struct v_conn *c = x->slot[i];

		if (c && c->dev == dev && (port < 0 || c->path.port == port) && (!qp || c->qp == qp))
			v_fail(c, error);
	}
}

/* fd is one of its descriptors that will say nothing any more */
static void lost(struct v_ctx *x, struct v_device *dev, int fd)
{
	dev->gone = true;
	fail_some(x, dev, -1, NULL, -ENETDOWN);
	/* it stays readable for good: nobody is to wake up for it again */
	rt_raw4(SYS_epoll_ctl, x->ep, EPOLL_CTL_DEL, fd, (long)&(struct epoll_event){});
}

void v_async(struct v_ctx *x, struct v_device *dev)
{
	struct ibv_async_event ev;

	while (!x->lib->get_async_event(dev->context, &ev)) {
		switch (ev.event_type) {
		case IBV_EVENT_QP_FATAL:
		case IBV_EVENT_QP_REQ_ERR:
			fail_some(x, dev, -1, ev.element.qp, -ECONNRESET);
			break;
		case IBV_EVENT_QP_ACCESS_ERR:
			fail_some(x, dev, -1, ev.element.qp, -EPROTO);
			break;
		case IBV_EVENT_PORT_ERR:
			fail_some(x, dev, ev.element.port_num, NULL, -ECONNRESET);
			break;
		case IBV_EVENT_CQ_ERR:
			fail_some(x, dev, -1, NULL, -ECONNRESET);
			break;
		case IBV_EVENT_DEVICE_FATAL:
			dev->gone = true;
			fail_some(x, dev, -1, NULL, -ENETDOWN);
			break;
		default:
			break;
		}
		x->lib->ack_async_event(&ev);
	}
	if (errno == EIO || errno == ENODEV)
		lost(x, dev, dev->context->async_fd);
}

static void channel_events(struct v_ctx *x, struct v_device *dev)
{
	struct ibv_cq *cq;
	void *cookie;

	while (!x->lib->get_cq_event(dev->channel, &cq, &cookie)) {
		for (unsigned i = 0; i < dev->n_shards; i++)
			if (dev->shard[i].cq == cq)
				dev->shard[i].armed = false;
		x->lib->ack_cq_events(cq, 1);
	}
	if (errno == EIO || errno == ENODEV)
		lost(x, dev, dev->channel->fd);
}

/* somebody is going to sleep, or has: what woke him must be taken off the descriptors, or he never sleeps again */
void v_events(struct v_ctx *x)
{
	struct epoll_event ev[EVENTS];
	bool armed = false;
	long n;

	if (!x->may_sleep)
		return;
	n = rt_raw4(SYS_epoll_pwait, x->ep, (long)ev, EVENTS, 0);
	for (long i = 0; i < n; i++)
		for (unsigned k = 0; k < V_DEVICES; k++) {
			struct v_device *dev = x->dev[k];

			if (dev && dev->channel->fd == ev[i].data.fd)
				channel_events(x, dev);
			else if (dev && dev->context->async_fd == ev[i].data.fd)
				v_async(x, dev);
		}
	for (unsigned k = 0; k < V_DEVICES; k++)
		for (unsigned i = 0; x->dev[k] && i < x->dev[k]->n_shards; i++)
			armed = armed || x->dev[k]->shard[i].armed;
	if (n <= 0 && !armed)
		x->may_sleep = false;
}

unsigned v_drain(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max)
{
	struct v_ctx *x = v_ctx(ctx);
	struct v_guard g;
	unsigned n = 0;

	if (!v_look_try(x, &g))
		return 0;
	v_events(x);
	v_take_all(x);
	if (x->n_linger)
		v_reap(x, false);
	gather(x);
	while (n < max && x->told) {
		struct v_conn *c = x->told;

		x->told = c->next_changed;
		atomic_store(&c->changed, false);	/* before it is told: what changes from here on is told again */
		if (c->road)
			ret_context[n++] = c->context;
	}
	v_look_done(x, &g);
	return n;
}

int v_arm(struct rt_ctx *ctx)
{
	struct v_ctx *x = v_ctx(ctx);
	struct v_guard g;
	bool found;

	if (atomic_load(&x->orphan))
		return 0;
	if (!v_look_try(x, &g)) {
		sched_yield();
		return 1;
	}
	x->may_sleep = true;
	for (unsigned i = 0; i < V_DEVICES; i++) {
		struct v_device *dev = x->dev[i];

		for (unsigned k = 0; dev && k < dev->n_shards; k++) {
			struct v_shard *s = &dev->shard[k];

			if (!s->reserved || s->armed)
				continue;
			s->armed = !rt_verbs_req_notify_cq(x->lib, s->cq, 0);
			if (!s->armed)
				queue_broken(x, s);
		}
	}
	v_take_all(x);
	found = x->told || atomic_load(&x->changed);
	v_look_done(x, &g);
	return found;
}
