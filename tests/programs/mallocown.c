/* Defines the malloc family itself: its blocks must never reach anyone else's free. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

static _Alignas(16) char room[8 << 20];
static size_t used, calls;

static void stop(const char *why) {
    fputs(why, stderr);
    __builtin_trap();
}

void *malloc(size_t size) {
    size_t need = (size + 31) & ~(size_t)15;
    if (used + need > sizeof room) {
        errno = ENOMEM;
        return NULL;
    }
    size_t *block = (size_t *)(room + used);
    used += need;
    calls++;
    *block = size;
    return (char *)block + 16;
}

void free(void *block) {
    if (block && ((char *)block < room || (char *)block >= room + sizeof room))
        stop("a foreign block\n");
}

void *calloc(size_t count, size_t size) {
    return malloc(count * size);
}

void *realloc(void *old, size_t size) {
    void *block = malloc(size);
    if (old && block) {
        size_t before = *(size_t *)((char *)old - 16);
        memcpy(block, old, before < size ? before : size);
        free(old);
    }
    return block;
}

int main(void) {
    char *line = NULL;
    size_t room_for = 0;
    for (int i = 0; i < 100; i++)
        free(strdup("copied by libc with our malloc"));
    FILE *file = fopen("/proc/self/comm", "r");
    printf("own malloc: %s", getline(&line, &room_for, file) > 0 ? line : "?\n");
    fclose(file);
    free(line);
    printf("calls: %s\n", calls > 100 ? "ours" : "missing");
    return 0;
}
