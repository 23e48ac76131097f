/* SPDX-License-Identifier: MIT */
/*
 * A tool in a build tree uses what was built beside it, so that nothing must be installed to
 * try, test or measure a change. The tree is trusted as far as the tool that lies in it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/lib/place.h"

static const char *const installed_preload[] = {
	WSD_LIBDIR "/wsd/libwsd_switch.so", WSD_LIBDIR "/libwsd_switch.so", NULL
};
static const char *const installed_daemon[] = {
	WSD_LIBEXECDIR "/wsd-proxyd", WSD_LIBEXECDIR "/wsd/wsd-proxyd", WSD_SBINDIR "/wsd-proxyd", NULL
};

static const char *const installed_provider[] = { WSD_LIBDIR "/wsd/wsd_san.so", NULL };

/* absolute path of @dir/@rel if it is there and @mode allows it */
static bool take(char dst[static PATH_MAX], const char *dir, const char *rel, int mode)
{
	char path[2 * PATH_MAX], real[PATH_MAX];

	snprintf(path, sizeof(path), "%s%s%s", dir, *dir ? "/" : "", rel);
	if (!realpath(path, real) || access(real, mode) < 0)
		return false;
	strcpy(dst, real);
	return true;
}

static void take_installed(char dst[static PATH_MAX], const char *const *list, int mode)
{
	for (; *list; list++)
		if (take(dst, "", *list, mode))
			return;
}

void place_find(struct place *ret_place)
{
	struct place p = { 0 };
	char exe[PATH_MAX], dir[PATH_MAX];
	ssize_t n;

	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n > 0) {
		exe[n] = 0;
		*strrchr(exe, '/') = 0;
		/* all from the tree or nothing: half a tree beside half an installation helps nobody */
		if (take(dir, exe, "../wsd_switch", X_OK)) {
			(void)take(p.preload, exe, "../wsd_switch/libwsd_switch.so", R_OK);
			(void)take(p.daemon, exe, "../proxy_daemon/wsd-proxyd", X_OK);
			(void)take(p.provider, exe, "../san_provider/wsd_san.so", R_OK);
			(void)take(p.catalog, exe, "../san_provider/catalog.ini", R_OK);
			*ret_place = p;
			return;
		}
	}
	take_installed(p.preload, installed_preload, R_OK);
	take_installed(p.daemon, installed_daemon, X_OK);
	take_installed(p.provider, installed_provider, R_OK);
	*ret_place = p;
}
