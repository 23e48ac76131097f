/* SPDX-License-Identifier: MIT */
/*
 * dev.c - devices that this process has open, what belongs to one, and their descriptors
 *
 * A device is opened for its first connection and closed behind its last: who removes one waits for all that have it open (rxe's
 * kernel side knows no other way), so nobody has it open for nothing. Its descriptors are moved out of the way of a program
 * that counts on low numbers. What libibverbs is to close gets another number before that, or is closed here: the interceptor
 * may know the old one as ours and answers EBADF.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/base/rawsys.h"
#include "rdma_transport/verbs/verbs.h"

#define TOP		8192	/* as wait.c: the kernel's table, which each fork copies, grows with the highest number */
#define TOP_SPAN	256	/* what we keep open lies together */
#define RXE_VENDOR	0xffffffu
#define SIW_VENDOR	0x626d74u

int v_fd_to_top(int fd)
{
	struct rlimit l;
	long hi = -1;
	int from;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return fd;
	from = l.rlim_cur > TOP ? TOP - TOP_SPAN : (int)l.rlim_cur - 1;
	for (; hi < 0 && from > 64; from -= 16)
		hi = rt_raw4(SYS_fcntl, fd, F_DUPFD_CLOEXEC, from, 0);
	if (hi < 0)
		return fd;
	rt_raw_close(fd);
	return (int)hi;
}

static void fd_nonblock(int fd)
{
	long fl = rt_raw4(SYS_fcntl, fd, F_GETFL, 0, 0);

	if (fl >= 0)
		rt_raw4(SYS_fcntl, fd, F_SETFL, fl | O_NONBLOCK, 0);
}

static int watch(struct v_ctx *x, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	return (int)rt_raw4(SYS_epoll_ctl, x->ep, EPOLL_CTL_ADD, fd, (long)&ev);
}

static void unwatch(struct v_ctx *x, int fd)
{
	struct epoll_event ev = {};

	rt_raw4(SYS_epoll_ctl, x->ep, EPOLL_CTL_DEL, fd, (long)&ev);
}

/* low: another number of cmd_fd, or -1. What is closed here libibverbs must not close again: by then it may be the program's */
static void close_context(struct v_ctx *x, struct ibv_context *context, int low)
{
	unwatch(x, context->async_fd);
	rt_raw_close(context->async_fd);
	context->async_fd = -1;
	rt_raw_close(context->cmd_fd);
	context->cmd_fd = low;
	x->lib->close_device(context);
}

static int open_context(struct v_ctx *x, const char *name, struct ibv_context **ret)
{
	struct ibv_device **list;
	int n = 0, r = -ENODEV;

	RT_FAULT_POINT(r, -ENOMEM, out);
	list = x->lib->get_device_list(&n);
	if (!list)
		return errno == ENOSYS ? -ENODEV : v_errno(errno);
	for (int i = 0; i < n && r; i++) {
		if (strcmp(x->lib->get_device_name(list[i]), name))
			continue;
		errno = 0;
		*ret = x->lib->open_device(list[i]);
		if (!*ret) {
			r = errno == ENODEV || errno == ENOENT ? -ENODEV : v_errno(errno);
			break;
		}
		r = 0;
	}
	x->lib->free_device_list(list);
out:
	__attribute__((unused));
	return r;
}

/* Far from ours, so that it is none that the interceptor knows of a device closed just before. -1: there is none */
static int another_number(int fd)
{
	long low = rt_raw4(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0);

	if (low < 0 || fd - low > TOP_SPAN)
		return low < 0 ? -1 : (int)low;
	rt_raw_close((int)low);
	return -1;
}

static void device_close(struct v_ctx *x, struct v_device *dev)
{
	int low = another_number(dev->context->cmd_fd);

	for (unsigned i = 0; i < dev->n_shards; i++)
		x->lib->destroy_cq(dev->shard[i].cq);
	for (unsigned i = 0; i < dev->n_domains; i++)
		if (dev->domain[i].pd)
			x->lib->dealloc_pd(dev->domain[i].pd);
	if (dev->channel) {
		unwatch(x, dev->channel->fd);
		rt_raw_close(dev->channel->fd);
		dev->channel->fd = -1;
		x->lib->destroy_comp_channel(dev->channel);
	}
	close_context(x, dev->context, low);
	free(dev->domain);
	free(dev);
	x->fds_gen++;
}

/*
 * Does the open file still stand for the device that it was opened for? The kernel first takes the file's name away, then waits
 * until everybody has closed it; drivers that cannot do without (rxe, siw) send no event. 1: yes, 0: no, -1: it cannot be told.
 */
static int node_stands(const struct v_device *dev)
{
	char path[64], name[sizeof(dev->name) + 1];
	struct stat st;
	long fd, n;

	if (fstat(dev->context->cmd_fd, &st) || !S_ISCHR(st.st_mode))
		return -1;
	if (!st.st_nlink)
		return 0;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/ibdev", major(st.st_rdev), minor(st.st_rdev));
	fd = rt_raw4(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd == -ENOENT ? 0 : -1;
	n = rt_raw4(SYS_read, fd, (long)name, sizeof(name) - 1, 0);
	rt_raw_close((int)fd);
	if (n <= 0)
		return 0;
	name[n] = 0;
	name[strcspn(name, "\n")] = 0;
	return !strcmp(name, dev->name);	/* the number may be another's by now */
}

bool v_device_gone(struct v_device *dev)
{
	if (!dev->gone && dev->node_known && !node_stands(dev))
		dev->gone = true;
	return dev->gone;
}

/* 1: found; else 0 and a free place, or -errno */
static int device_find(struct v_ctx *x, const char *name, struct v_device **ret, unsigned *ret_at)
{
	struct v_guard g;
	int r = -EMFILE;

	v_look_wait(x, &g);
	for (unsigned i = 0; i < V_DEVICES; i++) {
		struct v_device *dev = x->dev[i];

		if (dev && !strcmp(dev->name, name)) {
			r = v_device_gone(dev) ? -ENODEV : 1;
			if (r == 1) {
				dev->refs++;
				*ret = dev;
			}
			break;
		}
		if (!dev && r == -EMFILE) {
			*ret_at = i;
			r = 0;
		}
	}
	v_look_done(x, &g);
	return r;
}

/* opening takes its time: others look meanwhile, but nobody else opens (one control call at a time) */
int v_device_get(struct v_ctx *x, const char *name, struct v_device **ret)
{
	struct v_device *dev;
	struct v_guard g;
	unsigned at = 0;
	int r;

	r = device_find(x, name, ret, &at);
	if (r)
		return r < 0 ? r : 0;

	RT_FAULT_POINT(r, -ENOMEM, err);
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	memcpy(dev->name, name, strnlen(name, sizeof(dev->name) - 1));
	r = open_context(x, name, &dev->context);
	if (r)
		goto err_free;
	x->fds_gen++;
	dev->context->cmd_fd = v_fd_to_top(dev->context->cmd_fd);
	dev->node_known = node_stands(dev) == 1;
	dev->context->async_fd = v_fd_to_top(dev->context->async_fd);
	fd_nonblock(dev->context->async_fd);
	RT_FAULT_POINT(r, -ENOMEM, err_close);
	r = x->lib->query_device(dev->context, &dev->attr);
	if (r) {
		r = v_errno(r > 0 ? r : errno);
		goto err_close;
	}
	dev->soft = dev->attr.vendor_id == RXE_VENDOR || dev->attr.vendor_id == SIW_VENDOR;
	RT_FAULT_POINT(r, -ENOMEM, err_close);
	dev->channel = x->lib->create_comp_channel(dev->context);
	if (!dev->channel) {
		r = v_errno(errno);
		goto err_close;
	}
	dev->channel->fd = v_fd_to_top(dev->channel->fd);
	fd_nonblock(dev->channel->fd);
	RT_FAULT_POINT(r, -ENOMEM, err_close);
	r = watch(x, dev->context->async_fd) ?: watch(x, dev->channel->fd);
	if (r)
		goto err_close;
	dev->refs = 1;
	v_look_wait(x, &g);
	x->dev[at] = dev;
	x->may_sleep = true;
	v_look_done(x, &g);
	*ret = dev;
	return 0;

err_close:
	device_close(x, dev);
	return r;
err_free:
	free(dev);
err:
	__attribute__((unused));
	return r;
}

void v_device_put(struct v_ctx *x, struct v_device *dev)
{
	if (!--dev->refs)
		x->idle = true;
}

/* not at once: somebody up the stack may be going through its queues */
void v_devices_sweep(struct v_ctx *x)
{
	x->idle = false;
	for (unsigned i = 0; i < V_DEVICES; i++) {
		struct v_device *dev = x->dev[i];

		if (dev && !dev->refs) {
			x->dev[i] = NULL;
			device_close(x, dev);
		}
	}
}

int v_domain_get(struct v_ctx *x, struct v_device *dev, uint64_t identity, int *ret)
{
	struct v_domain *d = NULL;
	int r;

	for (unsigned i = 0; i < dev->n_domains; i++)
		if (dev->domain[i].pd && dev->domain[i].identity == identity) {
			dev->domain[i].refs++;
			*ret = (int)i;
			return 0;
		}
	for (unsigned i = 0; i < dev->n_domains && !d; i++)
		if (!dev->domain[i].pd)
			d = &dev->domain[i];
	if (!d) {
		struct v_domain *more;

		if (dev->n_domains >= V_DOMAINS)
			return -EMFILE;
		more = reallocarray(dev->domain, dev->n_domains + 1, sizeof(*more));
		if (!more)
			return -ENOMEM;
		dev->domain = more;
		d = &more[dev->n_domains++];
		*d = (struct v_domain){};
	}
	RT_FAULT_POINT(r, -ENOMEM, err);
	d->pd = x->lib->alloc_pd(dev->context);
	if (!d->pd)
		return v_errno(errno);
	d->identity = identity;
	d->refs = 1;
	*ret = (int)(d - dev->domain);
	return 0;

err:
	__attribute__((unused));
	return r;
}

void v_domain_put(struct v_ctx *x, struct v_device *dev, unsigned i)
{
	struct v_domain *d = &dev->domain[i];

	if (--d->refs)
		return;
	x->lib->dealloc_pd(d->pd);
	d->pd = NULL;
}

/* each larger than the one before: few connections need little, many need few queues */
int v_shard_get(struct v_ctx *x, struct v_device *dev, unsigned n, struct v_shard **ret)
{
	static const unsigned sizes[] = { 1024, 4096, 16384, 32000 };
	unsigned size, max = dev->attr.max_cqe > 0 ? (unsigned)dev->attr.max_cqe : 0;
	struct v_shard *s;
	int r;

	for (unsigned i = 0; i < dev->n_shards; i++) {
		s = &dev->shard[i];
		if (s->size - s->reserved >= n)
			goto found;
	}
	if (dev->n_shards >= V_SHARDS)
		return -EMFILE;
	size = sizes[dev->n_shards < 4 ? dev->n_shards : 3];
	size = size < max ? size : max;
	if (size < n)
		return -EMFILE;
	s = &dev->shard[dev->n_shards];
	*s = (struct v_shard){ .size = size };
	RT_FAULT_POINT(r, -ENOMEM, err);
	s->cq = x->lib->create_cq(dev->context, (int)size, NULL, dev->channel, 0);
	if (!s->cq)
		return v_errno(errno);
	dev->n_shards++;
found:
	s->reserved += n;
	*ret = s;
	return 0;

err:
	__attribute__((unused));
	return r;
}

/* what it completed last may still stand in there */
void v_shard_put(struct v_shard *s, unsigned n)
{
	s->stale += n;
}

/* by value each time: indices come and go with addresses. -ENODEV: it is not there */
int v_gid_index(struct v_ctx *x, struct v_device *dev, uint8_t port, const uint8_t gid[16])
{
	struct ibv_port_attr attr = {};
	struct ibv_gid_entry *e;
	ssize_t n;
	int r = -ENODEV;

	RT_FAULT_POINT(r, -ENOMEM, out);
	if (x->lib->query_port(dev->context, port, &attr) || attr.state != IBV_PORT_ACTIVE || attr.gid_tbl_len <= 0)
		return -ENODEV;
	e = calloc((size_t)attr.gid_tbl_len, sizeof(*e));
	if (!e)
		return -ENOMEM;
	n = x->lib->query_gid_table(dev->context, e, (size_t)attr.gid_tbl_len, 0, sizeof(*e));
	for (ssize_t i = 0; i < n && r < 0; i++)
		if (e[i].port_num == port && !memcmp(e[i].gid.raw, gid, 16) && e[i].gid_index <= UINT8_MAX &&	/* struct ibv_ah_attr */
		    (attr.link_layer != IBV_LINK_LAYER_ETHERNET || e[i].gid_type == IBV_GID_TYPE_ROCE_V2))
			r = (int)e[i].gid_index;
	free(e);
out:
	__attribute__((unused));
	return r;
}

unsigned v_fds(struct v_ctx *x, int *ret_fds, unsigned max)
{
	unsigned n = 0;

	if (n < max && x->ep >= 0)
		ret_fds[n++] = x->ep;
	for (unsigned i = 0; i < V_DEVICES; i++) {
		struct v_device *dev = x->dev[i];

		if (!dev)
			continue;
		if (n < max)
			ret_fds[n++] = dev->context->cmd_fd;
		if (n < max)
			ret_fds[n++] = dev->context->async_fd;
		if (n < max)
			ret_fds[n++] = dev->channel->fd;
	}
	return n;
}

/* what the device gave to map keeps its file open as well: hex digits, '-', hex digits, ..., name */
static void unmap_line(const char *line)
{
	unsigned long from, to;
	char *end;

	if (!strstr(line, "/dev/infiniband/uverbs"))
		return;
	from = strtoul(line, &end, 16);
	if (*end != '-')
		return;
	to = strtoul(end + 1, &end, 16);
	if (to > from)
		rt_raw4(SYS_munmap, (long)from, (long)(to - from), 0, 0);
}

/* nothing here may take a lock or ask the allocator: another thread of the parent may have been inside */
static void unmap_devices(void)
{
	static char buf[4096];
	size_t have = 0;
	long n;
	int fd = (int)rt_raw4(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	while ((n = rt_raw4(SYS_read, fd, (long)(buf + have), (long)(sizeof(buf) - 1 - have), 0)) > 0) {
		char *line = buf, *nl;

		have += (size_t)n;
		buf[have] = 0;
		while ((nl = memchr(line, '\n', have - (size_t)(line - buf)))) {
			*nl = 0;
			unmap_line(line);
			line = nl + 1;
		}
		have -= (size_t)(line - buf);
		memmove(buf, line, have);
		if (have == sizeof(buf) - 1)
			have = 0;	/* a line longer than any of ours */
	}
	rt_raw_close(fd);
}

void v_fds_orphan(struct v_ctx *x)
{
	bool any = false;

	for (unsigned i = 0; i < V_DEVICES; i++) {
		struct v_device *dev = x->dev[i];

		if (!dev)
			continue;
		any = true;
		rt_raw_close(dev->context->cmd_fd);
		rt_raw_close(dev->context->async_fd);
		rt_raw_close(dev->channel->fd);
		x->dev[i] = NULL;
	}
	rt_raw_close(x->ep);
	x->ep = -1;
	if (any)
		unmap_devices();
	x->fds_gen++;
}
