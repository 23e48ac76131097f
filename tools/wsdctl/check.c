/* SPDX-License-Identifier: MIT */
/*
 * Each check tries the very thing that the switch, the provider or the daemon will need, in this
 * process: what fails here fails there. They are cheap, local and change nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <wsd/shared_ring.h>

#include "common/reason.h"
#include "tools/lib/cleanup.h"
#include "tools/lib/place.h"
#include "tools/wsdctl/wsdctl.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define say(field, ...) ((void)snprintf(field, sizeof(field), __VA_ARGS__))

static void check_switch(struct check *c)
{
	struct place p;

	place_find(&p);
	if (p.preload[0] && !strpbrk(p.preload, " :")) {
		say(c->found, "%.380s", p.preload);
		return;
	}
	c->result = CHECK_FAIL;
	if (p.preload[0]) {
		say(c->found, "%.300s: a space or colon in the path cannot be named in LD_PRELOAD", p.preload);
		say(c->next, "move the build tree, or install it");
	} else {
		say(c->found, "libwsd_switch.so is neither beside this program nor installed");
		say(c->next, "meson install, or build the whole tree");
	}
}

static void check_catalog(struct check *c, const char *path)
{
	static struct wsd_provider p[WSD_CATALOG_PROVIDERS];
	struct wsd_catalog_error err = { "" };
	unsigned n = 0, listed = 0;
	char why[256];
	int r;

	r = wsd_catalog_load(path, p, WSD_CATALOG_PROVIDERS, &n, &err);
	if (r) {
		c->result = CHECK_FAIL;
		say(c->found, "%.380s", err.text);
		say(c->next, "%s", r == -ENOENT ? "wsdctl install" : "repair the file; wsd-catalog(5) describes it");
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (!p[i].listed)
			continue;
		listed++;
		if (provider_try(p[i].file, why, sizeof(why))) {
			c->result = CHECK_FAIL;
			say(c->found, "%.160s: provider %s cannot be loaded: %.120s", path, p[i].name, why);
			say(c->next, "wsdctl remove %s, or repair the provider", p[i].name);
			return;
		}
	}
	say(c->found, "%.160s: %u provider%s, %u in \"TCP on SAN\"%s%.120s", path, n, n == 1 ? "" : "s", listed,
	    err.text[0] ? "; " : "", err.text);
	if (!listed) {
		c->result = CHECK_FAIL;
		say(c->next, "wsdctl install");
	} else if (err.text[0]) {
		c->result = CHECK_WARN;
	}
}

/* does one answer? */
static bool check_daemon(struct check *c, const char *socket)
{
	struct status *s = calloc(1, sizeof(*s));
	bool yes;

	if (!s)
		return false;
	(void)status_ask(s, socket);
	if (!s->error) {
		say(c->found, "pid %u (uid %u) answers at %s", s->daemon.pid, s->daemon.uid, s->path);
		if (s->daemon.unloading) {
			c->result = CHECK_WARN;
			say(c->next, "it is stopping: new connections stay on TCP until another one runs");
		}
	} else if (s->error == ENDPOINT_E_NOBODY) {
		c->result = CHECK_WARN;
		say(c->found, "none answers at %s", s->path);
		say(c->next, "nothing: wsdrun starts one for this user; for all users: systemctl start wsd-proxyd");
	} else {
		c->result = CHECK_FAIL;
		say(c->found, "%s: %s", s->path, status_strerror(s->error));
		say(c->next, "%s", s->error == ENDPOINT_E_FOREIGN ? "unset WSD_PROXY_SOCKET" :
		    "look at its log (proxyd.log beside the socket, or journalctl -u wsd-proxyd)");
	}
	yes = !s->error;
	status_clear(s);
	free(s);
	return yes;
}

/* a loopback connection of our own: listener, connecting and accepted end */
static int tcp_pair(int fd[static 3])
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);

	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd[0] < 0 || fd[1] < 0 || bind(fd[0], (struct sockaddr *)&sin, len) < 0 || listen(fd[0], 1) < 0 ||
	    getsockname(fd[0], (struct sockaddr *)&sin, &len) < 0 || connect(fd[1], (struct sockaddr *)&sin, len) < 0)
		return -errno;
	fd[2] = accept4(fd[0], NULL, NULL, SOCK_CLOEXEC);
	return fd[2] < 0 ? -errno : 0;
}

static int diag_cb(const struct nlmsghdr *nlh, void *data)
{
	if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(struct inet_diag_msg))
		*(struct inet_diag_msg *)data = *(struct inet_diag_msg *)mnl_nlmsg_get_payload(nlh);
	return MNL_CB_STOP;
}

/* exactly what the daemon asks: one socket by its addresses and cookie */
static int diag_ask(int fd, struct inet_diag_msg *ret)
{
	struct sockaddr_in local, remote;
	socklen_t len = sizeof(local), clen = sizeof(uint64_t);
	char buf[8192];
	struct inet_diag_req_v2 *req;
	struct timeval tv = { 1, 0 };
	struct mnl_socket *nl;
	struct nlmsghdr *nlh;
	uint64_t cookie;
	ssize_t n;
	int r;

	if (getsockname(fd, (struct sockaddr *)&local, &len) < 0 ||
	    getpeername(fd, (struct sockaddr *)&remote, &len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &clen) < 0)
		return -errno;
	nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	if (!nl)
		return -errno;
	nlh = mnl_nlmsg_put_header(buf);
	nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nlh->nlmsg_seq = 1;
	req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
	req->sdiag_family = AF_INET;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = ~0u;
	req->id.idiag_sport = local.sin_port;
	req->id.idiag_dport = remote.sin_port;
	req->id.idiag_src[0] = local.sin_addr.s_addr;
	req->id.idiag_dst[0] = remote.sin_addr.s_addr;
	req->id.idiag_cookie[0] = (uint32_t)cookie;
	req->id.idiag_cookie[1] = (uint32_t)(cookie >> 32);

	(void)setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	r = 0;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 || mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0) {
		r = -errno;
	} else {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
		if (n < 0 || mnl_cb_run(buf, (size_t)n, 1, mnl_socket_get_portid(nl), diag_cb, ret) < 0)
			r = -errno;
	}
	mnl_socket_close(nl);
	return r;
}

static void check_diag(struct check *c)
{
	int fd[3] = { -1, -1, -1 };
	struct inet_diag_msg m = { 0 };
	char link[64], path[48];
	unsigned long inode = 0;
	ssize_t n = -1;
	int r;

	r = tcp_pair(fd);
	if (!r)
		r = diag_ask(fd[1], &m);
	if (r) {
		c->result = CHECK_FAIL;
		say(c->found, "the kernel does not answer for a TCP socket: %s", strerror(-r));
		say(c->next, "modprobe tcp_diag; in a container: allow NETLINK_SOCK_DIAG (connections stay on TCP, reason %s)",
		    reason_name(WSD_R_NO_DIAG));
		goto out;
	}
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd[1]);
	n = readlink(path, link, sizeof(link) - 1);
	if (n > 0) {
		link[n] = 0;
		if (sscanf(link, "socket:[%lu]", &inode) != 1)
			inode = 0;
	}
	if (n <= 0 || inode != m.idiag_inode) {
		c->result = CHECK_FAIL;
		say(c->found, "%s and sock_diag do not name the same socket", path);
		say(c->next, "mount /proc of this pid namespace (reason %s)", reason_name(WSD_R_NO_PROC));
	} else {
		say(c->found, "the kernel answers for a socket, and /proc names the same one");
	}
out:
	for (int i = 0; i < 3; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

static void check_memory(struct check *c)
{
	size_t len = wsd_session_length(WSD_RING_DEFAULT);
	_cleanup_close_ int fd = -1;
	void *p = MAP_FAILED;

	fd = memfd_create("wsdctl-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && ftruncate(fd, (off_t)len) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		c->result = CHECK_FAIL;
		say(c->found, "no sealed memfd can be made and mapped: %s", strerror(errno));
		say(c->next, "look at the limits of memory and of open files");
		return;
	}
	say(c->found, "sealed memfd of %zu KiB made and mapped", len >> 10);
	if (madvise(p, WSD_SESSION_HDR, MADV_POPULATE_WRITE) < 0) {
		c->result = CHECK_WARN;
		say(c->next, "pages cannot be made present beforehand (%s): Linux 5.14 or later is better", strerror(errno));
	}
	munmap(p, len);
}

static void check_limits(struct check *c)
{
	struct rlimit mem, files;

	getrlimit(RLIMIT_MEMLOCK, &mem);
	getrlimit(RLIMIT_NOFILE, &files);
	if (mem.rlim_cur == RLIM_INFINITY)
		say(c->found, "locked memory unlimited, %llu open files", (unsigned long long)files.rlim_cur);
	else
		say(c->found, "locked memory %llu KiB, %llu open files", (unsigned long long)mem.rlim_cur >> 10,
		    (unsigned long long)files.rlim_cur);
	/* shared memory is not locked, and for RDMA a daemon of root raises the limit as it is needed */
	if (files.rlim_cur < 256) {
		c->result = CHECK_WARN;
		say(c->next, "ulimit -n 1024 or more");
	}
}

/* what RDMA between hosts takes, beside the other host */
static void check_rdma(struct check *c, const char *socket, bool daemon)
{
	char device[160], why[WSD_MSG_MAX] = "";
	unsigned n = devices_words(device, sizeof(device));
	int off = daemon ? peers_off(socket, why, sizeof(why)) : -ENOENT;

	say(c->found, "%.150s%s%s%.120s", device, off < 0 ? "" : "; links to other hosts are ", off < 0 ? "" : off ? "off: " : "on",
	    off > 0 ? why : "");
	if (n && off > 0) {
		c->result = CHECK_WARN;
		say(c->next, "only for RDMA between hosts: wsdctl key, and section [san] of /etc/wsd/proxyd.conf, of the system daemon (wsd(7))");
	} else if (!n && !off) {
		c->result = CHECK_WARN;
		say(c->next, "connections to other hosts stay on TCP: rdma link show; is the port up, does its netdev have an address?");
	}
}

static void check_preload(struct check *c)
{
	const char *list = getenv("LD_PRELOAD"), *off = secure_getenv("WSD_DISABLE");

	if (off && *off && *off != '0') {
		c->result = CHECK_WARN;
		say(c->found, "WSD_DISABLE is set: nothing is accelerated");
		say(c->next, "unset WSD_DISABLE");
	} else if (list && *list) {
		say(c->found, "LD_PRELOAD=%.300s (wsdrun keeps it and comes first)", list);
	} else {
		say(c->found, "nothing in the environment is in the way");
	}
}

static void check_machine(struct check *c)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct utsname u;

	uname(&u);
	say(c->found, "Linux %s %s, %ld CPU%s", u.release, u.machine, cpus, cpus == 1 ? "" : "s");
	if (cpus < 2) {
		c->result = CHECK_WARN;
		say(c->next, "with one CPU the gain is smaller: nobody can wait without a system call");
	}
}

unsigned check_all(struct check out[static CHECKS_MAX], const char *socket, const char *catalog)
{
	unsigned n = 0;
	bool daemon;

	memset(out, 0, CHECKS_MAX * sizeof(*out));
	out[n].name = "machine";
	check_machine(&out[n++]);
	out[n].name = "switch";
	check_switch(&out[n++]);
	out[n].name = "catalog";
	check_catalog(&out[n++], catalog);
	out[n].name = "daemon";
	daemon = check_daemon(&out[n++], socket);
	out[n].name = "sock_diag";
	check_diag(&out[n++]);
	out[n].name = "memory";
	check_memory(&out[n++]);
	out[n].name = "limits";
	check_limits(&out[n++]);
	out[n].name = "rdma";
	check_rdma(&out[n++], socket, daemon);
	out[n].name = "environment";
	check_preload(&out[n++]);
	return n;
}
