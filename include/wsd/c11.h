/* SPDX-License-Identifier: MIT */
/*
 * wsd/c11.h - lets C++ read contracts that use C11's _Atomic and _Alignas
 *
 * A provider may be written in C++. It sees the same layout; the words of shared memory are volatile
 * there, and it must use the compiler's __atomic builtins on them. In C this header is empty.
 */
#ifndef WSD_C11_H
#define WSD_C11_H

#ifdef __cplusplus
#ifndef _Atomic
#define _Atomic volatile
#endif
#define _Alignas(n) alignas(n)
#endif

#endif
