/* SPDX-License-Identifier: MIT */
/* config.c - the environment, read once; a malformed value is the default */
#include <stdlib.h>
#include <string.h>

#include "wsd_switch/core/switch.h"

struct config cfg;

static uint64_t number(const char *name, uint64_t def, uint64_t max)
{
	const char *s = secure_getenv(name);
	char *end;
	unsigned long long v;

	if (!s || !*s || *s == '-')
		return def;
	v = strtoull(s, &end, 10);
	return *end || v > max ? def : v;
}

/* a copy: programs that change their title overwrite the memory that getenv() points to */
static const char *text(const char *name, unsigned slot)
{
	static char copy[5][1024];
	const char *s = secure_getenv(name);

	if (!s || !*s || strlen(s) >= sizeof(copy[0]))
		return NULL;
	return strcpy(copy[slot], s);
}

void config_init(void)
{
	const char *s;

	s = secure_getenv("WSD_DISABLE");
	cfg.off = s && *s && *s != '0';
	s = secure_getenv("WSD_TEST_SHAKE");
	cfg.shake = s && *s;
	cfg.shake_seed = number("WSD_TEST_SHAKE", 1, ~0ull >> 1);
	cfg.offer_after = (unsigned)number("WSD_OFFER_AFTER", 4, 1000000);
	cfg.offer_bytes = number("WSD_OFFER_BYTES", 256 << 10, ~0ull >> 1);
	cfg.ring_size = (uint32_t)number("WSD_RING_SIZE", 0, WSD_RING_MAX);
	cfg.spin_us = (double)number("WSD_SPIN_US", 40, 100000);
	cfg.road_spin_us = (double)number("WSD_RDMA_SPIN_US", 100, 100000);
	s = secure_getenv("WSD_OVERFLOW");
	cfg.no_overflow = s && strcmp(s, "off") == 0;
	s = secure_getenv("WSD_URING");
	cfg.uring_files = s && strcmp(s, "files") == 0;
	cfg.catalog = text("WSD_CATALOG", 0);
	cfg.provider = text("WSD_PROVIDER", 1);
	cfg.log_path = text("WSD_LOG", 2);
	cfg.daemon = text("WSD_PROXY_SOCKET", 3);
	cfg.runtime_dir = text("XDG_RUNTIME_DIR", 4);
	cfg.log_level = cfg.log_path ? (int)number("WSD_LOG_LEVEL", 1, 3) : -1;
}
