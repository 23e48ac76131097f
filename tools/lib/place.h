/* SPDX-License-Identifier: MIT */
/*
 * tools/lib/place.h - where the parts of this installation are
 *
 * A tool in a build tree uses what was built beside it; an installed one the installed parts.
 */
#ifndef TOOLS_LIB_PLACE_H
#define TOOLS_LIB_PLACE_H

#include <limits.h>

struct place {
	char preload[PATH_MAX];		/* libwsd_switch.so, or "" when there is none */
	char daemon[PATH_MAX];		/* wsd-proxyd, or "" */
	char provider[PATH_MAX];	/* wsd_san.so, or "" */
	char catalog[PATH_MAX];		/* of the build tree, or "": the installed default */
};

/* look beside /proc/self/exe, and where that is no build tree, in the installed places */
void place_find(struct place *ret_place);

#endif
