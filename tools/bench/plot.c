/* SPDX-License-Identifier: MIT */
/* a picture by gnuplot: ratios of all cases, and throughput over write size if that was measured */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tools/bench/bench.h"

static bool is_stream(const struct bcase *c)
{
	return !strncmp(c->name, "stream/", 7);
}

/* the first metric of each case: what its test is about */
static unsigned plot_ratios(FILE *g, const struct bcase *c, unsigned n, bool write)
{
	double v[ROUNDS_MAX];
	unsigned rows = 0, k;

	for (unsigned i = 0; i < n; i++) {
		if (!c[i].n_want || !(k = case_ratios(v, &c[i], c[i].want[0].m, ROAD_WSD)))
			continue;
		if (write)
			fprintf(g, "\"%s %s\" %g %g %g\n", c[i].name, metric_info[c[i].want[0].m].key, median(v, k), case_worst(&c[i], c[i].want[0].m, ROAD_WSD),
				c[i].want[0].bar ? c[i].want[0].bar : NAN);
		rows++;
	}
	return rows;
}

int plot_write(const char *file, const struct machine *m, const struct bcase *c, unsigned n)
{
	unsigned ratios = plot_ratios(NULL, c, n, false), streams = 0, panels;
	double v[ROUNDS_MAX];
	FILE *g;
	int st;

	for (unsigned i = 0; i < n; i++)
		streams += is_stream(&c[i]) && case_values(v, &c[i], M_BYTES, ROAD_TCP) > 0;
	streams = streams > 1;
	panels = (ratios > 0) + streams;
	if (!panels) {
		fprintf(stderr, "wsd-bench: nothing to draw in %s\n", file);
		return -ENODATA;
	}
	if (strpbrk(file, "'\n")) {	/* it is quoted below */
		fprintf(stderr, "wsd-bench: %s: no quotes in the name of a picture, please\n", file);
		return -EINVAL;
	}
	g = popen("timeout 60 gnuplot", "we");
	if (!g)
		return -errno;
	fprintf(g, "set terminal pngcairo size %u,%u font 'Sans,10'\nset output '%s'\nset multiplot layout %u,1\n",
		ratios * 26 < 900 ? 1000u : ratios * 26 + 100, 560 * panels, file, panels);
	if (ratios) {
		fprintf(g, "$ratio << EOD\n");
		plot_ratios(g, c, n, true);
		fprintf(g, "EOD\nset title 'times better than kernel TCP (median; cross: worst run; line: bar)'\n"
			"set logscale y\nset yrange [0.1:*]\nset grid ytics\nset style fill solid 0.6\nset boxwidth 0.7\n"
			"set rmargin 12\nset xtics rotate by -60 font ',8'\nset key off\n"
			"plot $ratio using 0:2:xtic(1) with boxes lc rgb '#4477aa', '' using 0:3 with points pt 2 lc rgb '#cc3311', "
			"'' using ($0-0.4):4:(0.8):(0) with vectors nohead lw 2 lc rgb '#000000', 1 with lines dt 2 lc rgb '#888888'\n"
			"unset xtics\nset xtics norotate\nunset logscale y\nset yrange [*:*]\n");
	}
	if (streams) {
		for (enum road r = 0; r < _ROAD_N; r++) {
			fprintf(g, "$%s << EOD\n", road_name[r]);
			for (unsigned i = 0; i < n; i++) {
				unsigned k = is_stream(&c[i]) ? case_values(v, &c[i], M_BYTES, r) : 0;

				if (k)
					fprintf(g, "%ld %g\n", c[i].spec.size, median(v, k));
			}
			fprintf(g, "0 NaN\nEOD\n");	/* never empty */
		}
		fprintf(g, "set title 'stream'\nset xlabel 'bytes a write'\nset ylabel 'GB/s'\nset logscale x 2\nset grid\nset key left top\n"
			"set xrange [32:2097152]\nplot $tcp with linespoints title 'kernel TCP', $unix with linespoints title 'AF\\_UNIX', "
			"$wsd with linespoints title 'wsd', %g with lines dt 2 title 'two-copy ring'\n", isnan(m->ring_gbs) ? 0 : m->ring_gbs);
	}
	fprintf(g, "unset multiplot\n");
	st = pclose(g);
	if (st) {
		fprintf(stderr, "wsd-bench: gnuplot made no %s (%s)\n", file, WIFEXITED(st) && WEXITSTATUS(st) == 124 ? "not in a minute" : "is gnuplot installed?");
		return -EIO;
	}
	return 0;
}
