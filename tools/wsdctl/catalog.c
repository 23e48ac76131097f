/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "tools/lib/place.h"
#include "tools/wsdctl/wsdctl.h"

/* the provider of this project: what "install" without a name installs, and the same for RDMA on one host too (wsdrun --provider) */
#define OWN_NAME	"wsd-shm"
#define OWN_VERBS	"wsd-verbs"

static const struct own {
	const char *name, *id, *options;
} own[] = {
	{ OWN_NAME, "{3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d001}", NULL },
	{ OWN_VERBS, "{3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d002}", "transport=verbs" },
};

const char *catalog_path(const char *wanted)
{
	static struct place place;

	if (wanted)
		return wanted;
	if (!secure_getenv(WSD_CATALOG_ENV)) {
		place_find(&place);
		if (place.catalog[0])
			return place.catalog;
	}
	return wsd_catalog_path();
}

int provider_try(const char *file, char *text, size_t size)
{
	const char *why = NULL;
	void *so;

	so = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!so)
		why = dlerror();
	else if (!dlsym(so, "WSPStartupEx"))
		why = "exports no WSPStartupEx";
	if (why)
		snprintf(text, size, "%s", why);
	if (so)
		dlclose(so);
	return why ? -ENOEXEC : 0;
}

static int catalog_status(int r)
{
	switch (r) {
	case 0:
		return CTL_OK;
	case WSD_CATALOG_E_EXISTS: case WSD_CATALOG_E_NONE:
		return CTL_NO;
	case WSD_CATALOG_E_INVALID:
		return CTL_USAGE;
	}
	return CTL_CATALOG;
}

struct options {
	const char *catalog, *name, *id, *path, *protocol, *flags, *version, *family, *options;
	bool json, unlisted, force;
};

enum {
	OPT_ID = 256, OPT_PATH, OPT_PROTOCOL, OPT_FLAGS, OPT_PROVIDER_VERSION, OPT_FAMILY, OPT_OPTIONS, OPT_UNLISTED,
	OPT_FORCE,
};

#define OPTION_CATALOG { "catalog", 'c', "FILE", 0, "default: $WSD_CATALOG or " WSD_CATALOG_PATH, 0 }

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	if (arg && strpbrk(arg, "\n\r"))
		argp_error(state, "a value is one line");
	switch (key) {
	case 'c':
		o->catalog = arg;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case OPT_ID:
		o->id = arg;
		return 0;
	case OPT_PATH:
		o->path = arg;
		return 0;
	case OPT_PROTOCOL:
		o->protocol = arg;
		return 0;
	case OPT_FLAGS:
		o->flags = arg;
		return 0;
	case OPT_PROVIDER_VERSION:
		o->version = arg;
		return 0;
	case OPT_FAMILY:
		o->family = arg;
		return 0;
	case OPT_OPTIONS:
		o->options = arg;
		return 0;
	case OPT_UNLISTED:
		o->unlisted = true;
		return 0;
	case OPT_FORCE:
		o->force = true;
		return 0;
	case ARGP_KEY_ARG:
		if (o->name)
			argp_error(state, "too many arguments");
		o->name = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- install ---- */

static void add_key(FILE *f, const char *key, const char *value)
{
	if (value)
		fprintf(f, "%s = %s\n", key, value);
}

/* the options as a catalog of one entry, so that the one parser judges them */
static int entry_of(struct wsd_provider *ret_p, const struct options *o, const char *real, struct wsd_catalog_error *err)
{
	char *text = NULL;
	size_t len = 0;
	unsigned n;
	FILE *f;
	int r;

	f = open_memstream(&text, &len);
	if (!f)
		return -errno;
	fprintf(f, "[provider %s]\n", o->name);
	add_key(f, "id", o->id);
	add_key(f, "path", real);
	add_key(f, "protocol", o->protocol);
	add_key(f, "flags", o->flags ? o->flags : "PFL_HIDDEN");
	add_key(f, "version", o->version);
	add_key(f, "family", o->family);
	add_key(f, "options", o->options);
	if (!o->unlisted)
		fprintf(f, "[TCP on SAN]\n%s = %s\n", o->name, o->id);
	fclose(f);
	r = wsd_catalog_parse("(options)", text, len, ret_p, 1, &n, err);
	free(text);
	return r ? r : n == 1 ? 0 : WSD_CATALOG_E_INVALID;
}

int cmd_install(int argc, char **argv)
{
	static const struct argp_option list[] = {
		OPTION_CATALOG,
		{ "id", OPT_ID, "GUID", 0, "ProviderId of the entry", 0 },
		{ "path", OPT_PATH, "FILE", 0, "shared object that exports WSPStartupEx", 0 },
		{ "protocol", OPT_PROTOCOL, "TEXT", 0, "text for people", 0 },
		{ "flags", OPT_FLAGS, "FLAGS", 0, "default PFL_HIDDEN", 0 },
		{ "provider-version", OPT_PROVIDER_VERSION, "N", 0, "iVersion of the entry", 0 },
		{ "family", OPT_FAMILY, "FAMILY", 0, "AF_INET or AF_INET6", 0 },
		{ "options", OPT_OPTIONS, "TEXT", 0, "text for the provider", 0 },
		{ "unlisted", OPT_UNLISTED, NULL, 0, "do not put it into \"TCP on SAN\": it is not used then", 0 },
		{ "force", OPT_FORCE, NULL, 0, "do not try to load it first", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = list, .parser = parse, .args_doc = "[NAME]",
		.doc = "Put a provider into the catalog. Without NAME: " OWN_NAME ", the provider of this installation; " OWN_VERBS
		       ": the same, to be chosen with wsdrun --provider for RDMA also on one host.",
	};
	struct wsd_catalog_error err = { "" };
	struct options o = { 0 };
	struct wsd_provider p;
	struct place place;
	char real[PATH_MAX], why[512];
	int r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	o.name = o.name ? o.name : OWN_NAME;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && !o.id; i++) {
		if (strcmp(o.name, own[i].name))
			continue;
		place_find(&place);
		o.id = own[i].id;
		o.path = o.path ? o.path : place.provider[0] ? place.provider : NULL;
		o.options = o.options ? o.options : own[i].options;
	}
	if (!o.id || !o.path) {
		complain("install: %s is needed", o.id ? "--path" : "--id");
		return CTL_USAGE;
	}
	if (!realpath(o.path, real)) {
		complain("%s: %s", o.path, strerror(errno));
		return CTL_NO;
	}
	if (!o.force && provider_try(real, why, sizeof(why))) {
		complain("%s is no provider: %s", real, why);
		return CTL_NO;
	}
	r = entry_of(&p, &o, real, &err);
	if (r) {
		complain("install: %s", err.text[0] ? err.text : "not a valid entry");
		return r < 0 ? CTL_SYSTEM : CTL_USAGE;
	}
	if (!o.catalog && !strcmp(catalog_path(NULL), WSD_CATALOG_PATH))
		(void)mkdir("/etc/wsd", 0755);	/* if it fails, the next line says so */
	r = wsd_catalog_install(catalog_path(o.catalog), &p, &err);
	if (r || err.text[0])
		complain("%s", err.text);
	return catalog_status(r);
}

/* ---- remove ---- */

int cmd_remove(int argc, char **argv)
{
	static const struct argp_option list[] = { OPTION_CATALOG, { 0 } };
	static const struct argp argp = {
		.options = list, .parser = parse, .args_doc = "NAME|GUID", .doc = "Take a provider out of the catalog.",
	};
	struct wsd_catalog_error err = { "" };
	struct options o = { 0 };
	int r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (!o.name) {
		complain("remove: which provider?");
		return CTL_USAGE;
	}
	r = wsd_catalog_remove(catalog_path(o.catalog), o.name, &err);
	if (r || err.text[0])
		complain("%s", err.text);
	return catalog_status(r);
}

/* ---- list ---- */

static void list_json(const char *path, const struct wsd_provider *p, unsigned n)
{
	json_object *root = json_object_new_object(), *list = json_object_new_array();
	char id[39];

	json_object_object_add(root, "version", json_object_new_int(1));
	json_object_object_add(root, "catalog", json_object_new_string(path));
	for (unsigned i = 0; i < n; i++) {
		json_object *o = json_object_new_object();

		wsd_guid_format(&p[i].info.ProviderId, id);
		json_object_object_add(o, "name", json_object_new_string(p[i].name));
		json_object_object_add(o, "id", json_object_new_string(id));
		json_object_object_add(o, "file", json_object_new_string(p[i].file));
		json_object_object_add(o, "listed", json_object_new_boolean(p[i].listed));
		json_object_object_add(o, "entry", json_object_new_int64(p[i].info.dwCatalogEntryId));
		json_object_array_add(list, o);
	}
	json_object_object_add(root, "providers", list);
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}

int cmd_list(int argc, char **argv)
{
	static const struct argp_option list[] = {
		OPTION_CATALOG,
		{ "json", 'j', NULL, 0, "as JSON", 0 },
		{ 0 },
	};
	static const struct argp argp = { .options = list, .parser = parse, .doc = "List the providers in the catalog." };
	static struct wsd_provider p[WSD_CATALOG_PROVIDERS];
	struct wsd_catalog_error err = { "" };
	struct options o = { 0 };
	const char *path;
	char id[39];
	unsigned n = 0;
	int r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.name) {
		complain("list: too many arguments");
		return CTL_USAGE;
	}
	path = catalog_path(o.catalog);
	r = wsd_catalog_load(path, p, WSD_CATALOG_PROVIDERS, &n, &err);
	if (r || err.text[0])
		complain("%s", err.text);
	if (r)
		return catalog_status(r);
	if (o.json) {
		list_json(path, p, n);
		return CTL_OK;
	}
	for (unsigned i = 0; i < n; i++) {
		wsd_guid_format(&p[i].info.ProviderId, id);
		printf("%-16s %s %-8s %s\n", p[i].name, id, p[i].listed ? "listed" : "unlisted", p[i].file);
	}
	return CTL_OK;
}
