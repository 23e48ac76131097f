/* SPDX-License-Identifier: MIT */
/*
 * fake_verbs.h - a libibverbs whose fabric is this process (rt_config.lib = &fv_lib)
 *
 * One device fake0 with one port; GIDs ::ffff:10.9.0.1 to .4 at the indices 3 to 6. Reliable connected queue pairs, regions with checked keys,
 * domains, bounds and access, completion queues, channels and asynchronous events with real descriptors.
 * What a device may punish is punished here by abort(): a queue posted to beyond its size, a completion queue that overflows, a receiver
 * that is not ready, a source or target outside a region, an illegal transition, destroying what is in use, events not acknowledged.
 *
 * Packets are delivered when they are posted, unless held back. Threads: any; one lock.
 */
#ifndef TESTS_FAKE_VERBS_H
#define TESTS_FAKE_VERBS_H

#include <stdbool.h>
#include <stdint.h>

#include "rdma_transport/api/rt.h"
#include "rdma_transport/verbs/lib.h"

extern const struct rt_verbs_lib fv_lib;

enum fv_fn {
#define X(ret, name, args) FV_##name,
	RT_VERBS_NAMED(X)
#undef X
	FV_query_gid_table, FV_post_send, FV_post_recv, FV_poll_cq, FV_req_notify_cq,
	_FV_N,
};

/* all controls as at the start; abort() if something is still open */
void fv_reset(void);
/* objects that are open: contexts, domains, regions, channels, queues, queue pairs */
unsigned fv_live(void);
unsigned fv_live_domains(void);
/* the nth call of fn from now on fails with error (errno), once */
void fv_fail_nth(enum fv_fn fn, unsigned nth, int error);
unsigned fv_calls(enum fv_fn fn);
/* deliver nothing by itself; fv_step(n) then delivers up to n packets, oldest first; returns how many */
void fv_hold(bool hold);
unsigned fv_step(unsigned n);
/* every packet is lost from now on: retries run out at its delivery */
void fv_drop_path(bool drop);
/* data of a write is not to be seen before something behind it that makes it so (a read, a receive), though it was completed */
void fv_visible_late(bool late);
/* of each write only so many bytes are seen at first, the rest with what comes behind it; 0: all */
void fv_tear(unsigned bytes);
/* the next immediate that is delivered says so much more */
void fv_lie(uint32_t more);
/* a write that was in flight long ago: does it land? */
bool fv_stale_write(uint32_t qpn, uint64_t addr, uint32_t rkey, const void *p, size_t n);
/* a write by somebody else's queue pair of the same device: lands only if its domain is that of the region */
bool fv_write_by(uint32_t qpn, uint64_t addr, uint32_t rkey, const void *p, size_t n);
/* a message of no bytes by that queue pair */
void fv_message_by(uint32_t qpn);
/* the next completion of a post names one so many further on */
void fv_lie_post(uint32_t more);
/* of a connected queue pair; 0: there is none */
enum ibv_mtu fv_mtu(uint32_t qpn);
/* an asynchronous event: of the port (qpn: its number, 0: 1), the device (qpn 0) or a queue pair */
void fv_event(enum ibv_event_type type, uint32_t qpn);
/* the largest number of posts that one doorbell brought, and doorbells so far */
unsigned fv_longest_chain(void);
unsigned fv_signalled(void);
/* the index of the first GID from now on; 0: the default */
void fv_gid_at(unsigned at);
/* close() of a number from there on answers EBADF, as the switch answers for what is ours; 0: none */
void fv_cover_from(int fd);
/* called in each call of fn, by its thread; NULL: nothing */
void fv_on(enum fv_fn fn, void (*call)(void));
/* what is registered is kept out of children, as by ibv_fork_init() */
void fv_fork_safe(bool safe);
/* the path of the fake device for GID i (0..3) */
struct rt_path fv_path(unsigned i);

#endif
