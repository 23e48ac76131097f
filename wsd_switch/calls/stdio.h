/* SPDX-License-Identifier: MIT */
/* stdio.h - what stdio.c offers to the rest of the switch */
#ifndef WSD_SWITCH_STDIO_H
#define WSD_SWITCH_STDIO_H

/* Descriptor 0 was inherited with bytes that only our read() knows (core/carry.h): stdin becomes a stream over it. At
 * start-up, before anybody has used stdin. */
void stdio_stdin_over_calls(void);

#endif
