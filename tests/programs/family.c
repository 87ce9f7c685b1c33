/* family CHILDREN: a parent, its children and a grandchild each, threads in every second, all of
 * which lose blocks of their own, wait and allocate. Ends when standard input does: each says
 * what it noticed by its status. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void *volatile kept;
static atomic_int noticed;

__attribute__((noinline)) static void lose_own(int blocks)
{
    for (int i = 0; i < blocks; i++)
        kept = malloc(48);
    kept = malloc(70);
}

static void *nap(void *unused)
{
    void *volatile held = malloc(90);
    for (;;) {
        struct timespec rest = {0, 20000000};
        if (nanosleep(&rest, NULL) != 0)
            noticed++;
        free(malloc(200));
    }
    (void)held;
    return unused;
}

/* Waits for `end` to close, and for its only `child`, if it has one. */
static int live(int number, int end, pid_t child)
{
    char room[4096];
    lose_own(number + 1);
    memset(room, 0, sizeof room);
    for (int i = 0; number % 2 && i < 3; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, nap, NULL) != 0)
            return 9;
    }
    printf("ready %d %d\n", (int)getpid(), number + 1);
    for (;;) {
        struct pollfd in = {.fd = end, .events = POLLIN};
        int answer = poll(&in, 1, 20);
        if (answer < 0)
            noticed++;
        if (answer > 0 && read(end, room, sizeof room) <= 0)
            break;
        /* Nobody else's end is heard of. */
        int status = 9;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended == child && child != 0 && status == 0)
            child = 0;
        else if (child ? ended != 0 : ended != -1 || errno != ECHILD)
            noticed++;
        free(malloc(3000));
    }
    int status = 9;
    if (child && (waitpid(child, &status, 0) < 0 || status != 0))
        noticed++;
    return noticed != 0;
}

int main(int argc, char **argv)
{
    int children = argc > 1 ? atoi(argv[1]) : 4, ends[2];
    setvbuf(stdout, NULL, _IONBF, 0);
    if (pipe(ends) != 0)
        return 9;
    for (int i = 0; i < children; i++)
        if (fork() == 0) {
            close(ends[1]);
            pid_t grandchild = fork();
            _exit(live(1 + 2 * i + (grandchild == 0), ends[0], grandchild));
        }
    close(ends[0]);
    /* The pipe closes with this process's standard input: its children see that. */
    int wrong = 0;
    char byte;
    while (read(0, &byte, 1) > 0)
        free(malloc(100));
    close(ends[1]);
    for (int i = 0; i < children; i++) {
        int status = 9;
        if (waitpid(-1, &status, 0) < 0 || status != 0)
            wrong++;
    }
    printf("wrong %d\n", wrong);
    return wrong != 0;
}
