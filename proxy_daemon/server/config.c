/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wsd/proxy_proto.h>
#include <wsd/shared_ring.h>

#include "proxy_daemon/server/config.h"
#include "proxy_daemon/server/log.h"

enum {
	OPT_SOCKET = 's', OPT_CONFIG = 'c',
	OPT_PRIVATE = 256, OPT_SYSTEM, OPT_FOREGROUND, OPT_QUOTA_SESSIONS, OPT_QUOTA_BYTES, OPT_RING_SIZE,
	OPT_IDLE_EXIT, OPT_STAY, OPT_LOG_LEVEL, OPT_NO_SANDBOX,
};

static const struct argp_option options[] = {
	{ "socket", OPT_SOCKET, "PATH", 0, "listen here", 0 },
	{ "system", OPT_SYSTEM, NULL, 0, "daemon of all users, at " WSD_PROXYD_SYSTEM_PATH " (default for root)", 0 },
	{ "private", OPT_PRIVATE, NULL, 0, "daemon of this user, at $XDG_RUNTIME_DIR/wsd/proxyd.sock; stops when idle", 0 },
	{ "idle-exit", OPT_IDLE_EXIT, "SECONDS", 0, "a private daemon stops after so long without clients (30)", 0 },
	{ "stay", OPT_STAY, NULL, 0, "never stop because of idleness", 0 },
	{ "foreground", OPT_FOREGROUND, NULL, 0, "do not detach (always so; for scripts that say it)", 0 },
	{ "quota-sessions", OPT_QUOTA_SESSIONS, "N", 0, "sessions per user (16384)", 0 },
	{ "quota-bytes", OPT_QUOTA_BYTES, "BYTES", 0, "session memory per user, k, M, G allowed (half of the memory)", 0 },
	{ "ring-size", OPT_RING_SIZE, "BYTES", 0, "ring of a direction unless the client wants another (256k)", 0 },
	{ "log-level", OPT_LOG_LEVEL, "LEVEL", 0, "error, warn, info, debug (warn)", 0 },
	{ "config", OPT_CONFIG, "FILE", 0, "read options from FILE (a system daemon: " CONFIG_FILE ")", 0 },
	{ "no-sandbox", OPT_NO_SANDBOX, NULL, 0, "without seccomp filter (for debuggers)", 0 },
	{ 0 }
};

struct loading {
	struct config *cfg;
	const char *config_file;
	enum { MODE_DEFAULT, MODE_SYSTEM, MODE_PRIVATE } mode;
	int pass;		/* 1: mode and file only; 2: everything */
};

static int parse_number(const char *s, uint64_t max, uint64_t *ret)
{
	unsigned shift = 0;
	char *end;

	if (*s < '0' || *s > '9')	/* " -1" would be one for strtoull(), and a large one */
		return -EINVAL;
	errno = 0;
	*ret = strtoull(s, &end, 10);	/* a leading 0 is one: nobody means 8 by 010 */
	if (errno)
		return -EINVAL;
	switch (*end) {
	case 'k': case 'K': shift = 10; end++; break;
	case 'm': case 'M': shift = 20; end++; break;
	case 'g': case 'G': shift = 30; end++; break;
	}
	if (*end || *ret > (max >> shift))
		return -EINVAL;
	*ret <<= shift;
	return 0;
}

/* an option that has no value on the command line: it is set by being there, in a file by yes */
static int parse_flag(const char *arg, bool *ret)
{
	static const char *const word[2][4] = { { "no", "false", "off", "0" }, { "yes", "true", "on", "1" } };

	if (!arg) {
		*ret = true;
		return 0;
	}
	for (unsigned i = 0; i < 8; i++)
		if (!strcasecmp(arg, word[i & 1][i / 2])) {
			*ret = i & 1;
			return 0;
		}
	return -EINVAL;
}

static int set_option(struct loading *l, int key, const char *arg)
{
	struct config *cfg = l->cfg;
	uint64_t v;
	bool flag;

	switch (key) {
	case OPT_SOCKET:
		if (arg[0] != '/' || strlen(arg) >= sizeof(cfg->socket))
			return -EINVAL;
		strcpy(cfg->socket, arg);
		return 0;
	case OPT_STAY:
		return parse_flag(arg, &cfg->stay);
	case OPT_NO_SANDBOX:
		return parse_flag(arg, &cfg->no_sandbox);
	case OPT_FOREGROUND:
		return parse_flag(arg, &flag);
	case OPT_QUOTA_SESSIONS:
		return parse_number(arg, UINT64_MAX, &cfg->quota_sessions);
	case OPT_QUOTA_BYTES:
		return parse_number(arg, UINT64_MAX, &cfg->quota_bytes);
	case OPT_RING_SIZE:
		if (parse_number(arg, WSD_RING_MAX, &v) || v < WSD_RING_MIN || (v & (v - 1)))
			return -EINVAL;
		cfg->ring_size = (uint32_t)v;
		return 0;
	case OPT_IDLE_EXIT:
		if (parse_number(arg, 1u << 30, &v))
			return -EINVAL;
		cfg->idle_exit_s = (unsigned)v;
		return 0;
	case OPT_LOG_LEVEL:
		cfg->log_level = log_level_parse(arg);
		return cfg->log_level < 0 ? -EINVAL : 0;
	}
	return -ENOENT;
}

static int from_file(void *user, const char *section, const char *name, const char *value)
{
	char *wrong = ((struct loading *)user)->cfg->san.wrong;
	const struct argp_option *o;
	int r = -ENOENT;

	*wrong = '\0';		/* of a line before */
	if (!strcmp(section, "san"))
		r = san_config_set(&((struct loading *)user)->cfg->san, name, value);
	else if (!strcmp(section, "proxyd"))
		for (o = options; o->name; o++)
			if (!strcmp(o->name, name))
				r = set_option(user, o->key, value);
	if (r)
		fprintf(stderr, "wsd-proxyd: [%s] %s = %s: not understood: %s\n", section, name, value, *wrong ? wrong :
			r == -ENOENT ? "there is no such option; man wsd-proxyd" : "not a value for it; man wsd-proxyd");
	return !r;
}

static error_t from_args(int key, char *arg, struct argp_state *state)
{
	struct loading *l = state->input;
	int r;

	switch (key) {
	case OPT_PRIVATE:
		l->mode = MODE_PRIVATE;
		return 0;
	case OPT_SYSTEM:
		l->mode = MODE_SYSTEM;
		return 0;
	case OPT_CONFIG:
		l->config_file = arg;
		return 0;
	case ARGP_KEY_ARG:
		return ARGP_ERR_UNKNOWN;
	}
	if (key <= 0 || key >= 0x1000000)
		return ARGP_ERR_UNKNOWN;
	r = l->pass == 2 ? set_option(l, key, arg) : 0;
	if (r == -ENOENT)
		return ARGP_ERR_UNKNOWN;
	if (r)
		argp_error(state, "%s: not a value for this option", arg);
	return 0;
}

static uint64_t default_quota_bytes(void)
{
	uint64_t half = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;

	return half > (256ull << 20) ? half : 256ull << 20;
}

static int private_path(struct config *cfg)
{
	const char *dir = secure_getenv("XDG_RUNTIME_DIR");

	if (!dir || dir[0] != '/') {
		fprintf(stderr, "wsd-proxyd: XDG_RUNTIME_DIR is not set, give --socket\n");
		return -EINVAL;
	}
	if ((size_t)snprintf(cfg->socket, sizeof(cfg->socket), "%s/wsd/proxyd.sock", dir) >= sizeof(cfg->socket)) {
		fprintf(stderr, "wsd-proxyd: %s is too long for a socket, give --socket\n", dir);
		return -EINVAL;
	}
	return 0;
}

/* all of it: a directory can be opened, but is no empty file. 0 or -EINVAL, said */
static int read_file(struct loading *l)
{
	FILE *f = fopen(l->config_file, "re");
	struct stat st;
	int r = -1, e = 0;

	if (!f || fstat(fileno(f), &st) < 0) {
		e = errno;
	} else if (S_ISDIR(st.st_mode)) {
		e = EISDIR;
	} else {
		r = ini_parse_file(f, from_file, l);
		if (ferror(f))
			e = errno ? errno : EIO;
	}
	if (f)
		fclose(f);
	if (e || r < 0)
		fprintf(stderr, "wsd-proxyd: %s: cannot be read: %s\n", l->config_file, strerror(e ? e : ENOMEM));
	else if (r)
		fprintf(stderr, "wsd-proxyd: %s: error in line %d, or a line before it is longer than 199 characters "
			"(lists may come in several lines)\n", l->config_file, r);
	return e || r ? -EINVAL : 0;
}

int config_load(struct config *cfg, int argc, char **argv)
{
	static const struct argp argp = {
		.options = options, .parser = from_args,
		.doc = "The WSD proxy daemon: pairs the two ends of TCP connections and gives them memory, or a path over RDMA."
		       "\vRDMA between hosts is set up in section [san] of the file. Exit status: 0; 1 failed; 3 another daemon serves "
		       "this path; 64 wrong usage. See wsd-proxyd(8).",
	};
	struct loading l = { .cfg = cfg, .pass = 1 };
	int r;

	*cfg = (struct config){
		.quota_sessions = 16384, .quota_bytes = default_quota_bytes(), .ring_size = WSD_RING_DEFAULT,
		.idle_exit_s = 30, .log_level = LOG_L_WARN,
	};
	san_config_default(&cfg->san);
	/* once for the mode and the file, then the file, then again for what overrides it */
	argp_parse(&argp, argc, argv, 0, NULL, &l);
	cfg->private_daemon = l.mode == MODE_PRIVATE || (l.mode == MODE_DEFAULT && geteuid() != 0);
	if (!l.config_file && !cfg->private_daemon && access(CONFIG_FILE, F_OK) == 0)
		l.config_file = CONFIG_FILE;
	if (l.config_file) {
		r = read_file(&l);
		if (r)
			return r;
	}
	l.pass = 2;
	argp_parse(&argp, argc, argv, 0, NULL, &l);
	r = san_config_finish(&cfg->san, cfg->private_daemon);
	if (r || cfg->socket[0])
		return r;
	if (cfg->private_daemon)
		return private_path(cfg);
	strcpy(cfg->socket, WSD_PROXYD_SYSTEM_PATH);
	return 0;
}
