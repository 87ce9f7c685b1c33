/* recursion deep N       one allocation at each depth of recursions of one, two
                          and three functions, N times: N stacks each
   recursion distinct N   N random ways through two functions: nearly N stacks,
                          and 32 bytes left at each thousandth */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

static void *volatile kept;
static unsigned long made;

NOINLINE static void keep(size_t bytes) {
    kept = malloc(bytes); /* site: keep */
    made++;
}

NOINLINE static int one(int depth) {
    if (depth == 0)
        keep(10);
    else
        one(depth - 1);
    return depth + 1;
}

NOINLINE static int ping(int depth);
NOINLINE static int pong(int depth) {
    ping(depth - 1);
    return depth + 1;
}
NOINLINE static int ping(int depth) {
    if (depth <= 0)
        keep(20);
    else
        pong(depth);
    return depth + 1;
}

static void visit(unsigned long way, int depth);
NOINLINE static int left(unsigned long way, int depth) {
    visit(way, depth);
    return depth + 1;
}
NOINLINE static int right(unsigned long way, int depth) {
    visit(way, depth);
    return depth + 2;
}
static void visit(unsigned long way, int depth) {
    if (depth == 0) {
        void *block = malloc(32); /* site: visit */
        if (++made % 1000 == 0)
            kept = block;
        else
            free(block);
    } else if (way & 1) {
        left(way >> 1, depth - 1);
    } else {
        right(way >> 1, depth - 1);
    }
}

int main(int argc, char **argv) {
    long count = argc > 2 ? atol(argv[2]) : 100;
    int distinct = argc > 1 && strcmp(argv[1], "distinct") == 0;
    unsigned long state = 88172645463325252ul;
    for (long i = 0; i < count; i++) {
        if (distinct) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            visit(state >> 8, 32);
        } else {
            one((int)i + 1);
            ping((int)i + 2);
        }
    }
    printf("%lu\n", made);
    return 0;
}
