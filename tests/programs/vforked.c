/* A thread that cannot be stopped for now: it waits for the child it made by vfork. Ends when
 * standard input does.
 *
 *   vforked NODES      a list of so many blocks in random order; 7 blocks are lost
 *
 * go                the child ends: "back" */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node {
    struct node *next;
    char room[56];
};

static struct node *list;
static int ends[2];

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

static void link_nodes(size_t count)
{
    struct node **all = malloc(count * sizeof *all);
    unsigned long random = 88172645463325252;
    for (size_t i = 0; i < count; i++)
        all[i] = malloc(sizeof **all);
    for (size_t i = count; i-- > 0;) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t other = random % (i + 1);
        struct node *node = all[other];
        all[other] = all[i];
        node->next = list;
        list = node;
    }
    free(all);
}

static void *wait_for_child(void *unused)
{
    void *volatile only = keep();
    puts("ready");
    fflush(stdout);
    if (vfork() == 0) {
        char byte;
        while (read(ends[0], &byte, 1) < 0)
            ;
        _exit(0);
    }
    puts("back");
    fflush(stdout);
    free(only);
    return unused;
}

int main(int argc, char **argv)
{
    char line[64];
    pthread_t thread;
    lose();
    memset(line, 0, sizeof line);
    link_nodes(argc > 1 ? strtoul(argv[1], NULL, 10) : 0);
    if (pipe(ends) != 0 || pthread_create(&thread, NULL, wait_for_child, NULL) != 0)
        return 9;
    while (fgets(line, sizeof line, stdin) != NULL)
        if (write(ends[1], "", 1) != 1)
            return 8;
    _exit(0);
}
