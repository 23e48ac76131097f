/* SPDX-License-Identifier: MIT */
/*
 * wsd/catalog.h - the catalog of SAN providers
 *
 * Stands for Winsock's protocol catalog and the registry list "TCP on SAN": one INI file,
 *
 *	[provider wsd-shm]
 *	id = {3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d001}
 *	path = /usr/lib/x86_64-linux-gnu/wsd/wsd_san.so
 *	flags = PFL_HIDDEN
 *
 *	[TCP on SAN]
 *	wsd-shm = {3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d001}
 *
 * A provider counts only if it stands in both: an entry alone does nothing. In the list the name is
 * free, the GUID is what counts. A GUID that is listed without an entry, or twice, is a warning.
 *
 * Keys of an entry (id and path are needed, the others have these defaults):
 *	path            absolute, or relative to the directory of the catalog, without ".."
 *	protocol        text for people; the entry's name
 *	flags           PFL_HIDDEN (the only one a SAN provider needs); names or a number
 *	service_flags   GUARANTEED_DELIVERY GUARANTEED_ORDER MESSAGE_ORIENTED GRACEFUL_CLOSE; names of
 *	                XP1_* without the prefix, or a number
 *	version         2
 *	family          AF_INET; or AF_INET6 or a number. What the entry says; a provider may take others
 *	socket_type     SOCK_STREAM
 *	ip_protocol     6
 *	sockaddr_min, sockaddr_max  16
 *	byte_order, security        0
 *	message_size    0xffffffff
 *	options         text for the provider; not in WSAPROTOCOL_INFOW
 *
 * Comments start with ; or #. Lines are at most WSD_CATALOG_LINE bytes, the file at most
 * WSD_CATALOG_BYTES. It must be a regular file of root or of the caller's effective user that
 * neither group nor others may write. Anything malformed makes the whole catalog unusable, with one
 * text that names file, line and what: half a catalog is never used.
 *
 * Errors:  0, a positive WSD_CATALOG_E_*, or -errno (file cannot be opened, read, written). In
 *          each case but 0 err->text says it in words; with 0 it is empty or a warning.
 * Threads: any, none at the same time on the same array. Not from signal handlers.
 */
#ifndef WSD_CATALOG_H
#define WSD_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <wsd/san_spi.h>

#define WSD_CATALOG_PATH	"/etc/wsd/catalog.ini"
#define WSD_CATALOG_ENV		"WSD_CATALOG"	/* read with secure_getenv: the file to use instead */
#define WSD_CATALOG_PROVIDERS	16u		/* entries at most */
#define WSD_CATALOG_BYTES	65536u
#define WSD_CATALOG_LINE	1000u
#define WSD_CATALOG_NAME	40u		/* of an entry, with the final zero */

enum {
	_WSD_CATALOG_OK,
	WSD_CATALOG_E_SYNTAX,	/* the file is malformed */
	WSD_CATALOG_E_UNSAFE,	/* somebody else may write it, or it is no regular file */
	WSD_CATALOG_E_LIMIT,	/* longer, or more entries, than allowed */
	WSD_CATALOG_E_EXISTS,	/* install: name or GUID is there already */
	WSD_CATALOG_E_NONE,	/* remove: no such entry */
	WSD_CATALOG_E_INVALID,	/* install: the entry given is no valid one */
	WSD_CATALOG_E_BUSY,	/* install, remove: somebody else is changing the catalog */
};

struct wsd_provider {
	char name[WSD_CATALOG_NAME];
	char path[1024];		/* as in the file */
	char file[1024];		/* path to dlopen */
	char options[256];
	bool listed;			/* stands in "TCP on SAN": it counts */
	WSAPROTOCOL_INFOW info;		/* dwCatalogEntryId: position, from 1001 */
};

struct wsd_catalog_error {
	char text[512];
};

/* the file in use: WSD_CATALOG if set, else WSD_CATALOG_PATH; never NULL */
const char *wsd_catalog_path(void);

/**
 * wsd_catalog_load() - read the catalog
 * @path:	file; NULL for wsd_catalog_path()
 * @out:	filled from the front, in the order of the file; listed or not
 * @max:	entries it has room for; more in the file: WSD_CATALOG_E_LIMIT
 * @ret_n:	entries filled; 0 on error
 * @err:	text; may be NULL
 *
 * Return: 0, WSD_CATALOG_E_*, or -errno (-ENOENT: no catalog).
 */
int wsd_catalog_load(const char *path, struct wsd_provider *out, unsigned max, unsigned *ret_n,
		     struct wsd_catalog_error *err);

/* the same from memory; name is for texts, its directory for relative paths. For tests and fuzzing. */
int wsd_catalog_parse(const char *name, const char *text, size_t len, struct wsd_provider *out,
		      unsigned max, unsigned *ret_n, struct wsd_catalog_error *err);

/* an entry with the defaults; name, id, path and listed are left to be filled */
void wsd_provider_init(struct wsd_provider *p);

/**
 * wsd_catalog_install() - add an entry, and its line in "TCP on SAN" if p->listed
 *
 * A file that does not exist is made (mode 0644); its directory must exist. The file is rewritten from what it
 * meant: comments are lost. Readers see the old or the new file (rename), never a part.
 *
 * Return: as wsd_catalog_load(), and WSD_CATALOG_E_EXISTS, _INVALID, _BUSY.
 */
int wsd_catalog_install(const char *path, const struct wsd_provider *p, struct wsd_catalog_error *err);

/* remove entry and list line by name or by GUID text. WSD_CATALOG_E_NONE: there was none. */
int wsd_catalog_remove(const char *path, const char *name_or_id, struct wsd_catalog_error *err);

/* GUID as text in braces, lower case; 39 bytes with the final zero */
void wsd_guid_format(const GUID *g, char buf[39]);
/* 0 or -EINVAL; braces optional, nothing may follow */
int wsd_guid_parse(const char *text, GUID *ret);

#endif
