/* A storm of SIGALRM on an alternate stack while main allocates.
   With "alloc" the handler allocates too (glibc's own malloc may deadlock then). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static volatile sig_atomic_t alarms;
static int allocate;

static void on_alarm(int signal) {
    (void)signal;
    alarms++;
    if (allocate) {
        char *block = malloc(64 + (size_t)alarms % 4000);
        if (block) {
            memset(block, 3, 64);
            block = realloc(block, 5000);
        }
        free(block);
    }
}

int main(int argc, char **argv) {
    allocate = argc > 1 && strcmp(argv[1], "alloc") == 0;
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval storm = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &storm, NULL);
    unsigned char *slots[128] = {0};
    int wrong = 0;
    for (unsigned i = 0; alarms < 1500; i++) {
        unsigned slot = i * 2654435761u >> 25;
        size_t size = 32 + i * 131 % 6000;
        if (slots[slot])
            wrong += slots[slot][0] != slot || slots[slot][31] != slot;
        free(slots[slot]);
        slots[slot] = malloc(size);
        memset(slots[slot], (int)slot, 32);
    }
    struct itimerval calm = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &calm, NULL);
    for (int i = 0; i < 128; i++)
        free(slots[i]);
    printf("signals: %d wrong\n", wrong);
    return wrong != 0;
}
