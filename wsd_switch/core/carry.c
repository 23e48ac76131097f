/* SPDX-License-Identifier: MIT */
/*
 * carry.c - unread ring bytes go along through exec (carry.h)
 *
 * Both gates are closed for good before (conn_to_tcp), so head, start and base stand and no honest peer puts again.
 *
 * Nobody else holds the socket (sole): this process goes on reading the same bytes if exec fails, so side->taken stays;
 * but the peer must believe that they were read, or it would report ECONNRESET at the end of the stream (G21), and after
 * exec nobody of us can tell it. So the shared tail is raised before. A put that began before the gate was closed may
 * then see an empty ring and scribble over it, and over start and base, before its compare-and-swap fails. Hence our view of the
 * direction moves to private memory of the same layout first: same head, base and positions, so a thread that mixes the two
 * views still reads the same bytes.
 *
 * Others hold it as well (the parent of a fork or vfork child): side->taken and C are shared with the new image, which
 * attaches the slab that the side lies in (side.c) and reads its own copy of the bytes. Whoever takes first has them, as in
 * the kernel. The tail is not touched; who still maps the session raises it when it lets go (carry_tail).
 *
 * The memfd holds struct head, n records, the bytes. The reader trusts none of it.
 */
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "wsd_switch/calls/stdio.h"
#include "wsd_switch/core/carry.h"
#include "wsd_switch/core/hand_on.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#define ENV		"WSD_CARRY"
#define MAGIC		0x3159525243445357ull	/* "WSDCRRY1" */
#define SEALS		(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define SCRIPTS_MAX	4			/* interpreters of interpreters, as the kernel has it */
#define FDS_BLIND	4096			/* descriptors looked at where there is no /proc */

struct head {
	uint64_t magic;
	uint64_t length;
	uint32_t n;
	uint32_t pad;
};

struct record {
	uint64_t cookie;
	uint64_t after;		/* TCP bytes that still come before these ... */
	uint64_t start;		/* ... as an offset, where side->C is shared */
	uint64_t taken;		/* offset of the first byte in what went by ring */
	uint64_t at;		/* in the memfd */
	uint32_t n;
	uint32_t role;
	uint32_t err;		/* kept_err: met, not told yet */
	uint32_t lowat;		/* 0: none */
	uint32_t lowat_cut;
	int32_t shm;		/* slab of the side to share; -1: none, the new image is alone */
	uint32_t index;		/* of the side in it */
	uint32_t counted;	/* the new image is one of its holders already */
};

static char own_name[NAME_MAX + 1];

static const char *base_name(const char *path)
{
	const char *s = strrchr(path, '/');

	return s ? s + 1 : path;
}

const char *carry_own_name(void)
{
	return own_name;
}

void carry_start(void)
{
	Dl_info i;
	const char *s;

	if (!dladdr((void *)carry_start, &i) || !i.dli_fname)
		return;
	s = base_name(i.dli_fname);
	if (strlen(s) < sizeof(own_name))
		strcpy(own_name, s);
}

/* ---- will the new image run under us? ---- */

enum target {
	TARGET_NONE,		/* exec will fail */
	TARGET_OURS,
	TARGET_OTHER,
	TARGET_TEXT,		/* no format that we know; execvp gives it to a shell, binfmt_misc may know it */
	TARGET_UNKNOWN,
};

static bool is_var(const char *entry, const char *name)
{
	size_t n = strlen(name);

	return strncmp(entry, name, n) == 0 && entry[n] == '=';
}

static const char *env_find(char *const *envp, const char *name)
{
	for (; envp && *envp; envp++)
		if (is_var(*envp, name))
			return *envp + strlen(name) + 1;
	return NULL;
}

static bool env_loads_us(char *const *envp)
{
	const char *list = env_find(envp, "LD_PRELOAD"), *off = env_find(envp, "WSD_DISABLE");
	size_t own = strlen(own_name), n;

	if (!list || !own || (off && *off && *off != '0'))
		return false;
	for (; *list; list += n + (list[n] != 0)) {
		n = strcspn(list, ": ");
		if (n >= own && memcmp(list + n - own, own_name, own) == 0 && (n == own || list[n - own - 1] == '/'))
			return true;
	}
	return false;
}

static enum target judge_path(int dir, const char *path, int depth);

static enum target judge_elf(int fd, const Elf64_Ehdr *h)
{
	Elf64_Phdr p[64];
	char interp[256] = "";
	size_t i, n = h->e_phnum;

	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_machine != EM_X86_64)
		return TARGET_OTHER;
	if ((h->e_type != ET_EXEC && h->e_type != ET_DYN) || h->e_phentsize != sizeof(*p) || n == 0 || n > 64 ||
	    h->e_phoff > INT_MAX || pread(fd, p, n * sizeof(*p), (off_t)h->e_phoff) != (ssize_t)(n * sizeof(*p)))
		return TARGET_UNKNOWN;
	for (i = 0; i < n && p[i].p_type != PT_INTERP; i++)
		;
	if (i == n)
		return TARGET_OTHER;
	if (p[i].p_filesz >= sizeof(interp) || p[i].p_offset > INT_MAX ||
	    pread(fd, interp, p[i].p_filesz, (off_t)p[i].p_offset) != (ssize_t)p[i].p_filesz)
		return TARGET_UNKNOWN;
	return strncmp(base_name(interp), "ld-linux", 8) == 0 ? TARGET_OURS : TARGET_OTHER;
}

static enum target judge_script(char *s, size_t n, int depth)
{
	size_t i = 2, k;

	if (depth >= SCRIPTS_MAX)
		return TARGET_NONE;
	while (i < n && (s[i] == ' ' || s[i] == '\t'))
		i++;
	for (k = i; k < n && s[k] && s[k] != ' ' && s[k] != '\t' && s[k] != '\n'; k++)
		;
	if (k == n || k == i)
		return TARGET_UNKNOWN;
	s[k] = 0;
	return judge_path(AT_FDCWD, s + i, depth + 1);
}

/* ld.so heeds LD_PRELOAD fully only where exec gives no privileges */
static bool gains(int fd, const struct stat *st)
{
	return getuid() != geteuid() || getgid() != getegid() ||
	       ((st->st_mode & S_ISUID) && st->st_uid != geteuid()) ||
	       ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st->st_gid != getegid()) ||
	       (geteuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0);
}

static enum target judge_file(int fd, int depth)
{
	union { Elf64_Ehdr elf; char s[512]; } u;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return TARGET_UNKNOWN;
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		return TARGET_NONE;
	n = pread(fd, &u, sizeof(u), 0);
	if (n < 0)
		return TARGET_UNKNOWN;
	if (n >= 2 && u.s[0] == '#' && u.s[1] == '!')
		return judge_script(u.s, (size_t)n, depth);
	if ((size_t)n < sizeof(u.elf) || memcmp(u.s, ELFMAG, SELFMAG) != 0)
		return TARGET_TEXT;
	return gains(fd, &st) ? TARGET_OTHER : judge_elf(fd, &u.elf);
}

static enum target judge_path(int dir, const char *path, int depth)
{
	enum target r;
	int fd;

	if (faccessat(dir, path, X_OK, AT_EACCESS) < 0)
		return TARGET_NONE;
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return TARGET_UNKNOWN;	/* may be executed, not read */
	r = judge_file(fd, depth);
	real.close(fd);
	if (r == TARGET_OTHER && strncmp(base_name(path), "ld-linux", 8) == 0)
		r = TARGET_UNKNOWN;	/* it loads what its argument names */
	return r;
}

/* as execvp goes through PATH */
static enum target judge_search(const char *file)
{
	const char *p = getenv("PATH"), *e;
	char full[PATH_MAX];
	enum target r;
	int n;

	if (strchr(file, '/') || !*file)
		return judge_path(AT_FDCWD, file, 0);
	for (p = p ? p : "/bin:/usr/bin";; p = e + 1) {
		e = strchrnul(p, ':');
		n = snprintf(full, sizeof(full), "%.*s%s%s", (int)(e - p), p, e == p ? "" : "/", file);
		if (n > 0 && (size_t)n < sizeof(full)) {
			r = judge_path(AT_FDCWD, full, 0);
			if (r != TARGET_NONE)
				return r;
		}
		if (!*e)
			return TARGET_NONE;
	}
}

static enum target judge(const struct exec_call *x)
{
	char self[40];
	enum target r = TARGET_UNKNOWN;
	int fd;

	if (x->how == EXEC_SEARCH) {
		r = judge_search(x->path);
		if (r == TARGET_TEXT)
			r = judge_path(AT_FDCWD, "/bin/sh", 0);
	} else if (x->how == EXEC_PATH && !((x->flags & AT_EMPTY_PATH) && !*x->path)) {
		r = judge_path(x->dir, x->path, 0);
	} else {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", x->dir);	/* it may be open with O_PATH */
		fd = open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		if (fd >= 0) {
			r = judge_file(fd, 0);
			real.close(fd);
		}
	}
	if (r == TARGET_OURS && !env_loads_us(x->envp))
		r = TARGET_OTHER;
	return r;
}

bool carry_other_image(const struct exec_call *x)
{
	return judge(x) == TARGET_OTHER;
}

/* ---- the exec side ---- */

bool carry_add(struct carry *k, struct conn *c, int fd, bool sole, bool reader)
{
	uint64_t id = conn_id(c);
	uint32_t i;

	for (i = 0; i < k->n; i++)
		if (k->item[i].id == id) {
			k->item[i].reader |= reader;
			return true;
		}
	if (k->n == CARRY_MAX)
		return false;
	k->item[k->n++] = (struct carry_item){ .id = id, .fd = fd, .sole = sole, .reader = reader };
	return true;
}

static bool raise_to(struct wsd_ring_dir *rx, uint32_t to)
{
	uint32_t cur = atomic_load(&rx->tail);

	while ((int32_t)(to - cur) > 0)
		if (atomic_compare_exchange_weak(&rx->tail, &cur, to))
			return true;
	return false;
}

void carry_tail(struct conn *c)
{
	if (conn_att(c))
		(void)raise_to(c->rx, (uint32_t)atomic_load(&c->s->taken));
}

static bool put_at(int fd, const void *p, size_t n, uint64_t at)
{
	while (n) {
		ssize_t r = pwrite(fd, p, n, (off_t)at);

		if (r <= 0)
			return false;
		p = (const char *)p + r;
		n -= (size_t)r;
		at += (uint64_t)r;
	}
	return true;
}

static bool get_at(int fd, void *p, size_t n, uint64_t at)
{
	while (n) {
		ssize_t r = pread(fd, p, n, (off_t)at);

		if (r <= 0)
			return false;
		p = (char *)p + r;
		n -= (size_t)r;
		at += (uint64_t)r;
	}
	return true;
}

/* n unread bytes from `taken` on; what a peek has shown is what was shown (G12) */
static bool put_unread(struct conn *c, int fd, uint64_t at, uint64_t taken, uint32_t base, uint32_t n)
{
	uint32_t pos, k = 0, r;

	if (c->peek_len && taken >= c->peek_at && taken < c->peek_at + c->peek_len) {
		k = (uint32_t)(c->peek_at + c->peek_len - taken);
		k = k < n ? k : n;
		if (!put_at(fd, c->peek + (taken - c->peek_at), k, at))
			return false;
	}
	for (; k < n; k += r) {
		pos = ((uint32_t)taken + k - base) & c->mask;
		r = c->mask + 1 - pos;
		r = r < n - k ? r : n - k;
		if (!put_at(fd, c->rxr + pos, r, at + k))	/* EFAULT, not SIGBUS, for a page that is not there */
			return false;
	}
	return true;
}

/* a session of our own: both gates closed, n bytes unread in the receiving direction */
static struct wsd_session *session_new(uint32_t ring, uint8_t role, int fd, uint64_t at, uint32_t taken, uint32_t base,
				       uint32_t n)
{
	uint32_t side = role == WSD_ROLE_CONNECT ? 1 : 0, pos = (taken - base) & (ring - 1), r = ring - pos;
	size_t len = wsd_session_length(ring);
	struct wsd_session *h = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *p;

	if (h == MAP_FAILED)
		return NULL;
	p = (uint8_t *)h + WSD_SESSION_HDR + side * (size_t)ring;
	r = r < n ? r : n;
	if (!get_at(fd, p + pos, r, at) || !get_at(fd, p, n - r, at + r)) {
		munmap(h, len);
		return NULL;
	}
	h->magic = WSD_SESSION_MAGIC;
	h->version = WSD_SESSION_VERSION;
	h->ring_size = ring;
	h->length = len;
	h->dir[side].gate = (uint32_t)(taken + n);
	h->dir[side].tail = taken;
	h->dir[side].base = base;
	return h;
}

/* our view of what we receive becomes private memory; head, base and positions as they were */
static bool go_private(struct conn *c, int fd, uint64_t at, uint64_t start, uint32_t taken, uint32_t base, uint32_t n)
{
	struct wsd_session *h;
	struct wsd_ring_dir *shared = c->rx;
	uint32_t side;

	if (c->own)		/* by an exec that failed */
		return true;
	h = session_new(c->mask + 1, c->role, fd, at, taken, base, n);
	if (!h)
		return false;
	side = c->role == WSD_ROLE_CONNECT ? 1 : 0;
	h->dir[side].start = start;
	c->own = h;
	c->rxr = (uint8_t *)h + WSD_SESSION_HDR + side * (size_t)h->ring_size;
	c->rx = &h->dir[side];
	(void)raise_to(shared, taken + n);
	return true;
}

/* one connection into the memfd; false: it cannot go along */
static bool pack(struct conn *c, struct carry_item *it, int fd, uint64_t at, struct record *r)
{
	struct side *s = c->s;
	uint64_t taken, start, C;
	uint32_t head, n, base;
	int i;

	if (!it->sole && s->shm < 0)
		return false;
	for (i = 0; i < 8; i++) {
		taken = atomic_load(&s->taken);
		head = WSD_GATE_HEAD(atomic_load(&c->rx->gate));
		n = head - (uint32_t)taken;
		start = atomic_load(&c->rx->start);
		base = atomic_load(&c->rx->base);
		C = atomic_load(&s->C);
		if (n && n <= c->mask + 1 && C <= start)
			break;
		if (atomic_load(&s->taken) == taken)
			return false;
		/* another reader was here */
	}
	if (i == 8 || !put_unread(c, fd, at, taken, base, n) ||
	    (it->sole && !go_private(c, fd, at, start, (uint32_t)taken, base, n)))
		return false;
	*r = (struct record){ .cookie = s->cookie, .after = start - C, .start = start, .taken = taken, .at = at, .n = n,
			      .role = c->role, .shm = it->sole ? -1 : s->shm, .index = s->index,
			      .counted = !proc_is_vfork_child(), .err = (uint32_t)atomic_load(&s->kept_err) };
	if (atomic_load(&s->flags) & S_LOWAT) {
		r->lowat = atomic_load(&s->lowat);
		r->lowat_cut = !!(atomic_load(&s->flags) & S_LOWAT_CUT);
	}
	if (!it->sole)		/* else the tail was raised */
		atomic_fetch_or(&c->rx->yflags, WSD_Y_CARRIED);
	atomic_fetch_and(&c->rx->yflags, ~WSD_Y_HANDED_ON);
	return true;
}

/* out of the way of a program that counts on low numbers, and not close-on-exec */
static int memfd(void)
{
	int fd = memfd_create("wsd-carry", MFD_CLOEXEC | MFD_ALLOW_SEALING), hi = -1, from;
	struct rlimit l;

	if (fd < 0)
		return -1;
	from = getrlimit(RLIMIT_NOFILE, &l) < 0 ? 1024 : l.rlim_cur > TAB_FDS ? (int)TAB_FDS : (int)l.rlim_cur;
	for (from--; hi < 0 && from > 2; from -= 16)
		hi = real.fcntl64(fd, F_DUPFD, from);
	if (hi < 0)
		hi = real.fcntl64(fd, F_DUPFD, 3);
	real.close(fd);
	return hi;
}

/*
 * The peer knows nothing of what lies in memory of our own, so a mark would not hold it back. And an image that does not run under us
 * cannot have the bytes: it is reset where it is meant to read them, or where nobody else of us is left who could. Else it most likely
 * only leaks into that image; the last of us who lets go looks again (S_LEFT).
 */
static void lost(struct conn *c, const struct carry_item *it, enum target t)
{
	bool last = atomic_load(&c->s->holders) <= 1 && !proc_is_vfork_child();

	if ((t == TARGET_OTHER && (it->reader || last)) || (c->own && it->sole && t != TARGET_NONE)) {
		conn_reset(c, it->fd, "unread bytes in the ring, and exec of a program that will not run under us");
		return;
	}
	hand_on_mark(c, it->fd);	/* one of ours asks the daemon (reattach.c) */
	if (t != TARGET_OTHER)
		return;
	atomic_fetch_or(&c->s->flags, S_LEFT);
	if (!proc_is_vfork_child()) {
		atomic_fetch_sub(&c->s->holders, 1);
		c->exec_left = true;
	}
}

static bool seal(struct carry *k, uint32_t n, uint64_t length)
{
	struct head h = { .magic = MAGIC, .length = length, .n = n };

	return put_at(k->fd, &h, sizeof(h), 0) && real.fcntl64(k->fd, F_ADD_SEALS, SEALS) == 0 &&
	       snprintf(k->env, sizeof(k->env), ENV "=%d:%ld", k->fd, syscall(SYS_getpid)) > 0;
}

size_t carry_pack(struct carry *k, const struct exec_call *x)
{
	uint64_t at = sizeof(struct head) + k->n * sizeof(struct record);
	enum target t = judge(x);
	uint32_t i, n = 0;
	struct record r;
	struct conn *c;
	struct thr *thr;

	for (k->n_env = 0; x->envp && k->n_env < CARRY_ENV_MAX && x->envp[k->n_env]; k->n_env++)
		;
	if (t == TARGET_OURS && k->n_env < CARRY_ENV_MAX)
		k->fd = memfd();
	thr = cs_enter();
	for (i = 0; i < k->n; i++) {
		struct carry_item *it = &k->item[i];

		c = conn_by_id(it->id);
		it->packed = k->fd >= 0 && c && conn_att(c) && pack(c, it, k->fd, at, &r) &&
			     put_at(k->fd, &r, sizeof(r), sizeof(struct head) + n * sizeof(r));
		if (it->packed) {
			n++;
			at += r.n;
			log_debug("conn %u: %u unread bytes go along through exec", c->index, r.n);
		}
	}
	if (k->fd >= 0 && (n == 0 || !seal(k, n, at))) {
		for (i = 0; i < k->n; i++)
			k->item[i].packed = false;
		carry_undo(k);
	}
	for (i = 0; i < k->n; i++) {
		c = conn_by_id(k->item[i].id);
		if (!k->item[i].packed && c && conn_att(c) && rx_avail(c))
			lost(c, &k->item[i], t);
	}
	cs_leave(thr);
	return k->fd >= 0 ? k->n_env + 2 : 0;
}

void carry_env(struct carry *k, char *const *envp, char **ret)
{
	uint32_t i;

	for (i = 0; i < k->n_env; i++)
		if (!is_var(envp[i], ENV))
			*ret++ = envp[i];
	*ret++ = k->env;
	*ret = NULL;
}

void carry_undo(struct carry *k)
{
	if (k->fd >= 0)
		real.close(k->fd);
	k->fd = -1;
}

/* ---- the new image ---- */

static void reset(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	log_error("descriptor %d: reset: its unread bytes were lost in exec", fd);
	real.connect(fd, &none, sizeof(none));
}

/* the side that others have as well: 1, 0: the new image is alone, or -errno */
static int share_side(struct conn *c, const struct record *r)
{
	struct side *s;
	int e;

	if (r->shm < 0)
		return 0;
	e = r->counted ? side_attach(r->shm, r->index, r->cookie, &s) : side_join(r->shm, r->index, r->cookie, &s);
	if (e == -EINVAL)
		return 0;	/* they have ended since */
	if (e)
		return e;
	side_drop(c->s);
	c->s = s;
	if (proc_fork_gen == 0)
		proc_fork_gen = 1;	/* counts are not ours alone (solo) */
	return 1;
}

static bool adopt(int fd, int mem, const struct record *r, uint32_t ring)
{
	struct wsd_session *h;
	uint32_t in = r->role == WSD_ROLE_CONNECT ? 1 : 0;
	struct conn *c;
	struct side *s;
	uint64_t C = 0;
	int i, state, inq, got = -EAGAIN, fl = real.fcntl64(fd, F_GETFL);

	for (i = 0; i < 1000 && got == -EAGAIN; i++)
		got = off_kernel_c(fd, &C, &state, &inq);
	if (got < 0)
		return false;
	h = session_new(ring, (uint8_t)r->role, mem, r->at, (uint32_t)r->taken, (uint32_t)r->taken, r->n);
	if (!h)
		return false;
	c = conn_new(fd, (uint8_t)r->role, fl >= 0 && (fl & O_NONBLOCK));
	if (!c) {
		munmap(h, h->length);
		return false;
	}
	c->own = c->hdr = h;
	c->rx = &h->dir[in];
	c->tx = &h->dir[1 - in];
	c->rxr = (uint8_t *)h + WSD_SESSION_HDR + in * (size_t)ring;
	c->txr = (uint8_t *)h + WSD_SESSION_HDR + (1 - in) * (size_t)ring;
	c->mask = ring - 1;
	got = share_side(c, r);
	if (got < 0) {
		conn_close_fd(fd);	/* unmaps h in the end */
		return false;
	}
	c->own_shared = got;
	if (got) {
		h->dir[in].start = r->start;
	} else {
		s = c->s;
		h->dir[in].start = C + r->after;
		s->cookie = r->cookie;
		s->C = C;
		s->taken = r->taken;
		s->kept_err = (int32_t)r->err;
		s->lowat = r->lowat;
		s->flags = r->lowat > 1 ? S_LOWAT | (r->lowat_cut ? S_LOWAT_CUT : 0) : 0;
		s->why = WSD_R_EXEC;
		s->att_pid = proc_page->pid;
	}
	atomic_fetch_or(&c->s->flags, S_NO_OPEN | S_NO_PUT | S_ATTACHED);
	c->why = WSD_R_EXEC;
	atomic_store(&c->seen, (uint64_t)(uint32_t)atomic_load(&c->s->taken) << 32);	/* nothing read ahead */
	atomic_store_explicit(&c->stage, ST_ATTACHED, memory_order_release);
	log_debug("conn %u (descriptor %d): %u bytes from before exec", c->index, fd, r->n);
	return true;
}

/* ret: the records; 0 or -errno */
static int records_get(int fd, struct record *ret, uint32_t *ret_n)
{
	struct stat st;
	struct head h;
	uint64_t size, data;
	uint32_t i, k;
	int seals = real.fcntl64(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    !get_at(fd, &h, sizeof(h), 0))
		return -EBADF;
	size = (uint64_t)st.st_size;
	if (h.magic != MAGIC || h.length > size || h.n == 0 || h.n > CARRY_MAX ||
	    !get_at(fd, ret, h.n * sizeof(*ret), sizeof(h)))
		return -EBADMSG;
	data = sizeof(h) + h.n * sizeof(*ret);
	for (i = 0; i < h.n; i++) {
		const struct record *r = &ret[i];

		if (r->cookie == 0 || r->n == 0 || r->n > WSD_RING_MAX || r->at < data || r->at > size ||
		    r->n > size - r->at || (r->role != WSD_ROLE_CONNECT && r->role != WSD_ROLE_ACCEPT) ||
		    r->after >> 62 || r->err > 4095 || r->shm < -1)
			return -EBADMSG;
		for (k = 0; k < i; k++)
			if (ret[k].cookie == r->cookie)
				return -EBADMSG;
	}
	*ret_n = h.n;
	return 0;
}

struct adopting {
	struct record r[CARRY_MAX];
	int fd[CARRY_MAX];	/* number that the connection was adopted with, -1: not found yet */
	uint32_t n;
	int mem;
	bool usable, std;
};

static void look_at(struct adopting *a, int fd)
{
	uint64_t cookie = 0;
	socklen_t l = sizeof(cookie);
	uint32_t i, ring = WSD_RING_MIN;

	if (fd == a->mem || real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &l) < 0 || l != sizeof(cookie))
		return;
	for (i = 0; i < a->n && a->r[i].cookie != cookie; i++)
		;
	if (i == a->n)
		return;
	if (a->fd[i] >= 0 && a->usable) {
		conn_dup_fd(a->fd[i], fd);
	} else if (a->fd[i] < 0) {
		while (ring < a->r[i].n)
			ring *= 2;
		if (!a->usable || conn_kind(fd) != KIND_TCP || !adopt(fd, a->mem, &a->r[i], ring)) {
			reset(fd);
			a->r[i].cookie = 0;
			return;
		}
		a->fd[i] = fd;
	}
	a->std |= fd == 0;
}

static void look_at_all(struct adopting *a)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int i;

	for (i = 0; !d && i < FDS_BLIND; i++)
		look_at(a, i);
	while (d && (e = readdir(d)))
		if (*e->d_name >= '0' && *e->d_name <= '9' && (i = atoi(e->d_name)) != dirfd(d))
			look_at(a, i);
	if (d)
		closedir(d);
}

void carry_adopt(bool usable)
{
	const char *v = secure_getenv(ENV);
	struct adopting a = { .usable = usable };
	char *end;
	long fd, pid;

	if (!v)
		return;
	fd = strtol(v, &end, 10);
	pid = *end == ':' ? strtol(end + 1, &end, 10) : 0;
	if (*end || fd < 0 || fd > INT_MAX || pid != syscall(SYS_getpid))
		return;		/* not for us: of an image before, or a child's */
	unsetenv(ENV);
	a.mem = (int)fd;
	memset(a.fd, 0xff, sizeof(a.fd));
	if (records_get(a.mem, a.r, &a.n) != 0)
		return;
	look_at_all(&a);
	real.close(a.mem);
	if (a.std && usable)
		stdio_stdin_over_calls();
}
