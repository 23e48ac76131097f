/* SPDX-License-Identifier: MIT */
/*
 * The file belongs to us and is mode 0600: a process maps it while it still has our
 * rights, and one that could not would have to be able to truncate it, and thereby to kill the others by
 * SIGBUS. We only pread() it, once all is over, for the same reason. Every number in it is a claim.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>
#include <wsd/stats.h>

#include "common/reason.h"
#include "tools/lib/cleanup.h"
#include "tools/lib/human.h"
#include "tools/wsdrun/wsdrun.h"

struct proc {
	uint32_t pid;
	char comm[17];
	uint64_t conns, accelerated, rdma, ring_tx, ring_rx, tcp_tx, tcp_rx, gate_opened, gate_closed;
	uint32_t reason[WSD_STATS_REASONS];
};

struct stats {
	int fd;
	char path[PATH_MAX];
	uint32_t overflow;
	unsigned n;
	struct proc total, proc[WSD_STATS_SLOTS];
};

/* where we have a directory to ourselves; mkostemp() is safe in the last one too */
static int make_file(char path[static PATH_MAX])
{
	char dir[ENDPOINT_PATH_MAX];
	const char *tmp;
	int fd;

	for (unsigned n = 0; endpoint_private_dir(dir, n); n++) {
		if (!dir[0] || endpoint_make_dir(dir))
			continue;
		snprintf(path, PATH_MAX, "%s/stats.XXXXXX", dir);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	tmp = secure_getenv("TMPDIR");
	snprintf(path, PATH_MAX, "%.*s/wsd-stats.XXXXXX", PATH_MAX - 32, tmp && *tmp == '/' ? tmp : "/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int stats_new(struct stats **ret_stats)
{
	struct { uint64_t magic; uint32_t n_slots, overflow; } head = { WSD_STATS_MAGIC, WSD_STATS_SLOTS, 0 };
	struct stats *s;
	int r;

	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->fd = make_file(s->path);
	if (s->fd < 0) {
		r = s->fd;
		free(s);
		return r;
	}
	/* present before use: a full file system must fail here, not as SIGBUS in the program */
	r = -posix_fallocate(s->fd, 0, WSD_STATS_LENGTH);
	if (!r && pwrite(s->fd, &head, sizeof(head), 0) != sizeof(head))
		r = -EIO;
	if (!r && setenv(WSD_STATS_ENV, s->path, 1) < 0)
		r = -errno;
	if (r) {
		stats_free(s);
		return r;
	}
	*ret_stats = s;
	return 0;
}

struct stats *stats_free(struct stats *s)
{
	if (!s)
		return NULL;
	close(s->fd);
	(void)unlink(s->path);
	free(s);
	return NULL;
}

static void add(struct proc *sum, const struct proc *p)
{
	sum->conns += p->conns;
	sum->accelerated += p->accelerated;
	sum->rdma += p->rdma;
	sum->ring_tx += p->ring_tx;
	sum->ring_rx += p->ring_rx;
	sum->tcp_tx += p->tcp_tx;
	sum->tcp_rx += p->tcp_rx;
	sum->gate_opened += p->gate_opened;
	sum->gate_closed += p->gate_closed;
	for (unsigned i = 0; i < WSD_STATS_REASONS; i++)
		sum->reason[i] += p->reason[i];
}

int stats_read(struct stats *s)
{
	_cleanup_free_ struct wsd_stats_file *f = malloc(sizeof(*f));
	ssize_t n;

	if (!f)
		return -ENOMEM;
	n = pread(s->fd, f, sizeof(*f), 0);
	if (n < 0)
		return -errno;
	if (n != sizeof(*f) || f->magic != WSD_STATS_MAGIC || f->n_slots != WSD_STATS_SLOTS)
		return -EBADMSG;

	s->overflow = f->overflow;
	for (unsigned i = 0; i < WSD_STATS_SLOTS; i++) {
		const struct wsd_stats_slot *slot = &f->slot[i];
		struct proc *p = &s->proc[s->n];

		if (!slot->pid)
			continue;
		p->pid = slot->pid;
		human_field(p->comm, sizeof(p->comm), slot->comm, sizeof(slot->comm));
		p->conns = slot->conns;
		p->accelerated = slot->accelerated;
		p->rdma = slot->accelerated_rdma;
		if (p->rdma > p->accelerated)
			p->rdma = p->accelerated;
		p->ring_tx = slot->ring_tx;
		p->ring_rx = slot->ring_rx;
		p->tcp_tx = slot->tcp_tx;
		p->tcp_rx = slot->tcp_rx;
		p->gate_opened = slot->gate_opened;
		p->gate_closed = slot->gate_closed;
		for (unsigned k = 0; k < WSD_STATS_REASONS; k++)
			p->reason[k] = slot->reason[k];
		add(&s->total, p);
		s->n++;
	}
	return 0;
}

static uint64_t ring_bytes(const struct proc *p)
{
	return p->ring_tx + p->ring_rx;
}

static uint64_t all_bytes(const struct proc *p)
{
	return ring_bytes(p) + p->tcp_tx + p->tcp_rx;
}

static void print_row(const struct proc *p, const char *pid)
{
	fprintf(stderr, "  %8s  %-15s %7" PRIu64 " %7" PRIu64 " %7" PRIu64 "  %9s %9s  %9s %9s  %8s\n", pid, p->comm, p->conns,
		p->accelerated - p->rdma, p->rdma, human_bytes(p->ring_tx).text, human_bytes(p->ring_rx).text,
		human_bytes(p->tcp_tx).text, human_bytes(p->tcp_rx).text,
		human_share(ring_bytes(p), all_bytes(p)).text);
}

void stats_print(const struct stats *s)
{
	const struct proc *t = &s->total;
	bool any = false;
	char pid[16];

	if (!s->n) {
		fprintf(stderr, "wsdrun: no TCP connection was seen\n");
		return;
	}
	fprintf(stderr, "wsdrun: %" PRIu64 " connection%s, %" PRIu64 " accelerated (%" PRIu64 " by shared memory, %" PRIu64
		" by RDMA), %s of %s went through the SAN (%s)\n", t->conns, t->conns == 1 ? "" : "s", t->accelerated,
		t->accelerated - t->rdma, t->rdma, human_bytes(ring_bytes(t)).text,
		human_bytes(all_bytes(t)).text, human_share(ring_bytes(t), all_bytes(t)).text);
	fprintf(stderr, "  %8s  %-15s %7s %7s %7s  %9s %9s  %9s %9s  %8s\n", "pid", "command", "conns", "by shm", "by RDMA",
		"SAN sent", "SAN recvd", "TCP sent", "TCP recvd", "by SAN");
	for (unsigned i = 0; i < s->n; i++) {
		snprintf(pid, sizeof(pid), "%" PRIu32, s->proc[i].pid);
		print_row(&s->proc[i], pid);
	}
	if (s->n > 1)
		print_row(t, "total");
	if (s->overflow)
		fprintf(stderr, "  and %" PRIu32 " more processes that found no place in the table\n", s->overflow);

	for (unsigned i = 0; i < WSD_STATS_REASONS; i++) {
		if (!t->reason[i])
			continue;
		if (!any)
			fprintf(stderr, "  ended on TCP only:\n");
		any = true;
		fprintf(stderr, "  %8" PRIu32 "  %s (%s)%s%s\n", t->reason[i], reason_text(i), reason_name(i),
			*reason_hint(i) ? ": " : "", reason_hint(i));
	}
}

static json_object *json_proc(const struct proc *p)
{
	json_object *o = json_object_new_object(), *r = json_object_new_object();

	json_object_object_add(o, "connections", json_object_new_uint64(p->conns));
	json_object_object_add(o, "accelerated", json_object_new_uint64(p->accelerated));
	json_object_object_add(o, "accelerated_rdma", json_object_new_uint64(p->rdma));
	json_object_object_add(o, "ring_tx", json_object_new_uint64(p->ring_tx));
	json_object_object_add(o, "ring_rx", json_object_new_uint64(p->ring_rx));
	json_object_object_add(o, "tcp_tx", json_object_new_uint64(p->tcp_tx));
	json_object_object_add(o, "tcp_rx", json_object_new_uint64(p->tcp_rx));
	json_object_object_add(o, "gate_opened", json_object_new_uint64(p->gate_opened));
	json_object_object_add(o, "gate_closed", json_object_new_uint64(p->gate_closed));
	if (all_bytes(p))
		json_object_object_add(o, "san_share",
				       json_object_new_double((double)ring_bytes(p) / (double)all_bytes(p)));
	else
		json_object_object_add(o, "san_share", NULL);
	for (unsigned i = 0; i < WSD_STATS_REASONS; i++)
		if (p->reason[i]) {
			json_object *old = json_object_object_get(r, reason_name(i));	/* two unknown ones */

			json_object_object_add(r, reason_name(i),
					       json_object_new_uint64(p->reason[i] + json_object_get_uint64(old)));
		}
	json_object_object_add(o, "reasons", r);
	return o;
}

int stats_write_json(const struct stats *s, const char *file, char **argv, int status)
{
	json_object *root = json_object_new_object(), *procs = json_object_new_array(), *cmd = json_object_new_array();
	_cleanup_fclose_ FILE *f = NULL;
	bool to_stdout = !strcmp(file, "-");
	int r = 0;

	json_object_object_add(root, "version", json_object_new_int(1));
	for (; *argv; argv++)
		json_object_array_add(cmd, json_object_new_string(*argv));
	json_object_object_add(root, "command", cmd);
	json_object_object_add(root, "exit_status",
			       json_object_new_int(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
	json_object_object_add(root, "total", json_proc(&s->total));
	for (unsigned i = 0; i < s->n; i++) {
		json_object *o = json_proc(&s->proc[i]);

		json_object_object_add(o, "pid", json_object_new_int64(s->proc[i].pid));
		json_object_object_add(o, "comm", json_object_new_string(s->proc[i].comm));
		json_object_array_add(procs, o);
	}
	json_object_object_add(root, "processes", procs);
	json_object_object_add(root, "overflow", json_object_new_int64(s->overflow));

	f = to_stdout ? fdopen(dup(STDOUT_FILENO), "w") : fopen(file, "we");
	if (!f)
		r = -errno;
	else if (fprintf(f, "%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY |
									JSON_C_TO_STRING_NOSLASHESCAPE)) < 0 ||
		 fflush(f))
		r = -errno;
	json_object_put(root);
	return r;
}
