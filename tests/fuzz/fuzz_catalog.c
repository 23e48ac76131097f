/* SPDX-License-Identifier: MIT */
/*
 * fuzz_catalog.c - any bytes as a catalog
 *
 * What is accepted must be within its bounds; what is refused must say why and leave nothing. With
 * -DFUZZ_STANDALONE a program that mutates a good catalog by itself (first argument: how often), or runs the
 * files given.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <wsd/catalog.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void need(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct wsd_provider p[WSD_CATALOG_PROVIDERS + 1];
	struct wsd_catalog_error err;
	unsigned n = 99;
	int r;

	memset(&p[WSD_CATALOG_PROVIDERS], 0x5a, sizeof(p[0]));
	memset(&err, 0xff, sizeof(err));
	r = wsd_catalog_parse("/etc/wsd/fuzz.ini", (const char *)data, len, p, WSD_CATALOG_PROVIDERS, &n, &err);
	need(r == 0 || r == WSD_CATALOG_E_SYNTAX || r == WSD_CATALOG_E_LIMIT);
	need(memchr(err.text, 0, sizeof(err.text)) != NULL);
	need(n <= WSD_CATALOG_PROVIDERS && (!r || (!n && err.text[0])));
	need(*(uint8_t *)&p[WSD_CATALOG_PROVIDERS] == 0x5a);
	for (unsigned i = 0; i < n; i++) {
		need(p[i].name[0] && memchr(p[i].name, 0, sizeof(p[i].name)));
		need(p[i].file[0] && memchr(p[i].file, 0, sizeof(p[i].file)) && strchr(p[i].file, '/'));
		need(memchr(p[i].options, 0, sizeof(p[i].options)) != NULL);
		need(!p[i].info.szProtocol[WSAPROTOCOL_LEN]);
	}
	return 0;
}

#ifdef FUZZ_STANDALONE
static const char seed[] =
	"# comment\n[provider wsd-shm]\nid = {3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d001}\n"
	"path = /usr/lib/wsd/wsd_san.so ; x\nflags = PFL_HIDDEN\nprotocol = WSD\nversion = 2\nfamily = AF_INET\n"
	"service_flags = GUARANTEED_DELIVERY, GRACEFUL_CLOSE\nsockaddr_max = 28\noptions = a b\n"
	"[TCP on SAN]\nwsd-shm = {3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d001}\n";

static uint64_t state = 88172645463325252ull;

static uint32_t rnd(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16) % below;
}

static size_t mutate(uint8_t *b, size_t len, size_t max)
{
	static const char *const bits[] = { "[", "]", "\n", "=", ";", "provider ", "..", "{", "\\", " ", "0x", "|" };

	for (uint32_t k = 1 + rnd(6); k; k--) {
		uint32_t at = rnd(len ? len : 1), n = rnd(40);
		const char *s = bits[rnd(12)];

		switch (rnd(5)) {
		case 0:
			b[at] = rnd(256);
			break;
		case 1:
			n = n < len - at ? n : len - at;
			memmove(b + at, b + at + n, len - at - n);
			len -= n;
			break;
		case 2:
			n = n < len - at ? n : len - at;
			if (len + n <= max) {
				memmove(b + at + n, b + at, len - at);
				len += n;
			}
			break;
		case 3:
			n = strlen(s);
			if (at + n <= len)
				memcpy(b + at, s, n);
			break;
		case 4:
			if (len * 2 <= max) {
				memcpy(b + len, b, len);
				len *= 2;
			}
			break;
		}
	}
	return len;
}

int main(int argc, char **argv)
{
	static uint8_t b[WSD_CATALOG_BYTES + 64];
	unsigned long times = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	FILE *f;

	for (int i = 1; i < argc && !times; i++) {
		f = fopen(argv[i], "r");
		if (!f)
			return 1;
		LLVMFuzzerTestOneInput(b, fread(b, 1, sizeof(b), f));
		fclose(f);
	}
	for (unsigned long i = 0; i < times; i++) {
		size_t len = sizeof(seed) - 1;

		memcpy(b, seed, len);
		LLVMFuzzerTestOneInput(b, i ? mutate(b, len, sizeof(b)) : len);
	}
	return 0;
}
#endif
