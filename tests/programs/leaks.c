/* Blocks of every class, lost and kept by functions that say so.
 *
 *   leaks HOW         how it ends, or what threads it has: return exit _exit quick_exit,
 *                     threads blocked busy
 *   leaks HOW END     threads, and another end: abort crash wait resign */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct node {
    struct node *left, *right;
    char more[48];
};

/* Not static: what is only written must stay. */
void *global;
void *past;
char *inner;
_Thread_local void *local;
void **mapped;
uintptr_t tagged;
void **kept_table;

#define APART __attribute__((noinline, noclone))

/* Each maker has its own function, so that its blocks have a site of their own. */
APART static struct node *chain_head(struct node *next) { struct node *n = malloc(64); memset(n, 0, 64); n->left = next; return n; }
APART static struct node *chain_tail(struct node *next) { struct node *n = malloc(64); memset(n, 0, 64); n->left = next; return n; }
APART static struct node *ring_member(void) { struct node *n = malloc(48); memset(n, 0, 48); return n; }
APART static void *single(void) { return calloc(3, 11); }
APART static void *of_part(void) { return calloc(3, 11); }
APART static void *of_global(void) { return calloc(1, 100); }
APART static void *of_both(void) { return calloc(1, 109); }
APART static void *of_tls(void) { return calloc(1, 101); }
APART static void *of_map(void) { return calloc(1, 102); }
APART static void *of_heap(void) { return calloc(1, 103); }
APART static void *of_table(size_t size) { return calloc(1, size); }
APART static char *of_middle(void) { return calloc(1, 104); }
APART static void *of_tag(void) { return calloc(1, 105); }
APART static void *of_past(void) { return calloc(1, 96); }
APART static void *of_stack(void) { return calloc(1, 106); }
APART static void *of_specific(void) { return calloc(1, 107); }
APART static void *of_large(void) { return calloc(1, 3 << 20); }
APART static void *of_slack(void) { return calloc(1, 108); }

/* Overwrites what calls left below. */
APART static void wipe(void)
{
    volatile char room[8192];
    memset((char *)room, 0, sizeof room);
}

APART static void lose(void)
{
    for (int i = 0; i < 5; i++)
        global = single(); /* definite: 5 of 33 bytes */
    struct node *last = NULL;
    for (int i = 0; i < 9; i++)
        last = chain_tail(last);
    global = chain_head(last); /* definite 1, indirect 9 */
    struct node *ring[4];
    for (int i = 0; i < 4; i++)
        ring[i] = ring_member();
    for (int i = 0; i < 4; i++)
        ring[i]->right = ring[(i + 1) % 4]; /* definite 1, indirect 3 */
    memset(ring, 0, sizeof ring);
    global = NULL;
}

APART static void keep(void)
{
    global = of_global();
    for (int i = 0; i < 2; i++)
        ((void **)global)[1] = of_both(); /* the first definite, the second reachable */
    local = of_tls();
    mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mapped[17] = of_map();
    kept_table = of_table(sizeof(void *) * 100);
    for (int i = 0; i < 100; i++)
        kept_table[i] = of_heap();
    inner = of_middle() + 40;              /* possible 1 */
    tagged = (uintptr_t)of_tag() ^ (uintptr_t)-1; /* definite 1: hidden */
    past = (char *)of_past() + 96; /* one past its end: definite 1 */
    pthread_key_t key;
    pthread_key_create(&key, NULL);
    pthread_setspecific(key, of_specific());
    void **large = of_large();
    large[(2 << 20) / 8] = of_part(); /* reachable, in the middle of a large block */
    mapped[18] = large;
    char *slack = of_slack();
    /* 108 bytes asked for: what lies behind is not the program's. */
    mapped[19] = slack;
}

static void *hold(void *arg)
{
    void *volatile block = of_stack();
    int *pipe_ends = arg;
    char byte = 1;
    if (write(pipe_ends[1], &byte, 1) == 1)
        for (;;)
            pause();
    return block;
}

/* As programs do that clean up first. */
static void resign(int number)
{
    signal(number, SIG_DFL);
    raise(number);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "return";
    const char *end = argc > 2 ? argv[2] : how;
    if (strcmp(end, "resign") == 0)
        signal(SIGTERM, resign);
    lose();
    keep();
    wipe();
    if (strcmp(how, "threads") == 0 || strcmp(how, "blocked") == 0 || strcmp(how, "busy") == 0) {
        sigset_t all;
        sigfillset(&all);
        if (strcmp(how, "blocked") == 0)
            pthread_sigmask(SIG_BLOCK, &all, NULL);
        for (int i = 0; i < 3; i++) {
            int ends[2];
            pthread_t id;
            char byte;
            if (pipe(ends) != 0 || pthread_create(&id, NULL, hold, ends) != 0 || read(ends[0], &byte, 1) != 1)
                return 9;
        }
    }
    wipe();
    puts("planted");
    fflush(stdout);
    if (strcmp(how, "busy") == 0) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        while (poll(&in, 1, 1) == 0)
            for (int i = 0; i < 100; i++)
                free(malloc(24));
    }
    if (strcmp(end, "_exit") == 0)
        _exit(0);
    if (strcmp(end, "quick_exit") == 0)
        quick_exit(0);
    if (strcmp(end, "exit") == 0)
        exit(0);
    if (strcmp(end, "abort") == 0)
        abort();
    if (strcmp(end, "crash") == 0)
        *(volatile int *)16 = 1; /* site: crash */
    while (strcmp(end, "wait") == 0 || strcmp(end, "resign") == 0)
        pause();
    return 0;
}
