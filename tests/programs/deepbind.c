/* A program and, with -DPLUGIN, a library it loads with RTLD_DEEPBIND, as PHP loads its
   extensions: blocks go both ways, and names that both have stay apart. */
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef PLUGIN

static char *early;

__attribute__((constructor)) static void load(void) { early = strdup("early"); }

int answer(void) { return 2; }
int ask(void) { return answer(); }

char *give(size_t bytes) {
    char *block = malloc(bytes); /* site: give */
    strcpy(block, early);
    return block;
}

void take(char *block) { free(block); }

char *grow(char *block, size_t bytes) {
    return realloc(block, bytes); /* site: grow */
}

size_t room(char *block) { return malloc_usable_size(block); }

char *aligned(void) {
    void *block = NULL;
    return posix_memalign(&block, 256, 1000) == 0 ? block : NULL;
}

char *blank(void) { return calloc(10, 30); }

#else

int answer(void) { return 1; }

static void *name(void *plugin, const char *of) {
    void *found = dlsym(plugin, of);
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

int main(int count, char **arguments) {
    (void)count;
    for (int turn = 0; turn < 3; turn++) {
        /* Found by the program's own run path: the loader must see who calls. */
        void *plugin = dlopen(arguments[1], RTLD_NOW | (turn == 1 ? RTLD_GLOBAL : 0) | RTLD_DEEPBIND);
        if (!plugin) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        char *(*give)(size_t) = name(plugin, "give");
        void (*take)(char *) = name(plugin, "take");
        char *(*grow)(char *, size_t) = name(plugin, "grow");
        size_t (*room)(char *) = name(plugin, "room");
        char *(*aligned)(void) = name(plugin, "aligned");
        char *(*blank)(void) = name(plugin, "blank");
        int (*ask)(void) = name(plugin, "ask");
        for (size_t bytes = 8; bytes < 300000; bytes = bytes * 5 / 3) {
            free(give(bytes));
            take(malloc(bytes));
            take(calloc(1, bytes));
            take(aligned_alloc(64, bytes + 64 - bytes % 64));
            char *block = grow(malloc(bytes), bytes * 2);
            memset(block, 1, room(block));
            free(realloc(block, bytes / 2));
            take(grow(give(bytes), bytes + 1));
        }
        char *lost = give(123);
        printf("%s %d %d ", lost, ask(), room(lost) >= 123);
        char *block = aligned();
        printf("%d ", (size_t)block % 256 == 0);
        free(block);
        block = blank();
        printf("%d\n", block[0] == 0 && block[299] == 0);
        free(block);
    }
    return 0;
}

#endif
