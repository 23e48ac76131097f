/* SPDX-License-Identifier: MIT */
/* What the daemon would find: it reads the same files, and no device is opened by either */
#include <arpa/inet.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy_daemon/server/san/dev.h"
#include "tools/wsdctl/wsdctl.h"

static const char *address_of(const struct dev_gid *g, char ret[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)g->gid))
		return inet_ntop(AF_INET, g->gid + 12, ret, INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, g->gid, ret, INET6_ADDRSTRLEN);
}

static void print_json(const struct dev_table *t)
{
	struct json_object *root = json_object_new_object(), *list = json_object_new_array(), *o;
	char ip[INET6_ADDRSTRLEN];
	unsigned i;

	json_object_object_add(root, "version", json_object_new_int(1));
	for (i = 0; i < t->n; i++) {
		o = json_object_new_object();
		json_object_object_add(o, "device", json_object_new_string(t->gid[i].device));
		json_object_object_add(o, "port", json_object_new_int(t->gid[i].port));
		json_object_object_add(o, "netdev", json_object_new_string(t->gid[i].netdev));
		json_object_object_add(o, "gid_index", json_object_new_int(t->gid[i].index));
		json_object_object_add(o, "address", json_object_new_string(address_of(&t->gid[i], ip)));
		json_object_object_add(o, "mtu", json_object_new_int(128 << t->gid[i].mtu));
		json_object_object_add(o, "software", json_object_new_boolean(t->gid[i].soft));
		json_object_array_add(list, o);
	}
	json_object_object_add(root, "devices", list);
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY));
	json_object_put(root);
}

/* as the daemon has it: tests have files of their own */
static const char *sysfs(void)
{
	const char *root = secure_getenv("WSD_TEST_SYSFS");

	return root && root[0] == '/' ? root : "/sys";
}

unsigned devices_words(char *ret, size_t size)
{
	struct dev_table *t = calloc(1, sizeof(*t));
	char ip[INET6_ADDRSTRLEN], more[32] = "";
	unsigned n;

	snprintf(ret, size, "no RDMA device has an active port with a RoCE v2 address");
	if (!t)
		return 0;
	dev_scan(t, sysfs());
	n = t->n;
	if (n > 1)
		snprintf(more, sizeof(more), " and %u more", n - 1);
	if (n)
		snprintf(ret, size, "%s at %s%s", t->gid[0].device, address_of(&t->gid[0], ip), more);
	free(t);
	return n;
}

int devices_print(bool json)
{
	struct dev_table *t = calloc(1, sizeof(*t));
	char ip[INET6_ADDRSTRLEN];
	unsigned i;

	if (!t) {
		complain("no memory");
		return CTL_SYSTEM;
	}
	dev_scan(t, sysfs());
	if (json) {
		print_json(t);
	} else if (!t->n) {
		puts("no RDMA device has an active port with a RoCE v2 address");
	} else {
		printf("%-16s %4s %-12s %5s %5s  %s\n", "DEVICE", "PORT", "NETDEV", "INDEX", "MTU", "ADDRESS");
		for (i = 0; i < t->n; i++)
			printf("%-16s %4u %-12s %5u %5d  %s%s\n", t->gid[i].device, t->gid[i].port, t->gid[i].netdev, t->gid[i].index,
			       128 << t->gid[i].mtu, address_of(&t->gid[i], ip), t->gid[i].soft ? "  (software)" : "");
	}
	free(t);
	return 0;
}
