/* SPDX-License-Identifier: MIT */
/*
 * data.c - WSPSend, WSPRecv, WSPRdmaWrite and their completions
 *
 * Always overlapped. The completion's cookie is the overlapped structure. It ends in one of two
 * ways, by bit 0 of hEvent: set, the switch polls and we write the fields, Internal last; clear, we call
 * WPUCompleteOverlappedRequest with the switch's handle. There are no threads: completions are found when the
 * switch calls WSPGetOverlappedResult, or progress().
 */
#include "san_provider/san.h"

static bool polled(const WSAOVERLAPPED *ov)
{
	return (uintptr_t)ov->hEvent & 1;
}

static void set_internal(LPWSAOVERLAPPED ov, ULONG_PTR value)
{
	__atomic_store_n(&ov->Internal, value, __ATOMIC_RELEASE);
}

/* returns the upcalls made: 0 or 1 */
static int complete(SOCKET up, LPWSAOVERLAPPED ov, int error, uint32_t bytes)
{
	INT ignored;

	ov->Offset = 0;
	ov->OffsetHigh = error;
	if (polled(ov)) {
		ov->InternalHigh = bytes;
		set_internal(ov, 0);
		return 0;
	}
	san.up.lpWPUCompleteOverlappedRequest(up, ov, error, bytes, &ignored);
	return 1;
}

static LPWSAOVERLAPPED overlapped_of(const struct rt_completion *wc)
{
	return (LPWSAOVERLAPPED)(uintptr_t)wc->cookie;
}

static void note_end(struct san_sock *k, const struct rt_completion *wc)
{
	if (!polled(overlapped_of(wc)))
		k->n_notify--;
	if (wc->status)
		k->dead = true;
}

int san_poll(struct san_sock *k)
{
	uint64_t handle = k->handle;
	struct rt_completion wc;
	int n = 0;

	/* one at a time: the upcall may close the socket */
	while (k && k->offer && rt_poll(k->offer->conn, &wc, 1) == 1) {
		SOCKET up = k->up;

		note_end(k, &wc);
		n += complete(up, overlapped_of(&wc), san_error_of(wc.status), wc.bytes);
		k = san_sock_get(handle);
	}
	return n;
}

void san_messages_leave(struct san_sock *k)
{
	if (!k->prev_msg)
		return;
	*k->prev_msg = k->next_msg;
	if (k->next_msg)
		k->next_msg->prev_msg = k->prev_msg;
	k->prev_msg = NULL;
	k->next_msg = NULL;
}

static void messages_join(struct san_sock *k)
{
	k->next_msg = san.messages;
	k->prev_msg = &san.messages;
	if (san.messages)
		san.messages->prev_msg = &k->next_msg;
	san.messages = k;
}

void san_abort(struct san_sock *k)
{
	struct rt_completion wc;

	if (k->use == USE_MESSAGES && k->offer && k->offer->conn)
		rt_conn_flush(k->offer->conn, -ECANCELED);
	san_mem_drop_all(k);
	san_messages_leave(k);
	if (k->use != USE_MESSAGES || !k->offer)
		return;
	while (rt_poll(k->offer->conn, &wc, 1) == 1) {
		bool done = !wc.status;	/* had ended before the close */

		complete(k->up, overlapped_of(&wc), done ? 0 : WSA_OPERATION_ABORTED, done ? wc.bytes : 0);
	}
}

/* what every transfer asks first; 0 or a WSA code */
static int ready(struct san_sock *k, const void *bufs, DWORD n, LPWSAOVERLAPPED ov,
		 LPWSAOVERLAPPED_COMPLETION_ROUTINE routine)
{
	if (!k)
		return WSAENOTSOCK;
	if (k->state != SOCK_CONNECTED)
		return WSAENOTCONN;
	if (k->use == USE_RING || k->use == USE_ROAD)
		return WSAEOPNOTSUPP;	/* the switch drives it: no messages beside it */
	if (k->dead)
		return rt_conn_error(k->offer->conn) ? san_error_of(rt_conn_error(k->offer->conn)) :
						       WSAECONNABORTED;
	if (!ov || routine || !n || n > SAN_SGE)
		return WSAEINVAL;
	if (!bufs)
		return WSAEFAULT;
	return 0;
}

static int take_bufs(const struct san_sock *k, const WSABUF *bufs, DWORD n, DWORD rights, struct rt_sge *sge)
{
	for (DWORD i = 0; i < n; i++) {
		if (!san_mem_covers(k, NULL, bufs[i].buf, bufs[i].len, rights))
			return WSAEFAULT;
		sge[i] = (struct rt_sge){ bufs[i].buf, bufs[i].len };
	}
	return 0;
}

static int take_bufs_ex(const struct san_sock *k, const WSABUFEX *bufs, DWORD n, DWORD rights, struct rt_sge *sge)
{
	for (DWORD i = 0; i < n; i++) {
		if (!bufs[i].handle || !san_mem_covers(k, bufs[i].handle, bufs[i].buf, bufs[i].len, rights))
			return WSAEFAULT;
		sge[i] = (struct rt_sge){ bufs[i].buf, bufs[i].len };
	}
	return 0;
}

/* before posting: the end may come before the post returns */
static void begin(struct san_sock *k, LPWSAOVERLAPPED ov)
{
	ov->InternalHigh = 0;
	ov->Offset = ov->OffsetHigh = 0;
	set_internal(ov, WSS_OPERATION_IN_PROGRESS);
	if (k->use == USE_NONE) {
		k->use = USE_MESSAGES;
		messages_join(k);
	}
	if (!polled(ov))
		k->n_notify++;
}

static int posted(struct san_sock *k, LPWSAOVERLAPPED ov, int r, LPINT lpErrno)
{
	if (!r)
		return san_fail(lpErrno, WSA_IO_PENDING);
	set_internal(ov, 0);
	if (!polled(ov))
		k->n_notify--;
	return san_fail(lpErrno, san_error_of(r));
}

int WSPAPI san_send(SOCKET s, LPWSABUF bufs, DWORD n, LPDWORD sent, DWORD flags, LPWSAOVERLAPPED ov,
		    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct rt_sge sge[SAN_SGE];
	int e;
	SAN_ENTRY;

	e = ready(k, bufs, n, ov, routine);
	if (!e && flags)
		e = WSAEOPNOTSUPP;
	if (!e)
		e = take_bufs(k, bufs, n, MEM_READ, sge);
	if (e)
		return san_fail(lpErrno, e);
	begin(k, ov);
	return posted(k, ov, rt_post_send(k->offer->conn, sge, n, (uintptr_t)ov), lpErrno);
}

int WSPAPI san_recv(SOCKET s, LPWSABUF bufs, DWORD n, LPDWORD received, LPDWORD flags, LPWSAOVERLAPPED ov,
		    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct rt_sge sge[SAN_SGE];
	int e;
	SAN_ENTRY;

	e = ready(k, bufs, n, ov, routine);
	if (!e)
		e = take_bufs(k, bufs, n, MEM_WRITE, sge);
	if (e)
		return san_fail(lpErrno, e);
	begin(k, ov);
	return posted(k, ov, rt_post_recv(k->offer->conn, sge, n, (uintptr_t)ov), lpErrno);
}

int WSPAPI san_rdma_write(SOCKET s, LPWSABUFEX bufs, DWORD n, LPVOID desc, DWORD desc_len, DWORD offset,
			  LPDWORD written, DWORD flags, LPWSAOVERLAPPED ov,
			  LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct rt_sge sge[SAN_SGE];
	int e;
	SAN_ENTRY;

	e = ready(k, bufs, n, ov, routine);
	if (!e && flags)
		e = WSAEOPNOTSUPP;
	if (!e && !desc)
		e = WSAEFAULT;
	if (!e)
		e = take_bufs_ex(k, bufs, n, MEM_READ, sge);
	if (e)
		return san_fail(lpErrno, e);
	begin(k, ov);
	return posted(k, ov, rt_post_write(k->offer->conn, sge, n, desc, desc_len, offset, (uintptr_t)ov), lpErrno);
}

int WSPAPI san_rdma_read(SOCKET s, LPWSABUFEX bufs, DWORD n, LPVOID desc, DWORD desc_len, DWORD offset,
			 LPDWORD read, DWORD flags, LPWSAOVERLAPPED ov, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
			 LPWSATHREADID thread, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct rt_sge sge[SAN_SGE];
	int e;
	SAN_ENTRY;

	e = ready(k, bufs, n, ov, routine);
	if (!e && flags)
		e = WSAEOPNOTSUPP;
	if (!e && !desc)
		e = WSAEFAULT;
	if (!e)
		e = take_bufs_ex(k, bufs, n, MEM_WRITE, sge);
	if (e)
		return san_fail(lpErrno, e);
	begin(k, ov);
	return posted(k, ov, rt_post_read(k->offer->conn, sge, n, desc, desc_len, offset, (uintptr_t)ov), lpErrno);
}

BOOL WSPAPI san_getoverlapped(SOCKET s, LPWSAOVERLAPPED ov, LPDWORD bytes, BOOL wait, LPDWORD flags, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	SAN_ENTRY;

	if (!k) {
		san_fail(lpErrno, WSAENOTSOCK);
		return FALSE;
	}
	if (!ov || !bytes || !flags) {
		san_fail(lpErrno, WSAEFAULT);
		return FALSE;
	}
	if (k->use == USE_MESSAGES)
		san_poll(k);
	if (__atomic_load_n(&ov->Internal, __ATOMIC_ACQUIRE) == WSS_OPERATION_IN_PROGRESS) {
		san_fail(lpErrno, WSA_IO_INCOMPLETE);	/* waiting, if asked, is the switch's to do */
		return FALSE;
	}
	*bytes = (DWORD)ov->InternalHigh;
	*flags = ov->Offset;
	if (ov->OffsetHigh) {
		san_fail(lpErrno, (int)ov->OffsetHigh);
		return FALSE;
	}
	return TRUE;
}
