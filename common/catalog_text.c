/* SPDX-License-Identifier: MIT */
/*
 * catalog_text.c - catalog text: inih takes the lines apart, one table says what each key means
 *
 * inih goes on after an error, so the first text is kept and everything behind it ignored.
 */
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>

#include "common/catalog_text.h"

#define ENTRY_PREFIX	"provider "
#define LIST_SECTION	"TCP on SAN"

struct symbol {
	const char *name;
	uint32_t value;
};

static const struct symbol provider_flags[] = {
	{ "PFL_MULTIPLE_PROTO_ENTRIES", PFL_MULTIPLE_PROTO_ENTRIES },
	{ "PFL_RECOMMENDED_PROTO_ENTRY", PFL_RECOMMENDED_PROTO_ENTRY },
	{ "PFL_HIDDEN", PFL_HIDDEN },
	{ "PFL_MATCHES_PROTOCOL_ZERO", PFL_MATCHES_PROTOCOL_ZERO },
	{ "PFL_NETWORKDIRECT_PROVIDER", PFL_NETWORKDIRECT_PROVIDER },
	{},
};

static const struct symbol service_flags[] = {
	{ "CONNECTIONLESS", XP1_CONNECTIONLESS },
	{ "GUARANTEED_DELIVERY", XP1_GUARANTEED_DELIVERY },
	{ "GUARANTEED_ORDER", XP1_GUARANTEED_ORDER },
	{ "MESSAGE_ORIENTED", XP1_MESSAGE_ORIENTED },
	{ "PSEUDO_STREAM", XP1_PSEUDO_STREAM },
	{ "GRACEFUL_CLOSE", XP1_GRACEFUL_CLOSE },
	{ "EXPEDITED_DATA", XP1_EXPEDITED_DATA },
	{ "CONNECT_DATA", XP1_CONNECT_DATA },
	{ "DISCONNECT_DATA", XP1_DISCONNECT_DATA },
	{ "QOS_SUPPORTED", XP1_QOS_SUPPORTED },
	{ "IFS_HANDLES", XP1_IFS_HANDLES },
	{ "PARTIAL_MESSAGE", XP1_PARTIAL_MESSAGE },
	{ "SAN_SUPPORT_SDP", XP1_SAN_SUPPORT_SDP },
	{},
};

static const struct symbol families[] = { { "AF_INET", AF_INET }, { "AF_INET6", AF_INET6 }, {} };
static const struct symbol socket_types[] = { { "SOCK_STREAM", SOCK_STREAM }, {} };

enum key_kind { KEY_ID, KEY_PATH, KEY_TEXT, KEY_PROTOCOL, KEY_NUMBER };

/* numbers are 32 bits wide in struct wsd_provider, signed or not */
static const struct key {
	const char *name;
	enum key_kind kind;
	size_t offset;
	size_t size;			/* KEY_TEXT */
	uint32_t min, max;		/* KEY_NUMBER */
	const struct symbol *symbols;
} keys[] = {
#define FIELD(member) .offset = offsetof(struct wsd_provider, member)
	{ "id", KEY_ID, FIELD(info.ProviderId) },
	{ "path", KEY_PATH, FIELD(path) },
	{ "protocol", KEY_PROTOCOL, FIELD(info.szProtocol) },
	{ "flags", KEY_NUMBER, FIELD(info.dwProviderFlags), .max = UINT32_MAX, .symbols = provider_flags },
	{ "service_flags", KEY_NUMBER, FIELD(info.dwServiceFlags1), .max = UINT32_MAX, .symbols = service_flags },
	{ "version", KEY_NUMBER, FIELD(info.iVersion), .max = 0xffff },
	{ "family", KEY_NUMBER, FIELD(info.iAddressFamily), .min = 1, .max = 0xffff, .symbols = families },
	{ "socket_type", KEY_NUMBER, FIELD(info.iSocketType), .min = 1, .max = 0xff, .symbols = socket_types },
	{ "ip_protocol", KEY_NUMBER, FIELD(info.iProtocol), .max = 0xff },
	{ "sockaddr_min", KEY_NUMBER, FIELD(info.iMinSockAddr), .min = 2, .max = sizeof(struct sockaddr_storage) },
	{ "sockaddr_max", KEY_NUMBER, FIELD(info.iMaxSockAddr), .min = 2, .max = sizeof(struct sockaddr_storage) },
	{ "byte_order", KEY_NUMBER, FIELD(info.iNetworkByteOrder), .max = 1 },
	{ "security", KEY_NUMBER, FIELD(info.iSecurityScheme), .max = INT32_MAX },
	{ "message_size", KEY_NUMBER, FIELD(info.dwMessageSize), .max = UINT32_MAX },
	{ "options", KEY_TEXT, FIELD(options), .size = sizeof(((struct wsd_provider *)0)->options) },
#undef FIELD
};
#define N_KEYS		(sizeof(keys) / sizeof(keys[0]))
#define KEY_BIT(i)	(1u << (i))
#define SEEN_NEEDED	(KEY_BIT(0) | KEY_BIT(1))	/* id and path */

struct parser {
	struct catalog *c;
	struct wsd_catalog_error *err;
	const char *name;		/* of the file */
	const char *text, *end;
	unsigned line;
	int r;				/* the first error */
	uint32_t seen[WSD_CATALOG_PROVIDERS];
	unsigned first_line[WSD_CATALOG_PROVIDERS];
};

void catalog_error(struct wsd_catalog_error *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 3, 4))) static int fail(struct parser *p, int r, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	if (p->r)
		return 0;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	/* the file's end is what tells files apart, so a long name loses its beginning */
	catalog_error(p->err, "%s:%u: %s",
		      strlen(p->name) > 200 ? p->name + strlen(p->name) - 200 : p->name, p->line, what);
	p->r = r;
	return 0;	/* what inih takes for an error */
}

void wsd_guid_format(const GUID *g, char buf[39])
{
	const uint8_t *d = g->Data4;

	snprintf(buf, 39, "{%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}", g->Data1, g->Data2, g->Data3,
		 d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]);
}

int wsd_guid_parse(const char *text, GUID *ret)
{
	static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	uint8_t byte[16];
	unsigned digits = 0;
	bool braces = text[0] == '{';

	text += braces;
	for (const char *s = shape; *s; s++, text++) {
		unsigned v;

		if (*s == '-') {
			if (*text != '-')
				return -EINVAL;
			continue;
		}
		if (!isxdigit((unsigned char)*text))
			return -EINVAL;
		v = isdigit((unsigned char)*text) ? *text - '0' : (*text | 32) - 'a' + 10;
		byte[digits / 2] = digits % 2 ? byte[digits / 2] | v : v << 4;
		digits++;
	}
	if (braces && *text++ != '}')
		return -EINVAL;
	if (*text)
		return -EINVAL;
	ret->Data1 = (uint32_t)byte[0] << 24 | byte[1] << 16 | byte[2] << 8 | byte[3];
	ret->Data2 = byte[4] << 8 | byte[5];
	ret->Data3 = byte[6] << 8 | byte[7];
	memcpy(ret->Data4, byte + 8, 8);
	return 0;
}

void wsd_provider_init(struct wsd_provider *p)
{
	*p = (struct wsd_provider){
		.info = {
			.dwServiceFlags1 = XP1_GUARANTEED_DELIVERY | XP1_GUARANTEED_ORDER |
					   XP1_MESSAGE_ORIENTED | XP1_GRACEFUL_CLOSE,
			.dwProviderFlags = PFL_HIDDEN,
			.ProtocolChain.ChainLen = BASE_PROTOCOL,
			.iVersion = 2,
			.iAddressFamily = AF_INET,
			.iMaxSockAddr = sizeof(struct sockaddr_in),
			.iMinSockAddr = sizeof(struct sockaddr_in),
			.iSocketType = SOCK_STREAM,
			.iProtocol = IPPROTO_TCP,
			.dwMessageSize = UINT32_MAX,
		},
	};
}

static void set_protocol(struct wsd_provider *p, const char *text)
{
	size_t i;

	for (i = 0; text[i] && i < WSAPROTOCOL_LEN; i++)
		p->info.szProtocol[i] = (unsigned char)text[i];
	p->info.szProtocol[i] = 0;
}

static bool plain_number(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long long v;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtoull(text, &end, 0);
	if (*end || errno || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* a number, or names of the table with blanks, commas or bars between */
static bool number(const char *text, const struct symbol *symbols, uint32_t *ret)
{
	uint32_t v = 0;

	if (plain_number(text, ret))
		return true;
	if (!symbols)
		return false;
	while (*text) {
		size_t n = strcspn(text, " \t,|");
		const struct symbol *s = symbols;

		if (n) {
			while (s->name && (strlen(s->name) != n || memcmp(s->name, text, n)))
				s++;
			if (!s->name)
				return false;
			v |= s->value;
		}
		text += n;
		text += strspn(text, " \t,|");
	}
	*ret = v;
	return true;
}

static bool has_dotdot(const char *path)
{
	for (const char *s = path; (s = strstr(s, "..")); s += 2)
		if ((s == path || s[-1] == '/') && (!s[2] || s[2] == '/'))
			return true;
	return false;
}

static int set_path(struct parser *p, struct wsd_provider *e, const char *value)
{
	const char *slash = strrchr(p->name, '/');
	int dir = slash ? (int)(slash - p->name) : 1;
	int n;

	if (has_dotdot(value))
		return fail(p, WSD_CATALOG_E_SYNTAX, "path has a \"..\" in it");
	if (value[0] == '/')
		n = snprintf(e->file, sizeof(e->file), "%s", value);
	else
		n = snprintf(e->file, sizeof(e->file), "%.*s/%s", dir, slash ? p->name : ".", value);
	if (n >= (int)sizeof(e->file) || strlen(value) >= sizeof(e->path))
		return fail(p, WSD_CATALOG_E_LIMIT, "path is too long");
	strcpy(e->path, value);
	return 1;
}

static int set_key(struct parser *p, struct wsd_provider *e, const struct key *k, const char *value)
{
	void *field = (char *)e + k->offset;
	uint32_t v;

	switch (k->kind) {
	case KEY_ID:
		if (wsd_guid_parse(value, field))
			return fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" is no GUID", value);
		return 1;
	case KEY_PATH:
		return set_path(p, e, value);
	case KEY_TEXT:
		if (strlen(value) >= k->size)
			return fail(p, WSD_CATALOG_E_LIMIT, "%s is longer than %zu bytes", k->name, k->size - 1);
		strcpy(field, value);
		return 1;
	case KEY_PROTOCOL:
		if (strlen(value) > WSAPROTOCOL_LEN)
			return fail(p, WSD_CATALOG_E_LIMIT, "%s is longer than %d bytes", k->name, WSAPROTOCOL_LEN);
		for (const char *s = value; *s; s++)
			if ((unsigned char)*s >= 0x80)
				return fail(p, WSD_CATALOG_E_SYNTAX, "%s has other than ASCII characters", k->name);
		set_protocol(e, value);
		return 1;
	case KEY_NUMBER:
		if (!number(value, k->symbols, &v))
			return fail(p, WSD_CATALOG_E_SYNTAX, "%s does not know \"%s\"", k->name, value);
		if (v < k->min || v > k->max)
			return fail(p, WSD_CATALOG_E_SYNTAX, "%s must be from %u to %u", k->name, k->min, k->max);
		memcpy(field, &v, sizeof(v));
		return 1;
	}
	return 0;
}

static bool name_ok(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	return n && !name[n] && n < WSD_CATALOG_NAME;
}

static int entry_key(struct parser *p, const char *entry, const char *name, const char *value)
{
	struct catalog *c = p->c;
	unsigned e, k;

	if (!name_ok(entry))
		return fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" is no name (letters, digits and ._-, at most %u)", entry,
			    WSD_CATALOG_NAME - 1);
	for (e = 0; e < c->n; e++)
		if (!strcmp(c->p[e].name, entry))
			break;
	if (e == c->n) {
		if (c->n >= c->max || c->n >= WSD_CATALOG_PROVIDERS)
			return fail(p, WSD_CATALOG_E_LIMIT, "more than %u providers",
				    c->max < WSD_CATALOG_PROVIDERS ? c->max : WSD_CATALOG_PROVIDERS);
		wsd_provider_init(&c->p[e]);
		strcpy(c->p[e].name, entry);
		set_protocol(&c->p[e], entry);
		c->p[e].info.dwCatalogEntryId = 1001 + e;
		p->first_line[e] = p->line;
		c->n++;
	}
	for (k = 0; k < N_KEYS; k++)
		if (!strcmp(keys[k].name, name))
			break;
	if (k == N_KEYS)
		return fail(p, WSD_CATALOG_E_SYNTAX, "unknown key \"%s\"", name);
	if (p->seen[e] & KEY_BIT(k))
		return fail(p, WSD_CATALOG_E_SYNTAX, "%s is given twice for \"%s\"", name, entry);
	p->seen[e] |= KEY_BIT(k);
	return set_key(p, &c->p[e], &keys[k], value);
}

static int list_key(struct parser *p, const char *name, const char *value)
{
	struct catalog *c = p->c;
	struct catalog_listed *l = &c->list[c->n_list];

	if (!name_ok(name))
		return fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" is no name", name);
	if (c->n_list == CATALOG_LIST_MAX)
		return fail(p, WSD_CATALOG_E_LIMIT, "more than %u lines in [%s]", CATALOG_LIST_MAX, LIST_SECTION);
	for (unsigned i = 0; i < c->n_list; i++)
		if (!strcmp(c->list[i].name, name))
			return fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" is listed twice", name);
	if (wsd_guid_parse(value, &l->id))
		return fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" is no GUID", value);
	strcpy(l->name, name);
	c->n_list++;
	return 1;
}

static int on_key(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;

	if (p->r)
		return 0;
	if (!value[0])
		return fail(p, WSD_CATALOG_E_SYNTAX, "%s has no value", name);
	for (const char *s = value; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return fail(p, WSD_CATALOG_E_SYNTAX, "%s has a control character in its value", name);
	if (!strncmp(section, ENTRY_PREFIX, strlen(ENTRY_PREFIX)))
		return entry_key(p, section + strlen(ENTRY_PREFIX), name, value);
	if (!strcmp(section, LIST_SECTION))
		return list_key(p, name, value);
	return fail(p, WSD_CATALOG_E_SYNTAX, "section must be [" ENTRY_PREFIX "NAME] or [" LIST_SECTION "], not [%s]",
		    section);
}

static char *next_line(char *buf, int size, void *user)
{
	struct parser *p = user;
	const char *nl;
	size_t n;

	if (p->text == p->end || p->r)
		return NULL;
	p->line++;
	nl = memchr(p->text, '\n', p->end - p->text);
	n = (nl ? nl + 1 : p->end) - p->text;
	if (n > WSD_CATALOG_LINE || n >= (size_t)size) {
		fail(p, WSD_CATALOG_E_LIMIT, "line is too long");
		return NULL;
	}
	if (memchr(p->text, 0, n)) {
		fail(p, WSD_CATALOG_E_SYNTAX, "line has a zero byte");
		return NULL;
	}
	memcpy(buf, p->text, n);
	buf[n] = 0;
	p->text += n;
	return buf;
}

static bool same_guid(const GUID *a, const GUID *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static void finish(struct parser *p)
{
	struct catalog *c = p->c;

	for (unsigned i = 0; i < c->n; i++) {
		p->line = p->first_line[i];
		if ((p->seen[i] & SEEN_NEEDED) != SEEN_NEEDED) {
			fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" has no %s", c->p[i].name,
			     p->seen[i] & KEY_BIT(0) ? "path" : "id");
			return;
		}
		for (unsigned j = 0; j < i; j++)
			if (same_guid(&c->p[i].info.ProviderId, &c->p[j].info.ProviderId)) {
				fail(p, WSD_CATALOG_E_SYNTAX, "\"%s\" and \"%s\" have the same id", c->p[j].name,
				     c->p[i].name);
				return;
			}
	}
	for (unsigned i = 0; i < c->n_list; i++) {
		struct wsd_provider *e = NULL;

		for (unsigned j = 0; j < c->n && !e; j++)
			if (same_guid(&c->p[j].info.ProviderId, &c->list[i].id))
				e = &c->p[j];
		if (!e)
			catalog_error(p->err, "%.200s: \"%s\" is listed but has no entry: ignored", p->name,
				      c->list[i].name);
		else if (e->listed)
			catalog_error(p->err, "%.200s: \"%s\" lists provider \"%s\" a second time: ignored", p->name,
				      c->list[i].name, e->name);
		else
			e->listed = true;
	}
}

int catalog_text_parse(struct catalog *c, const char *name, const char *text, size_t len,
		       struct wsd_catalog_error *err)
{
	struct parser p = { .c = c, .err = err, .name = name, .text = text, .end = text + len };
	int bad;

	err->text[0] = 0;
	c->n = c->n_list = 0;
#ifdef HAVE_INI_MAX_LINE
	ini_max_line = WSD_CATALOG_LINE + 8;
#endif
	if (len > WSD_CATALOG_BYTES) {
		p.line = 1;
		fail(&p, WSD_CATALOG_E_LIMIT, "file is longer than %u bytes", WSD_CATALOG_BYTES);
	}
	bad = ini_parse_stream(next_line, &p, on_key, &p);
	if (bad && !p.r) {
		p.line = bad > 0 ? bad : 0;
		fail(&p, bad > 0 ? WSD_CATALOG_E_SYNTAX : -ENOMEM,
		     bad > 0 ? "neither \"[section]\" nor \"key = value\"" : "out of memory");
	}
	if (!p.r)
		finish(&p);
	if (p.r)
		c->n = c->n_list = 0;
	return p.r;
}

static void format_number(FILE *f, const struct key *k, uint32_t v)
{
	uint32_t rest = v;

	for (const struct symbol *s = k->symbols; s && s->name; s++)
		if (k->max == UINT32_MAX)
			rest &= ~s->value;
		else if (s->value == v)
			rest = 0;
	if (!k->symbols || rest || !v) {
		fprintf(f, k->max == UINT32_MAX ? "%s = 0x%x\n" : "%s = %u\n", k->name, v);
		return;
	}
	fprintf(f, "%s =", k->name);
	for (const struct symbol *s = k->symbols; s->name; s++)
		if (k->max == UINT32_MAX ? v & s->value : v == s->value)
			fprintf(f, " %s", s->name);
	fprintf(f, "\n");
}

static void format_key(FILE *f, const struct wsd_provider *e, const struct wsd_provider *def, const struct key *k)
{
	const void *field = (const char *)e + k->offset;
	char guid[39];
	uint32_t v, d;

	switch (k->kind) {
	case KEY_ID:
		wsd_guid_format(field, guid);
		fprintf(f, "%s = %s\n", k->name, guid);
		break;
	case KEY_PATH:
	case KEY_TEXT:
		if (*(const char *)field)
			fprintf(f, "%s = %s\n", k->name, (const char *)field);
		break;
	case KEY_PROTOCOL:
		if (!e->info.szProtocol[0])
			break;
		fprintf(f, "%s = ", k->name);
		for (size_t i = 0; i < WSAPROTOCOL_LEN && e->info.szProtocol[i]; i++)
			fputc(e->info.szProtocol[i] < 0x80 ? e->info.szProtocol[i] : '?', f);
		fputc('\n', f);
		break;
	case KEY_NUMBER:
		memcpy(&v, field, sizeof(v));
		memcpy(&d, (const char *)def + k->offset, sizeof(d));
		if (v != d || k->offset == offsetof(struct wsd_provider, info.dwProviderFlags))
			format_number(f, k, v);
		break;
	}
}

void catalog_text_format(const struct catalog *c, FILE *f)
{
	struct wsd_provider def;
	char guid[39];

	wsd_provider_init(&def);
	fputs("# SAN providers; see wsd/catalog.h. Written by wsdctl: comments are not kept.\n", f);
	for (unsigned i = 0; i < c->n; i++) {
		fprintf(f, "\n[" ENTRY_PREFIX "%s]\n", c->p[i].name);
		for (unsigned k = 0; k < N_KEYS; k++)
			format_key(f, &c->p[i], &def, &keys[k]);
	}
	fputs("\n[" LIST_SECTION "]\n", f);
	for (unsigned i = 0; i < c->n_list; i++) {
		wsd_guid_format(&c->list[i].id, guid);
		fprintf(f, "%s = %s\n", c->list[i].name, guid);
	}
}
