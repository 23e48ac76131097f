/* SPDX-License-Identifier: MIT */
/*
 * receiver.c - see receiver.h
 *
 * sock_diag names the other end of the socket by inode; /proc/PID/fd says who holds it, /proc/PID/maps whether our library is
 * in there. A process that is about to exec, or that switched us off (WSD_DISABLE), is taken for one of ours: its
 * next image looks at what it inherits, and resets what it cannot have.
 */
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "wsd_switch/core/carry.h"
#include "wsd_switch/core/receiver.h"

struct entry {			/* linux_dirent64 */
	uint64_t ino;
	int64_t off;
	unsigned short len;
	unsigned char type;
	char name[];
};

struct ask {
	struct nlmsghdr nlh;
	struct unix_diag_req req;
};

/* inode of the other end in a message of sock_diag; 0: not in it */
static uint32_t peer_in(struct nlmsghdr *h, size_t len)
{
	struct unix_diag_msg *m;
	struct rtattr *a;
	size_t n;

	if (!NLMSG_OK(h, len) || h->nlmsg_type != SOCK_DIAG_BY_FAMILY || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return 0;
	m = NLMSG_DATA(h);
	n = h->nlmsg_len - NLMSG_LENGTH(sizeof(*m));
	for (a = (struct rtattr *)(m + 1); RTA_OK(a, n); a = RTA_NEXT(a, n))
		if (a->rta_type == UNIX_DIAG_PEER && RTA_PAYLOAD(a) >= sizeof(uint32_t))
			return *(uint32_t *)RTA_DATA(a);
	return 0;
}

static uint32_t peer_inode(int fd)
{
	union {
		struct nlmsghdr h;
		char b[1024];
	} u;
	struct ask q = {
		.nlh = { .nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST },
		.req = { .sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_PEER,
			 .udiag_cookie = { ~0u, ~0u } },
	};
	struct sockaddr_nl to = { .nl_family = AF_NETLINK };
	struct stat st;
	uint32_t r = 0;
	ssize_t n;
	int s;

	if (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode))
		return 0;
	q.req.udiag_ino = (uint32_t)st.st_ino;
	s = real.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (s < 0)
		return 0;
	/* the kernel answers within the send */
	if (real.sendto(s, &q, sizeof(q), 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)sizeof(q) &&
	    (n = real.recv(s, &u, sizeof(u), MSG_DONTWAIT)) > 0)
		r = peer_in(&u.h, (size_t)n);
	real.close(s);
	return r;
}

/* call f with each numeric name of a directory until it says true */
static bool each_number(const char *dir, bool (*f)(int n, int dirfd, void *arg), void *arg)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_Alignas(struct entry) char b[4096];
	bool done = false;
	long r, at;

	if (fd < 0)
		return false;
	while (!done && (r = real.syscall(SYS_getdents64, fd, b, sizeof(b))) > 0)
		for (at = 0; !done && at < r; at += ((struct entry *)(b + at))->len) {
			const char *name = ((struct entry *)(b + at))->name;

			if (*name >= '0' && *name <= '9')
				done = f(atoi(name), fd, arg);
		}
	real.close(fd);
	return done;
}

struct search {
	char link[32];		/* socket:[INODE] */
	bool ours, other;
};

static bool is_it(int n, int dirfd, void *arg)
{
	const struct search *s = arg;
	char name[16], to[32];
	ssize_t r;

	snprintf(name, sizeof(name), "%d", n);
	r = readlinkat(dirfd, name, to, sizeof(to) - 1);
	if (r <= 0)
		return false;
	to[r] = 0;
	return strcmp(to, s->link) == 0;
}

enum maps { MAPS_US, MAPS_OTHER, MAPS_NOTHING };

static enum maps maps(int pid)
{
	const char *own = carry_own_name();
	size_t n = strlen(own), have = 0;
	char path[48], b[4096 + 1];
	bool hit = false, any = false;
	ssize_t r;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	fd = n && n < 256 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? MAPS_NOTHING : MAPS_OTHER;
	while (!hit && (r = real.read(fd, b + have, sizeof(b) - 1 - have)) > 0) {
		any = true;
		have += (size_t)r;
		b[have] = 0;
		hit = strstr(b, own) != NULL;
		if (have > n) {		/* it may go on in the next piece */
			memmove(b, b + have - n, n);
			have = n;
		}
	}
	real.close(fd);
	return hit ? MAPS_US : any ? MAPS_OTHER : MAPS_NOTHING;
}

static bool one_process(int pid, int dirfd, void *arg)
{
	struct search *s = arg;
	char dir[48];

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	if (!each_number(dir, is_it, s))
		return false;
	switch ((uint32_t)pid == proc_page->pid ? MAPS_US : maps(pid)) {
	case MAPS_US:
		s->ours = true;
		break;
	case MAPS_OTHER:
		s->other = true;
		break;
	case MAPS_NOTHING:	/* it is ending: its memory goes before its descriptors */
		break;
	}
	return s->other;
}

enum receiver receiver_of(int unix_fd)
{
	uint32_t inode = peer_inode(unix_fd);
	struct search s = { .ours = false };

	if (!inode)
		return RECEIVER_UNKNOWN;
	snprintf(s.link, sizeof(s.link), "socket:[%u]", inode);
	(void)each_number("/proc", one_process, &s);
	return s.other ? RECEIVER_OTHER : s.ours ? RECEIVER_OURS : RECEIVER_UNKNOWN;
}
