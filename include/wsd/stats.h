/* SPDX-License-Identifier: MIT */
/*
 * wsd/stats.h - the file in which accelerated processes count, for wsdrun --stats
 *
 * wsdrun creates the file (WSD_STATS_LENGTH bytes, zeroes, header filled), names it in
 * WSD_STATS_ENV and reads it when its child has ended. Every process of the command claims
 * one slot at its first TCP connection and adds to it when a connection ends and at exit;
 * a process that is killed leaves out what its live connections moved since.
 *
 * accelerated_rdma was reserved once: a switch that is older leaves it zero.
 *
 * Units: bytes, connections. Threads and processes: atomics only.
 */
#ifndef WSD_STATS_H
#define WSD_STATS_H

#include <stdint.h>
#include <wsd/c11.h>

#define WSD_STATS_ENV		"WSD_STATS"	/* path; read with secure_getenv */
#define WSD_STATS_MAGIC		0x3154415453445357ull
#define WSD_STATS_SLOTS		1023u
#define WSD_STATS_REASONS	40u

struct wsd_stats_slot {
	_Atomic uint32_t pid;		/* 0: free; claimed by compare-and-swap */
	_Atomic uint32_t accelerated_rdma;	/* of `accelerated` those whose session is over RDMA, not memory of this host */
	char comm[16];
	_Atomic uint64_t conns;		/* TCP connections seen */
	_Atomic uint64_t accelerated;	/* of them with a session */
	_Atomic uint64_t ring_tx, ring_rx, tcp_tx, tcp_rx;
	_Atomic uint64_t gate_opened, gate_closed;
	_Atomic uint32_t reason[WSD_STATS_REASONS];	/* connections that ended on TCP only, by enum wsd_reason */
};

struct wsd_stats_file {
	uint64_t magic;
	uint32_t n_slots;
	_Atomic uint32_t overflow;	/* processes that found no slot */
	uint8_t pad[sizeof(struct wsd_stats_slot) - 16];
	struct wsd_stats_slot slot[WSD_STATS_SLOTS];
};

#define WSD_STATS_LENGTH	(sizeof(struct wsd_stats_file))

#endif
