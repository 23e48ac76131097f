/* SPDX-License-Identifier: MIT */
#include <limits.h>

#include "wsd_switch/core/switch.h"

/* What readv(2) checks before it moves a byte. The total is cut at the kernel's MAX_RW_COUNT. */
int vec_init(struct vec *v, const struct iovec *iov, int n)
{
	size_t total = 0;
	int i;

	if (n < 0 || n > IOV_MAX)
		return -EINVAL;
	for (i = 0; i < n; i++) {
		if ((ssize_t)iov[i].iov_len < 0)
			return -EINVAL;
		total += iov[i].iov_len;
		if (total > 0x7ffff000u) {
			total = 0x7ffff000u;
			break;
		}
	}
	v->iov = iov;
	v->n = n;
	v->off = 0;
	v->len = total;
	vec_skip(v, 0);		/* who takes some of it at a time must find bytes in those */
	return 0;
}

void vec_skip(struct vec *v, size_t n)
{
	v->len -= n;
	v->off += n;
	while (v->n > 0 && v->off >= v->iov->iov_len) {
		v->off -= v->iov->iov_len;
		v->iov++;
		v->n--;
	}
}

int vec_iov(const struct vec *v, size_t n, struct iovec *io, int max)
{
	size_t off = v->off;
	int i;

	for (i = 0; i < max && i < v->n && n; i++, off = 0) {
		io[i].iov_base = (char *)v->iov[i].iov_base + off;
		io[i].iov_len = v->iov[i].iov_len - off;
		if (io[i].iov_len > n)
			io[i].iov_len = n;
		n -= io[i].iov_len;
	}
	return i;
}
