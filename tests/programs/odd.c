/* Processes in states that a check meets seldom. Ends when standard input does.
 *
 *   odd mainless       the first thread has ended, another goes on
 *   odd unforkable     no process may be added (as root: of another user's)
 *   odd namespace      the next child begins a process id namespace; says what becomes of it, or
 *                      `cannot` where that is not allowed
 *   odd busy N         allocates on and on
 *
 * Each loses 7 blocks in `lose`, and keeps a list of N (5) by `fill`. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile lost;
static void **list;

__attribute__((noinline)) static void lose(void)
{
    for (int i = 0; i < 7; i++)
        lost = malloc(40);
    lost = NULL;
}

static void say(const char *what)
{
    puts(what);
    fflush(stdout);
}

static void wait_for_end(void)
{
    while (read(0, &(char){0}, 1) > 0)
        ;
}

static void *go_on(void *unused)
{
    usleep(50000);
    say("ready");
    wait_for_end();
    exit(0);
    return unused;
}

static void refuse_forks(void)
{
    struct rlimit none = {0, 0};
    if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        say("cannot change");
    if (setrlimit(RLIMIT_NPROC, &none) != 0 || fork() >= 0)
        say("cannot");
}

static void begin_namespace(void)
{
    int able = unshare(CLONE_NEWPID) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0;
    say(able ? "ready" : "cannot: ready");
    wait_for_end();
    pid_t child = fork();
    if (child == 0)
        _exit(getpid());
    int status = 0;
    waitpid(child, &status, 0);
    printf("forked %d child %d\n", child > 0, WEXITSTATUS(status));
}

__attribute__((noinline)) static void fill(long blocks)
{
    for (long i = 0; i < blocks; i++) {
        void **block = malloc(16);
        *block = list;
        list = block;
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    pthread_t thread;
    lose();
    fill(argc > 2 ? atol(argv[2]) : 5);
    if (strcmp(what, "mainless") == 0) {
        pthread_create(&thread, NULL, go_on, NULL);
        pthread_exit(NULL);
    }
    if (strcmp(what, "namespace") == 0) {
        begin_namespace();
        return 0;
    }
    if (strcmp(what, "unforkable") == 0)
        refuse_forks();
    say("ready");
    while (strcmp(what, "busy") == 0) {
        /* Who allocates much sees soon what is asked of it. */
        for (int i = 0; i < 5000; i++)
            free(malloc(100));
        usleep(1000);
    }
    wait_for_end();
    return 0;
}
