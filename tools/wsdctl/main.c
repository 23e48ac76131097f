/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/wsdctl/wsdctl.h"

const char *argp_program_version = "wsdctl " WSD_VERSION;

static const struct ctl_command commands[] = {
	{ "status", "daemon, providers and connections, with the reason of each that is on TCP", cmd_status },
	{ "peers", "daemons of other hosts, and why there is no link", cmd_peers },
	{ "doctor", "check what acceleration needs, and say what to do next", cmd_doctor },
	{ "list", "providers in the catalog", cmd_list },
	{ "install", "put a provider into the catalog", cmd_install },
	{ "remove", "take a provider out of the catalog", cmd_remove },
	{ "stop", "stop the daemon; connections go on", cmd_stop },
	{ "key", "make the key that the daemons of a cluster share", cmd_key },
	{ 0 },
};

void complain(const char *fmt, ...)
{
	va_list ap;

	fputs("wsdctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void usage(FILE *f)
{
	fprintf(f, "Usage: wsdctl COMMAND [OPTION...]\n\n");
	for (const struct ctl_command *c = commands; c->name; c++)
		fprintf(f, "  %-9s %s\n", c->name, c->doc);
	fprintf(f, "\nwsdctl COMMAND --help tells the options. Exit status: 0 done, 1 the answer is no, 2 wrong usage,\n"
		   "3 no daemon answers, 4 the daemon refused, 5 the catalog is unusable, 6 system error.\n");
}

int main(int argc, char **argv)
{
	char name[64];

	argp_err_exit_status = CTL_USAGE;
	if (argc < 2) {
		usage(stderr);
		return CTL_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return CTL_OK;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts(argp_program_version);
		return CTL_OK;
	}
	for (const struct ctl_command *c = commands; c->name; c++) {
		int r;

		if (strcmp(argv[1], c->name))
			continue;
		snprintf(name, sizeof(name), "wsdctl %s", c->name);
		argv[1] = name;
		r = c->run(argc - 1, argv + 1);
		if (fflush(stdout) || ferror(stdout)) {
			complain("cannot write the output");
			return CTL_SYSTEM;
		}
		return r;
	}
	complain("no command '%s'; wsdctl --help lists them", argv[1]);
	return CTL_USAGE;
}
