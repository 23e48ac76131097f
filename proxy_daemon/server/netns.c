/* SPDX-License-Identifier: MIT */
/*
 * A socket belongs to the namespace of the thread that made it, and a thread can enter
 * another one: so a short-lived thread makes the socket there and ends. (Entering with the
 * event loop's thread and coming back would leave the daemon in the wrong place when the
 * way back fails.) Nothing in that thread waits for anything but the kernel's own tables.
 */
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wsd/proxy_proto.h>

#include "proxy_daemon/server/diag.h"
#include "proxy_daemon/server/netns.h"
#include "proxy_daemon/server/procfs.h"

struct visit {
	int ns_fd;
	struct mnl_socket *diag;
	int reason;
};

static void *visitor(void *arg)
{
	struct visit *v = arg;

	if (setns(v->ns_fd, CLONE_NEWNET) < 0)
		v->reason = WSD_R_NETNS;
	else if (diag_open(&v->diag))
		v->reason = WSD_R_NO_DIAG;
	return NULL;
}

static int open_there(pid_t pid, dev_t dev, ino_t ino, struct mnl_socket **ret)
{
	struct visit v = { 0 };
	char path[64];
	struct stat st;
	pthread_t t;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	v.ns_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (v.ns_fd < 0)
		return WSD_R_NO_PROC;
	if (fstat(v.ns_fd, &st) < 0 || st.st_dev != dev || st.st_ino != ino)
		v.reason = WSD_R_NETNS;		/* moved on meanwhile */
	else if (pthread_create(&t, NULL, visitor, &v))
		v.reason = WSD_R_NOMEM;
	else
		pthread_join(t, NULL);
	close(v.ns_fd);
	*ret = v.diag;
	return v.reason;
}

int netns_get(struct netns_table *t, pid_t pid, struct netns **ret)
{
	struct netns *ns, **slot = NULL;
	unsigned i;
	dev_t dev;
	ino_t ino;
	int r;

	if (proc_netns(pid, &dev, &ino))
		return WSD_R_NO_PROC;
	for (i = 0; i < NETNS_MAX; i++) {
		ns = t->ns[i];
		if (ns && ns->dev == dev && ns->ino == ino) {
			ns->refs++;
			*ret = ns;
			return 0;
		}
	}
	for (i = 0; i < NETNS_MAX && !slot; i++)
		if (!t->ns[i])
			slot = &t->ns[i];
	if (!slot) {
		netns_trim(t);
		for (i = 0; i < NETNS_MAX && !slot; i++)
			if (!t->ns[i])
				slot = &t->ns[i];
	}
	if (!slot)
		return WSD_R_LIMIT;
	ns = calloc(1, sizeof(*ns));
	if (!ns)
		return WSD_R_NOMEM;
	if (dev == t->own_dev && ino == t->own_ino)
		r = diag_open(&ns->diag) ? WSD_R_NO_DIAG : 0;
	else
		r = open_there(pid, dev, ino, &ns->diag);
	if (r) {
		free(ns);
		return r;
	}
	ns->dev = dev;
	ns->ino = ino;
	ns->refs = 1;
	*slot = ns;
	*ret = ns;
	return 0;
}

void netns_put(struct netns *ns)
{
	if (ns)
		ns->refs--;
}

static void drop(struct netns **slot)
{
	(*slot)->diag = diag_close((*slot)->diag);
	free(*slot);
	*slot = NULL;
}

void netns_trim(struct netns_table *t)
{
	unsigned i;

	for (i = 0; i < NETNS_MAX; i++)
		if (t->ns[i] && !t->ns[i]->refs && !(t->ns[i]->dev == t->own_dev && t->ns[i]->ino == t->own_ino))
			drop(&t->ns[i]);
}

int netns_init(struct netns_table *t)
{
	return proc_netns(getpid(), &t->own_dev, &t->own_ino);
}

void netns_fini(struct netns_table *t)
{
	unsigned i;

	for (i = 0; i < NETNS_MAX; i++)
		if (t->ns[i])
			drop(&t->ns[i]);
}
