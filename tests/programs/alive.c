// Blocks that are held in each way, by chains a person can tell. Prints where they are and waits for
// its standard input to end; with an argument it allocates meanwhile.
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct entry { struct entry *next; char text[24]; };
struct cache { uint64_t used; struct entry *first; char rest[48]; };

struct cache *cache;
static __thread struct entry *volatile mine;
static pthread_barrier_t barrier;

#define APART __attribute__((noinline))

APART static struct entry *entry_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *tls_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *stack_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *mapped_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *inside_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *lost_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *hanging_new(void) { return calloc(1, sizeof(struct entry)); }
APART static struct entry *long_new(void) { return calloc(1, sizeof(struct entry)); }
APART static void cache_insert(struct entry *entry) {
    cache = calloc(1, sizeof *cache);
    cache->first = entry;
}

static void say(const char *what, void *block) { printf("%s %p\n", what, block); }

// Words left over on the stack would hold what is to be lost.
APART static void wipe(void) {
    volatile char room[16384];
    memset((char *)room, 0, sizeof room);
}

char *inside;
struct entry *list;

APART static void make(void) {
    struct entry *entry = entry_new();
    entry->next = entry_new();
    cache_insert(entry);
    say("entry", entry->next);
    inside = (char *)inside_new() + 8;
    say("inside", inside - 8);
    struct entry *lost = lost_new();
    lost->next = hanging_new();
    say("lost", lost);
    say("hanging", lost->next);
    void **page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[9] = mapped_new();
    say("mapped", page[9]);
    for (int i = 0; i < 200; i++) {
        struct entry *next = long_new();
        if (i == 0) say("long", next);
        next->next = list;
        list = next;
    }
}

static void *worker(void *unused) {
    (void)unused;
    mine = tls_new();
    say("tls", mine);
    struct entry *volatile held = stack_new();
    say("stack", held);
    wipe();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return held->next;
}

int main(int argc, char **argv) {
    (void)argv;
    setvbuf(stdout, 0, _IONBF, 0);
    pthread_barrier_init(&barrier, 0, 2);
    pthread_t thread;
    pthread_create(&thread, 0, worker, 0);
    pthread_setname_np(thread, "worker");
    make();
    wipe();
    pthread_barrier_wait(&barrier);
    void *gone = malloc(2000);
    say("gone", gone);
    free(gone);
    printf("ready\n");
    struct pollfd input = {.fd = 0, .events = POLLIN};
    char byte;
    do {
        // Who allocates sees what is asked of the process.
        for (int i = 0; argc > 1 && i < 5000; i++) free(malloc(100));
        poll(&input, 1, argc > 1 ? 1 : -1);
    } while (input.revents == 0 || read(0, &byte, 1) > 0);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, 0);
    return 0;
}
