/* SPDX-License-Identifier: MIT */
/*
 * netns.h - network namespaces that clients live in, with a sock_diag socket in each
 *
 * The socket keeps its namespace alive, so an identity (device and inode of the namespace
 * file) cannot come back as another one while an entry for it exists. Entries that nothing
 * refers to are dropped by netns_trim(): a dead container's network must not be kept up.
 */
#ifndef PROXYD_NETNS_H
#define PROXYD_NETNS_H

#include <stdint.h>
#include <sys/types.h>

#define NETNS_MAX 64u

struct mnl_socket;

struct netns {
	dev_t dev;
	ino_t ino;
	struct mnl_socket *diag;
	unsigned refs;
};

struct netns_table {
	struct netns *ns[NETNS_MAX];
	dev_t own_dev;
	ino_t own_ino;
};

int netns_init(struct netns_table *t);		/* 0 or -errno */
void netns_fini(struct netns_table *t);

/**
 * netns_get() - the namespace in which a process is
 *
 * Return: 0 with a reference in *ret, or enum wsd_reason: WSD_R_NO_PROC, WSD_R_NETNS (not
 * allowed to look in there), WSD_R_NO_DIAG, WSD_R_LIMIT.
 */
int netns_get(struct netns_table *t, pid_t pid, struct netns **ret);
void netns_put(struct netns *ns);
void netns_trim(struct netns_table *t);

#endif
