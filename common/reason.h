/* SPDX-License-Identifier: MIT */
/*
 * common/reason.h - why a connection is on TCP, in words
 *
 * One table for the daemon, wsdrun --stats and wsdctl, so that all of them say the same.
 * Numbers above the ones this build knows (a newer peer's) have words too.
 *
 * Ownership: static text, never NULL, never freed.
 * Threads:   any, signal handlers too.
 */
#ifndef COMMON_REASON_H
#define COMMON_REASON_H

/**
 * reason_name() - short name of a reason, for JSON and logs
 * @reason:	enum wsd_reason
 *
 * Names are ABI as the numbers are: lower case, words joined by '-'.
 *
 * Return: "peer-unaware" and the like; "unknown" for a number this build does not know.
 */
const char *reason_name(unsigned reason);

/**
 * reason_text() - one line for people, no full stop, no new line
 * @reason:	enum wsd_reason
 */
const char *reason_text(unsigned reason);

/**
 * reason_hint() - what the user can do about it
 * @reason:	enum wsd_reason
 *
 * Return: one line, or "" where there is nothing to do.
 */
const char *reason_hint(unsigned reason);

#endif
