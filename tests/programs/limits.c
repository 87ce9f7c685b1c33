/* Allocates modestly; the harness starts it under hard limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *blocks[1000];
    int wrong = 0;
    for (int i = 0; i < 1000; i++) {
        blocks[i] = malloc(1024 + (size_t)i);
        if (blocks[i])
            memset(blocks[i], i & 127, 1024);
        wrong += !blocks[i];
    }
    char *big = malloc(50 << 20);
    wrong += !big;
    if (big)
        memset(big, 1, 50 << 20);
    for (int i = 0; i < 1000; i++) {
        wrong += blocks[i] && blocks[i][1023] != (i & 127);
        free(blocks[i]);
    }
    free(big);
    big = malloc((size_t)4 << 30);
    if (big)
        *(volatile char *)big = 1;
    free(big);
    printf("limits: %d wrong\n", wrong);
    return wrong != 0;
}
