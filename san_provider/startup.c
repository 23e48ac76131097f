/* SPDX-License-Identifier: MIT */
/*
 * startup.c - WSPStartupEx, WSPCleanup and the table between them
 *
 * Nothing is opened here: the daemon is met at the first offer, so a program that never
 * connects costs nothing and start-up cannot wait.
 */
#include <stdlib.h>
#include <string.h>

#include "san_provider/san.h"

struct san san;
const void *san_verbs_lib;

static void close_everything(void)
{
	/* accepted and connected ones first or last, it does not matter: each owns what it closes */
	for (uint32_t i = 0; i < san.socks.n; i++) {
		struct san_sock *k = san_table_at(&san.socks, i);

		if (k)
			san_sock_close(k);
	}
	rt_ctx_close(san.rt);
	san_remote_cleanup();
	san_wait_close();
	proxy_client_free(san.client);
	san_table_free(&san.socks);
	san_table_free(&san.offers);
	memset(&san, 0, sizeof(san));
}

static int WSPAPI san_cleanup(LPINT lpErrno)
{
	SAN_ENTRY;

	if (!san.starts)
		return san_fail(lpErrno, WSANOTINITIALISED);
	if (san.starts == 1)
		close_everything();
	else
		san.starts--;
	return 0;
}

static const WSPPROC_TABLE proc_table = {
	.lpWSPAccept = san_accept,
	.lpWSPBind = san_bind,
	.lpWSPCleanup = san_cleanup,
	.lpWSPCloseSocket = san_closesocket,
	.lpWSPConnect = san_connect,
	.lpWSPDuplicateSocket = san_duplicate,
	.lpWSPEnumNetworkEvents = san_enumevents,
	.lpWSPEventSelect = san_eventselect,
	.lpWSPGetOverlappedResult = san_getoverlapped,
	.lpWSPGetSockOpt = san_getsockopt,
	.lpWSPGetQOSByName = san_getqosbyname,
	.lpWSPIoctl = san_ioctl,
	.lpWSPListen = san_listen,
	.lpWSPRecv = san_recv,
	.lpWSPSend = san_send,
	.lpWSPSetSockOpt = san_setsockopt,
	.lpWSPSocket = san_socket,
};

/* WSD_TRANSPORT, for tests: a backend of rdma_transport. One that ends in "verbs" is for RDMA, and forces it */
static void choose(const char *transport, const char **ret_local)
{
	size_t n = strlen(transport);

	san.remote_name = "verbs";
	*ret_local = "shm";
	if (n >= 5 && strcmp(transport + n - 5, "verbs") == 0) {
		san.remote_name = n == 5 ? "verbs" : "fault:verbs";
		san.forced = true;
	} else if (n) {
		*ret_local = transport;
	}
}

static int start(void)
{
	const char *transport = secure_getenv("WSD_TRANSPORT"), *local;
	struct rt_config cfg = { .size = sizeof(cfg), .max_conns = SAN_OFFERS, .max_mrs = SAN_REGISTRATIONS };

	san.socks.max = SAN_SOCKETS;
	san.offers.max = SAN_OFFERS;
	san.client = proxy_client_new();
	if (!san.client)
		return WSASYSNOTREADY;
	choose(transport ? transport : "", &local);
	if (rt_ctx_open(&san.rt, local, &cfg)) {
		san.client = proxy_client_free(san.client);
		return WSAEPROVIDERFAILEDINIT;
	}
	return 0;
}

__attribute__((visibility("default")))
int WSPAPI WSPStartupEx(WORD version, LPWSPDATA data, LPWSAPROTOCOL_INFOW info, LPWSPUPCALLTABLEEX up,
			LPWSPPROC_TABLE table)
{
	static const char description[] = "WSD for Linux: SAN provider";
	unsigned major = version & 0xff, minor = version >> 8;
	SAN_ENTRY;
	int r;

	if (!data || !info || !up || !table || !up->lpWPUCreateSocketHandle || !up->lpWPUCloseSocketHandle ||
	    !up->lpWPUSetEvent || !up->lpWPUResetEvent || !up->lpWPUCompleteOverlappedRequest)
		return WSAEFAULT;
	if (major < 2 || (major == 2 && minor < 2))
		return WSAVERNOTSUPPORTED;
	if (san.starts == UINT32_MAX)
		return WSAEPROCLIM;
	if (!san.starts) {
		r = start();
		if (r)
			return r;
		san.up = *up;
	}
	san.starts++;
	memset(data, 0, sizeof(*data));
	data->wVersion = data->wHighVersion = 0x0202;
	for (size_t i = 0; i < sizeof(description); i++)
		data->szDescription[i] = (unsigned char)description[i];
	*table = proc_table;
	return 0;
}
