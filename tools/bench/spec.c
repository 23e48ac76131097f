/* SPDX-License-Identifier: MIT */
/* the parameters of a run as words on a role's command line */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"

#define F(x) { #x, offsetof(struct spec, x) }
static const struct { const char *key; size_t at; } fields[] = {
	F(kind), F(road), F(size), F(take), F(conns), F(ms), F(warm), F(et), F(verify), F(rate), F(cpu), F(port), F(peer),
	F(addr), F(poll), F(ring_only), F(raw),
};
#undef F

static const long size_max[_KIND_N] = {
	[KIND_PINGPONG] = SIZE_MAX_PINGPONG, [KIND_STREAM] = SIZE_MAX_ANY, [KIND_RAW] = SIZE_MAX_ANY, [KIND_CONN] = SIZE_MAX_SMALL,
	[KIND_ECHO] = SIZE_MAX_SMALL, [KIND_OPEN] = SIZE_MAX_SMALL, [KIND_IDLE] = SIZE_MAX_SMALL,
};

void spec_print(struct spec_words *ret, const struct spec *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		snprintf(ret->w[i], SPEC_WORD_LEN, "%s=%ld", fields[i].key, *(const long *)((const char *)s + fields[i].at));
	ret->n = ARRAY_SIZE(fields);
}

int spec_parse(struct spec *ret, char **words, int n)
{
	*ret = (struct spec){ .cpu = -1 };
	for (int k = 0; k < n; k++) {
		char *eq = strchr(words[k], '='), *end;
		unsigned i;

		if (!eq)
			return -EINVAL;
		for (i = 0; i < ARRAY_SIZE(fields); i++)
			if (strlen(fields[i].key) == (size_t)(eq - words[k]) && !strncmp(words[k], fields[i].key, eq - words[k]))
				break;
		if (i == ARRAY_SIZE(fields))
			return -EINVAL;
		errno = 0;
		*(long *)((char *)ret + fields[i].at) = strtol(eq + 1, &end, 10);
		if (errno || *end || end == eq + 1)
			return -EINVAL;
	}
	if (ret->kind < 0 || ret->kind >= _KIND_N || ret->size < 1 || ret->size > size_max[ret->kind] ||
	    ret->road < 0 || ret->road >= _ROAD_N || ret->raw < 0 || ret->raw >= _RAW_N || ret->addr < 0 || ret->addr > UINT32_MAX ||
	    ret->conns < 1 || ret->conns > CONNS_MAX || ret->take < 0 || ret->take > SIZE_MAX_ANY ||
	    ret->ms < 1 || ret->ms > SPEC_MS_MAX || ret->warm < 0 || ret->warm > SPEC_MS_MAX || ret->rate < 0 || ret->rate > 1000000000)
		return -EINVAL;
	return 0;
}
