/* SPDX-License-Identifier: MIT */
/* socket.c - SAN sockets: making, binding, closing */
#include <stdlib.h>
#include <string.h>

#include "san_provider/san.h"

static bool family_known(int family)
{
	return family == AF_INET || family == AF_INET6;
}

struct san_sock *san_sock_new(int family, LPINT lpErrno)
{
	struct san_sock *k;
	INT e = WSAENOBUFS;

	k = calloc(1, sizeof(*k));
	if (!k)
		goto err;
	k->family = family;
	k->handle = san_table_add(&san.socks, k);
	if (!k->handle) {
		e = san.socks.n_used >= SAN_SOCKETS ? WSAEMFILE : WSAENOBUFS;
		goto err_free;
	}
	k->up = san.up.lpWPUCreateSocketHandle(0, k->handle, &e);
	if (k->up == INVALID_SOCKET)
		goto err_remove;
	return k;

err_remove:
	san_table_remove(&san.socks, k->handle);
err_free:
	free(k);
err:
	san_fail(lpErrno, e);
	return NULL;
}

SOCKET WSPAPI san_socket(int af, int type, int protocol, LPWSAPROTOCOL_INFOW info, GROUP g, DWORD flags,
			 LPINT lpErrno)
{
	struct san_sock *k;
	int e = 0;
	SAN_ENTRY;

	if (!san.starts)
		e = WSANOTINITIALISED;
	else if (!family_known(af))
		e = WSAEAFNOSUPPORT;
	else if (type != SOCK_STREAM)
		e = WSAESOCKTNOSUPPORT;
	else if (protocol && protocol != IPPROTO_TCP)
		e = WSAEPROTONOSUPPORT;
	else if (flags != WSA_FLAG_OVERLAPPED)
		e = WSAEINVAL;
	else if (info && info->dwProviderReserved)
		e = WSAEINVAL;		/* nothing we ever gave out: see san_duplicate() */
	if (e) {
		san_fail(lpErrno, e);
		return INVALID_SOCKET;
	}
	k = san_sock_new(af, lpErrno);
	return k ? (SOCKET)k->handle : INVALID_SOCKET;
}

int san_addr_take(union san_addr *a, socklen_t *len, int family, const struct sockaddr *name, int namelen)
{
	socklen_t need = family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);

	if (!name || namelen < (int)need)
		return WSAEFAULT;
	if (name->sa_family != family)
		return WSAEAFNOSUPPORT;
	memcpy(a, name, need);
	*len = need;
	return 0;
}

int WSPAPI san_bind(SOCKET s, const struct sockaddr *name, int namelen, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	int e;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (k->state != SOCK_NEW)
		return san_fail(lpErrno, WSAEINVAL);
	e = san_addr_take(&k->local, &k->local_len, k->family, name, namelen);
	if (e)
		return san_fail(lpErrno, e == WSAEAFNOSUPPORT ? WSAEINVAL : e);
	k->state = SOCK_BOUND;
	return 0;
}

/*
 * The order is the contract: operations end and their memory goes before they are reported, and
 * the last upcall gives back the switch's handle. The socket leaves the table first, so an upcall that comes
 * back to us finds it gone.
 */
void san_sock_close(struct san_sock *k)
{
	struct offer_list *lists[] = { &k->waiting, &k->ready };
	INT ignored;

	san_table_remove(&san.socks, k->handle);
	san_abort(k);
	if (k->offer)
		san_offer_drop(k->offer, WSD_R_NONE, 0);
	for (unsigned i = 0; i < 2; i++)
		while (lists[i]->first) {
			struct san_offer *o = lists[i]->first;

			offer_list_remove(lists[i], o);
			san_offer_drop(o, WSD_R_NONE, 0);
		}
	san.up.lpWPUCloseSocketHandle(k->up, &ignored);
	free(k);
}

int WSPAPI san_closesocket(SOCKET s, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	san_sock_close(k);
	return 0;
}

/*
 * The memory of a session is the daemon's to hand out, to whoever holds the TCP socket: another
 * process gets it by asking with its own descriptor (reattach.c). So nothing is extracted here, and the switch
 * closes its companion and goes on over TCP, as section 8.2 of the reference has it for a failure.
 */
int WSPAPI san_duplicate(SOCKET s, DWORD pid, LPWSAPROTOCOL_INFOW info, LPINT lpErrno)
{
	return san_fail(lpErrno, san_sock_get(s) ? WSAEINVAL : WSAENOTSOCK);
}
