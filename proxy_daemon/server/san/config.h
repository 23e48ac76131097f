/* SPDX-License-Identifier: MIT */
/*
 * san/config.h - section [san] of the daemon's file
 *
 * Absent or empty: nothing of this folder does anything. Peers (a link to other hosts' daemons) need subnets and a key, and a
 * system daemon; `transport = verbs` on one host needs neither.
 */
#ifndef PROXYD_SAN_CONFIG_H
#define PROXYD_SAN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAN_SUBNETS_MAX		64u
#define SAN_LISTEN_MAX		16u
#define SAN_KEY_MIN		32u
#define SAN_KEY_MAX		64u
#define SAN_KEY_FILE		"/etc/wsd/cluster.key"

enum san_transport { SAN_AUTO, SAN_VERBS, SAN_SHM };

struct san_subnet {
	uint8_t ip[16];		/* IPv4 mapped; zero behind the prefix */
	uint8_t prefix;		/* of the 128 bits */
};

struct san_config {
	struct san_subnet subnet[SAN_SUBNETS_MAX];
	unsigned n_subnets;
	bool listen;				/* yes unless said otherwise */
	uint8_t listen_at[SAN_LISTEN_MAX][16];	/* none: this host's addresses in the subnets */
	unsigned n_listen_at;
	uint16_t port;
	char key_file[256], old_key_file[256];	/* "": none named */
	uint8_t key[SAN_KEY_MAX];
	unsigned key_len;			/* 0: none, or it could not be used */
	uint8_t old_key[SAN_KEY_MAX];		/* accepted, never offered */
	unsigned old_key_len;
	enum san_transport transport;
	uint8_t qp_timeout, qp_retry;		/* 1..31, 0..6 */
	uint64_t quota_locked;			/* bytes per uid */
	uint64_t locked_per_qp;			/* UINT64_MAX: by the driver */
	unsigned quota_sessions, quota_waiting;	/* of one uid, of MAX_REMOTES and DISTANT_MAX */
	uint32_t ring_start, ring_max;		/* powers of two, 4 KiB to 16 MiB, start <= max */
	bool peers;				/* all that a link needs is there */
	const char *why_off;			/* else: words for it */
	char wrong[160];			/* -EINVAL for one item of a list: which, and why */
};

void san_config_default(struct san_config *c);

/* one key of the section; a list may come in several lines. Return: 0, -EINVAL, -ENOENT: no such key */
int san_config_set(struct san_config *c, const char *name, const char *value);

/* After the last key: reads the key file (one line on standard error when it cannot be used; the daemon goes on
 * without peers). Return: 0; -EINVAL: values that exclude each other, said on standard error. */
int san_config_finish(struct san_config *c, bool private_daemon);

/* hex or base64 of SAN_KEY_MIN..SAN_KEY_MAX bytes, white space around it. Return: number of bytes, -EINVAL */
int san_key_parse(uint8_t ret[static SAN_KEY_MAX], const char *text, size_t len);

/* some declared subnet has it / has both. Addresses as by peer_ip() */
bool san_covers(const struct san_config *c, const uint8_t ip[16]);
bool san_covers_both(const struct san_config *c, const uint8_t a[16], const uint8_t b[16]);

#endif
