/* SPDX-License-Identifier: MIT */
/* what else the machine does during a run: busy loops, and a quota of half a CPU */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/child.h"

struct load {
	unsigned n;
	pid_t pid[];
};

int load_start(struct load **ret, unsigned n)
{
	struct load *l;

	*ret = NULL;
	if (!n)
		return 0;
	l = calloc(1, sizeof(*l) + n * sizeof(l->pid[0]));
	if (!l)
		return -ENOMEM;
	for (; l->n < n; l->n++) {
		pid_t p = fork();

		if (p < 0) {
			int r = -errno;

			(void)load_stop(l);
			return r;
		}
		if (!p) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			signal(SIGINT, SIG_DFL);
			signal(SIGTERM, SIG_DFL);
			alarm(600);
			for (volatile uint64_t i = 0;; i++)
				;
		}
		l->pid[l->n] = p;
	}
	*ret = l;
	return 0;
}

struct load *load_stop(struct load *l)
{
	int status;

	if (!l)
		return NULL;
	for (unsigned i = 0; i < l->n; i++)
		(void)kill(l->pid[i], SIGKILL);
	for (unsigned i = 0; i < l->n; i++)
		(void)child_wait(l->pid[i], &status, EXIT_MS);
	free(l);
	return NULL;
}

/* ---- quota: a cgroup of our own below our present one, version 2 or 1 ---- */

static char group[512];
static char procs[544];

static int put(const char *folder, const char *file, const char *text)
{
	char path[600];
	int fd, r = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* where the hierarchy is mounted: version 2 when @v1 is NULL, else the one with controller @v1 */
static bool mount_point(char ret[256], const char *v1)
{
	char line[1024], where[256], type[32], opts[512];
	bool found = false;
	FILE *f = fopen("/proc/self/mounts", "re");

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		char *save, *t;

		if (sscanf(line, "%*s %255s %31s %511s", where, type, opts) != 3)
			continue;
		if (!v1) {
			found = !strcmp(type, "cgroup2");
		} else if (!strcmp(type, "cgroup")) {
			for (t = strtok_r(opts, ",", &save); t && !found; t = strtok_r(NULL, ",", &save))
				found = !strcmp(t, v1);
		}
	}
	fclose(f);
	if (found)
		snprintf(ret, 256, "%s", where);
	return found;
}

/* our own place in it */
static void own_group(char ret[160], const char *v1)
{
	char line[512];
	FILE *f = fopen("/proc/self/cgroup", "re");

	ret[0] = 0;
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
		char *save, *t;

		if (!path)
			continue;
		*path++ = 0;
		names++;
		path[strcspn(path, "\n")] = 0;
		if (!v1 && !*names) {
			snprintf(ret, 160, "%s", path);
			break;
		}
		for (t = strtok_r(names, ",", &save); v1 && t; t = strtok_r(NULL, ",", &save))
			if (!strcmp(t, v1))
				snprintf(ret, 160, "%s", path);
	}
	fclose(f);
	if (!strcmp(ret, "/"))
		ret[0] = 0;
}

int quota_open(char why[WHY_MAX])
{
	char root[256], own[160];
	int r;

	if (group[0])
		return 0;
	if (mount_point(root, "cpu")) {
		own_group(own, "cpu");
		snprintf(group, sizeof(group), "%s%s/wsd-bench-%d", root, own, (int)getpid());
		if (!mkdir(group, 0755) || errno == EEXIST) {
			r = put(group, "cpu.cfs_period_us", "100000");
			if (!r)
				r = put(group, "cpu.cfs_quota_us", "50000");
			if (!r)
				goto made;
			(void)rmdir(group);
		} else {
			r = -errno;
		}
	} else if (mount_point(root, NULL)) {
		own_group(own, NULL);
		/* a group with processes cannot hand controllers down, so ours is made at the top */
		(void)put(root, "cgroup.subtree_control", "+cpu");
		snprintf(group, sizeof(group), "%s/wsd-bench-%d", root, (int)getpid());
		if (!mkdir(group, 0755) || errno == EEXIST) {
			r = put(group, "cpu.max", "50000 100000");
			if (!r)
				goto made;
			(void)rmdir(group);
		} else {
			r = -errno;
		}
	} else {
		r = -ENOENT;
		snprintf(why, WHY_MAX, "no cgroup hierarchy with the cpu controller is mounted");
		group[0] = 0;
		return r;
	}
	snprintf(why, WHY_MAX, "cannot make a cgroup with a CPU quota: %s", strerror(-r));
	group[0] = 0;
	return r;
made:
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
	return 0;
}

int quota_enter(void)
{
	int fd = open(procs, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, "0", 1) != 1)
		r = -errno;
	close(fd);
	return r;
}

/* whoever is still in the group (a daemon that somebody started there) goes on outside */
static void quota_empty(void)
{
	char above[512], pid[24];
	FILE *f = fopen(procs, "re");

	if (!f)
		return;
	snprintf(above, sizeof(above), "%s", group);
	*strrchr(above, '/') = 0;
	while (fscanf(f, "%23s", pid) == 1)
		(void)put(above, "cgroup.procs", pid);
	fclose(f);
}

void quota_close(void)
{
	struct timespec tick = { 0, 1000000 };

	if (!group[0])
		return;
	/* killed members leave a moment after they were waited for */
	for (int i = 0; i < 1000 && rmdir(group) && errno == EBUSY; i++) {
		if (i == 100)
			quota_empty();
		nanosleep(&tick, NULL);
	}
	group[0] = 0;
}
