/* SPDX-License-Identifier: MIT */
/*
 * fake_daemon.h - a daemon made of one listening socket, pumped by the test itself
 *
 * It welcomes whoever says hello, writes down what it is told and answers only when the test says so, rightly or
 * wrongly. It checks that what a client sends has the right shape. No thread: fake_daemon_pump()
 * takes what has arrived.
 */
#ifndef TESTS_FAKE_DAEMON_H
#define TESTS_FAKE_DAEMON_H

#include <stdbool.h>
#include <wsd/proxy_proto.h>

#define FAKE_CLIENTS	8
#define FAKE_RECORDS	1024
#define FAKE_SAN_RECORDS 64

struct fake_daemon {
	char dir[64], path[96];
	int listener;
	struct fake_client {
		int fd;		/* -1: free */
		struct wsd_notify_page *page;
	} client[FAKE_CLIENTS];
	struct fake_offer {
		int client;
		struct wsd_msg_offer m;
	} offer[FAKE_RECORDS];
	struct fake_offer_san {
		int client;
		struct wsd_msg_offer_san m;
	} offer_san[FAKE_SAN_RECORDS];
	struct wsd_msg_san_blob local[FAKE_SAN_RECORDS];
	struct wsd_msg_san_plain ready[FAKE_SAN_RECORDS], ask[FAKE_SAN_RECORDS];
	unsigned n_offers_san, n_locals, n_readies, n_asks;
	struct wsd_msg_withdraw withdraw[FAKE_RECORDS];
	struct wsd_msg_attached attached[FAKE_RECORDS];
	unsigned n_clients, n_offers, n_withdraws, n_attached;
	bool silent;		/* do not answer HELLO */
	uint64_t caps;		/* WSD_CAP_*, told in WELCOME */
};

/* listens in a directory of its own and puts the path into WSD_PROXY_SOCKET */
void fake_daemon_start(struct fake_daemon *d);
void fake_daemon_stop(struct fake_daemon *d);
void fake_daemon_pump(struct fake_daemon *d);
/* late, after silent */
void fake_daemon_welcome(struct fake_daemon *d, int client);
/* a packet, with fd or -1; counted in the page */
void fake_daemon_send(struct fake_daemon *d, int client, const void *buf, size_t len, int fd);
void fake_daemon_refuse(struct fake_daemon *d, unsigned offer, uint32_t reason);
/* session memory fd for that offer; fd stays the caller's */
void fake_daemon_session(struct fake_daemon *d, unsigned offer, int fd, uint32_t ring_size, uint64_t session_id,
			 uint32_t side);

#endif
