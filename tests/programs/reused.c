/* Large blocks, never written to, where slots were: freeing them is no double free. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    static void *blocks[2000];
    for (int turn = 0; turn < 20; turn++) {
        size_t slot = 16u << turn % 13;
        int count = slot < 4096 ? 2000 : 100;
        for (int i = 0; i < count; i++)
            blocks[i] = malloc(slot);
        for (int i = 0; i < count; i++)
            free(blocks[i]);
        for (size_t bytes = 70000; bytes < 2000000; bytes = bytes * 4 / 3) {
            void *block = malloc(bytes);
            if (malloc_usable_size(block) < bytes)
                puts("no room");
            free(block);
            free(realloc(malloc(bytes), bytes / 2));
        }
    }
    puts("done");
    return 0;
}
