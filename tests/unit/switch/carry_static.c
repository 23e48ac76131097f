/* SPDX-License-Identifier: MIT */
/* carry_static.c - an image that no preload library reaches: its first read of descriptor 0 must fail, not wait or skip */
#include <errno.h>
#include <unistd.h>

int main(void)
{
	char b[4096];

	alarm(20);
	return read(0, b, sizeof(b)) < 0 && errno == ECONNRESET ? 0 : 1;
}
