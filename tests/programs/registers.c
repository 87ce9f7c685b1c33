/* Blocks that nothing but registers hold: a pointer is kept inverted, and only a register has it
 * as it is. For each register one more block, whose pointer the register had before.
 *
 *   registers HOW     sleep (the first thread, in a system call), spin (a second thread, which fills all
 *                     registers), exit, _exit, crash */
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALL = 15 };

/* Where they are, inverted; first those that are lost. */
uintptr_t before[ALL], hidden[ALL];
char room[64];
static const char *const names[ALL] = {"rbx", "rbp", "r12", "r13", "r14", "r15", "rax", "rcx",
                                       "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"};

#define APART __attribute__((noinline, noclone))
#define TAKE(number, name) \
    "mov before+8*" #number "(%rip), %" #name "\n not %" #name "\n" \
    "mov hidden+8*" #number "(%rip), %" #name "\n not %" #name "\n"
/* Registers that a call leaves as they are. */
#define TAKE_KEPT TAKE(0, rbx) TAKE(1, rbp) TAKE(2, r12) TAKE(3, r13) TAKE(4, r14) TAKE(5, r15)
#define TAKE_ALL TAKE_KEPT TAKE(6, rax) TAKE(7, rcx) TAKE(8, rdx) TAKE(9, rsi) TAKE(10, rdi) \
    TAKE(11, r8) TAKE(12, r9) TAKE(13, r10) TAKE(14, r11)

APART static void *of_register(void) { return calloc(1, 200); }
APART static void *of_before(void) { return calloc(1, 201); }

APART static void plant(int count)
{
    for (int i = 0; i < count; i++) {
        before[i] = ~(uintptr_t)of_before();
        hidden[i] = ~(uintptr_t)of_register();
        printf("%s 0x%lx\n", names[i], ~hidden[i]);
    }
}

/* Overwrites what calls left below. */
APART static void wipe(void)
{
    volatile char space[16384];
    memset((char *)space, 0, sizeof space);
}

/* Reads until its input ends, then is done with it all. */
__attribute__((naked)) static void asleep(void)
{
    __asm__(TAKE_KEPT
            "1: xor %eax, %eax\n xor %edi, %edi\n lea room(%rip), %rsi\n mov $64, %edx\n syscall\n"
            "test %rax, %rax\n jg 1b\n"
            "mov $231, %eax\n xor %edi, %edi\n syscall\n ud2");
}

__attribute__((naked)) static void *spinning(void *unused)
{
    __asm__(TAKE_ALL "1: pause\n jmp 1b");
}

__attribute__((naked)) static void exits(void)
{
    __asm__(TAKE_KEPT "and $-16, %rsp\n xor %edi, %edi\n call exit@PLT\n ud2");
}

__attribute__((naked)) static void exits_at_once(void)
{
    __asm__(TAKE_KEPT "and $-16, %rsp\n xor %edi, %edi\n call _exit@PLT\n ud2");
}

__attribute__((naked)) static void crashes(void)
{
    __asm__(TAKE_ALL "movl $1, 16\n ud2");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "exit";
    int all = strcmp(how, "spin") == 0 || strcmp(how, "crash") == 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    plant(all ? ALL : 6);
    wipe();
    if (strcmp(how, "spin") == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, spinning, NULL) != 0)
            return 9;
        usleep(1000);
        puts("planted");
        /* Who allocates sees what is asked of the process. */
        for (struct pollfd in = {.fd = 0, .events = POLLIN}; poll(&in, 1, 1) == 0;)
            for (int i = 0; i < 100; i++)
                free(malloc(24));
        _exit(0);
    }
    puts("planted");
    wipe();
    if (strcmp(how, "sleep") == 0)
        asleep();
    if (strcmp(how, "_exit") == 0)
        exits_at_once();
    if (strcmp(how, "crash") == 0)
        crashes();
    exits();
}
