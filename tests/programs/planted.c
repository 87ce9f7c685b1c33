/* A library to preload beside the shim: a leak of known size in any program. */
#include <stdlib.h>

enum { BLOCKS = 7, BYTES = 1111 };

static void *volatile last;

__attribute__((noinline)) static void planted_leak(void)
{
    for (int i = 0; i < BLOCKS; i++)
        last = malloc(BYTES); /* site: planted_leak */
}

__attribute__((constructor)) static void plant(void)
{
    planted_leak();
    last = NULL;
}
