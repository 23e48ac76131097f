/* SPDX-License-Identifier: MIT */
/*
 * ioctl.c - WSPIoctl: extension functions, the address list, expectations
 *
 * The first two work on a socket that is not valid: the switch asks before it has one.
 */
#include <ifaddrs.h>
#include <stddef.h>
#include <string.h>

#include "san_provider/san.h"

#define ADDRESSES_MAX 1024

static const struct extension {
	GUID id;
	void *function;
	uint32_t cap;		/* RT_CAP_* it needs; WSAEOPNOTSUPP without */
} extensions[] = {
	{ WSAID_REGISTERMEMORY, san_register, 0 },
	{ WSAID_DEREGISTERMEMORY, san_deregister, 0 },
	{ WSAID_REGISTERRDMAMEMORY, san_register_rdma, 0 },
	{ WSAID_DEREGISTERRDMAMEMORY, san_deregister_rdma, 0 },
	{ WSAID_RDMAWRITE, san_rdma_write, 0 },
	{ WSAID_RDMAREAD, san_rdma_read, RT_CAP_READ },
	{ WSAID_MEMORYREGISTRATIONCACHECALLBACK, NULL, 0 },	/* nothing is cached */
	{ WSAID_WSDSHAREDRING, san_shared_ring, RT_CAP_SHARED_RING },
	{ WSAID_WSDPUTWITHSIGNAL, san_put_with_signal, 0 },	/* whether there is RDMA at all is known at the first session */
	{ WSAID_WSDCONTROL, san_control, 0 },
};

static int get_extension(const void *in, DWORD in_len, void *out, DWORD out_len, DWORD *ret_len)
{
	GUID id;

	if (!in || in_len < sizeof(id))
		return WSAEFAULT;
	*ret_len = sizeof(void *);
	if (!out || out_len < sizeof(void *))
		return WSAEFAULT;
	memcpy(&id, in, sizeof(id));
	for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
		const struct extension *x = &extensions[i];

		if (memcmp(&id, &x->id, sizeof(id)))
			continue;
		if (!x->function || (x->cap & ~rt_ctx_caps(san.rt)))
			return WSAEOPNOTSUPP;
		memcpy(out, &x->function, sizeof(void *));
		return 0;
	}
	return WSAEINVAL;
}

static socklen_t usable(const struct ifaddrs *i)
{
	if (!i->ifa_addr)
		return 0;
	return i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) :
	       i->ifa_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : 0;
}

/* shared memory reaches every address of this host, loopback too */
static int address_list(void *out, DWORD out_len, DWORD *ret_len)
{
	struct ifaddrs *all, *i;
	SOCKET_ADDRESS_LIST *list = out;
	size_t head, need;
	unsigned n = 0;
	char *at;

	if (getifaddrs(&all))
		return WSAENOBUFS;
	need = 0;
	for (i = all; i && n < ADDRESSES_MAX; i = i->ifa_next)
		if (usable(i)) {
			n++;
			need += sizeof(struct sockaddr_in6);
		}
	head = offsetof(SOCKET_ADDRESS_LIST, Address) + (n ? n : 1) * sizeof(SOCKET_ADDRESS);
	need += head;
	*ret_len = need;
	if (!out || out_len < need) {
		freeifaddrs(all);
		return WSAEFAULT;
	}
	list->iAddressCount = 0;
	at = (char *)out + head;
	for (i = all; i && list->iAddressCount < (INT)n; i = i->ifa_next) {
		SOCKET_ADDRESS *a = &list->Address[list->iAddressCount];
		socklen_t len = usable(i);

		if (!len)
			continue;
		memcpy(at, i->ifa_addr, len);
		a->lpSockaddr = (struct sockaddr *)at;
		a->iSockaddrLength = len;
		at += sizeof(struct sockaddr_in6);
		list->iAddressCount++;
	}
	freeifaddrs(all);
	return 0;
}

static int expectation(SOCKET s, DWORD code, const void *in, DWORD in_len)
{
	struct san_sock *k = san_sock_get(s);
	struct wsd_expect x;

	if (!k)
		return WSAENOTSOCK;
	if (!in || in_len < sizeof(x))
		return WSAEFAULT;
	memcpy(&x, in, sizeof(x));
	return code == SIO_WSD_EXPECT ? san_expect(k, &x) : san_unexpect(k, &x);
}

static int ask(SOCKET s, const void *in, DWORD in_len)
{
	struct san_sock *k = san_sock_get(s);
	struct wsd_san_ask a;

	if (!k)
		return WSAENOTSOCK;
	if (!in || in_len < sizeof(a))
		return WSAEFAULT;
	memcpy(&a, in, sizeof(a));
	return san_ask(k, &a);
}

static int reattach(SOCKET s, const void *in, DWORD in_len, void *out, DWORD out_len, DWORD *ret_len)
{
	struct san_sock *k = san_sock_get(s);
	struct wsd_reattach x;
	struct wsd_reattached y;
	int e;

	if (!k)
		return WSAENOTSOCK;
	if (!in || in_len < sizeof(x) || !out || out_len < sizeof(y))
		return WSAEFAULT;
	memcpy(&x, in, sizeof(x));
	memcpy(&y, out, sizeof(y));
	e = san_reattach(k, &x, &y);
	if (e)
		return e;
	memcpy(out, &y, sizeof(y));
	*ret_len = sizeof(y);
	return 0;
}

int WSPAPI san_ioctl(SOCKET s, DWORD code, LPVOID in, DWORD in_len, LPVOID out, DWORD out_len, LPDWORD ret_len,
		     LPWSAOVERLAPPED ov, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread,
		     LPINT lpErrno)
{
	DWORD ignored;
	int e;
	SAN_ENTRY;

	if (!san.starts)
		return san_fail(lpErrno, WSANOTINITIALISED);
	ret_len = ret_len ? ret_len : &ignored;
	*ret_len = 0;
	switch (code) {
	case SIO_GET_EXTENSION_FUNCTION_POINTER:
		e = get_extension(in, in_len, out, out_len, ret_len);
		break;
	case SIO_ADDRESS_LIST_QUERY:
		e = address_list(out, out_len, ret_len);
		break;
	case SIO_WSD_EXPECT:
	case SIO_WSD_UNEXPECT:
		e = expectation(s, code, in, in_len);
		break;
	case SIO_WSD_SAN_ASK:
		e = ask(s, in, in_len);
		break;
	case SIO_WSD_REATTACH:
		e = reattach(s, in, in_len, out, out_len, ret_len);
		break;
	case SIO_GET_QOS:
	case SIO_SET_QOS:
	case SIO_GET_GROUP_QOS:
	case SIO_SET_GROUP_QOS:
		e = san_sock_get(s) ? WSAENOPROTOOPT : WSAENOTSOCK;
		break;
	default:
		e = san_sock_get(s) ? WSAEOPNOTSUPP : WSAENOTSOCK;
		break;
	}
	return e ? san_fail(lpErrno, e) : 0;
}
