/* SPDX-License-Identifier: MIT */
/*
 * fixture.h - a switch that does nothing but drive wsd_san.so through its one export
 *
 * Events are structs with a flag; handles are even numbers that are counted; overlapped
 * completions are written down. Every function of the provider is reached through the table or by GUID.
 */
#ifndef TESTS_SPI_FIXTURE_H
#define TESTS_SPI_FIXTURE_H

#include <criterion/criterion.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <wsd/san_ext.h>
#include <wsd/proxy_proto.h>

struct event {
	int set;
	unsigned n_set;
};

struct upcalls {
	unsigned handles, created, closed;
	unsigned n_complete;
	struct {
		SOCKET s;
		LPWSAOVERLAPPED ov;
		DWORD error, bytes;
	} complete[64];
	int refuse_handles;
};

extern WSPPROC_TABLE t;
extern WSDCONTROL control;
extern struct upcalls up;
extern LPFN_WSDSHAREDRING shared_ring;
extern LPFN_WSDPUTWITHSIGNAL put_with_signal;
extern LPFN_WSPREGISTERMEMORY reg_mem;
extern LPFN_WSPDEREGISTERMEMORY dereg_mem;
extern LPFN_WSPREGISTERRDMAMEMORY reg_rdma;
extern LPFN_WSPDEREGISTERRDMAMEMORY dereg_rdma;
extern LPFN_WSPRDMAWRITE rdma_write;
extern LPWSPSTARTUPEX startup;
extern WSPUPCALLTABLEEX uptable;

void load(void);			/* dlopen only */
void begin(void);			/* and WSPStartupEx, extensions */
void end(void);				/* WSPCleanup; all handles have been given back */
int get_ext(const GUID *g, void **ret);	/* 0 or the WSA code */

/* a loopback TCP pair: [0] connected, [1] accepted */
void tcp_pair(int family, int fd[2]);
struct wsd_connect_data connect_data(int fd, uint64_t context);
struct wsd_expect expectation(int fd, uint64_t context);
SOCKET new_bound(int fd);		/* SAN socket beside fd, bound to its address */
SOCKET new_listener(int fd, struct event *ev);
/* WSPConnect beside fd; 0 or the WSA code */
int connect_beside(SOCKET s, int fd);
int connect_with(SOCKET s, const struct wsd_connect_data *d);	/* d->fd says beside what */
double now(void);

#endif
