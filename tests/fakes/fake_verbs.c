/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fakes/fake_verbs.h"

#define N_GIDS	4
#define GID_AT	3

#define NEVER(x) do { if (x) { fprintf(stderr, "fake_verbs: %s:%d: %s\n", __func__, __LINE__, #x); abort(); } } while (0)

struct ev {
	struct ev *next;
	struct ibv_async_event e;
};
struct fctx {
	struct ibv_context c;
	struct ev *events;
	unsigned children;
};
struct fpd {
	struct ibv_pd p;
	unsigned children;
};
struct fmr {
	struct ibv_mr m;
	int access;
	struct fmr *next;
};
struct fcq {
	struct ibv_cq q;
	struct ibv_wc *wc;
	unsigned n, users, events, acked;
	bool notify;
};
struct fchannel {
	struct ibv_comp_channel ch;
	struct ibv_cq *queue[64];
	unsigned n, users;
};
struct packet {
	struct ibv_send_wr wr;
	struct ibv_sge sge[8];
	uint8_t data[512];
	bool in_line;
	struct packet *next;
};
struct late {
	uint8_t *to, *data;
	size_t n;
	struct late *next;
};
struct recv {
	uint64_t wr_id;
	struct ibv_sge sge[8];
	int n;
};
struct fqp {
	struct ibv_qp q;
	struct ibv_qp_cap cap;
	enum ibv_qp_state state;
	uint32_t dest, rq_psn, sq_psn, access;
	enum ibv_mtu mtu;
	union ibv_gid dgid;
	struct packet *first, **end;
	unsigned sq_used, unsignalled;	/* slots that no completion has given back */
	struct recv rq[256];
	unsigned rq_at, rq_n;
	struct late *late;
	struct fqp *next;
};

static pthread_mutex_t lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct fmr *mrs;
static struct fqp *qps;
static unsigned live, live_domains, chain_max, n_signalled;
static uint32_t next_qpn = 0x100, next_key = 0x1000;
static bool held, dropped, late_data;
static unsigned tear;
static uint32_t lie, lie_post;
static unsigned events_got, events_acked;
static struct { unsigned calls, left; int error; void (*on)(void); } plan[_FV_N];
static unsigned gid_at = GID_AT;
static int covered;
static bool fork_safe;

static void init(void)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&lock, &a);
}

static void enter(void)
{
	pthread_once(&once, init);
	pthread_mutex_lock(&lock);
}

static void leave(void)
{
	int e = errno;

	pthread_mutex_unlock(&lock);
	errno = e;
}

static int hit(enum fv_fn fn)
{
	plan[fn].calls++;
	if (plan[fn].on)
		plan[fn].on();
	if (plan[fn].left && !--plan[fn].left) {
		errno = plan[fn].error;
		return plan[fn].error;
	}
	return 0;
}

/* ---- devices ---- */

static struct ibv_device device = { .name = "fake0", .dev_name = "uverbs-fake0" };

static struct ibv_device **f_get_device_list(int *n)
{
	struct ibv_device **l;

	enter();
	l = hit(FV_get_device_list) ? NULL : calloc(2, sizeof(*l));
	if (l) {
		l[0] = &device;
		*n = 1;
		live++;
	}
	leave();
	return l;
}

static void f_free_device_list(struct ibv_device **l)
{
	enter();
	live--;
	free(l);
	leave();
}

static const char *f_get_device_name(struct ibv_device *d)
{
	return d->name;
}

static struct ibv_context *f_open_device(struct ibv_device *d)
{
	struct fctx *x = NULL;

	enter();
	if (!hit(FV_open_device)) {
		x = calloc(1, sizeof(*x));
		x->c.device = d;
		x->c.cmd_fd = eventfd(0, EFD_CLOEXEC);
		x->c.async_fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
		live++;
	}
	leave();
	return x ? &x->c : NULL;
}

static void close_fd(int fd)
{
	NEVER(fd >= 0 && !(covered && fd >= covered) && close(fd));
}

static int f_close_device(struct ibv_context *c)
{
	struct fctx *x = (struct fctx *)c;

	enter();
	NEVER(x->children);
	NEVER(events_got != events_acked);
	close_fd(c->cmd_fd);
	close_fd(c->async_fd);
	while (x->events) {
		struct ev *e = x->events;

		x->events = e->next;
		free(e);
	}
	free(x);
	live--;
	leave();
	return 0;
}

static int f_query_device(struct ibv_context *c, struct ibv_device_attr *a)
{
	int r;

	enter();
	r = hit(FV_query_device);
	memset(a, 0, sizeof(*a));
	a->max_cqe = 32767;
	a->vendor_id = 0xffffff;
	leave();
	return r;
}

static int f_query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a)
{
	int r;

	enter();
	r = hit(FV_query_port) ?: port == 1 ? 0 : EINVAL;
	a->state = IBV_PORT_ACTIVE;
	a->active_mtu = IBV_MTU_1024;
	a->gid_tbl_len = 16;
	a->link_layer = IBV_LINK_LAYER_ETHERNET;
	leave();
	return r;
}

static void gid_of(unsigned i, uint8_t gid[16])
{
	memset(gid, 0, 16);
	gid[10] = gid[11] = 0xff;
	gid[12] = 10;
	gid[13] = 9;
	gid[15] = (uint8_t)(i + 1);
}

struct rt_path fv_path(unsigned i)
{
	struct rt_path p = { .device = "fake0", .port = 1, .mtu = IBV_MTU_4096, .timeout = 14, .retry = 7, .rnr_retry = 6 };

	gid_of(i, p.gid);
	return p;
}

static ssize_t f_query_gid_table(struct ibv_context *c, struct ibv_gid_entry *e, size_t max, uint32_t flags, size_t size)
{
	ssize_t n = 0;

	enter();
	if (hit(FV_query_gid_table))
		n = -plan[FV_query_gid_table].error;
	for (unsigned i = 0; n >= 0 && i < N_GIDS; i++)
		for (int type = IBV_GID_TYPE_ROCE_V1; type <= IBV_GID_TYPE_ROCE_V2; type++) {
			NEVER((size_t)n >= max);
			gid_of(i, e[n].gid.raw);
			e[n].gid_index = type == IBV_GID_TYPE_ROCE_V2 ? gid_at + i : gid_at + 7 + i;
			e[n].port_num = 1;
			e[n++].gid_type = (uint32_t)type;
		}
	leave();
	return n;
}

/* ---- domains, regions ---- */

static struct ibv_pd *f_alloc_pd(struct ibv_context *c)
{
	struct fpd *p = NULL;

	enter();
	if (!hit(FV_alloc_pd)) {
		p = calloc(1, sizeof(*p));
		p->p.context = c;
		((struct fctx *)c)->children++;
		live++;
		live_domains++;
	}
	leave();
	return p ? &p->p : NULL;
}

static int f_dealloc_pd(struct ibv_pd *pd)
{
	struct fpd *p = (struct fpd *)pd;

	enter();
	NEVER(p->children);
	((struct fctx *)pd->context)->children--;
	free(p);
	live--;
	live_domains--;
	leave();
	return 0;
}

static struct ibv_mr *f_reg_mr(struct ibv_pd *pd, void *addr, size_t n, int access)
{
	struct fmr *m = NULL;

	enter();
	NEVER((access & IBV_ACCESS_REMOTE_WRITE) && !(access & IBV_ACCESS_LOCAL_WRITE));
	if (!hit(FV_reg_mr)) {
		m = calloc(1, sizeof(*m));
		m->m = (struct ibv_mr){ .context = pd->context, .pd = pd, .addr = addr, .length = n };
		m->m.lkey = m->m.rkey = next_key += 0x101;
		m->access = access;
		if (fork_safe)
			madvise(addr, n, MADV_DONTFORK);
		m->next = mrs;
		mrs = m;
		((struct fpd *)pd)->children++;
		live++;
	}
	leave();
	return m ? &m->m : NULL;
}

static int f_dereg_mr(struct ibv_mr *mr)
{
	struct fmr **p = &mrs;

	enter();
	while (*p && &(*p)->m != mr)
		p = &(*p)->next;
	NEVER(!*p);
	*p = (*p)->next;
	((struct fpd *)mr->pd)->children--;
	free(mr);
	live--;
	leave();
	return 0;
}

/* remote: rkey and remote access; else lkey */
static bool reach(const struct ibv_pd *pd, uint32_t key, uint64_t addr, uint64_t n, int access)
{
	if (!n)
		return true;
	for (const struct fmr *m = mrs; m; m = m->next)
		if (m->m.rkey == key)
			return m->m.pd == pd && (m->access & access) == access && addr >= (uintptr_t)m->m.addr &&
			       addr - (uintptr_t)m->m.addr <= m->m.length && n <= m->m.length - (addr - (uintptr_t)m->m.addr);
	return false;
}

/* ---- completions ---- */

static struct ibv_comp_channel *f_create_comp_channel(struct ibv_context *c)
{
	struct fchannel *ch = NULL;

	enter();
	if (!hit(FV_create_comp_channel)) {
		ch = calloc(1, sizeof(*ch));
		ch->ch.context = c;
		ch->ch.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
		((struct fctx *)c)->children++;
		live++;
	}
	leave();
	return ch ? &ch->ch : NULL;
}

static int f_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	struct fchannel *ch = (struct fchannel *)channel;

	enter();
	NEVER(ch->users);
	close_fd(ch->ch.fd);
	((struct fctx *)ch->ch.context)->children--;
	free(ch);
	live--;
	leave();
	return 0;
}

static struct ibv_cq *f_create_cq(struct ibv_context *c, int cqe, void *cookie, struct ibv_comp_channel *channel, int vector)
{
	struct fcq *q = NULL;

	enter();
	if (!hit(FV_create_cq)) {
		q = calloc(1, sizeof(*q));
		q->q = (struct ibv_cq){ .context = c, .channel = channel, .cq_context = cookie, .cqe = cqe };
		q->wc = calloc((size_t)cqe, sizeof(*q->wc));
		((struct fchannel *)channel)->users++;
		((struct fctx *)c)->children++;
		live++;
	}
	leave();
	return q ? &q->q : NULL;
}

static int f_destroy_cq(struct ibv_cq *cq)
{
	struct fcq *q = (struct fcq *)cq;
	struct fchannel *ch = (struct fchannel *)cq->channel;
	unsigned k = 0;

	enter();
	NEVER(q->users);
	NEVER(q->events != q->acked);
	for (unsigned i = 0; i < ch->n; i++)
		if (ch->queue[i] != cq)
			ch->queue[k++] = ch->queue[i];
	ch->n = k;
	ch->users--;
	((struct fctx *)cq->context)->children--;
	free(q->wc);
	free(q);
	live--;
	leave();
	return 0;
}

static int f_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cookie)
{
	struct fchannel *ch = (struct fchannel *)channel;
	uint64_t one;
	int r = -1;

	if (hit(FV_get_cq_event) || read(channel->fd, &one, 8) != 8)
		return -1;
	enter();
	if (ch->n) {
		*cq = ch->queue[0];
		*cookie = (*cq)->cq_context;
		((struct fcq *)*cq)->events++;
		memmove(ch->queue, ch->queue + 1, --ch->n * sizeof(*ch->queue));
		r = 0;
	} else {
		errno = EAGAIN;
	}
	leave();
	return r;
}

static void f_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
	enter();
	((struct fcq *)cq)->acked += n;
	leave();
}

static int f_req_notify_cq(struct ibv_cq *cq, int solicited)
{
	int r;

	enter();
	r = hit(FV_req_notify_cq);
	if (!r)
		((struct fcq *)cq)->notify = true;
	leave();
	return r;
}

static int f_poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wc)
{
	struct fcq *q = (struct fcq *)cq;
	int n;

	enter();
	if (hit(FV_poll_cq)) {
		leave();
		return -1;
	}
	n = (int)q->n < max ? (int)q->n : max;
	memcpy(wc, q->wc, (size_t)n * sizeof(*wc));
	q->n -= (unsigned)n;
	memmove(q->wc, q->wc + n, q->n * sizeof(*wc));
	leave();
	return n;
}

static void complete(struct ibv_cq *cq, const struct ibv_wc *wc)
{
	struct fcq *q = (struct fcq *)cq;
	struct fchannel *ch = (struct fchannel *)cq->channel;
	uint64_t one = 1;

	NEVER(q->n >= (unsigned)cq->cqe);
	q->wc[q->n++] = *wc;
	if (q->notify) {
		q->notify = false;
		NEVER(ch->n == 64);
		ch->queue[ch->n++] = cq;
		NEVER(write(ch->ch.fd, &one, 8) != 8);
	}
}

static void async(struct ibv_context *c, const struct ibv_async_event *e)
{
	struct fctx *x = (struct fctx *)c;
	struct ev **p = &x->events;
	uint64_t one = 1;

	while (*p)
		p = &(*p)->next;
	*p = calloc(1, sizeof(**p));
	(*p)->e = *e;
	NEVER(write(c->async_fd, &one, 8) != 8);
}

static int f_get_async_event(struct ibv_context *c, struct ibv_async_event *e)
{
	struct fctx *x = (struct fctx *)c;
	uint64_t one;

	if (hit(FV_get_async_event) || read(c->async_fd, &one, 8) != 8)
		return -1;
	enter();
	if (x->events) {
		struct ev *first = x->events;

		*e = first->e;
		x->events = first->next;
		free(first);
		events_got++;
		leave();
		return 0;
	}
	leave();
	errno = EAGAIN;
	return -1;
}

static void f_ack_async_event(struct ibv_async_event *e)
{
	enter();
	events_acked++;
	leave();
}

/* ---- queue pairs ---- */

static struct fqp *find(uint32_t qpn)
{
	struct fqp *q = qps;

	while (q && q->q.qp_num != qpn)
		q = q->next;
	return q;
}

static struct ibv_qp *f_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct fqp *q = NULL;

	enter();
	if (!hit(FV_create_qp)) {
		NEVER(a->sq_sig_all || a->qp_type != IBV_QPT_RC || a->cap.max_recv_wr > 256 || a->cap.max_send_sge > 8);
		q = calloc(1, sizeof(*q));
		q->q = (struct ibv_qp){ .context = pd->context, .pd = pd, .send_cq = a->send_cq, .recv_cq = a->recv_cq, .qp_type = a->qp_type };
		q->q.qp_num = next_qpn += 7;
		q->cap = a->cap;
		q->end = &q->first;
		q->next = qps;
		qps = q;
		((struct fpd *)pd)->children++;
		((struct fcq *)a->send_cq)->users++;
		live++;
	}
	leave();
	return q ? &q->q : NULL;
}

/* Pages stay registered, and are written, when nobody maps them any more */
static bool mapped(const void *p)
{
	return msync((void *)((uintptr_t)p & ~4095ul), 4096, MS_ASYNC) == 0;
}

static void show_late(struct fqp *q)
{
	while (q->late) {
		struct late *l = q->late;

		q->late = l->next;
		if (mapped(l->to))
			memcpy(l->to, l->data, l->n);
		free(l->data);
		free(l);
	}
}

static void drop_all(struct fqp *q, bool flush)
{
	while (q->first) {
		struct packet *p = q->first;

		q->first = p->next;
		if (flush)
			complete(q->q.send_cq, &(struct ibv_wc){ .wr_id = p->wr.wr_id, .status = IBV_WC_WR_FLUSH_ERR, .qp_num = q->q.qp_num });
		free(p);
	}
	q->end = &q->first;
	while (q->rq_n) {
		if (flush)
			complete(q->q.recv_cq, &(struct ibv_wc){ .wr_id = q->rq[q->rq_at].wr_id, .status = IBV_WC_WR_FLUSH_ERR, .qp_num = q->q.qp_num });
		q->rq_at = (q->rq_at + 1) % 256;
		q->rq_n--;
	}
}

static int f_destroy_qp(struct ibv_qp *qp)
{
	struct fqp **p = &qps, *q = (struct fqp *)qp;

	enter();
	show_late(q);
	drop_all(q, false);
	while (*p != q)
		p = &(*p)->next;
	*p = q->next;
	((struct fpd *)qp->pd)->children--;
	((struct fcq *)qp->send_cq)->users--;
	free(q);
	live--;
	leave();
	return 0;
}

static int f_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *a, int mask)
{
	struct fqp *q = (struct fqp *)qp;
	int r;

	enter();
	r = hit(FV_modify_qp);
	if (r)
		goto out;
	NEVER(!(mask & IBV_QP_STATE));
	switch (a->qp_state) {
	case IBV_QPS_RESET:
		drop_all(q, false);
		break;
	case IBV_QPS_ERR:
		drop_all(q, true);
		break;
	case IBV_QPS_INIT:
		NEVER(q->state != IBV_QPS_RESET || a->port_num != 1);
		q->access = a->qp_access_flags;
		break;
	case IBV_QPS_RTR:
		NEVER(q->state != IBV_QPS_INIT);
		NEVER(a->ah_attr.grh.sgid_index < gid_at || a->ah_attr.grh.sgid_index >= gid_at + N_GIDS || !a->ah_attr.is_global);
		q->mtu = a->path_mtu;
		q->dest = a->dest_qp_num;
		q->rq_psn = a->rq_psn;
		q->dgid = a->ah_attr.grh.dgid;
		break;
	case IBV_QPS_RTS:
		NEVER(q->state != IBV_QPS_RTR || !a->timeout || a->rnr_retry == 7);
		q->sq_psn = a->sq_psn;
		break;
	default:
		NEVER(true);
	}
	q->state = a->qp_state;
out:
	leave();
	return r;
}

static int f_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct fqp *q = (struct fqp *)qp;
	int r;

	enter();
	r = hit(FV_post_recv);
	for (; wr && !r; wr = wr->next) {
		struct recv *v = &q->rq[(q->rq_at + q->rq_n) % 256];

		*bad = wr;
		NEVER(q->state == IBV_QPS_RESET);
		NEVER(q->rq_n >= q->cap.max_recv_wr || wr->num_sge > (int)q->cap.max_recv_sge);
		v->wr_id = wr->wr_id;
		v->n = wr->num_sge;
		for (int i = 0; i < wr->num_sge; i++) {
			v->sge[i] = wr->sg_list[i];
			NEVER(!reach(qp->pd, v->sge[i].lkey, v->sge[i].addr, v->sge[i].length, IBV_ACCESS_LOCAL_WRITE));
		}
		if (q->state == IBV_QPS_ERR)
			complete(qp->recv_cq, &(struct ibv_wc){ .wr_id = v->wr_id, .status = IBV_WC_WR_FLUSH_ERR, .qp_num = qp->qp_num });
		else
			q->rq_n++;
	}
	leave();
	return r;
}

static void to_error(struct fqp *q, bool tell)
{
	struct ibv_async_event e = { .event_type = IBV_EVENT_QP_ACCESS_ERR, .element.qp = &q->q };

	if (q->state == IBV_QPS_ERR)
		return;
	drop_all(q, true);
	q->state = IBV_QPS_ERR;
	if (tell)
		async(q->q.context, &e);
}

static void write_to(struct fqp *peer, uint64_t addr, const uint8_t *p, size_t n, bool now)
{
	size_t first = now || !(late_data || tear) ? n : late_data ? 0 : n < tear ? n : tear;
	struct late *l, **end = &peer->late;

	if (!mapped((void *)(uintptr_t)addr))
		return;
	memcpy((void *)(uintptr_t)addr, p, first);
	if (first == n)
		return;
	l = calloc(1, sizeof(*l));
	l->to = (uint8_t *)(uintptr_t)addr + first;
	l->n = n - first;
	l->data = malloc(l->n);
	memcpy(l->data, p + first, l->n);
	while (*end)
		end = &(*end)->next;
	*end = l;
}

/* the packet at the front; how it ended */
static enum ibv_wc_status deliver(struct fqp *q, struct packet *p)
{
	struct fqp *peer = find(q->dest);
	bool message = p->wr.opcode == IBV_WR_SEND, imm = p->wr.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
	bool read = p->wr.opcode == IBV_WR_RDMA_READ;
	uint64_t total = 0, at = p->wr.wr.rdma.remote_addr;
	uint8_t *all, *to;
	struct ibv_wc wc;

	if (dropped || !peer || peer->dest != q->q.qp_num || (peer->state != IBV_QPS_RTS && peer->state != IBV_QPS_RTR) ||
	    peer->rq_psn != q->sq_psn)
		return IBV_WC_RETRY_EXC_ERR;
	for (int i = 0; i < p->wr.num_sge; i++)
		total += p->sge[i].length;
	if (message || imm) {
		NEVER(!peer->rq_n);	/* receiver not ready */
		show_late(peer);
	}
	if (!message && (!reach(peer->q.pd, p->wr.wr.rdma.rkey, at, total, read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE))) {
		to_error(peer, true);
		return IBV_WC_REM_ACCESS_ERR;
	}
	all = malloc(total + 1);
	to = all;
	if (read) {
		show_late(peer);
		memcpy(all, (void *)(uintptr_t)at, total);
	}
	for (int i = 0; i < p->wr.num_sge; i++) {
		struct ibv_sge *s = &p->sge[i];
		void *mine = p->in_line ? p->data + (to - all) : (void *)(uintptr_t)s->addr;

		if (!p->in_line && !reach(q->q.pd, s->lkey, s->addr, s->length, read ? IBV_ACCESS_LOCAL_WRITE : 0)) {
			free(all);
			return IBV_WC_LOC_PROT_ERR;
		}
		if (read)
			memcpy(mine, to, s->length);
		else
			memcpy(to, mine, s->length);
		to += s->length;
	}
	wc = (struct ibv_wc){ .qp_num = peer->q.qp_num, .byte_len = (uint32_t)total, .status = IBV_WC_SUCCESS };
	if (message || imm) {
		struct recv *v = &peer->rq[peer->rq_at];

		wc.wr_id = v->wr_id;
		wc.opcode = message ? IBV_WC_RECV : IBV_WC_RECV_RDMA_WITH_IMM;
		wc.wc_flags = imm ? IBV_WC_WITH_IMM : 0;
		wc.imm_data = imm ? htonl(ntohl(p->wr.imm_data) + lie) : 0;
		lie = imm ? 0 : lie;
		if (message) {
			uint64_t room = 0, left = total;

			for (int i = 0; i < v->n; i++)
				room += v->sge[i].length;
			to = all;
			for (int i = 0; i < v->n && room >= total; i++) {
				uint32_t n = v->sge[i].length < left ? v->sge[i].length : (uint32_t)left;

				NEVER(!reach(peer->q.pd, v->sge[i].lkey, v->sge[i].addr, n, IBV_ACCESS_LOCAL_WRITE));
				memcpy((void *)(uintptr_t)v->sge[i].addr, to, n);
				to += n;
				left -= n;
			}
			if (room < total)
				wc.status = IBV_WC_LOC_LEN_ERR;
		}
		peer->rq_at = (peer->rq_at + 1) % 256;
		peer->rq_n--;
	}
	if (!message && !read && total)
		write_to(peer, at, all, total, imm);
	if (message || imm)
		complete(peer->q.recv_cq, &wc);
	free(all);
	if (wc.status) {
		to_error(peer, false);
		return IBV_WC_REM_INV_REQ_ERR;
	}
	return IBV_WC_SUCCESS;
}

static bool step(struct fqp *q)
{
	struct packet *p = q->first;
	enum ibv_wc_status status;

	if (!p)
		return false;
	q->first = p->next;
	if (!q->first)
		q->end = &q->first;
	status = deliver(q, p);
	q->unsignalled++;
	if (p->wr.send_flags & IBV_SEND_SIGNALED || status) {
		struct ibv_wc wc = { .wr_id = p->wr.wr_id, .status = status, .qp_num = q->q.qp_num };

		wc.wr_id += lie_post;
		lie_post = 0;
		wc.opcode = p->wr.opcode == IBV_WR_RDMA_READ ? IBV_WC_RDMA_READ : IBV_WC_RDMA_WRITE;
		q->sq_used -= q->unsignalled;
		q->unsignalled = 0;
		complete(q->q.send_cq, &wc);
	}
	free(p);
	if (status)
		to_error(q, false);
	return true;
}

static int f_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct fqp *q = (struct fqp *)qp;
	unsigned n = 0;
	int r;

	enter();
	r = hit(FV_post_send);
	for (; wr && !r; wr = wr->next, n++) {
		struct packet *p = calloc(1, sizeof(*p));
		uint32_t total = 0;

		*bad = wr;
		NEVER(q->state != IBV_QPS_RTS && q->state != IBV_QPS_ERR && q->state != IBV_QPS_RESET);
		NEVER(q->state != IBV_QPS_RESET && q->sq_used >= q->cap.max_send_wr);
		NEVER(wr->num_sge > (int)q->cap.max_send_sge);
		p->wr = *wr;
		p->in_line = wr->send_flags & IBV_SEND_INLINE;
		NEVER(p->in_line && wr->opcode == IBV_WR_RDMA_READ);
		for (int i = 0; i < wr->num_sge; i++) {
			p->sge[i] = wr->sg_list[i];
			if (p->in_line) {
				NEVER(total + p->sge[i].length > q->cap.max_inline_data);
				memcpy(p->data + total, (void *)(uintptr_t)p->sge[i].addr, p->sge[i].length);
			}
			total += p->sge[i].length;
		}
		n_signalled += !!(wr->send_flags & IBV_SEND_SIGNALED);
		if (q->state != IBV_QPS_RTS) {
			if (q->state == IBV_QPS_ERR)
				complete(qp->send_cq, &(struct ibv_wc){ .wr_id = wr->wr_id, .status = IBV_WC_WR_FLUSH_ERR, .qp_num = qp->qp_num });
			free(p);
			continue;
		}
		q->sq_used++;
		*q->end = p;
		q->end = &p->next;
	}
	chain_max = n > chain_max ? n : chain_max;
	while (!held && step(q))
		;
	leave();
	return r;
}

const struct rt_verbs_lib fv_lib = {
#define X(ret, name, args) .name = f_##name,
	RT_VERBS_NAMED(X)
#undef X
	.query_gid_table = f_query_gid_table,
	.post_send = f_post_send,
	.post_recv = f_post_recv,
	.poll_cq = f_poll_cq,
	.req_notify_cq = f_req_notify_cq,
};

/* ---- controls ---- */

void fv_reset(void)
{
	enter();
	NEVER(live);
	held = dropped = late_data = false;
	tear = chain_max = n_signalled = lie = 0;
	memset(plan, 0, sizeof(plan));
	gid_at = GID_AT;
	covered = 0;
	fork_safe = false;
	leave();
}

unsigned fv_live(void)
{
	return live;
}

unsigned fv_live_domains(void)
{
	return live_domains;
}

void fv_fail_nth(enum fv_fn fn, unsigned nth, int error)
{
	enter();
	plan[fn].left = nth;
	plan[fn].error = error;
	leave();
}

unsigned fv_calls(enum fv_fn fn)
{
	return plan[fn].calls;
}

void fv_hold(bool hold)
{
	enter();
	held = hold;
	leave();
	if (!hold)
		fv_step(~0u);
}

unsigned fv_step(unsigned n)
{
	unsigned done = 0;
	bool any = true;

	enter();
	while (any && done < n) {
		any = false;
		for (struct fqp *q = qps; q && done < n; q = q->next)
			if (step(q)) {
				any = true;
				done++;
			}
	}
	leave();
	return done;
}

void fv_drop_path(bool drop)
{
	enter();
	dropped = drop;
	leave();
}

void fv_visible_late(bool late)
{
	enter();
	late_data = late;
	leave();
}

void fv_tear(unsigned bytes)
{
	enter();
	tear = bytes;
	leave();
}

void fv_lie(uint32_t more)
{
	enter();
	lie = more;
	leave();
}

bool fv_stale_write(uint32_t qpn, uint64_t addr, uint32_t rkey, const void *p, size_t n)
{
	struct fqp *q;
	bool lands;

	enter();
	q = find(qpn);
	lands = q && (q->state == IBV_QPS_RTS || q->state == IBV_QPS_RTR) && reach(q->q.pd, rkey, addr, n, IBV_ACCESS_REMOTE_WRITE);
	if (lands)
		memcpy((void *)(uintptr_t)addr, p, n);
	leave();
	return lands;
}

bool fv_write_by(uint32_t qpn, uint64_t addr, uint32_t rkey, const void *p, size_t n)
{
	return fv_stale_write(qpn, addr, rkey, p, n);
}

void fv_message_by(uint32_t qpn)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND }, *bad;
	struct fqp *q;

	enter();
	q = find(qpn);
	NEVER(!q);
	f_post_send(&q->q, &wr, &bad);
	leave();
}

void fv_lie_post(uint32_t more)
{
	enter();
	lie_post = more;
	leave();
}

enum ibv_mtu fv_mtu(uint32_t qpn)
{
	struct fqp *q;
	enum ibv_mtu mtu;

	enter();
	q = find(qpn);
	mtu = q ? q->mtu : 0;
	leave();
	return mtu;
}

void fv_event(enum ibv_event_type type, uint32_t qpn)
{
	struct ibv_async_event e = { .event_type = type };
	struct fqp *q;

	enter();
	q = qpn && type != IBV_EVENT_PORT_ERR ? find(qpn) : qps;
	if (q) {
		if (type == IBV_EVENT_PORT_ERR)
			e.element.port_num = qpn ? (int)qpn : 1;
		else if (qpn)
			e.element.qp = &q->q;
		async(q->q.context, &e);
	}
	leave();
}

void fv_gid_at(unsigned at)
{
	gid_at = at ? at : GID_AT;
}

void fv_cover_from(int fd)
{
	covered = fd;
}

void fv_on(enum fv_fn fn, void (*call)(void))
{
	enter();
	plan[fn].on = call;
	leave();
}

void fv_fork_safe(bool safe)
{
	fork_safe = safe;
}

unsigned fv_longest_chain(void)
{
	return chain_max;
}

unsigned fv_signalled(void)
{
	return n_signalled;
}
