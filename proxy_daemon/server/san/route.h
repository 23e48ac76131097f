/* SPDX-License-Identifier: MIT */
/*
 * route.h - does the way to a peer lead over this network device?
 *
 * RDMA packets take the GID's device whatever the routing table says. Where TCP goes another way, or by a gateway, the two may end at
 * different hosts, or RDMA nowhere: such peers stay on TCP.
 *
 * May this block the event loop? No: the kernel's answer is there when the question has been sent.
 */
#ifndef PROXYD_SAN_ROUTE_H
#define PROXYD_SAN_ROUTE_H

#include <stdint.h>
#include <wsd/proxy_proto.h>

/* 1: yes, without a gateway; 0: no; -errno: nobody knows */
int route_is_direct(const struct wsd_addr *local, const struct wsd_addr *remote, uint32_t ifindex);

#endif
