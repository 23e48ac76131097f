/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <stddef.h>

#include <wsd/proxy_proto.h>

#include "common/reason.h"

struct reason {
	const char *name, *text, *hint;
};

static const struct reason reasons[] = {
	[WSD_R_NONE] = { "none", "no reason recorded", "" },
	[WSD_R_NOT_YET] = { "not-yet", "too little traffic so far to be worth a session",
			    "wsdrun --offer-after 0 offers connections at once" },
	[WSD_R_NO_PROVIDER] = { "no-provider", "no provider: catalog missing or malformed, or nothing in it could be loaded",
				"see wsdctl list and wsdctl doctor" },
	[WSD_R_NO_DAEMON] = { "no-daemon", "no daemon answers at the socket",
			      "start wsd-proxyd, or run the program by wsdrun, which starts one" },
	[WSD_R_DAEMON_CRED] = { "daemon-cred", "the daemon runs as neither root nor this user",
				"check WSD_PROXY_SOCKET" },
	[WSD_R_VERSION] = { "version", "daemon and client speak different versions",
			    "restart the daemon and the programs that were started before the upgrade" },
	[WSD_R_PEER_UNAWARE] = { "peer-unaware", "the other end has not offered its socket",
				 "run the other end under wsdrun as well" },
	[WSD_R_NOT_LOCAL] = { "not-local", "the peer is on another host, in no subnet that the daemon has for a SAN",
			     "for RDMA between hosts: subnets and key-file under [san] in /etc/wsd/proxyd.conf; wsdctl peers" },
	[WSD_R_NETNS] = { "netns", "the ends are in different network namespaces", "" },
	[WSD_R_DEVICE] = { "device", "a socket is bound to a device or VRF", "" },
	[WSD_R_NO_PROC] = { "no-proc", "/proc of the process cannot be read (pid namespace, non-dumpable)",
			    "a daemon that runs as root in the outer pid namespace sees more" },
	[WSD_R_NO_DIAG] = { "no-diag", "sock_diag does not answer for the socket",
			    "see wsdctl doctor; the kernel module is tcp_diag" },
	[WSD_R_NOT_TCP] = { "not-tcp", "the descriptor is no established TCP connection", "" },
	[WSD_R_MISMATCH] = { "mismatch", "the byte counters of the two ends do not agree", "" },
	[WSD_R_QUOTA_SESSIONS] = { "quota-sessions", "the user has as many sessions as the quota allows",
				   "raise --quota-sessions of wsd-proxyd" },
	[WSD_R_QUOTA_BYTES] = { "quota-bytes", "the user has as much session memory as the quota allows",
				"raise --quota-bytes of wsd-proxyd, or lower --ring-size" },
	[WSD_R_LIMIT] = { "limit", "the tables of the daemon, or the user's share of them, are full", "" },
	[WSD_R_NOMEM] = { "no-memory", "no memory or descriptor could be had",
			  "raise the limit of open files or of locked memory" },
	[WSD_R_NOT_OWNER] = { "not-owner", "the socket is another process's session, or was offered before", "" },
	[WSD_R_UNLOADING] = { "unloading", "the daemon is stopping", "" },
	[WSD_R_OPTION] = { "option", "a socket option or call is in use that the ring does not reproduce", "" },
	[WSD_R_SHARED] = { "shared", "several processes use the socket", "" },
	[WSD_R_EXEC] = { "exec", "the socket was passed on by exec or SCM_RIGHTS", "" },
	[WSD_R_OFFSETS] = { "offsets", "bytes went around the switch: offsets disagree with the kernel's", "" },
	[WSD_R_PEER_BROKEN] = { "peer-broken", "the peer broke the protocol; the connection was reset",
				"this is a defect or an attack: please report it" },
	[WSD_R_UNTRACKED] = { "untracked", "the program waits in ways the switch does not see (io_uring, stdio, aio)", "" },
	[WSD_R_SANDBOX] = { "sandbox", "the process entered seccomp", "" },
	[WSD_R_TABLE_FULL] = { "table-full", "descriptor number or count is above the tables of the switch", "" },
	[WSD_R_OFF] = { "off", "switched off by configuration", "unset WSD_DISABLE, or leave out --no-accel" },
	[WSD_R_NOT_SAN] = { "not-san", "local and remote address are not in one declared subnet, or transport = shm",
			   "subnets under [san] in /etc/wsd/proxyd.conf, the same on both hosts" },
	[WSD_R_NO_RDMA] = { "no-rdma", "no RDMA device reaches the peer from the local address", "wsdctl status --devices on both hosts; the route must lead over its netdev, without a gateway" },
	[WSD_R_NO_PEER] = { "no-peer", "no daemon answers at the peer's host", "wsdctl peers --try ADDRESS says why; port 9571 of the peer" },
	[WSD_R_NO_KEY] = { "no-key", "no cluster key, or the peer's daemon has another", "wsdctl peers; the same key-file on every host, mode 0600" },
	[WSD_R_MEMLOCK] = { "memlock", "too little memory may be locked", "raise the daemon's quota-locked; a private daemon cannot raise RLIMIT_MEMLOCK" },
	[WSD_R_PROOF] = { "proof", "the two ends do not hold the same stream", "something between the hosts changes or answers the connection: a proxy, a NAT" },
	[WSD_R_RDMA_FAILED] = { "rdma-failed", "the RDMA path broke; it is tried again", "rdma link show; is UDP port 4791 let through?" },
	[WSD_R_PEER_VERSION] = { "peer-version", "the peer's host has another version of WSD", "the same version on both hosts; wsdctl peers" },
};

static_assert(sizeof(reasons) / sizeof(reasons[0]) == _WSD_R_N, "each reason has words");

static const struct reason *reason_find(unsigned reason)
{
	static const struct reason unknown = { "unknown", "a reason that this version does not know", "" };

	if (reason >= _WSD_R_N || !reasons[reason].name)
		return &unknown;
	return &reasons[reason];
}

const char *reason_name(unsigned reason)
{
	return reason_find(reason)->name;
}

const char *reason_text(unsigned reason)
{
	return reason_find(reason)->text;
}

const char *reason_hint(unsigned reason)
{
	return reason_find(reason)->hint;
}
