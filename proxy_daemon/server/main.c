/* SPDX-License-Identifier: MIT */
/*
 * wsd-proxyd - the proxy daemon. Exit status: 0, 1 (failed), 3 (another one serves this path).
 */
#include <errno.h>
#include <stdlib.h>

#include "proxy_daemon/server/harden.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/server.h"

int main(int argc, char **argv)
{
	static struct server srv;
	struct config cfg;
	int r;

	if (config_load(&cfg, argc, argv))
		return EXIT_FAILURE;
	log_init((enum log_level)cfg.log_level);
	harden_limits();
	if (server_init(&srv, &cfg))
		return EXIT_FAILURE;
	r = server_listen(&srv);
	if (!r) {
		harden_privileges(!cfg.no_sandbox, cfg.san.peers);
		r = server_run(&srv);
	}
	server_fini(&srv);
	return r == -EBUSY ? 3 : r ? EXIT_FAILURE : EXIT_SUCCESS;
}
