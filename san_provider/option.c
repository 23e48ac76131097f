/* SPDX-License-Identifier: MIT */
/* option.c - the few socket options that reach a SAN provider */
#include <string.h>

#include "san_provider/san.h"

#define RDMA_THRESHOLD 4096u	/* above it a write saves the copy into a send buffer */

int WSPAPI san_getsockopt(SOCKET s, int level, int name, CHAR *val, LPINT len, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	uint32_t v;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (level != WSD_WIN_SOL_SOCKET)
		return san_fail(lpErrno, WSAENOPROTOOPT);
	switch (name) {
	case SO_DEBUG:
		v = k->debug;
		break;
	case SO_MAX_MSG_SIZE:
		v = rt_ctx_limits(san.rt)->max_msg;
		break;
	case SO_MAX_RDMA_SIZE:
		v = rt_ctx_limits(san.rt)->max_rdma;
		break;
	case SO_RDMA_THRESHOLD_SIZE:
		v = RDMA_THRESHOLD;
		break;
	default:
		return san_fail(lpErrno, WSAENOPROTOOPT);
	}
	if (!len)
		return san_fail(lpErrno, WSAEFAULT);
	if (!val || *len < (INT)sizeof(v)) {
		*len = sizeof(v);
		return san_fail(lpErrno, WSAEFAULT);
	}
	memcpy(val, &v, sizeof(v));
	*len = sizeof(v);
	return 0;
}

int WSPAPI san_setsockopt(SOCKET s, int level, int name, const CHAR *val, int len, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	uint32_t v;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (level != WSD_WIN_SOL_SOCKET || name != SO_DEBUG)
		return san_fail(lpErrno, WSAENOPROTOOPT);
	if (!val || len < (int)sizeof(v))
		return san_fail(lpErrno, WSAEFAULT);
	memcpy(&v, val, sizeof(v));
	k->debug = v != 0;	/* kept; a library in somebody's program has nowhere to print to */
	return 0;
}

BOOL WSPAPI san_getqosbyname(SOCKET s, LPWSABUF name, LPQOS qos, LPINT lpErrno)
{
	san_fail(lpErrno, san_sock_get(s) ? WSAEOPNOTSUPP : WSAENOTSOCK);
	return FALSE;
}
