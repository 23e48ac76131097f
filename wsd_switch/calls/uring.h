/* SPDX-License-Identifier: MIT */
/* uring.h - io_uring in this process (G14.3) */
#ifndef WSD_SWITCH_URING_H
#define WSD_SWITCH_URING_H

/* There is a ring, and what goes into it we do not see, or it is no matter of files: all connections, and those to come,
 * are on TCP from now on. Keeps errno. */
void uring_unseen(void);

#endif
