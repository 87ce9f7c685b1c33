/* idle WHAT: frees 1 GiB of mixed blocks (16 B to 256 KiB), then prints its RSS in KiB.
   trim: after malloc_trim(0). light: after 2 s of a few allocations a millisecond.
   pair: after 2 s of the same one allocation. remote: as light, but another thread frees.
   dead: as light, but the threads that allocated are gone. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TOTAL = 1 << 30, THREADS = 4 };
struct share {
    char **blocks;
    size_t count, bytes;
    unsigned long seed;
};

static unsigned long next(unsigned long *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static long resident_kib(void) {
    long pages = 0, all;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &all, &pages) != 2)
        return -1;
    fclose(file);
    return pages * 4;
}

/* As many bytes of each doubling, so that small blocks weigh as much as large ones. */
static void *fill(void *argument) {
    struct share *share = argument;
    size_t room = 32u << 20, used = 0;
    share->blocks = malloc(room * sizeof(char *) / THREADS);
    for (int doubling = 4; doubling < 18; doubling++)
        for (size_t bytes = 0; bytes < share->bytes / 14;) {
            size_t size = ((size_t)1 << doubling) + next(&share->seed) % ((size_t)1 << doubling);
            char *block = malloc(size);
            if (!block)
                abort();
            for (size_t at = 0; at < size; at += 4096)
                block[at] = 1;
            share->blocks[used++] = block;
            bytes += size;
        }
    share->count = used;
    return NULL;
}

static void *drop(void *argument) {
    struct share *share = argument;
    for (size_t i = 0; i < share->count; i++) {
        size_t other = i + next(&share->seed) % (share->count - i);
        char *block = share->blocks[other];
        share->blocks[other] = share->blocks[i];
        free(block);
    }
    free(share->blocks);
    return NULL;
}

static void be_active(int mixed) {
    unsigned long seed = 99;
    struct timespec pause = {0, 1000000}, start, now;
    char *kept[64] = {0};
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (int i = 0; i < 4; i++) {
            int at = (int)(next(&seed) % 64);
            free(kept[at]);
            kept[at] = mixed ? malloc(16 + next(&seed) % 4000) : NULL;
            char *volatile block = malloc(100);
            free(block);
        }
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 2000);
    for (int at = 0; at < 64; at++)
        free(kept[at]);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "trim";
    int threads = strcmp(what, "dead") == 0 ? THREADS : 1;
    int remote = strcmp(what, "remote") == 0;
    struct share shares[THREADS] = {0};
    pthread_t ids[THREADS];
    for (int i = 0; i < threads; i++) {
        shares[i].bytes = TOTAL / threads;
        shares[i].seed = 77 + i;
        if (threads == 1)
            fill(&shares[i]);
        else
            pthread_create(&ids[i], NULL, fill, &shares[i]);
    }
    for (int i = 0; i < threads && threads > 1; i++)
        pthread_join(ids[i], NULL);
    long full = resident_kib();
    for (int i = 0; i < threads; i++) {
        if (remote) {
            pthread_create(&ids[i], NULL, drop, &shares[i]);
            pthread_join(ids[i], NULL);
        } else
            drop(&shares[i]);
    }
    long freed = resident_kib();
    if (strcmp(what, "trim") == 0)
        malloc_trim(0);
    else
        be_active(strcmp(what, "pair") != 0);
    fprintf(stderr, "full %ld freed %ld\n", full, freed);
    printf("%ld\n", resident_kib());
    return 0;
}
