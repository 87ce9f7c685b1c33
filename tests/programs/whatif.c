/* What other layers would make of it: grows, shrinks, lists that die at once, temporary blocks,
 * large blocks. `whatif` alone does a bit of all; `whatif advice` plants what advice is for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    char text[40];
};

__attribute__((noinline)) static struct node *push(struct node *list, int i) {
    struct node *node = malloc(sizeof *node);
    node->next = list;
    snprintf(node->text, sizeof node->text, "%d", i);
    return node;
}

__attribute__((noinline)) static void drop_all(struct node *list) {
    while (list != NULL) {
        struct node *next = list->next;
        free(list);
        list = next;
    }
}

__attribute__((noinline)) static char *scratch(size_t bytes) {
    char *block = malloc(bytes);
    block[0] = 1;
    return block;
}

__attribute__((noinline)) static char *grow(char *block, size_t bytes) {
    block = realloc(block, bytes);
    block[bytes - 1] = 1;
    return block;
}

__attribute__((noinline)) static char *picture(size_t bytes) {
    char *block = malloc(bytes);
    for (size_t at = 0; at < bytes; at += 4096)
        block[at] = 1;
    return block;
}

__attribute__((noinline)) static char *tiny(void) {
    return malloc(1);
}

static void requests(void) {
    size_t bytes = 64;
    char *vector = NULL;
    for (int round = 0; round < 30; round++) {
        struct node *list = NULL;
        for (int i = 0; i < 500 + round * 50; i++) {
            list = push(list, i);
            free(scratch(30 + i % 900));
        }
        vector = grow(vector, bytes);
        bytes += bytes / 2;
        char *large = picture(300000 + (size_t)round * 1000);
        vector = grow(vector, bytes / 2);
        drop_all(list);
        free(large);
        void *aligned = NULL;
        if (posix_memalign(&aligned, 256, 1000) == 0)
            free(aligned);
    }
    free(vector);
}

static void advice(void) {
    static char *kept[40000];
    for (int i = 0; i < 40000; i++)
        kept[i] = tiny();
    for (int i = 0; i < 50000; i++)
        free(scratch(100));
    for (int round = 0; round < 100; round++) {
        struct node *list = NULL;
        for (int i = 0; i < 500; i++)
            list = push(list, i);
        drop_all(list);
    }
    for (int i = 0; i < 2000; i++)
        free(picture((size_t)(1 << 20) + (size_t)i % 7 * 65536));
    printf("kept %d\n", kept[39999] != NULL);
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "advice") == 0)
        advice();
    else
        requests();
    puts("done");
    return 0;
}
