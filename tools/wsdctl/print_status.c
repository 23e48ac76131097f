/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/reason.h"
#include "tools/lib/human.h"
#include "tools/wsdctl/wsdctl.h"

static void print_daemon(const struct status *s)
{
	const struct wsd_msg_status_daemon *d = &s->daemon;
	char transports[sizeof(d->transports) + 1];

	if (s->error == ENDPOINT_E_NOBODY) {
		printf("daemon     none runs (looked at %s%s)\n", *s->path ? s->path : "?",
		       !strcmp(s->path, WSD_PROXYD_SYSTEM_PATH) ? " and this user's own places" : "");
		return;
	}
	if (s->error) {
		printf("daemon     at %s: %s\n", *s->path ? s->path : "?", status_strerror(s->error));
		return;
	}
	human_field(transports, sizeof(transports), d->transports, sizeof(d->transports));
	printf("daemon     pid %" PRIu32 " (uid %" PRIu32 ") at %s, up %s, transports %s%s\n", d->pid, d->uid, s->path,
	       human_span(d->uptime_us).text, transports, d->unloading ? ", stopping" : "");
	printf("           %" PRIu32 " clients, %" PRIu32 " offers, %" PRIu32 " sessions (%" PRIu64
	       " so far), %s of session memory\n",
	       d->n_clients, d->n_offers, d->n_sessions, d->n_sessions_total, human_bytes(d->bytes_mapped).text);
	printf("           quota for each user: %" PRIu64 " sessions, %s\n", d->quota_sessions,
	       human_bytes(d->quota_bytes).text);
}

static void print_providers(const struct status *s)
{
	char id[39];

	if (s->catalog_error) {
		printf("providers  none: %s\n", s->catalog_text.text);
		return;
	}
	for (unsigned i = 0; i < s->n_provider; i++) {
		wsd_guid_format(&s->provider[i].info.ProviderId, id);
		printf("%-10s %s %s %s%s\n", i ? "" : "providers", s->provider[i].name, id, s->provider[i].file,
		       s->provider[i].listed ? "" : " (not in \"TCP on SAN\": not used)");
	}
	if (!s->n_provider)
		printf("providers  none in %s\n", catalog_path(NULL));
}

static void print_conn(const struct wsd_msg_status_conn *c)
{
	char comm[sizeof(c->comm) + 1], who[48];
	const char *name;

	human_field(comm, sizeof(comm), c->comm, sizeof(c->comm));
	snprintf(who, sizeof(who), "%s[%" PRIu32 "] fd %" PRId32, comm, c->pid, c->fd);
	if (c->session_id)
		printf("  %-6" PRIu64 " ", c->session_id);
	else
		printf("  %-6s ", "-");
	printf("%-28s %-21s %-21s ", who, addr_text(&c->local).text, addr_text(&c->remote).text);
	if (!c->session_id) {
		printf("TCP: %s (%s)\n", reason_text(c->reason), reason_name(c->reason));
		return;
	}
	name = transport_name(c);
	printf("%-5s %9s %9s  %-6s %-4s %8s", name ? name : "?", human_bytes(c->tx_ring).text, human_bytes(c->tx_tcp).text,
	       c->gate_open ? "open" : "closed", c->on_ring ? "ring" : "tcp", human_bytes(c->unread).text);
	if (c->reason)
		printf("  %s (%s)", reason_text(c->reason), reason_name(c->reason));
	putchar('\n');
}

void status_print(const struct status *s)
{
	print_daemon(s);
	print_providers(s);
	if (s->error)
		return;
	if (!s->n_conn) {
		printf("no connection has been offered\n");
		return;
	}
	printf("\n  %-6s %-28s %-21s %-21s %-5s %9s %9s  %-6s %-4s %8s\n", "sess", "process", "local", "remote", "by", "SAN sent",
	       "TCP sent", "gate", "road", "unread");
	for (unsigned i = 0; i < s->n_conn; i++)
		print_conn(&s->conn[i]);
	if (s->truncated)
		printf("  and more than can be shown\n");
}
