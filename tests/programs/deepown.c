/* Has a malloc of its own and loads deepbind.c's library, which keeps to libc's. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static _Alignas(16) char space[1 << 20];
static size_t used;

void *malloc(size_t bytes) {
    size_t *block = (size_t *)(space + used);
    used += (bytes + 31) & ~(size_t)15;
    if (used > sizeof space)
        return NULL;
    *block = bytes;
    return block + 2;
}

void free(void *block) { (void)block; }

void *calloc(size_t count, size_t bytes) { return malloc(count * bytes); }

void *realloc(void *old, size_t bytes) {
    void *block = malloc(bytes);
    if (old && block) {
        size_t before = *(size_t *)((char *)old - 16);
        memcpy(block, old, before < bytes ? before : bytes);
    }
    return block;
}

int main(int count, char **arguments) {
    (void)count;
    void *plugin = dlopen(arguments[1], RTLD_NOW | RTLD_DEEPBIND);
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    char *(*give)(size_t) = dlsym(plugin, "give");
    void (*take)(char *) = dlsym(plugin, "take");
    char *block = give(20);
    /* glibc's word before a block: its chunk's size and flags. */
    puts((((size_t *)block)[-1] & ~(size_t)7) == 32 ? "libc's" : "not libc's");
    take(block);
    return 0;
}
