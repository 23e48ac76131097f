/* SPDX-License-Identifier: MIT */
/*
 * agreed_batch.c - many small puts with one doorbell
 *
 * A doorbell costs a system call on a software device, and a message to the card on any. In a flood of small sends X therefore appends to its ring
 * and keeps back what it appended while its last put is under way, or was made less than a few times ago what a put costs; a quarter of the
 * ring, or the first send behind that, brings the next one. (A device in software completes a put inside its doorbell.)
 * Bytes that are kept back need somebody who sends them if X never calls again. X's CPU is not needed for it: Y's card reads them.
 *
 *   X: copy, posted += n, store out{given, posted}, full fence, load asleep:   at or beyond given: put at once; else keep
 *   Y, before it sleeps: WRITE asleep{head} to X, READ of X's out behind it;   given <= head < posted: READ of the ring, and that is head
 *
 * Invariants:
 *   - the card executes Y's READ behind Y's WRITE in X's memory: so X sees asleep, or Y sees out. Once for each head, that is enough: a put that
 *     is under way wakes Y, who asks again;
 *   - X keeps back only what Y knows may be kept back: the word batch{on} goes before a put, which wakes Y. That put, and all others until
 *     it is switched off, say when they are completed;
 *   - what is kept back has no seam and is in one ring; Y pulls only where all that was given to the card has arrived (given <= head; below it
 *     when a part was pulled already), its seams with it: READ's answers keep no order with X's puts (F17);
 *   - X puts later what Y has pulled, the same bytes to the same place. While a pull of [h, ...) is under way Y gives no credit beyond h: its answer
 *     may be late, and must not fall on newer bytes;
 *   - `posted` is what send() returned for, `given` only what the card has: what returns, fills, ends (A4, A7) goes by posted.
 *
 * Whoever does not have the queue pair keeps nothing back and cannot ask; a child asks for the return as ever.
 */
#include <string.h>

#include "wsd_switch/core/agreed.h"

#define KEEP_PART	4	/* of the ring: more is put while another one is under way */
#define COST_TIMES	8	/* of a put's cost between two */
#define COST_MOST_US	500
#define IDLE_MOST	32	/* puts in a row of one send each: it is no flood any more */
#define BUSY_NAP_MS	1
#define ANSWER_US	60	/* a question's round trip is waited for */

/* ---- X: tx_lock, FRAMED, the queue pair is ours ---- */

static bool may(struct road *r)
{
	return r->p.read && r->p.pull && r->p.source && r->peer_reads;
}

/* for Y's card */
static bool publish(struct road *r, uint64_t given, uint64_t posted)
{
	uint64_t *out = (uint64_t *)(void *)((uint8_t *)(uintptr_t)r->ctl + WSD_CTL_OUT), w[4] = { given, posted };
	uint32_t ring = given >= atomic_load_explicit(&r->rs->ring1_from, memory_order_relaxed), rkey, i;

	if (r->p.source(r->p.conn, ring, &w[2], &rkey) != 0)
		return false;
	w[3] = (uint64_t)rkey << 32 | ring;
	for (i = 0; i < 4; i++)
		__atomic_store_n(out + i, w[i], __ATOMIC_RELAXED);
	__atomic_store_n(out + 4, wsd_remote_check(r->nonce, WSD_CTL_OUT, w, 4), __ATOMIC_RELEASE);
	return true;
}

static bool asleep(const struct road *r, uint64_t given)
{
	uint64_t w[1];

	return road_record(r, WSD_CTL_ASLEEP, w, 1) && w[0] >= given;
}

bool batch_keep(struct road *r)
{
	uint64_t given = atomic_load_explicit(&r->given, memory_order_relaxed), posted = atomic_load_explicit(&r->rs->posted, memory_order_relaxed);

	if (!r->batch || r->batch_idle > IDLE_MOST || posted - given >= road_tx_size(r) / KEEP_PART ||
	    (atomic_load_explicit(&r->p.state->done, memory_order_acquire) >= given && (int64_t)(r->now - r->put_when) >= (int64_t)r->put_pause) ||
	    !publish(r, given, posted))
		return false;
	atomic_thread_fence(memory_order_seq_cst);
	return !asleep(r, given);
}

void batch_cost(struct road *r, uint64_t since)
{
	uint64_t now = tsc_now(), ticks = now - since;

	r->put_cost += ticks / 8 - r->put_cost / 8;
	r->put_pause = r->put_cost * COST_TIMES < (uint64_t)US(COST_MOST_US) ? r->put_cost * COST_TIMES : (uint64_t)US(COST_MOST_US);
	r->put_when = now;
}

int batch_word(struct road *r, uint32_t n, bool flood)
{
	uint64_t w[2] = { 1 };
	bool on = r->batch;

	if (atomic_load_explicit(&r->rs->posted, memory_order_relaxed) - atomic_load_explicit(&r->given, memory_order_relaxed) > n)
		r->batch_idle = 0;
	else if (on && ++r->batch_idle > IDLE_MOST)
		on = false;
	if (flood && may(r))
		on = true;
	if (likely(on == r->batch))
		return 0;
	r->batch = on;
	r->batch_idle = 0;
	w[0] = on;
	w[1] = wsd_remote_check(r->nonce, WSD_CTL_BATCH, w, 1);
	return r->p.word(r->p.conn, WSD_CTL_BATCH, w, sizeof(w));
}

int batch_put(struct road *r)
{
	uint64_t given = atomic_load_explicit(&r->given, memory_order_relaxed), posted = atomic_load_explicit(&r->rs->posted, memory_order_relaxed);
	uint32_t ring = given >= atomic_load_explicit(&r->rs->ring1_from, memory_order_relaxed);

	int k = r->p.put(r->p.conn, ring | (r->batch ? WSD_PUT_SIGNAL : 0), given, (uint32_t)(posted - given));

	if (likely(!k))
		atomic_store_explicit(&r->given, posted, memory_order_relaxed);
	return k;
}

bool batch_flush(struct conn *c)
{
	struct road *r = road_of(c);
	int k;

	if (likely(!batch_kept(r)))
		return true;
	if (!road_mine(r) || road_error(r) || r->p.hold(r->p.conn, 2) != 0)
		return false;
	k = batch_put(r);
	r->p.release(r->p.conn);
	if (unlikely(k))
		agreed_leave(c, WSD_R_RDMA_FAILED);
	/* a program that answers after each send has no flood */
	r->batch_idle++;
	return !k;
}

static void flush_now(struct thr *t, struct conn *c)
{
	sig_hold();
	if (lock_try(&c->s->tx_lock, thr_tid(t))) {
		if (atomic_load(&road_of(c)->rs->xstate) == WSD_X_FRAMED)
			batch_flush(c);
		lock_drop(&c->s->tx_lock);
	}
	sig_release();
}

void batch_last(struct thr *t, struct conn *c)
{
	if (batch_kept(road_of(c)) && road_mine(road_of(c)))
		flush_now(t, c);
}

/* never waited for: what stays is fetched. Another thread's flood is that thread's */
void agreed_flush(struct thr *t, struct conn *c)
{
	struct road *r = road_of(c);

	if (likely(!batch_kept(r)) || !road_mine(r) ||
	    atomic_load_explicit(&r->sender, memory_order_relaxed) != thr_tid(t))
		return;
	flush_now(t, c);
}

/* ---- Y: rx_lock, FRAMED, the queue pair is ours ---- */

uint64_t batch_credit(const struct road *r)
{
	uint64_t taken = atomic_load(&r->rs->taken), from = atomic_load(&r->pull_from);

	/* in this order: who took bytes that were pulled did it behind the pull's begin */
	return from < taken && atomic_load(&r->p.state->reads) != atomic_load(&r->reads_want) ? from : taken;
}

/*
 * What the last question brought: it is X's, and may be torn. Then X was writing it while it was read, and looks at asleep behind that: as if
 * nothing were kept back. So is one that was never written.
 */
static bool answer(const struct road *r, struct wsd_remote_out *ret)
{
	const uint64_t *in = (const uint64_t *)(const void *)&r->ctl->in;
	uint64_t w[4], check;
	unsigned i;

	for (i = 0; i < 4; i++)
		w[i] = __atomic_load_n(in + i, __ATOMIC_RELAXED);
	check = __atomic_load_n(in + 4, __ATOMIC_RELAXED);
	*ret = (struct wsd_remote_out){ w[0], w[1], w[2], w[3], check };
	return check == wsd_remote_check(r->nonce, WSD_CTL_OUT, w, 4);
}

/*
 * Bytes from *from on that can be had in one piece; 0: none, or nonsense. What the daemon has brought (FILL) and the program has taken is behind
 * the card's head, and is not fetched any more.
 */
static uint32_t to_pull(const struct road *r, uint64_t head, const struct wsd_remote_out *o, uint64_t *from)
{
	uint64_t taken = atomic_load_explicit(&r->rs->taken, memory_order_relaxed), n;
	uint32_t ring = (uint32_t)o->rkey_ring, size = ring ? atomic_load(&r->rs->rx1_size) : r->ring0;

	*from = taken > head ? taken : head;
	n = o->posted - *from;
	if (o->given > head || o->posted <= *from || ring > 1 || ring != road_last_ring(r) || !size || o->posted - taken > size)
		return 0;
	return n < size - (*from & (size - 1)) ? (uint32_t)n : size - (uint32_t)(*from & (size - 1));
}

/* 1: posted, 0: not now, -1: refused */
static int pull(struct road *r, uint64_t from, const struct wsd_remote_out *o, uint32_t n)
{
	int k;

	if (r->p.hold(r->p.conn, 1 | WSD_HOLD_WORDS) != 0)
		return 0;
	atomic_store(&r->pull_from, from);
	k = r->p.pull(r->p.conn, (uint32_t)o->rkey_ring, from, n, o->addr, (uint32_t)(o->rkey_ring >> 32));
	if (!k)
		atomic_fetch_add(&r->reads_want, 1);
	r->p.release(r->p.conn);
	return k ? -1 : 1;
}

static int ask(struct road *r, uint64_t head)
{
	uint64_t w[2] = { head, 0 };
	int k;

	if (r->p.hold(r->p.conn, 2 | WSD_HOLD_WORDS) != 0)
		return 0;
	w[1] = wsd_remote_check(r->nonce, WSD_CTL_ASLEEP, w, 1);
	k = r->p.word(r->p.conn, WSD_CTL_ASLEEP, w, sizeof(w));
	if (!k)
		k = r->p.read(r->p.conn, WSD_CTL_OUT, sizeof(struct wsd_remote_out), WSD_CTL_IN);
	if (!k)
		atomic_fetch_add(&r->reads_want, 1);
	r->p.release(r->p.conn);
	return k ? -1 : 1;
}

static bool under_way(const struct road *r)
{
	return atomic_load(&r->p.state->reads) != atomic_load(&r->reads_want);
}

/* 1: a question or a pull was posted, whose completion wakes; 2: one is under way; 0: not now; -1: nothing is to be had */
static int look(struct road *r)
{
	uint64_t head = atomic_load(&r->rs->head), from;
	struct wsd_remote_out o;
	uint32_t n;
	int k;

	if (under_way(r))
		return 2;
	atomic_store(&r->pull_from, ~0ull);
	if (r->ask_out) {
		n = answer(r, &o) ? to_pull(r, head, &o, &from) : 0;
		k = n ? pull(r, from, &o, n) : -1;
		if (k)
			r->ask_out = false;
		if (k >= 0)
			return k;
	}
	if (r->asked_head == head + 1)
		return -1;
	k = ask(r, head);
	if (k) {	/* one that was refused: the road is broken, and says so */
		r->asked_head = head + 1;
		r->ask_out = k > 0;
	}
	return k;
}

/* its round trip: who only looks now and then shall not have to look three times. Whoever sleeps next would have spun as long */
static bool soon(struct road *r)
{
	uint64_t t0 = tsc_now();
	unsigned looks = 0;

	while (under_way(r) && !road_error(r)) {
		if (tsc_now() - t0 > (uint64_t)US(ANSWER_US))
			return false;
		road_poll(r, 0);
		if (under_way(r))
			road_pause(r, ++looks);
	}
	return !road_error(r);
}

bool batch_ask(struct thr *t, struct conn *c, int fd, unsigned *nap_ms)
{
	struct road *r = road_of(c);
	uint64_t w[1], head;
	int k = -1, i;

	if (likely(!road_record(r, WSD_CTL_BATCH, w, 1) || !w[0]) || !r->p.read || !r->p.pull || !road_mine(r) || road_error(r) ||
	    atomic_load(&r->rs->ystate) != WSD_Y_FRAMED)
		return false;
	head = atomic_load(&r->rs->head);
	for (i = 0; i < 3; i++) {
		if (!agreed_lock(t, c, fd, &c->s->rx_lock))
			return false;
		k = atomic_load(&r->rs->ystate) == WSD_Y_FRAMED ? look(r) : -1;
		agreed_unlock(&c->s->rx_lock);
		/* only for one's own: a path that answers nothing costs each look nothing */
		if (k != 1 || !soon(r))
			break;
	}
	if (k == 0 && (!*nap_ms || *nap_ms > BUSY_NAP_MS))
		*nap_ms = BUSY_NAP_MS;
	return atomic_load(&r->rs->head) != head;
}
