/* Known live bytes at sites of many sizes, made in every way there is: what
   sampling must estimate.
   sampled          plant, print, end
   sampled hold     plant, say "ready", wait for the end of standard input
   sampled fork     plant; a child plants more, frees half of the tiny ones and ends */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void *tiny_blocks[60000], *middle_blocks[3000], *large_blocks[24];
static void *aligned_blocks[600], *grown_blocks[2000], *child_blocks[3000];
static void *thread_blocks[4][10000];

NOINLINE static void *tiny(void) {
    return malloc(40); /* site: tiny */
}

NOINLINE static void *middle(void) {
    return calloc(3, 500); /* site: middle */
}

NOINLINE static void *large(void) {
    return malloc(400 << 10); /* site: large */
}

NOINLINE static void *aligned(void) {
    void *block = NULL;
    if (posix_memalign(&block, 4096, 5000) != 0) /* site: aligned */
        abort();
    return block;
}

/* Grows over slots, and once over a singleton, and ends as a slot. */
NOINLINE static void *grown(int index) {
    char *block = malloc(16);
    block[0] = (char)index;
    for (int size = 60; size < 1500; size += 180)
        block = realloc(block, (size_t)size);
    if (index % 100 == 0) {
        block = realloc(block, 200000);
        block = realloc(block, 3000000);
        block = realloc(block, 100000);
    }
    block = realloc(block, 2000); /* site: grown */
    if (block[0] != (char)index)
        abort();
    return block;
}

NOINLINE static void *in_thread(void) {
    return malloc(100); /* site: in_thread */
}

NOINLINE static void *in_child(void) {
    return malloc(1000); /* site: in_child */
}

NOINLINE static unsigned long churn(int rounds) {
    unsigned long sum = 0;
    for (int i = 0; i < rounds; i++) {
        char *block = malloc(200);
        *(volatile char *)block = (char)i;
        sum += (unsigned char)*block;
        free(block);
    }
    return sum;
}

static void *work(void *blocks) {
    void **mine = blocks;
    for (size_t i = 0; i < COUNT(thread_blocks[0]); i++)
        mine[i] = in_thread();
    return NULL;
}

/* Threads allocate; half of it is freed here, by another thread. */
static void with_threads(void) {
    pthread_t threads[COUNT(thread_blocks)];
    for (size_t i = 0; i < COUNT(threads); i++)
        if (pthread_create(&threads[i], NULL, work, thread_blocks[i]) != 0)
            abort();
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < COUNT(threads); i++)
        for (size_t j = 0; j < COUNT(thread_blocks[0]); j += 2)
            free(thread_blocks[i][j]);
}

static void child(void) {
    for (size_t i = 0; i < COUNT(child_blocks); i++)
        child_blocks[i] = in_child();
    for (size_t i = 0; i < COUNT(tiny_blocks); i += 2)
        free(tiny_blocks[i]);
    usleep(150000);
    churn(200000);
    exit(0);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < COUNT(tiny_blocks); i++)
        tiny_blocks[i] = tiny();
    for (size_t i = 0; i < COUNT(middle_blocks); i++)
        middle_blocks[i] = middle();
    for (size_t i = 0; i < COUNT(large_blocks); i++)
        large_blocks[i] = large();
    for (size_t i = 0; i < COUNT(aligned_blocks); i++)
        aligned_blocks[i] = aligned();
    for (size_t i = 0; i < COUNT(grown_blocks); i++)
        grown_blocks[i] = grown((int)i);
    with_threads();
    unsigned long sum = churn(400000);
    if (strcmp(how, "fork") == 0) {
        pid_t pid = fork();
        if (pid == 0)
            child();
        int status = 0;
        waitpid(pid, &status, 0);
        sum += (unsigned long)status;
    }
    printf("ready %lu\n", sum);
    fflush(stdout);
    if (strcmp(how, "hold") == 0)
        while (getchar() != EOF)
            ;
    return 0;
}
