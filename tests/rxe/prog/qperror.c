/* SPDX-License-Identifier: MIT */
/*
 * qperror PID - moves each queue pair of another process to the error state, as a fault of the adapter would; says how many
 *
 * That process has no part in it and is told by its device alone: we take its open device (pidfd_getfd), and ask the kernel by the same ioctl
 * as libibverbs. What stands behind a handle is known to nobody but the kernel; handles are small numbers, so all are tried, and what is
 * no queue pair refuses.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HANDLES 4096
#define STATE_ERR 6	/* IBV_QPS_ERR; of attr_mask, IBV_QP_STATE is bit 0 */

static int move_to_error(int fd, uint32_t handle)
{
	struct ib_uverbs_modify_qp cmd = { .qp_handle = handle, .attr_mask = 1, .qp_state = STATE_ERR };
	struct {
		struct ib_uverbs_ioctl_hdr h;
		struct ib_uverbs_attr attrs[2];
	} call = {
		.h = { .length = sizeof(call), .object_id = UVERBS_OBJECT_DEVICE, .method_id = UVERBS_METHOD_INVOKE_WRITE,
			.num_attrs = 2, .driver_id = RDMA_DRIVER_RXE },
		.attrs = {
			{ .attr_id = UVERBS_ATTR_WRITE_CMD, .len = 8, .flags = UVERBS_ATTR_F_MANDATORY, .data = IB_USER_VERBS_CMD_MODIFY_QP },
			{ .attr_id = UVERBS_ATTR_CORE_IN, .len = sizeof(cmd), .flags = UVERBS_ATTR_F_MANDATORY, .data = (uintptr_t)&cmd },
		},
	};

	return ioctl(fd, RDMA_VERBS_IOCTL, &call) ? errno : 0;
}

int main(int argc, char **argv)
{
	int pidfd, fd, count = 0, devices = 0, r, last = 0;
	char path[64], to[64];
	struct dirent *e;
	ssize_t n;
	DIR *d;

	if (argc != 2) {
		fputs("qperror PID\n", stderr);
		return 2;
	}
	pidfd = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	snprintf(path, sizeof(path), "/proc/%s/fd", argv[1]);
	d = opendir(path);
	if (pidfd < 0 || !d) {
		perror(path);
		return 1;
	}
	while ((e = readdir(d))) {
		n = readlinkat(dirfd(d), e->d_name, to, sizeof(to) - 1);
		to[n < 0 ? 0 : n] = 0;
		if (strncmp(to, "/dev/infiniband/uverbs", 22))
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
		if (fd < 0) {
			perror("pidfd_getfd");
			return 1;
		}
		devices++;
		for (uint32_t h = 0; h < HANDLES; h++) {
			r = move_to_error(fd, h);
			count += !r;
			if (r && r != EINVAL && r != ENOENT)
				last = r;
		}
		close(fd);
	}
	printf("%d queue pairs of %d devices moved to error\n", count, devices);
	if (!count && last)
		fprintf(stderr, "%s\n", strerror(last));
	return !count;
}
