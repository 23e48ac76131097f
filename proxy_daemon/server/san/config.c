/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wsd/peer_proto.h>

#include "proxy_daemon/server/san/config.h"

#define RING_LEAST	4096u
#define RING_MOST	(16u << 20)
#define KEY_TEXT_MAX	512u
#define LIST_ITEM_MAX	64u
#define LIST_BETWEEN	", \t\r\n"
#define QUOTA_MOST	65536u	/* far above the tables: whoever wants no shares says so */

void san_config_default(struct san_config *c)
{
	memset(c, 0, sizeof(*c));
	c->listen = true;
	c->port = WSD_PEER_PORT;
	c->qp_timeout = 14;
	c->qp_retry = 6;
	c->quota_locked = 64u << 20;
	c->locked_per_qp = UINT64_MAX;
	c->quota_sessions = 4096;	/* half of MAX_REMOTES */
	c->quota_waiting = 4096;	/* half of what DISTANT_MAX leaves for what is offered here */
	c->ring_start = 8u << 10;
	c->ring_max = 1u << 20;
	c->why_off = "no [san] section with subnets and a key";
}

static int parse_ip(const char *s, uint8_t ret[16], bool *ret_v4)
{
	memset(ret, 0, 16);
	*ret_v4 = inet_pton(AF_INET, s, ret + 12) == 1;
	if (*ret_v4) {
		memset(ret + 10, 0xff, 2);
		return 0;
	}
	return inet_pton(AF_INET6, s, ret) == 1 ? 0 : -EINVAL;
}

static int parse_number(const char *s, uint64_t least, uint64_t most, uint64_t *ret)
{
	unsigned shift = 0;
	uint64_t v;
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return -EINVAL;
	switch (*end) {
	case 'k': case 'K': shift = 10; end++; break;
	case 'm': case 'M': shift = 20; end++; break;
	case 'g': case 'G': shift = 30; end++; break;
	}
	if (*end || v > (most >> shift) || v << shift < least)
		return -EINVAL;
	*ret = v << shift;
	return 0;
}

/* addresses that are not one host's alone: two hosts may both have them, so they name no peer */
static bool names_nobody(const uint8_t ip[16])
{
	static const uint8_t zero[16], mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (!memcmp(ip, mapped, 12))
		return ip[12] == 0 || (ip[12] == 169 && ip[13] == 254) || ip[12] >= 224;
	return !memcmp(ip, zero, 16) || ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

static int add_subnet(struct san_config *c, const char *item)
{
	char text[LIST_ITEM_MAX], *slash;
	struct san_subnet *s;
	uint64_t bits;
	unsigned i;
	bool v4;

	if (c->n_subnets == SAN_SUBNETS_MAX)
		return -E2BIG;
	s = &c->subnet[c->n_subnets];
	strcpy(text, item);
	slash = strchr(text, '/');
	if (slash)
		*slash++ = '\0';
	if (parse_ip(text, s->ip, &v4) || names_nobody(s->ip))
		return -EINVAL;
	bits = v4 ? 32 : 128;
	/* a prefix of 0 would declare the world; it is always a mistake */
	if (slash && parse_number(slash, 1, bits, &bits))
		return -EINVAL;
	s->prefix = (uint8_t)(bits + (v4 ? 96 : 0));
	for (i = 0; i < 16; i++)
		s->ip[i] &= (uint8_t)(i * 8 + 8 <= s->prefix ? 0xff : i * 8 >= s->prefix ? 0 : 0xff00 >> (s->prefix - i * 8));
	c->n_subnets++;
	return 0;
}

static int add_listen(struct san_config *c, const char *item)
{
	bool v4;

	if (c->n_listen_at == SAN_LISTEN_MAX)
		return -E2BIG;
	if (parse_ip(item, c->listen_at[c->n_listen_at], &v4) ||
	    names_nobody(c->listen_at[c->n_listen_at]))
		return -EINVAL;
	c->listen = true;
	c->n_listen_at++;
	return 0;
}

static int for_items(struct san_config *c, const char *value, int (*add)(struct san_config *, const char *))
{
	char item[LIST_ITEM_MAX];
	size_t n;
	int r;

	for (;;) {
		value += strspn(value, LIST_BETWEEN);
		n = strcspn(value, LIST_BETWEEN);
		if (!n)
			return 0;
		r = n < sizeof(item) ? 0 : -EINVAL;
		if (!r) {
			memcpy(item, value, n);
			item[n] = '\0';
			r = add(c, item);
		}
		if (r) {
			snprintf(c->wrong, sizeof(c->wrong), "%.*s: %s", (int)(n < sizeof(item) ? n : sizeof(item) - 1), value,
				 r == -E2BIG ? "one more than there may be" : "not an address of one host, or not a network of such");
			return -EINVAL;
		}
		value += n;
	}
}

static int set_listen(struct san_config *c, const char *value)
{
	if (!strcasecmp(value, "yes") || !strcasecmp(value, "no")) {
		c->listen = !strcasecmp(value, "yes");
		c->n_listen_at = 0;
		return 0;
	}
	return for_items(c, value, add_listen);
}

/* one, or that and an older one */
static int set_key_files(struct san_config *c, const char *value)
{
	char *file[2] = { c->key_file, c->old_key_file };
	const char *why = NULL;
	size_t n;
	unsigned i;

	if (c->key_file[0]) {
		snprintf(c->wrong, sizeof(c->wrong), "named before: both keys belong in one line");
		return -EINVAL;
	}
	for (i = 0; !why; i++) {
		value += strspn(value, LIST_BETWEEN);
		n = strcspn(value, LIST_BETWEEN);
		if (!n && i)
			return 0;
		if (i == 2)
			why = "one more than there may be";
		else if (value[0] != '/')
			why = "not an absolute path";
		else if (n >= sizeof(c->key_file))
			why = "too long a path";
		else
			snprintf(file[i], sizeof(c->key_file), "%.*s", (int)n, value);
		if (why)
			snprintf(c->wrong, sizeof(c->wrong), "%.*s: %s", (int)(n < LIST_ITEM_MAX ? n : LIST_ITEM_MAX), value, why);
		value += n;
	}
	return -EINVAL;
}

static int set_transport(struct san_config *c, const char *value)
{
	static const char *const names[] = { [SAN_AUTO] = "auto", [SAN_VERBS] = "verbs", [SAN_SHM] = "shm" };
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(value, names[i])) {
			c->transport = (enum san_transport)i;
			return 0;
		}
	return -EINVAL;
}

static int set_quota(const char *value, unsigned *ret)
{
	uint64_t v;

	if (parse_number(value, 1, QUOTA_MOST, &v))
		return -EINVAL;
	*ret = (unsigned)v;
	return 0;
}

static int set_ring(const char *value, uint32_t *ret)
{
	uint64_t v;

	if (parse_number(value, RING_LEAST, RING_MOST, &v) || (v & (v - 1)))
		return -EINVAL;
	*ret = (uint32_t)v;
	return 0;
}

int san_config_set(struct san_config *c, const char *name, const char *value)
{
	uint64_t v = 0;
	int r;

	if (!strcmp(name, "subnets"))
		return for_items(c, value, add_subnet);
	if (!strcmp(name, "listen"))
		return set_listen(c, value);
	if (!strcmp(name, "port")) {
		r = parse_number(value, 1, 65535, &v);
		if (!r)
			c->port = (uint16_t)v;
		return r;
	}
	if (!strcmp(name, "key-file"))
		return set_key_files(c, value);
	if (!strcmp(name, "transport"))
		return set_transport(c, value);
	if (!strcmp(name, "qp-timeout")) {
		r = parse_number(value, 1, 31, &v);	/* 0 would be for ever */
		if (!r)
			c->qp_timeout = (uint8_t)v;
		return r;
	}
	if (!strcmp(name, "qp-retry")) {
		r = parse_number(value, 0, 6, &v);	/* rxe takes 7 for ever */
		if (!r)
			c->qp_retry = (uint8_t)v;
		return r;
	}
	if (!strcmp(name, "quota-locked"))
		return parse_number(value, 0, UINT64_MAX, &c->quota_locked);
	if (!strcmp(name, "quota-sessions"))
		return set_quota(value, &c->quota_sessions);
	if (!strcmp(name, "quota-waiting"))
		return set_quota(value, &c->quota_waiting);
	if (!strcmp(name, "locked-per-qp"))
		return parse_number(value, 0, 16u << 20, &c->locked_per_qp);
	if (!strcmp(name, "ring-start"))
		return set_ring(value, &c->ring_start);
	if (!strcmp(name, "ring-max"))
		return set_ring(value, &c->ring_max);
	return -ENOENT;
}

int san_key_parse(uint8_t ret[static SAN_KEY_MAX], const char *text, size_t len)
{
	gnutls_datum_t in, out = { 0 };
	size_t i, n = 0;
	int r;

	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	while (len && isspace((unsigned char)*text)) {
		text++;
		len--;
	}
	for (i = 0; i < len && isxdigit((unsigned char)text[i]); i++)
		;
	in = (gnutls_datum_t){ (unsigned char *)text, (unsigned)len };
	if (i == len && len >= 2 * SAN_KEY_MIN && len <= 2 * SAN_KEY_MAX) {
		n = SAN_KEY_MAX;
		r = gnutls_hex_decode(&in, ret, &n);
		return r || 2 * n != len ? -EINVAL : (int)n;
	}
	if (!len || len > 2 * SAN_KEY_MAX || gnutls_base64_decode2(&in, &out))
		return -EINVAL;
	n = out.size;
	r = n >= SAN_KEY_MIN && n <= SAN_KEY_MAX ? (int)n : -EINVAL;
	if (r > 0)
		memcpy(ret, out.data, n);
	gnutls_memset(out.data, 0, out.size);
	gnutls_free(out.data);
	return r;
}

/* Return: NULL, or what is wrong with it */
static const char *read_key(const char *file, uint8_t ret_key[static SAN_KEY_MAX], unsigned *ret_len)
{
	char text[KEY_TEXT_MAX];
	const char *why = NULL;
	struct stat st;
	ssize_t n;
	int fd, r;

	fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT ? "the key file does not exist" : errno == ELOOP ? "the key file is a symbolic link" :
		       "the key file cannot be opened";
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		why = "the key file is no file";
	else if (st.st_uid != 0 && st.st_uid != geteuid())
		why = "the key file is owned by neither root nor the daemon's user";
	else if (st.st_mode & 077)
		why = "the key file is open to others than its owner (mode must be 0600)";
	n = why ? 0 : read(fd, text, sizeof(text));
	close(fd);
	if (why)
		return why;
	r = n > 0 && n < (ssize_t)sizeof(text) ? san_key_parse(ret_key, text, (size_t)n) : -EINVAL;
	gnutls_memset(text, 0, sizeof(text));
	if (r < 0)
		return "the key file does not hold 32 to 64 bytes in hex or base64 (wsdctl key makes one)";
	*ret_len = (unsigned)r;
	return NULL;
}

int san_config_finish(struct san_config *c, bool private_daemon)
{
	const char *why = NULL;

	if (c->ring_start > c->ring_max) {
		fprintf(stderr, "wsd-proxyd: [san] ring-start is above ring-max\n");
		return -EINVAL;
	}
	c->peers = false;
	if (private_daemon) {
		c->why_off = "a private daemon has no peers";
		return 0;
	}
	if (c->old_key_file[0])
		why = read_key(c->old_key_file, c->old_key, &c->old_key_len);
	if (why)
		fprintf(stderr, "wsd-proxyd: %s: %s; it is done without\n", c->old_key_file, why);
	why = c->key_file[0] ? read_key(c->key_file, c->key, &c->key_len) : NULL;
	if (why) {
		fprintf(stderr, "wsd-proxyd: %s: %s; no links to other hosts\n", c->key_file, why);
		c->why_off = why;
	} else if (!c->n_subnets) {
		c->why_off = c->key_len ? "no subnets are declared" : "no [san] section with subnets and a key";
	} else if (!c->key_len) {
		c->why_off = "no key-file is named";
	} else {
		c->why_off = NULL;
		c->peers = true;
	}
	return 0;
}

static bool has(const struct san_subnet *s, const uint8_t ip[16])
{
	unsigned whole = s->prefix / 8, rest = s->prefix % 8;

	if (memcmp(s->ip, ip, whole))
		return false;
	return !rest || !((s->ip[whole] ^ ip[whole]) & (uint8_t)(0xff00 >> rest));
}

bool san_covers(const struct san_config *c, const uint8_t ip[16])
{
	return san_covers_both(c, ip, ip);
}

bool san_covers_both(const struct san_config *c, const uint8_t a[16], const uint8_t b[16])
{
	unsigned i;

	if (names_nobody(a) || names_nobody(b))
		return false;
	for (i = 0; i < c->n_subnets; i++)
		if (has(&c->subnet[i], a) && has(&c->subnet[i], b))
			return true;
	return false;
}
