/* records LAYOUT BYTES COUNT: frees of COUNT live blocks of BYTES in random order, as
 * a heap does them, with the block's record where LAYOUT says:
 *   none      no record
 *   side      8 bytes a slot in a dense area of their own
 *   side-huge the same, huge pages asked for
 *   trailer   the last 8 bytes of the block, which is 16 bytes larger for it
 * Prints nanoseconds per free. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static void *pages(size_t bytes, int huge)
{
    size_t step = 2 << 20;
    bytes = (bytes + 2 * step - 1) / step * step;
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        abort();
    at = (char *)(((uintptr_t)at + step - 1) / step * step);
    madvise(at, bytes - step, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return at;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int trailer = strcmp(argv[1], "trailer") == 0, none = strcmp(argv[1], "none") == 0;
    size_t slot = strtoul(argv[2], NULL, 10) + (trailer ? 16 : 0);
    size_t count = strtoul(argv[3], NULL, 10);
    char *blocks = pages(slot * count, 0);
    uint64_t *records = pages(8 * count, strcmp(argv[1], "side-huge") == 0);
    uint32_t *order = malloc(count * sizeof *order);
    if (!order)
        abort();
    memset(blocks, 1, slot * count);
    memset(records, 1, 8 * count);
    uint64_t seed = 88172645463325252ull;
    for (size_t i = 0; i < count; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        size_t at = seed % (i + 1);
        order[i] = order[at];
        order[at] = (uint32_t)i;
    }
    char *list = NULL;
    uint64_t sum = 0;
    double start = now();
    for (size_t i = 0; i < count; i++) {
        char *block = blocks + (size_t)order[i] * slot;
        if (!none) {
            uint64_t *record = trailer ? (uint64_t *)(block + slot - 8) : records + order[i];
            sum += *record;
            *record &= 0x3fffff;
        }
        /* The link and the free mark. */
        ((char **)block)[0] = list;
        ((uint64_t *)block)[1] = (uint64_t)records;
        list = block;
    }
    double spent = now() - start;
    printf("%.2f\n", spent / (double)count);
    return sum == 42;
}
