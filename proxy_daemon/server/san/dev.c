/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy_daemon/server/san/dev.h"

#define ROCE_HEADERS 96u	/* IP, UDP, transport headers and check that a packet may have: what the kernel reckons with */

static const uint8_t mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

uint8_t dev_mtu(unsigned netdev_mtu)
{
	unsigned room = netdev_mtu > ROCE_HEADERS ? netdev_mtu - ROCE_HEADERS : 0;
	uint8_t mtu = 1;		/* 256 */

	while (mtu < 5 && room >= 256u << mtu)
		mtu++;
	return mtu;
}

/* the first line; false: not there, or not readable (an empty entry's type) */
static bool read_line(int dir, const char *path, char *ret, size_t room)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, ret, room - 1);
	close(fd);
	if (n < 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

static bool parse_gid(uint8_t ret[16], const char *text)
{
	struct in6_addr a;

	if (inet_pton(AF_INET6, text, &a) != 1)
		return false;
	memcpy(ret, &a, 16);
	return true;
}

static bool is_zero(const uint8_t gid[16])
{
	static const uint8_t zero[16];

	return !memcmp(gid, zero, 16);
}

/* fe80::/64 alone: no address of a connection that we would carry */
static bool is_link_local(const uint8_t gid[16])
{
	return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80;
}

static unsigned netdev_number(int root, const char *netdev, const char *what)
{
	char path[64], line[32];

	snprintf(path, sizeof(path), "class/net/%s/%s", netdev, what);
	if (strchr(netdev, '/') || !read_line(root, path, line, sizeof(line)))
		return 0;
	return (unsigned)strtoul(line, NULL, 10);
}

static void scan_port(struct dev_table *t, int root, int dir, const char *device, unsigned port, bool soft)
{
	char path[96], line[80];
	struct dev_gid *g;
	unsigned i, empty;
	uint8_t gid[16];

	snprintf(path, sizeof(path), "ports/%u/state", port);
	if (!read_line(dir, path, line, sizeof(line)) || strtoul(line, NULL, 10) != 4)
		return;
	snprintf(path, sizeof(path), "ports/%u/link_layer", port);
	if (!read_line(dir, path, line, sizeof(line)) || strcmp(line, "Ethernet"))
		return;
	for (i = empty = 0; i < DEV_TABLE_MAX && empty < DEV_TABLE_EMPTY; i++) {
		snprintf(path, sizeof(path), "ports/%u/gids/%u", port, i);
		if (!read_line(dir, path, line, sizeof(line)))
			return;
		if (!parse_gid(gid, line) || is_zero(gid)) {
			empty++;
			continue;
		}
		empty = 0;
		snprintf(path, sizeof(path), "ports/%u/gid_attrs/types/%u", port, i);
		if (is_link_local(gid) || !read_line(dir, path, line, sizeof(line)) || strcmp(line, "RoCE v2"))
			continue;
		if (t->n == DEV_GIDS_MAX) {
			t->full = true;
			return;
		}
		snprintf(path, sizeof(path), "ports/%u/gid_attrs/ndevs/%u", port, i);
		if (!read_line(dir, path, line, sizeof(line)) || strlen(line) >= sizeof(g->netdev))
			continue;
		g = &t->gid[t->n++];
		memset(g, 0, sizeof(*g));
		strcpy(g->device, device);
		strcpy(g->netdev, line);
		memcpy(g->gid, gid, 16);
		g->index = (uint16_t)i;
		g->port = (uint8_t)port;
		g->soft = soft;
		g->mtu = dev_mtu(netdev_number(root, g->netdev, "mtu"));
		g->ifindex = netdev_number(root, g->netdev, "ifindex");
	}
}

struct names {
	char name[DEV_DEVICES_MAX][64];
	unsigned n;
};

/* the devices that can be opened */
static void opened_by(int root, struct names *ret)
{
	char path[320];
	struct dirent *de;
	DIR *d;
	int fd;

	ret->n = 0;
	fd = openat(root, "class/infiniband_verbs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((de = readdir(d)) && ret->n < DEV_DEVICES_MAX) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/ibdev", de->d_name);
		if (read_line(dirfd(d), path, ret->name[ret->n], sizeof(ret->name[0])) && ret->name[ret->n][0] &&
		    !strchr(ret->name[ret->n], '/') && ret->name[ret->n][0] != '.')
			ret->n++;
	}
	closedir(d);
}

void dev_scan(struct dev_table *t, const char *root)
{
	struct names names;
	char path[128];
	unsigned i, port;
	int fd, dir;
	bool soft;

	t->n = 0;
	t->full = false;
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	opened_by(fd, &names);
	for (i = 0; i < names.n; i++) {
		snprintf(path, sizeof(path), "class/infiniband/%s", names.name[i]);
		dir = openat(fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			continue;
		soft = faccessat(dir, "parent", F_OK, 0) == 0;	/* rxe names the netdev it was made of */
		for (port = 1; port <= DEV_PORTS_MAX; port++)
			scan_port(t, fd, dir, names.name[i], port, soft);
		close(dir);
	}
	close(fd);
}

const struct dev_gid *dev_find(const struct dev_table *t, const struct wsd_addr *local, bool any)
{
	const struct dev_gid *v4 = NULL;
	uint8_t ip[16];
	unsigned i;

	if (local->family == AF_INET) {
		memcpy(ip, mapped_prefix, 12);
		memcpy(ip + 12, local->ip, 4);
	} else {
		memcpy(ip, local->ip, 16);
	}
	for (i = 0; i < t->n; i++) {
		if (!memcmp(t->gid[i].gid, ip, 16))
			return &t->gid[i];
		if (!v4 && !memcmp(t->gid[i].gid, mapped_prefix, 12))
			v4 = &t->gid[i];
	}
	if (!any || !t->n)
		return NULL;
	return v4 ? v4 : &t->gid[0];
}

static const struct dev_gid *entry(const struct dev_table *t, const char *device, uint8_t port, const uint8_t gid[16])
{
	unsigned i;

	for (i = 0; i < t->n; i++)
		if (t->gid[i].port == port && !memcmp(t->gid[i].gid, gid, 16) && !strcmp(t->gid[i].device, device))
			return &t->gid[i];
	return NULL;
}

bool dev_has(const struct dev_table *t, const char *device, uint8_t port, const uint8_t gid[16])
{
	return entry(t, device, port, gid);
}

bool dev_same(const struct dev_table *a, const struct dev_table *b)
{
	const struct dev_gid *g;
	unsigned i;

	if (a->n != b->n)
		return false;
	for (i = 0; i < a->n; i++) {
		g = entry(b, a->gid[i].device, a->gid[i].port, a->gid[i].gid);
		if (!g || g->ifindex != a->gid[i].ifindex || g->mtu != a->gid[i].mtu)
			return false;
	}
	return true;
}
