/* Known requests of the kernel.
 *
 * calls big N    N times 64 MiB, taken and freed at once by `hold_big`
 * calls fill N   N blocks of 4,096 bytes by `fill_pages`, kept
 * calls map      mappings of the program's own: `map_kept` keeps 3 of 5 ranges of 1 MiB */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *volatile sink;

__attribute__((noinline)) static void hold_big(void)
{
    char *block = malloc((size_t)64 << 20); /* site: hold_big */
    block[0] = 1;
    sink = block;
    free(block);
}

__attribute__((noinline)) static void fill_pages(void)
{
    char *block = malloc(4096); /* site: fill_pages */
    block[0] = 1;
    sink = block;
}

__attribute__((noinline)) static char *map_kept(void)
{
    void *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* site: map_kept */
    sink = at;
    return at;
}

static int map_all(void)
{
    char *ranges[5];
    for (int i = 0; i < 5; i++) {
        ranges[i] = map_kept();
        if (ranges[i] == MAP_FAILED)
            return 1;
        ranges[i][0] = 1;
    }
    munmap(ranges[0], 1 << 20);
    munmap(ranges[1], 1 << 19);
    munmap(ranges[1] + (1 << 19), 1 << 19);
    char *grown = mremap(ranges[2], 1 << 20, 1 << 21, MREMAP_MAYMOVE);
    if (grown == MAP_FAILED || grown[0] != 1)
        return 1;
    if (mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        return 1;
    return 0;
}

int main(int argc, char **argv)
{
    int count = argc > 2 ? atoi(argv[2]) : 0;
    if (argc > 1 && strcmp(argv[1], "map") == 0 && map_all() != 0)
        return 1;
    for (int i = 0; i < count; i++) {
        if (strcmp(argv[1], "big") == 0)
            hold_big();
        else
            fill_pages();
    }
    puts("ready");
    fflush(stdout);
    return getchar() == EOF;
}
