/* SPDX-License-Identifier: MIT */
/*
 * links between daemons: real GnuTLS over addresses of 127/8
 *
 * A *host* is as much of a daemon as links need, several in one event loop. A *raw* peer is one written here, independently: it
 * derives its keys itself and says what it likes. Every test has a /24 of its own, by chance.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wsd/remote_session.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/san/distant.h"
#include "proxy_daemon/server/san/fill_buffer.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/remote.h"
#include "proxy_daemon/server/san/psk.h"
#include "proxy_daemon/server/server.h"

#define DEADLINE_US	15000000ull

static sd_event *loop;
static uint8_t net[3];

static uint64_t clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* let everything happen until a condition holds */
#define RUN_UNTIL(cond) ({						\
	uint64_t _end = clock_us() + DEADLINE_US;			\
	bool _ok;							\
	while (!(_ok = (cond)) && clock_us() < _end)			\
		sd_event_run(loop, 2000);				\
	_ok; })

/* let happen what happens at once: some rounds in which nothing does */
static void settle(void)
{
	unsigned quiet = 0;

	while (quiet < 20)
		quiet = sd_event_run(loop, 2000) > 0 ? 0 : quiet + 1;
}

static struct wsd_addr addr(uint8_t host)
{
	struct wsd_addr a = { .family = AF_INET, .port = 80 };

	memcpy(a.ip, net, 3);
	a.ip[3] = host;
	return a;
}

static void ip_of(uint8_t ret[16], uint8_t host)
{
	struct wsd_addr a = addr(host);

	peer_ip(ret, &a);
}

/* ---- hosts ---- */

struct host {
	struct server srv;
	uint8_t n;
	unsigned ups, agains, downs, rooms, messages;
	enum link_why why;
	struct far *far;
	struct wsd_peer_hdr last;
	union peer_body body;
	size_t n_tail;
	uint64_t ids[64];
	unsigned types[_WSD_PEER_TYPES];	/* how many of each */
	bool answer;
};

static struct host *host_of(struct far *f)
{
	return (struct host *)((char *)far_server(f) - offsetof(struct host, srv));
}

static void on_up(struct far *f, bool again)
{
	struct host *h = host_of(f);

	cr_expect(far_is_up(f));
	h->far = f;
	h->ups++;
	h->agains += again;
}

static void on_down(struct far *f, enum link_why why)
{
	struct host *h = host_of(f);

	cr_expect(!far_is_up(f));
	h->far = f;
	h->downs++;
	h->why = why;
}

static void on_message(struct far *f, const struct peer_msg *m)
{
	struct host *h = host_of(f);

	h->last = m->hdr;
	h->body = m->body;
	h->n_tail = m->n_tail;
	h->ids[h->messages++ % 64] = m->hdr.id;
	h->types[m->hdr.type]++;
	if (h->answer)
		cr_expect_eq(far_send(f, WSD_PEER_WAIT, m->hdr.id, NULL, 0, NULL, 0), 0);
}

static void on_room(struct far *f)
{
	host_of(f)->rooms++;
}

static const struct link_ops ops = { .up = on_up, .down = on_down, .message = on_message, .room = on_room };
static const char *const good_key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char *const other_key = "10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static const char *old_key;	/* of the hosts that are started from now on */
static unsigned raw_flags;	/* of gnutls_init(), besides */

static void set(struct san_config *c, const char *name, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cr_assert_eq(san_config_set(c, name, text), 0, "%s = %s", name, text);
}

static void init_loop(void)
{
	if (loop)
		return;
	cr_assert_geq(sd_event_new(&loop), 0);
	net[0] = 127;
	cr_assert_eq(gnutls_rnd(GNUTLS_RND_NONCE, net + 1, 2), 0);
	net[1] |= 1;	/* not 127.0.0: that is everybody's */
}

/* @n: its address; 0 bytes of key: the good one. The subnet is the lower half of the /24 */
static void host_start_at(struct host *h, uint8_t n, const char *key, uint8_t second)
{
	struct san_config *c = &h->srv.cfg.san;
	int r;

	init_loop();
	memset(h, 0, sizeof(*h));
	h->n = n;
	h->srv.event = loop;
	san_config_default(c);
	set(c, "subnets", "%u.%u.%u.0/25", net[0], net[1], net[2]);
	set(c, "listen", "%u.%u.%u.%u", net[0], net[1], net[2], n);
	if (second)
		set(c, "listen", "%u.%u.%u.%u", net[0], net[1], net[2], second);
	r = san_key_parse(c->key, key, strlen(key));
	cr_assert_gt(r, 0);
	c->key_len = (unsigned)r;
	if (old_key) {
		r = san_key_parse(c->old_key, old_key, strlen(old_key));
		cr_assert_gt(r, 0);
		c->old_key_len = (unsigned)r;
	}
	c->peers = true;
	cr_assert_eq(link_init(&h->srv), 0);
	link_watch(&h->srv, &ops);
}

static void host_start(struct host *h, uint8_t n, const char *key)
{
	host_start_at(h, n, key, 0);
}

static int get(struct host *h, uint8_t to)
{
	struct wsd_addr local = addr(h->n), remote = addr(to);

	return link_get(&h->srv, &local, &remote, &h->far);
}

static enum link_why why(struct host *h, uint8_t to)
{
	struct wsd_addr local = addr(h->n), remote = addr(to);

	return link_why(&h->srv, &local, &remote);
}

static unsigned n_links(struct host *h)
{
	struct wsd_msg_status_peer p;
	struct far *f = NULL;
	unsigned n = 0;

	while ((f = far_next(&h->srv, f))) {
		memset(&p, 0, sizeof(p));
		far_describe(f, &p);
		n += p.state == WSD_PEER_LINK_UP;
	}
	return n;
}

static void join(struct host *a, struct host *b)
{
	cr_assert_eq(get(a, b->n), -EINPROGRESS);
	cr_assert(RUN_UNTIL(a->ups && b->ups), "no link: %s", link_why_text(a->why));
}

/* ---- raw peers ---- */

static int tcp(uint8_t from, uint8_t to)
{
	struct sockaddr_in a = { .sin_family = AF_INET }, b = { .sin_family = AF_INET, .sin_port = htons(WSD_PEER_PORT) };
	struct wsd_addr w = addr(from);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(&a.sin_addr, w.ip, 4);
	w = addr(to);
	memcpy(&b.sin_addr, w.ip, 4);
	cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&b, sizeof(b)), 0);
	return fd;
}

static int tcp_listener(uint8_t at, int backlog)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(WSD_PEER_PORT) };
	struct wsd_addr w = addr(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(&a.sin_addr, w.ip, 4);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	cr_assert_eq(listen(fd, backlog), 0);
	return fd;
}

/* the daemon has hung up, whatever it said before */
static bool hung_up(int fd)
{
	char waste[4096];
	ssize_t n;

	while ((n = recv(fd, waste, sizeof(waste), MSG_DONTWAIT)) > 0)
		;
	return n == 0 || errno != EAGAIN;
}

struct raw {
	int fd;
	gnutls_session_t gs;
	gnutls_psk_client_credentials_t cc;
	uint8_t in[65536];
	size_t n_in;
};

static const char *const psk_only = "NONE:+VERS-TLS1.3:+AEAD:+AES-128-GCM:+CHACHA20-POLY1305:+ECDHE-PSK:+GROUP-X25519:+SIGN-ALL";

static int raw_shake(struct raw *w, uint8_t from, uint8_t to, const char *key, const char *identity, const char *priority)
{
	uint8_t secret[32], text[11 + 32], psk[32];
	gnutls_datum_t name = { (unsigned char *)identity, (unsigned)strlen(identity) }, k = { psk, 32 };
	size_t n = sizeof(secret);
	int r;

	memset(w, 0, sizeof(*w));
	w->fd = tcp(from, to);
	cr_assert_eq(gnutls_hex_decode(&(gnutls_datum_t){ (unsigned char *)key, 64 }, secret, &n), 0);
	memcpy(text, "wsd-peer/1", 11);
	ip_of(text + 11, from);
	ip_of(text + 27, to);
	cr_assert_eq(gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, 32, text, sizeof(text), psk), 0);
	cr_assert_eq(gnutls_init(&w->gs, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | raw_flags), 0);
	cr_assert_eq(gnutls_priority_set_direct(w->gs, priority, NULL), 0);
	gnutls_psk_allocate_client_credentials(&w->cc);
	gnutls_psk_set_client_credentials2(w->cc, &name, &k, GNUTLS_PSK_KEY_RAW);
	gnutls_credentials_set(w->gs, GNUTLS_CRD_PSK, w->cc);
	gnutls_transport_set_int(w->gs, w->fd);
	fcntl(w->fd, F_SETFL, O_NONBLOCK);
	while ((r = gnutls_handshake(w->gs)) == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
		sd_event_run(loop, 1000);
	return r;
}

static void raw_close(struct raw *w)
{
	gnutls_deinit(w->gs);
	gnutls_psk_free_client_credentials(w->cc);
	close(w->fd);
}

static void raw_send(struct raw *w, uint16_t type, uint64_t id, const void *body, size_t n, const void *tail, size_t m)
{
	uint8_t buf[sizeof(struct wsd_peer_hdr) + 512];
	struct wsd_peer_hdr h = { (uint32_t)(sizeof(h) + n + m), type, (uint16_t)n, id };
	ssize_t r;

	cr_assert_leq(sizeof(h) + n + m, sizeof(buf));
	memcpy(buf, &h, sizeof(h));
	if (n)
		memcpy(buf + sizeof(h), body, n);
	if (m)
		memcpy(buf + sizeof(h) + n, tail, m);
	while ((r = gnutls_record_send(w->gs, buf, sizeof(h) + n + m)) == GNUTLS_E_AGAIN)
		sd_event_run(loop, 1000);
	cr_assert_eq(r, (ssize_t)(sizeof(h) + n + m));
}

/* the next message; type 0: it has hung up without one */
static struct peer_msg raw_next(struct raw *w)
{
	uint64_t end = clock_us() + DEADLINE_US;
	struct peer_msg m = { 0 };
	const char *what = "";
	ssize_t n;
	int len;

	for (;;) {
		len = peer_length(w->in, w->n_in);
		cr_assert_geq(len, 0);
		if (len && (size_t)len <= w->n_in)
			break;
		cr_assert_lt(clock_us(), end, "nothing more comes");
		n = gnutls_record_recv(w->gs, w->in + w->n_in, sizeof(w->in) - w->n_in);
		if (n == GNUTLS_E_AGAIN)
			sd_event_run(loop, 1000);
		else if (n <= 0)
			return m;
		else
			w->n_in += (size_t)n;
	}
	cr_assert_eq(peer_parse(&m, w->in, (size_t)len, &what), 0, "%s", what);
	m.tail = NULL;
	memmove(w->in, w->in + len, w->n_in - (size_t)len);
	w->n_in -= (size_t)len;
	return m;
}

static uint32_t raw_bye(struct raw *w)
{
	struct peer_msg m;

	do
		m = raw_next(w);
	while (m.hdr.type == WSD_PEER_PING || m.hdr.type == WSD_PEER_PONG || m.hdr.type == WSD_PEER_HELLO);
	return m.hdr.type == WSD_PEER_BYE ? m.body.reason.reason : 0;
}

static const struct wsd_peer_hello raw_hello_body = {
	.min_version = 1, .max_version = 1, .sessions_max = 1, .host_id = "a raw peer, yes", .boot = 7, .road = WSD_REMOTE_VERSION,
};

static void raw_join(struct raw *w, struct host *h, uint8_t from, const struct wsd_peer_hello *hello)
{
	cr_assert_eq(raw_shake(w, from, h->n, good_key, "wsd-peer/1", psk_only), 0);
	raw_send(w, WSD_PEER_HELLO, 0, hello, sizeof(*hello), NULL, 0);
}

/* ---- who gets in ---- */

Test(link, with_one_key_is_made_and_carries_messages_in_order, .timeout = 60)
{
	static struct host a, b;
	struct wsd_peer_fill fill = { .from = 5, .len = 50000 };
	static uint8_t bytes[50000];
	uint64_t i;

	host_start(&a, 2, good_key);
	host_start(&b, 3, good_key);
	join(&a, &b);
	cr_expect_eq(get(&a, 3), 0);
	cr_expect_eq(get(&b, 2), 0, "the same link serves both");
	cr_expect_eq(far_why(a.far), LINK_FINE);
	cr_expect_eq(n_links(&a) + n_links(&b), 2);
	cr_expect_eq(memcmp(far_host_id(a.far), far_host_id(b.far), 16) == 0, false);
	cr_expect_eq(a.agains + b.agains, 0);
	b.answer = true;
	for (i = 1; i <= 40; i++)
		cr_assert_eq(i % 4 ? far_send(a.far, WSD_PEER_READY, i, NULL, 0, NULL, 0) :
				     far_send(a.far, WSD_PEER_FILL, i, &fill, sizeof(fill), bytes, sizeof(bytes)), 0);
	cr_assert(RUN_UNTIL(a.messages == 40));
	for (i = 0; i < 40; i++)
		cr_expect(a.ids[i] == i + 1 && b.ids[i] == i + 1, "message %lu", i);
	cr_expect_eq(b.n_tail, sizeof(bytes));
	cr_expect_eq(b.body.fill.from, 5);
	cr_expect_eq(far_send(a.far, WSD_PEER_FILL, 1, &fill, sizeof(fill), bytes, WSD_PEER_MSG_MAX), -EMSGSIZE);
	cr_expect_neq(far_new_id(a.far) & 1, far_new_id(b.far) & 1, "the two never choose one id");
	i = far_new_id(a.far);
	cr_expect(far_id_is_ours(a.far, i) && !far_id_is_ours(b.far, i));
	link_fini(&b.srv);
	cr_expect(RUN_UNTIL(a.downs == 1));
	cr_expect_eq(a.why, LINK_CLOSED);
	cr_expect_eq(far_send(a.far, WSD_PEER_READY, 1, NULL, 0, NULL, 0), -ENOTCONN);
	link_fini(&a.srv);
}

Test(link, over_ipv6_as_well, .timeout = 60)
{
	static struct host a;
	struct wsd_addr l = { .family = AF_INET6 }, r = l;

	/* ::1 is all the IPv6 that is sure to be there, so: it is found, and it is ourselves */
	init_loop();
	a.srv.event = loop;
	san_config_default(&a.srv.cfg.san);
	set(&a.srv.cfg.san, "subnets", "fd07::/64");
	a.srv.cfg.san.key_len = SAN_KEY_MIN;
	a.srv.cfg.san.peers = true;
	cr_assert_eq(link_init(&a.srv), 0);
	inet_pton(AF_INET6, "fd07::1", l.ip);
	inet_pton(AF_INET6, "fd07::2", r.ip);
	cr_expect_eq(link_get(&a.srv, &l, &r, &a.far), -EHOSTDOWN, "that address is not ours");
	cr_expect_not_null(a.far);
	inet_pton(AF_INET6, "fd08::2", r.ip);
	cr_expect_eq(link_get(&a.srv, &l, &r, &a.far), -EHOSTDOWN);
	cr_expect_null(a.far);
	cr_expect_eq(link_why(&a.srv, &l, &r), LINK_NOT_SAN);
	link_fini(&a.srv);
}

Test(link, with_two_keys_is_not, .timeout = 60)
{
	static struct host a, b;

	host_start(&a, 2, good_key);
	host_start(&b, 3, other_key);
	cr_assert_eq(get(&a, 3), -EINPROGRESS);
	cr_assert(RUN_UNTIL(a.downs == 1));
	cr_expect_eq(a.why, LINK_NO_KEY, "%s", link_why_text(a.why));
	cr_expect_eq(get(&a, 3), -EHOSTDOWN, "it is remembered");
	cr_expect_eq(why(&a, 3), LINK_NO_KEY);
	settle();
	cr_expect_eq(a.ups + b.ups + b.downs, 0);
	cr_expect_null(far_next(&b.srv, NULL), "an unproven peer leaves no trace");
	link_fini(&a.srv);
	link_fini(&b.srv);
}

/* a key is being replaced: who has the older one is let in, and is not offered it */
Test(link, with_the_older_key_is_made_by_who_has_no_other, .timeout = 60)
{
	static struct host a, b;

	host_start(&a, 2, other_key);
	old_key = other_key;
	host_start(&b, 3, good_key);
	cr_assert_eq(get(&b, 2), -EINPROGRESS);
	cr_assert(RUN_UNTIL(b.downs == 1));
	cr_expect_eq(b.why, LINK_NO_KEY, "%s", link_why_text(b.why));
	cr_expect_eq(get(&b, 2), -EHOSTDOWN);
	join(&a, &b);
	cr_expect_eq(get(&b, 2), 0, "that it was refused is forgotten");
	link_fini(&a.srv);
	link_fini(&b.srv);
}

Test(link, while_a_key_is_replaced_step_by_step_is_always_made, .timeout = 60)
{
	static const char *const third = "20112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	/* what is offered, what is accepted besides: old; old, new; new, old; new */
	const char *step[][2] = { { other_key, NULL }, { other_key, good_key }, { good_key, other_key }, { good_key, NULL } };
	static struct host a, b;
	unsigned i, k;

	for (i = 0; i < 4; i++)
		for (k = i ? i - 1 : 0; k < 4 && k <= i + 1; k++) {
			old_key = step[i][1];
			host_start(&a, 2, step[i][0]);
			old_key = step[k][1];
			host_start(&b, 3, step[k][0]);
			join(&a, &b);
			link_fini(&a.srv);
			link_fini(&b.srv);
			settle();
		}
	old_key = other_key;
	host_start(&a, 2, good_key);
	old_key = NULL;
	host_start(&b, 3, third);
	cr_assert_eq(get(&b, 2), -EINPROGRESS);
	cr_assert(RUN_UNTIL(b.downs == 1));
	cr_expect_eq(b.why, LINK_NO_KEY, "%s", link_why_text(b.why));
	link_fini(&a.srv);
	link_fini(&b.srv);
}

Test(link, of_a_raw_peer_with_the_key_is_made, .timeout = 60)
{
	static struct host b;
	static struct raw w;

	/* what makes the refusals below mean something */
	host_start(&b, 3, good_key);
	raw_join(&w, &b, 2, &raw_hello_body);
	cr_expect(RUN_UNTIL(b.ups == 1));
	cr_expect_eq(raw_next(&w).hdr.type, WSD_PEER_HELLO);
	raw_close(&w);
	cr_expect(RUN_UNTIL(b.downs == 1));
	link_fini(&b.srv);
}

static void expect_no_shake(struct host *b, const char *key, const char *identity, const char *priority)
{
	static struct raw w;

	cr_expect_neq(raw_shake(&w, 2, b->n, key, identity, priority), 0, "%s %s", identity, priority);
	cr_expect(RUN_UNTIL(hung_up(w.fd)));
	raw_close(&w);
}

/* which of two keys it is, is told by a ClientHello; a second one, asked for because of its group, changes nothing */
Test(link, with_one_of_two_keys_is_tls_with_that_one, .timeout = 60)
{
	static const char *const retried =
		"NONE:+VERS-TLS1.3:+AEAD:+AES-128-GCM:+CHACHA20-POLY1305:+ECDHE-PSK:+GROUP-SECP384R1:+GROUP-X25519:+SIGN-ALL";
	static struct host b;
	static struct raw w;
	const char *key[] = { good_key, other_key };
	unsigned i;

	old_key = other_key;
	host_start(&b, 3, good_key);
	for (i = 0; i < 4; i++) {
		raw_flags = i / 2 ? GNUTLS_KEY_SHARE_TOP : 0;
		cr_assert_eq(raw_shake(&w, 2, 3, key[i % 2], "wsd-peer/1", i / 2 ? retried : psk_only), 0, "%u", i);
		cr_expect_eq(gnutls_group_get(w.gs), GNUTLS_GROUP_X25519);
		raw_send(&w, WSD_PEER_HELLO, 0, &raw_hello_body, sizeof(raw_hello_body), NULL, 0);
		cr_expect(RUN_UNTIL(b.ups == i + 1));
		raw_close(&w);
		cr_expect(RUN_UNTIL(b.downs == i + 1));
	}
	raw_flags = 0;
	for (i = 0; i < 2; i++) {
		expect_no_shake(&b, key[i], "wsd-peer/2", psk_only);
		expect_no_shake(&b, key[i], "wsd-peer/1", "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:-CTYPE-ALL");
		expect_no_shake(&b, key[i], "wsd-peer/1", "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+PSK:-GROUP-ALL");
	}
	expect_no_shake(&b, "20112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "wsd-peer/1", psk_only);
	link_fini(&b.srv);
}

Test(link, needs_tls_1_3_and_this_psk, .timeout = 60)
{
	static struct host b;

	host_start(&b, 3, good_key);
	expect_no_shake(&b, other_key, "wsd-peer/1", psk_only);
	expect_no_shake(&b, good_key, "wsd-peer/2", psk_only);
	expect_no_shake(&b, good_key, "wsd-peer/1",
			"NONE:+VERS-TLS1.2:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+ECDHE-PSK:+PSK:+DHE-PSK:+GROUP-X25519:+SIGN-ALL:+COMP-NULL");
	/* PSK without an exchange of fresh keys */
	expect_no_shake(&b, good_key, "wsd-peer/1", "NONE:+VERS-TLS1.3:+AEAD:+AES-128-GCM:+PSK:+GROUP-X25519:+SIGN-ALL");
	settle();
	cr_expect_eq(b.ups, 0);
	cr_expect_null(far_next(&b.srv, NULL));
	link_fini(&b.srv);
}

Test(link, is_not_made_with_certificates, .timeout = 60)
{
	gnutls_certificate_credentials_t cred;
	gnutls_session_t gs;
	static struct host b;
	int fd, r;

	host_start(&b, 3, good_key);
	fd = tcp(2, 3);
	gnutls_certificate_allocate_credentials(&cred);
	gnutls_init(&gs, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	gnutls_set_default_priority(gs);
	gnutls_credentials_set(gs, GNUTLS_CRD_CERTIFICATE, cred);
	gnutls_transport_set_int(gs, fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while ((r = gnutls_handshake(gs)) == GNUTLS_E_AGAIN)
		sd_event_run(loop, 1000);
	cr_expect_lt(r, 0);
	cr_expect(RUN_UNTIL(hung_up(fd)));
	cr_expect_eq(b.ups, 0);
	gnutls_deinit(gs);
	gnutls_certificate_free_credentials(cred);
	close(fd);
	link_fini(&b.srv);
}

Test(link, is_not_made_with_plain_bytes, .timeout = 60)
{
	static const char *const words[] = { "GET / HTTP/1.0\r\n\r\n", "\x28\0\0\0\x01\0\x18", "\x16\x03\x01\xff\xff\x01\1\1" };
	static struct host b;
	char many[20000];
	unsigned i;
	int fd;

	host_start(&b, 3, good_key);
	link_times(&b.srv)->handshake = 300000;
	for (i = 0; i < 4; i++) {
		fd = tcp(2, 3);
		memset(many, (int)i, sizeof(many));
		if (i < 3)
			cr_assert_gt(send(fd, words[i], 8, MSG_NOSIGNAL), 0);
		else
			cr_assert_gt(send(fd, many, sizeof(many), MSG_NOSIGNAL | MSG_DONTWAIT), 0);
		cr_expect(RUN_UNTIL(hung_up(fd)), "%u", i);
		close(fd);
	}
	cr_expect_eq(b.ups + b.downs, 0);
	link_fini(&b.srv);
}

/* carries bytes between what connects to @at and @to, coming from @from there */
static void relay_until(int listener, uint8_t from, uint8_t to, struct host *h)
{
	uint64_t end = clock_us() + DEADLINE_US;
	int fd[2] = { -1, -1 }, i;
	char buf[4096];
	ssize_t n;

	while (!h->downs && !h->ups && clock_us() < end) {
		sd_event_run(loop, 1000);
		if (fd[0] < 0) {
			fd[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (fd[0] >= 0)
				fd[1] = tcp(from, to);
			continue;
		}
		for (i = 0; i < 2; i++) {
			n = recv(fd[i], buf, sizeof(buf), MSG_DONTWAIT);
			if (n > 0)
				(void)!send(fd[!i], buf, (size_t)n, MSG_NOSIGNAL);
			else if (n == 0)
				(void)shutdown(fd[!i], SHUT_WR);
		}
	}
	for (i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	close(listener);
}

Test(link, that_is_reflected_to_its_maker_is_not_made, .timeout = 60)
{
	static struct host a;
	int l;

	host_start(&a, 2, good_key);
	l = tcp_listener(3, 5);
	cr_assert_eq(get(&a, 3), -EINPROGRESS);
	/* at 3 sits somebody without a key who plays our own words back to us, from 3 */
	relay_until(l, 3, 2, &a);
	cr_expect_eq(a.ups, 0);
	cr_expect_eq(a.why, LINK_NO_KEY, "%s", link_why_text(a.why));
	link_fini(&a.srv);
}

Test(link, that_is_relayed_by_another_address_is_not_made, .timeout = 60)
{
	static struct host a, b;
	int l;

	host_start(&a, 2, good_key);
	host_start(&b, 4, good_key);
	l = tcp_listener(3, 5);
	cr_assert_eq(get(&a, 3), -EINPROGRESS);
	relay_until(l, 3, 4, &a);
	cr_expect_eq(a.ups + b.ups, 0);
	cr_expect_eq(a.why, LINK_NO_KEY);
	link_fini(&a.srv);
	link_fini(&b.srv);
}

Test(link, with_itself_is_refused, .timeout = 60)
{
	static struct host a;

	host_start_at(&a, 2, good_key, 3);
	cr_assert_eq(get(&a, 3), -EINPROGRESS);
	cr_assert(RUN_UNTIL(a.downs == 1));
	cr_expect_eq(a.why, LINK_SELF, "%s", link_why_text(a.why));
	cr_expect_eq(get(&a, 3), -EHOSTDOWN);
	cr_expect_eq(get(&a, 2), -EHOSTDOWN);
	cr_expect_eq(a.ups, 0);
	link_fini(&a.srv);
}

Test(link, from_outside_the_subnets_is_closed_unread, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	int fd;

	host_start(&b, 3, good_key);
	fd = tcp(200, 3);
	cr_expect(RUN_UNTIL(hung_up(fd)), "it waits for something of a stranger");
	close(fd);
	cr_expect_neq(raw_shake(&w, 200, 3, good_key, "wsd-peer/1", psk_only), 0, "even with the key");
	raw_close(&w);
	cr_expect_eq(get(&b, 200), -EHOSTDOWN);
	cr_expect_eq(why(&b, 200), LINK_NOT_SAN);
	cr_expect_eq(b.ups, 0);
	link_fini(&b.srv);
}

/* ---- half-open ---- */

Test(link, half_made_has_its_time, .timeout = 60)
{
	static const uint8_t record[] = { 0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3 };
	static struct host b;
	uint64_t begin;
	unsigned i = 0;
	int fd, quiet;

	host_start(&b, 3, good_key);
	link_times(&b.srv)->handshake = 400000;
	quiet = tcp(2, 3);
	fd = tcp(4, 3);
	begin = clock_us();
	/* a byte now and then is no progress */
	while (!hung_up(fd) && clock_us() - begin < DEADLINE_US) {
		if (i < sizeof(record) && clock_us() - begin > i * 50000ull)
			(void)!send(fd, record + i++, 1, MSG_NOSIGNAL);
		sd_event_run(loop, 2000);
	}
	cr_expect(clock_us() - begin < DEADLINE_US);
	cr_expect(clock_us() - begin > 300000, "closed for another reason");
	cr_expect(RUN_UNTIL(hung_up(quiet)));
	close(fd);
	close(quiet);
	link_fini(&b.srv);
}

Test(link, half_made_is_one_of_sixteen, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	int fd[LINK_HALF_OPEN_MAX], more, i, j = 0;

	host_start(&b, 3, good_key);
	for (i = 0; i < (int)LINK_HALF_OPEN_HOST; i++)
		fd[j++] = tcp(10, 3);
	more = tcp(10, 3);
	cr_expect(RUN_UNTIL(hung_up(more)), "one host takes all");
	close(more);
	for (i = 11; j < (int)LINK_HALF_OPEN_MAX; i++)
		while (j < (int)LINK_HALF_OPEN_MAX && j < (int)LINK_HALF_OPEN_HOST * (i - 9))
			fd[j++] = tcp((uint8_t)i, 3);
	settle();
	for (i = 0; i < j; i++)
		cr_expect_not(hung_up(fd[i]), "number %d", i);
	more = tcp(50, 3);
	cr_expect(RUN_UNTIL(hung_up(more)), "the 17th is taken");
	cr_expect_not(hung_up(fd[j - 1]), "it was its time that ended it");
	close(more);
	for (i = 0; i < j; i++)
		close(fd[i]);
	settle();
	raw_join(&w, &b, 50, &raw_hello_body);
	cr_expect(RUN_UNTIL(b.ups == 1), "they have gone, so there is room");
	raw_close(&w);
	link_fini(&b.srv);
}

Test(link, that_never_says_hello_ends, .timeout = 60)
{
	static struct host b;
	static struct raw w;

	host_start(&b, 3, good_key);
	link_times(&b.srv)->handshake = 300000;
	cr_assert_eq(raw_shake(&w, 2, 3, good_key, "wsd-peer/1", psk_only), 0);
	cr_expect_eq(raw_next(&w).hdr.type, WSD_PEER_HELLO);
	cr_expect_eq(raw_bye(&w), 0);
	cr_expect_eq(b.ups + b.downs, 0);
	raw_close(&w);
	link_fini(&b.srv);
}

/* ---- what is said ---- */

static uint32_t bye_after(struct host *b, const struct wsd_peer_hello *hello)
{
	static struct raw w;
	uint32_t bye;

	raw_join(&w, b, 2, hello);
	bye = raw_bye(&w);
	raw_close(&w);
	settle();
	return bye;
}

Test(link, speaks_the_highest_common_version, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	struct wsd_peer_hello h = raw_hello_body;
	struct { struct wsd_peer_hello h; uint8_t later[40]; } longer = { .later = { 1, 2, 3 } };

	host_start(&b, 3, good_key);
	h.min_version = 2;
	h.max_version = 9;
	cr_expect_eq(bye_after(&b, &h), WSD_PEER_BYE_VERSION);
	h.min_version = 0;
	h.max_version = 0;
	cr_expect_eq(bye_after(&b, &h), WSD_PEER_BYE_PROTOCOL);
	h.min_version = 3;
	h.max_version = 1;
	cr_expect_eq(bye_after(&b, &h), WSD_PEER_BYE_PROTOCOL);
	cr_expect_eq(b.ups, 0);
	/* a later daemon, with more in its HELLO */
	longer.h = raw_hello_body;
	longer.h.max_version = 9;
	cr_assert_eq(raw_shake(&w, 2, 3, good_key, "wsd-peer/1", psk_only), 0);
	raw_send(&w, WSD_PEER_HELLO, 0, &longer, sizeof(longer), NULL, 0);
	cr_expect(RUN_UNTIL(b.ups == 1));
	/* and things it says that are not known yet */
	raw_send(&w, 999, 5, &longer, 20, NULL, 0);
	raw_send(&w, WSD_PEER_READY, 6, NULL, 0, NULL, 0);
	cr_expect(RUN_UNTIL(b.messages == 1));
	cr_expect_eq(b.last.id, 6);
	raw_close(&w);
	link_fini(&b.srv);
}

/* two builds whose control words or frames differ must not meet on the road */
Test(link, needs_the_same_road_on_both_hosts, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	struct wsd_peer_hello h = raw_hello_body;

	host_start(&b, 3, good_key);
	h.road = WSD_REMOTE_VERSION + 1;
	cr_expect_eq(bye_after(&b, &h), WSD_PEER_BYE_VERSION);
	h.road = WSD_REMOTE_VERSION - 1;
	cr_expect_eq(bye_after(&b, &h), WSD_PEER_BYE_VERSION);
	/* one from before it was said */
	cr_assert_eq(raw_shake(&w, 2, 3, good_key, "wsd-peer/1", psk_only), 0);
	raw_send(&w, WSD_PEER_HELLO, 0, &raw_hello_body, WSD_PEER_HELLO_V1, NULL, 0);
	cr_expect_eq(raw_bye(&w), WSD_PEER_BYE_VERSION);
	raw_close(&w);
	settle();
	cr_expect_eq(b.ups, 0);
	cr_expect_eq(bye_after(&b, &raw_hello_body), 0);
	cr_expect_eq(b.ups, 1);
	link_fini(&b.srv);
}

Test(link, begins_with_hello, .timeout = 60)
{
	static struct host b;
	static struct raw w;

	host_start(&b, 3, good_key);
	cr_assert_eq(raw_shake(&w, 2, 3, good_key, "wsd-peer/1", psk_only), 0);
	raw_send(&w, WSD_PEER_READY, 6, NULL, 0, NULL, 0);
	cr_expect_eq(raw_bye(&w), WSD_PEER_BYE_PROTOCOL);
	raw_close(&w);
	raw_join(&w, &b, 2, &raw_hello_body);
	raw_send(&w, WSD_PEER_HELLO, 0, &raw_hello_body, sizeof(raw_hello_body), NULL, 0);
	cr_expect_eq(raw_bye(&w), WSD_PEER_BYE_PROTOCOL, "a second one");
	raw_close(&w);
	cr_expect(RUN_UNTIL(b.downs == 1));
	cr_expect_eq(b.messages, 0);
	link_fini(&b.srv);
}

Test(link, speaks_for_its_own_addresses_only, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	struct wsd_peer_offer o = { .local.port = 1, .remote.port = 2 };
	unsigned i;

	host_start(&b, 3, good_key);
	for (i = 0; i < 3; i++) {
		raw_join(&w, &b, 2, &raw_hello_body);
		cr_assert(RUN_UNTIL(b.ups == i + 1));
		ip_of(o.local.ip, i == 1 ? 4 : 2);
		ip_of(o.remote.ip, i == 2 ? 4 : 3);
		raw_send(&w, WSD_PEER_OFFER, 7, &o, sizeof(o), NULL, 0);
		if (!i) {
			cr_expect(RUN_UNTIL(b.messages == 1));
		} else {
			cr_expect_eq(raw_bye(&w), WSD_PEER_BYE_PROTOCOL);
			cr_expect(RUN_UNTIL(b.downs == i + 1));
			cr_expect_eq(b.why, LINK_BROKEN);
		}
		raw_close(&w);
		cr_expect(RUN_UNTIL(b.downs == i + 1));
	}
	cr_expect_eq(b.messages, 1, "an OFFER for somebody else was believed");
	link_fini(&b.srv);
}

Test(link, ends_with_a_message_that_cannot_be, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	struct wsd_peer_fill fill = { .len = 9 };
	uint8_t bad[16] = { 0xff, 0xff, 0xff, 0x7f };
	unsigned i;

	host_start(&b, 3, good_key);
	for (i = 0; i < 4; i++) {
		raw_join(&w, &b, 2, &raw_hello_body);
		cr_assert(RUN_UNTIL(b.ups == i + 1));
		switch (i) {
		case 0: raw_send(&w, WSD_PEER_FILL, 1, &fill, sizeof(fill), "12345678", 8); break;	/* less than it says */
		case 1: raw_send(&w, WSD_PEER_READY, 0, NULL, 0, NULL, 0); break;			/* of no session */
		case 2: raw_send(&w, WSD_PEER_SETUP, 1, &fill, 4, NULL, 0); break;			/* cut off */
		case 3: cr_assert_eq(gnutls_record_send(w.gs, bad, 16), 16); break;			/* 2 GiB long */
		}
		cr_expect_eq(raw_bye(&w), WSD_PEER_BYE_PROTOCOL, "%u", i);
		cr_expect(RUN_UNTIL(b.downs == i + 1));
		cr_expect_eq(b.why, LINK_BROKEN);
		raw_close(&w);
	}
	cr_expect_eq(b.messages, 0);
	link_fini(&b.srv);
}

Test(link, sends_no_more_than_it_may_keep, .timeout = 60)
{
	static struct host b;
	static struct raw w;
	static uint8_t bytes[60000];
	struct wsd_peer_fill fill = { .len = sizeof(bytes) };
	unsigned sent = 0, small = 0, got = 0;

	host_start(&b, 3, good_key);
	link_times(&b.srv)->dead = 60000000;	/* the raw peer answers no PING, and so many messages take a loaded machine some seconds */
	raw_join(&w, &b, 2, &raw_hello_body);
	cr_assert(RUN_UNTIL(b.ups == 1));
	while (far_send(b.far, WSD_PEER_FILL, 1, &fill, sizeof(fill), bytes, sizeof(bytes)) == 0)
		cr_assert_lt(++sent, 100);
	cr_expect_gt(sent, 20);
	cr_expect_eq(far_send(b.far, WSD_PEER_FILL, 1, &fill, sizeof(fill), bytes, sizeof(bytes)), -ENOBUFS);
	while (far_send(b.far, WSD_PEER_READY, 1, NULL, 0, NULL, 0) == 0)
		cr_assert_lt(++small, LINK_QUEUE_MAX / 16);
	cr_expect_gt(small, 1000, "short messages get through long after");
	cr_expect_eq(b.rooms, 0);
	while (got < sent + small) {
		uint16_t type = raw_next(&w).hdr.type;

		cr_assert_neq(type, 0, "%u of %u, then it ended; downs %u: %s", got, sent + small, b.downs, link_why_text(b.why));
		got += type == WSD_PEER_FILL || type == WSD_PEER_READY;
	}
	cr_expect(RUN_UNTIL(b.rooms == 1));
	cr_expect_eq(far_send(b.far, WSD_PEER_FILL, 1, &fill, sizeof(fill), bytes, sizeof(bytes)), 0);
	cr_expect_eq(b.downs, 0);
	raw_close(&w);
	link_fini(&b.srv);
}

/* ---- a link's life ---- */

Test(link, is_one_though_both_make_it, .timeout = 60)
{
	static struct host a, b;
	struct wsd_msg_status_peer p = { 0 };
	unsigned i;

	for (i = 0; i < 10; i++) {
		host_start(&a, 2, good_key);
		host_start(&b, 3, good_key);
		cr_assert_eq(i % 2 ? get(&a, 3) : get(&b, 2), -EINPROGRESS);
		cr_assert_eq(i % 2 ? get(&b, 2) : get(&a, 3), -EINPROGRESS);
		cr_assert(RUN_UNTIL(a.ups && b.ups));
		settle();
		cr_expect_eq(a.ups + b.ups, 2);
		cr_expect_eq(a.downs + b.downs, 0, "%s %s", link_why_text(a.why), link_why_text(b.why));
		cr_expect(n_links(&a) == 1 && n_links(&b) == 1);
		far_describe(a.far, &p);
		cr_expect(p.outgoing && p.version == 1, "the lower address's stays");
		cr_expect_eq(far_send(a.far, WSD_PEER_READY, 1, NULL, 0, NULL, 0), 0);
		cr_expect_eq(far_send(b.far, WSD_PEER_READY, 1, NULL, 0, NULL, 0), 0);
		cr_expect(RUN_UNTIL(a.messages && b.messages));
		link_fini(&a.srv);
		link_fini(&b.srv);
	}
}

Test(link, of_the_same_peer_replaces_an_old_one, .timeout = 60)
{
	static struct host b;
	static struct raw w, w2, w3;
	struct wsd_peer_hello h = raw_hello_body;

	host_start(&b, 3, good_key);
	raw_join(&w, &b, 2, &h);
	cr_assert(RUN_UNTIL(b.ups == 1));
	far_hold(b.far);
	raw_join(&w2, &b, 2, &h);
	cr_assert(RUN_UNTIL(b.ups == 2));
	cr_expect_eq(b.downs, 1);
	cr_expect_eq(b.why, LINK_REPLACED);
	cr_expect_eq(b.agains, 1, "the same run of the peer");
	cr_expect(RUN_UNTIL(hung_up(w.fd)));
	h.boot++;
	raw_join(&w3, &b, 2, &h);
	cr_assert(RUN_UNTIL(b.ups == 3));
	cr_expect_eq(b.agains, 1, "another run");
	cr_expect_eq(n_links(&b), 1);
	far_release(b.far);
	raw_close(&w);
	raw_close(&w2);
	raw_close(&w3);
	link_fini(&b.srv);
}

Test(link, that_is_held_is_found_dead_and_made_again, .timeout = 60)
{
	static struct host a, b;
	static struct raw w;
	struct link_times *t;
	uint64_t begin;

	host_start(&b, 3, good_key);
	t = link_times(&b.srv);
	t->ping_held = 50000;
	t->dead = 400000;
	t->again_min = 50000;
	raw_join(&w, &b, 2, &raw_hello_body);
	cr_assert(RUN_UNTIL(b.ups == 1));
	far_hold(b.far);
	begin = clock_us();
	/* the raw peer answers nothing */
	cr_assert(RUN_UNTIL(b.downs == 1));
	cr_expect_eq(b.why, LINK_LOST);
	cr_expect(clock_us() - begin >= 300000);
	raw_close(&w);
	/* a daemon comes up there: nobody asks for the link, it is held */
	host_start(&a, 2, good_key);
	cr_expect(RUN_UNTIL(b.ups == 2 && a.ups == 1));
	cr_expect_eq(b.downs, 1);
	/* and lives, as long as it is answered */
	begin = clock_us();
	cr_expect(RUN_UNTIL(clock_us() - begin > 3 * t->dead));
	cr_expect_eq(b.downs, 1);
	far_release(b.far);
	link_fini(&a.srv);
	link_fini(&b.srv);
}

Test(link, that_is_idle_is_closed_unless_a_side_holds_it, .timeout = 60)
{
	static struct host a, b;
	struct link_times *t;
	uint64_t begin;

	host_start(&a, 2, good_key);
	host_start(&b, 3, good_key);
	t = link_times(&a.srv);
	t->idle = 300000;
	t->ping_held = t->ping_idle = 50000;
	*link_times(&b.srv) = *t;
	join(&a, &b);
	far_hold(a.far);
	begin = clock_us();
	cr_expect(RUN_UNTIL(clock_us() - begin > 4 * t->idle));
	cr_expect_eq(a.downs + b.downs, 0, "one side holds it");
	far_release(a.far);
	cr_expect(RUN_UNTIL(a.downs && b.downs));
	cr_expect(a.why == LINK_IDLE && b.why == LINK_IDLE, "%s %s", link_why_text(a.why), link_why_text(b.why));
	cr_expect_eq(get(&b, 2), -EINPROGRESS, "and made again when it is wanted");
	cr_expect(RUN_UNTIL(a.ups == 2 && b.ups == 2));
	cr_expect_eq(a.agains + b.agains, 2);
	link_fini(&a.srv);
	link_fini(&b.srv);
}

/* ---- who is not there ---- */

static uint64_t retry_in(struct host *h)
{
	struct wsd_msg_status_peer p = { 0 };

	far_describe(h->far, &p);
	cr_expect_eq(p.state, WSD_PEER_LINK_NONE);
	cr_expect_neq(p.why[0], 0);
	return p.retry_us;
}

Test(link, to_nobody_is_not_tried_again_for_a_while, .timeout = 60)
{
	static struct host a, b;
	uint64_t first;
	unsigned i;

	host_start(&a, 2, good_key);
	cr_assert_eq(get(&a, 3), -EINPROGRESS);
	cr_assert(RUN_UNTIL(a.downs == 1));
	cr_expect_eq(a.why, LINK_ABSENT);
	cr_expect_eq(get(&a, 3), -EHOSTDOWN);
	first = retry_in(&a);
	cr_expect(first > 55000000 && first <= 60000000, "%lu", first);
	for (i = 0; i < 5; i++) {
		link_times(&a.srv)->absent_min = 1;	/* as if that time had passed */
		link_times(&a.srv)->absent_max = 1;
		link_retry(&a.srv);
		cr_assert_eq(get(&a, 3), -EINPROGRESS);
		cr_assert(RUN_UNTIL(a.downs == i + 2));
	}
	cr_expect(RUN_UNTIL(get(&a, 3) == -EINPROGRESS), "the pause ends by itself");
	cr_assert(RUN_UNTIL(a.downs == 7));
	/* each failure in a row doubles it, up to a limit */
	link_times(&a.srv)->absent_min = 60000000;
	link_times(&a.srv)->absent_max = 600000000;
	cr_expect(RUN_UNTIL(get(&a, 3) == -EINPROGRESS));
	cr_assert(RUN_UNTIL(a.downs == 8));
	cr_expect(retry_in(&a) > 230000000, "%lu", retry_in(&a));
	/* who comes to us is there */
	host_start(&b, 3, good_key);
	cr_expect_eq(get(&a, 3), -EHOSTDOWN);
	cr_assert_eq(get(&b, 2), -EINPROGRESS);
	cr_assert(RUN_UNTIL(a.ups == 1));
	cr_expect_eq(get(&a, 3), 0);
	link_fini(&b.srv);
	cr_assert(RUN_UNTIL(a.downs == 9));
	link_times(&a.srv)->again_min = 0;
	cr_expect(RUN_UNTIL(get(&a, 3) == -EINPROGRESS), "it was there a moment ago");
	cr_assert(RUN_UNTIL(a.downs == 10));
	first = retry_in(&a);
	cr_expect(first > 0 && first <= 1000000, "soon: %lu", first);
	cr_expect(RUN_UNTIL(get(&a, 3) == -EINPROGRESS));
	cr_assert(RUN_UNTIL(a.downs == 11));
	first = retry_in(&a);
	cr_expect(first > 1000000 && first <= 2000000, "%lu", first);
	link_fini(&a.srv);
}

/* it was there a moment ago, and that is no reason to ask it again soon */
Test(link, who_broke_the_protocol_is_left_alone_for_long, .timeout = 60)
{
	static struct host b;
	static struct raw w;

	host_start(&b, 3, good_key);
	raw_join(&w, &b, 2, &raw_hello_body);
	cr_assert(RUN_UNTIL(b.ups == 1));
	raw_send(&w, WSD_PEER_READY, 0, NULL, 0, NULL, 0);		/* of no session */
	cr_expect_eq(raw_bye(&w), WSD_PEER_BYE_PROTOCOL);
	cr_assert(RUN_UNTIL(b.downs == 1));
	raw_close(&w);
	cr_expect_eq(get(&b, 2), -EHOSTDOWN);
	cr_expect(retry_in(&b) > 50000000, "%lu", retry_in(&b));
	link_fini(&b.srv);
}

Test(link, to_somebody_silent_costs_no_more_than_its_time, .timeout = 60)
{
	static struct host a;
	uint64_t begin;
	int fd[8], l, i;

	host_start(&a, 2, good_key);
	link_times(&a.srv)->connect = 200000;
	l = tcp_listener(3, 0);		/* full: the kernel drops what comes */
	for (i = 0; i < 8; i++) {
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(WSD_PEER_PORT) };
		struct wsd_addr w = addr(3);

		memcpy(&to.sin_addr, w.ip, 4);
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(fd[i], (struct sockaddr *)&to, sizeof(to));
	}
	begin = clock_us();
	cr_assert_eq(get(&a, 3), -EINPROGRESS);
	cr_expect(clock_us() - begin < 100000, "asking does not wait");
	cr_assert(RUN_UNTIL(a.downs == 1));
	cr_expect_eq(a.why, LINK_SILENT, "%s", link_why_text(a.why));
	cr_expect_eq(get(&a, 3), -EHOSTDOWN);
	for (i = 0; i < 8; i++)
		close(fd[i]);
	close(l);
	/* one that accepts and says nothing */
	link_times(&a.srv)->handshake = 200000;
	l = tcp_listener(4, 5);
	cr_assert_eq(get(&a, 4), -EINPROGRESS);
	cr_assert(RUN_UNTIL(a.downs == 2));
	cr_expect_eq(a.why, LINK_SILENT, "%s", link_why_text(a.why));
	close(l);
	link_fini(&a.srv);
}

Test(link, tables_have_ends, .timeout = 60)
{
	static struct host a;
	struct wsd_addr l, r;
	struct far *f, *held;
	unsigned i, n = 0;

	host_start(&a, 2, good_key);
	set(&a.srv.cfg.san, "subnets", "127.0.0.0/8");
	link_times(&a.srv)->connect = 100000;
	l = addr(2);
	r = (struct wsd_addr){ .family = AF_INET, .ip = { 127, 250, 0, 1 } };
	cr_assert_eq(link_get(&a.srv, &l, &r, &held), -EINPROGRESS);
	far_hold(held);
	for (i = 0; i < 3 * LINK_FARS_MAX; i++) {
		r.ip[2] = (uint8_t)(i >> 8);
		r.ip[3] = (uint8_t)i;
		cr_assert(RUN_UNTIL(link_get(&a.srv, &l, &r, &f) != 0 && (f || i % 16)), "%u", i);
		if (i % 16 == 15)
			sd_event_run(loop, 0);
	}
	settle();
	for (f = NULL; (f = far_next(&a.srv, f)); n++)
		;
	cr_expect_leq(n, LINK_FARS_MAX);
	cr_expect_gt(n, LINK_FARS_MAX / 2);
	cr_expect_eq(far_remote_ip(held)[13], 250, "a held one stays");
	far_release(held);
	link_fini(&a.srv);
}

Test(link, is_off_without_a_key, .timeout = 60)
{
	static struct host a;
	int fd;

	init_loop();
	a.n = 2;
	a.srv.event = loop;
	san_config_default(&a.srv.cfg.san);
	set(&a.srv.cfg.san, "subnets", "127.0.0.0/8");
	set(&a.srv.cfg.san, "listen", "%u.%u.%u.2", net[0], net[1], net[2]);
	cr_assert_eq(san_config_finish(&a.srv.cfg.san, false), 0);
	cr_expect(!a.srv.cfg.san.peers && a.srv.cfg.san.why_off);
	cr_assert_eq(link_init(&a.srv), 0);
	cr_expect_null(a.srv.links);
	cr_expect_eq(get(&a, 3), -EHOSTDOWN);
	cr_expect_eq(why(&a, 3), LINK_OFF);
	fd = tcp_listener(2, 1);	/* nobody else listens there */
	close(fd);
	link_retry(&a.srv);
	link_rescan(&a.srv);
	cr_expect_null(far_next(&a.srv, NULL));
	link_fini(&a.srv);
}

/* ---- sessions behind a link ---- */

/* a live one, of nobody's client, that has sent @posted ring bytes */
static struct remote *session(struct host *h, uint64_t id, uint64_t posted)
{
	struct memory_params p = { .session_id = id, .nonce = 1, .epoch = 1, .ring0 = 8192, .ring1_max = 65536, .fill_max = 65536 };
	struct san *san = &h->srv.san;
	struct remote *r = calloc(1, sizeof(*r));

	if (!san->fill) {
		if (!san->n_remotes)
			TAILQ_INIT(&san->remotes);
		san->fill = calloc(1, sizeof(struct fill_buffer));
		cr_assert_not_null(san->fill);
	}
	r->srv = &h->srv;
	h->srv.quota = (struct quota_limits){ .sessions = 100, .bytes = 1u << 30 };
	r->user = user_get(&h->srv.users, 1);
	cr_assert_eq(quota_charge_one(&h->srv.quota, r->user, 0), 0);
	r->user->n_remotes++;
	r->state = REMOTE_LIVE;
	r->id = r->key.id = id;
	r->epoch = 1;
	r->key.far = h->far;
	cr_assert_eq(memory_make(&r->mem, &p), 0);
	atomic_store(&r->mem.rs->posted, posted);
	HASH_ADD(hh, san->by_far, key, sizeof(r->key), r);
	far_hold(h->far);
	TAILQ_INSERT_TAIL(&san->remotes, r, link);
	san->n_remotes++;
	san->n_sessions++;
	return r;
}

static void sessions_fini(struct host *h)
{
	h->srv.san.sweep = sd_event_source_disable_unref(h->srv.san.sweep);
	free(h->srv.san.fill);
	link_fini(&h->srv);
}

/* its last bytes wait for room, and the other end is not interested any more */
Test(link, withdrawn_session_whose_end_is_gone_is_gone, .timeout = 60)
{
	static struct host a, b;
	struct peer_msg m = { .hdr = { .type = WSD_PEER_WITHDRAW, .id = 2 }, .body.reason.reason = WSD_R_OPTION };

	host_start(&a, 2, good_key);
	host_start(&b, 3, good_key);
	join(&a, &b);
	remote_hear(session(&a, 2, 100), &m);
	cr_expect_eq(a.srv.san.n_remotes, 0);
	sessions_fini(&a);
	link_fini(&b.srv);
}

/* ... or ENDED alone found no room */
Test(link, last_word_of_a_session_is_said_when_there_is_room, .timeout = 60)
{
	static struct host a, b;

	host_start(&a, 2, good_key);
	host_start(&b, 3, good_key);
	join(&a, &b);
	(void)session(&a, 2, 100);
	remote_far_room(a.far);
	cr_expect_eq(a.srv.san.n_remotes, 0);
	cr_expect(RUN_UNTIL(b.types[WSD_PEER_ENDED] == 1));
	cr_expect_eq(b.types[WSD_PEER_FILL], 1);
	/* nothing tells that there is memory again */
	(void)session(&a, 4, 100);
	san_sweep_start(&a.srv);
	cr_expect(RUN_UNTIL(b.types[WSD_PEER_ENDED] == 2));
	cr_expect_eq(a.srv.san.n_remotes, 0);
	sessions_fini(&a);
	link_fini(&b.srv);
}

Test(link, what_was_due_while_it_was_down_is_said_over_the_next, .timeout = 60)
{
	static struct host a, b;
	struct wsd_peer_state_of of = { .id = 2, .epoch = 1 };
	struct peer_msg half = { .hdr.type = WSD_PEER_STATE, .body.state = { .n = 1, .more = 1 }, .tail = (uint8_t *)&of,
				 .n_tail = sizeof(of) };
	struct conn c = { .n_remotes = 1 };
	struct end e = { .srv = &a.srv };
	struct remote *r;

	host_start(&a, 2, good_key);
	host_start(&b, 3, good_key);
	join(&a, &b);
	r = session(&a, 2, 100);
	r->end = &e;
	e.rdma = r;
	r->maker = &c;
	c.srv = &a.srv;
	remote_state_came(a.far, &half);
	cr_expect(r->listed);
	link_fini(&b.srv);
	cr_assert(RUN_UNTIL(a.downs == 1));
	remote_far_down(a.far);
	cr_expect_not(r->listed, "of the list's other half nobody knows");
	remote_maker_gone(&c);
	cr_expect_eq(atomic_load(&r->mem.rs->owner_gone), 1);
	remote_still_held(&e);
	host_start(&b, 3, good_key);
	cr_assert(RUN_UNTIL(a.ups == 2));
	remote_far_up(a.far, true);
	cr_expect(RUN_UNTIL(b.types[WSD_PEER_WANT_RETURN] == 1 && b.types[WSD_PEER_FILL] == 1), "%u %u",
		  b.types[WSD_PEER_WANT_RETURN], b.types[WSD_PEER_FILL]);
	remote_drop(r);
	sessions_fini(&a);
	link_fini(&b.srv);
}

/* a ring that goes by the daemon costs it more than a request does, and others want to be heard */
Test(link, bytes_that_a_client_has_carried_come_out_of_its_rate, .timeout = 60)
{
	static struct host a, b;
	struct wsd_msg_san_plain m = { .session_id = 2, .what = WSD_SAN_FILL, .b = 8000 };
	struct conn c = { .tokens = 10 };
	struct end e = { .srv = &a.srv, .conn = &c };

	host_start(&a, 2, good_key);
	host_start(&b, 3, good_key);
	join(&a, &b);
	e.rdma = session(&a, 2, 8000);
	e.rdma->end = &e;
	remote_ask(&e, &m);
	cr_expect_eq(c.tokens, 9);
	remote_ask(&e, &m);
	cr_expect_eq(c.tokens, 9, "it has gone");
	conn_charge(&c, 11);
	cr_expect_eq(c.tokens, 0);
	e.rdma->end = NULL;
	remote_drop(e.rdma);
	sessions_fini(&a);
	link_fini(&b.srv);
}

/* ---- a peer that has the key, and says anything ---- */

#define SAYS		20000u
#define ENDS		6u

static uint32_t dice_state = 1;

static uint32_t dice(uint32_t n)
{
	dice_state = dice_state * 1664525u + 1013904223u;
	return (dice_state >> 8) % n;
}

static uint64_t any_number(void)
{
	static const uint64_t near[] = { 0, 1, 100, 4096, 8192, 61440, 65536, 1u << 20, UINT32_MAX, UINT64_MAX / 2, UINT64_MAX - 5000, UINT64_MAX };

	return near[dice(sizeof(near) / sizeof(*near))] + (dice(2) ? dice(200) : 0);
}

/* a message that is mostly sound: what it claims is not */
static int anything(uint8_t *buf, const uint8_t ip[2][16])
{
	static uint8_t tail[2048];
	uint16_t type = (uint16_t)(dice(50) ? WSD_PEER_OFFER + dice(_WSD_PEER_TYPES - WSD_PEER_OFFER) : dice(12));
	uint64_t id = dice(8) ? 2 * (1 + dice(ENDS)) : 2 * (uint64_t)dice(500) + dice(2);
	union peer_body b;
	size_t n = 0, m = 0;
	unsigned i;

	for (i = 0; i < sizeof(b) / 8; i++)
		((uint64_t *)&b)[i] = any_number();
	switch (type) {
	case WSD_PEER_OFFER:
		n = sizeof(b.offer);
		memcpy(b.offer.local.ip, ip[0], 16);
		memcpy(b.offer.remote.ip, ip[1], 16);
		b.offer.local.port = b.offer.remote.port = 1;
		id += 1000 + 2 * dice(4000);
		break;
	case WSD_PEER_FOUND:
		n = sizeof(b.found);
		b.found.n_tx = dice(4);
		b.found.n_rx = dice(4);
		break;
	case WSD_PEER_SETUP:
		n = sizeof(b.setup);
		break;
	case WSD_PEER_REFUSE: case WSD_PEER_WITHDRAW:
		n = sizeof(b.reason);
		if (dice(8))	/* else sessions are over too soon */
			return 0;
		break;
	case WSD_PEER_DECIDED:
		n = sizeof(b.reason);
		b.reason.reason = 1 + dice(2);
		break;
	case WSD_PEER_ENDED:
		n = sizeof(b.ended);
		break;
	case WSD_PEER_HEAD_IS:
		n = sizeof(b.head);
		break;
	case WSD_PEER_PLAIN_AT: case WSD_PEER_PLAIN_IS:
		n = sizeof(b.plain);
		break;
	case WSD_PEER_LOCAL:
		m = dice(WSD_PEER_BLOB_MAX + 1);
		break;
	case WSD_PEER_FILL:
		n = sizeof(b.fill);
		b.fill.from = dice(3) ? dice(3000) : any_number();
		b.fill.n_seams = dice(4);
		b.fill.len = dice(1500);
		m = b.fill.n_seams * sizeof(struct wsd_peer_seam) + b.fill.len;
		for (i = 0; i < b.fill.n_seams; i++)
			memcpy(tail + i * sizeof(struct wsd_peer_seam),
			       &(struct wsd_peer_seam){ .ring_off = b.fill.from + dice(1600), .n = dice(80), .ring = dice(3) },
			       sizeof(struct wsd_peer_seam));
		break;
	case WSD_PEER_STATE:
		n = sizeof(b.state);
		b.state.n = dice(4);
		b.state.more = dice(20) != 0;
		m = b.state.n * sizeof(struct wsd_peer_state_of);
		for (i = 0; i < b.state.n; i++)
			memcpy(tail + i * sizeof(struct wsd_peer_state_of), &(struct wsd_peer_state_of){ .id = 2 * dice(ENDS), .epoch = 1 },
			       sizeof(struct wsd_peer_state_of));
		id = 0;
		break;
	case WSD_PEER_BYE: case WSD_PEER_HELLO:
		return 0;
	case WSD_PEER_PING: case WSD_PEER_PONG:
		n = sizeof(b.ping);
		id = 0;
		break;
	}
	return peer_build(buf, WSD_PEER_MSG_MAX, type, id, &b, n, tail, m);
}

Test(link, of_a_peer_that_says_anything_harms_itself_only, .timeout = 120)
{
	static struct host h;
	static struct raw w;
	static struct conn c;
	static struct end e[ENDS];
	static uint8_t buf[WSD_PEER_MSG_MAX], waste[16384];
	struct wsd_addr local, remote;
	struct netns ns = { 0 };
	uint64_t filled[ENDS] = { 0 }, now;
	struct remote *r;
	uint8_t ip[2][16];
	unsigned i, k, joins = 0;
	ssize_t n;
	int len;

	host_start(&h, 3, good_key);
	TAILQ_INIT(&h.srv.san.distants);
	TAILQ_INIT(&h.srv.san.remotes);
	distant_init(&h.srv);
	local = addr(3);
	remote = addr(2);
	ip_of(ip[0], 2);
	ip_of(ip[1], 3);
	cr_assert_eq(diag_open(&ns.diag), 0);
	c.dead = true;		/* what it is told goes nowhere */
	c.srv = &h.srv;
	for (i = 0; i < SAYS; i++) {
		if (!w.gs) {
			raw_join(&w, &h, 2, &raw_hello_body);
			cr_assert(RUN_UNTIL(link_get(&h.srv, &local, &remote, &h.far) == 0));
			joins++;
		}
		for (k = 0; k < ENDS && !(i % 64); k++) {
			if (e[k].rdma)
				continue;
			e[k] = (struct end){ .srv = &h.srv, .state = END_REMOTE, .conn = &c, .ns = &ns, .local = local, .remote = remote };
			r = session(&h, 2 * (k + 1), dice(9000));
			if (k % 3 == 2)
				continue;	/* nobody's any more: its last bytes are due */
			r->end = &e[k];
			e[k].rdma = r;
			filled[k] = 0;
			r->ready = r->told_remote = dice(2);
			if (dice(2))
				continue;
			r->state = REMOTE_SETUP;
			h.srv.san.n_sessions--;
		}
		len = anything(buf, (const uint8_t (*)[16])ip);
		if (len <= 0)
			continue;
		if (!dice(400))
			buf[dice(16)] ^= (uint8_t)dice(256);	/* and now and then it is not */
		while ((n = gnutls_record_send(w.gs, buf, (size_t)len)) == GNUTLS_E_AGAIN)
			sd_event_run(loop, 100);
		sd_event_run(loop, 0);
		for (k = 0; k < ENDS; k++) {
			r = e[k].rdma;
			if (!r)
				continue;
			now = atomic_load(&r->mem.rs->filled);
			cr_assert(now >= filled[k] && now == r->filled && now < UINT64_MAX / 4);
			cr_assert_leq(r->fill_pages, r->mem.fill_max);
			filled[k] = now;
		}
		cr_assert_leq(h.srv.san.n_distants, DISTANT_KEPT_FAR);
		while (n >= 0 && (n = gnutls_record_recv(w.gs, waste, sizeof(waste))) > 0)
			;
		if (n == GNUTLS_E_AGAIN)
			continue;
		raw_close(&w);
		memset(&w, 0, sizeof(w));
		cr_assert(RUN_UNTIL(n_links(&h) == 0));
	}
	cr_expect(joins > 1 && joins < SAYS / 20, "%u links", joins);
	if (w.gs)
		raw_close(&w);
	settle();
	distant_fini(&h.srv);
	cr_expect_eq(h.srv.san.n_remotes + h.srv.san.n_distants, 0);
	cr_expect_null(h.srv.users, "something is still charged");
	diag_close(ns.diag);
	sessions_fini(&h);
}

/* ---- which key a ClientHello was made with ---- */

static uint8_t hello[2048];
static size_t n_hello;

static ssize_t keep_hello(gnutls_transport_ptr_t p, const void *buf, size_t n)
{
	if (n_hello + n <= sizeof(hello)) {
		memcpy(hello + n_hello, buf, n);
		n_hello += n;
	}
	return (ssize_t)n;
}

static ssize_t nothing_comes(gnutls_transport_ptr_t p, void *buf, size_t n)
{
	errno = EAGAIN;
	return -1;
}

/* of an array of its own, so that a sanitizer sees each byte behind it */
static bool bound(const uint8_t psk[32], const uint8_t *bytes, size_t n)
{
	gnutls_datum_t d = { malloc(n ? n : 1), (unsigned)n };
	bool r;

	memcpy(d.data, bytes, n);
	r = psk_has_bound(psk, &d);
	free(d.data);
	return r;
}

Test(psk, is_told_by_the_binder_alone)
{
	static const uint8_t ip[2][16] = { { 1 }, { 2 } }, key[2][32] = { { 3 }, { 4 } };
	uint8_t psk[2][32], copy[sizeof(hello)], *body;
	gnutls_psk_client_credentials_t cc;
	gnutls_session_t gs;
	unsigned i, k;
	size_t n;

	for (i = 0; i < 2; i++)
		cr_assert_eq(psk_derive(psk[i], key[i], 32, ip), 0);
	gnutls_init(&gs, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
	gnutls_priority_set_direct(gs, psk_only, NULL);
	gnutls_psk_allocate_client_credentials(&cc);
	gnutls_psk_set_client_credentials2(cc, &(gnutls_datum_t){ (unsigned char *)"wsd-peer/1", 10 }, &(gnutls_datum_t){ psk[0], 32 },
					   GNUTLS_PSK_KEY_RAW);
	gnutls_credentials_set(gs, GNUTLS_CRD_PSK, cc);
	gnutls_transport_set_push_function(gs, keep_hello);
	gnutls_transport_set_pull_function(gs, nothing_comes);
	cr_assert_eq(gnutls_handshake(gs), GNUTLS_E_AGAIN);
	gnutls_deinit(gs);
	gnutls_psk_free_client_credentials(cc);
	cr_assert_gt(n_hello, 100);
	body = hello + 9;	/* behind the headers of the record and of the message */
	n = n_hello - 9;
	cr_expect(bound(psk[0], body, n));
	cr_expect_not(bound(psk[1], body, n));
	for (i = 0; i < n; i++) {
		memcpy(copy, body, n);
		copy[i] ^= (uint8_t)(1 + dice(255));
		cr_expect_not(bound(psk[0], copy, n), "byte %u is another one", i);
		cr_expect_not(bound(psk[0], body, i), "%u bytes of it", i);
	}
	for (i = 0; i < 5000; i++) {
		memcpy(copy, body, n);
		for (k = 1 + dice(4); k; k--)
			copy[dice((uint32_t)n)] = (uint8_t)any_number();
		(void)bound(psk[0], copy, dice(2) ? n : dice((uint32_t)n + 1));
	}
}

/* ---- what a peer's SETUP makes our user pay ---- */

/* an accepted connection of host 3's from host 2, as the end that offered it; *ret_other is the connecting one */
static struct end accepted_end(struct host *h, int *ret_other)
{
	struct end e = { .srv = &h->srv, .state = END_REFUSED, .role = WSD_ROLE_ACCEPT, .local = addr(3), .remote = addr(2) };
	struct sockaddr_in at = { .sin_family = AF_INET }, from = at;
	socklen_t len = sizeof(at);
	struct stat st;
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(&at.sin_addr, e.local.ip, 4);
	memcpy(&from.sin_addr, e.remote.ip, 4);
	cr_assert(bind(l, (struct sockaddr *)&at, len) == 0 && listen(l, 1) == 0 && getsockname(l, (struct sockaddr *)&at, &len) == 0);
	*ret_other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(*ret_other, (struct sockaddr *)&from, len) == 0 && connect(*ret_other, (struct sockaddr *)&at, len) == 0);
	e.fd = accept4(l, (struct sockaddr *)&from, &len, SOCK_CLOEXEC);
	cr_assert(e.fd >= 0 && fstat(e.fd, &st) == 0);
	close(l);
	e.local.port = ntohs(at.sin_port);
	e.remote.port = ntohs(from.sin_port);
	e.inode = (uint32_t)st.st_ino;
	len = sizeof(e.sock_cookie);
	cr_assert_eq(getsockopt(e.fd, SOL_SOCKET, SO_COOKIE, &e.sock_cookie, &len), 0);
	return e;
}

static struct peer_msg raw_next_of(struct raw *w, uint16_t type)
{
	struct peer_msg m;

	do
		m = raw_next(w);
	while (m.hdr.type && m.hdr.type != type);
	cr_assert_eq(m.hdr.type, type);
	return m;
}

Test(link, rings_above_what_found_allows_are_refused, .timeout = 60)
{
	static const uint32_t wrong[][2] = { { 16384, 1u << 20 }, { 1u << 20, 1u << 20 }, { 8192, 2u << 20 } };
	static struct host h;
	static struct raw w;
	static struct conn c;
	struct end_san san = { 0 };
	struct netns ns = { 0 };
	struct wsd_peer_offer o = { .uid = 1, .ring0 = 8192, .ring1_max = 1u << 20 };
	struct peer_msg m;
	struct end e;
	unsigned i;
	int other;

	host_start(&h, 3, good_key);
	TAILQ_INIT(&h.srv.san.distants);
	TAILQ_INIT(&h.srv.san.remotes);
	distant_init(&h.srv);
	cr_assert_eq(diag_open(&ns.diag), 0);
	h.srv.san.watching = true;
	ip_of(h.srv.san.devs.gid[0].gid, 3);
	h.srv.san.devs.n = 1;
	c.dead = true;
	c.srv = &h.srv;
	e = accepted_end(&h, &other);
	e.conn = &c;
	e.ns = &ns;
	e.san = &san;
	e.user = user_get(&h.srv.users, 1);
	peer_addr(&o.local, &e.remote);
	peer_addr(&o.remote, &e.local);
	raw_join(&w, &h, 2, &raw_hello_body);
	cr_assert(RUN_UNTIL(link_get(&h.srv, &e.local, &e.remote, &h.far) == 0));
	for (i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		cr_assert_eq(distant_begin(&e), 0);
		raw_send(&w, WSD_PEER_OFFER, 2 * (i + 1), &o, sizeof(o), NULL, 0);
		m = raw_next_of(&w, WSD_PEER_FOUND);
		cr_expect_eq(m.body.found.ring0_max, 8192);
		cr_expect_eq(m.body.found.ring1_max, 1u << 20);
		e.reason = 0;
		raw_send(&w, WSD_PEER_SETUP, 2 * (i + 1), &(struct wsd_peer_setup){ .nonce = 1, .epoch = 1, .ring0 = wrong[i][0],
			 .ring1_max = wrong[i][1], .mtu = 5 }, sizeof(struct wsd_peer_setup), NULL, 0);
		m = raw_next_of(&w, WSD_PEER_WITHDRAW);
		cr_expect_eq(m.body.reason.reason, WSD_R_LIMIT, "reason %u", m.body.reason.reason);
		cr_expect_eq(e.reason, WSD_R_LIMIT);
		cr_expect(!e.distant && !e.rdma && !e.user->bytes && !e.user->n_distants);
	}
	raw_close(&w);
	close(other);
	close(e.fd);
	user_put(&h.srv.users, e.user);
	settle();
	distant_fini(&h.srv);
	cr_expect_null(h.srv.users);
	diag_close(ns.diag);
	sessions_fini(&h);
}

/* ---- bodies grow at their end ---- */

static int parse_found(struct peer_msg *ret, size_t n)
{
	uint8_t buf[512], body[300];
	const char *what = "";
	int len;

	memset(buf, 0x33, sizeof(buf));
	memset(body, 0x11, sizeof(body));
	memset(body + offsetof(struct wsd_peer_found, n_tx), 0, 8);
	/* as a daemon that knows of n bytes would send it */
	len = peer_build(buf, sizeof(buf), WSD_PEER_FOUND, 2, body, n <= sizeof(struct wsd_peer_found) ? n : sizeof(struct wsd_peer_found), NULL, 0);
	cr_assert_gt(len, 0);
	if (n > sizeof(struct wsd_peer_found)) {
		memset(buf + len, 0x22, n - sizeof(struct wsd_peer_found));
		len += (int)(n - sizeof(struct wsd_peer_found));
		((struct wsd_peer_hdr *)buf)->len = (uint32_t)len;
		((struct wsd_peer_hdr *)buf)->body = (uint16_t)n;
	}
	memset(ret, 0xff, sizeof(*ret));
	return peer_parse(ret, buf, (size_t)len, &what);
}

Test(peer_codec, what_an_older_daemon_lacks_is_zero)
{
	struct peer_msg m;

	cr_expect_eq(parse_found(&m, WSD_PEER_FOUND_V1 - 4), -EBADMSG);
	cr_assert_eq(parse_found(&m, WSD_PEER_FOUND_V1), 0);
	cr_expect_eq(m.body.found.flags, 0x11111111u);
	cr_expect(m.body.found.ring0_max == 0 && m.body.found.ring1_max == 0);
	cr_assert_eq(parse_found(&m, WSD_PEER_FOUND_V1 + 4), 0);
	cr_expect(m.body.found.ring0_max == 0x11111111u && m.body.found.ring1_max == 0);
	cr_assert_eq(parse_found(&m, sizeof(struct wsd_peer_found)), 0);
	cr_expect(m.body.found.ring0_max == 0x11111111u && m.body.found.ring1_max == 0x11111111u);
	/* what a newer one says besides is passed over */
	cr_assert_eq(parse_found(&m, sizeof(struct wsd_peer_found) + 24), 0);
	cr_expect_eq(m.body.found.ring1_max, 0x11111111u);
	cr_expect_eq(m.n_tail, 0);
}

/* ---- configuration ---- */

static int try(const char *name, const char *value)
{
	struct san_config c;

	san_config_default(&c);
	return san_config_set(&c, name, value);
}

Test(san_config, takes_what_makes_sense)
{
	static const char *const good[][2] = {
		{ "subnets", "10.7.0.0/24, fd07::/64" }, { "subnets", "10.7.0.1" }, { "subnets", "" }, { "listen", "yes" }, { "listen", "no" },
		{ "listen", "10.7.0.1 fd07::1" }, { "port", "1" }, { "port", "65535" }, { "key-file", "/k" }, { "transport", "verbs" },
		{ "qp-timeout", "31" }, { "qp-retry", "0" }, { "qp-retry", "6" }, { "quota-locked", "1G" }, { "locked-per-qp", "24k" }, { "ring-start", "4k" },
		{ "ring-max", "16M" },
	};
	static const char *const bad[][2] = {
		{ "subnets", "10.7.0.0/33" }, { "subnets", "10.7.0.0/0" }, { "subnets", "0.0.0.0/1" }, { "subnets", "::/1" }, { "subnets", "san" },
		{ "subnets", "10.7.0.0/24/1" }, { "subnets", "169.254.0.0/16" }, { "subnets", "fe80::/10" }, { "subnets", "224.0.0.0/8" },
		{ "subnets", "10.7.0.0/-1" }, { "subnets", "1111111111111111111111111111111111111111111111111111111111111111111111111" },
		{ "listen", "maybe" }, { "listen", "0.0.0.0" }, { "listen", "::" }, { "port", "0" }, { "port", "65536" }, { "port", "x" },
		{ "key-file", "k" }, { "transport", "tcp" }, { "qp-timeout", "0" }, { "qp-timeout", "32" }, { "qp-retry", "7" },
		{ "quota-locked", "-1" }, { "quota-locked", " -1" }, { "port", "+1" }, { "quota-sessions", "" },
		{ "quota-waiting", "0" }, { "quota-locked", "99999999999G" }, { "ring-start", "5k" }, { "ring-start", "2k" }, { "ring-max", "32M" },
	};
	unsigned i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++)
		cr_expect_eq(try(good[i][0], good[i][1]), 0, "%s = %s", good[i][0], good[i][1]);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		cr_expect_eq(try(bad[i][0], bad[i][1]), -EINVAL, "%s = %s", bad[i][0], bad[i][1]);
	cr_expect_eq(try("speed", "fast"), -ENOENT);
}

Test(san_config, says_which_of_many_is_wrong)
{
	struct san_config c;

	san_config_default(&c);
	cr_expect_eq(san_config_set(&c, "subnets", "10.7.0.0/24, 10.8.0.0/33, 10.9.0.0/24"), -EINVAL);
	cr_expect_eq(strncmp(c.wrong, "10.8.0.0/33: ", 13), 0, "%s", c.wrong);
}

static bool covers(const struct san_config *c, const char *one, const char *two)
{
	struct wsd_addr a = { .family = strchr(one, ':') ? AF_INET6 : AF_INET }, b = { .family = strchr(two, ':') ? AF_INET6 : AF_INET };
	uint8_t ia[16], ib[16];

	inet_pton(a.family, one, a.ip);
	inet_pton(b.family, two, b.ip);
	peer_ip(ia, &a);
	peer_ip(ib, &b);
	return san_covers_both(c, ia, ib);
}

Test(san_config, subnets_hold_both_ends)
{
	struct san_config c;
	unsigned i;

	san_config_default(&c);
	cr_assert_eq(san_config_set(&c, "subnets", "10.7.0.77/23"), 0);
	cr_assert_eq(san_config_set(&c, "subnets", "10.8.0.0/24, fd07::/61"), 0, "a second line");
	cr_expect(covers(&c, "10.7.0.1", "10.7.1.255"));
	cr_expect(covers(&c, "::ffff:10.7.0.1", "10.7.1.255"), "a mapped address is the same");
	cr_expect_not(covers(&c, "10.7.0.1", "10.7.2.0"));
	cr_expect_not(covers(&c, "10.7.0.1", "10.6.255.255"));
	cr_expect_not(covers(&c, "10.7.0.1", "10.8.0.1"), "two subnets are two networks");
	cr_expect(covers(&c, "fd07::1", "fd07:0:0:7::1"));
	cr_expect_not(covers(&c, "fd07::1", "fd07:0:0:8::1"));
	cr_expect_not(covers(&c, "fd07::1", "10.7.0.1"));
	for (i = c.n_subnets; i < SAN_SUBNETS_MAX; i++)
		cr_assert_eq(san_config_set(&c, "subnets", "10.9.0.0/24"), 0);
	cr_expect_eq(san_config_set(&c, "subnets", "10.9.0.0/24"), -EINVAL, "one more than fit");
}

Test(san_config, keys_are_hex_or_base64)
{
	uint8_t key[SAN_KEY_MAX];
	char text[200];

	cr_expect_eq(san_key_parse(key, good_key, 64), 32);
	cr_expect(key[1] == 0x11 && key[31] == 0xff);
	snprintf(text, sizeof(text), " \n%s\n", good_key);
	cr_expect_eq(san_key_parse(key, text, strlen(text)), 32);
	snprintf(text, sizeof(text), "%s%s", good_key, other_key);
	cr_expect_eq(san_key_parse(key, text, 128), 64);
	cr_expect_eq(san_key_parse(key, text, 127), -EINVAL, "half a byte");
	cr_expect_eq(san_key_parse(key, text, 62), -EINVAL, "31 bytes in hex are 46 in base64, of which 62 letters are no number");
	cr_expect_eq(san_key_parse(key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", 44), 32);
	cr_expect(key[0] == 0 && key[31] == 31);
	cr_expect_eq(san_key_parse(key, "AAECAwQFBgcICQoLDA0ODw==", 24), -EINVAL, "16 bytes");
	cr_expect_eq(san_key_parse(key, "swordfish", 9), -EINVAL);
	cr_expect_eq(san_key_parse(key, "", 0), -EINVAL);
}

static const char *finish(const char *file, mode_t mode)
{
	struct san_config c;

	chmod(file, mode);
	san_config_default(&c);
	cr_assert_eq(san_config_set(&c, "subnets", "10.7.0.0/24"), 0);
	cr_assert_eq(san_config_set(&c, "key-file", file), 0);
	cr_expect_eq(san_config_finish(&c, false), 0, "this host's connections need no key");
	cr_expect_eq(c.peers, !c.why_off);
	cr_expect_eq(c.key_len, c.peers ? 32 : 0);
	return c.why_off;
}

static void two_files(struct san_config *c, const char *fmt, const char *a, const char *b)
{
	char text[200];

	snprintf(text, sizeof(text), fmt, a, b);
	san_config_default(c);
	cr_assert_eq(san_config_set(c, "subnets", "10.7.0.0/24"), 0);
	cr_assert_eq(san_config_set(c, "key-file", text), 0, "%s: %s", text, c->wrong);
	cr_expect_eq(san_config_finish(c, false), 0);
}

Test(san_config, a_second_key_is_the_older_one)
{
	char file[2][24] = { "/tmp/wsd-key-XXXXXX", "/tmp/wsd-key-XXXXXX" };
	struct san_config c;
	int i, fd;

	for (i = 0; i < 2; i++) {
		fd = mkstemp(file[i]);
		cr_assert_eq(write(fd, i ? other_key : good_key, 64), 64);
		close(fd);
	}
	two_files(&c, "%s, %s", file[0], file[1]);
	cr_expect(c.peers && c.key_len == 32 && c.old_key_len == 32 && c.key[0] == 0 && c.old_key[0] == 0x10);
	two_files(&c, " %s  %s ", file[1], file[0]);
	cr_expect(c.peers && c.key_len == 32 && c.old_key_len == 32 && c.key[0] == 0x10 && c.old_key[0] == 0);
	cr_expect_eq(san_config_set(&c, "key-file", file[0]), -EINVAL, "a second line");
	cr_expect_not_null(strstr(c.wrong, "one line"));
	two_files(&c, "%s", file[0], "");
	cr_expect(c.peers && c.key_len == 32 && !c.old_key_len);
	/* without the older one it goes on, without the other it does not */
	two_files(&c, "%s, %s.none", file[0], file[1]);
	cr_expect(c.peers && c.key_len == 32 && !c.old_key_len);
	two_files(&c, "%s.none, %s", file[0], file[1]);
	cr_expect(!c.peers && !c.key_len && c.why_off);
	cr_expect_eq(try("key-file", "/a, /b, /c"), -EINVAL);
	cr_expect_eq(try("key-file", "/a, b"), -EINVAL);
	cr_expect_eq(try("key-file", ""), -EINVAL);
	unlink(file[0]);
	unlink(file[1]);
}

Test(san_config, key_files_are_their_owners_alone)
{
	char file[] = "/tmp/wsd-key-XXXXXX", other[64];
	int fd = mkstemp(file);
	struct san_config c;

	cr_assert_eq(write(fd, good_key, 64), 64);
	cr_expect_null(finish(file, 0600));
	cr_expect_null(finish(file, 0400));
	cr_expect_not_null(finish(file, 0640));
	cr_expect_not_null(finish(file, 0604));
	if (geteuid() == 0) {
		cr_assert_eq(fchown(fd, 4242, 0), 0);
		cr_expect_not_null(finish(file, 0600), "somebody else may change it");
		cr_assert_eq(fchown(fd, 0, 0), 0);
	}
	snprintf(other, sizeof(other), "%s.link", file);
	cr_assert_eq(symlink(file, other), 0);
	cr_expect_not_null(finish(other, 0600));
	unlink(other);
	cr_expect_not_null(finish(other, 0600), "not there");
	cr_expect_not_null(finish("/dev/null", 0666), "no file");
	cr_assert_eq(ftruncate(fd, 20), 0);
	cr_expect_not_null(finish(file, 0600), "short");
	cr_assert_eq(ftruncate(fd, 100000), 0);
	cr_expect_not_null(finish(file, 0600), "long");
	close(fd);
	unlink(file);
	san_config_default(&c);
	cr_expect_eq(san_config_finish(&c, false), 0);
	cr_expect_not(c.peers);
	san_config_set(&c, "ring-start", "2M");
	cr_expect_eq(san_config_finish(&c, false), -EINVAL);
}
