/* SPDX-License-Identifier: MIT */
/* test-catalog.c - the catalog: what counts, what is refused and how it is said, changing it */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <wsd/catalog.h>

#define ID1 "{3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d001}"
#define ID2 "3D2F0A61-5C0E-4B57-9A3B-6F1F2C77D002"
#define LIST "[TCP on SAN]\n"
#define ENTRY "[provider one]\nid = " ID1 "\npath = /lib/one.so\n"

static struct wsd_provider p[WSD_CATALOG_PROVIDERS];
static struct wsd_catalog_error err;
static unsigned n;

static int parse(const char *text)
{
	n = 99;
	return wsd_catalog_parse("/etc/wsd/c.ini", text, strlen(text), p, WSD_CATALOG_PROVIDERS, &n, &err);
}

Test(catalog, entry_and_list_are_both_needed)
{
	cr_assert_eq(parse(ENTRY "flags = PFL_HIDDEN\n\n[provider two]\nid = " ID2 "\npath=two.so ; beside it\n"
			   "family = AF_INET6\nservice_flags = GUARANTEED_DELIVERY | GRACEFUL_CLOSE\nversion = 0x3\n"
			   LIST "x = " ID1 "\n"), 0, "%s", err.text);
	cr_assert_eq(n, 2);
	cr_assert_str_eq(err.text, "");
	cr_assert(p[0].listed);
	cr_assert_not(p[1].listed);
	cr_assert_str_eq(p[0].file, "/lib/one.so");
	cr_assert_str_eq(p[1].file, "/etc/wsd/two.so");
	cr_assert_eq(p[0].info.dwProviderFlags, PFL_HIDDEN);
	cr_assert_eq(p[0].info.ProviderId.Data1, 0x3d2f0a61);
	cr_assert_eq(p[0].info.ProviderId.Data4[7], 1);
	cr_assert_eq(p[0].info.ProtocolChain.ChainLen, BASE_PROTOCOL);
	cr_assert_eq(p[0].info.szProtocol[0], 'o');
	cr_assert_eq(p[1].info.iAddressFamily, AF_INET6);
	cr_assert_eq(p[1].info.dwServiceFlags1, XP1_GUARANTEED_DELIVERY | XP1_GRACEFUL_CLOSE);
	cr_assert_eq(p[1].info.iVersion, 3);
	cr_assert_eq(p[1].info.dwCatalogEntryId, 1002);
}

Test(catalog, oddities_of_the_list_are_warnings)
{
	cr_assert_eq(parse(ENTRY LIST "a = " ID1 "\nb = " ID1 "\n"), 0);
	cr_assert(strstr(err.text, "second time"), "%s", err.text);
	cr_assert(p[0].listed);
	cr_assert_eq(parse(LIST "a = " ID1 "\n"), 0);
	cr_assert(strstr(err.text, "no entry"), "%s", err.text);
	cr_assert_eq(n, 0);
	cr_assert_eq(parse(""), 0);
	cr_assert_eq(n, 0);
}

/* each: the line and a word that the text must have */
static const struct {
	const char *text, *line, *word;
} bad[] = {
	{ "[provider one]\nid = 12\n", ":2:", "GUID" },
	{ "[provider one]\nid = " ID1 "x\n", ":2:", "GUID" },
	{ "[provider one]\nid = " ID1 "\n", ":2:", "path" },
	{ "# c\n[provider one]\npath = /x\n", ":3:", "no id" },
	{ ENTRY "path = /y\n", ":4:", "twice" },
	{ ENTRY "color = red\n", ":4:", "unknown key" },
	{ ENTRY "flags = PFL_NONE\n", ":4:", "flags" },
	{ ENTRY "version = -1\n", ":4:", "version" },
	{ ENTRY "version = 99999999999999999999\n", ":4:", "version" },
	{ ENTRY "sockaddr_max = 4096\n", ":4:", "from" },
	{ ENTRY "options =\n", ":4:", "no value" },
	{ ENTRY "options = a\x01" "b\n", ":4:", "control" },
	{ ENTRY "protocol = \xc3\xa4\n", ":4:", "ASCII" },
	{ ENTRY "[provider two]\nid = " ID1 "\npath = /x\n", ":5:", "same id" },
	{ "[provider o ne]\nid = " ID1 "\n", ":2:", "name" },
	{ "[other]\na = b\n", ":2:", "section" },
	{ "a = b\n", ":1:", "section" },
	{ "[provider one\n", ":1:", "neither" },
	{ "rubbish\n", ":1:", "neither" },
	{ "[provider one]\nid = " ID1 "\npath = ../x.so\n", ":3:", ".." },
	{ "[provider one]\nid = " ID1 "\npath = /a/../x.so\n", ":3:", ".." },
	{ LIST "a = b\n", ":2:", "GUID" },
	{ LIST "a = " ID1 "\na = " ID2 "\n", ":3:", "twice" },
};

Test(catalog, malformed_is_refused_with_file_line_and_what)
{
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(parse(bad[i].text), WSD_CATALOG_E_SYNTAX, "%s", bad[i].text);
		cr_assert_eq(n, 0, "half a catalog: %s", bad[i].text);
		cr_assert(strstr(err.text, "/etc/wsd/c.ini"), "%s", err.text);
		cr_assert(strstr(err.text, bad[i].line), "%s, wanted %s", err.text, bad[i].line);
		cr_assert(strstr(err.text, bad[i].word), "%s, wanted %s", err.text, bad[i].word);
	}
}

Test(catalog, sizes_are_bounded)
{
	char *text = malloc(WSD_CATALOG_BYTES + 2);
	size_t len = 0;

	memset(text, '\n', WSD_CATALOG_BYTES + 2);
	cr_assert_eq(wsd_catalog_parse("c", text, WSD_CATALOG_BYTES, p, 16, &n, &err), 0);
	cr_assert_eq(wsd_catalog_parse("c", text, WSD_CATALOG_BYTES + 1, p, 16, &n, &err), WSD_CATALOG_E_LIMIT);
	memset(text, 'a', WSD_CATALOG_LINE + 10);
	cr_assert_eq(wsd_catalog_parse("c", text, WSD_CATALOG_LINE + 10, p, 16, &n, &err), WSD_CATALOG_E_LIMIT);
	memcpy(text, "[a]\0\n", 5);
	cr_assert_eq(wsd_catalog_parse("c", text, 5, p, 16, &n, &err), WSD_CATALOG_E_SYNTAX);
	for (unsigned i = 0; i < 17; i++)
		len += sprintf(text + len, "[provider n%u]\nid={3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d0%02u}\npath=/x\n", i, i);
	cr_assert_eq(wsd_catalog_parse("c", text, len, p, 16, &n, &err), WSD_CATALOG_E_LIMIT);
	free(text);
	cr_assert_eq(wsd_catalog_parse("c", ENTRY, strlen(ENTRY), p, 0, &n, &err), WSD_CATALOG_E_LIMIT);
}

static char dir[64], file[80];

static void place(const char *text, mode_t mode)
{
	FILE *f;

	if (!dir[0]) {
		strcpy(dir, "/tmp/wsd-cat-XXXXXX");
		cr_assert_not_null(mkdtemp(dir));
		snprintf(file, sizeof(file), "%s/catalog.ini", dir);
	}
	unlink(file);
	if (!text)
		return;
	f = fopen(file, "w");
	fputs(text, f);
	fclose(f);
	cr_assert_eq(chmod(file, mode), 0);
}

static void clean(void)
{
	unlink(file);
	cr_assert_eq(rmdir(dir), 0, "something was left in %s", dir);
}

Test(catalog, whose_file_it_may_be)
{
	place(ENTRY, 0644);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), 0);
	cr_assert_eq(n, 1);
	place(ENTRY, 0664);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), WSD_CATALOG_E_UNSAFE);
	cr_assert(strstr(err.text, file) && strstr(err.text, "written"), "%s", err.text);
	place(ENTRY, 0646);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), WSD_CATALOG_E_UNSAFE);
	if (!geteuid()) {
		place(ENTRY, 0644);
		cr_assert_eq(chown(file, 12345, 0), 0);
		cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), WSD_CATALOG_E_UNSAFE);
	}
	place(NULL, 0);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), -ENOENT);
	cr_assert(strstr(err.text, file), "%s", err.text);
	cr_assert_eq(mkfifo(file, 0600), 0);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), WSD_CATALOG_E_UNSAFE, "and it did not hang");
	clean();
}

Test(catalog, path_comes_from_the_environment)
{
	unsetenv(WSD_CATALOG_ENV);
	cr_assert_str_eq(wsd_catalog_path(), WSD_CATALOG_PATH);
	setenv(WSD_CATALOG_ENV, "/x/y", 1);
	cr_assert_str_eq(wsd_catalog_path(), "/x/y");
}

static struct wsd_provider make(const char *name, const char *id)
{
	struct wsd_provider e;

	wsd_provider_init(&e);
	strcpy(e.name, name);
	strcpy(e.path, "/lib/x.so");
	cr_assert_eq(wsd_guid_parse(id, &e.info.ProviderId), 0);
	e.listed = true;
	return e;
}

Test(catalog, install_and_remove)
{
	struct wsd_provider e = make("two", ID2);
	struct stat st;
	int fd;

	place(ENTRY LIST "one = " ID1 "\nold = {00000000-0000-0000-0000-000000000007}\n", 0640);
	e.info.iAddressFamily = AF_INET6;
	e.info.dwServiceFlags1 |= 0x40000000;
	strcpy(e.options, "a=b c");
	cr_assert_eq(wsd_catalog_install(file, &e, &err), 0, "%s", err.text);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), 0);
	cr_assert_eq(n, 2);
	cr_assert(p[0].listed && p[1].listed);
	cr_assert_eq(p[1].info.iAddressFamily, AF_INET6);
	cr_assert_eq(p[1].info.dwServiceFlags1, e.info.dwServiceFlags1);
	cr_assert_str_eq(p[1].options, "a=b c");
	cr_assert(strstr(err.text, "old"), "another's line is kept");
	cr_assert_eq(stat(file, &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0640);

	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_EXISTS);
	strcpy(e.name, "three");
	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_EXISTS, "same GUID");

	cr_assert_eq(wsd_catalog_remove(file, "nobody", &err), WSD_CATALOG_E_NONE);
	cr_assert_eq(wsd_catalog_remove(file, ID2, &err), 0);
	cr_assert_eq(wsd_catalog_remove(file, "one", &err), 0);
	cr_assert_eq(wsd_catalog_remove(file, "old", &err), 0);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), 0);
	cr_assert_eq(n, 0);
	cr_assert_str_eq(err.text, "");

	place(NULL, 0);
	cr_assert_eq(wsd_catalog_remove(file, "one", &err), WSD_CATALOG_E_NONE);
	cr_assert_eq(wsd_catalog_install(file, &e, &err), 0);
	cr_assert_eq(stat(file, &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0644);

	fd = open(dir, O_RDONLY);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(wsd_catalog_remove(file, "three", &err), WSD_CATALOG_E_BUSY);
	close(fd);
	clean();
}

Test(catalog, what_would_be_unreadable_is_not_written)
{
	struct wsd_provider e = make("two", ID2);

	place(ENTRY, 0644);
	strcpy(e.path, "/lib/x.so ; cut");
	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_INVALID);
	strcpy(e.path, "/lib/x\n[provider evil]");
	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_INVALID);
	e = make("t]wo", ID2);
	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_INVALID);
	e = make("", ID2);
	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_INVALID);
	cr_assert_eq(wsd_catalog_load(file, p, 16, &n, &err), 0);
	cr_assert_eq(n, 1, "the old file stands");
	/* a malformed catalog is not made good by losing what was in it */
	place("rubbish\n", 0644);
	e = make("two", ID2);
	cr_assert_eq(wsd_catalog_install(file, &e, &err), WSD_CATALOG_E_SYNTAX);
	clean();
}

Test(guid, text_both_ways)
{
	GUID g;
	char s[39];

	cr_assert_eq(wsd_guid_parse(ID2, &g), 0);
	wsd_guid_format(&g, s);
	cr_assert_str_eq(s, "{3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d002}");
	cr_assert_eq(wsd_guid_parse("", &g), -EINVAL);
	cr_assert_eq(wsd_guid_parse("{", &g), -EINVAL);
	cr_assert_eq(wsd_guid_parse("{3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d002", &g), -EINVAL);
	cr_assert_eq(wsd_guid_parse("3d2f0a61-5c0e-4b57-9a3b-6f1f2c77d002}", &g), -EINVAL);
	cr_assert_eq(wsd_guid_parse("3d2f0a61-5c0e-4b57-9a3b_6f1f2c77d002", &g), -EINVAL);
}
