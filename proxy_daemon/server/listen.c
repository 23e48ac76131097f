/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy_daemon/server/listen.h"
#include "proxy_daemon/server/log.h"

#define BACKLOG 1024

static int prepare_dir(const char *path, bool for_everybody)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	mode_t mode = for_everybody ? 0755 : 0700;
	struct stat st;
	char *slash;

	strcpy(dir, path);
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	if (mkdir(dir, mode) == 0) {
		if (chmod(dir, mode) < 0)	/* umask */
			return -errno;
	} else if (errno != EEXIST) {
		log_error("%s: cannot make this directory: %m", dir);
		return -errno;
	}
	if (lstat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || (st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & (S_IWGRP | S_IWOTH))) {
		log_error("%s: not a directory that only we may write", dir);
		return -EPERM;
	}
	return 0;
}

static int take_lock(const char *path)
{
	char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	int fd, r;

	snprintf(lock, sizeof(lock), "%s.lock", path);
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		r = -errno;
		log_error("%s: cannot open: %m", lock);
		return r;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
		log_info("%s: another daemon serves this path", path);
		close(fd);
		return r;
	}
	return fd;
}

int listener_open(struct listener *l, const char *path, bool for_everybody)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct stat st;
	int r;

	l->fd = l->lock_fd = -1;
	l->path = path;
	if (!path || strlen(path) >= sizeof(sun.sun_path) || !strchr(path, '/'))
		return -ENAMETOOLONG;
	r = prepare_dir(path, for_everybody);
	if (r)
		return r;
	r = take_lock(path);
	if (r < 0)
		return r;
	l->lock_fd = r;
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode)) {
			log_error("%s: exists and is no socket", path);
			r = -EEXIST;
			goto err_unlock;
		}
		unlink(path);		/* of a dead daemon: the lock is ours */
	}
	l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0) {
		r = -errno;
		goto err_unlock;
	}
	strcpy(sun.sun_path, path);
	if (bind(l->fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		r = -errno;
		log_error("%s: cannot bind: %m", path);
		goto err_close;
	}
	if (chmod(path, for_everybody ? 0666 : 0600) < 0 || listen(l->fd, BACKLOG) < 0) {
		r = -errno;
		log_error("%s: cannot listen: %m", path);
		unlink(path);
		goto err_close;
	}
	return 0;

err_close:
	close(l->fd);
err_unlock:
	close(l->lock_fd);
	l->fd = l->lock_fd = -1;
	return r;
}

void listener_close(struct listener *l)
{
	if (l->fd >= 0) {
		unlink(l->path);
		close(l->fd);
	}
	if (l->lock_fd >= 0)
		close(l->lock_fd);
	l->fd = l->lock_fd = -1;
}
