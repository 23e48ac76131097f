/* SPDX-License-Identifier: MIT */
/*
 * driver.c - the drivers of the devices that are there, opened before libibverbs opens all that are installed
 *
 * libibverbs asks the drivers that have registered first, and only when a device is left over opens every one it is configured for, some
 * twenty libraries that stay in the program for good. A driver registers when it is opened, so the right ones come first. They lie in
 * a folder beside libibverbs, as librxe-rdmav34.so. Whatever is missing or differs here costs only time: libibverbs does as always.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rdma_transport/verbs/lib.h"

#define DEVICES		"/sys/class/infiniband_verbs"
#define DEVICES_MOST	16

/* the kernel's driver, and libibverbs' for the same; NULL: a device without hardware */
static const struct {
	const char *kernel, *user;
} known[] = {
	{ NULL, "rxe" }, { NULL, "siw" }, { "mlx5_core", "mlx5" }, { "mlx4_core", "mlx4" }, { "bnxt_en", "bnxt_re" }, { "irdma", "irdma" },
	{ "ice", "irdma" }, { "efa", "efa" }, { "cxgb4", "cxgb4" }, { "qede", "qedr" }, { "hns3", "hns" },
};

static void driver_open(const char *folder, const char *name)
{
	char pattern[PATH_MAX];
	glob_t g;

	if (snprintf(pattern, sizeof(pattern), "%s/libibverbs/lib%s-rdmav*.so", folder, name) >= (int)sizeof(pattern))
		return;
	if (glob(pattern, GLOB_NOSORT, NULL, &g) == 0) {
		/* of several one is of another version of libibverbs: it must choose */
		if (g.gl_pathc == 1)
			(void)dlopen(g.gl_pathv[0], RTLD_NOW | RTLD_LOCAL);
		globfree(&g);
	}
}

static void device_driver(const char *folder, const char *device, unsigned *opened)
{
	char path[PATH_MAX], link[PATH_MAX];
	const char *kernel = NULL;
	ssize_t n = -1;
	unsigned i;

	if (snprintf(path, sizeof(path), DEVICES "/%s/device/driver", device) < (int)sizeof(path))
		n = readlink(path, link, sizeof(link) - 1);
	if (n > 0) {
		link[n] = '\0';
		kernel = basename(link);
	}
	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (kernel ? !known[i].kernel || strcmp(known[i].kernel, kernel) : !!known[i].kernel)
			continue;
		if (!(*opened & 1u << i))
			driver_open(folder, known[i].user);
		*opened |= 1u << i;
	}
}

void rt_verbs_drivers(void *libibverbs)
{
	struct link_map *map;
	char folder[PATH_MAX];
	unsigned opened = 0, n = 0;
	struct dirent *e;
	DIR *dir;

	if (dlinfo(libibverbs, RTLD_DI_LINKMAP, &map) != 0 || strlen(map->l_name) >= sizeof(folder))
		return;
	strcpy(folder, map->l_name);
	dirname(folder);
	dir = opendir(DEVICES);
	if (!dir)
		return;
	while ((e = readdir(dir)) && n < DEVICES_MOST) {
		if (strncmp(e->d_name, "uverbs", 6) == 0) {
			device_driver(folder, e->d_name, &opened);
			n++;
		}
	}
	closedir(dir);
}
