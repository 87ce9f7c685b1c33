/* Many live blocks, all touched: crowd BLOCKS BYTES. Two of each function come
 * first, the others after a line on standard input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void **last;

__attribute__((noinline)) static void **link_even(size_t bytes)
{
    return malloc(bytes); /* site: link_even */
}

__attribute__((noinline)) static void **link_odd(size_t bytes)
{
    return malloc(bytes); /* site: link_odd */
}

int main(int argc, char **argv)
{
    size_t blocks = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 128;
    for (size_t i = 0; i < blocks; i++) {
        if (i == 4) {
            puts("waiting");
            fflush(stdout);
            if (getchar() == EOF)
                return 0;
        }
        void **next = i % 2 ? link_odd(bytes) : link_even(bytes);
        memset(next, 0, bytes);
        *next = last;
        last = next;
    }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
