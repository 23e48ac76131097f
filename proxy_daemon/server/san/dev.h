/* SPDX-License-Identifier: MIT */
/*
 * dev.h - RDMA devices of this host, as sysfs shows them
 *
 * One entry for each RoCE v2 address (GID) of an active port. A device that has no character device (any more) is not there: while one
 * is being deleted it still has its other files, and waits for its users to go.
 *
 * May this block the event loop? sysfs answers from the kernel's tables; files and entries read are bounded.
 */
#ifndef PROXYD_SAN_DEV_H
#define PROXYD_SAN_DEV_H

#include <stdbool.h>
#include <stdint.h>
#include <wsd/proxy_proto.h>

#define DEV_GIDS_MAX		256u
#define DEV_DEVICES_MAX		32u
#define DEV_PORTS_MAX		8u	/* of one device */
#define DEV_TABLE_MAX		1024u	/* entries of one port's table that are looked at ... */
#define DEV_TABLE_EMPTY		32u	/* ... until so many in a row are empty */

struct dev_gid {
	char device[64];
	char netdev[16];
	uint8_t gid[16];
	uint32_t ifindex;	/* of the netdev; 0: not known */
	uint16_t index;
	uint8_t port;
	uint8_t mtu;		/* enum ibv_mtu that fits the netdev's */
	bool soft;		/* a software device: its queues are no locked memory */
};

struct dev_table {
	struct dev_gid gid[DEV_GIDS_MAX];
	unsigned n;
	bool full;		/* there were more */
};

/* @root: "/sys", or where tests have their own. No devices is no error. */
void dev_scan(struct dev_table *t, const char *root);

/* the entry whose address is this one; any: whichever there is, when none is, IPv4 ones first. NULL: none */
const struct dev_gid *dev_find(const struct dev_table *t, const struct wsd_addr *local, bool any);
/* is it there still? */
bool dev_has(const struct dev_table *t, const char *device, uint8_t port, const uint8_t gid[16]);
/* same devices, ports and addresses, on the same netdevs? */
bool dev_same(const struct dev_table *a, const struct dev_table *b);

/* the largest enum ibv_mtu whose packets fit */
uint8_t dev_mtu(unsigned netdev_mtu);

#endif
