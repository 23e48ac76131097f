/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <stdio.h>

#include <json-c/json.h>

#include "tools/wsdctl/wsdctl.h"

static const char *const result_name[] = { [CHECK_OK] = "ok", [CHECK_WARN] = "warn", [CHECK_FAIL] = "fail" };

static void print_text(const struct check *c, unsigned n)
{
	for (; n; n--, c++) {
		printf("%-5s %-12s %s\n", result_name[c->result], c->name, c->found);
		if (c->next[0])
			printf("%18s -> %s\n", "", c->next);
	}
}

static void print_json(const struct check *c, unsigned n)
{
	json_object *root = json_object_new_object(), *list = json_object_new_array();

	for (; n; n--, c++) {
		json_object *o = json_object_new_object();

		json_object_object_add(o, "name", json_object_new_string(c->name));
		json_object_object_add(o, "result", json_object_new_string(result_name[c->result]));
		json_object_object_add(o, "found", json_object_new_string(c->found));
		json_object_object_add(o, "next", c->next[0] ? json_object_new_string(c->next) : NULL);
		json_object_array_add(list, o);
	}
	json_object_object_add(root, "version", json_object_new_int(1));
	json_object_object_add(root, "checks", list);
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}

struct options {
	const char *socket, *catalog;
	bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 's':
		o->socket = arg;
		return 0;
	case 'c':
		o->catalog = arg;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int cmd_doctor(int argc, char **argv)
{
	static const struct argp_option list[] = {
		{ "socket", 's', "PATH", 0, "of the daemon", 0 },
		{ "catalog", 'c', "FILE", 0, "default: $WSD_CATALOG or " WSD_CATALOG_PATH, 0 },
		{ "json", 'j', NULL, 0, "as JSON", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = list, .parser = parse,
		.doc = "Check what acceleration needs. Exit status 1: something that is needed fails.",
	};
	struct check c[CHECKS_MAX];
	struct options o = { 0 };
	unsigned n;
	int r = CTL_OK;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	n = check_all(c, o.socket, catalog_path(o.catalog));
	if (o.json)
		print_json(c, n);
	else
		print_text(c, n);
	for (unsigned i = 0; i < n; i++)
		if (c[i].result == CHECK_FAIL)
			r = CTL_NO;
	return r;
}
