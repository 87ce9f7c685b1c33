/* Sixteen coroutines on stacks of their own, switching between allocations. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

enum { COROUTINES = 16, STACK = 1 << 16 };

static ucontext_t home, contexts[COROUTINES];
static void *kept[COROUTINES];

__attribute__((noinline)) static void *coroutine_leak(void) {
    return malloc(80); /* site: coroutine_leak */
}

static void body(int id) {
    for (int round = 0; round < 200; round++) {
        char *block = malloc((size_t)(id * 100 + round + 1));
        block[0] = 1;
        swapcontext(&contexts[id], &home);
        free(block);
    }
    kept[id] = coroutine_leak();
}

int main(void) {
    void *stacks[COROUTINES];
    for (int i = 0; i < COROUTINES; i++) {
        stacks[i] = malloc(STACK);
        getcontext(&contexts[i]);
        contexts[i].uc_stack.ss_sp = stacks[i];
        contexts[i].uc_stack.ss_size = STACK;
        contexts[i].uc_link = &home;
        makecontext(&contexts[i], (void (*)(void))body, 1, i);
    }
    int switches = 0;
    for (int round = 0; round <= 200; round++)
        for (int i = 0; i < COROUTINES; i++, switches++)
            swapcontext(&home, &contexts[i]);
    for (int i = 0; i < COROUTINES; i++)
        free(stacks[i]);
    printf("coroutines: %d\n", switches);
    return 0;
}
