/* misuse WHAT: double | interior | stack | wild | none. Must be survived. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static void free_twice(void) {
    char *volatile block = malloc(40); /* site: made */
    free(block);
    free(block); /* site: free_twice */
}

__attribute__((noinline)) static void free_inside(void) {
    char *volatile block = malloc(100);
    free(block + 16); /* site: free_inside */
    free(block);
}

__attribute__((noinline)) static void free_stack(void) {
    char here[64];
    char *volatile block = here;
    free(block); /* site: free_stack */
}

__attribute__((noinline)) static void free_wild(void) {
    char *volatile block = (char *)0x12340;
    free(block); /* site: free_wild */
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "none";
    if (strcmp(what, "double") == 0)
        free_twice();
    if (strcmp(what, "interior") == 0)
        free_inside();
    if (strcmp(what, "stack") == 0)
        free_stack();
    if (strcmp(what, "wild") == 0)
        free_wild();
    char *blocks[1000];
    int wrong = 0;
    for (int i = 0; i < 1000; i++) {
        blocks[i] = malloc(40 + (size_t)(i % 3) * 30);
        memset(blocks[i], i & 127, 40);
    }
    for (int i = 0; i < 1000; i++) {
        wrong += blocks[i][0] != (i & 127) || blocks[i][39] != (i & 127);
        free(blocks[i]);
    }
    printf("survived, %d wrong\n", wrong);
    return 0;
}
