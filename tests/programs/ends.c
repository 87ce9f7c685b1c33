/* ends WHAT: a program at the end of its heap, or with many blocks, says how it went.
   exhaust  malloc until NULL, then free and say so
   many     120,000 live blocks, contents checked
   tiny     1,000 blocks of 2 bytes, leaked
   grow     a block that doubles to 64 MiB, contents checked
   bump     the last block's space is used again, others' is not */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *blocks[120000];

static int exhaust(void) {
    size_t held = 0;
    char *block;
    int count = 0;
    errno = 0;
    while (count < 100000 && (block = malloc(10000))) {
        memset(block, 1, 10000);
        held += 10000;
        count++;
    }
    int refused = count < 100000 && errno == ENOMEM;
    int whole = !malloc(10000) && !calloc(100, 100) && !realloc(NULL, 10000);
    printf("refused: %d, again: %d, held %s\n", refused, whole, held > 300000 ? "much" : "little");
    return 0;
}

static int many(void) {
    int wrong = 0;
    for (int i = 0; i < 120000; i++) {
        blocks[i] = malloc(40);
        memset(blocks[i], i & 127, 40);
    }
    for (int i = 0; i < 120000; i++)
        wrong += blocks[i][0] != (i & 127) || blocks[i][39] != (i & 127);
    for (int i = 0; i < 120000; i += 2)
        free(blocks[i]);
    for (int i = 0; i < 120000; i += 2)
        blocks[i] = calloc(1, 50);
    for (int i = 0; i < 120000; i += 2)
        wrong += blocks[i][0] != 0 || blocks[i][49] != 0;
    for (int i = 0; i < 120000; i++)
        free(blocks[i]);
    printf("many: %d wrong\n", wrong);
    return 0;
}

static int grow(void) {
    size_t bytes = 1000;
    uint32_t *block = malloc(bytes);
    char *other = NULL;
    int wrong = 0;
    for (size_t i = 0; i < bytes / 4; i++)
        block[i] = (uint32_t)i;
    while (bytes < 64 << 20) {
        block = realloc(block, bytes * 2);
        for (size_t i = 0; i < bytes / 4; i++)
            wrong += block[i] != (uint32_t)i;
        for (size_t i = bytes / 4; i < bytes / 2; i++)
            block[i] = (uint32_t)i;
        bytes *= 2;
        char *fresh = malloc(bytes + 12288); // in the way
        free(other);
        other = fresh;
    }
    for (; bytes > 1000; bytes /= 2) {
        block = realloc(block, bytes / 2);
        wrong += block[bytes / 8 - 1] != (uint32_t)(bytes / 8 - 1);
    }
    free(block), free(other);
    printf("grow: %d wrong\n", wrong);
    return 0;
}

static int bump(void) {
    uintptr_t first = (uintptr_t)malloc(100);
    char *second = malloc(100);
    uintptr_t there = (uintptr_t)second;
    free(second);
    char *third = malloc(50);
    char *grown = realloc(third, 5000);
    printf("last again: %d, in place: %d, ", (uintptr_t)third == there, grown == third);
    char *fourth = malloc(10);
    free((void *)first);
    printf("others not: %d\n", (uintptr_t)malloc(100) != first && fourth > grown);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    setvbuf(stdout, NULL, _IONBF, 0);
    if (strcmp(what, "exhaust") == 0)
        return exhaust();
    if (strcmp(what, "many") == 0)
        return many();
    if (strcmp(what, "grow") == 0)
        return grow();
    if (strcmp(what, "bump") == 0)
        return bump();
    for (int i = 0; i < 1000; i++) {
        char *block = malloc(2); /* site: main */
        block[0] = block[1] = 'x';
    }
    return 0;
}
