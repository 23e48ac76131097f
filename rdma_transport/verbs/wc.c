/* SPDX-License-Identifier: MIT */
/* wc.c - how libibverbs says that something failed, and how rt.h does */
#include <errno.h>
#include <time.h>

#include "rdma_transport/verbs/verbs.h"

/* the first error of a queue pair tells why, what is flushed behind it does not */
int v_status(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return 0;
	case IBV_WC_WR_FLUSH_ERR:
		return -ECANCELED;
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_QP_OP_ERR:
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
	case IBV_WC_BAD_RESP_ERR:
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_ACCESS_ERR:
	case IBV_WC_REM_OP_ERR:
		return -EPROTO;
	default:
		return -ECONNRESET;	/* retries were in vain, or the device cannot go on */
	}
}

int v_errno(int error)
{
	switch (error) {
	case EIO:
	case ENODEV:
	case ENXIO:
		return -ENETDOWN;
	case EAGAIN:
		return -ENOMEM;
	case 0:
		return -EIO;
	default:
		return -error;
	}
}

uint64_t v_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}
