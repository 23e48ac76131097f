/* SPDX-License-Identifier: MIT */
/*
 * what the kernel does with a connection of AF_SMC: by SMC-R, or by TCP and why
 *
 * A handshake that fails leaves a socket of AF_SMC that is a TCP connection: silently. smc_diag tells.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/smc_diag.h>
#include <linux/sock_diag.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/bench/role.h"

static const struct { uint32_t code; const char *name; } reasons[] = {	/* enum of the kernel's net/smc/smc_clc.h */
	{ 0x01010000, "no memory" }, { 0x02010000, "timed out waiting for the peer's confirmation" },
	{ 0x02020000, "timed out waiting for the peer's answer" }, { 0x03000000, "configuration: general" },
	{ 0x03010000, "the peer does no SMC" }, { 0x03020000, "IPsec" }, { 0x03030000, "no SMC device found (R and D)" },
	{ 0x03030001, "no SMC-D device found" }, { 0x03030002, "no SMC-R device found: no pnetid leads from the netdev to it" },
	{ 0x03030003, "no link between the two devices" }, { 0x03030007, "no SMC-Rv2 device found" },
	{ 0x03040000, "modes differ" }, { 0x03050000, "rmbe_eyecatcher" }, { 0x03060000, "an option of the socket" },
	{ 0x03070000, "another subnet" }, { 0x03080000, "no vlan" }, { 0x03090000, "vlan" }, { 0x030a0000, "ISM vlan" },
	{ 0x04000000, "synchronisation error" }, { 0x05000000, "the peer declined" },
	{ 0x09990000, "internal error" }, { 0x09990001, "internal error: path MTU / RTOKEN" }, { 0x09990002, "internal error: the link to the peer" },
	{ 0x09990003, "internal error: memory registration" },
};

static const char *reason(uint32_t code)
{
	for (unsigned i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].code == code)
			return reasons[i].name;
	return "see SMC_CLC_DECL_* of the kernel's net/smc/smc_clc.h";
}

/* 1: by SMC; 0: by TCP, *ret_why says which code; -1: no such connection in this message */
static int look(const struct nlmsghdr *h, long port, struct smc_diag_fallback *ret_why)
{
	const struct smc_diag_msg *m = NLMSG_DATA(h);
	struct rtattr *a = (struct rtattr *)(m + 1);
	int left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));

	if (left < 0 || ntohs(m->id.idiag_dport) != port)
		return -1;
	if (m->diag_mode != SMC_DIAG_MODE_FALLBACK_TCP)
		return 1;
	*ret_why = (struct smc_diag_fallback){ 0 };
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == SMC_DIAG_FALLBACK && RTA_PAYLOAD(a) >= sizeof(*ret_why))
			memcpy(ret_why, RTA_DATA(a), sizeof(*ret_why));
	return 0;
}

void smc_check(long port)
{
	struct { struct nlmsghdr h; struct smc_diag_req r; } ask = {
		.h = { .nlmsg_len = sizeof(ask), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.r = { .diag_family = AF_SMC, .diag_ext = 1 << (SMC_DIAG_FALLBACK - 1) },
	};
	static char buf[32768] __attribute__((aligned(8)));
	struct smc_diag_fallback why = { 0 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), found = -1;

	step("asking smc_diag about the connection");
	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) != sizeof(ask))
		die("smc_diag: %m");
	for (bool more = true; more && found < 0;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n <= 0)
			die("smc_diag: %m");
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, n) && found < 0; h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_ERROR)
				die("smc_diag does not answer: is the module loaded?");
			if (h->nlmsg_type == NLMSG_DONE)
				more = false;
			else
				found = look(h, port, &why);
		}
	}
	close(fd);
	if (found < 0)
		die("smc_diag does not know the connection");
	if (!found)
		die("the kernel fell back to TCP: 0x%08x %s, peer 0x%08x %s", why.reason, reason(why.reason), why.peer_diagnosis,
		    why.peer_diagnosis ? reason(why.peer_diagnosis) : "");
}
