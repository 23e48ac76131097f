/* SPDX-License-Identifier: MIT */
/*
 * rules_fork.c - a child that was forked while another thread of its parent was inside the provider
 *
 * The state that it finds there is nobody's: it must not say a word to the daemon, nor to a queue pair, for the parent. The provider here is
 * three functions; ctl.c is included, so that they can be put in.
 */
#include <linux/tcp.h>
#define _NETINET_TCP_H 1	/* ends.h has the kernel's */
#include "wsd_switch/core/ctl.c"

#include "tests/unit/switch/ends.h"

TestSuite(retry, .init = ends_make, .timeout = 30);
TestSuite(fork, .init = ends_make, .timeout = 30);

static unsigned retired, closed, abandoned, after;

static void count_retire(SOCKET s, unsigned reason, uint32_t unread)
{
	retired++;
}

static int WSPAPI count_close(SOCKET s, LPINT e)
{
	closed++;
	return 0;
}

static void count_abandon(void)
{
	abandoned++;
}

static void count_after(void)
{
	after++;
}

static int no_progress(void)
{
	return 0;
}

static const _Atomic uint32_t *no_word(void)
{
	return NULL;
}

static void provider(void)
{
	prov = PROV_OK;
	control = (WSDCONTROL){ .size = sizeof(control), .progress = no_progress, .notify_word = no_word, .retire = count_retire,
				.abandon = count_abandon, .after_fork = count_after };
	wsp.lpWSPCloseSocket = count_close;
	ca->san = 10;
	cb->san = 11;
}

/* what a child finds when it closes what it has inherited */
static int child(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		close(a);
		close(b);
		_exit((int)(retired << 4 | closed << 2 | abandoned << 1 | after));
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status), "%#x", status);
	return WEXITSTATUS(status);
}

Test(fork, nobody_was_inside)
{
	provider();
	cr_assert_eq(child() & 3, 1);
}

Test(fork, somebody_was_inside)
{
	int fd = real.fcntl64(0, F_DUPFD_CLOEXEC, 500);
	int status;

	provider();
	hidden_provider(&fd, 1);
	atomic_store(&ctl_lock, 0x7fffffff);
	status = child();
	atomic_store(&ctl_lock, 0);
	cr_assert_eq(status & 3, 2, "what is open stays open: %#x", status);
	cr_assert_eq(status >> 4, 0, "it retires the parent's companion");
	cr_assert_eq(status >> 2 & 3, 0, "it closes the parent's companion");
	cr_assert_eq(retired + closed + abandoned + after, 0);
}

/* A connection whose session failed offers again when its time has come, or devices have; for a peer that offers behind half of that time only */
static bool due(uint32_t gen, int64_t left_ms)
{
	atomic_store(&ctl_san_gen, gen);
	ca->retry_at = tsc_now() + (uint64_t)US(left_ms * 1e3);
	return retry_due(ca);
}

Test(retry, a_stir_is_heeded_behind_half_of_the_time)
{
	uint32_t devices = 7u << 16, offers = devices + 3;

	atomic_store(&ctl_san_gen, offers);
	ca->retry_s = 32;
	offer_later(ca, WSD_R_NONE);
	cr_assert(ca->retry_s == 60 && ca->retry_gen == offers);
	cr_expect_not(due(offers, 29000), "nobody offers");
	cr_expect_not(due(offers, 1000));
	cr_expect(due(offers, -1), "its time");
	cr_expect_not(due(offers + 1, 59000), "a path that is dead costs each try a while");
	cr_expect_not(due(offers + 1, 32000));
	cr_expect(due(offers + 1, 28000));
	cr_expect(due(devices + (1u << 16), 59000), "devices have changed");
	cr_expect(due(0, 59000), "another daemon");
}
