/* SPDX-License-Identifier: MIT */
/*
 * process.c - calls that make a process, replace its image or end it (G8, G19, G22, G27)
 *
 * vfork and clone return twice, or in a child on another stack, so no frame of ours may be there when they do:
 * their stubs call a C function that returns the real address, then jump to it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pty.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utmp.h>

#include "wsd_switch/core/carry.h"
#include "wsd_switch/core/hand_on.h"
#include "wsd_switch/core/proc.h"
#include "wsd_switch/core/sig.h"

pid_t __fork(void);
pid_t _Fork(void);
void *wsd_note_vfork(void);
void *wsd_note_clone(void);

static void *real_vfork, *real_clone;
static pid_t (*real_Fork)(void);

__attribute__((constructor)) static void resolve(void)
{
	real_ready();
	if (!real_vfork)
		real_vfork = dlsym(RTLD_NEXT, "vfork");
	if (!real_clone)
		real_clone = dlsym(RTLD_NEXT, "clone");
	*(void **)&real_Fork = dlsym(RTLD_NEXT, "_Fork");
}

static void note(void)
{
	real_ready();
	atomic_store(&proc_vfork_seen, 1);
	if (proc_usable() && !proc_is_vfork_child())
		eset_flush_all();	/* the child's table of descriptors is the kernel's view (G19) */
}

__attribute__((visibility("hidden"))) void *wsd_note_vfork(void)
{
	int e = errno;

	if (!real_vfork)
		resolve();
	note();
	errno = e;
	return real_vfork;
}

__attribute__((visibility("hidden"))) void *wsd_note_clone(void)
{
	int e = errno;

	if (!real_clone)
		resolve();
	note();
	errno = e;
	return real_clone;
}

__asm__(
"	.pushsection .text\n"
"	.hidden wsd_note_vfork, wsd_note_clone\n"
"	.globl vfork, __vfork\n"
"	.type vfork, @function\n"
"	.type __vfork, @function\n"
"vfork:\n"
"__vfork:\n"
"	.cfi_startproc\n"
"	endbr64\n"
"	subq	$8, %rsp\n"
"	.cfi_adjust_cfa_offset 8\n"
"	call	wsd_note_vfork\n"
"	addq	$8, %rsp\n"
"	.cfi_adjust_cfa_offset -8\n"
"	jmp	*%rax\n"
"	.cfi_endproc\n"
"	.size vfork, . - vfork\n"
"	.globl clone, __clone\n"
"	.type clone, @function\n"
"	.type __clone, @function\n"
"clone:\n"			/* (fn, stack, flags, arg, ptid, tls, ctid): the last stays where it is */
"__clone:\n"
"	.cfi_startproc\n"
"	endbr64\n"
"	pushq	%rdi\n"
"	pushq	%rsi\n"
"	pushq	%rdx\n"
"	pushq	%rcx\n"
"	pushq	%r8\n"
"	pushq	%r9\n"
"	subq	$8, %rsp\n"
"	.cfi_adjust_cfa_offset 56\n"
"	call	wsd_note_clone\n"
"	addq	$8, %rsp\n"
"	popq	%r9\n"
"	popq	%r8\n"
"	popq	%rcx\n"
"	popq	%rdx\n"
"	popq	%rsi\n"
"	popq	%rdi\n"
"	.cfi_adjust_cfa_offset -56\n"
"	jmp	*%rax\n"
"	.cfi_endproc\n"
"	.size clone, . - clone\n"
"	.popsection\n"
);

WSD_EXPORT pid_t fork(void)
{
	bool ours;
	pid_t pid;
	int e;

	real_ready();
	ours = proc_usable() && !proc_is_vfork_child();
	pid = real.fork();
	if (!ours)
		return pid;
	e = errno;
	if (pid == 0) {
		sig_after_fork();
		(void)proc_usable();
	} else if (pid < 0) {
		proc_fork_failed();
	}
	errno = e;
	return pid;
}

WSD_EXPORT pid_t __fork(void)
{
	return fork();
}

/* fork() without the handlers of pthread_atfork(), and callable in a signal handler; libc's own fork() does not come by here */
WSD_EXPORT pid_t _Fork(void)
{
	struct proc_fork f;
	pid_t pid;
	int e;

	real_ready();
	if (!real_Fork)
		return fork();		/* before glibc 2.34: nothing in libc has that name */
	if (!proc_usable() || proc_is_vfork_child())
		return real_Fork();
	proc_fork_begin(&f);
	pid = real_Fork();
	e = errno;
	if (pid == 0) {
		sig_after_fork();
		(void)proc_usable();
	} else {
		proc_fork_end(&f, pid < 0);
	}
	errno = e;
	return pid;
}

/* ---- exec ---- */

static int real_exec(const struct exec_call *x)
{
	if (x->how == EXEC_SEARCH)
		return real.execvpe(x->path, x->argv, x->envp);
	if (x->how == EXEC_FD)
		return real.fexecve(x->dir, x->argv, x->envp);
	if (x->dir == AT_FDCWD && !x->flags)
		return real.execve(x->path, x->argv, x->envp);
	return real.execveat(x->dir, x->path, x->argv, x->envp, x->flags);
}

/* exec never takes our frames away unless it works, so leaving and coming back can be one pair around it */
static int around_exec(struct exec_call x)
{
	struct carry k;
	size_t n;
	int r, e;

	real_ready();
	if (!proc_usable())
		return real_exec(&x);
	carry_init(&k);
	hand_on_exec_begin(true, &x, &k);
	if (k.n && (n = carry_pack(&k, &x)) != 0) {
		char **envp = __builtin_alloca(n * sizeof(*envp));

		carry_env(&k, x.envp, envp);
		x.envp = envp;
	}
	r = real_exec(&x);
	e = errno;
	carry_undo(&k);
	hand_on_exec_end(true, true);
	errno = e;
	return r;
}

WSD_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	return around_exec((struct exec_call){ EXEC_PATH, AT_FDCWD, path, argv, envp, 0 });
}

WSD_EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

WSD_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	return around_exec((struct exec_call){ EXEC_SEARCH, AT_FDCWD, file, argv, envp, 0 });
}

WSD_EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

WSD_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	return around_exec((struct exec_call){ EXEC_FD, fd, NULL, argv, envp, 0 });
}

WSD_EXPORT int execveat(int fd, const char *path, char *const argv[], char *const envp[], int flags)
{
	return around_exec((struct exec_call){ EXEC_PATH, fd, path, argv, envp, flags });
}

/* the arguments up to and with NULL as an array on the caller's stack, where libc puts them as well */
#define ARGV_FROM(ap, first, argv) do { \
	size_t n_ = 1, i_; \
	va_list count_; \
	va_copy(count_, ap); \
	while (va_arg(count_, char *)) \
		n_++; \
	va_end(count_); \
	argv = __builtin_alloca((n_ + 1) * sizeof(char *)); \
	argv[0] = (char *)(uintptr_t)(first); \
	for (i_ = 1; i_ <= n_; i_++) \
		argv[i_] = va_arg(ap, char *); \
} while (0)

WSD_EXPORT int execl(const char *path, const char *arg, ...)
{
	char **argv;
	va_list ap;

	va_start(ap, arg);
	ARGV_FROM(ap, arg, argv);
	va_end(ap);
	return execve(path, argv, environ);
}

WSD_EXPORT int execle(const char *path, const char *arg, ...)
{
	char **argv, **envp;
	va_list ap;

	va_start(ap, arg);
	ARGV_FROM(ap, arg, argv);
	envp = va_arg(ap, char **);
	va_end(ap);
	return execve(path, argv, envp);
}

WSD_EXPORT int execlp(const char *file, const char *arg, ...)
{
	char **argv;
	va_list ap;

	va_start(ap, arg);
	ARGV_FROM(ap, arg, argv);
	va_end(ap);
	return execvpe(file, argv, environ);
}

/* ---- children that libc makes and that become another image ---- */

WSD_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
			   const posix_spawnattr_t *at, char *const argv[], char *const envp[])
{
	bool ours;
	int r;

	real_ready();
	ours = proc_usable();
	if (ours)
		hand_on_spawn_begin(&(struct exec_call){ EXEC_PATH, AT_FDCWD, path, argv, envp, 0 });
	r = real.posix_spawn(pid, path, fa, at, argv, envp);
	if (ours)
		hand_on_exec_end(false, r != 0);
	return r;
}

WSD_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *fa,
			    const posix_spawnattr_t *at, char *const argv[], char *const envp[])
{
	bool ours;
	int r;

	real_ready();
	ours = proc_usable();
	if (ours)
		hand_on_spawn_begin(&(struct exec_call){ EXEC_SEARCH, AT_FDCWD, file, argv, envp, 0 });
	r = real.posix_spawnp(pid, file, fa, at, argv, envp);
	if (ours)
		hand_on_exec_end(false, r != 0);
	return r;
}

WSD_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *fa, int fd, int nfd)
{
	real_ready();
	if (proc_usable() && !proc_is_vfork_child())
		hand_on_spawn_dup(fd);
	return real.posix_spawn_file_actions_adddup2(fa, fd, nfd);
}

struct spawning {
	bool ours;
};

/* system() may be cancelled while it waits */
static void spawning_end(struct spawning *s)
{
	if (s->ours)
		hand_on_exec_end(false, false);
}

WSD_EXPORT int system(const char *cmd)
{
	struct spawning s __attribute__((cleanup(spawning_end))) = { false };

	real_ready();
	s.ours = proc_usable();
	if (s.ours)
		hand_on_exec_begin(false, NULL, NULL);
	return real.system(cmd);
}

WSD_EXPORT FILE *popen(const char *cmd, const char *mode)
{
	bool ours;
	FILE *f;

	real_ready();
	ours = proc_usable();
	if (ours)
		hand_on_exec_begin(false, NULL, NULL);
	f = real.popen(cmd, mode);
	if (ours)
		hand_on_exec_end(false, f == NULL);
	return f;
}

/* ---- libc puts something else on descriptors 0 to 2 ---- */

static void drop(int fd)
{
	int e = errno;

	eset_close_fd(fd);
	conn_close_fd(fd);
	errno = e;
}

static void drop_std(void)
{
	drop(0);
	drop(1);
	drop(2);
}

WSD_EXPORT int daemon(int nochdir, int noclose)
{
	int r;

	real_ready();
	r = real.daemon(nochdir, noclose);	/* the handlers of fork() run inside */
	if (r == 0 && proc_usable()) {
		sig_after_fork();
		if (!noclose)
			drop_std();
	}
	return r;
}

/* libc's fork() and login_tty() in one */
WSD_EXPORT int forkpty(int *master, char *name, const struct termios *tio, const struct winsize *win)
{
	bool ours;
	int pid, e;

	real_ready();
	ours = proc_usable() && !proc_is_vfork_child();
	pid = real.forkpty(master, name, tio, win);
	if (!ours)
		return pid;
	e = errno;
	if (pid == 0) {
		sig_after_fork();
		if (proc_usable())
			drop_std();
	} else if (pid < 0) {
		proc_fork_failed();
	} else {
		drop(*master);		/* closed behind our back, if it was known */
	}
	errno = e;
	return pid;
}

WSD_EXPORT int login_tty(int fd)
{
	int r;

	real_ready();
	r = real.login_tty(fd);
	if (r == 0 && proc_usable() && !proc_is_vfork_child()) {
		drop_std();
		if (fd > 2)
			drop(fd);
	}
	return r;
}

/* ---- the end ---- */

__attribute__((destructor)) static void at_end(void)
{
	hand_on_exit();
}

static void at_quick_end(void)
{
	hand_on_exit();
}

/* after init.c's, which has a priority */
__attribute__((constructor)) static void edges_start(void)
{
	at_quick_exit(at_quick_end);	/* first registered, last run */
	sig_start();
}

WSD_EXPORT _Noreturn void _exit(int status)
{
	hand_on_exit();
	for (;;) {
		real_ready();
		real.syscall(SYS_exit_group, status);
	}
}

WSD_EXPORT _Noreturn void _Exit(int status)
{
	_exit(status);
}
