/* Threads that would notice being stopped: sleeps, waits, arithmetic, allocations. Ends when
 * standard input does; says what was noticed.
 *
 *   bystander THREADS      5 kinds of thread in turn; 7 blocks are lost, 3 are kept */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_long noticed, naps, waits, spins, blocks;
static void *kept[3];

static void notice(const char *what)
{
    noticed++;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *nap(void *unused)
{
    for (;; naps++) {
        struct timespec rest = {0, 50000000};
        long begun = now_ms();
        if (nanosleep(&rest, NULL) != 0)
            notice("nanosleep");
        if (now_ms() - begun < 48)
            notice("a short nap");
    }
    return unused;
}

static void *wait_for_event(void *unused)
{
    int events = epoll_create1(0);
    struct epoll_event event;
    for (;; waits++)
        if (epoll_wait(events, &event, 1, 50) < 0)
            notice("epoll_wait");
    return unused;
}

static void *wait_for_byte(void *unused)
{
    int ends[2];
    char byte;
    if (pipe(ends) != 0)
        abort();
    for (;;)
        if (read(ends[0], &byte, 1) < 0)
            notice("read");
    return unused;
}

static void *reckon(void *unused)
{
    for (;; spins++) {
        double sum = 0;
        for (int i = 1; i <= 10000; i++)
            sum += 1.0 / ((double)i * i);
        if (sum < 1.64483407 || sum > 1.64483408)
            notice("arithmetic");
    }
    return unused;
}

static void *allocate(void *unused)
{
    for (;; blocks++) {
        char *first = malloc(100), *second = calloc(1, 3000);
        memset(first, 7, 100);
        for (int i = 0; i < 3000; i++)
            if (second[i] != 0)
                notice("calloc");
        free(first);
        free(second);
        usleep(200);
    }
    return unused;
}

__attribute__((noinline)) static void lose(void)
{
    for (int i = 0; i < 7; i++)
        *(void *volatile *)&kept[0] = malloc(40);
    kept[0] = NULL;
}

__attribute__((noinline)) static void keep(void)
{
    for (int i = 0; i < 3; i++)
        *(void *volatile *)&kept[i] = malloc(50);
}

int main(int argc, char **argv)
{
    void *(*kinds[])(void *) = {nap, wait_for_event, wait_for_byte, reckon, allocate};
    int threads = argc > 1 ? atoi(argv[1]) : 5;
    char room[4096];
    lose();
    keep();
    memset(room, 0, sizeof room);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, kinds[i % 5], NULL) != 0)
            return 9;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        int answer = poll(&in, 1, 100);
        if (answer < 0)
            notice("poll");
        if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
            notice("a child nobody made");
        if (answer > 0 && read(0, room, sizeof room) <= 0)
            break;
    }
    int lively = naps > 0 && (threads < 2 || waits > 0) && (threads < 4 || spins > 0) && (threads < 5 || blocks > 0);
    printf("noticed %ld lively %d\n", (long)noticed, lively);
    fflush(stdout);
    _exit(noticed != 0 || !lively);
}
