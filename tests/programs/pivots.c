/* Blocks that only other stacks than a thread's own hold: of coroutines, on memory of each kind, and of
 * a signal handler.
 *
 *   pivots HOW       asleep: coroutines wait, the first thread is on its own stack
 *                    heap, mapped: the first thread is on a coroutine's stack
 *                    handler: it is in a handler, on a stack of its own
 *                    pool: it is on a coroutine's stack, another's lies below in the same memory
 *                    thread: a second thread is on a coroutine's stack, the first waits
 *   pivots HOW END   exit, wait: for standard input to end */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { STACK = 1 << 16, LARGE = 1 << 19 };

#define APART __attribute__((noinline, noclone))

static ucontext_t home, contexts[4];
static const char *end;
static void *stacks[4];

APART static void *of_coroutine(void) { return calloc(1, 140); }
APART static void *of_lost(void) { return calloc(1, 141); }
APART static void *of_caller(void) { return calloc(1, 142); }
APART static void *of_handler(void) { return calloc(1, 143); }

/* Overwrites what calls left below. */
APART static void wipe(void)
{
    volatile char space[16384];
    memset((char *)space, 0, sizeof space);
}

/* Until all is checked, or to the end. */
APART static void stay(void)
{
    wipe();
    puts("planted");
    if (strcmp(end, "exit") == 0)
        exit(0);
    for (struct pollfd in = {.fd = 0, .events = POLLIN}; poll(&in, 1, 1) == 0;)
        for (int i = 0; i < 100; i++)
            free(malloc(24));
    _exit(0);
}

/* Holds a block and goes back, or stays. */
static void body(int number, int stays)
{
    void *volatile block = of_lost();
    block = of_coroutine();
    wipe();
    if (stays)
        stay();
    swapcontext(&contexts[number], &home);
    free(block);
}

APART static void begin(int number, void *stack, size_t bytes, int stays)
{
    stacks[number] = stack;
    getcontext(&contexts[number]);
    contexts[number].uc_stack.ss_sp = stack;
    contexts[number].uc_stack.ss_size = bytes;
    contexts[number].uc_link = &home;
    makecontext(&contexts[number], (void (*)(void))body, 2, number, stays);
    void *volatile block = of_caller();
    wipe();
    swapcontext(&home, &contexts[number]);
    free(block);
}

static void *mapped(size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
}

/* Behind a page that cannot be used, as the C library's stacks. */
static char *guarded(size_t bytes)
{
    char *at = mapped(bytes + 4096);
    mprotect(at, 4096, PROT_NONE);
    return at + 4096;
}

static void handle(int number)
{
    void *volatile block = of_handler();
    stay();
    free(block);
    (void)number;
}

APART static void interrupted(void *stack)
{
    stack_t own = {.ss_sp = stack, .ss_size = STACK};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigaltstack(&own, NULL);
    sigaction(SIGUSR1, &action, NULL);
    void *volatile block = of_lost();
    block = of_caller();
    wipe();
    raise(SIGUSR1);
    free(block);
}

static void *second(void *unused)
{
    begin(3, mapped(STACK), STACK, 1);
    return unused;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "asleep";
    end = argc > 2 ? argv[2] : "exit";
    setvbuf(stdout, NULL, _IONBF, 0);
    if (strcmp(how, "handler") == 0)
        interrupted(mapped(STACK));
    pthread_t thread;
    if (strcmp(how, "thread") == 0 && pthread_create(&thread, NULL, second, NULL) == 0)
        pthread_join(thread, NULL);
    if (strcmp(how, "pool") == 0) {
        char *pool = guarded(2 * STACK);
        begin(0, pool, STACK, 0);
        begin(1, pool + STACK, STACK, 1);
    }
    begin(0, malloc(STACK), STACK, 0);
    begin(1, malloc(LARGE), LARGE, 0);
    begin(2, mapped(STACK), STACK, 0);
    if (strcmp(how, "heap") == 0)
        begin(3, malloc(STACK), STACK, 1);
    if (strcmp(how, "mapped") == 0)
        begin(3, guarded(STACK), STACK, 1);
    stay();
}
