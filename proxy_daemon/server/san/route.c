/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy_daemon/server/san/route.h"

struct found {
	uint32_t oif;
	bool gateway, any;
};

static int on_attr(const struct nlattr *a, void *data)
{
	struct found *f = data;

	switch (mnl_attr_get_type(a)) {
	case RTA_OIF:
		if (mnl_attr_validate(a, MNL_TYPE_U32) >= 0)
			f->oif = mnl_attr_get_u32(a);
		break;
	case RTA_GATEWAY:
	case RTA_VIA:
	case RTA_MULTIPATH:
		f->gateway = true;
		break;
	}
	return MNL_CB_OK;
}

/* the kernel answers within the send: what is not there then does not come */
static int exchange(const struct nlmsghdr *rq, struct found *ret)
{
	char buf[4096];
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK };
	int fd, r = -EIO;
	ssize_t n;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	if (sendto(fd, rq, rq->nlmsg_len, 0, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = -errno;
		goto out;
	}
	n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0) {
		r = -errno;
		goto out;
	}
	if (!mnl_nlmsg_ok(nlh, (int)n) || nlh->nlmsg_seq != rq->nlmsg_seq)
		goto out;
	if (nlh->nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);

		if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(*e) && e->error < 0)
			r = e->error;
		goto out;
	}
	if (nlh->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(nlh) < sizeof(struct rtmsg))
		goto out;
	ret->any = ((const struct rtmsg *)mnl_nlmsg_get_payload(nlh))->rtm_type == RTN_UNICAST;
	r = mnl_attr_parse(nlh, sizeof(struct rtmsg), on_attr, ret) < 0 ? -EIO : 0;
out:
	close(fd);
	return r;
}

int route_is_direct(const struct wsd_addr *local, const struct wsd_addr *remote, uint32_t ifindex)
{
	size_t len = local->family == AF_INET ? 4 : 16;
	char buf[256];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct found f = { 0 };
	struct rtmsg *rtm;
	int r;

	nlh->nlmsg_type = RTM_GETROUTE;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nlh->nlmsg_seq = 1;
	rtm = mnl_nlmsg_put_extra_header(nlh, sizeof(*rtm));
	rtm->rtm_family = (uint8_t)local->family;
	rtm->rtm_dst_len = rtm->rtm_src_len = (uint8_t)(8 * len);
	mnl_attr_put(nlh, RTA_DST, len, remote->ip);
	mnl_attr_put(nlh, RTA_SRC, len, local->ip);
	r = exchange(nlh, &f);
	if (r)
		return r;
	return f.any && !f.gateway && f.oif == ifindex ? 1 : 0;
}
