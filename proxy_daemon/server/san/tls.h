/* SPDX-License-Identifier: MIT */
/*
 * tls.h - a TLS 1.3 session that only a holder of the cluster key can make, between these two addresses and in this direction
 *
 * External PSK with ECDHE, nothing else: no certificates, tickets, early data or older versions. The PSK is
 *
 *	HMAC-SHA256(cluster key, "wsd-peer/1" 0 client-ip(16) server-ip(16))
 *
 * with the addresses each side sees at its own socket. So a session that somebody relays between other addresses fails, and so
 * does one that is reflected to where it came from, as client and server have changed places there.
 *
 * Sessions are non-blocking: -EAGAIN, and tls_wants_write() says for what.
 */
#ifndef PROXYD_SAN_TLS_H
#define PROXYD_SAN_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tls;
struct tls_session;

/* @old: another key, that clients may come with but that is never offered; @old_len 0: none. 0 or -errno, logged */
int tls_init(struct tls **ret, const uint8_t *key, unsigned len, const uint8_t *old, unsigned old_len);
struct tls *tls_fini(struct tls *tls);	/* NULL; after its sessions */

/* @fd stays the caller's and outlives the session. Return: 0 or -errno */
int tls_new(struct tls_session **ret, struct tls *tls, int fd, bool client, const uint8_t local[16], const uint8_t remote[16]);
struct tls_session *tls_free(struct tls_session *s);	/* NULL; says nothing to the peer */

/* Return: 0: proven; -EAGAIN; -EKEYREJECTED: the keys differ; -EPROTO: no such TLS; -ECONNRESET */
int tls_shake(struct tls_session *s);
bool tls_has_old_key(const struct tls_session *s);	/* it is the other key that was proven */
bool tls_wants_write(const struct tls_session *s);

/* Return: bytes; 0: the end, in good order (receive only); -EAGAIN; -ECONNRESET; -EPROTO. After -EAGAIN send the same again */
ssize_t tls_send(struct tls_session *s, const void *buf, size_t n);
ssize_t tls_receive(struct tls_session *s, void *buf, size_t n);

#endif
