/* SPDX-License-Identifier: MIT */
/*
 * bench.h - what the parts of wsd-bench share
 *
 * wsd-bench compares roads: kernel TCP on 127.0.0.1, AF_UNIX, and TCP under wsdrun; in the test "rdma"
 * what else carries a socket's bytes over an RDMA device, and the bare device (enum road). One *run*
 * is two fresh processes (roles: server, client) that talk over one road; a *case* is what they do;
 * a *round* is one run on each road, next to each other in time, in changing order. Ratios are
 * taken within a round, so a drift of the machine does not count.
 *
 *   main.c     options, order of the runs        role*.c    what a role does (the measured code)
 *   cases.c    the table of cases and bars       hist.c     latency histogram
 *   run.c      one run                           machine.c  the machine's own limits
 *   child.c    its processes, their deadlines
 *   load.c     busy loops, CPU quota             report.c, json.c, plot.c  results
 *   share.c    bytes that went over the SAN            rdma.c     the table of the test "rdma"
 *   calls.c    system calls per message
 *   agent.c    the server's end on another host
 *
 * Errors:  0, -errno, or RUN_E_*; what went wrong is told where it is noticed.
 * Units:   as the metric says; times inside are nanoseconds unless named otherwise.
 * Threads: none but those of machine.c.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define ROUNDS_MAX	100
#define CONNS_MAX	4096
#define WANT_MAX	5
#define WHY_MAX		256

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* ---- what is measured ---- */

enum metric {
	M_RATE,		/* round trips, messages or connections per second */
	M_P50, M_P90, M_P99, M_P999, M_MAX,	/* us */
	M_BYTES,	/* GB/s, 10^9 bytes */
	M_CPU,		/* percent of one CPU, both ends together */
	M_LATE,		/* percent of requests that could not be sent when due */
	M_RSS_SERVER, M_RSS_CLIENT,	/* KiB per connection */
	M_CALLS_SERVER, M_CALLS_CLIENT,	/* system calls per message or round trip; where the kernel counts them for us */
	_M_N,
};

struct metric_info {
	const char *key;	/* in JSON and in what roles print */
	const char *unit;
	bool less;		/* less is better */
};
extern const struct metric_info metric_info[_M_N];

struct result {
	double m[_M_N];		/* NAN: this run does not measure it */
	double share;		/* of bytes taken, those that came over the SAN; NAN: unknown */
	double accel;		/* of connections, those with a session; NAN: unknown */
	double floor;		/* the machine's limit, measured in the same round; NAN */
	bool done;
};

void result_clear(struct result *r);

/* ---- what a run does ---- */

enum kind { KIND_PINGPONG, KIND_STREAM, KIND_CONN, KIND_ECHO, KIND_OPEN, KIND_IDLE, KIND_RAW, _KIND_N };

/* parameters of both roles; travel as "key=value" words, see spec_words() */
struct spec {
	long kind;
	long road;	/* enum road */
	long size;	/* bytes of a message or of a write */
	long take;	/* stream: bytes of a receive call */
	long conns;
	long ms;	/* to measure */
	long warm;	/* ms before that */
	long et;	/* edge-triggered */
	long verify;	/* stream: look at every byte */
	long rate;	/* open loop: requests per second */
	long cpu;	/* to run on; -1: the scheduler's choice */
	long port;	/* client: TCP port, or number of the AF_UNIX name */
	long peer;	/* client: pid of the server; 0: on another host */
	long addr;	/* IPv4 address of the server, host order; 0: loopback */
	long poll;	/* wait by polling: by calls that do not block, over and over; wsd by its own spin */
	long ring_only;	/* wsd: WSD_OVERFLOW=off */
	long raw;	/* enum raw: the program of perftest that stands for this case */
};


#define SPEC_WORDS_MAX	20
#define SPEC_WORD_LEN	32
#define SPEC_MS_MAX	60000	/* of ms and warm */
/* of size: roles have buffers of so much, and a spec may come from another host */
#define SIZE_MAX_SMALL	4096	/* conn, echo, open, idle */
#define SIZE_MAX_PINGPONG 65536
#define SIZE_MAX_ANY	(1 << 26)
struct spec_words { char w[SPEC_WORDS_MAX][SPEC_WORD_LEN]; unsigned n; };

void spec_print(struct spec_words *ret, const struct spec *s);
int spec_parse(struct spec *ret, char **words, int n);

/*
 * TCP, UNIX and WSD are for all cases but the test "rdma", whose cases run on TCP and on those behind WSD:
 * VERBS: under wsdrun, over the device also within one host; RSOCKETS: librspreload; SMC: AF_SMC, by SMC-R
 * or not at all; RAW: no sockets, the program of perftest that does the same
 */
enum road { ROAD_TCP, ROAD_UNIX, ROAD_WSD, ROAD_VERBS, ROAD_RSOCKETS, ROAD_SMC, ROAD_RAW, _ROAD_N };
#define ROADS_PLAIN	(1u << ROAD_TCP | 1u << ROAD_UNIX | 1u << ROAD_WSD)
#define ROADS_RDMA	(1u << ROAD_TCP | 1u << ROAD_VERBS | 1u << ROAD_RSOCKETS | 1u << ROAD_SMC | 1u << ROAD_RAW)
enum raw { RAW_NONE, RAW_WRITE_LAT, RAW_SEND_LAT, RAW_SEND_LAT_EVENTS, RAW_WRITE_BW, RAW_SEND_BW, _RAW_N };
extern const char *const road_name[_ROAD_N];

enum pin { PIN_TWO, PIN_ONE, PIN_NONE, _PIN_N };
extern const char *const pin_name[_PIN_N];

#define END_SERVER	1u
#define END_CLIENT	2u

/* the machine's limit that a case is held against */
enum floor { FLOOR_NONE, FLOOR_LINE, FLOOR_RING };

struct want {
	enum metric m;
	double bar;	/* least ratio to TCP that is asked for; 0: none */
};

struct bcase {
	char name[48];		/* test/detail */
	struct spec spec;
	enum pin pin;
	unsigned busy;		/* busy loops beside */
	bool quota;		/* half a CPU for both ends together */
	unsigned ends;		/* END_*: which ends the wsd road puts under wsdrun */
	bool no_unix;
	bool rdma;		/* of the test "rdma": its roads, its bars, its table */
	unsigned open_percent;	/* open loop: of TCP's capacity with that many connections */
	struct want want[WANT_MAX];
	unsigned n_want;
	enum floor floor;
	double floor_bar;	/* LINE: most multiple of the limit; RING: least part of it */

	struct { enum road road; double bar; } against[4];	/* rdma: least ratio of VERBS to that road */
	unsigned n_against;
	char no_road[_ROAD_N][WHY_MAX];	/* rdma: why that road was not run in this case */

	char skipped[WHY_MAX];	/* why it was not run; empty: it was */
	char failed[WHY_MAX];	/* first failure; empty: none */
	struct result res[_ROAD_N][ROUNDS_MAX];
};

/* ---- options ---- */

struct options {
	unsigned rounds;
	long ms, warm;
	int pin;		/* enum pin or -1 */
	bool quick, verify, check, list, quiet, markdown, no_machine, agent;
	const char *wsdrun;	/* NULL: none found */
	const char *preload;
	unsigned roads;		/* bits 1 << enum road */
	long addr;		/* of the test "rdma": this host's, or the agent's; host order */
	int agent_port;		/* 0: one host */
	uint64_t secret[2];	/* shared with the agent */
	bool has_secret;
	const char *device;	/* RDMA device */
	const char *json;	/* file; "-": stdout; NULL: none */
	const char *png;
	char **names;		/* shell patterns of tests or cases */
	unsigned n_names;
	int cpu[2];		/* two CPUs on different cores; equal when there is one */
	unsigned n_cpus;
};

/* ---- parts ---- */

/* cases.c: *ret is malloc'ed */
int cases_make(struct bcase **ret, unsigned *ret_n, const struct options *o);
void cases_list(const struct bcase *c, unsigned n);

/* role.c: the process is a role; returns its exit status */
int role_main(bool server, char **words, int n);

/* agent.c: runs the server's end for a wsd-bench on another host, one run after the other; see there */
#define AGENT_PORT	18999
int agent_main(const struct options *o);		/* until it is ended; an exit status */
int agent_call(const struct options *o, const struct spec *s);	/* a socket that says what the server says; or -errno */
int agent_secret(struct options *o, const char *file);	/* read it; 0, or -errno and a line on standard error */

/* run.c */
enum {
	_RUN_OK,
	RUN_E_FAILED,	/* a role failed; why[] says how */
	RUN_E_STILL,	/* something stood still until its deadline; why[] says what */
	RUN_E_STOP,	/* the user asked to stop */
};
int run_once(struct result *ret, char why[WHY_MAX], const struct options *o, const struct bcase *c, enum road road);
int run_setup(void);	/* signals, limits, temporary folder */
void run_cleanup(void);
pid_t run_server(int *ret_out, const struct options *o, const struct spec *s);	/* the server's end alone; or -errno */
int run_server_end(char why[WHY_MAX], pid_t pid, int out, bool force);	/* as child_end() */
long run_most_ms(const struct spec *s);	/* a run that takes longer than this stands still; not one that is crowded or rationed */
const char *run_dir(void);
bool run_stopped(void);

/* machine.c */
struct machine {
	double line_us;		/* cache-line round trip between two cores; NAN with one */
	double ring_gbs;	/* two-copy ring of 256 KiB, chunks of 16 KiB */
	double memcpy_gbs;	/* 128 KiB, warm */
	double memcpy_big_gbs;	/* 64 MiB */
	double syscall_us;
	double tcp_call_us;	/* send and receive of 1 byte on one thread */
	double others;		/* percent of all CPU time that other programs (or the hypervisor) took while we ran */
};
void machine_measure(struct machine *ret, const struct options *o);
double machine_line_us(const struct options *o);
double machine_ring_gbs(const struct options *o);

struct cpu_use { double busy, steal, total, ours; };	/* seconds since boot */
void cpu_use_now(struct cpu_use *ret);
double cpu_use_others(const struct cpu_use *a, const struct cpu_use *b);	/* percent between two looks */

/* load.c */
struct load;
int load_start(struct load **ret, unsigned n);
struct load *load_stop(struct load *l);		/* accepts NULL, returns NULL */
int quota_open(char why[WHY_MAX]);			/* 0, or -errno and why there is none */
int quota_enter(void);				/* the calling process; async-signal-safe */
void quota_close(void);

/* share.c: the statistics file of accelerated processes */
int share_open(const char *path);
void share_reset(void);
struct share { unsigned long long ring, tcp, conns, accel; };
struct share share_sum(void);
void share_tell(struct result *ret, const struct share *here, const struct share *there);

/* report.c, json.c, plot.c */
double median(const double *v, unsigned n);
unsigned case_ratios(double *ret, const struct bcase *c, enum metric m, enum road a);	/* per round, above 1 is better */
unsigned case_values(double *ret, const struct bcase *c, enum metric m, enum road r);
double case_worst(const struct bcase *c, enum metric m, enum road a);
double worst(const double *v, unsigned n);
void report_to(FILE *f);			/* where the table goes; before the others */
void report_machine(const struct machine *m);
void report_head(void);
void report_others(const struct machine *m);
void report_case(const struct bcase *c);
void report_rdma(FILE *f, const struct bcase *c, unsigned *below);	/* rdma.c */
void rdma_markdown(FILE *f, const struct bcase *c, unsigned n);
double case_worst_to(const struct bcase *c, enum metric m, enum road a, enum road to);
unsigned case_against(double *ret, const struct bcase *c, enum metric m, enum road a, enum road to);
const char *number(char buf[24], double v, enum metric m);
const char *factor(char buf[24], double v);
unsigned report_below(void);	/* bars that were missed so far */
int json_write(const char *file, const struct machine *m, const struct bcase *c, unsigned n, const struct options *o);
int plot_write(const char *file, const struct machine *m, const struct bcase *c, unsigned n);

#endif
