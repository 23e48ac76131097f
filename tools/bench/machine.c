/* SPDX-License-Identifier: MIT */
/* the machine's own limits: what no road between two processes can beat */
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/role.h"

#define TRIPS	100000u
#define BATCH	200u	/* trips that are timed together: a batch that was interrupted does not count */
#define RING	(256u << 10)
#define CHUNK	(16u << 10)
#define REPEAT	5
#define MOST_NS	10000000000ll	/* who needs longer for one look has no CPU to himself, and no figure; a socket's call has as long */

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
}

/* runs both at once on the two CPUs; seconds of the first, which also ends the second */
static double both(const struct options *o, void *(*first)(void *), void *(*second)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t[2];
	cpu_set_t set;
	double *sec, r = NAN;

	for (int i = 0; i < 2; i++) {
		CPU_ZERO(&set);
		CPU_SET(o->cpu[i], &set);
		pthread_attr_init(&a);
		(void)pthread_attr_setaffinity_np(&a, sizeof(set), &set);
		/* no thread, no figure: the second starts first and waits for the first's word */
		if (pthread_create(&t[i], &a, i ? first : second, arg)) {
			fprintf(stderr, "wsd-bench: cannot start a thread\n");
			exit(1);
		}
		pthread_attr_destroy(&a);
	}
	pthread_join(t[1], (void **)&sec);
	pthread_join(t[0], NULL);
	if (sec)
		r = *sec;
	return r;
}

/* the first's spin: true when it lasts too long. The clock is looked at seldom: it costs as much as what is measured. */
static bool too_long(uint32_t *spins, int64_t since)
{
	return !(++*spins & 0xffff) && now_ns() - since > MOST_NS;
}

#define LATE	((uint32_t)~0u)	/* in place of a number that may come: the first has given up, and the second does */

struct line_test {
	_Alignas(128) _Atomic uint32_t there;
	_Alignas(128) _Atomic uint32_t back;
	_Alignas(128) double sec;
};

static int by_time(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* the median of the batches, as a ping-pong is judged by its median */
static void *line_ask(void *p)
{
	static int64_t batch[TRIPS / BATCH];
	struct line_test *t = p;
	int64_t begin = now_ns(), a = begin, b;
	uint32_t spins = 0;

	for (uint32_t i = 1; i <= TRIPS; i++) {
		atomic_store_explicit(&t->there, i, memory_order_release);
		while (atomic_load_explicit(&t->back, memory_order_acquire) != i)
			if (too_long(&spins, begin))
				goto late;
		if (i % BATCH == 0) {
			b = now_ns();
			if (b - begin > MOST_NS)
				goto late;
			batch[i / BATCH - 1] = b - a;
			a = b;
		}
	}
	qsort(batch, ARRAY_SIZE(batch), sizeof(batch[0]), by_time);
	t->sec = (double)batch[ARRAY_SIZE(batch) / 2] / BATCH / 1e9;
	return &t->sec;
late:
	atomic_store_explicit(&t->there, LATE, memory_order_release);
	return NULL;
}

static void *line_answer(void *p)
{
	struct line_test *t = p;

	for (uint32_t i = 1, said; i <= TRIPS; i++) {
		while ((said = atomic_load_explicit(&t->there, memory_order_acquire)) != i)
			if (said == LATE)
				return NULL;
		atomic_store_explicit(&t->back, i, memory_order_release);
	}
	return NULL;
}

double machine_line_us(const struct options *o)
{
	static struct line_test t;

	if (o->cpu[0] == o->cpu[1])
		return NAN;
	t.there = t.back = 0;
	return both(o, line_ask, line_answer, &t) * 1e6;
}

struct ring_test {
	_Alignas(128) _Atomic uint64_t head;
	_Alignas(128) _Atomic uint64_t tail;
	_Alignas(4096) char ring[RING];
	char in[CHUNK], out[CHUNK];
	uint64_t bytes;
	double sec;
};

static void *ring_put(void *p)
{
	struct ring_test *t = p;
	int64_t a = now_ns();
	uint32_t spins = 0;

	for (uint64_t h = 0; h < t->bytes; h += CHUNK) {
		while (h + CHUNK - atomic_load_explicit(&t->tail, memory_order_acquire) > RING)
			if (too_long(&spins, a))
				goto late;
		if (!(h % (RING * 16)) && now_ns() - a > MOST_NS)
			goto late;
		memcpy(t->ring + h % RING, t->in, CHUNK);
		atomic_store_explicit(&t->head, h + CHUNK, memory_order_release);
	}
	while (atomic_load_explicit(&t->tail, memory_order_acquire) != t->bytes)
		if (too_long(&spins, a))
			goto late;
	t->sec = (double)(now_ns() - a) / 1e9;
	return &t->sec;
late:
	atomic_store_explicit(&t->head, LATE, memory_order_release);
	return NULL;
}

static void *ring_take(void *p)
{
	struct ring_test *t = p;

	for (uint64_t h = 0, said; h < t->bytes; h += CHUNK) {
		while ((said = atomic_load_explicit(&t->head, memory_order_acquire)) == h)
			;
		if (said == LATE)
			return NULL;
		memcpy(t->out, t->ring + h % RING, CHUNK);
		atomic_store_explicit(&t->tail, h + CHUNK, memory_order_release);
	}
	return NULL;
}

double machine_ring_gbs(const struct options *o)
{
	static struct ring_test t;
	double sec;

	if (o->cpu[0] == o->cpu[1])
		return NAN;
	t.head = t.tail = 0;
	t.bytes = 1ull << 30;
	memset(t.in, 1, sizeof(t.in));
	sec = both(o, ring_put, ring_take, &t);
	return (double)t.bytes / sec / 1e9;
}

static double copy_gbs(size_t len, unsigned times)
{
	char *a = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t t;
	double r;

	if (a == MAP_FAILED)
		return NAN;
	memset(a, 1, 2 * len);
	t = now_ns();
	for (unsigned i = 0; i < times; i++) {
		memcpy(a, a + len, len);
		__asm__ volatile("" ::: "memory");
	}
	r = (double)len * times / ((double)(now_ns() - t) / 1e9) / 1e9;
	(void)munmap(a, 2 * len);
	return r;
}

static double syscall_us(void)
{
	int64_t t = now_ns();

	for (unsigned i = 0; i < TRIPS; i++)
		(void)syscall(SYS_getppid);
	return (double)(now_ns() - t) / TRIPS / 1e3;
}

static double tcp_call_us(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct timeval tv = { .tv_sec = MOST_NS / 1000000000 };
	socklen_t len = sizeof(in);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), s = -1;
	double r = NAN;
	int64_t t;
	char b = 0;

	if (l < 0 || c < 0 || setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) || setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) || bind(l, (struct sockaddr *)&in, len) || listen(l, 1) ||
	    getsockname(l, (struct sockaddr *)&in, &len) || connect(c, (struct sockaddr *)&in, len))
		goto out;
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)))
		goto out;
	t = now_ns();
	for (unsigned i = 0; i < TRIPS / 10; i++)
		if (send(c, &b, 1, MSG_NOSIGNAL) != 1 || recv(s, &b, 1, 0) != 1)
			goto out;
	r = (double)(now_ns() - t) / (TRIPS / 10) / 1e3;
out:
	if (s >= 0)
		close(s);
	if (c >= 0)
		close(c);
	if (l >= 0)
		close(l);
	return r;
}

void cpu_use_now(struct cpu_use *ret)
{
	double v[8] = { 0 }, hz = (double)sysconf(_SC_CLK_TCK);
	struct rusage self, kids;
	FILE *f = fopen("/proc/stat", "re");

	*ret = (struct cpu_use){ 0 };
	if (!f)
		return;
	/* user nice system idle iowait irq softirq steal */
	if (fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) == 8) {
		ret->busy = (v[0] + v[1] + v[2] + v[5] + v[6]) / hz;
		ret->steal = v[7] / hz;
		ret->total = ret->busy + ret->steal + (v[3] + v[4]) / hz;
	}
	fclose(f);
	(void)getrusage(RUSAGE_SELF, &self);
	(void)getrusage(RUSAGE_CHILDREN, &kids);
	ret->ours = (double)(self.ru_utime.tv_sec + self.ru_stime.tv_sec + kids.ru_utime.tv_sec + kids.ru_stime.tv_sec) +
		    (double)(self.ru_utime.tv_usec + self.ru_stime.tv_usec + kids.ru_utime.tv_usec + kids.ru_stime.tv_usec) / 1e6;
}

double cpu_use_others(const struct cpu_use *a, const struct cpu_use *b)
{
	double total = b->total - a->total, others = (b->busy - a->busy) - (b->ours - a->ours) + (b->steal - a->steal);

	return total > 0 && others > 0 ? others / total * 100 : 0;
}

void machine_measure(struct machine *ret, const struct options *o)
{
	double line[REPEAT], ring[REPEAT], small[REPEAT], big[REPEAT], call[REPEAT], tcp[REPEAT];
	cpu_set_t before;

	(void)sched_getaffinity(0, sizeof(before), &before);
	for (int i = 0; i < REPEAT; i++) {
		line[i] = machine_line_us(o);
		ring[i] = machine_ring_gbs(o);
		run_on(o->cpu[0]);
		small[i] = copy_gbs(128 << 10, 20000);
		big[i] = copy_gbs(64 << 20, 4);
		call[i] = syscall_us();
		tcp[i] = tcp_call_us();
		(void)sched_setaffinity(0, sizeof(before), &before);
	}
	*ret = (struct machine){
		.line_us = median(line, REPEAT), .ring_gbs = median(ring, REPEAT), .memcpy_gbs = median(small, REPEAT),
		.memcpy_big_gbs = median(big, REPEAT), .syscall_us = median(call, REPEAT), .tcp_call_us = median(tcp, REPEAT),
	};
}
