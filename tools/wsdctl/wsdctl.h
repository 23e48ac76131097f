/* SPDX-License-Identifier: MIT */
/*
 * wsdctl/wsdctl.h - look at the daemon and its sessions, change the catalog
 *
 *   main.c      which command
 *   request.c   packets to and from the daemon, each wait bounded
 *   status.c    wsdctl status: asks; print_status.c and json_status.c show
 *   stop.c      wsdctl stop
 *   peers.c     wsdctl peers
 *   key.c       wsdctl key
 *   catalog.c   wsdctl install, remove, list
 *   doctor.c    wsdctl doctor: check.c does the looking
 *
 * A command prints its own errors, once, and returns an exit status.
 */
#ifndef WSDCTL_H
#define WSDCTL_H

#include <stdbool.h>
#include <stdint.h>

#include <wsd/catalog.h>
#include <wsd/proxy_proto.h>

#include "tools/lib/endpoint.h"

/* exit statuses: documented in wsdctl(1), so numbers are fixed */
enum {
	CTL_OK = 0,
	CTL_NO = 1,		/* the answer is no: something is wrong, absent, or there already */
	CTL_USAGE = 2,
	CTL_NO_DAEMON = 3,	/* no daemon answers */
	CTL_REFUSED = 4,	/* the daemon refused, or what it said makes no sense */
	CTL_CATALOG = 5,	/* the catalog cannot be used or changed */
	CTL_SYSTEM = 6,		/* the system failed us: memory, descriptors, ... */
};

struct ctl_command {
	const char *name, *doc;
	int (*run)(int argc, char **argv);	/* argv[0]: "wsdctl NAME" */
};

int cmd_status(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_peers(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_install(int argc, char **argv);
int cmd_remove(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

/* "wsdctl: ..." and a new line on stderr */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- request.c ---- */

#define REQUEST_SILENCE_MS	3000	/* a daemon that says nothing for so long is given up */

union message {
	struct wsd_msg_hdr hdr;
	struct wsd_msg_plain plain;
	struct wsd_msg_refused refused;
	struct wsd_msg_status_daemon daemon;
	struct wsd_msg_status_conn conn;
	struct wsd_msg_status_peer peer;
	uint8_t bytes[WSD_MSG_MAX];
};

/**
 * request_open() - connect to the daemon and send a STATUS or UNLOAD
 * request_send() - the same with any request
 * @ret_fd:	connection; written only when 0 is returned
 * @path:	filled with the socket's path as by endpoint_find()
 * @wanted:	path the user named, or NULL
 *
 * Return: 0, ENDPOINT_E_*, or -errno (-ECONNRESET: the daemon hung up at once).
 */
int request_open(int *ret_fd, char path[static ENDPOINT_PATH_MAX], const char *wanted, uint16_t type, uint32_t flags);
int request_send(int *ret_fd, char path[static ENDPOINT_PATH_MAX], const char *wanted, const void *m, size_t len);

/**
 * request_next() - next packet
 *
 * Only packets of an answer to such a request get through: right version, right length for the type.
 *
 * Return: 0; -ETIMEDOUT; -ECONNRESET (the daemon hung up); -EBADMSG; another -errno.
 */
int request_next(int fd, union message *ret_m);

/* ---- status.c ---- */

/* everything that STATUS brings and the catalog says */
struct status {
	char path[ENDPOINT_PATH_MAX];	/* of the socket */
	int error;			/* not 0: no daemon; of endpoint_strerror() */
	bool truncated;			/* more connections than we keep */
	struct wsd_msg_status_daemon daemon;
	struct wsd_msg_status_conn *conn;
	unsigned n_conn;

	int catalog_error;		/* of wsd_catalog_load() */
	struct wsd_catalog_error catalog_text;
	struct wsd_provider provider[WSD_CATALOG_PROVIDERS];
	unsigned n_provider;
};

#define STATUS_CONNS	65536u

/**
 * status_ask() - fill all of it
 * @s:		zeroes; status_clear() it afterwards, whatever is returned
 *
 * Return: an exit status (the daemon's part: a bad catalog is not counted); has not printed anything.
 */
int status_ask(struct status *s, const char *wanted);
void status_clear(struct status *s);
/* words for struct status.error */
const char *status_strerror(int err);
/* as in the daemon's list of transports; NULL: it has no session, or the daemon does not say */
const char *transport_name(const struct wsd_msg_status_conn *c);

/* what an address looks like to people, "127.0.0.1:80" or "[::1]:80" */
struct addr_text {
	char text[72];
};
struct addr_text addr_text(const struct wsd_addr *a);

/* RDMA devices, as the daemon would find them: all, or the first in words and how many there are */
int devices_print(bool json);
unsigned devices_words(char *ret, size_t size);
/* peers.c: 0: the daemon may have links to other hosts; 1: it has none, and why; or an error of request_*() */
int peers_off(const char *socket, char *ret_why, size_t size);
void status_print(const struct status *s);
void status_print_json(const struct status *s);

/* ---- catalog.c ---- */

/* the catalog this wsdctl works on: --catalog, WSD_CATALOG, that of the build tree, /etc/wsd/catalog.ini */
const char *catalog_path(const char *wanted);

/* 0 if the file is a provider: it can be loaded and exports WSPStartupEx; else text says why not */
int provider_try(const char *file, char *text, size_t size);

/* ---- check.c ---- */

enum check_result { CHECK_OK, CHECK_WARN, CHECK_FAIL };

struct check {
	const char *name;	/* stable, for JSON */
	enum check_result result;
	char found[384];	/* one line */
	char next[256];		/* what to do; "" when nothing */
};

#define CHECKS_MAX	16

/* run them all; returns how many there are */
unsigned check_all(struct check out[static CHECKS_MAX], const char *socket, const char *catalog);

#endif
