/* SPDX-License-Identifier: MIT */
/*
 * fault.c - copies that survive bad pointers (G28)
 *
 * fault_copy() is one routine without stack frame. A SIGSEGV or SIGBUS whose instruction lies between its labels is
 * answered by going on at the fix-up, which returns false; every other one is the program's (sig_chain). All state is
 * the instruction pointer, so nothing is set up or undone per copy, and a copy below a signal handler or in a
 * forked child is like any other.
 *
 * Sizes: up to 16 bytes by two overlapping moves, up to 128 by overlapping 16-byte moves, all loaded before the
 * first store; then 64 at a time, or 128 with AVX; from COPY_REP on the processor's own string move, which costs some 30 ns
 * to begin when misaligned.
 */
#include <ucontext.h>

#include "wsd_switch/core/sig.h"

#define COPY_REP 4096

extern const char wsd_copy_begin[] __attribute__((visibility("hidden")));
extern const char wsd_copy_end[] __attribute__((visibility("hidden")));

__attribute__((visibility("hidden"))) bool wsd_copy_avx;

#define STR_(x) #x
#define STR(x) STR_(x)

__asm__(
"	.pushsection .text\n"
"	.p2align 6\n"
"	.globl fault_copy, wsd_copy_begin, wsd_copy_end\n"
"	.hidden fault_copy, wsd_copy_begin, wsd_copy_end, wsd_copy_avx\n"
"	.type fault_copy, @function\n"
"fault_copy:\n"
"wsd_copy_begin:\n"
"	.cfi_startproc\n"
"	endbr64\n"
"	movl	$1, %eax\n"
"	cmpq	$16, %rdx\n"
"	ja	.Lc17\n"
"	cmpl	$8, %edx\n"
"	jae	.Lc8\n"
"	cmpl	$4, %edx\n"
"	jae	.Lc4\n"
"	testl	%edx, %edx\n"
"	jz	.Lc0\n"
"	movq	%rdx, %r9\n"		/* 1 to 3: first, middle, last */
"	shrq	$1, %r9\n"
"	movzbl	(%rsi), %ecx\n"
"	movzbl	(%rsi,%r9), %r8d\n"
"	movzbl	-1(%rsi,%rdx), %r10d\n"
"	movb	%cl, (%rdi)\n"
"	movb	%r8b, (%rdi,%r9)\n"
"	movb	%r10b, -1(%rdi,%rdx)\n"
".Lc0:	ret\n"
".Lc4:	movl	(%rsi), %ecx\n"
"	movl	-4(%rsi,%rdx), %r8d\n"
"	movl	%ecx, (%rdi)\n"
"	movl	%r8d, -4(%rdi,%rdx)\n"
"	ret\n"
".Lc8:	movq	(%rsi), %rcx\n"
"	movq	-8(%rsi,%rdx), %r8\n"
"	movq	%rcx, (%rdi)\n"
"	movq	%r8, -8(%rdi,%rdx)\n"
"	ret\n"
".Lc17:	cmpq	$32, %rdx\n"
"	ja	.Lc33\n"
"	movups	(%rsi), %xmm0\n"
"	movups	-16(%rsi,%rdx), %xmm1\n"
"	movups	%xmm0, (%rdi)\n"
"	movups	%xmm1, -16(%rdi,%rdx)\n"
"	ret\n"
".Lc33:	cmpq	$" STR(COPY_REP) ", %rdx\n"
"	jae	.Lcrep\n"
"	movups	-16(%rsi,%rdx), %xmm4\n"
"	movups	-32(%rsi,%rdx), %xmm5\n"
"	cmpl	$64, %edx\n"
"	ja	.Lc65\n"
"	movups	(%rsi), %xmm0\n"
"	movups	16(%rsi), %xmm1\n"
"	movups	%xmm0, (%rdi)\n"
"	movups	%xmm1, 16(%rdi)\n"
"	movups	%xmm5, -32(%rdi,%rdx)\n"
"	movups	%xmm4, -16(%rdi,%rdx)\n"
"	ret\n"
".Lc65:	cmpl	$128, %edx\n"
"	ja	.Lc129\n"
".Lc64s:	movups	-48(%rsi,%rdx), %xmm6\n"
"	movups	-64(%rsi,%rdx), %xmm7\n"
"	leaq	-64(%rdi,%rdx), %r8\n"	/* the last 64 bytes are stored last, from registers */
"	subq	%rdi, %rsi\n"
".Lcl:	movups	(%rdi,%rsi), %xmm0\n"
"	movups	16(%rdi,%rsi), %xmm1\n"
"	movups	32(%rdi,%rsi), %xmm2\n"
"	movups	48(%rdi,%rsi), %xmm3\n"
"	movups	%xmm0, (%rdi)\n"
"	movups	%xmm1, 16(%rdi)\n"
"	movups	%xmm2, 32(%rdi)\n"
"	movups	%xmm3, 48(%rdi)\n"
"	addq	$64, %rdi\n"
"	cmpq	%r8, %rdi\n"
"	jb	.Lcl\n"
"	movups	%xmm7, (%r8)\n"
"	movups	%xmm6, 16(%r8)\n"
"	movups	%xmm5, 32(%r8)\n"
"	movups	%xmm4, 48(%r8)\n"
"	ret\n"
".Lc129:	cmpb	$0, wsd_copy_avx(%rip)\n"
"	je	.Lc64s\n"
"	vmovups	-32(%rsi,%rdx), %ymm4\n"
"	vmovups	-64(%rsi,%rdx), %ymm5\n"
"	vmovups	-96(%rsi,%rdx), %ymm6\n"
"	vmovups	-128(%rsi,%rdx), %ymm7\n"
"	leaq	-128(%rdi,%rdx), %r8\n"
"	subq	%rdi, %rsi\n"
".Lcv:	vmovups	(%rdi,%rsi), %ymm0\n"
"	vmovups	32(%rdi,%rsi), %ymm1\n"
"	vmovups	64(%rdi,%rsi), %ymm2\n"
"	vmovups	96(%rdi,%rsi), %ymm3\n"
"	vmovups	%ymm0, (%rdi)\n"
"	vmovups	%ymm1, 32(%rdi)\n"
"	vmovups	%ymm2, 64(%rdi)\n"
"	vmovups	%ymm3, 96(%rdi)\n"
"	subq	$-128, %rdi\n"
"	cmpq	%r8, %rdi\n"
"	jb	.Lcv\n"
"	vmovups	%ymm7, (%r8)\n"
"	vmovups	%ymm6, 32(%r8)\n"
"	vmovups	%ymm5, 64(%r8)\n"
"	vmovups	%ymm4, 96(%r8)\n"
"	vzeroupper\n"
"	ret\n"
".Lcrep:	movq	%rdx, %rcx\n"
"	rep movsb\n"
"	ret\n"
"wsd_copy_end:\n"			/* the fix-up: the stack is as at entry */
"	cmpb	$0, wsd_copy_avx(%rip)\n"
"	je	1f\n"
"	vzeroupper\n"
"1:	xorl	%eax, %eax\n"
"	ret\n"
"	.cfi_endproc\n"
"	.size fault_copy, . - fault_copy\n"
"	.popsection\n"
);

__attribute__((constructor)) static void look_at_cpu(void)
{
	__builtin_cpu_init();
	wsd_copy_avx = __builtin_cpu_supports("avx2");
}

static void on_fault(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	uintptr_t ip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

	/* si_code > 0: the processor's, not somebody's kill() that hit us inside a copy */
	if (si->si_code > 0 && ip >= (uintptr_t)wsd_copy_begin && ip < (uintptr_t)wsd_copy_end) {
		uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)wsd_copy_end;
		return;
	}
	sig_chain(sig, si, uc);
}

void fault_install(void)
{
	sig_take_over(SIGSEGV, on_fault);
	sig_take_over(SIGBUS, on_fault);
}
