/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "common/reason.h"
#include "tools/lib/human.h"
#include "tools/wsdctl/wsdctl.h"

static void put_u64(json_object *o, const char *key, uint64_t v)
{
	json_object_object_add(o, key, json_object_new_uint64(v));
}

static void put_text(json_object *o, const char *key, const char *v)
{
	json_object_object_add(o, key, json_object_new_string(v));
}

static json_object *json_daemon(const struct status *s)
{
	const struct wsd_msg_status_daemon *d = &s->daemon;
	json_object *o = json_object_new_object();
	char transports[sizeof(d->transports) + 1];

	put_text(o, "socket", s->path);
	json_object_object_add(o, "running", json_object_new_boolean(!s->error));
	if (s->error) {
		put_text(o, "error", status_strerror(s->error));
		return o;
	}
	human_field(transports, sizeof(transports), d->transports, sizeof(d->transports));
	put_u64(o, "pid", d->pid);
	put_u64(o, "uid", d->uid);
	put_u64(o, "uptime_us", d->uptime_us);
	json_object_object_add(o, "unloading", json_object_new_boolean(d->unloading != 0));
	put_text(o, "transports", transports);
	put_u64(o, "clients", d->n_clients);
	put_u64(o, "offers", d->n_offers);
	put_u64(o, "sessions", d->n_sessions);
	put_u64(o, "sessions_total", d->n_sessions_total);
	put_u64(o, "bytes_mapped", d->bytes_mapped);
	put_u64(o, "quota_sessions", d->quota_sessions);
	put_u64(o, "quota_bytes", d->quota_bytes);
	return o;
}

static json_object *json_provider(const struct wsd_provider *p)
{
	json_object *o = json_object_new_object();
	char id[39];

	wsd_guid_format(&p->info.ProviderId, id);
	put_text(o, "name", p->name);
	put_text(o, "id", id);
	put_text(o, "file", p->file);
	json_object_object_add(o, "listed", json_object_new_boolean(p->listed));
	return o;
}

static json_object *json_conn(const struct wsd_msg_status_conn *c)
{
	json_object *o = json_object_new_object();
	char comm[sizeof(c->comm) + 1];

	human_field(comm, sizeof(comm), c->comm, sizeof(c->comm));
	json_object_object_add(o, "session", c->session_id ? json_object_new_uint64(c->session_id) : NULL);
	json_object_object_add(o, "transport", transport_name(c) ? json_object_new_string(transport_name(c)) : NULL);
	put_text(o, "local", addr_text(&c->local).text);
	put_text(o, "remote", addr_text(&c->remote).text);
	put_u64(o, "pid", c->pid);
	put_u64(o, "uid", c->uid);
	put_text(o, "comm", comm);
	json_object_object_add(o, "fd", json_object_new_int(c->fd));
	put_u64(o, "inode", c->inode);
	put_text(o, "role", c->side ? "accept" : "connect");
	put_u64(o, "age_us", c->age_us);
	put_u64(o, "tx_ring", c->tx_ring);
	put_u64(o, "tx_tcp", c->tx_tcp);
	json_object_object_add(o, "gate_open", json_object_new_boolean(c->gate_open != 0));
	json_object_object_add(o, "on_ring", json_object_new_boolean(c->on_ring != 0));
	put_u64(o, "unread", c->unread);
	put_u64(o, "ring_size", c->ring_size);
	json_object_object_add(o, "reason", c->reason ? json_object_new_string(reason_name(c->reason)) : NULL);
	if (c->reason)
		put_text(o, "reason_text", reason_text(c->reason));
	return o;
}

void status_print_json(const struct status *s)
{
	json_object *root = json_object_new_object(), *list;

	json_object_object_add(root, "version", json_object_new_int(1));
	json_object_object_add(root, "daemon", json_daemon(s));

	list = json_object_new_array();
	for (unsigned i = 0; i < s->n_provider; i++)
		json_object_array_add(list, json_provider(&s->provider[i]));
	json_object_object_add(root, "providers", list);
	json_object_object_add(root, "catalog_error",
			       s->catalog_error ? json_object_new_string(s->catalog_text.text) : NULL);

	list = json_object_new_array();
	for (unsigned i = 0; i < s->n_conn; i++)
		json_object_array_add(list, json_conn(&s->conn[i]));
	json_object_object_add(root, "connections", list);
	json_object_object_add(root, "truncated", json_object_new_boolean(s->truncated));

	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}
