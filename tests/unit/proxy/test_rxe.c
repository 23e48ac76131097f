/* SPDX-License-Identifier: MIT */
/*
 * test_rxe.c - the daemon and a real Soft-RoCE device: run by tests/rxe/t/one/daemon.sh, where there is one
 *
 * The clients are fakes without a queue pair; what is real are the files, and the kernel's word that they change.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/proxy/fake_remote.h"

static struct daemon d;

static void start(void)
{
	daemon_start(&d, (const char *[]){ "--private", "--stay", NULL });
}

static void stop(void)
{
	daemon_stop(&d);
}

TestSuite(rxe, .init = start, .fini = stop, .timeout = 120);

static void run(const char *fmt)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), fmt, getenv("WSD_RXE_DEVICE"), getenv("WSD_RXE_NETDEV"));
	cr_assert_eq(system(cmd), 0, "%s", cmd);
}

/* what is offered now has a device, sooner or later */
static void live_again(struct fake f[2], struct pair *p)
{
	struct proxy_msg m;
	unsigned i;
	bool ok;

	cr_assert(UNTIL(({
		*p = pair_make(PAIR_V4);
		offer_san(&f[0], p->end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
		offer_san(&f[1], p->end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
		m = message(f[0].pc);
		ok = m.type == PROXY_MSG_SAN_SETUP;
		if (!ok)
			cr_assert_eq(m.reason, WSD_R_NO_RDMA);
		m = message(f[1].pc);
		if (!ok)
			done(f, p);
		for (i = 0; i < 2 && !ok; i++)
			f[i] = (struct fake){ 0 };
		ok;
	})));
	done(f, p);
}

static void lost(const char *how, const char *back)
{
	struct fake f[2] = { 0 }, g[2] = { 0 };
	struct pair p, q;
	struct wsd_subnet none[1];
	uint32_t before, after;

	live(f, &p);
	cr_expect_str_eq(f[0].setup.setup.path.device, getenv("WSD_RXE_DEVICE"));
	cr_expect_eq(f[0].setup.setup.path.mtu, 5);
	(void)proxy_client_subnets(f[0].pc, none, 1, &before);
	run(how);
	cr_assert(UNTIL(atomic_load(&f[0].rs->revoked) == WSD_R_RDMA_FAILED && atomic_load(&f[1].rs->revoked) == WSD_R_RDMA_FAILED));
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	(void)expect(&f[1], PROXY_MSG_SAN_LOOK);
	(void)proxy_client_subnets(f[0].pc, none, 1, &after);
	cr_expect_neq(before, after);
	run(back);
	live_again(g, &q);
	done(f, &p);
}

Test(rxe, the_device_is_deleted)
{
	lost("rdma link delete %1$s", "rdma link add %1$s type rxe netdev %2$s");
}

Test(rxe, the_link_goes_down)
{
	lost("ip link set %2$s down", "ip link set %2$s up");
}

/* The deletion waits for who has the device open: the clients must hear of it while it waits, or nobody would close it */
Test(rxe, who_holds_the_device_is_told_while_its_deletion_waits)
{
	struct fake f[2] = { 0 }, g[2] = { 0 };
	struct pair p, q;
	int fd, st;
	pid_t pid;

	live(f, &p);
	fd = open("/dev/infiniband/uverbs0", O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid)
		_exit(execlp("rdma", "rdma", "link", "delete", getenv("WSD_RXE_DEVICE"), NULL));
	cr_assert(UNTIL(atomic_load(&f[0].rs->revoked) == WSD_R_RDMA_FAILED && atomic_load(&f[1].rs->revoked) == WSD_R_RDMA_FAILED));
	cr_expect_eq(waitpid(pid, &st, WNOHANG), 0, "it did not wait");
	close(fd);
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_expect_eq(st, 0);
	run("rdma link add %1$s type rxe netdev %2$s");
	live_again(g, &q);
	done(f, &p);
}
