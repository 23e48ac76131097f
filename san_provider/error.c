/* SPDX-License-Identifier: MIT */
/* error.c - the one place where -errno becomes a WSA code, or a reason */
#include "san_provider/san.h"

int san_error_of(int r)
{
	switch (-r) {
	case 0:
		return 0;
	case ECANCELED:
		return WSA_OPERATION_ABORTED;
	case ECONNRESET:
		return WSAECONNRESET;
	case EPROTO:
		return WSAECONNABORTED;
	case EMSGSIZE:
		return WSAEMSGSIZE;
	case EAGAIN:
		return WSAEWOULDBLOCK;
	case ENOTCONN:
		return WSAENOTCONN;
	case EISCONN:
		return WSAEISCONN;
	case EINVAL:
	case EBUSY:
		return WSAEINVAL;
	case EOPNOTSUPP:
		return WSAEOPNOTSUPP;
	case EFAULT:
		return WSAEFAULT;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case ENOBUFS:
		return WSAENOBUFS;
	case ENETDOWN:
		return WSAENETDOWN;
	default:
		return WSAECONNABORTED;
	}
}

unsigned san_reason_of(int r)
{
	switch (-r) {
	case 0:
		return WSD_R_NONE;
	case ENOMEM:	/* what the kernel says of RLIMIT_MEMLOCK */
	case EPERM:
		return WSD_R_MEMLOCK;
	case ENODEV:
	case ENOSYS:
	case ENOENT:
	case EOPNOTSUPP:
		return WSD_R_NO_RDMA;
	case EPROTO:
	case EINVAL:
		return WSD_R_PEER_BROKEN;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
		return WSD_R_NOMEM;
	default:
		return WSD_R_RDMA_FAILED;
	}
}
