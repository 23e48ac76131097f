/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <errno.h>
#include <string.h>

#include "common/reason.h"
#include "tools/lib/cleanup.h"
#include "tools/wsdctl/wsdctl.h"

struct options {
	const char *socket;
	uint32_t how;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 's':
		o->socket = arg;
		return 0;
	case 'r':
		o->how = WSD_UNLOAD_REVOKE;
		return 0;
	case 'w':
		o->how = WSD_UNLOAD_WAIT;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int cmd_stop(int argc, char **argv)
{
	static const struct argp_option list[] = {
		{ "socket", 's', "PATH", 0, "of the daemon", 0 },
		{ "wait", 'w', NULL, 0, "take nothing new, stop when the last session has ended (default)", 0 },
		{ "revoke", 'r', NULL, 0, "put all connections on TCP for good and stop now", 0 },
		{ 0 },
	};
	static const struct argp argp = { .options = list, .parser = parse, .doc = "Stop the daemon. No connection is lost." };
	struct options o = { .how = WSD_UNLOAD_WAIT };
	char path[ENDPOINT_PATH_MAX];
	_cleanup_close_ int fd = -1;
	union message m;
	int r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	r = request_open(&fd, path, o.socket, WSD_MSG_UNLOAD, o.how);
	if (r) {
		complain("%s: %s", *path ? path : "daemon", endpoint_strerror(r));
		return r == ENDPOINT_E_FOREIGN ? CTL_REFUSED : r == ENDPOINT_E_LONG ? CTL_USAGE : CTL_NO_DAEMON;
	}
	r = request_next(fd, &m);
	if (r == -ECONNRESET)
		return CTL_OK;		/* gone before it could answer: that was asked for */
	if (r) {
		complain("%s: %s", path, r == -ETIMEDOUT ? "the daemon does not answer" : endpoint_strerror(r));
		return r == -ETIMEDOUT ? CTL_NO_DAEMON : CTL_REFUSED;
	}
	if (m.hdr.type == WSD_MSG_ERROR) {
		complain("%s: the daemon refused: only root and its own user may stop it (%s)", path,
			 reason_name(m.refused.reason));
		return CTL_REFUSED;
	}
	return CTL_OK;
}
