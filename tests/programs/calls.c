/* Known requests of the kernel.
 *
 * calls big N    N times 64 MiB, taken and freed at once by `hold_big`
 * calls fill N   N blocks of 4,096 bytes by `fill_pages`, kept
 * calls map      mappings of the program's own: `map_kept` keeps 2 of 5 ranges of 1 MiB
 * calls odd      mappings as odd as they come: refused, over each other, from a signal handler
 *                amid malloc, unmapped by a child; `map_over` keeps 1 MiB in two ranges */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile sink;

__attribute__((noinline)) static void hold_big(void)
{
    char *block = malloc((size_t)64 << 20); /* site: hold_big */
    block[0] = 1;
    sink = block;
    free(block);
}

__attribute__((noinline)) static void fill_pages(void)
{
    char *block = malloc(4096); /* site: fill_pages */
    block[0] = 1;
    sink = block;
}

__attribute__((noinline)) static char *map_kept(void)
{
    void *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* site: map_kept */
    sink = at;
    return at;
}

static int map_all(void)
{
    char *ranges[5];
    for (int i = 0; i < 5; i++) {
        ranges[i] = map_kept();
        if (ranges[i] == MAP_FAILED)
            return 1;
        ranges[i][0] = 1;
    }
    munmap(ranges[0], 1 << 20);
    munmap(ranges[1], 1 << 19);
    munmap(ranges[1] + (1 << 19), 1 << 19);
    char *grown = mremap(ranges[2], 1 << 20, 1 << 21, MREMAP_MAYMOVE);
    if (grown == MAP_FAILED || grown[0] != 1)
        return 1;
    if (mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        return 1;
    return 0;
}

__attribute__((noinline)) static char *map_over(char *at, size_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
    char *got = mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    sink = got;
    return got;
}

static volatile int handled;

/* A range of the main thread's, for the handler to come in between. */
static void at_random(int step)
{
    char *at = mmap(NULL, 4096 << (step & 3), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || munmap(at, 4096 << (step & 3)) != 0)
        abort();
}

static void on_alarm(int number)
{
    (void)number;
    char *at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        abort();
    at[0] = 1;
    if (munmap(at, 8192) != 0)
        abort();
    handled++;
}

static int map_odd(void)
{
    errno = 0;
    if (mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED || errno != EINVAL)
        return 2;
    errno = 0;
    if (munmap((void *)1, 4096) != -1 || errno != EINVAL)
        return 3;
    errno = 0;
    if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, -1, 0) != MAP_FAILED || errno != EBADF)
        return 4;
    char *range = map_over(NULL, 1 << 20);
    errno = 7;
    range[0] = 1;
    /* Its middle anew: the old is in two parts, and bytes stay what they were. */
    if (map_over(range + (1 << 18), 1 << 18) != range + (1 << 18) || range[0] != 1 || errno != 7)
        return 5;
    char *other = map_over(NULL, 1 << 16);
    char *moved = mremap(other, 1 << 16, 1 << 16, MREMAP_MAYMOVE | MREMAP_FIXED, range);
    if (moved != range || munmap(range, 1 << 16) != 0)
        return 6;
    map_over(range, 1 << 16);
    struct itimerval often = {{0, 500}, {0, 500}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &often, NULL);
    while (handled < 200) {
        void *volatile block = malloc(100 + handled);
        free(block);
        at_random(handled);
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    pid_t child = fork();
    if (child == 0) {
        munmap(range, 1 << 20);
        free(malloc(1 << 20));
        _exit(map_over(NULL, 4096) == MAP_FAILED);
    }
    int status = 1;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 7;
}

int main(int argc, char **argv)
{
    int count = argc > 2 ? atoi(argv[2]) : 0;
    if (argc > 1 && strcmp(argv[1], "map") == 0 && map_all() != 0)
        return 1;
    if (argc > 1 && strcmp(argv[1], "odd") == 0) {
        int wrong = map_odd();
        if (wrong != 0)
            return wrong;
    }
    for (int i = 0; i < count; i++) {
        if (strcmp(argv[1], "big") == 0)
            hold_big();
        else
            fill_pages();
    }
    puts("ready");
    fflush(stdout);
    return getchar() == EOF;
}
