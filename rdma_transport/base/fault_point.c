/* SPDX-License-Identifier: MIT */
#include "rdma_transport/base/fault_point.h"

static unsigned left;

void rt_fault_point_arm(unsigned n)
{
	left = n;
}

bool rt_fault_point_hit(void)
{
	return left && !--left;
}
