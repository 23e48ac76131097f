/* SPDX-License-Identifier: MIT */
/*
 * status.h - answer WSD_MSG_STATUS
 *
 * One packet for the daemon, one for each end that the asker may see, one for the end. They are
 * sent as fast as the asker reads; the list may change meanwhile, each end is told at most
 * once. Root and the daemon's user see all, others what is theirs.
 */
#ifndef PROXYD_STATUS_H
#define PROXYD_STATUS_H

struct conn;

void status_start(struct conn *c);
void status_continue(struct conn *c);	/* the socket takes more */

#endif
