/* SPDX-License-Identifier: MIT */
/* log.c - to the file of WSD_LOG, opened for each line: no descriptor of ours stays, and nothing is printed */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/switch.h"

void log_write(int level, const char *fmt, ...)
{
	char b[512];
	struct timespec ts;
	va_list ap;
	int n, k, fd, e = errno;

	if (level > cfg.log_level || !cfg.log_path || atomic_load(&proc_frozen))
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	n = snprintf(b, sizeof(b), "%lld.%06ld %d %s ", (long long)ts.tv_sec, ts.tv_nsec / 1000, (int)getpid(),
		     level == 0 ? "error" : level == 1 ? "warn" : "debug");
	va_start(ap, fmt);
	k = vsnprintf(b + n, sizeof(b) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n += k < (int)sizeof(b) - n - 1 ? k : (int)sizeof(b) - n - 2;
	b[n++] = '\n';
	fd = open(cfg.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0) {
		if (real.write(fd, b, (size_t)n) < 0)
			n = 0;
		real.close(fd);
	}
	errno = e;
}
