/* Runs a command and prints what it cost; or runs it many times.
 *
 *   measure OUT CMD...       appends "wall_ns cpu_ns peak_kib status" to file OUT
 *   measure -N OUT CMD...    the same for N runs in a row: sums, the highest peak
 *
 * A process of its own because a child's peak begins at its parent's at fork:
 * this one is smaller than anything it measures. */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long ns(struct timeval t)
{
    return t.tv_sec * 1000000000LL + t.tv_usec * 1000LL;
}

int main(int argc, char **argv)
{
    long runs = 1;
    if (argc > 1 && argv[1][0] == '-') {
        runs = -atol(argv[1]);
        argv++, argc--;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: measure [-N] OUT CMD...\n");
        return 2;
    }
    /* What is to be preloaded is for the command, not for us. */
    char *preload = getenv("MEASURE_PRELOAD");
    if (preload && *preload)
        setenv("LD_PRELOAD", preload, 1);
    unsetenv("MEASURE_PRELOAD");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long long wall = now(), cpu = 0, peak = 0;
    int status = 0;
    for (long run = 0; run < runs; run++) {
        pid_t pid;
        if (posix_spawnp(&pid, argv[2], NULL, NULL, argv + 2, environ) != 0) {
            perror(argv[2]);
            return 127;
        }
        struct rusage use;
        if (wait4(pid, &status, 0, &use) != pid)
            return 2;
        cpu += ns(use.ru_utime) + ns(use.ru_stime);
        if (use.ru_maxrss > peak)
            peak = use.ru_maxrss;
        if (status != 0)
            break;
    }
    wall = now() - wall;
    FILE *out = fopen(argv[1], "a");
    if (!out)
        return 2;
    fprintf(out, "%lld %lld %lld %d\n", wall, cpu, peak, status);
    return fclose(out) != 0;
}
