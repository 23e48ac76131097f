/* SPDX-License-Identifier: MIT */
/* mr.c - spans of the caller's memory: keys of their own for each connection */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/verbs/verbs.h"

static struct v_mr *v_mr(const struct rt_mr *mr)
{
	return (struct v_mr *)mr->priv;
}

int v_mr_open(struct rt_mr *mr)
{
	struct v_conn *c = v_conn(mr->conn);
	struct v_mr *m = v_mr(mr);
	struct v_guard g;
	int access = 0, r;

	if (c->ctx->orphan || c->orphan)
		return -ECONNRESET;
	RT_FAULT_POINT(r, -ENOMEM, err);
	/* a local one may be the target of a receive or a read */
	access |= IBV_ACCESS_LOCAL_WRITE;
	access |= mr->access & RT_ACCESS_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0;
	access |= mr->access & RT_ACCESS_READ ? IBV_ACCESS_REMOTE_READ : 0;
	v_look_wait(c->ctx, &g);
	r = -ECONNRESET;
	if (c->qp) {
		m->mr = c->ctx->lib->reg_mr(c->dev->domain[c->domain].pd, mr->addr, mr->len, access);
		if (!m->mr && errno == EFAULT)	/* memory that may only be read */
			m->mr = c->ctx->lib->reg_mr(c->dev->domain[c->domain].pd, mr->addr, mr->len, access & IBV_ACCESS_REMOTE_READ);
		r = m->mr ? 0 : v_errno(errno);
	}
	if (!r) {
		m->rt = mr;
		m->next = c->mrs;
		c->mrs = m;
	}
	v_look_done(c->ctx, &g);
	return r;

err:
	__attribute__((unused));
	return r;
}

void v_mr_close(struct rt_mr *mr)
{
	struct v_conn *c = v_conn(mr->conn);
	struct v_mr *m = v_mr(mr), **p = &c->mrs;
	struct v_guard g;

	if (c->ctx->orphan || c->orphan)
		return;
	v_look_wait(c->ctx, &g);
	while (*p && *p != m)
		p = &(*p)->next;
	if (*p)
		*p = m->next;
	if (m->mr)
		c->ctx->lib->dereg_mr(m->mr);
	v_look_done(c->ctx, &g);
}

int v_mr_desc(const struct rt_mr *mr, void *buf)
{
	struct v_mr *m = v_mr(mr);
	struct v_desc d;

	if (!m->mr)
		return -ENETDOWN;
	d = (struct v_desc){ htole64((uintptr_t)mr->addr), htole32(m->mr->rkey), htole32(mr->len), htole32(mr->access), 0 };
	memcpy(buf, &d, sizeof(d));
	return 0;
}

bool v_mr_find(const struct v_conn *c, const void *addr, uint32_t len, uint32_t *ret_lkey)
{
	for (const struct v_mr *m = c->mrs; m; m = m->next) {
		uintptr_t from = (uintptr_t)m->rt->addr;

		if (m->mr && (uintptr_t)addr >= from && (uintptr_t)addr - from <= m->rt->len && len <= m->rt->len - ((uintptr_t)addr - from)) {
			*ret_lkey = m->mr->lkey;
			return true;
		}
	}
	return false;
}
