/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/spi/fixture.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

WSPPROC_TABLE t;
WSDCONTROL control;
struct upcalls up;
LPFN_WSDSHAREDRING shared_ring;
LPFN_WSDPUTWITHSIGNAL put_with_signal;
LPFN_WSPREGISTERMEMORY reg_mem;
LPFN_WSPDEREGISTERMEMORY dereg_mem;
LPFN_WSPREGISTERRDMAMEMORY reg_rdma;
LPFN_WSPDEREGISTERRDMAMEMORY dereg_rdma;
LPFN_WSPRDMAWRITE rdma_write;
LPWSPSTARTUPEX startup;

static SOCKET create_handle(DWORD entry, DWORD_PTR context, LPINT e)
{
	if (up.refuse_handles) {
		*e = WSAENOBUFS;
		return INVALID_SOCKET;
	}
	up.handles++;
	return (SOCKET)(2 * ++up.created);
}

static int close_handle(SOCKET s, LPINT e)
{
	cr_assert(s && !(s & 1) && s <= 2 * up.created);
	up.handles--;
	up.closed++;
	return 0;
}

static BOOL set_event(WSAEVENT e, LPINT err)
{
	((struct event *)e)->set = 1;
	((struct event *)e)->n_set++;
	return TRUE;
}

static BOOL reset_event(WSAEVENT e, LPINT err)
{
	((struct event *)e)->set = 0;
	return TRUE;
}

static int complete(SOCKET s, LPWSAOVERLAPPED ov, DWORD error, DWORD bytes, LPINT e)
{
	cr_assert_lt(up.n_complete, 64);
	up.complete[up.n_complete].s = s;
	up.complete[up.n_complete].ov = ov;
	up.complete[up.n_complete].error = error;
	up.complete[up.n_complete++].bytes = bytes;
	ov->InternalHigh = bytes;
	__atomic_store_n(&ov->Internal, 0, __ATOMIC_RELEASE);
	return 0;
}

WSPUPCALLTABLEEX uptable = {
	.lpWPUCloseSocketHandle = close_handle,
	.lpWPUCreateSocketHandle = create_handle,
	.lpWPUResetEvent = reset_event,
	.lpWPUSetEvent = set_event,
	.lpWPUCompleteOverlappedRequest = complete,
};

#ifdef WSD_SAN_STATIC	/* linked, so that a test reaches its insides */
int WSPAPI WSPStartupEx(WORD version, LPWSPDATA data, LPWSAPROTOCOL_INFOW info, LPWSPUPCALLTABLEEX table, LPWSPPROC_TABLE procs);

void load(void)
{
	startup = WSPStartupEx;
	memset(&up, 0, sizeof(up));
}
#else
void load(void)
{
	void *so = dlopen(WSD_SAN_SO, RTLD_NOW | RTLD_LOCAL);

	cr_assert_not_null(so, "%s", dlerror());
	startup = (LPWSPSTARTUPEX)dlsym(so, "WSPStartupEx");
	cr_assert_not_null(startup);
	memset(&up, 0, sizeof(up));
}
#endif

int get_ext(const GUID *g, void **ret)
{
	DWORD got = 0;
	INT e = 0;

	*ret = NULL;
	if (t.lpWSPIoctl(INVALID_SOCKET, SIO_GET_EXTENSION_FUNCTION_POINTER, (void *)g, sizeof(*g), ret, sizeof(*ret),
			 &got, NULL, NULL, NULL, &e))
		return e;
	cr_assert_eq(got, sizeof(void *));
	return 0;
}

void begin(void)
{
	static const GUID g[] = { WSAID_WSDSHAREDRING, WSAID_WSDCONTROL, WSAID_REGISTERMEMORY, WSAID_DEREGISTERMEMORY,
				  WSAID_REGISTERRDMAMEMORY, WSAID_DEREGISTERRDMAMEMORY, WSAID_RDMAWRITE, WSAID_WSDPUTWITHSIGNAL };
	WSAPROTOCOL_INFOW tcp = { .iAddressFamily = AF_INET, .iSocketType = SOCK_STREAM, .iProtocol = IPPROTO_TCP };
	LPFN_WSDCONTROL get_control;
	WSPDATA data;
	INT e;

	load();
	cr_assert_eq(startup(0x0202, &data, &tcp, &uptable, &t), 0);
	cr_assert_eq(get_ext(&g[0], (void **)&shared_ring), 0);
	cr_assert_eq(get_ext(&g[1], (void **)&get_control), 0);
	cr_assert_eq(get_ext(&g[2], (void **)&reg_mem), 0);
	cr_assert_eq(get_ext(&g[3], (void **)&dereg_mem), 0);
	cr_assert_eq(get_ext(&g[4], (void **)&reg_rdma), 0);
	cr_assert_eq(get_ext(&g[5], (void **)&dereg_rdma), 0);
	cr_assert_eq(get_ext(&g[6], (void **)&rdma_write), 0);
	cr_assert_eq(get_ext(&g[7], (void **)&put_with_signal), 0);
	control.size = sizeof(control);
	cr_assert_eq(get_control(&control, &e), 0);
}

void end(void)
{
	INT e;

	cr_assert_eq(t.lpWSPCleanup(&e), 0);
	cr_assert_eq(up.handles, 0, "%u handles were not given back", up.handles);
	cr_assert_eq(t.lpWSPCleanup(&e), SOCKET_ERROR);
	cr_assert_eq(e, WSANOTINITIALISED);
}

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

void tcp_pair(int family, int fd[2])
{
	struct sockaddr_storage a = { .ss_family = family };
	socklen_t len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int l = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET6)
		((struct sockaddr_in6 *)&a)->sin6_addr = in6addr_loopback;
	else
		((struct sockaddr_in *)&a)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert(l >= 0 && !bind(l, (void *)&a, len) && !listen(l, 1) && !getsockname(l, (void *)&a, &len));
	fd[0] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(fd[0] >= 0 && !connect(fd[0], (void *)&a, len));
	fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(fd[1], 0);
	close(l);
}

struct wsd_connect_data connect_data(int fd, uint64_t context)
{
	struct wsd_connect_data d = { .size = sizeof(d), .fd = fd, .context = context };
	socklen_t len = sizeof(d.sock_cookie);

	cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &d.sock_cookie, &len), 0);
	return d;
}

static void split(const struct sockaddr_storage *a, uint8_t *ip, uint16_t *port)
{
	if (a->ss_family == AF_INET6) {
		memcpy(ip, &((struct sockaddr_in6 *)a)->sin6_addr, 16);
		*port = ntohs(((struct sockaddr_in6 *)a)->sin6_port);
	} else {
		memcpy(ip, &((struct sockaddr_in *)a)->sin_addr, 4);
		*port = ntohs(((struct sockaddr_in *)a)->sin_port);
	}
}

struct wsd_expect expectation(int fd, uint64_t context)
{
	struct wsd_expect x = { .data = connect_data(fd, context) };
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	cr_assert_eq(getsockname(fd, (void *)&a, &len), 0);
	x.family = a.ss_family;
	split(&a, x.local_ip, &x.local_port);
	len = sizeof(a);
	cr_assert_eq(getpeername(fd, (void *)&a, &len), 0);
	split(&a, x.remote_ip, &x.remote_port);
	return x;
}

SOCKET new_bound(int fd)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	SOCKET s;
	INT e = 0;

	cr_assert_eq(getsockname(fd, (void *)&a, &len), 0);
	s = t.lpWSPSocket(a.ss_family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED, &e);
	cr_assert_neq(s, INVALID_SOCKET, "%d", e);
	cr_assert_eq(t.lpWSPBind(s, (void *)&a, len, &e), 0, "%d", e);
	return s;
}

SOCKET new_listener(int fd, struct event *ev)
{
	SOCKET s = new_bound(fd);
	INT e;

	cr_assert_eq(t.lpWSPListen(s, 5, &e), 0);
	cr_assert_eq(t.lpWSPEventSelect(s, ev, FD_ACCEPT, &e), 0);
	return s;
}

int connect_with(SOCKET s, const struct wsd_connect_data *d)
{
	WSABUF b = { sizeof(*d), (char *)d };
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	INT e = 0;

	cr_assert_eq(getpeername(d->fd, (void *)&a, &len), 0);
	return t.lpWSPConnect(s, (void *)&a, len, &b, NULL, NULL, NULL, &e) ? e : 0;
}

int connect_beside(SOCKET s, int fd)
{
	struct wsd_connect_data d = connect_data(fd, 1);

	return connect_with(s, &d);
}
