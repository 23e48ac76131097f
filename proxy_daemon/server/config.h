/* SPDX-License-Identifier: MIT */
/*
 * config.h - options of wsd-proxyd: built-in values, then the file, then the command line
 *
 * File (ini): section [proxyd], the long option names as keys; section [san] is san/config.h's. It is read when --config names it,
 * or, for a system daemon, when /etc/wsd/proxyd.conf exists.
 */
#ifndef PROXYD_CONFIG_H
#define PROXYD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "proxy_daemon/server/san/config.h"

#define CONFIG_FILE "/etc/wsd/proxyd.conf"

struct config {
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool private_daemon;	/* of one user: directory 0700, ends when idle */
	bool stay;
	bool no_sandbox;
	uint64_t quota_sessions, quota_bytes;	/* per uid */
	uint32_t ring_size;
	unsigned idle_exit_s;
	int log_level;
	struct san_config san;
};

/* 0, or -EINVAL with a line on standard error; may exit() for --help */
int config_load(struct config *cfg, int argc, char **argv);

#endif
