/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdctl/wsdctl.h"

#define KEY_FILE	"/etc/wsd/cluster.key"
#define KEY_LEN		32u

static error_t parse(int key, char *arg, struct argp_state *state)
{
	const char **file = state->input;

	if (key != ARGP_KEY_ARG)
		return ARGP_ERR_UNKNOWN;
	if (*file)
		argp_error(state, "too many arguments");
	*file = arg;
	return 0;
}

/* Never over an old one: hosts that have it would part from those that get the new one */
int cmd_key(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse, .args_doc = "[FILE]",
		.doc = "Make a fresh cluster key in FILE (" KEY_FILE "), readable by its owner alone. Copy it to every host of the cluster."
		       "\vTo replace a key, make the new one in another FILE; while hosts have the one or the other, key-file in "
		       "proxyd.conf names both, the one to offer first: wsd-proxyd(8) has the steps.",
	};
	const char *file = NULL;
	char text[2 * KEY_LEN + 1];
	_cleanup_close_ int fd = -1;
	uint8_t key[KEY_LEN];
	unsigned i;

	argp_parse(&argp, argc, argv, 0, NULL, &file);
	if (!file)
		file = KEY_FILE;
	if (getrandom(key, sizeof(key), 0) != sizeof(key)) {
		complain("no random numbers: %s", strerror(errno));
		return CTL_SYSTEM;
	}
	for (i = 0; i < KEY_LEN; i++) {
		text[2 * i] = "0123456789abcdef"[key[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[key[i] & 15];
	}
	text[2 * KEY_LEN] = '\n';
	if (!strcmp(file, KEY_FILE))
		(void)mkdir("/etc/wsd", 0755);	/* it may be the first thing there; if that fails, the next line says so */
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		bool there = errno == EEXIST;

		complain("%s: %s", file, there ? "is there already; it is left as it is" : strerror(errno));
		return there ? CTL_NO : CTL_SYSTEM;
	}
	if (fchmod(fd, 0600) < 0 || write(fd, text, sizeof(text)) != sizeof(text) || fsync(fd) < 0) {
		complain("%s: %s", file, strerror(errno));
		unlink(file);
		return CTL_SYSTEM;
	}
	explicit_bzero(key, sizeof(key));
	explicit_bzero(text, sizeof(text));
	printf("%s: a new key. Copy it to every host, mode 0600, by a road that keeps it secret; name it as key-file in section [san]\n"
	       "of /etc/wsd/proxyd.conf, beside subnets, and restart the daemons. Then: wsdctl peers --try ADDRESS\n", file);
	return CTL_OK;
}
