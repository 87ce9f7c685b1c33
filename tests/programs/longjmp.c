/* Leaves frames by longjmp, allocating on both sides of the jump. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf back;
static void *kept[100];

__attribute__((noinline)) static void *before_jump(void) {
    return malloc(32); /* site: before_jump */
}

__attribute__((noinline)) static void down(int depth, int round) {
    void *block = malloc((size_t)depth + 1);
    *(volatile char *)block = 1;
    free(block);
    if (depth > 0) {
        down(depth - 1, round);
        *(volatile char *)kept = 0; /* not a tail call */
    }
    if (round % 100 == 0)
        kept[round / 100] = before_jump();
    longjmp(back, 1);
}

int main(void) {
    volatile int jumps = 0;
    for (volatile int round = 0; round < 10000; round++) {
        if (setjmp(back) == 0)
            down(round % 20, round);
        else
            jumps++;
        void *after = malloc(100);
        *(volatile char *)after = 1;
        free(after);
    }
    printf("longjmp: %d\n", jumps);
    return 0;
}
