/* A thread ends the process by status 5 while the first one waits, and would say so if it went on.
 *
 *   leaving WAY END    WAY: pause sleep poll select epoll sigwait altstack; END: exit _exit
 *
 * The end comes with a line on standard input, or its end. 7 blocks are lost, the first thread alone
 * holds one. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <unistd.h>

#define ALTERNATE 16384

static char *alternate;
static const char *way, *end;

__attribute__((noinline)) static void lose(void)
{
    void *volatile last;
    for (int i = 0; i < 7; i++)
        last = malloc(40);
    last = NULL;
    (void)last;
}

__attribute__((noinline)) static void *keep(void)
{
    return malloc(77);
}

static void *leave(void *unused)
{
    char byte;
    usleep(50000);
    if (read(0, &byte, 1) < 0)
        _exit(9);
    /* As Rust's standard library does when a thread other than the first ends the program. */
    if (alternate != NULL)
        munmap(alternate, ALTERNATE);
    if (strcmp(end, "exit") == 0)
        exit(5);
    _exit(5);
    return unused;
}

int main(int argc, char **argv)
{
    char room[4096];
    pthread_t thread;
    if (argc < 3)
        return 9;
    way = argv[1], end = argv[2];
    lose();
    memset(room, 0, sizeof room);
    void *volatile only = keep();
    if (strcmp(way, "altstack") == 0) {
        alternate = mmap(NULL, ALTERNATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        stack_t stack = {.ss_sp = alternate, .ss_size = ALTERNATE};
        if (sigaltstack(&stack, NULL) != 0)
            return 9;
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, leave, NULL) != 0)
        return 9;
    puts("ready");
    fflush(stdout);
    struct epoll_event event;
    if (strcmp(way, "sleep") == 0)
        sleep(1000);
    else if (strcmp(way, "poll") == 0)
        poll(NULL, 0, -1);
    else if (strcmp(way, "select") == 0)
        select(0, NULL, NULL, NULL, NULL);
    else if (strcmp(way, "epoll") == 0)
        epoll_wait(epoll_create1(0), &event, 1, -1);
    else if (strcmp(way, "sigwait") == 0)
        sigwaitinfo(&set, NULL);
    else
        pause();
    puts("the first thread goes on");
    fflush(stdout);
    free(only);
    _exit(99);
}
