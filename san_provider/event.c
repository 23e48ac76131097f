/* SPDX-License-Identifier: MIT */
/* event.c - FD_CONNECT and FD_ACCEPT, the two network events between switch and provider */
#include <string.h>

#include "san_provider/san.h"

static int raise_pending(struct san_sock *k)
{
	INT ignored;

	if (!(k->pending & k->selected) || !k->event)
		return 0;
	san.up.lpWPUSetEvent(k->event, &ignored);
	return 1;
}

int san_event(struct san_sock *k, LONG event, INT error)
{
	if (event == FD_CONNECT)
		k->connect_error = error;
	else if (!(k->pending & FD_ACCEPT) || !error)
		k->accept_error = error;
	k->pending |= event;
	return raise_pending(k);
}

int WSPAPI san_eventselect(SOCKET s, WSAEVENT event, LONG events, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if ((events & ~(FD_ACCEPT | FD_CONNECT)) || (events && !event))
		return san_fail(lpErrno, WSAEINVAL);
	k->event = events ? event : NULL;
	k->selected = events;
	raise_pending(k);
	return 0;
}

int WSPAPI san_enumevents(SOCKET s, WSAEVENT event, LPWSANETWORKEVENTS out, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	INT ignored;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (!out)
		return san_fail(lpErrno, WSAEINVAL);
	memset(out, 0, sizeof(*out));
	out->lNetworkEvents = k->pending & k->selected;
	if (out->lNetworkEvents & FD_CONNECT)
		out->iErrorCode[FD_CONNECT_BIT] = k->connect_error;
	if (out->lNetworkEvents & FD_ACCEPT)
		out->iErrorCode[FD_ACCEPT_BIT] = k->accept_error;
	k->pending &= ~k->selected;
	if (event)
		san.up.lpWPUResetEvent(event, &ignored);
	return 0;
}
