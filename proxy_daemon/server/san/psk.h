/* SPDX-License-Identifier: MIT */
/*
 * psk.h - the PSK that a cluster key is between two addresses, and which of two keys a ClientHello was made with
 *
 * While a key is being replaced a daemon has two, and what a client says of its PSK (the identity) does not tell them apart. Its *binder* does: a MAC
 * over the ClientHello with the PSK itself. It is looked at only to choose; that the chosen one is right is for TLS to prove.
 */
#ifndef PROXYD_SAN_PSK_H
#define PROXYD_SAN_PSK_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

#define PSK_LEN		32u

/* @ip: of the client, of the server. 0, or an error of GnuTLS */
int psk_derive(uint8_t ret[static PSK_LEN], const uint8_t *key, unsigned len, const uint8_t ip[2][16]);

/* @hello: the first ClientHello, without the header of the handshake message. false also for one whose only PSK is not its last word */
bool psk_has_bound(const uint8_t psk[static PSK_LEN], const gnutls_datum_t *hello);

#endif
