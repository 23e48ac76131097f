/* SPDX-License-Identifier: MIT */
/*
 * One idea holds this together: a path proves nothing, SO_PEERCRED does. Directories are checked
 * all the same, so that nobody else can take the place of a daemon and keep a user on TCP.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <wsd/proxy_proto.h>

#include "tools/lib/cleanup.h"
#include "tools/lib/endpoint.h"

static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == ENDPOINT_PATH_MAX, "paths fit");

int endpoint_connect(int *ret_fd, const char *path, uid_t *ret_uid)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(sun.sun_path))
		return ENDPOINT_E_LONG;
	strcpy(sun.sun_path, path);

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		switch (errno) {
		case ENOENT: case ENOTDIR: case ECONNREFUSED: case EPROTOTYPE:
			return ENDPOINT_E_NOBODY;
		case EAGAIN:
			return ENDPOINT_E_BUSY;
		}
		return -errno;
	}

	/* of the process that called listen(): fixed then, nobody can change it */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	if (ret_uid)
		*ret_uid = cred.uid;
	if (cred.uid != 0 && cred.uid != geteuid())
		return ENDPOINT_E_FOREIGN;

	*ret_fd = fd;
	fd = -1;
	return 0;
}

bool endpoint_answers(const char *path)
{
	_cleanup_close_ int fd = -1;
	int r;

	r = endpoint_connect(&fd, path, NULL);
	return r == 0 || r == ENDPOINT_E_BUSY;
}

static const char *home_dir(void)
{
	const char *home = secure_getenv("HOME");
	struct passwd *pw;

	if (home && home[0] == '/')
		return home;
	pw = getpwuid(geteuid());
	return pw && pw->pw_dir && pw->pw_dir[0] == '/' ? pw->pw_dir : NULL;
}

bool endpoint_private_dir(char buf[static ENDPOINT_PATH_MAX], unsigned n)
{
	const char *base = NULL, *tail = "";

	switch (n) {
	case 0:
		base = geteuid() == 0 ? "/run/wsd-root" : NULL;
		break;
	case 1:
		base = secure_getenv("XDG_RUNTIME_DIR");
		tail = "/wsd";
		break;
	case 2:
		base = home_dir();
		tail = "/.cache/wsd/run";
		break;
	default:
		return false;
	}
	if (!base || base[0] != '/' ||
	    snprintf(buf, ENDPOINT_PATH_MAX, "%s%s", base, tail) >= ENDPOINT_PATH_MAX)
		buf[0] = 0;
	return true;
}

int endpoint_check_dir(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022))
		return ENDPOINT_E_UNSAFE;
	return 0;
}

int endpoint_make_dir(const char *path)
{
	mode_t mode = geteuid() == 0 ? 0755 : 0700;
	_cleanup_free_ char *p = strdup(path);
	char *slash;

	if (!p)
		return -ENOMEM;
	for (slash = p + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		if (mkdir(p, mode) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			return -errno;
		*slash = '/';
	}
	if (mkdir(p, mode) == 0) {
		if (chmod(p, mode) < 0)		/* whatever the umask says */
			return -errno;
	} else if (errno != EEXIST) {
		return -errno;
	}
	return endpoint_check_dir(path);
}

int endpoint_find(char buf[static ENDPOINT_PATH_MAX], const char *wanted)
{
	char path[ENDPOINT_PATH_MAX];
	_cleanup_close_ int fd = -1;
	int r, first_error = ENDPOINT_E_NOBODY;

	if (!wanted)
		wanted = secure_getenv(WSD_PROXY_SOCKET_ENV);
	if (wanted && *wanted) {
		if (strlen(wanted) >= ENDPOINT_PATH_MAX) {
			buf[0] = 0;
			return ENDPOINT_E_LONG;
		}
		strcpy(buf, wanted);
		return endpoint_connect(&fd, buf, NULL);
	}

	strcpy(buf, WSD_PROXYD_SYSTEM_PATH);
	r = endpoint_connect(&fd, buf, NULL);
	if (r == 0)
		return 0;
	if (r != ENDPOINT_E_NOBODY)
		first_error = r;

	for (unsigned n = 0; endpoint_private_dir(path, n); n++) {
		char sock[ENDPOINT_PATH_MAX + sizeof("/proxyd.sock")];

		if (!path[0])
			continue;
		if ((size_t)snprintf(sock, sizeof(sock), "%s/proxyd.sock", path) >= ENDPOINT_PATH_MAX)
			continue;
		r = endpoint_connect(&fd, sock, NULL);
		if (r == 0) {
			strcpy(buf, sock);
			return 0;
		}
		if (r != ENDPOINT_E_NOBODY && first_error == ENDPOINT_E_NOBODY) {
			strcpy(buf, sock);
			first_error = r;
		}
	}
	return first_error;
}

const char *endpoint_strerror(int err)
{
	switch (err) {
	case ENDPOINT_E_NOBODY:
		return "no daemon answers";
	case ENDPOINT_E_BUSY:
		return "the daemon is too busy to accept a connection";
	case ENDPOINT_E_FOREIGN:
		return "the daemon runs as neither root nor this user";
	case ENDPOINT_E_LONG:
		return "the path is too long for a socket";
	case ENDPOINT_E_UNSAFE:
		return "the directory belongs to somebody else, or others may write into it";
	}
	return strerror(err < 0 ? -err : err);
}
