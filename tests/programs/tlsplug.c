/* A library with thread-local variables: ROOM bytes of them, and one that holds a block. MAKER names
 * the function that asks for it. */
#include <stdlib.h>

#define APART __attribute__((noinline, noclone))
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

static __thread volatile char room[ROOM];
__thread void *JOIN(MAKER, _held);

APART static void *MAKER(void) { return calloc(1, 120); }
APART static void *JOIN(MAKER, _lost)(void) { return calloc(1, 121); }

/* For the calling thread: one is lost, one kept. */
void plug_keep(void)
{
    room[ROOM / 2] = 1;
    JOIN(MAKER, _held) = JOIN(MAKER, _lost)();
    JOIN(MAKER, _held) = MAKER();
}

/* Inverted, so that who asks does not hold it. */
unsigned long plug_held(void) { return ~(unsigned long)JOIN(MAKER, _held); }
