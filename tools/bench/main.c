/* SPDX-License-Identifier: MIT */
/* wsd-bench: options, and the order of the runs */
#include <argp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/bench.h"

#define CAPACITY_RUNS	3

const char *argp_program_version = "wsd-bench " WSD_VERSION;

enum { OPT_PIN = 256, OPT_WSDRUN, OPT_PRELOAD, OPT_ROADS, OPT_PNG, OPT_JSON, OPT_QUICK, OPT_VERIFY, OPT_CHECK, OPT_LIST, OPT_WARM, OPT_ADDRESS, OPT_PEER, OPT_AGENT,
	OPT_DEVICE, OPT_MARKDOWN, OPT_NO_MACHINE, OPT_SECRET };

static const struct argp_option options[] = {
	{ "rounds", 'r', "N", 0, "rounds of each case (10)", 0 },
	{ "time", 't', "SECONDS", 0, "to measure in each run (0.5)", 0 },
	{ "warm", OPT_WARM, "SECONDS", 0, "before that (0.15)", 0 },
	{ "pin", OPT_PIN, "two|one|none", 0, "where both ends run, instead of what each case says", 0 },
	{ "quick", OPT_QUICK, NULL, 0, "3 rounds of 0.2 s, and fewer cases", 0 },
	{ "roads", OPT_ROADS, "LIST", 0, "of tcp, unix, wsd (all); of the test rdma also verbs, rsockets, smc, raw", 0 },
	{ "wsdrun", OPT_WSDRUN, "PATH", 0, "the wsdrun to use (the one beside this program)", 0 },
	{ "preload", OPT_PRELOAD, "LIB", 0, "LD_PRELOAD this library instead of running wsdrun", 0 },
	{ "address", OPT_ADDRESS, "IPV4", 0, "of this host's RDMA device, for the test rdma within one host", 0 },
	{ "peer", OPT_PEER, "IPV4", 0, "the test rdma with the server's end there, where wsd-bench --agent runs", 0 },
	{ "agent", OPT_AGENT, "IPV4", 0, "run servers' ends for a wsd-bench --peer; IPV4 is this host's", 0 },
	{ "secret", OPT_SECRET, "FILE", 0, "shared by --peer and --agent, which else serves everybody; as wsdctl key makes one", 0 },
	{ "device", OPT_DEVICE, "NAME", 0, "RDMA device for perftest (rxe0)", 0 },
	{ "no-machine", OPT_NO_MACHINE, NULL, 0, "do not measure the machine's own limits: they take long in an emulated one", 0 },
	{ "markdown", OPT_MARKDOWN, NULL, 0, "end with the test rdma's table as markdown", 0 },
	{ "verify", OPT_VERIFY, NULL, 0, "look at every byte of streams (slower)", 0 },
	{ "check", OPT_CHECK, NULL, 0, "exit with 2 if a bar is missed", 0 },
	{ "json", OPT_JSON, "FILE", OPTION_ARG_OPTIONAL, "all results as JSON: to FILE beside the table, else instead of it", 0 },
	{ "png", OPT_PNG, "FILE", 0, "draw the results with gnuplot", 0 },
	{ "list", OPT_LIST, NULL, 0, "list the cases and their bars", 0 },
	{ "quiet", 'q', NULL, 0, "no progress", 0 },
	{ 0 },
};

static long seconds_ms(struct argp_state *st, const char *arg)
{
	char *end;
	double v = strtod(arg, &end);

	if (*end || end == arg || !(v >= .01 && v * 1000 <= SPEC_MS_MAX))
		argp_error(st, "a time is 0.01 to 60 seconds, not \"%s\"", arg);
	return (long)(v * 1000);
}

static error_t parse(int key, char *arg, struct argp_state *st)
{
	struct options *o = st->input;
	char *end, *save, *t;
	struct in_addr a;

	switch (key) {
	case 'r': {
		long v = strtol(arg, &end, 10);

		if (*end || end == arg || v < 1 || v > ROUNDS_MAX)
			argp_error(st, "rounds are 1 to %d", ROUNDS_MAX);
		o->rounds = (unsigned)v;
		break;
	}
	case 't':
		o->ms = seconds_ms(st, arg);
		break;
	case OPT_WARM:
		o->warm = seconds_ms(st, arg);
		break;
	case OPT_PIN:
		for (o->pin = 0; o->pin < _PIN_N && strcmp(arg, pin_name[o->pin]); o->pin++)
			;
		if (o->pin == _PIN_N)
			argp_error(st, "--pin is two, one or none");
		break;
	case OPT_ROADS:
		o->roads = 0;
		for (t = strtok_r(arg, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
			unsigned r;

			for (r = 0; r < _ROAD_N && strcmp(t, road_name[r]); r++)
				;
			if (r == _ROAD_N)
				argp_error(st, "there is no road \"%s\"", t);
			o->roads |= 1u << r;
		}
		break;
	case OPT_WSDRUN:
		o->wsdrun = arg;
		break;
	case OPT_PRELOAD:
		o->preload = arg;
		break;
	case OPT_ADDRESS:
	case OPT_PEER:
	case OPT_AGENT:
		if (o->addr || inet_pton(AF_INET, arg, &a) != 1 || !a.s_addr)
			argp_error(st, "one IPv4 address is said, by --address, --peer or --agent");
		o->addr = ntohl(a.s_addr);
		if (key != OPT_ADDRESS)
			o->agent_port = AGENT_PORT;
		o->agent = key == OPT_AGENT;
		break;
	case OPT_SECRET:
		if (agent_secret(o, arg))
			exit(64);
		break;
	case OPT_DEVICE:
		o->device = arg;
		break;
	case OPT_MARKDOWN:
		o->markdown = true;
		break;
	case OPT_NO_MACHINE:
		o->no_machine = true;
		break;
	case OPT_VERIFY:
		o->verify = true;
		break;
	case OPT_CHECK:
		o->check = true;
		break;
	case OPT_QUICK:
		o->quick = true;
		break;
	case OPT_JSON:
		o->json = arg ? arg : "-";
		break;
	case OPT_PNG:
		o->png = arg;
		break;
	case OPT_LIST:
		o->list = true;
		break;
	case 'q':
		o->quiet = true;
		break;
	case ARGP_KEY_ARGS:
		o->names = st->argv + st->next;
		o->n_names = (unsigned)(st->argc - st->next);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	options, parse, "[TEST[/CASE]...]",
	"Compare kernel TCP, AF_UNIX and TCP under wsdrun on this machine, in turn, and print how many times better "
	"wsdrun is.\v"
	"Tests: machine (only its limits) pingpong stream rate connrate epoll openloop idle unaware busy quota; rdma (only when named); shell patterns work (epoll/et-*).\n"
	"A run that stands still is ended at its deadline, has failed, and the others go on.\n"
	"Exit: 0; 1 if a run failed; 2 if --check is given and a bar was missed; 64 for bad options.",
	NULL, NULL, NULL,
};

/* the core a CPU belongs to, as far as the kernel tells */
static int core_of(int cpu)
{
	char path[96];
	int package = 0, core = cpu;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/core_id", cpu);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%d", &core) != 1)
			core = cpu;
		fclose(f);
	}
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%d", &package) != 1)
			package = 0;
		fclose(f);
	}
	return package * 4096 + core;
}

static void find_cpus(struct options *o)
{
	cpu_set_t set;

	o->cpu[0] = o->cpu[1] = -1;
	if (sched_getaffinity(0, sizeof(set), &set))
		CPU_ZERO(&set);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &set))
			continue;
		o->n_cpus++;
		if (o->cpu[0] < 0)
			o->cpu[0] = o->cpu[1] = i;
		else if (o->cpu[1] == o->cpu[0] && core_of(i) != core_of(o->cpu[0]))
			o->cpu[1] = i;
	}
	if (o->cpu[0] < 0)
		o->cpu[0] = o->cpu[1] = 0;
	/* no second core: a second thread of the same is better than none */
	for (int i = 0; o->cpu[1] == o->cpu[0] && i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set) && i != o->cpu[0])
			o->cpu[1] = i;
}

static void find_wsdrun(struct options *o)
{
	static char path[PATH_MAX];
	char self[PATH_MAX - 16];
	ssize_t n;

	if (o->preload || o->wsdrun) {
		if (access(o->preload ? o->preload : o->wsdrun, o->preload ? R_OK : X_OK)) {
			fprintf(stderr, "wsd-bench: %s: %m\n", o->preload ? o->preload : o->wsdrun);
			exit(64);
		}
		return;
	}
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0)
		return;
	self[n] = 0;
	snprintf(path, sizeof(path), "%s/wsdrun", dirname(self));
	if (!access(path, X_OK))
		o->wsdrun = path;
}

static void progress(const struct options *o, const struct bcase *c, const char *what, unsigned round)
{
	if (o->quiet)
		return;
	if (c)
		fprintf(stderr, "\r\033[K%s: round %u of %u, %s", c->name, round + 1, o->rounds, what);
	else
		fprintf(stderr, "\r\033[K%s", what);
	fflush(stderr);
}

/* at once, for the table comes when the case is over; it has the first */
static __attribute__((format(printf, 3, 4))) void failed(const struct options *o, struct bcase *c, const char *fmt, ...)
{
	char text[WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	progress(o, NULL, "", 0);
	fprintf(stderr, "wsd-bench: %s FAILED: %s\n", c->name, text);
	if (!c->failed[0])
		memcpy(c->failed, text, sizeof(text));
}

/* requests a second that TCP carries with so many connections; 0 when that cannot be measured */
static double capacity(const struct options *o, const struct bcase *c, char why[WHY_MAX])
{
	static struct { long conns; enum pin pin; double rate; } known[8];
	static unsigned n_known;
	struct bcase echo = *c;
	double v[CAPACITY_RUNS];

	for (unsigned i = 0; i < n_known; i++)
		if (known[i].conns == c->spec.conns && known[i].pin == c->pin)
			return known[i].rate;
	echo.spec.kind = KIND_ECHO;
	echo.spec.rate = 0;
	for (unsigned i = 0; i < CAPACITY_RUNS; i++) {
		struct result r;

		progress(o, c, "how much TCP can carry", 0);
		if (run_once(&r, why, o, &echo, ROAD_TCP))
			return 0;
		v[i] = r.m[M_RATE];
	}
	if (n_known < ARRAY_SIZE(known)) {
		known[n_known].conns = c->spec.conns;
		known[n_known].pin = c->pin;
		known[n_known++].rate = median(v, CAPACITY_RUNS);
	}
	return median(v, CAPACITY_RUNS);
}

/* 0, RUN_E_FAILED or RUN_E_STILL if some run failed, RUN_E_STOP */
static int run_case(const struct options *o, struct bcase *c)
{
	static char no_smc[WHY_MAX];
	int ret = 0;

	if (c->pin == PIN_TWO && o->cpu[0] == o->cpu[1]) {
		snprintf(c->skipped, sizeof(c->skipped), "needs two CPUs");
		return 0;
	}
	if (c->quota && quota_open(c->skipped))
		return 0;
	if (c->open_percent) {
		char why[WHY_MAX] = "";
		double cap = capacity(o, c, why);

		if (run_stopped())
			return RUN_E_STOP;
		if (!(cap > 0)) {
			failed(o, c, "TCP's capacity could not be measured: %.200s", why);
			return RUN_E_FAILED;
		}
		c->spec.rate = (long)(cap * c->open_percent / 100);
		if (c->spec.rate < 1)
			c->spec.rate = 1;
	}
	if (c->rdma && !o->addr) {
		snprintf(c->skipped, sizeof(c->skipped), "needs --address or --peer");
		return 0;
	}
	for (unsigned k = 0; k < o->rounds; k++) {
		double fl = NAN;

		if (c->floor == FLOOR_LINE)
			fl = machine_line_us(o);
		else if (c->floor == FLOOR_RING)
			fl = machine_ring_gbs(o);
		for (unsigned i = 0; i < _ROAD_N; i++) {
			enum road r = (k + i) % _ROAD_N;	/* none is always first */
			char why[WHY_MAX];
			int x;

			if (!(o->roads & 1u << r) || !((c->rdma ? ROADS_RDMA : ROADS_PLAIN) & 1u << r) || (r == ROAD_UNIX && c->no_unix))
				continue;
			if (c->no_road[r][0] || (r == ROAD_SMC && no_smc[0])) {
				snprintf(c->no_road[r], WHY_MAX, "%s", c->no_road[r][0] ? c->no_road[r] : no_smc);
				continue;
			}
			progress(o, c, road_name[r], k);
			x = run_once(&c->res[r][k], why, o, c, r);
			if (x == RUN_E_STOP)
				return x;
			c->res[r][k].floor = fl;
			if (!x)
				continue;
			if (r == ROAD_SMC) {	/* a kernel that does not bring it up is no failure of ours; it is not asked again */
				snprintf(no_smc, sizeof(no_smc), "%s", why);
				snprintf(c->no_road[r], WHY_MAX, "%s", why);
				if (x != RUN_E_STILL)
					continue;
			}
			ret = x;
			failed(o, c, "%s, round %u: %.200s", road_name[r], k + 1, why);
		}
	}
	return ret;
}

int main(int argc, char **argv)
{
	struct options o = { .rounds = 0, .pin = -1, .roads = (1u << _ROAD_N) - 1 };
	struct machine m = { NAN, NAN, NAN, NAN, NAN, NAN, NAN };
	struct bcase *c;
	unsigned n, done = 0;
	int r, status = 0;
	struct cpu_use use[2];
	bool table;
	FILE *report;

	tsc_init();
	if (argc > 1 && (!strcmp(argv[1], "@server") || !strcmp(argv[1], "@client")))
		return role_main(argv[1][1] == 's', argv + 2, argc - 2);

	argp_err_exit_status = 64;
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (!o.rounds)
		o.rounds = o.quick ? 3 : 10;
	if (!o.ms)
		o.ms = o.quick ? 200 : 500;
	if (!o.warm)
		o.warm = o.quick ? 100 : 150;
	if (o.agent) {
		find_wsdrun(&o);
		status = run_setup() ? 1 : agent_main(&o);
		run_cleanup();
		return status;
	}
	if (!isatty(STDERR_FILENO))
		o.quiet = true;
	find_cpus(&o);
	if (cases_make(&c, &n, &o)) {
		fprintf(stderr, "wsd-bench: out of memory\n");
		return 1;
	}
	if (!n && !(o.n_names == 1 && !strcmp(o.names[0], "machine"))) {
		fprintf(stderr, "wsd-bench: no test of that name; --list shows them\n");
		return 64;
	}
	if (o.list) {
		cases_list(c, n);
		free(c);
		return 0;
	}
	find_wsdrun(&o);
	if (n && !o.wsdrun && !o.preload && o.roads & (1u << ROAD_WSD | 1u << ROAD_VERBS)) {
		fprintf(stderr, "wsd-bench: no wsdrun beside this program and neither --wsdrun nor --preload: only tcp and unix are run\n");
		o.roads &= ~(1u << ROAD_WSD | 1u << ROAD_VERBS);
	}
	if (run_setup()) {
		free(c);
		return 1;
	}

	/* the bars are judged while the table is written, so it is written in any case */
	table = !o.json || strcmp(o.json, "-");
	report = table ? stdout : fopen("/dev/null", "we");
	if (!report) {
		fprintf(stderr, "wsd-bench: /dev/null: %m\n");
		return 1;
	}
	report_to(report);
	cpu_use_now(&use[0]);
	if (!o.no_machine) {
		progress(&o, NULL, "the machine", 0);
		machine_measure(&m, &o);
		progress(&o, NULL, "", 0);
		report_machine(&m);
	}
	if (n && !c[0].rdma)
		report_head();
	for (; done < n && !run_stopped(); done++) {
		r = run_case(&o, &c[done]);
		progress(&o, NULL, "", 0);
		if (r)
			status = 1;
		if (r == RUN_E_STOP)
			break;
		report_case(&c[done]);
	}
	if (run_stopped())
		fprintf(stderr, "wsd-bench: stopped after %u of %u cases\n", done, n);
	cpu_use_now(&use[1]);
	m.others = cpu_use_others(&use[0], &use[1]);
	if (o.markdown)
		rdma_markdown(report, c, done);
	report_others(&m);
	if (report_below())
		fprintf(report, "%u bars missed\n", report_below());
	if (o.json && json_write(o.json, &m, c, done, &o))
		status = 1;
	if (o.png && plot_write(o.png, &m, c, done))
		status = 1;
	quota_close();
	run_cleanup();
	free(c);
	if (!table)
		fclose(report);
	if (!status && o.check && report_below())
		status = 2;
	return status;
}
