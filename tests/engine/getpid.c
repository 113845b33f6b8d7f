// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asks for its process ID again and again, and says the answer when it changes
 *
 * The answers are its ID, and, of the patch, its ID and OFFSET.
 */
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OFFSET 1000000

int main(void)
{
	long pid = syscall(SYS_getpid), now, last = 0;

	setbuf(stdout, NULL);
	if (pid > OFFSET)
		pid -= OFFSET;
	for (;;) {
		now = syscall(SYS_getpid);
		if (now != last)
			puts(now == pid ? "living" :
			     now == pid + OFFSET ? "patched" : "neither");
		last = now;
	}
}
