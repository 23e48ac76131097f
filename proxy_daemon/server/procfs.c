/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy_daemon/server/procfs.h"

int proc_socket_inode(pid_t pid, int fd, uint64_t *ret_inode)
{
	char path[64], link[64];
	uint64_t inode;
	ssize_t n;
	int end = 0;

	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0) {
		if (errno != ENOENT)
			return -errno;
		/* no such descriptor, or no such process? */
		snprintf(path, sizeof(path), "/proc/%d/fd", pid);
		return access(path, F_OK) == 0 ? PROC_E_NOT_SOCKET : -ESRCH;
	}
	link[n] = '\0';
	if (sscanf(link, "socket:[%" SCNu64 "]%n", &inode, &end) != 1 || end != n)
		return PROC_E_NOT_SOCKET;
	*ret_inode = inode;
	return 0;
}

int proc_netns(pid_t pid, dev_t *ret_dev, ino_t *ret_ino)
{
	char path[64];
	struct stat st;

	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	if (stat(path, &st) < 0)
		return -errno;
	*ret_dev = st.st_dev;
	*ret_ino = st.st_ino;
	return 0;
}

void proc_comm(pid_t pid, char ret[static 16])
{
	char path[64];
	ssize_t n;
	int fd;

	memset(ret, 0, 16);
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, ret, 15);
	close(fd);
	if (n > 0 && ret[n - 1] == '\n')
		ret[n - 1] = '\0';
}
