/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <wsd/catalog.h>
#include <wsd/proxy_proto.h>
#include <wsd/shared_ring.h>

#include "tools/lib/cleanup.h"
#include "tools/lib/place.h"
#include "tools/wsdrun/wsdrun.h"

#define OFFER_AFTER_MAX	1000000u	/* what the switch takes; it would pass over more as malformed */

const char *argp_program_version = "wsdrun " WSD_VERSION;
const char *argp_program_bug_address = NULL;

bool verbose;

struct options {
	const char *provider, *json, *daemon, *socket;
	unsigned long long offer_after, ring_size;
	bool has_offer_after, stats, no_accel, no_start;
	char **cmd;
};

enum { OPT_STATS = 256, OPT_JSON, OPT_NO_ACCEL, OPT_DAEMON, OPT_SOCKET, OPT_NO_START, OPT_OFFER_AFTER, OPT_RING_SIZE };

static const struct argp_option option_list[] = {
	{ "provider", 'p', "NAME|GUID", 0, "use only this provider of the catalog; verbs: RDMA also within this host", 0 },
	{ "stats", OPT_STATS, NULL, 0, "print a summary on stderr when CMD has ended", 0 },
	{ "stats-json", OPT_JSON, "FILE", 0, "write the summary as JSON (-: to stdout)", 0 },
	{ "no-accel", OPT_NO_ACCEL, NULL, 0, "run CMD without the switch", 0 },
	{ "socket", OPT_SOCKET, "PATH", 0, "use the daemon at this socket (start one there if none answers)", 0 },
	{ "daemon", OPT_DAEMON, "PATH", 0, "wsd-proxyd to start when no daemon runs", 0 },
	{ "no-start", OPT_NO_START, NULL, 0, "never start a daemon", 0 },
	{ "offer-after", OPT_OFFER_AFTER, "N", 0, "offer a connection after N receives (0: at once)", 0 },
	{ "ring-size", OPT_RING_SIZE, "BYTES", 0, "ring of each direction; K and M may follow", 0 },
	{ "verbose", 'v', NULL, 0, "say on stderr what is done, and why CMD cannot be accelerated", 0 },
	{ 0 },
};

void note(const char *fmt, ...)
{
	va_list ap;

	if (!verbose)
		return;
	fputs("wsdrun: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* short words for the entries of this project's provider */
static const char *provider_name(const char *arg)
{
	return strcmp(arg, "verbs") == 0 ? "wsd-verbs" : strcmp(arg, "shm") == 0 ? "wsd-shm" : arg;
}

/* decimal number, K or M may follow; false if it is anything else */
static bool parse_number(const char *arg, bool units, unsigned long long max, unsigned long long *ret_value)
{
	unsigned long long v;
	unsigned shift = 0;
	char *end;

	if (*arg < '0' || *arg > '9')
		return false;
	errno = 0;
	v = strtoull(arg, &end, 10);
	if (units && (*end == 'K' || *end == 'k' || *end == 'M' || *end == 'm'))
		shift = *end == 'K' || *end == 'k' ? 10 : 20, end++;
	if (errno || *end || v > max >> shift)
		return false;
	*ret_value = v << shift;
	return true;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	bool ok = true;

	switch (key) {
	case 'p':
		o->provider = provider_name(arg);
		ok = *arg;
		break;
	case 'v':
		verbose = true;
		break;
	case OPT_STATS:
		o->stats = true;
		break;
	case OPT_JSON:
		o->json = arg;
		ok = *arg;
		break;
	case OPT_NO_ACCEL:
		o->no_accel = true;
		break;
	case OPT_NO_START:
		o->no_start = true;
		break;
	case OPT_DAEMON:
		o->daemon = arg;
		ok = *arg;
		break;
	case OPT_SOCKET:
		o->socket = arg;
		ok = *arg;
		break;
	case OPT_OFFER_AFTER:
		o->has_offer_after = true;
		ok = parse_number(arg, false, OFFER_AFTER_MAX, &o->offer_after);
		break;
	case OPT_RING_SIZE:
		ok = parse_number(arg, true, WSD_RING_MAX, &o->ring_size) && o->ring_size >= WSD_RING_MIN &&
		     !(o->ring_size & (o->ring_size - 1));
		if (!ok)
			argp_error(state, "--ring-size must be a power of two from %uK to %uM", WSD_RING_MIN >> 10,
				   WSD_RING_MAX >> 20);
		break;
	case ARGP_KEY_ARG:
		/* the rest is CMD's, options too */
		o->cmd = &state->argv[state->next - 1];
		state->next = state->argc;
		break;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "no command given");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	if (!ok)
		argp_error(state, "bad value '%s'", arg);
	return 0;
}

static void set_number(const char *name, unsigned long long v)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", v);
	setenv(name, text, 1);
}

static void set_or_unset(const char *name, const char *value)
{
	if (value && *value)
		setenv(name, value, 1);
	else
		unsetenv(name);
}

/* the environment of a CMD that stays on TCP */
static void prepare_plain(void)
{
	_cleanup_free_ char *list = preload_compose(NULL, getenv("LD_PRELOAD"), NULL);

	set_or_unset("LD_PRELOAD", list);
	setenv("WSD_DISABLE", "1", 1);
}

/* what the switch will find there, for -v: by itself it says no word of it */
static void note_catalog(const struct options *o, const struct place *place)
{
	static struct wsd_provider p[WSD_CATALOG_PROVIDERS];
	const char *name = o->provider ? o->provider : secure_getenv("WSD_PROVIDER"), *path = secure_getenv(WSD_CATALOG_ENV);
	struct wsd_catalog_error err = { "" };
	unsigned n = 0;
	char id[39];
	int r;

	if (!path || !*path)
		path = place->catalog[0] ? place->catalog : WSD_CATALOG_PATH;
	r = wsd_catalog_load(path, p, WSD_CATALOG_PROVIDERS, &n, &err);
	if (r) {
		note("%s: connections stay on TCP%s", err.text, r == -ENOENT ? " until wsdctl install" : "");
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		wsd_guid_format(&p[i].info.ProviderId, id);
		if (p[i].listed && (!name || !*name || !strcmp(p[i].name, name) || !strcasecmp(id, name)))
			return;
	}
	note("%s: no provider%s%s in \"TCP on SAN\": connections stay on TCP", path, name ? " " : "", name ? name : "");
}

/* anything that fails here leaves CMD on TCP */
static void prepare_accelerated(const struct options *o)
{
	enum target_kind kind = target_look(o->cmd[0]);
	char path[ENDPOINT_PATH_MAX];
	_cleanup_free_ char *list = NULL;
	const char *wanted = o->socket ? o->socket : secure_getenv(WSD_PROXY_SOCKET_ENV);
	struct place place;
	int r;

	place_find(&place);
	if (!place.preload[0]) {
		note("libwsd_switch.so is neither built nor installed: TCP");
		return;
	}
	if (kind != TARGET_FINE)
		note("%s %s", o->cmd[0], target_text(kind));
	if (kind == TARGET_OTHER_ABI)
		return;		/* its loader would complain, or worse, on the program's stderr */

	list = preload_compose(place.preload, getenv("LD_PRELOAD"), preload_runtime());
	if (!list) {
		note("%s cannot be named in LD_PRELOAD: TCP", place.preload);
		return;
	}

	r = daemon_ensure(path, wanted && *wanted ? wanted : NULL,
			  o->no_start ? "" : o->daemon ? o->daemon : place.daemon);
	if (r)
		note("no daemon%s%s: %s: connections stay on TCP until there is one", *path ? " at " : "", path,
		     endpoint_strerror(r));
	else
		note("daemon at %s", path);
	if (verbose)
		note_catalog(o, &place);

	set_or_unset(WSD_PROXY_SOCKET_ENV, path);
	if (place.catalog[0] && !secure_getenv("WSD_CATALOG"))
		setenv("WSD_CATALOG", place.catalog, 1);
	if (o->provider)
		setenv("WSD_PROVIDER", o->provider, 1);
	if (o->has_offer_after)
		set_number("WSD_OFFER_AFTER", o->offer_after);
	if (o->ring_size)
		set_number("WSD_RING_SIZE", o->ring_size);
	setenv("LD_PRELOAD", list, 1);
}

static _Noreturn void cannot_exec(const char *cmd, int err)
{
	fprintf(stderr, "wsdrun: %s: %s\n", cmd, strerror(err));
	exit(err == ENOENT ? WSDRUN_E_NOT_FOUND : WSDRUN_E_CANNOT);
}

/* relative paths go to others, who may stand in another directory */
static const char *absolute(const char *path)
{
	_cleanup_free_ char *cwd = NULL;
	char *full;

	if (!path || *path == '/')
		return path;
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&full, "%s/%s", cwd, path) < 0)
		return path;
	return full;	/* lives as long as we do */
}

static int run_counted(const struct options *o)
{
	struct stats *stats = NULL;
	int r, status = 0;

	r = stats_new(&stats);
	if (r)
		fprintf(stderr, "wsdrun: no statistics: %s\n", strerror(-r));
	r = child_run(o->cmd, &status);
	if (r) {
		stats_free(stats);
		if (r > 0)
			cannot_exec(o->cmd[0], r);
		fprintf(stderr, "wsdrun: cannot start a process: %s\n", strerror(-r));
		return WSDRUN_E_OWN;
	}
	if (stats) {
		r = stats_read(stats);
		if (r)
			fprintf(stderr, "wsdrun: the statistics cannot be read: %s\n", strerror(-r));
		if (!r && o->stats)
			stats_print(stats);
		if (!r && o->json) {
			r = stats_write_json(stats, o->json, o->cmd, status);
			if (r)
				fprintf(stderr, "wsdrun: %s: %s\n", o->json, strerror(-r));
		}
		stats_free(stats);
	}
	child_exit_like(status);
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = option_list, .parser = parse, .args_doc = "CMD [ARG...]",
		.doc = "Run CMD so that its TCP connections may carry their bytes over a SAN."
		       "\vA private daemon is started when none runs. Whatever cannot be accelerated "
		       "stays on TCP. Exit status: that of CMD; 125 wsdrun failed, 126 CMD cannot be "
		       "executed, 127 CMD was not found. See wsdrun(1).",
	};
	struct options o = { 0 };

	/* a line is one write: several wsdruns share a terminal */
	setvbuf(stderr, NULL, _IOLBF, 1024);
	argp_err_exit_status = WSDRUN_E_OWN;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &o);
	o.socket = absolute(o.socket);
	o.daemon = absolute(o.daemon);

	if (o.no_accel)
		prepare_plain();
	else
		prepare_accelerated(&o);

	if (o.stats || o.json)
		return run_counted(&o);
	execvp(o.cmd[0], o.cmd);
	cannot_exec(o.cmd[0], errno);
}
