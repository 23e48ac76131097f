/* SPDX-License-Identifier: MIT */
/*
 * fake_remote.h - clients of the daemon that have RDMA sessions, and no device
 */
#ifndef TESTS_PROXY_FAKE_REMOTE_H
#define TESTS_PROXY_FAKE_REMOTE_H

#include <wsd/remote_session.h>

#include "tests/unit/proxy/fixture.h"

struct fake {
	struct proxy_client *pc;
	int fd;
	uint64_t cookie, id;
	struct proxy_msg setup;
	struct wsd_remote *rs;
	uint8_t *base;
};

/* a software device rxe0 in a folder that stands for /sys, its address as sysfs writes it */
void fake_device(const char *sys, const char *gid);
/* offers, once the daemon has welcomed us; f->pc is made if need be */
void offer_proven(struct fake *f, int fd, uint32_t role, const struct proxy_san_offer *x);
void offer_san(struct fake *f, int fd, uint32_t role, uint32_t flags);
struct proxy_msg expect(struct fake *f, enum proxy_msg_type type);
/* SETUP, mapped */
void take_setup(struct fake *f);
void say_local(struct fake *f);
void take_remote(struct fake *f);
void say_ready(struct fake *f);
/* forced: both ends of a new pair have SETUP */
void offer_both(struct fake f[2], struct pair *p);
/* a live session */
void live(struct fake f[2], struct pair *p);
/* ... from SETUP to GO */
void join_both(struct fake f[2]);
void ask(struct fake *f, enum wsd_san_what what, uint64_t a, uint64_t b);
void done(struct fake f[2], struct pair *p);
uint8_t byte_at(uint64_t off);
/* X puts ring bytes [posted, to) */
void post(struct fake *f, uint64_t to);
void add_seam(struct fake *f, uint64_t ring_off, uint64_t tcp_off);
/* [from, to) lies in the fill ring */
void check_filled(struct fake *f, uint64_t from, uint64_t to);

#endif
