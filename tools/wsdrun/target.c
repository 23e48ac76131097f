/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdrun/wsdrun.h"

#define LOOK	4096	/* bytes of a file that we read: headers and the "#!" line lie there */
#define DEPTH	4	/* interpreters of interpreters; the kernel stops there too */

static int open_in_path(const char *cmd)
{
	const char *path = getenv("PATH"), *end;
	char buf[PATH_MAX];
	struct stat st;

	if (strchr(cmd, '/'))
		return open(cmd, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	for (path = path ? path : "/bin:/usr/bin"; ; path = end + 1) {
		end = strchrnul(path, ':');
		if ((size_t)snprintf(buf, sizeof(buf), "%.*s%s%s", (int)(end - path), path, end > path ? "/" : "",
				     cmd) < sizeof(buf) &&
		    stat(buf, &st) == 0 && S_ISREG(st.st_mode) && access(buf, X_OK) == 0)
			return open(buf, O_RDONLY | O_CLOEXEC);
		if (!*end)
			return -1;
	}
}

static enum target_kind look_elf(int fd, const unsigned char *buf, size_t n)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)(const void *)buf;
	char interp[PATH_MAX];
	Elf64_Phdr ph;
	ssize_t r;

	if (n < sizeof(*eh) || eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_machine != EM_X86_64)
		return TARGET_OTHER_ABI;
	if (eh->e_phentsize != sizeof(ph))
		return TARGET_UNKNOWN;
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		if (pread(fd, &ph, sizeof(ph), (off_t)(eh->e_phoff + i * sizeof(ph))) != sizeof(ph))
			return TARGET_UNKNOWN;
		if (ph.p_type != PT_INTERP)
			continue;
		if (!ph.p_filesz || ph.p_filesz > sizeof(interp))
			return TARGET_UNKNOWN;
		r = pread(fd, interp, ph.p_filesz, (off_t)ph.p_offset);
		if (r != (ssize_t)ph.p_filesz || interp[r - 1])
			return TARGET_UNKNOWN;
		/* musl's loader would try to load our library, fail to link it and end the program */
		return strstr(interp, "/ld-linux") ? TARGET_FINE : TARGET_OTHER_ABI;
	}
	return TARGET_STATIC;
}

enum target_kind target_look(const char *cmd)
{
	unsigned char buf[LOOK + 1];
	char name[PATH_MAX];
	ssize_t n;

	if (strlen(cmd) >= sizeof(name))
		return TARGET_UNKNOWN;
	strcpy(name, cmd);

	for (unsigned depth = 0; depth <= DEPTH; depth++) {
		_cleanup_close_ int fd = open_in_path(name);
		struct stat st;
		char *start, *end;

		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
			return TARGET_UNKNOWN;
		n = pread(fd, buf, LOOK, 0);
		if (n < 2)
			return TARGET_UNKNOWN;
		buf[n] = 0;
		if (buf[0] != '#' || buf[1] != '!') {
			if (n < SELFMAG || memcmp(buf, ELFMAG, SELFMAG))
				return TARGET_NOT_ELF;
			if ((st.st_mode & (S_ISUID | S_ISGID) && geteuid() != 0) ||
			    (st.st_mode & S_ISUID && st.st_uid != geteuid()) ||
			    fgetxattr(fd, "security.capability", NULL, 0) > 0)
				return TARGET_PRIVILEGED;
			return look_elf(fd, buf, (size_t)n);
		}
		start = (char *)buf + 2;
		start += strspn(start, " \t");
		end = start + strcspn(start, " \t\r\n");
		if (end == start || (size_t)(end - start) >= sizeof(name))
			return TARGET_UNKNOWN;
		memcpy(name, start, (size_t)(end - start));
		name[end - start] = 0;
	}
	return TARGET_UNKNOWN;
}

const char *target_text(enum target_kind kind)
{
	static const char *const text[_TARGET_N] = {
		[TARGET_FINE] = "can be accelerated",
		[TARGET_UNKNOWN] = "cannot be looked at",
		[TARGET_NOT_ELF] = "is neither an ELF program nor a script with an interpreter",
		[TARGET_OTHER_ABI] = "is for another machine, word size or C library: it stays on TCP",
		[TARGET_STATIC] = "is statically linked: it stays on TCP, though programs it starts may not",
		[TARGET_PRIVILEGED] = "runs with privileges of its own (setuid, setgid or file capabilities): "
				      "the loader takes no library from us, it stays on TCP",
	};

	return (unsigned)kind < _TARGET_N ? text[kind] : "?";
}
