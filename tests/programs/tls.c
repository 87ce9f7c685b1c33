/* Blocks that only thread-local places hold which the loader or libc makes late: variables of libraries
 * it opens, and thread-specific values beyond the first; of the first thread and of one that runs.
 *
 *   tls alone|threads WAY LIBRARY...     ends by WAY: return, _exit; wait: when its standard input does */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYS = 100, LIBRARIES_MAX = 4 };

#define APART __attribute__((noinline, noclone))

static void (*keep[LIBRARIES_MAX])(void);
static unsigned long (*held[LIBRARIES_MAX])(void);
static int libraries;
static pthread_key_t keys[KEYS];
static atomic_int ready;

APART static void *of_first_key(void) { return calloc(1, 130); }
APART static void *of_late_key(void) { return calloc(1, 131); }
APART static void *of_lost_key(void) { return calloc(1, 132); }

/* Overwrites what calls left below. */
APART static void wipe(void)
{
    volatile char space[16384];
    memset((char *)space, 0, sizeof space);
}

APART static void plant(const char *who)
{
    for (int i = 0; i < libraries; i++) {
        keep[i]();
        printf("%s%d 0x%lx\n", who, i, ~held[i]());
    }
    pthread_setspecific(keys[3], of_first_key());
    pthread_setspecific(keys[KEYS - 1], of_lost_key());
    pthread_setspecific(keys[KEYS - 1], of_late_key());
}

static void *run(void *unused)
{
    plant("thread");
    wipe();
    for (ready = 1;;)
        ;
    return unused;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int i = 3; i < argc && libraries < LIBRARIES_MAX; i++, libraries++) {
        void *library = dlopen(argv[i], RTLD_NOW);
        if (library == NULL)
            return puts(dlerror()), 9;
        keep[libraries] = (void (*)(void))dlsym(library, "plug_keep");
        held[libraries] = (unsigned long (*)(void))dlsym(library, "plug_held");
    }
    for (int i = 0; i < KEYS; i++)
        if (pthread_key_create(&keys[i], NULL) != 0)
            return 9;
    pthread_t thread;
    if (strcmp(argv[1], "threads") == 0 && pthread_create(&thread, NULL, run, NULL) != 0)
        return 9;
    while (strcmp(argv[1], "threads") == 0 && !ready)
        usleep(1000);
    plant("main");
    wipe();
    puts("planted");
    if (strcmp(argv[2], "_exit") == 0)
        _exit(0);
    /* Who allocates sees what is asked of the process. */
    for (struct pollfd in = {.fd = 0, .events = POLLIN}; strcmp(argv[2], "wait") == 0 && poll(&in, 1, 1) == 0;)
        for (int i = 0; i < 100; i++)
            free(malloc(24));
    return 0;
}
