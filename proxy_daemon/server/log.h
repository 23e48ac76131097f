/* SPDX-License-Identifier: MIT */
/*
 * log.h - what the daemon says on standard error
 *
 * error stops something, warn goes on and says how, debug follows objects. Lines carry the
 * "<N>" priority that journald reads when standard error leads there. What clients can
 * provoke goes through log_client(), of which at most some lines a second are printed.
 */
#ifndef PROXYD_LOG_H
#define PROXYD_LOG_H

enum log_level { LOG_L_ERROR, LOG_L_WARN, LOG_L_INFO, LOG_L_DEBUG };

void log_init(enum log_level max);
int log_level_parse(const char *s);	/* -1: no such level */
void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_client(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define log_error(...) log_at(LOG_L_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_L_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_L_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_L_DEBUG, __VA_ARGS__)

#endif
