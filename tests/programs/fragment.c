/* A fragmenter: three functions each fill memory with small blocks, then all but
 * one block of every OS page is freed. Of `keep_late` the survivors are freed too
 * when a line arrives on standard input, so that what they pinned can be measured.
 *
 * fragment PAGES: OS pages kept by each of the three. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OS_PAGE = 4096, THIRDS = 3 };

static void **kept[THIRDS];
static size_t count[THIRDS];

__attribute__((noinline)) static void *keep_small(void)
{
    return malloc(64); /* site: keep_small */
}

__attribute__((noinline)) static void *keep_odd(void)
{
    return malloc(200); /* site: keep_odd */
}

__attribute__((noinline)) static void *keep_late(void)
{
    return malloc(1024); /* site: keep_late */
}

static void fill(int third, void *(*make)(void), size_t bytes, size_t pages)
{
    size_t blocks = pages * OS_PAGE / bytes;
    void **all = calloc(blocks, sizeof *all);
    for (size_t i = 0; i < blocks; i++) {
        all[i] = make();
        memset(all[i], 0x5a, bytes);
    }
    uintptr_t last = 0;
    kept[third] = calloc(pages * 2, sizeof *kept[third]);
    for (size_t i = 0; i < blocks; i++) {
        uintptr_t page = (uintptr_t)all[i] / OS_PAGE;
        if (page != last && count[third] < pages * 2)
            kept[third][count[third]++] = all[i];
        else
            free(all[i]);
        last = page;
    }
    free(all);
}

int main(int argc, char **argv)
{
    size_t pages = argc > 1 ? strtoul(argv[1], NULL, 10) : 512;
    fill(0, keep_small, 64, pages);
    fill(1, keep_odd, 200, pages);
    fill(2, keep_late, 1024, pages);
    printf("ready %zu %zu %zu\n", count[0], count[1], count[2]);
    fflush(stdout);
    if (getchar() == EOF)
        return 0;
    for (size_t i = 0; i < count[2]; i++)
        free(kept[2][i]);
    puts("freed");
    fflush(stdout);
    while (getchar() != EOF)
        free(malloc(100));
    return 0;
}
