/* SPDX-License-Identifier: MIT */
/*
 * fault_point.h - a place that a test can make fail
 *
 * One stands before each acquisition. rt_fault_point_arm(n) makes the n-th that is reached from then on fail,
 * once. Without the build option fault_injection nothing of it exists.
 */
#ifndef RDMA_TRANSPORT_FAULT_POINT_H
#define RDMA_TRANSPORT_FAULT_POINT_H

#include <stdbool.h>

#ifdef WSD_FAULT_INJECTION
void rt_fault_point_arm(unsigned n);	/* 0: none */
bool rt_fault_point_hit(void);
#define RT_FAULT_POINT(r, error, label)		\
	do {					\
		if (rt_fault_point_hit()) {	\
			(r) = (error);		\
			goto label;		\
		}				\
	} while (0)
#else
#define RT_FAULT_POINT(r, error, label) do { } while (0)
#endif

#endif
