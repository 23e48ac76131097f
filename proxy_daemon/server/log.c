/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proxy_daemon/server/log.h"

#define CLIENT_LINES_A_SECOND 20u

static enum log_level log_max = LOG_L_WARN;
static bool to_journal;

static const char *const level_name[] = { "error", "warn", "info", "debug" };
static const char *const level_prefix[] = { "<3>", "<4>", "<6>", "<7>" };

void log_init(enum log_level max)
{
	log_max = max;
	to_journal = getenv("JOURNAL_STREAM") != NULL;
}

int log_level_parse(const char *s)
{
	unsigned i;

	for (i = 0; i < sizeof(level_name) / sizeof(*level_name); i++)
		if (!strcmp(s, level_name[i]))
			return (int)i;
	return -1;
}

static void log_v(enum log_level level, const char *fmt, va_list ap)
{
	char line[512];

	vsnprintf(line, sizeof(line), fmt, ap);
	if (to_journal)
		fprintf(stderr, "%s%s\n", level_prefix[level], line);
	else
		fprintf(stderr, "wsd-proxyd: %s: %s\n", level_name[level], line);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > log_max)
		return;
	va_start(ap, fmt);
	log_v(level, fmt, ap);
	va_end(ap);
}

void log_client(const char *fmt, ...)
{
	static time_t second;
	static unsigned lines;
	struct timespec ts;
	va_list ap;

	if (log_max < LOG_L_WARN)
		return;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	if (ts.tv_sec != second) {
		if (lines > CLIENT_LINES_A_SECOND)
			log_warn("%u more lines about clients left out", lines - CLIENT_LINES_A_SECOND);
		second = ts.tv_sec;
		lines = 0;
	}
	if (++lines > CLIENT_LINES_A_SECOND)
		return;
	va_start(ap, fmt);
	log_v(LOG_L_WARN, fmt, ap);
	va_end(ap);
}
