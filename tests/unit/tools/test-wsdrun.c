/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wsd/stats.h>

#include "tools/wsdrun/wsdrun.h"

bool verbose;

void note(const char *fmt, ...)
{
}

static void composes(const char *lib, const char *old, const char *runtime, const char *want)
{
	char *got = preload_compose(lib, old, runtime);

	cr_assert_not_null(got);
	cr_assert_str_eq(got, want, "'%s' with '%s' gave '%s' instead of '%s'", lib ? lib : "-", old ? old : "-", got, want);
	free(got);
}

#define OURS "/x/libwsd_switch.so"

Test(preload, ours_is_first_and_others_stay)
{
	composes(OURS, NULL, NULL, OURS);
	composes(OURS, "", NULL, OURS);
	composes(OURS, "a.so", NULL, OURS ":a.so");
	composes(OURS, "a.so b.so:c.so", NULL, OURS ":a.so:b.so:c.so");
}

Test(preload, sanitizer_runtimes_stay_first)
{
	composes(OURS, "/lib/libasan.so.8", NULL, "/lib/libasan.so.8:" OURS);
	composes(OURS, "libtsan.so.2:a.so", NULL, "libtsan.so.2:" OURS ":a.so");
	composes(OURS, "libasan.so.8:libubsan.so.1 a.so", NULL, "libasan.so.8:libubsan.so.1:" OURS ":a.so");
	composes(OURS, "a.so:libasan.so.8", NULL, OURS ":a.so:libasan.so.8");	/* was not first: not our affair */
}

Test(preload, the_runtime_we_need_is_added_once)
{
	composes(OURS, NULL, "/lib/libasan.so.8", "/lib/libasan.so.8:" OURS);
	composes(OURS, "a.so", "/lib/libasan.so.8", "/lib/libasan.so.8:" OURS ":a.so");
	composes(OURS, "/lib/libasan.so.8", "/lib/libasan.so.8", "/lib/libasan.so.8:" OURS);
}

Test(preload, ours_is_never_there_twice)
{
	composes(OURS, OURS, NULL, OURS);
	composes(OURS, "a.so:/old/libwsd_switch.so", NULL, OURS ":a.so");
}

Test(preload, can_be_taken_out)
{
	composes(NULL, OURS, NULL, "");
	composes(NULL, "a.so:" OURS ":b.so", NULL, "a.so:b.so");
	composes(NULL, NULL, NULL, "");
}

Test(preload, a_path_that_cannot_be_named_is_refused)
{
	cr_assert_null(preload_compose("/a b/libwsd_switch.so", NULL, NULL));
	cr_assert_null(preload_compose("/a:b/libwsd_switch.so", NULL, NULL));
}

static char dir[] = "/tmp/test-wsdrun.XXXXXX";

static void make_dir(void)
{
	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
}

static void remove_dir(void)
{
	cr_assert_eq(chdir("/"), 0);
	cr_assert_eq(unlink("nothing"), -1);
	for (const char *const *n = (const char *const[]){ "a", "b", "c", "d", "e", "f", NULL }; *n; n++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/%s", dir, *n);
		(void)unlink(path);
	}
	rmdir(dir);
}

static void put(const char *name, const char *bytes, size_t n)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0755);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, n), (ssize_t)n);
	close(fd);
}

Test(target, ordinary_programs_are_fine)
{
	cr_assert_eq(target_look("true"), TARGET_FINE);
	cr_assert_eq(target_look("/bin/sh"), TARGET_FINE);
}

Test(target, scripts_are_their_interpreter, .init = make_dir, .fini = remove_dir)
{
	put("a", "#!/bin/sh\n", 10);
	cr_assert_eq(target_look("./a"), TARGET_FINE);
	put("b", "#! ./a -x\n", 10);
	cr_assert_eq(target_look("./b"), TARGET_FINE);
	put("c", "#!./c\n", 6);		/* itself: must end */
	cr_assert_eq(target_look("./c"), TARGET_UNKNOWN);
	put("d", "#!\n", 3);
	cr_assert_eq(target_look("./d"), TARGET_UNKNOWN);
}

Test(target, odd_files_are_told_apart, .init = make_dir, .fini = remove_dir)
{
	char elf[64] = "\177ELF\001\001\001";

	put("a", elf, sizeof(elf));			/* 32 bits */
	cr_assert_eq(target_look("./a"), TARGET_OTHER_ABI);
	put("b", "\177ELF", 4);				/* cut short */
	cr_assert_eq(target_look("./b"), TARGET_OTHER_ABI);
	elf[4] = 2;
	elf[18] = 62;					/* x86_64 without any program header */
	elf[54] = 56;
	put("c", elf, sizeof(elf));
	cr_assert_eq(target_look("./c"), TARGET_STATIC);
	elf[56] = 5;					/* ... that promises headers it has not */
	put("d", elf, sizeof(elf));
	cr_assert_eq(target_look("./d"), TARGET_UNKNOWN);
	put("e", "hello, world\n", 13);
	cr_assert_eq(target_look("./e"), TARGET_NOT_ELF);
	put("f", "", 0);
	cr_assert_eq(target_look("./f"), TARGET_UNKNOWN);
	cr_assert_eq(target_look("./nowhere"), TARGET_UNKNOWN);
	cr_assert_eq(target_look("."), TARGET_UNKNOWN);
	cr_assert_eq(target_look(""), TARGET_UNKNOWN);
}

Test(target, setuid_is_seen)
{
	struct stat st;

	if (geteuid() == 0 || stat("/usr/bin/passwd", &st) < 0 || !(st.st_mode & S_ISUID))
		cr_skip_test("needs to be somebody else than root, and a setuid program");
	cr_assert_eq(target_look("/usr/bin/passwd"), TARGET_PRIVILEGED);
}

Test(endpoint, a_directory_others_can_write_is_refused, .init = make_dir, .fini = remove_dir)
{
	cr_assert_eq(endpoint_check_dir(dir), 0);
	cr_assert_eq(chmod(dir, 0777), 0);
	cr_assert_eq(endpoint_check_dir(dir), ENDPOINT_E_UNSAFE);
	cr_assert_eq(endpoint_make_dir(dir), ENDPOINT_E_UNSAFE);
	cr_assert_eq(chmod(dir, 0770), 0);
	cr_assert_eq(endpoint_check_dir(dir), ENDPOINT_E_UNSAFE);
	cr_assert_eq(endpoint_check_dir("/tmp"), ENDPOINT_E_UNSAFE);
	cr_assert_eq(symlink(dir, "a"), 0);
	cr_assert_eq(endpoint_check_dir("a"), -ENOTDIR);
}

Test(endpoint, paths_too_long_are_told)
{
	char path[300], buf[ENDPOINT_PATH_MAX];
	int fd;

	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	cr_assert_eq(endpoint_connect(&fd, path, NULL), ENDPOINT_E_LONG);
	cr_assert_eq(endpoint_find(buf, path), ENDPOINT_E_LONG);
	setenv("XDG_RUNTIME_DIR", path, 1);
	cr_assert(endpoint_private_dir(buf, 1));
	cr_assert_str_eq(buf, "");
	cr_assert_not(endpoint_private_dir(buf, ENDPOINT_N_DIRS));
}

Test(stats, a_file_that_was_cut_is_an_error_not_a_crash)
{
	struct stats *s = NULL;

	cr_assert_eq(stats_new(&s), 0);
	cr_assert_eq(truncate(getenv(WSD_STATS_ENV), 100), 0);
	cr_assert_eq(stats_read(s), -EBADMSG);
	s = stats_free(s);
	cr_assert_eq(access(getenv(WSD_STATS_ENV), F_OK), -1);
}

Test(stats, a_file_with_another_head_is_an_error)
{
	struct stats *s = NULL;
	int fd;

	cr_assert_eq(stats_new(&s), 0);
	fd = open(getenv(WSD_STATS_ENV), O_WRONLY);
	cr_assert_eq(pwrite(fd, "garbage!", 8, 0), 8);
	close(fd);
	cr_assert_eq(stats_read(s), -EBADMSG);
	stats_free(s);
}

Test(stats, is_nobody_elses)
{
	struct stats *s = NULL;
	struct stat st;

	cr_assert_eq(stats_new(&s), 0);
	cr_assert_eq(stat(getenv(WSD_STATS_ENV), &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0600);
	cr_assert_eq(st.st_size, (off_t)WSD_STATS_LENGTH);
	stats_free(s);
}
