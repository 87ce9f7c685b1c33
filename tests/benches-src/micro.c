/* Small loops over malloc and free; prints "ns-per-operation peak-VM-KiB peak-RSS-KiB".
 *
 *   micro NAME OPERATIONS [THREADS]
 *
 * An operation is one malloc and one free. Time is CPU time of the process,
 * because the machine may have other work. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

/* Kept out of sight of the optimiser. */
static void *volatile sink;

static void *get(size_t bytes)
{
    char *block = malloc(bytes);
    if (!block)
        abort();
    *block = 1;
    return block;
}

/* Sizes as programs ask for: most are small. */
static size_t small_size(uint64_t *state)
{
    uint64_t r = next(state);
    return 16 + (r & 63) * ((r >> 8 & 3) ? 2 : 8);
}

static void pair(size_t bytes, long count)
{
    for (long i = 0; i < count; i++) {
        sink = get(bytes);
        free(sink);
    }
}

static void batch(long count)
{
    enum { BATCH = 10000 };
    static void *blocks[BATCH];
    uint64_t seed = 88172645463325252ull;
    for (long done = 0; done < count; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            blocks[i] = get(small_size(&seed));
        for (int i = 0; i < BATCH; i++)
            free(blocks[i]);
    }
}

static void replace(long count, size_t live)
{
    void **blocks = calloc(live, sizeof *blocks);
    uint64_t seed = 88172645463325252ull;
    for (long i = 0; i < count; i++) {
        size_t at = next(&seed) % live;
        free(blocks[at]);
        blocks[at] = get(small_size(&seed));
    }
    for (size_t i = 0; i < live; i++)
        free(blocks[i]);
    free(blocks);
}

/* A million blocks made, then freed in random order: every free misses the cache. */
static double cold(long count)
{
    void **blocks = malloc(count * sizeof *blocks);
    uint64_t seed = 88172645463325252ull;
    for (long i = 0; i < count; i++)
        blocks[i] = get(64);
    for (long i = count - 1; i > 0; i--) {
        size_t at = next(&seed) % (i + 1);
        void *other = blocks[at];
        blocks[at] = blocks[i];
        blocks[i] = other;
    }
    double start = cpu_now();
    for (long i = 0; i < count; i++)
        free(blocks[i]);
    double end = cpu_now();
    free(blocks);
    return end - start;
}

static void growth(long count)
{
    for (long done = 0; done < count;) {
        char *block = NULL;
        for (size_t bytes = 16; bytes < 256 * 1024; bytes += bytes / 2, done++) {
            block = realloc(block, bytes);
            if (!block)
                abort();
            block[bytes - 1] = 1;
        }
        free(block);
    }
}

static void large(long count)
{
    enum { LIVE = 32 };
    static char *blocks[LIVE];
    uint64_t seed = 88172645463325252ull;
    for (long i = 0; i < count; i++) {
        size_t at = next(&seed) % LIVE;
        size_t bytes = (64 * 1024) + next(&seed) % (960 * 1024);
        free(blocks[at]);
        blocks[at] = get(bytes);
        for (size_t page = 0; page < bytes; page += 4096)
            blocks[at][page] = 1;
    }
}

/* One thread makes, the other frees, over a ring. */
enum { RING = 4096 };
static void *_Atomic ring[RING];
static long ring_count;

static void *consumer(void *unused)
{
    for (long i = 0; i < ring_count; i++) {
        void *block;
        while (!(block = atomic_load_explicit(&ring[i % RING], memory_order_acquire)))
            usleep(20);
        atomic_store_explicit(&ring[i % RING], NULL, memory_order_release);
        free(block);
    }
    return unused;
}

static void cross(long count)
{
    pthread_t thread;
    uint64_t seed = 88172645463325252ull;
    ring_count = count;
    pthread_create(&thread, NULL, consumer, NULL);
    for (long i = 0; i < count; i++) {
        void *block = get(small_size(&seed));
        while (atomic_load_explicit(&ring[i % RING], memory_order_acquire))
            usleep(20);
        atomic_store_explicit(&ring[i % RING], block, memory_order_release);
    }
    pthread_join(thread, NULL);
}

/* Larson's server: each thread replaces blocks in a set, and hands the set to
 * a successor now and then, so that blocks outlive the thread that made them. */
enum { SET = 1000, ROUNDS = 8 };
struct server {
    void *blocks[SET];
    uint64_t seed;
    long count;
};

static void *serve(void *argument)
{
    struct server *server = argument;
    for (long i = 0; i < server->count; i++) {
        size_t at = next(&server->seed) % SET;
        free(server->blocks[at]);
        server->blocks[at] = get(small_size(&server->seed));
    }
    return NULL;
}

static void larson(long count, int threads)
{
    struct server *servers = calloc(threads, sizeof *servers);
    pthread_t *ids = calloc(threads, sizeof *ids);
    for (int t = 0; t < threads; t++)
        servers[t].seed = 88172645463325252ull + t * 7919;
    for (int round = 0; round < ROUNDS; round++) {
        for (int t = 0; t < threads; t++) {
            servers[t].count = count / threads / ROUNDS;
            pthread_create(&ids[t], NULL, serve, &servers[t]);
        }
        for (int t = 0; t < threads; t++)
            pthread_join(ids[t], NULL);
    }
    free(ids);
    for (int t = 0; t < threads; t++)
        for (int i = 0; i < SET; i++)
            free(servers[t].blocks[i]);
    free(servers);
}

static long status(const char *field)
{
    char line[256];
    long value = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0)
            value = atol(line + strlen(field));
    if (file)
        fclose(file);
    return value;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    const char *name = argv[1];
    long count = atol(argv[2]);
    double spent = 0, start = cpu_now();
    if (strncmp(name, "pair-", 5) == 0)
        pair(atol(name + 5), count);
    else if (strcmp(name, "batch") == 0)
        batch(count);
    else if (strcmp(name, "random-1k") == 0)
        replace(count, 1000);
    else if (strcmp(name, "random-100k") == 0)
        replace(count, 100000);
    else if (strcmp(name, "cold") == 0)
        spent = cold(count);
    else if (strcmp(name, "realloc") == 0)
        growth(count);
    else if (strcmp(name, "large") == 0)
        large(count);
    else if (strcmp(name, "cross") == 0)
        cross(count);
    else if (strcmp(name, "larson") == 0)
        larson(count, argc > 3 ? atoi(argv[3]) : 2);
    else
        return 2;
    if (spent == 0)
        spent = cpu_now() - start;
    printf("%.3f %ld %ld\n", spent / (count ? count : 1), status("VmPeak:"), status("VmHWM:"));
    return 0;
}
