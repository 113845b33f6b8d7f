// SPDX-License-Identifier: GPL-2.0-only
/*
 * Keeps a processor busy, and its timer
 *
 * A transition waits for interprocessor interrupts, thousands of them where
 * the kernel writes its static calls (Linux 6.12 for cond_resched()). An
 * emulator that runs one processor at a time delivers such an interrupt when
 * the other processor's turn ends, which a program that only computes makes
 * as long as can be. This one ends its turn all the time, by the instruction
 * for it and by short sleeps, so that an emulated machine waits no longer
 * than a real one would.
 */
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

/* In microseconds. */
#define NAP 200
#define TURNS_AT_A_TIME 256

static void *nap(void *nothing)
{
	for (;;)
		usleep(NAP);
	return nothing;
}

int main(void)
{
	volatile unsigned int turn;
	pthread_t napper;

	if (pthread_create(&napper, NULL, nap, NULL))
		return 1;
	for (;;) {
		for (turn = 0; turn < TURNS_AT_A_TIME; turn++)
			;
		__builtin_ia32_pause();
	}
}
