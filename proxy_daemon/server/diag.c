/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "proxy_daemon/server/diag.h"

#define ANSWERS_MAX 16		/* left-overs of older questions that are skipped */

static uint32_t next_seq = 1;

struct diag_sock_ctx {
	struct diag_sock *ret;
	int found;
};

static void fill_id(struct inet_diag_sockid *id, const struct wsd_addr *local, const struct wsd_addr *remote,
		    uint64_t cookie)
{
	id->idiag_sport = htons(local->port);
	id->idiag_dport = htons(remote->port);
	memcpy(id->idiag_src, local->ip, local->family == AF_INET ? 4 : 16);
	memcpy(id->idiag_dst, remote->ip, local->family == AF_INET ? 4 : 16);
	id->idiag_if = local->scope;
	id->idiag_cookie[0] = (uint32_t)cookie;
	id->idiag_cookie[1] = (uint32_t)(cookie >> 32);
}

static void take_addr(struct wsd_addr *ret, const struct inet_diag_msg *m, const uint32_t *ip, uint16_t port)
{
	memset(ret, 0, sizeof(*ret));
	ret->family = m->idiag_family;
	ret->port = ntohs(port);
	ret->scope = m->id.idiag_if;
	memcpy(ret->ip, ip, m->idiag_family == AF_INET ? 4 : 16);
}

static int take_attr(const struct nlattr *attr, void *data)
{
	struct diag_sock_ctx *ctx = data;
	struct tcp_info info;
	size_t len = mnl_attr_get_payload_len(attr);

	if (mnl_attr_get_type(attr) != INET_DIAG_INFO)
		return MNL_CB_OK;
	if (len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
		return MNL_CB_OK;
	memset(&info, 0, sizeof(info));
	memcpy(&info, mnl_attr_get_payload(attr), len < sizeof(info) ? len : sizeof(info));
	ctx->ret->acked = info.tcpi_bytes_acked;
	ctx->ret->received = info.tcpi_bytes_received;
	ctx->ret->has_info = 1;
	return MNL_CB_OK;
}

static int take_answer(const struct nlmsghdr *nlh, void *data)
{
	struct diag_sock_ctx *ctx = data;
	const struct inet_diag_msg *m = mnl_nlmsg_get_payload(nlh);

	if (nlh->nlmsg_type != SOCK_DIAG_BY_FAMILY || mnl_nlmsg_get_payload_len(nlh) < sizeof(*m))
		return MNL_CB_STOP;
	take_addr(&ctx->ret->local, m, m->id.idiag_src, m->id.idiag_sport);
	take_addr(&ctx->ret->remote, m, m->id.idiag_dst, m->id.idiag_dport);
	ctx->ret->cookie = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0];
	ctx->ret->inode = m->idiag_inode;
	ctx->ret->state = m->idiag_state;
	ctx->ret->wqueue = m->idiag_wqueue;
	ctx->found = 1;
	mnl_attr_parse(nlh, sizeof(*m), take_attr, ctx);
	return MNL_CB_STOP;
}

static int ask(struct mnl_socket *nl, uint16_t flags, const struct inet_diag_req_v2 *req, struct diag_sock_ctx *ctx)
{
	_Alignas(struct nlmsghdr) char buf[8192];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	uint32_t seq = next_seq++;
	unsigned i;
	ssize_t n;
	int r;

	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nlh->nlmsg_seq = seq;
	memcpy(mnl_nlmsg_put_extra_header(nlh, sizeof(*req)), req, sizeof(*req));
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	for (i = 0; i < ANSWERS_MAX; i++) {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
		if (n < 0) {
			if (errno == EINTR || errno == ENOBUFS)
				continue;
			return -errno;
		}
		if (((struct nlmsghdr *)buf)->nlmsg_seq != seq)
			continue;
		r = mnl_cb_run(buf, (size_t)n, seq, 0, take_answer, ctx);
		return r < 0 ? -errno : 0;
	}
	return -EAGAIN;
}

int diag_lookup(struct mnl_socket *nl, const struct wsd_addr *local, const struct wsd_addr *remote,
		uint64_t cookie, struct diag_sock *ret)
{
	struct inet_diag_req_v2 req = {
		.sdiag_family = (uint8_t)local->family,
		.sdiag_protocol = IPPROTO_TCP,
		.idiag_ext = 1 << (INET_DIAG_INFO - 1),
		.idiag_states = ~0u,
	};
	struct diag_sock_ctx ctx = { .ret = ret };
	int r;

	memset(ret, 0, sizeof(*ret));
	fill_id(&req.id, local, remote, cookie);
	r = ask(nl, 0, &req, &ctx);
	/* ESTALE: the addresses belong to another socket now, a listener or TIME_WAIT among them */
	if (r == -ENOENT || r == -ESTALE)
		return DIAG_E_GONE;
	if (r)
		return r;
	if (!ctx.found)
		return -EBADMSG;
	if (cookie != DIAG_ANY_COOKIE && ret->cookie != cookie)
		return DIAG_E_GONE;
	return 0;
}

int diag_open(struct mnl_socket **ret)
{
	/* no handler and no socket are both ENOENT to an exact question: a dump of nothing
	 * tells them apart */
	struct inet_diag_req_v2 req = { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP };
	struct diag_sock none;
	struct diag_sock_ctx ctx = { .ret = &none };
	struct mnl_socket *nl;
	int r;

	nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		r = -errno;
		goto err_close;
	}
	r = ask(nl, NLM_F_DUMP, &req, &ctx);
	if (r)
		goto err_close;
	*ret = nl;
	return 0;

err_close:
	mnl_socket_close(nl);
	return r;
}

struct mnl_socket *diag_close(struct mnl_socket *nl)
{
	if (nl)
		mnl_socket_close(nl);
	return NULL;
}
