/* SPDX-License-Identifier: MIT */
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdrun/wsdrun.h"

#define SWITCH_NAME	"libwsd_switch.so"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* runtimes that stop the program unless they are loaded before everything else */
static bool is_runtime(const char *path)
{
	static const char *const prefix[] = { "libasan", "libtsan", "liblsan", "libubsan", "libmsan", "libclang_rt." };
	const char *base = base_name(path);

	for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]); i++)
		if (!strncmp(base, prefix[i], strlen(prefix[i])))
			return true;
	return false;
}

static int find_runtime(struct dl_phdr_info *info, size_t size, void *data)
{
	const char *base = base_name(info->dlpi_name);

	if (strncmp(base, "libasan", 7) && strncmp(base, "libtsan", 7))
		return 0;
	*(const char **)data = info->dlpi_name;
	return 1;
}

const char *preload_runtime(void)
{
	const char *name = NULL;

	dl_iterate_phdr(find_runtime, &name);
	return name;
}

static void append(char *list, const char *entry)
{
	if (*list)
		strcat(list, ":");
	strcat(list, entry);
}

char *preload_compose(const char *lib, const char *old, const char *runtime)
{
	_cleanup_free_ char *copy = strdup(old ? old : "");
	char *list, *entry, *save;
	bool leading = true, placed = false;

	if (!copy || (lib && strpbrk(lib, " :")))
		return NULL;
	list = calloc(1, strlen(copy) + (lib ? strlen(lib) : 0) + (runtime ? strlen(runtime) : 0) + 4);
	if (!list)
		return NULL;

	if (lib && runtime && !strstr(copy, base_name(runtime)))
		append(list, runtime);
	for (entry = strtok_r(copy, " :", &save); entry; entry = strtok_r(NULL, " :", &save)) {
		if (!strcmp(base_name(entry), SWITCH_NAME))
			continue;
		if (leading && !is_runtime(entry)) {
			leading = false;
			if (lib)
				append(list, lib);
			placed = true;
		}
		append(list, entry);
	}
	if (lib && !placed)
		append(list, lib);
	return list;
}
