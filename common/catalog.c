/* SPDX-License-Identifier: MIT */
/*
 * catalog.c - the catalog file: who may have written it, reading it whole, replacing it whole
 *
 * A change is made under an flock of the directory, written to a new file beside the old
 * one, read back by the same parser that every reader uses, synced and renamed over it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/catalog_text.h"

static void free_ptr(void *p)
{
	free(*(void **)p);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define CLEANUP_FREE	__attribute__((cleanup(free_ptr)))
#define CLEANUP_CLOSE	__attribute__((cleanup(close_fd)))

const char *wsd_catalog_path(void)
{
	const char *env = secure_getenv(WSD_CATALOG_ENV);

	return env && env[0] ? env : WSD_CATALOG_PATH;
}

static int check_owner(const char *path, const struct stat *st, struct wsd_catalog_error *err)
{
	const char *what = NULL;

	if (!S_ISREG(st->st_mode))
		what = "is no regular file";
	else if (st->st_uid != 0 && st->st_uid != geteuid())
		what = "belongs neither to root nor to this user";
	else if (st->st_mode & (S_IWGRP | S_IWOTH))
		what = "may be written by group or others";
	if (!what)
		return 0;
	catalog_error(err, "%.300s: %s", path, what);
	return WSD_CATALOG_E_UNSAFE;
}

/* *ret_text: malloc'ed */
static int read_file(const char *path, char **ret_text, size_t *ret_len, struct stat *ret_st,
		     struct wsd_catalog_error *err)
{
	CLEANUP_CLOSE int fd = -1;
	CLEANUP_FREE char *text = NULL;
	size_t len = 0;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, ret_st)) {
		r = -errno;
		catalog_error(err, "%.300s: cannot be opened: %s", path, strerror(-r));
		return r;
	}
	r = check_owner(path, ret_st, err);
	if (r)
		return r;
	text = malloc(WSD_CATALOG_BYTES + 1);
	if (!text) {
		catalog_error(err, "%.300s: out of memory", path);
		return -ENOMEM;
	}
	while (len <= WSD_CATALOG_BYTES) {
		ssize_t n = read(fd, text + len, WSD_CATALOG_BYTES + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = -errno;
			catalog_error(err, "%.300s: cannot be read: %s", path, strerror(-r));
			return r;
		}
		if (!n)
			break;
		len += n;
	}
	*ret_text = text;
	*ret_len = len;		/* one more than allowed if the file is longer: the parser says so */
	text = NULL;
	return 0;
}

int wsd_catalog_parse(const char *name, const char *text, size_t len, struct wsd_provider *out, unsigned max,
		      unsigned *ret_n, struct wsd_catalog_error *err)
{
	struct wsd_catalog_error scratch;
	struct catalog c = { .p = out, .max = max };
	int r;

	r = catalog_text_parse(&c, name, text, len, err ? err : &scratch);
	*ret_n = c.n;
	return r;
}

int wsd_catalog_load(const char *path, struct wsd_provider *out, unsigned max, unsigned *ret_n,
		     struct wsd_catalog_error *err)
{
	CLEANUP_FREE char *text = NULL;
	struct wsd_catalog_error scratch;
	struct stat st;
	size_t len;
	int r;

	*ret_n = 0;
	if (!path)
		path = wsd_catalog_path();
	r = read_file(path, &text, &len, &st, err ? err : &scratch);
	if (r)
		return r;
	return wsd_catalog_parse(path, text, len, out, max, ret_n, err);
}

/* a change under way */
struct edit {
	struct wsd_catalog_error *err;
	char path[PATH_MAX];	/* symbolic links followed */
	char dir[PATH_MAX];
	int dir_fd;
	mode_t mode;
	struct wsd_provider p[WSD_CATALOG_PROVIDERS + 1];	/* one more: the parser refuses it */
	struct catalog c;
};

static int edit_error(struct edit *e, const char *what)
{
	int r = -errno;

	catalog_error(e->err, "%.300s: %s: %s", e->path, what, strerror(-r));
	return r;
}

static struct edit *edit_free(struct edit *e)
{
	if (e) {
		if (e->dir_fd >= 0)
			close(e->dir_fd);
		free(e);
	}
	return NULL;
}

static int edit_read(struct edit *e)
{
	CLEANUP_FREE char *text = NULL;
	struct stat st;
	size_t len;
	int r;

	e->c = (struct catalog){ .p = e->p, .max = WSD_CATALOG_PROVIDERS };
	e->mode = 0644;
	r = read_file(e->path, &text, &len, &st, e->err);
	if (r == -ENOENT) {
		e->err->text[0] = 0;
		return 0;
	}
	if (r)
		return r;
	e->mode = st.st_mode & 07777;
	return catalog_text_parse(&e->c, e->path, text, len, e->err);
}

static int edit_begin(struct edit **ret_e, const char *path, struct wsd_catalog_error *err)
{
	struct edit *e;
	char *slash;
	int r;

	if (!path)
		path = wsd_catalog_path();
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->err = err;
	e->dir_fd = -1;
	if (!realpath(path, e->path)) {
		if (errno != ENOENT || strlen(path) >= sizeof(e->path)) {
			strncpy(e->path, path, sizeof(e->path) - 1);
			r = edit_error(e, "cannot be found");
			goto err_free;
		}
		strcpy(e->path, path);
	}
	strcpy(e->dir, e->path);
	slash = strrchr(e->dir, '/');
	if (!slash)
		strcpy(e->dir, ".");
	else if (slash == e->dir)
		slash[1] = 0;
	else
		*slash = 0;
	e->dir_fd = open(e->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e->dir_fd < 0) {
		r = edit_error(e, "cannot open its directory");
		goto err_free;
	}
	/* whoever may read the directory could hold this lock for ever: do not wait for it */
	if (flock(e->dir_fd, LOCK_EX | LOCK_NB)) {
		r = edit_error(e, "is being changed by somebody else");
		r = r == -EWOULDBLOCK ? WSD_CATALOG_E_BUSY : r;
		goto err_free;
	}
	r = edit_read(e);
	if (r)
		goto err_free;
	*ret_e = e;
	return 0;

err_free:
	edit_free(e);
	return r;
}

/* the text, after the parser has agreed to it */
static int edit_text(struct edit *e, char **ret_text, size_t *ret_len)
{
	CLEANUP_FREE struct wsd_provider *back = NULL;
	CLEANUP_FREE char *text = NULL;
	struct wsd_catalog_error why;
	unsigned n;
	size_t len;
	FILE *f;
	int r;

	f = open_memstream(&text, &len);
	if (!f)
		return edit_error(e, "cannot be written");
	catalog_text_format(&e->c, f);
	if (fclose(f))
		return edit_error(e, "cannot be written");
	back = calloc(WSD_CATALOG_PROVIDERS, sizeof(*back));
	if (!back)
		return edit_error(e, "cannot be checked");
	r = wsd_catalog_parse(e->path, text, len, back, WSD_CATALOG_PROVIDERS, &n, &why);
	if (!r && n != e->c.n)
		r = WSD_CATALOG_E_INVALID;
	for (unsigned i = 0; !r && i < n; i++)
		if (strcmp(back[i].path, e->p[i].path) || strcmp(back[i].options, e->p[i].options) ||
		    memcmp(&back[i].info.ProviderId, &e->p[i].info.ProviderId, sizeof(GUID)))
			r = WSD_CATALOG_E_INVALID;
	if (r) {
		catalog_error(e->err, "would be unreadable: %.400s", why.text[0] ? why.text : "not what was asked for");
		return r < 0 ? r : r == WSD_CATALOG_E_LIMIT ? r : WSD_CATALOG_E_INVALID;
	}
	*ret_text = text;
	*ret_len = len;
	text = NULL;
	return 0;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		text += n;
		len -= n;
	}
	return 0;
}

static int edit_commit(struct edit *e)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_CLOSE int fd = -1;
	char tmp[PATH_MAX + 16];
	size_t len = 0;
	int r;

	r = edit_text(e, &text, &len);
	if (r)
		return r;
	snprintf(tmp, sizeof(tmp), "%s.XXXXXX", e->path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return edit_error(e, "cannot write beside it");
	if (write_all(fd, text, len) || fchmod(fd, e->mode & ~(mode_t)(S_IWGRP | S_IWOTH)) || fsync(fd) ||
	    rename(tmp, e->path)) {
		r = edit_error(e, "cannot be replaced");
		unlink(tmp);
		return r;
	}
	if (fsync(e->dir_fd))
		return edit_error(e, "was replaced, but its directory cannot be synced");
	return 0;
}

static void unlist(struct catalog *c, const GUID *id, const char *name)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n_list; i++)
		if (memcmp(&c->list[i].id, id, sizeof(*id)) && (!name || strcmp(c->list[i].name, name)))
			c->list[n++] = c->list[i];
	c->n_list = n;
}

static bool terminated(const char *s, size_t size)
{
	return memchr(s, 0, size) != NULL;
}

static int do_install(struct edit *e, const struct wsd_provider *p)
{
	struct catalog *c = &e->c;

	if (!terminated(p->name, sizeof(p->name)) || !terminated(p->path, sizeof(p->path)) ||
	    !terminated(p->options, sizeof(p->options)) || !p->name[0] || !p->path[0]) {
		catalog_error(e->err, "a provider needs a name and a path");
		return WSD_CATALOG_E_INVALID;
	}
	for (unsigned i = 0; i < c->n; i++)
		if (!strcmp(c->p[i].name, p->name) ||
		    !memcmp(&c->p[i].info.ProviderId, &p->info.ProviderId, sizeof(GUID))) {
			catalog_error(e->err, "%.300s: provider \"%s\" is there already", e->path, c->p[i].name);
			return WSD_CATALOG_E_EXISTS;
		}
	if (c->n == WSD_CATALOG_PROVIDERS) {
		catalog_error(e->err, "%.300s: has %u providers, no more are possible", e->path, c->n);
		return WSD_CATALOG_E_LIMIT;
	}
	c->p[c->n++] = *p;
	/* an orphan of an earlier life must not list what the caller wants unlisted, nor take its name */
	unlist(c, &p->info.ProviderId, p->name);
	if (p->listed) {
		if (c->n_list == CATALOG_LIST_MAX) {
			catalog_error(e->err, "%.300s: the list is full", e->path);
			return WSD_CATALOG_E_LIMIT;
		}
		strcpy(c->list[c->n_list].name, p->name);
		c->list[c->n_list++].id = p->info.ProviderId;
	}
	return edit_commit(e);
}

int wsd_catalog_install(const char *path, const struct wsd_provider *p, struct wsd_catalog_error *err)
{
	struct wsd_catalog_error scratch;
	struct edit *e;
	int r;

	err = err ? err : &scratch;
	err->text[0] = 0;
	r = edit_begin(&e, path, err);
	if (r)
		return r;
	r = do_install(e, p);
	edit_free(e);
	return r;
}

static int do_remove(struct edit *e, const char *name_or_id)
{
	struct catalog *c = &e->c;
	GUID id;
	bool by_id = !wsd_guid_parse(name_or_id, &id);
	unsigned listed = c->n_list, i;

	for (i = 0; i < c->n; i++)
		if (by_id ? !memcmp(&c->p[i].info.ProviderId, &id, sizeof(id)) : !strcmp(c->p[i].name, name_or_id))
			break;
	if (i < c->n) {
		unlist(c, &c->p[i].info.ProviderId, NULL);
		memmove(&c->p[i], &c->p[i + 1], (c->n - i - 1) * sizeof(c->p[0]));
		c->n--;
		return edit_commit(e);
	}
	if (by_id)
		unlist(c, &id, NULL);
	else
		unlist(c, &(GUID){}, name_or_id);
	if (c->n_list != listed)
		return edit_commit(e);
	catalog_error(e->err, "%.300s: there is no provider \"%.100s\"", e->path, name_or_id);
	return WSD_CATALOG_E_NONE;
}

int wsd_catalog_remove(const char *path, const char *name_or_id, struct wsd_catalog_error *err)
{
	struct wsd_catalog_error scratch;
	struct edit *e;
	int r;

	err = err ? err : &scratch;
	err->text[0] = 0;
	r = edit_begin(&e, path, err);
	if (r)
		return r;
	r = do_remove(e, name_or_id);
	edit_free(e);
	return r;
}
