/* scribble PLUGIN: writes over saved frame pointers and return addresses above it while it
   allocates, and puts them back. Another thread loads and unloads the plugin meanwhile,
   so that some of the words name code that is just going. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 20000, WORDS = 6 };

static volatile int stop;
static volatile uintptr_t inside_plugin;
static void *kept[ROUNDS];

static void *come_and_go(void *path) {
    while (!stop) {
        void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!plugin)
            exit(1);
        inside_plugin = (uintptr_t)dlsym(plugin, "overlay_work") + 16;
        dlclose(plugin);
    }
    return NULL;
}

static uint64_t state = 88172645463325252u;

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uintptr_t word(uintptr_t *stack) {
    switch (next() % 9) {
    case 0: return 0;
    case 1: return next();
    case 2: return next() >> 17;
    case 3: return (uintptr_t)stack + next() % 4096;
    case 4: return (uintptr_t)stack - next() % 4096;
    case 5: return (uintptr_t)stack + (next() % 512) * 8;
    case 6: return (uintptr_t)&malloc + next() % 256;
    case 7: return (uintptr_t)kept;
    default: return inside_plugin;
    }
}

__attribute__((noinline)) static void scribbled(int round) {
    volatile uintptr_t *frame = __builtin_frame_address(0);
    uintptr_t saved[WORDS];
    for (int i = 0; i < WORDS; i++)
        saved[i] = frame[i];
    /* Both words of this frame one time in two, else some of those further out. */
    int from = (int)(next() % 2) * 2, to = from + 1 + (int)(next() % (WORDS - from));
    uintptr_t *stack = (uintptr_t *)frame;
    for (int i = from; i < to; i++)
        frame[i] = word(stack);
    void *block = malloc(48); /* site: scribbled */
    for (int i = 0; i < WORDS; i++)
        frame[i] = saved[i];
    kept[round] = block;
}

__attribute__((noinline)) static void below(int round) {
    volatile char room[32];
    room[0] = 1;
    scribbled(round);
    room[1] = room[0];
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc > 1)
        pthread_create(&thread, NULL, come_and_go, argv[1]);
    for (int round = 0; round < ROUNDS; round++)
        below(round);
    stop = 1;
    if (argc > 1)
        pthread_join(thread, NULL);
    printf("scribble: done\n");
    return 0;
}
