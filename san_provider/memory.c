/* SPDX-License-Identifier: MIT */
/*
 * memory.c - registered memory of one socket
 *
 * Local registrations are bookkeeping here: shared memory needs no pinning, but rights and
 * bounds hold as on any SAN. Equal registrations (address, length, rights) share one entry and are counted.
 * Spans for the peer are the transport's, which alone decides what a descriptor reaches.
 */
#include <stdlib.h>
#include <string.h>

#include "san_provider/san.h"

struct san_mem {
	struct san_mem *next;
	char *addr;
	uint32_t len;
	DWORD rights;
	uint32_t refs;
	struct rt_mr *mr;		/* spans for the peer; NULL: local */
};

static struct san_mem *find_equal(const struct san_sock *k, const void *buf, DWORD len, DWORD rights, bool rdma)
{
	for (struct san_mem *m = k->mem; m; m = m->next)
		if (m->addr == buf && m->len == len && m->rights == rights && !!m->mr == rdma)
			return m;
	return NULL;
}

static int check(const struct san_sock *k, const void *buf, DWORD len, DWORD rights)
{
	if (!k)
		return WSAENOTSOCK;
	if (!rights || (rights & ~MEM_READWRITE))
		return WSAEINVAL;
	if (!buf || !len || (uintptr_t)buf + len < (uintptr_t)buf)
		return WSAEFAULT;
	if (k->state != SOCK_CONNECTED)
		return WSAENOTCONN;
	return 0;
}

/* found and counted, or new; NULL: WSAENOBUFS */
static struct san_mem *enter(struct san_sock *k, void *buf, DWORD len, DWORD rights, bool rdma)
{
	struct san_mem *m = find_equal(k, buf, len, rights, rdma);

	if (m) {
		if (m->refs == UINT32_MAX)
			return NULL;
		m->refs++;
		return m;
	}
	if ((rdma ? k->n_rdma : k->n_local) >= SAN_REGISTRATIONS)
		return NULL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	if (rdma && rt_mr_new(&m->mr, k->offer->conn, buf, len,
			      (rights & MEM_READ ? RT_ACCESS_READ : 0) | (rights & MEM_WRITE ? RT_ACCESS_WRITE : 0))) {
		free(m);
		return NULL;
	}
	m->addr = buf;
	m->len = len;
	m->rights = rights;
	m->refs = 1;
	m->next = k->mem;
	k->mem = m;
	(*(rdma ? &k->n_rdma : &k->n_local))++;
	return m;
}

static void leave(struct san_sock *k, struct san_mem *m)
{
	struct san_mem **p = &k->mem;

	if (--m->refs)
		return;
	while (*p != m)
		p = &(*p)->next;
	*p = m->next;
	(*(m->mr ? &k->n_rdma : &k->n_local))--;
	rt_mr_drop(m->mr);
	free(m);
}

void san_mem_drop_all(struct san_sock *k)
{
	while (k->mem) {
		k->mem->refs = 1;
		leave(k, k->mem);
	}
}

bool san_mem_covers(const struct san_sock *k, HANDLE h, const void *p, uint32_t len, DWORD rights)
{
	const char *a = p;

	for (const struct san_mem *m = k->mem; m; m = m->next)
		if (!m->mr && (!h || h == m) && (m->rights & rights) == rights && a >= m->addr &&
		    (size_t)(a - m->addr) <= m->len && len <= m->len - (size_t)(a - m->addr))
			return true;
	return false;
}

HANDLE WSPAPI san_register(SOCKET s, PVOID buf, DWORD len, DWORD flags, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct san_mem *m;
	int e = check(k, buf, len, flags);
	SAN_ENTRY;

	if (e) {
		san_fail(lpErrno, e);
		return NULL;
	}
	m = enter(k, buf, len, flags, false);
	if (!m)
		san_fail(lpErrno, WSAENOBUFS);
	return m;
}

int WSPAPI san_deregister(SOCKET s, HANDLE h, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	for (struct san_mem *m = k->mem; m; m = m->next)
		if (m == h && !m->mr) {
			leave(k, m);
			return 0;
		}
	return san_fail(lpErrno, WSAEINVAL);
}

int WSPAPI san_register_rdma(SOCKET s, PVOID buf, DWORD len, DWORD flags, LPVOID desc, LPDWORD desc_len, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	uint32_t need = san.starts ? rt_ctx_limits(san.rt)->desc_len : 0;
	struct san_mem *m;
	int e = check(k, buf, len, flags);
	SAN_ENTRY;

	if (!e && !desc_len)
		e = WSAEFAULT;
	if (!e && (k->use == USE_RING || k->use == USE_ROAD))
		e = WSAEOPNOTSUPP;
	if (!e && (!desc || *desc_len < need)) {
		*desc_len = need;
		e = WSAEFAULT;
	}
	if (e)
		return san_fail(lpErrno, e);
	m = enter(k, buf, len, flags, true);
	if (!m)
		return san_fail(lpErrno, WSAENOBUFS);
	if (rt_mr_desc(m->mr, desc, need)) {
		leave(k, m);
		return san_fail(lpErrno, WSAENOBUFS);
	}
	*desc_len = need;
	return 0;
}

int WSPAPI san_deregister_rdma(SOCKET s, LPVOID desc, DWORD desc_len, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	char own[RT_DESC_MAX];
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (!desc || desc_len != rt_ctx_limits(san.rt)->desc_len)
		return san_fail(lpErrno, WSAEINVAL);
	for (struct san_mem *m = k->mem; m; m = m->next)
		if (m->mr && !rt_mr_desc(m->mr, own, sizeof(own)) && !memcmp(own, desc, desc_len)) {
			leave(k, m);
			return 0;
		}
	return san_fail(lpErrno, WSAEINVAL);
}
