/* SPDX-License-Identifier: MIT */
/* error.c - the one place where -errno becomes a WSA code */
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
