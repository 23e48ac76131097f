/* SPDX-License-Identifier: MIT */
/* msg.c - messages, writes and reads (rt.h): not yet */
#include <errno.h>

#include "rdma_transport/verbs/verbs.h"

int v_msg_open(struct v_conn *c)
{
	return -EOPNOTSUPP;
}

void v_msg_free(struct v_conn *c)
{
}

void v_msg_done(struct v_conn *c, const struct ibv_wc *wc, bool send)
{
}

bool v_msg_bye(struct v_conn *c)
{
	return true;
}
