/* SPDX-License-Identifier: MIT */
/*
 * common/catalog_text.h - the catalog between text and memory, for common/catalog.c alone
 *
 * Contract and format: wsd/catalog.h.
 */
#ifndef COMMON_CATALOG_TEXT_H
#define COMMON_CATALOG_TEXT_H

#include <stdio.h>
#include <wsd/catalog.h>

#define CATALOG_LIST_MAX (2 * WSD_CATALOG_PROVIDERS)

struct catalog_listed {		/* one line of "TCP on SAN" */
	char name[WSD_CATALOG_NAME];
	GUID id;
};

struct catalog {
	struct wsd_provider *p;	/* the caller's array */
	unsigned max, n;
	struct catalog_listed list[CATALOG_LIST_MAX];
	unsigned n_list;
};

/* c->p and c->max set by the caller; 0, WSD_CATALOG_E_SYNTAX or _LIMIT; err is never NULL */
int catalog_text_parse(struct catalog *c, const char *name, const char *text, size_t len,
		       struct wsd_catalog_error *err);

/* what catalog_text_parse() reads back as the same catalog; ferror(f) says whether it was written */
void catalog_text_format(const struct catalog *c, FILE *f);

__attribute__((format(printf, 2, 3))) void catalog_error(struct wsd_catalog_error *err, const char *fmt, ...);

#endif
